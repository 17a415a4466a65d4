"""Gymnasium wrappers that add the distractors of `envs.leaves` to any environment.

For leaves behind an environment with vector observations, observe its renders:
`WindyLeaves(gymnasium.wrappers.AddRenderObservation(env, render_only=True))`. The distractors use separate random numbers,
so the environment itself does not change.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import gymnasium
import jax
import numpy as np

from envs import leaves
from envs.task import Bounds


@cache
def _composer(strength: float) -> Any:
    return jax.jit(partial(leaves.compose, strength=strength))


_calm, _blow, _drift = jax.jit(leaves.calm), jax.jit(leaves.blow), jax.jit(leaves.drift)


class _Keyed(gymnasium.Wrapper):
    """Wrapper with its own random key, derived from the seed and independent of the environment's random numbers."""

    _key: Any = None

    def _reseed(self, seed: int | None) -> None:
        if seed is not None or self._key is None:
            self._key = jax.random.key(int(np.random.default_rng(seed).integers(2**31)))

    def _split_key(self) -> Any:
        self._key, use = jax.random.split(self._key)
        return use


class WindyLeaves(_Keyed):
    """Wrapper that shows trees and a pond behind image observations and behind `rgb_array` renders.

    Args:
        env: Environment with images `[h, w, c]` of bytes as observations.
        background: Colour that the scene replaces, c bytes; if None, the most frequent colour of each episode's first image.
        strength: 1 for the full scene, 0 for the plain background.

    Raises:
        ValueError: If observations are not images, the colour has not c channels, or the strength is outside [0, 1].
    """

    def __init__(
        self, env: gymnasium.Env, background: Sequence[int] | None = None, strength: float = leaves.STRENGTH
    ) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3 or space.dtype != np.uint8:
            raise ValueError(f"leaves need observations that are images of bytes [h, w, c]; got {space}")
        if background is not None and len(background) != space.shape[2]:
            raise ValueError(f"background must have {space.shape[2]} channels; got {background!r}")
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength must lie in [0, 1]; got {strength!r}")
        self._background = None if background is None else np.asarray(background, np.float32)[None] / 255.0
        self._plain, self._wind = self._background, None
        self._compose = _composer(float(strength))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and the scene."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._reseed(seed)
        self._plain = _most_frequent_colour(observation) if self._background is None else self._background
        self._wind = _calm(self._split_key())
        return self._with_scene(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and the scene."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._wind = _blow(self._wind, self._split_key())
        return self._with_scene(observation), reward, terminated, truncated, info

    def render(self) -> Any:
        """Renders the environment, with the scene behind `rgb_array` frames."""
        frame: Any = self.env.render()
        if self._wind is None or self.render_mode != "rgb_array":
            return frame
        return np.array(self._compose(frame, self._wind, _most_frequent_colour(frame)))

    def _with_scene(self, observation: Any) -> np.ndarray:
        return np.array(self._compose(observation, self._wind, self._plain))


class WindyNoise(_Keyed):
    """Wrapper that appends autoregressive noise to vector observations, clipped to ±5 standard deviations.

    Args:
        env: Environment with vector observations.
        dimensions: Number of noise dimensions.

    Raises:
        ValueError: If observations are not vectors, or the number is not positive.
    """

    def __init__(self, env: gymnasium.Env, dimensions: int = 64) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"noise needs vector observations; got {space}")
        if dimensions < 1:
            raise ValueError(f"the dimensions of noise must be 1 or more; got {dimensions}")
        bounds = leaves.beside_bounds(Bounds(space.low, space.high), dimensions)
        self.observation_space = gymnasium.spaces.Box(bounds.low, bounds.high, dtype=bounds.low.dtype.type)
        self.dimensions, self._noise = dimensions, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and the noise."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._reseed(seed)
        self._noise = jax.random.normal(self._split_key(), (self.dimensions,))
        return self._with_noise(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and the noise."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._noise = _drift(self._noise, self._split_key())
        return self._with_noise(observation), reward, terminated, truncated, info

    def _with_noise(self, observation: Any) -> np.ndarray:
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        vector = np.concatenate([observation, np.asarray(self._noise)]).astype(space.dtype)
        vector[-self.dimensions :] = vector[-self.dimensions :].clip(space.low[-1], space.high[-1])
        return vector


def _most_frequent_colour(image: np.ndarray) -> np.ndarray:
    """Returns the most frequent colour of an image `[h, w, c]`, as `[1, c]` in [0, 1]."""
    colours, counts = np.unique(image.reshape(-1, image.shape[-1]), axis=0, return_counts=True)
    return colours[counts.argmax()].astype(np.float32)[None] / 255.0
