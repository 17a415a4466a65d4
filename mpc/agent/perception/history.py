"""Short-term memory: what was observed and done in the last K steps, for what a single observation does not tell.

    x[k] = (o[t-k], o[t-k] - o[t-k-1], a[t-k-1]),  k = 0 … K-1        before an episode's first step as if nothing had moved
                                                                       and nothing been done: o[-k] = o[0], a[-k] = 0

These K tokens, the newest first, are what a world model sees instead of an observation, reads out by attention
(`world_models.networks.HistoryAttention`) and carries along in what it imagines: so plans are made, and the critic learns,
from what is remembered. Every coordinate is scaled by itself: as changes, small motions are seen as well as large places.
Images are shown one by one, K = 1: what has to be seen of their past is stacked into them as channels.
"""

from typing import NamedTuple

import numpy as np

from mpc.controller import ControllerState


class PredictState(NamedTuple):
    """What an agent hands from one decision to the next."""

    loop: ControllerState | None
    """The plan under way; None where nothing has been planned."""
    seen: np.ndarray
    """`[B, K, O (+ A)]`, `[B, 1, H, W, C]` of images: what is remembered, as it was at the last decision; see `Memory`."""
    held: np.ndarray
    """`[B, ...]`, the actions decided on."""
    left: np.ndarray
    """`[B]`, how many steps more they are held for."""
    behind: np.ndarray
    """`[B]`, how many decisions were made without the plan since it was made."""

    def released(self) -> "PredictState":
        """With nothing held any longer: the next call decides."""
        return self._replace(left=np.zeros_like(self.left))


class Memory(NamedTuple):
    """What is remembered, and how a world model is shown it.

    With K = 1 that is the newest observation, and nothing else; it may then be an image `[H, W, C]`, too.
    """

    steps: int
    """K, the newest observation included."""
    observation: tuple[int, ...]
    """Shape of an observation."""
    action: int
    """Size A of an action, as networks see it."""

    @property
    def token(self) -> tuple[int, ...]:
        """Shape of what a step is shown as."""
        return self.observation if self.steps == 1 else (2 * self.observation[0] + self.action,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of everything that is shown."""
        return self.observation if self.steps == 1 else (self.steps * self.token[0],)

    def begun(self, observations: np.ndarray) -> np.ndarray:
        """What is remembered after the first observations `[B, O]` of episodes, `[B, K, O]`; `[B, K, O + A]` for K > 1."""
        return np.repeat(self._entries(observations, None)[:, None], self.steps, axis=1)

    def recall(
        self, seen: np.ndarray, observations: np.ndarray, actions: np.ndarray | None, fresh: np.ndarray | None = None
    ) -> np.ndarray:
        """What is remembered after another observation.

        A remembered observation that is not finite is taken to have been the newest one: a glitch is over when it is over.

        Args:
            seen: What was remembered before.
            observations: `[B, O]`, the newest.
            actions: `[B, A]`, what was done in between; None where K = 1 and it is not remembered.
            fresh: `[B]`, where an episode begins with the observation; None for nowhere.
        """
        newest = self._entries(observations, actions)[:, None]
        if self.steps == 1:
            return newest
        shifted = np.concatenate([newest, seen[:, : self.steps - 1]], axis=1)
        shifted = np.where(np.isfinite(shifted).all(axis=2, keepdims=True), shifted, newest)
        return shifted if fresh is None else np.where(fresh[:, None, None], self.begun(observations), shifted)

    def shown(self, seen: np.ndarray) -> np.ndarray:
        """As a world model sees what is remembered, `[B, K * token]`, the newest step first."""
        if self.steps == 1:
            return seen[:, 0]
        observations, actions = np.split(seen, self.observation, axis=-1)
        before = np.concatenate([observations[:, 1:], observations[:, -1:]], axis=1)
        return np.concatenate([observations, observations - before, actions], axis=2).reshape(len(seen), -1)

    def _entries(self, observations: np.ndarray, actions: np.ndarray | None) -> np.ndarray:
        if self.steps == 1:
            return observations
        done = np.zeros((len(observations), self.action), np.float32) if actions is None else actions
        return np.concatenate([observations, done], axis=1)
