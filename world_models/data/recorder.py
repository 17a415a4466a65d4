"""Conversion of vector environment steps to rows of a replay buffer, for every autoreset mode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from world_models.data.replay_buffer import Rows


class Recorder:
    """Converts the steps of a Gymnasium vector environment to rows.

    | autoreset mode | after an episode ends |
    |---|---|
    | `NextStep` | the next step ignores its action and returns the first observation; it is not a transition |
    | `SameStep` | the same step returns the first observation; the last one is in `infos["final_obs"]` |
    | `Disabled` | the caller calls `env.reset(options={"reset_mask": ended})` and then `reset` below |

    Each call returns `(rows, write)` pairs to `append` in order:

        for rows, write in recorder.step(actions, *env.step(actions)):
            buffer = append(buffer, rows, write)

    A new recorder never links its rows to rows already in a buffer, so an interrupted run can continue. A non-finite
    observation or reward is stored as zeros outside any transition, so a broken sensor does not affect training.

    Args:
        autoreset_mode: `env.metadata["autoreset_mode"]`, a `gymnasium.vector.AutoresetMode` or its value.

    Raises:
        ValueError: If the mode is unknown.

    Source: https://gymnasium.farama.org/api/vector/#autoreset
    """

    def __init__(self, autoreset_mode: Any) -> None:
        self.mode = getattr(autoreset_mode, "value", autoreset_mode)
        if self.mode not in ("NextStep", "SameStep", "Disabled"):
            raise ValueError(f"autoreset mode must be NextStep, SameStep or Disabled; got {autoreset_mode!r}")
        self._current: np.ndarray | None = None  # [E, ...] observations not yet written to a row
        self._follows = np.zeros(0, bool)  # [E] True if they follow the last written rows
        self._ended = np.zeros(0, bool)  # [E] True if they are the last of their episode
        self._no_actions = np.zeros(0)  # [E, ...] zeros of the shape of the last actions

    def reset(self, observations: ArrayLike, mask: ArrayLike | None = None) -> list[tuple[Rows, np.ndarray]]:
        """Starts new episodes and closes the running ones.

        Args:
            observations: `[E, ...]`, from `env.reset`.
            mask: `[E]`, environments that were reset; None means all.
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
        """Records one step of the vector environment.

        Args:
            actions: `[E, ...]`, as given to `env.step`, or in the form for the world model.
            observations: `[E, ...]`, as returned by `env.step`, like the following arguments.
            rewards: `[E]`.
            terminated: `[E]`.
            truncated: `[E]`.
            infos: Read for `final_obs` in mode `SameStep`.

        Raises:
            ValueError: Before the first reset, for a step after the end of an episode in mode `Disabled`, or if
                `final_obs` is missing.
        """
        current = self._checked_current()
        actions, taken = np.asarray(actions), ~self._ended
        self._no_actions = np.zeros_like(actions)
        valid, valid_reward = _finite(current), np.isfinite(rewards)
        rows = Rows(
            observations=np.where(_along(valid, current), current, 0),
            actions=np.where(_along(taken, actions), actions, self._no_actions),
            rewards=np.where(taken & valid_reward, rewards, 0.0).astype(np.float32),
            terminated=np.asarray(terminated, bool) & taken,
            follows=self._follows & valid,
        )
        writes = [(rows, np.ones_like(taken))]
        ended = (np.asarray(terminated, bool) | np.asarray(truncated, bool)) & taken
        self._current, self._follows, self._ended = np.array(observations), taken & valid & valid_reward, ended
        if self.mode == "SameStep" and ended.any():
            writes += self._last_rows(_final_observations(infos, ended, self._current), ended)
            self._follows, self._ended = self._follows & ~ended, np.zeros_like(ended)
        return writes

    def _checked_current(self) -> np.ndarray:
        """Returns the observations from which the next actions are taken."""
        if self._current is None:
            raise ValueError("step was called before reset: the observations before the actions are unknown")
        if self.mode == "Disabled" and self._ended.any():
            raise ValueError(f"environments {np.flatnonzero(self._ended)} ended and were not reset")
        return self._current

    def _last_rows(self, observations: np.ndarray, mask: np.ndarray) -> list[tuple[Rows, np.ndarray]]:
        """Returns rows for the last observations of episodes that have at least one transition."""
        mask = mask & self._follows & _finite(observations)
        if not mask.any():
            return []
        zeros = np.zeros(len(mask), np.float32)
        return [(Rows(observations, self._no_actions, zeros, zeros.astype(bool), self._follows), mask)]


def _finite(values: np.ndarray) -> np.ndarray:
    """`[E]` where a whole row of `[E, ...]` is finite."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def _along(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns a mask `[E]` with the dimensions of `[E, ...]`, so that it selects whole rows."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - 1))


def _final_observations(infos: Mapping[str, Any], ended: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Returns the last observations of ended episodes from `infos`; the other rows are arbitrary."""
    finals = infos.get("final_obs")
    missing = ended & ~np.asarray(infos.get("_final_obs", ended), bool)
    if finals is None or missing.any():
        raise ValueError("autoreset mode is SameStep, but infos['final_obs'] lacks the last observations")
    gathered = like.copy()
    for index in np.flatnonzero(ended):
        gathered[index] = finals[index]
    return gathered
