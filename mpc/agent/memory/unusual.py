"""Warnings of experience that can hardly be learnt from, and observations that are taken for faults of a sensor.

    rewards        far larger or smaller than 1
    observations   none of whose numbers varies; a number that jumps away from all before, once
    episodes       that all end after one step; or none that ends

Each is told of once, with the quantity, and learning goes on.
"""

import warnings

import gymnasium
import numpy as np

from world_models.data.normalisation import ROUNDING

LARGE, SMALL = 1e5, 1e-5
"""Sizes of rewards beyond which their unit was hardly chosen on purpose."""
LEAST_STEPS = 100
"""Steps from which on experience counts as unusual."""
ENDLESS = 1_000
"""Steps without the end of an episode that are unusual where an environment sets no limit: Gymnasium's longest."""
FAR = 1e6
"""Times the range of a number so far that a jump leads away from it."""
LEAST_RANGE = 1e-4
"""Least range of a number, relative to the largest range among all that come together: a constant may begin to vary."""
KNOWN = 10
"""Observations from which on ranges are known."""
JUMPS = 2
"""Jumps of a number that count as faults; what happens again is no fault."""


class UnusualExperience(UserWarning):
    """Experience that can hardly be learnt from, or that was left out."""


class UnusualMonitor:
    """Notices unusual experience, and warns once of each kind.

    Args:
        env: The environments; None for an agent without any.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv | None) -> None:
        self._warned: set[str] = set()
        self._endless = env is not None and _limit(env) is None
        self._low = self._high = self._jumps = np.zeros(0)
        self._seen = 0
        self._episodes = self._longest = 0
        self._paid, self._rewards = 0.0, 0

    def without_jumps(self, observations: np.ndarray, timesteps: int) -> np.ndarray:
        """Return observations `[E, O]`, with NaN in place of those that a number jumped away in; others as they are.

        Args:
            observations: The newest ones.
            timesteps: Environment steps so far.
        """
        if observations.ndim != 2 or not np.issubdtype(observations.dtype, np.floating):
            return observations
        if self._seen == 0:
            self._low, self._high = np.full((2, observations.shape[1]), [[np.inf], [-np.inf]])
            self._jumps = np.zeros(observations.shape[1], int)
        far = np.zeros(observations.shape, bool)
        if self._seen >= KNOWN:
            ranges = self._high - self._low
            unit = np.maximum(ranges, LEAST_RANGE * ranges.max(initial=0.0))
            apart = np.maximum(self._low - observations, observations - self._high)
            far = np.isfinite(observations) & (apart > FAR * unit) & (unit > 0) & (self._jumps < JUMPS)
            self._jumps += far.any(axis=0)
        jumped = far.any(axis=1, keepdims=True)
        kept = np.where(jumped | ~np.isfinite(observations), np.nan, observations)
        if not np.isnan(kept).all():
            self._low = np.fmin(self._low, np.nanmin(kept, axis=0, initial=np.inf))
            self._high = np.fmax(self._high, np.nanmax(kept, axis=0, initial=-np.inf))
        self._seen += len(observations)
        if not jumped.any():
            return observations
        self._warn(
            "jump",
            f"numbers {np.flatnonzero(far.any(axis=0)).tolist()} of an observation jumped to {observations[far].tolist()} "
            f"after {timesteps} steps, over {FAR:.0e} times their range before: that is taken for a fault of a sensor and "
            "not learnt from, unless it happens again",
        )
        return np.where(jumped, np.nan, observations).astype(observations.dtype)

    def ended(self, lengths: np.ndarray) -> None:
        """Note the lengths of the episodes that ended."""
        self._episodes += len(lengths)
        self._longest = max(self._longest, int(lengths.max(initial=0)))
        if self._episodes >= LEAST_STEPS and self._longest == 1:
            self._warn("short", f"all of {self._episodes} episodes ended after 1 step: there is nothing to plan ahead for")

    def stepped(self, rewards: np.ndarray, steps: int) -> None:
        """Look at what there is after a step.

        Args:
            rewards: Of the step, of the environments that took one.
            steps: Of the call so far, over all environments.
        """
        rewards = np.abs(rewards[np.isfinite(rewards) & (rewards != 0)])
        self._paid, self._rewards = self._paid + float(rewards.sum()), self._rewards + len(rewards)
        if self._endless and not self._episodes and steps >= ENDLESS:
            self._warn(
                "endless",
                f"no episode has ended in {steps} steps, and the environment sets no max_episode_steps: returns are told of "
                "when episodes end, so wrap it in gymnasium.wrappers.TimeLimit if it never ends one",
            )
        if steps < LEAST_STEPS:
            return
        size = self._paid / max(self._rewards, 1)
        if size > LARGE or 0 < size < SMALL:
            self._warn(
                "reward",
                f"rewards have a size of {size:.1e}: they are learnt in units of it, so learning goes on, but sums of them "
                "are rounded and other costs are weighed in these units; have the environment return them nearer to 1",
            )
        if self._low.size and not (self._high - self._low > ROUNDING * np.abs(self._high)).any():
            self._warn(
                "constant",
                f"observations are constant: none of their {self._low.size} numbers has varied in {steps} steps, so that "
                "states cannot be told apart",
            )

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(text, UnusualExperience, stacklevel=4)


def _limit(env: gymnasium.vector.VectorEnv) -> int | None:
    """The steps after which the environments truncate episodes, as far as they tell."""
    specs = [getattr(part, "spec", None) for part in (env, *getattr(env, "envs", ()))]
    limits = [spec.max_episode_steps for spec in specs if spec is not None and spec.max_episode_steps is not None]
    return limits[0] if limits else None
