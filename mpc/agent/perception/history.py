"""Observation history: what was observed and done in the last K steps, for what a single observation does not tell.

    x[k] = (o[t-k], o[t-k] - o[t-k-1], a[t-k-1]),  k = 0 … K-1        before an episode's first step as if nothing had moved
                                                                       and nothing been done: o[-k] = o[0], a[-k] = 0

A world model sees these K tokens, the newest first, instead of an observation, and reads them by attention
(`world_models.networks.HistoryAttention`). Every coordinate is scaled by itself, so that small motions are seen as well as
large places. Images are seen one by one, K = 1: frames that tell of the past are stacked as channels.

The functions work on one history or, with leading axes, on many; on NumPy arrays (`xp=numpy`) as inside `jit`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from world_models.data import Dataset

Array = Any


class History(NamedTuple):
    """The shape of a history; an entry is an observation, followed by the action before it where K > 1."""

    steps: int
    """K, the newest observation included."""
    observation: tuple[int, ...]
    """Shape of an observation."""
    action: int
    """Size A of an action as the replay buffer stores it."""

    @property
    def token(self) -> tuple[int, ...]:
        """Shape of what the model sees of one step."""
        return self.observation if self.steps == 1 else (2 * self.observation[0] + self.action,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the model's input."""
        return self.observation if self.steps == 1 else (self.steps * self.token[0],)

    def begin(self, observation: Array, xp: Any = jnp) -> Array:
        """Return the history `[..., K, O + A]` after an episode's first observation `[..., O]`; `[..., 1, *O]` for K = 1."""
        entry = self._entry(observation, None, xp)
        return xp.repeat(xp.expand_dims(entry, self._axis), self.steps, axis=self._axis)

    def append(self, history: Array, observation: Array, action: Array | None, xp: Any = jnp) -> Array:
        """Return the history after another observation; where one is not finite, it counts as the newest one.

        Args:
            history: `[..., K, O + A]`.
            observation: `[..., O]`.
            action: `[..., A]`, the action that led there, as the replay buffer stores it; None for K = 1.
            xp: `numpy` or `jax.numpy`.
        """
        newest = xp.expand_dims(self._entry(observation, action, xp), self._axis)
        if self.steps == 1:
            return newest
        shifted = xp.concatenate([newest, history[..., : self.steps - 1, :]], axis=-2)
        return xp.where(xp.isfinite(shifted).all(axis=-1, keepdims=True), shifted, newest)

    def model_input(self, history: Array, xp: Any = jnp) -> Array:
        """Return what the model sees: `[..., K * token]`, the newest step first, or the observation for K = 1."""
        if self.steps == 1:
            return xp.squeeze(history, axis=self._axis)
        size = self.observation[0]
        observations, actions = history[..., :size], history[..., size:]
        before = xp.concatenate([observations[..., 1:, :], observations[..., -1:, :]], axis=-2)
        tokens = xp.concatenate([observations, observations - before, actions], axis=-1)
        return tokens.reshape(*tokens.shape[:-2], -1)

    def dataset(self, dataset: Dataset, actions: np.ndarray) -> np.ndarray:
        """Return the model's inputs `[rows, K * token]` for every row of a dataset of vectors.

        Args:
            dataset: Whose rows of one episode follow each other.
            actions: `[rows, A]`, its actions as the replay buffer stores them.
        """
        if self.steps == 1:
            return dataset.observations
        episode = np.repeat(np.arange(len(dataset.lengths)), dataset.lengths + 1)
        first = dataset.first[episode]
        rows = np.maximum(np.arange(len(episode))[:, None] - np.arange(self.steps), first[:, None])
        before = np.where((rows > first[:, None])[..., None], actions[np.maximum(rows - 1, 0)], 0.0)
        entries = np.concatenate([dataset.observations[rows], before], axis=-1).astype(np.float32)
        return self.model_input(entries, np)

    @property
    def _axis(self) -> int:
        return -1 - len(self.observation)

    def _entry(self, observation: Array, action: Array | None, xp: Any) -> Array:
        if self.steps == 1:
            return observation
        done = xp.zeros((*observation.shape[:-1], self.action), xp.float32) if action is None else action
        return xp.concatenate([observation, done], axis=-1)
