"""Rows for a replay buffer, made of the steps of vector environments, whichever way they restart episodes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from world_models.data.replay_buffer import Rows


class Recorder:
    """Turn the stream of a Gymnasium vector environment into rows, whichever way it restarts episodes.

    | autoreset mode | after an episode ends |
    |---|---|
    | `NextStep` | the next step ignores its action and returns the first observation: it is no transition |
    | `SameStep` | the same step returns the first observation; the last one is in `infos["final_obs"]` |
    | `Disabled` | the caller resets, `env.reset(options={"reset_mask": ended})`, and tells `reset` below |

    Each call returns what to `append`, in order, as `(rows, write)` pairs:

        for rows, write in recorder.step(actions, *env.step(actions)):
            buffer = append(buffer, rows, write)

    A new recorder never links its rows to those already in a buffer, so a run that was cut short may simply
    go on. An observation or a reward that is not finite is stored as zeros that no transition touches: a broken
    sensor must not teach anything.

    Args:
        autoreset_mode: `env.metadata["autoreset_mode"]`, a `gymnasium.vector.AutoresetMode` or its value.

    Raises:
        ValueError: If there is no such mode.

    Source: https://gymnasium.farama.org/api/vector/#autoreset
    """

    def __init__(self, autoreset_mode: Any):
        self.mode = getattr(autoreset_mode, "value", autoreset_mode)
        if self.mode not in ("NextStep", "SameStep", "Disabled"):
            raise ValueError(f"autoreset mode must be NextStep, SameStep or Disabled; got {autoreset_mode!r}")
        self._current: np.ndarray | None = None  # [E, ...] the observations not yet in a row
        self._follows = np.zeros(0, bool)  # [E] whether they follow the rows written last
        self._ended = np.zeros(0, bool)  # [E] whether they are the last of their episode
        self._no_actions = np.zeros(0)  # [E, ...] zeros, of the shape of the actions seen last

    def reset(self, observations: ArrayLike, mask: ArrayLike | None = None) -> list[tuple[Rows, np.ndarray]]:
        """Begin new episodes, and close those that were under way.

        Args:
            observations: `[E, ...]`, from `env.reset`.
            mask: `[E]`, the environments that were reset; all of them when None.
        """
        observations = np.array(observations)
        mask = np.ones(len(observations), bool) if mask is None else np.array(mask, bool)
        if self._current is None:
            self._current, self._follows, self._ended = observations, np.zeros_like(mask), np.zeros_like(mask)
            return []
        writes = self._last_rows(self._current, mask)
        self._current = np.where(_along(mask, observations), observations, self._current)
        self._follows, self._ended = self._follows & ~mask, self._ended & ~mask
        return writes

    def step(
        self,
        actions: ArrayLike,
        observations: ArrayLike,
        rewards: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        infos: Mapping[str, Any],
    ) -> list[tuple[Rows, np.ndarray]]:
        """Record one step of the vector environment.

        Args:
            actions: `[E, ...]`, as given to `env.step` (or as the world model is to see them).
            observations: `[E, ...]`, and all that follows, as returned by it.
            rewards: `[E]`.
            terminated: `[E]`.
            truncated: `[E]`.
            infos: Looked into for `final_obs` when the mode is `SameStep`.

        Raises:
            ValueError: If nothing was reset yet, an ended episode was stepped on where the caller resets, or
                `final_obs` is missing.
        """
        current = self._ready()
        actions, taken = np.asarray(actions), ~self._ended
        self._no_actions = np.zeros_like(actions)
        seen, paid = _finite(current), np.isfinite(rewards)
        rows = Rows(
            observations=np.where(_along(seen, current), current, 0),
            actions=np.where(_along(taken, actions), actions, self._no_actions),
            rewards=np.where(taken & paid, rewards, 0.0).astype(np.float32),
            terminated=np.asarray(terminated, bool) & taken,
            follows=self._follows & seen,
        )
        writes = [(rows, np.ones_like(taken))]
        ended = (np.asarray(terminated, bool) | np.asarray(truncated, bool)) & taken
        self._current, self._follows, self._ended = np.array(observations), taken & seen & paid, ended
        if self.mode == "SameStep" and ended.any():
            writes += self._last_rows(_final_observations(infos, ended, self._current), ended)
            self._follows, self._ended = self._follows & ~ended, np.zeros_like(ended)
        return writes

    def _ready(self) -> np.ndarray:
        """Return the observations the next actions are taken from."""
        if self._current is None:
            raise ValueError("step was recorded before reset: from which observation were its actions taken?")
        if self.mode == "Disabled" and self._ended.any():
            raise ValueError(f"environments {np.flatnonzero(self._ended)} ended and were not reset")
        return self._current

    def _last_rows(self, observations: np.ndarray, mask: np.ndarray) -> list[tuple[Rows, np.ndarray]]:
        """Write the last observation of episodes, which no action was taken from, if anything led to it."""
        mask = mask & self._follows & _finite(observations)
        if not mask.any():
            return []
        zeros = np.zeros(len(mask), np.float32)
        return [(Rows(observations, self._no_actions, zeros, zeros.astype(bool), self._follows), mask)]


def _finite(values: np.ndarray) -> np.ndarray:
    """`[E]` where a whole row of `[E, ...]` is finite."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def _along(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give a mask `[E]` the dimensions of `[E, ...]`, so that it selects whole rows."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - 1))


def _final_observations(infos: Mapping[str, Any], ended: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Gather the last observations of ended episodes from `infos`; the other rows are arbitrary."""
    finals = infos.get("final_obs")
    missing = ended & ~np.asarray(infos.get("_final_obs", ended), bool)
    if finals is None or missing.any():
        raise ValueError("autoreset mode is SameStep, but infos['final_obs'] lacks the last observations")
    gathered = like.copy()
    for index in np.flatnonzero(ended):
        gathered[index] = finals[index]
    return gathered
