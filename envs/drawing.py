"""Antialiased shapes on small canvases in JAX: batched, branch-free, and identical on every machine.

A shape is a *coverage* `[h, w]` in [0, 1], computed from the signed distance of each pixel's centre to the edge of the
shape. `paint` blends a colour into a canvas by a coverage. Lengths are in the units of the view.
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
    """World coordinates of the pixels of an image; NumPy arrays, so that importing a module runs nothing in JAX."""

    x: Float[Array | np.ndarray, "1 w"]
    y: Float[Array | np.ndarray, "h 1"]
    pixel: float
    """Width of one pixel in world units."""


def view(low: tuple[float, float], high: tuple[float, float], width: int, *, up: bool = True) -> View:
    """Returns the view of a rectangle, `width` pixels wide; y points upwards, or downwards as in images (`up=False`)."""
    pixel = (high[0] - low[0]) / width
    height = round((high[1] - low[1]) / pixel)
    x = low[0] + pixel * (np.arange(width) + 0.5)
    y = low[1] + pixel * (np.arange(height) + 0.5)
    y = y[::-1] if up else y
    return View(x.astype(np.float32)[None, :], y.astype(np.float32)[:, None], pixel)


def moved(camera: View, by: Array) -> View:
    """Returns the view shifted by `(x, y)`."""
    return camera._replace(x=camera.x + by[0], y=camera.y + by[1])


def blank(camera: View, colour: Colour) -> Float[Array, "h w 3"]:
    """Returns a canvas of one colour."""
    return jnp.broadcast_to(jnp.asarray(colour), (camera.y.shape[0], camera.x.shape[1], 3))


def paint(canvas: Float[Array, "h w 3"], coverage: Array, colour: Colour | Array) -> Float[Array, "h w 3"]:
    """Blends a colour into a canvas; a coverage below 1 is translucent."""
    return canvas + coverage[..., None] * (jnp.asarray(colour) - canvas)


def picture(canvas: Float[Array, "h w c"]) -> UInt8[Array, "h w c"]:
    """Returns the canvas as bytes."""
    return jnp.round(255.0 * jnp.clip(canvas, 0.0, 1.0)).astype(jnp.uint8)


def still(scene: Callable[..., Array]) -> Callable[..., np.ndarray]:
    """Decorates a function that draws a static scene: it runs once per arguments and then returns a cached constant."""

    @cache
    @wraps(scene)
    def drawn(*settings: Any) -> np.ndarray:
        # compiled separately, because callers usually reach this line while JAX traces their own function
        return np.asarray(jax.jit(lambda: scene(*settings)).lower().compile()())

    return drawn


def soften(distance: Array | np.ndarray, pixel: float) -> Array:
    """Returns the coverage for a signed distance to an edge (negative inside)."""
    return jnp.clip(0.5 - distance / pixel, 0.0, 1.0)


def disc(camera: View, centre: Array, radius: Array | float, blur: float = 0.0) -> Array:
    """Returns the coverage of a filled circle; `blur` widens its edge, for shadows."""
    distance = jnp.hypot(camera.x - centre[0], camera.y - centre[1]) - radius
    return soften(distance, camera.pixel + blur)


def ring(camera: View, centre: Array, radius: Array | float, width: float) -> Array:
    """Returns the coverage of a circle's outline."""
    distance = jnp.abs(jnp.hypot(camera.x - centre[0], camera.y - centre[1]) - radius) - width / 2
    return soften(distance, camera.pixel)


def box(
    camera: View,
    centre: Array,
    half: tuple[float, float],
    angle: Array | float = 0.0,
    rounding: float = 0.0,
) -> Array:
    """Returns the coverage of a rounded rectangle of half sizes `half`; `angle` is in rad, anticlockwise if y is up."""
    dx, dy = camera.x - centre[0], camera.y - centre[1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    across = jnp.abs(cos * dx + sin * dy) - (half[0] - rounding)
    along = jnp.abs(cos * dy - sin * dx) - (half[1] - rounding)
    outside = jnp.hypot(jnp.maximum(across, 0.0), jnp.maximum(along, 0.0))
    return soften(outside + jnp.minimum(jnp.maximum(across, along), 0.0) - rounding, camera.pixel)


def between(camera: View, low: Array, high: Array) -> Array:
    """Returns the coverage of the axis-aligned rectangle between two corners."""
    across = jnp.maximum(low[0] - camera.x, camera.x - high[0])
    along = jnp.maximum(low[1] - camera.y, camera.y - high[1])
    return soften(across, camera.pixel) * soften(along, camera.pixel)


def line(camera: View, begin: Array, end: Array, width: Array | float) -> Array:
    """Returns the coverage of a line segment with round ends."""
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    px, py = camera.x - begin[0], camera.y - begin[1]
    share = jnp.clip((px * dx + py * dy) / jnp.maximum(dx**2 + dy**2, 1e-12), 0.0, 1.0)
    return soften(jnp.hypot(px - share * dx, py - share * dy) - width / 2, camera.pixel)
