"""Antialiased shapes on small canvases, in JAX: batched, branch-free, the same on every machine.

A shape is its *coverage* `[h, w]` in [0, 1], from the signed distance of every pixel's centre to the shape's edge; `paint`
lays a colour over a canvas with it. Lengths are in the units of the view.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

Colour = tuple[float, float, float]

PAPER: Colour = (0.968, 0.960, 0.941)
FLOOR: Colour = (0.992, 0.988, 0.976)
INK: Colour = (0.212, 0.243, 0.290)
STONE: Colour = (0.592, 0.615, 0.643)
CORAL: Colour = (0.820, 0.286, 0.357)
TEAL: Colour = (0.075, 0.494, 0.545)
ASPHALT: Colour = (0.345, 0.369, 0.404)
MIST: Colour = (0.847, 0.918, 0.922)
SAND: Colour = (0.929, 0.682, 0.286)
LEAF: Colour = (0.400, 0.588, 0.420)
SKY: Colour = (0.580, 0.725, 0.812)
NIGHT: Colour = (0.075, 0.094, 0.149)


class View(NamedTuple):
    """Where the pixels of an image lie in the world; in NumPy, so that JAX runs nothing when a module is imported."""

    x: Float[Array | np.ndarray, "1 w"]
    y: Float[Array | np.ndarray, "h 1"]
    pixel: float
    """Width of a pixel."""


def view(low: tuple[float, float], high: tuple[float, float], width: int, *, up: bool = True) -> View:
    """The rectangle from `low` to `high`, drawn `width` pixels wide, with y upwards or (as in images) downwards."""
    pixel = (high[0] - low[0]) / width
    height = round((high[1] - low[1]) / pixel)
    x = low[0] + pixel * (np.arange(width) + 0.5)
    y = low[1] + pixel * (np.arange(height) + 0.5)
    y = y[::-1] if up else y
    return View(x.astype(np.float32)[None, :], y.astype(np.float32)[:, None], pixel)


def moved(seen: View, by: Array) -> View:
    """The same view with its camera moved `by` (x, y)."""
    return seen._replace(x=seen.x + by[0], y=seen.y + by[1])


def blank(seen: View, colour: Colour) -> Float[Array, "h w 3"]:
    """A canvas of one colour."""
    return jnp.broadcast_to(jnp.asarray(colour), (seen.y.shape[0], seen.x.shape[1], 3))


def paint(canvas: Float[Array, "h w 3"], coverage: Array, colour: Colour | Array) -> Float[Array, "h w 3"]:
    """Lay a colour over what is covered; a coverage below 1 is translucent."""
    return canvas + coverage[..., None] * (jnp.asarray(colour) - canvas)


def picture(canvas: Float[Array, "h w c"]) -> UInt8[Array, "h w c"]:
    """The canvas in bytes."""
    return jnp.round(255.0 * jnp.clip(canvas, 0.0, 1.0)).astype(jnp.uint8)


def still(scene: Callable[..., Array]) -> Callable[..., np.ndarray]:
    """A scene that never changes, drawn once for each of its arguments and a constant from then on."""

    @cache
    @wraps(scene)
    def drawn(*settings: Any) -> np.ndarray:
        # compiled by itself, because most often this is reached while something else is being traced
        return np.asarray(jax.jit(lambda: scene(*settings)).lower().compile()())

    return drawn


def soften(distance: Array | np.ndarray, pixel: float) -> Array:
    """Coverage from the signed distance to an edge, negative inside."""
    return jnp.clip(0.5 - distance / pixel, 0.0, 1.0)


def disc(seen: View, centre: Array, radius: Array | float, blur: float = 0.0) -> Array:
    """A filled circle; `blur` widens its edge, for shadows."""
    distance = jnp.hypot(seen.x - centre[0], seen.y - centre[1]) - radius
    return soften(distance, seen.pixel + blur)


def ring(seen: View, centre: Array, radius: Array | float, width: float) -> Array:
    """The line of a circle."""
    distance = jnp.abs(jnp.hypot(seen.x - centre[0], seen.y - centre[1]) - radius) - width / 2
    return soften(distance, seen.pixel)


def box(
    seen: View,
    centre: Array,
    half: tuple[float, float],
    angle: Array | float = 0.0,
    rounding: float = 0.0,
) -> Array:
    """A rectangle of half sizes `half`, turned by `angle` (rad, anticlockwise for y upwards), its corners rounded."""
    dx, dy = seen.x - centre[0], seen.y - centre[1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    across = jnp.abs(cos * dx + sin * dy) - (half[0] - rounding)
    along = jnp.abs(cos * dy - sin * dx) - (half[1] - rounding)
    outside = jnp.hypot(jnp.maximum(across, 0.0), jnp.maximum(along, 0.0))
    return soften(outside + jnp.minimum(jnp.maximum(across, along), 0.0) - rounding, seen.pixel)


def between(seen: View, low: Array, high: Array) -> Array:
    """The rectangle between two corners."""
    across = jnp.maximum(low[0] - seen.x, seen.x - high[0])
    along = jnp.maximum(low[1] - seen.y, seen.y - high[1])
    return soften(across, seen.pixel) * soften(along, seen.pixel)


def line(seen: View, begin: Array, end: Array, width: Array | float) -> Array:
    """A line with round ends."""
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    px, py = seen.x - begin[0], seen.y - begin[1]
    share = jnp.clip((px * dx + py * dy) / jnp.maximum(dx**2 + dy**2, 1e-12), 0.0, 1.0)
    return soften(jnp.hypot(px - share * dx, py - share * dy) - width / 2, seen.pixel)
