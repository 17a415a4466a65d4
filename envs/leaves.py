"""Windy leaves: trees whose leaves flicker and a pond that ripples, behind any scene; or noise beside any vector.

None of it can be predicted, none of it can be controlled, and none of it matters: what a task does under it, action by
action, is bit for bit what it does without. A model that has to explain every pixel spends itself on leaves; one that may
choose what to represent need not.

- `behind(task)`: a task with the scene behind its renders and, if they are images, its observations;
- `beside(task, n)`: a vector task with n autoregressive numbers after its observations;
- `envs.wrappers` has both for environments that are not ours.

Every leaf's flutter is a number of its own, `f' = 0.8 f + 0.6 ε`, which moves it and changes how bright it is; every wave
of the pond has a phase, `φ' = φ + 0.35 + 0.5 ε`. Noise is `n' = 0.9 n + 0.436 ε`. All ε are standard normal, flutter and
noise have variance 1.
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
"""How many there are."""
STRENGTH = 0.6
"""How much of the scene is seen, against the plain background."""
_CLIP = 5.0  # standard deviations of noise that are passed on
_OURS = 0x1EAF  # folded into keys, so that tasks get the randomness that they would have had
_BACKGROUNDS = (d.FLOOR, d.PAPER)


class Wind(NamedTuple):
    """What moves in the scene."""

    flutter: Float[Array, "*b L"]
    phase: Float[Array, "*b W"]


class Windy(NamedTuple):
    """A task's state, and the wind around it."""

    inner: Any
    wind: Wind
    then: Wind
    """When the picture of the goal was taken."""


class Noisy(NamedTuple):
    """A task's state, and the noise beside it."""

    inner: Any
    noise: Float[Array, "*b N"]


class _Tree(NamedTuple):
    """Where leaves hang, `[L]` each, in shares of the picture's width and height, and their colours `[L, 3]`."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    colour: np.ndarray


def calm(key: PRNGKeyArray) -> Wind:
    """The wind at some moment."""
    fluttering, waving = jax.random.split(key)
    return Wind(jax.random.normal(fluttering, (LEAVES,)), jax.random.uniform(waving, (WAVES,), maxval=2.0 * jnp.pi))


def blow(wind: Wind, key: PRNGKeyArray) -> Wind:
    """The wind one step later."""
    fluttering, waving = jax.random.split(key)
    flutter = 0.8 * wind.flutter + 0.6 * jax.random.normal(fluttering, (LEAVES,))
    return Wind(flutter, jnp.mod(wind.phase + 0.35 + 0.5 * jax.random.normal(waving, (WAVES,)), 2.0 * jnp.pi))


@cache
def _trees() -> _Tree:
    """Two crowns, each an ellipse filled with leaves."""
    random = np.random.default_rng(3)
    crowns = np.array([[0.2, 0.3, 0.19, 0.22], [0.8, 0.25, 0.17, 0.19]])[np.arange(LEAVES) % 2]
    angle, out = random.uniform(0, 2 * np.pi, LEAVES), np.sqrt(random.uniform(0, 1, LEAVES))
    x, y = crowns[:, 0] + crowns[:, 2] * out * np.cos(angle), crowns[:, 1] + crowns[:, 3] * out * np.sin(angle)
    autumn = random.uniform(0, 1, (LEAVES, 1)) ** 2
    colour = (1 - autumn) * np.array(d.LEAF) + autumn * np.array(d.SAND)
    return _Tree(*(a.astype(np.float32) for a in (x, y, random.uniform(0.03, 0.05, LEAVES), colour)))


@d.still
def _garden(height: int, width: int) -> Array:
    """Sky, meadow and trunks: what does not move, `[h, w, 3]`."""
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
    """Trees and pond. A leaf is an outer product of two bell curves, so that all of them together are one matrix product."""
    x, y = _grid(height, width)
    trees = _trees()
    across = jnp.exp(-(((x - trees.x[:, None] - 0.008 * wind.flutter[:, None]) / trees.radius[:, None]) ** 4))
    along = jnp.exp(-(((y.T - trees.y[:, None] - 0.004 * wind.flutter[:, None]) / trees.radius[:, None]) ** 4))
    colour = jnp.clip(trees.colour * (1.0 + 0.22 * wind.flutter[:, None]), 0.0, 1.0)
    inked = jnp.concatenate([colour, jnp.ones((LEAVES, 1))], axis=1)
    layers = along.T @ (across[:, :, None] * inked[:, None, :]).reshape(LEAVES, -1)
    layers = layers.reshape(height, width, 4)
    crown = 1.0 - jnp.exp(-2.0 * layers[..., 3])
    canvas = d.paint(jnp.asarray(_garden(height, width)), crown, layers[..., :3] / (layers[..., 3:] + 1e-3))
    pond = d.soften(jnp.hypot((x - 0.52) / 0.34, (y - 0.84) / 0.11) - 1.0, 0.03)
    heading = 2.4 * np.arange(WAVES, dtype=np.float32)
    residual = 34.0 * (np.cos(heading)[:, None, None] * x + 3.0 * np.sin(heading)[:, None, None] * y)
    ripple = jnp.sin(residual + wind.phase[:, None, None]).mean(axis=0)
    water = jnp.asarray((0.361, 0.561, 0.690)) + 0.35 * ripple[..., None]
    return d.paint(canvas, pond, jnp.clip(water, 0.0, 1.0))


def compose(
    image: UInt8[Array, "h w c"], wind: Wind, backgrounds: Sequence[Sequence[float]] | Array, strength: float
) -> UInt8[Array, "h w c"]:
    """The image, with the scene wherever it has one of its background's colours.

    Args:
        image: Bytes, of any number of channels; more than three get the scene's red, green, blue, red …
        wind: What moves.
        backgrounds: Colours of c channels in [0, 1].
        strength: 1 for the full scene, 0 for the plain background.
    """
    height, width, channels = image.shape
    shown = image.astype(jnp.float32) / 255.0
    plain = jnp.asarray(backgrounds, jnp.float32)  # [K, c]
    apart = jnp.abs(shown[:, :, None, :] - plain).max(axis=-1)  # [h, w, K]
    nearest = plain[apart.argmin(axis=-1)]
    behind = scene(wind, height, width)[..., np.arange(channels) % 3]
    through = jnp.clip(1.0 - 2.0 * apart.min(axis=-1), 0.0, 1.0)[..., None]
    return d.picture(shown + strength * through * (behind - nearest))


@cache
def behind(task: Task, strength: float = STRENGTH) -> Task:
    """A task with the scene behind its renders, and behind its observations if they are images.

    Args:
        task: Any; images in colour are taken to have our own backgrounds, others a black one.
        strength: 1 for the full scene, 0 for the plain background.

    Raises:
        ValueError: If the strength is not between the two.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"the strength of leaves must lie in [0, 1]; got {strength!r}")
    shape = task.observations.low.shape

    def shown(observation: Array, wind: Wind) -> Array:
        if len(shape) != 3:
            return observation
        plain = _BACKGROUNDS if shape[2] == 3 else ((0.0,) * shape[2],)
        return compose(observation, wind, plain, strength)

    def reset(key: PRNGKeyArray, **given: Array) -> Windy:
        now, then = jax.random.split(jax.random.fold_in(key, _OURS))
        return Windy(task.reset(key, **given), calm(now), calm(then))

    def step(params: Any, state: Windy, action: Array, key: PRNGKeyArray) -> Windy:
        wind = blow(state.wind, jax.random.fold_in(key, _OURS))
        return state._replace(inner=task.step(params, state.inner, action, key), wind=wind)

    goal = task.goal
    return replace(
        _within(task),
        reset=reset,
        step=step,
        observe=lambda state: shown(task.observe(state.inner), state.wind),
        render=lambda state: compose(task.render(state.inner), state.wind, _BACKGROUNDS, strength),
        goal=None if goal is None else lambda state: shown(goal(state.inner), state.then),
    )


@cache
def beside(task: Task, dimensions: int) -> Task:
    """A vector task with autoregressive noise after its observations, clipped to ±5 standard deviations.

    Args:
        task: Whose observations are vectors.
        dimensions: How many numbers of noise.

    Raises:
        ValueError: If they are not, or the number is not positive.
    """
    shape = task.observations.low.shape
    if len(shape) != 1:
        raise ValueError(f"noise goes beside vectors; {task.name} observes arrays of shape {shape}")
    if dimensions < 1:
        raise ValueError(f"the dimensions of noise must be 1 or more; got {dimensions}")

    def reset(key: PRNGKeyArray, **given: Array) -> Noisy:
        noise = jax.random.normal(jax.random.fold_in(key, _OURS), (dimensions,))
        return Noisy(task.reset(key, **given), noise)

    def step(params: Any, state: Noisy, action: Array, key: PRNGKeyArray) -> Noisy:
        noise = drift(state.noise, jax.random.fold_in(key, _OURS))
        return Noisy(task.step(params, state.inner, action, key), noise)

    def shown(observation: Array, noise: Array) -> Array:
        return jnp.concatenate([observation, jnp.clip(noise, -_CLIP, _CLIP)])

    goal = task.goal
    return replace(
        _within(task),
        reset=reset,
        step=step,
        observe=lambda state: shown(task.observe(state.inner), state.noise),
        render=lambda state: task.render(state.inner),
        observations=beside_bounds(task.observations, dimensions),
        goal=None if goal is None else lambda state: shown(goal(state.inner), jnp.zeros(dimensions)),
    )


def drift(noise: Float[Array, "*b N"], key: PRNGKeyArray) -> Float[Array, "*b N"]:
    """The noise one step later."""
    return 0.9 * noise + np.sqrt(1.0 - 0.9**2).astype(np.float32) * jax.random.normal(key, noise.shape)


def beside_bounds(bounds: Bounds, dimensions: int) -> Bounds:
    """Bounds of a vector with noise after it."""
    end = np.full(dimensions, _CLIP, bounds.low.dtype)
    return Bounds(np.concatenate([bounds.low, -end]), np.concatenate([bounds.high, end]))


def _within(task: Task) -> Task:
    """The task with a state that holds its own as `inner`; what it shows is still to be replaced."""

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
