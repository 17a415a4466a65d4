"""A point that moves among walls: the one place where segments meet boxes.

A world is the inside of an axis-aligned rectangle minus K solid axis-aligned boxes. A move is a segment, and it is the
segment that is tested, not its end: however long a move is, it passes through nothing. Everything is branch-free, so that
batches of worlds and points cost a handful of fused operations.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_STILL = 1e-9  # a displacement below this counts as this, so that nothing is divided by zero


class Walls(NamedTuple):
    """What a point cannot enter."""

    inside: Float[Array, "2 2"]
    """`(low, high)`: the rectangle that it cannot leave."""
    low: Float[Array, "K 2"]
    """Lower corners of the solid boxes."""
    high: Float[Array, "K 2"]
    """Upper corners."""


class Contact(NamedTuple):
    """Where a move first touches a wall."""

    hit: Bool[Array, ""]
    fraction: Float[Array, ""]
    """Of the move made until then, 1 if it touches nothing."""
    normal: Float[Array, "2"]
    """Unit vector from the face that was hit towards the free side; zero if none was."""
    outer: Bool[Array, ""]
    """Whether it was the rectangle around the world."""


def contact(walls: Walls, start: Float[Array, "2"], move: Float[Array, "2"]) -> Contact:
    """The first touch of a move with any wall.

    A box is entered when the segment is between both of its pairs of faces at once (the slab test), the rectangle around the
    world left at the nearest of the two faces ahead. The start is taken to be free.

    Args:
        walls: What is solid.
        start: Where the move begins.
        move: Displacement.
    """
    safe = jnp.where(jnp.abs(move) < _STILL, _STILL, move)
    heading = jnp.sign(safe)
    first, second = (walls.low - start) / safe, (walls.high - start) / safe
    enters, leaves = jnp.minimum(first, second), jnp.maximum(first, second)
    entry, axes = enters.max(axis=1), enters.argmax(axis=1)
    touched = (entry <= leaves.min(axis=1)) & (entry >= 0.0) & (entry <= 1.0)
    entry = jnp.where(touched, entry, jnp.inf)
    ahead = (jnp.where(heading > 0, walls.inside[1], walls.inside[0]) - start) / safe
    inner, border = entry.min(), ahead.min()
    outer = (border <= inner) & (border <= 1.0)
    hit = outer | jnp.isfinite(inner)
    axis = jnp.where(outer, ahead.argmin(), axes[entry.argmin()])
    normal = jnp.where(hit & (jnp.arange(2) == axis), -heading, 0.0)
    fraction = jnp.where(hit, jnp.maximum(jnp.minimum(inner, border), 0.0), 1.0)
    return Contact(hit, fraction, normal, outer)


def free(walls: Walls, point: Float[Array, "2"], clearance: float = 0.0) -> Bool[Array, ""]:
    """Whether a point is inside the world and in no box, with at least some clearance."""
    within = (point >= walls.inside[0] + clearance) & (point <= walls.inside[1] - clearance)
    buried = (point > walls.low - clearance) & (point < walls.high + clearance)
    return within.all() & ~buried.all(axis=1).any()


def clear(walls: Walls, point: Float[Array, "2"], clearance: Float[Array, ""] | float) -> Float[Array, "2"]:
    """The point moved until it is some clearance away from every wall, each time the shortest way out.

    Right where gaps between walls are wider than twice the clearance, and walls that meet, meet at right angles.
    """
    for k in range(walls.low.shape[0]):
        down, up = point - (walls.low[k] - clearance), walls.high[k] + clearance - point
        depth = jnp.minimum(down, up)
        way_out = jnp.where(down < up, -down, up)
        shallow = jnp.arange(2) == depth.argmin()
        point = point + jnp.where((depth > 0.0).all() & shallow, way_out, 0.0)
    return jnp.clip(point, walls.inside[0] + clearance, walls.inside[1] - clearance)


def stop(
    walls: Walls,
    start: Float[Array, "2"],
    move: Float[Array, "2"],
    rebound: Float[Array, ""],
    clearance: Float[Array, ""] | float,
) -> tuple[Float[Array, "2"], Contact]:
    """Move until something is touched, and end slightly off it.

    Args:
        walls: What is solid.
        start: Where the move begins.
        move: Displacement.
        rebound: Distance kept from what was touched, along its normal; at least the clearance.
        clearance: Least distance from any wall after a touch.

    Returns:
        Where the move ends, and what it touched.
    """
    touch = contact(walls, start, move)
    off = start + touch.fraction * move + touch.normal * jnp.maximum(rebound, clearance)
    return jnp.where(touch.hit, clear(walls, off, clearance), start + move), touch


def slide(
    walls: Walls, start: Float[Array, "2"], move: Float[Array, "2"], clearance: float
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Move until something is touched, and go on along it with what is left of the move.

    Args:
        walls: What is solid.
        start: Where the move begins.
        move: Displacement.
        clearance: Distance kept from what was touched.

    Returns:
        Where the move ends, and 0 for every direction in which something blocked it, 1 elsewhere.
    """
    here, touch = stop(walls, start, move, jnp.zeros(()), clearance)
    along = 1.0 - jnp.abs(touch.normal)
    rest = jnp.where(touch.hit, (1.0 - touch.fraction) * move * along, 0.0)
    there, second = stop(walls, here, rest, jnp.zeros(()), clearance)
    return there, along * (1.0 - jnp.abs(second.normal))
