"""Windy leaves for environments that are not ours: the scene behind images, noise beside vectors, as Gymnasium wrappers.

To put leaves behind an environment that observes vectors, observe its renders:
`WindyLeaves(gymnasium.wrappers.AddRenderObservation(env, render_only=True))`. Leaves and noise have randomness of their
own: the environment does what it would have done without.
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
    """A wrapper with a key of its own, which follows from the seed and touches nothing of the environment's."""

    _key: Any = None

    def _reseed(self, seed: int | None) -> None:
        if seed is not None or self._key is None:
            self._key = jax.random.key(int(np.random.default_rng(seed).integers(2**31)))

    def _next(self) -> Any:
        self._key, use = jax.random.split(self._key)
        return use


class WindyLeaves(_Keyed):
    """Trees and a pond behind the images that an environment observes, and behind its `rgb_array` renders.

    Args:
        env: Whose observations are images `[h, w, c]` of bytes.
        background: The colour that the scene replaces, c bytes; the commonest of each episode's first image if None.
        strength: 1 for the full scene, 0 for the plain background.

    Raises:
        ValueError: If observations are not images, or the colour or the strength makes no sense.
    """

    def __init__(self, env: gymnasium.Env, background: Sequence[int] | None = None, strength: float = leaves.STRENGTH):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3 or space.dtype != np.uint8:
            raise ValueError(f"leaves go behind images of bytes [h, w, c]; the observation space is {space}")
        if background is not None and len(background) != space.shape[2]:
            raise ValueError(f"background must have {space.shape[2]} channels; got {background!r}")
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength must lie in [0, 1]; got {strength!r}")
        self._given = None if background is None else np.asarray(background, np.float32)[None] / 255.0
        self._plain, self._wind = self._given, None
        self._compose = _composer(float(strength))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, and some wind."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._reseed(seed)
        self._plain = _commonest(observation) if self._given is None else self._given
        self._wind = _calm(self._next())
        return self._shown(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, the wind one step later."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._wind = _blow(self._wind, self._next())
        return self._shown(observation), reward, terminated, truncated, info

    def render(self) -> Any:
        """As the environment's, with the scene behind it where that is an image."""
        frame: Any = self.env.render()
        if self._wind is None or self.render_mode != "rgb_array":
            return frame
        return np.array(self._compose(frame, self._wind, _commonest(frame)))

    def _shown(self, observation: Any) -> np.ndarray:
        return np.array(self._compose(observation, self._wind, self._plain))


class WindyNoise(_Keyed):
    """Autoregressive numbers after the vectors that an environment observes, clipped to ±5 standard deviations.

    Args:
        env: Whose observations are vectors.
        dimensions: How many numbers.

    Raises:
        ValueError: If observations are not vectors, or the number is not positive.
    """

    def __init__(self, env: gymnasium.Env, dimensions: int = 64):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"noise goes beside vectors; the observation space is {space}")
        if dimensions < 1:
            raise ValueError(f"the dimensions of noise must be 1 or more; got {dimensions}")
        wide = leaves.beside_bounds(Bounds(space.low, space.high), dimensions)
        self.observation_space = gymnasium.spaces.Box(wide.low, wide.high, dtype=wide.low.dtype.type)
        self.dimensions, self._noise = dimensions, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, and some noise."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._reseed(seed)
        self._noise = jax.random.normal(self._next(), (self.dimensions,))
        return self._shown(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, the noise one step later."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._noise = _drift(self._noise, self._next())
        return self._shown(observation), reward, terminated, truncated, info

    def _shown(self, observation: Any) -> np.ndarray:
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        both = np.concatenate([observation, np.asarray(self._noise)]).astype(space.dtype)
        both[-self.dimensions :] = both[-self.dimensions :].clip(space.low[-1], space.high[-1])
        return both


def _commonest(image: np.ndarray) -> np.ndarray:
    """The commonest colour of an image `[h, w, c]`, `[1, c]` in [0, 1]."""
    colours, counts = np.unique(image.reshape(-1, image.shape[-1]), axis=0, return_counts=True)
    return colours[counts.argmax()].astype(np.float32)[None] / 255.0
