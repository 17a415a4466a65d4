"""Windy leaves: a distractor of flickering leaves and a rippling pond behind images, or of noise appended to vectors.

The distractor is unpredictable, uncontrollable and irrelevant: the task itself is bit for bit the same with and without it.
A model that reconstructs every pixel spends capacity on the leaves. A model that chooses what to represent can ignore them.

- `behind(task)`: the task with the scene behind its renders and behind its image observations;
- `beside(task, n)`: the vector task with n autoregressive noise dimensions appended to its observations;
- `envs.wrappers`: both, for other Gymnasium environments.

Each leaf has a flutter `f' = 0.8 f + 0.6 ε`, which moves it and changes its brightness. Each wave of the pond has a phase
`φ' = φ + 0.35 + 0.5 ε`. The noise is `n' = 0.9 n + 0.436 ε`. All ε are standard normal; flutter and noise have variance 1.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs.task import Bounds, Task

LEAVES, WAVES = 72, 5
"""Numbers of leaves and of waves."""
STRENGTH = 0.6
"""Default opacity of the scene over the plain background."""
_CLIP = 5.0  # standard deviations; noise is clipped to this
_KEY_FOLD = 0x1EAF  # folded into keys, so that the task's own random numbers do not change
_BACKGROUNDS = (d.FLOOR, d.PAPER)


class Wind(NamedTuple):
    """State of the moving scene."""

    flutter: Float[Array, "*b L"]
    phase: Float[Array, "*b W"]


class Windy(NamedTuple):
    """A task's state with the state of the scene."""

    inner: Any
    wind: Wind
    goal_wind: Wind
    """Scene in the goal observation."""


class Noisy(NamedTuple):
    """A task's state with the noise appended to its observations."""

    inner: Any
    noise: Float[Array, "*b N"]


class _Tree(NamedTuple):
    """Positions and radii of leaves `[L]`, as fractions of the image's width and height, and their colours `[L, 3]`."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    colour: np.ndarray


def calm(key: PRNGKeyArray) -> Wind:
    """Returns a state drawn from the stationary distribution of the scene."""
    flutter_key, phase_key = jax.random.split(key)
    return Wind(jax.random.normal(flutter_key, (LEAVES,)), jax.random.uniform(phase_key, (WAVES,), maxval=2.0 * jnp.pi))


def blow(wind: Wind, key: PRNGKeyArray) -> Wind:
    """Returns the state of the scene one step later."""
    flutter_key, phase_key = jax.random.split(key)
    flutter = 0.8 * wind.flutter + 0.6 * jax.random.normal(flutter_key, (LEAVES,))
    return Wind(flutter, jnp.mod(wind.phase + 0.35 + 0.5 * jax.random.normal(phase_key, (WAVES,)), 2.0 * jnp.pi))


@cache
def _trees() -> _Tree:
    """Returns the leaves of two crowns, each an ellipse."""
    random = np.random.default_rng(3)
    crowns = np.array([[0.2, 0.3, 0.19, 0.22], [0.8, 0.25, 0.17, 0.19]])[np.arange(LEAVES) % 2]
    angle, out = random.uniform(0, 2 * np.pi, LEAVES), np.sqrt(random.uniform(0, 1, LEAVES))
    x, y = crowns[:, 0] + crowns[:, 2] * out * np.cos(angle), crowns[:, 1] + crowns[:, 3] * out * np.sin(angle)
    autumn = random.uniform(0, 1, (LEAVES, 1)) ** 2
    colour = (1 - autumn) * np.array(d.LEAF) + autumn * np.array(d.SAND)
    return _Tree(*(a.astype(np.float32) for a in (x, y, random.uniform(0.03, 0.05, LEAVES), colour)))


@d.still
def _garden(height: int, width: int) -> Array:
    """Returns the static part of the scene, `[h, w, 3]`: sky, meadow and trunks."""
    x, y = _grid(height, width)
    meadow = d.soften(0.55 + 0.02 * jnp.sin(9.0 * x) - y, 0.02)
    sky = jnp.asarray(d.SKY) + (jnp.asarray(d.PAPER) - jnp.asarray(d.SKY)) * (0.9 * y[..., None] / 0.55).clip(0.0, 1.0)
    canvas = d.paint(sky + 0.0 * x[..., None], meadow, (0.682, 0.753, 0.561))
    for centre, top in ((0.2, 0.3), (0.8, 0.25)):
        trunk = d.soften(jnp.abs(x - centre) - 0.018 - 0.02 * (y - top), 1.5 / width) * d.soften(top - y, 1.5 / height)
        canvas = d.paint(canvas, trunk * d.soften(y - 0.72, 1.5 / height), (0.435, 0.353, 0.302))
    return canvas


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.arange(width, dtype=np.float32) + 0.5) / width, (np.arange(height, dtype=np.float32) + 0.5) / height
    return x[None, :], y[:, None]


def scene(wind: Wind, height: int, width: int) -> Float[Array, "h w 3"]:
    """Returns an image of trees and pond.

    A leaf is an outer product of two bell curves, so that all leaves are one matrix product.
    """
    x, y = _grid(height, width)
    trees = _trees()
    across = jnp.exp(-(((x - trees.x[:, None] - 0.008 * wind.flutter[:, None]) / trees.radius[:, None]) ** 4))
    along = jnp.exp(-(((y.T - trees.y[:, None] - 0.004 * wind.flutter[:, None]) / trees.radius[:, None]) ** 4))
    colour = jnp.clip(trees.colour * (1.0 + 0.22 * wind.flutter[:, None]), 0.0, 1.0)
    weighted = jnp.concatenate([colour, jnp.ones((LEAVES, 1))], axis=1)
    layers = along.T @ (across[:, :, None] * weighted[:, None, :]).reshape(LEAVES, -1)
    layers = layers.reshape(height, width, 4)
    crown = 1.0 - jnp.exp(-2.0 * layers[..., 3])
    canvas = d.paint(jnp.asarray(_garden(height, width)), crown, layers[..., :3] / (layers[..., 3:] + 1e-3))
    pond = d.soften(jnp.hypot((x - 0.52) / 0.34, (y - 0.84) / 0.11) - 1.0, 0.03)
    heading = 2.4 * np.arange(WAVES, dtype=np.float32)
    distance = 34.0 * (np.cos(heading)[:, None, None] * x + 3.0 * np.sin(heading)[:, None, None] * y)
    ripple = jnp.sin(distance + wind.phase[:, None, None]).mean(axis=0)
    water = jnp.asarray((0.361, 0.561, 0.690)) + 0.35 * ripple[..., None]
    return d.paint(canvas, pond, jnp.clip(water, 0.0, 1.0))


def compose(
    image: UInt8[Array, "h w c"], wind: Wind, backgrounds: Sequence[Sequence[float]] | Array, strength: float
) -> UInt8[Array, "h w c"]:
    """Returns the image with the scene wherever a pixel has a background colour.

    Args:
        image: Bytes with any number of channels; they get the scene's red, green, blue, red … in turn.
        wind: State of the scene.
        backgrounds: Colours of c channels in [0, 1].
        strength: 1 for the full scene, 0 for the plain background.
    """
    height, width, channels = image.shape
    colour = image.astype(jnp.float32) / 255.0
    plain = jnp.asarray(backgrounds, jnp.float32)  # [K, c]
    difference = jnp.abs(colour[:, :, None, :] - plain).max(axis=-1)  # [h, w, K]
    nearest = plain[difference.argmin(axis=-1)]
    behind = scene(wind, height, width)[..., np.arange(channels) % 3]
    transparency = jnp.clip(1.0 - 2.0 * difference.min(axis=-1), 0.0, 1.0)[..., None]
    return d.picture(colour + strength * transparency * (behind - nearest))


@cache
def behind(task: Task, strength: float = STRENGTH) -> Task:
    """Returns a task with the scene behind its renders, and behind its observations if they are images.

    Args:
        task: Any task; colour images need the backgrounds of `envs.drawing`, other images a black background.
        strength: 1 for the full scene, 0 for the plain background.

    Raises:
        ValueError: If the strength is outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"the strength of leaves must lie in [0, 1]; got {strength!r}")
    shape = task.observations.low.shape

    def with_scene(observation: Array, wind: Wind) -> Array:
        if len(shape) != 3:
            return observation
        plain = _BACKGROUNDS if shape[2] == 3 else ((0.0,) * shape[2],)
        return compose(observation, wind, plain, strength)

    def reset(key: PRNGKeyArray, **given: Array) -> Windy:
        wind_key, goal_key = jax.random.split(jax.random.fold_in(key, _KEY_FOLD))
        return Windy(task.reset(key, **given), calm(wind_key), calm(goal_key))

    def step(params: Any, state: Windy, action: Array, key: PRNGKeyArray) -> Windy:
        wind = blow(state.wind, jax.random.fold_in(key, _KEY_FOLD))
        return state._replace(inner=task.step(params, state.inner, action, key), wind=wind)

    goal = task.goal
    return replace(
        _with_inner_state(task),
        reset=reset,
        step=step,
        observe=lambda state: with_scene(task.observe(state.inner), state.wind),
        render=lambda state: compose(task.render(state.inner), state.wind, _BACKGROUNDS, strength),
        goal=None if goal is None else lambda state: with_scene(goal(state.inner), state.goal_wind),
    )


@cache
def beside(task: Task, dimensions: int) -> Task:
    """Returns a vector task with autoregressive noise appended to its observations, clipped to ±5 standard deviations.

    Args:
        task: Task whose observations are vectors.
        dimensions: Number of noise dimensions.

    Raises:
        ValueError: If observations are not vectors, or the number is not positive.
    """
    shape = task.observations.low.shape
    if len(shape) != 1:
        raise ValueError(f"noise needs vector observations; {task.name} observes arrays of shape {shape}")
    if dimensions < 1:
        raise ValueError(f"the dimensions of noise must be 1 or more; got {dimensions}")

    def reset(key: PRNGKeyArray, **given: Array) -> Noisy:
        noise = jax.random.normal(jax.random.fold_in(key, _KEY_FOLD), (dimensions,))
        return Noisy(task.reset(key, **given), noise)

    def step(params: Any, state: Noisy, action: Array, key: PRNGKeyArray) -> Noisy:
        noise = drift(state.noise, jax.random.fold_in(key, _KEY_FOLD))
        return Noisy(task.step(params, state.inner, action, key), noise)

    def with_noise(observation: Array, noise: Array) -> Array:
        return jnp.concatenate([observation, jnp.clip(noise, -_CLIP, _CLIP)])

    goal = task.goal
    return replace(
        _with_inner_state(task),
        reset=reset,
        step=step,
        observe=lambda state: with_noise(task.observe(state.inner), state.noise),
        render=lambda state: task.render(state.inner),
        observations=beside_bounds(task.observations, dimensions),
        goal=None if goal is None else lambda state: with_noise(goal(state.inner), jnp.zeros(dimensions)),
    )


def drift(noise: Float[Array, "*b N"], key: PRNGKeyArray) -> Float[Array, "*b N"]:
    """Returns the noise one step later."""
    return 0.9 * noise + np.sqrt(1.0 - 0.9**2).astype(np.float32) * jax.random.normal(key, noise.shape)


def beside_bounds(bounds: Bounds, dimensions: int) -> Bounds:
    """Returns the bounds of a vector with noise appended."""
    end = np.full(dimensions, _CLIP, bounds.low.dtype)
    return Bounds(np.concatenate([bounds.low, -end]), np.concatenate([bounds.high, end]))


def _with_inner_state(task: Task) -> Task:
    """Returns a task that reads its state from `state.inner`; the caller replaces reset, step, observe, render and goal."""

    def reward(params: Any, state: Any, action: Array, following: Any) -> Array:
        return task.reward(params, state.inner, action, following.inner)

    return replace(
        task,
        reward=reward,
        success=lambda state: task.success(state.inner),
        terminated=lambda state: task.terminated(state.inner),
        report=lambda state: task.report(state.inner),
        possible=lambda state: task.possible(state.inner),
    )
