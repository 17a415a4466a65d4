"""Collisions of a moving point with walls.

The free space is an axis-aligned rectangle minus K solid axis-aligned boxes. A collision test uses the whole segment of a
move, not only its end, so a long move cannot pass through a wall. All functions are branch-free: batches of worlds and
points cost a few fused operations.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_MIN_MOVE = 1e-9  # smaller displacements are raised to this to avoid division by zero


class Walls(NamedTuple):
    """Border and boxes that a point cannot enter."""

    inside: Float[Array, "2 2"]
    """`(low, high)` of the outer rectangle."""
    low: Float[Array, "K 2"]
    """Lower corners of the solid boxes."""
    high: Float[Array, "K 2"]
    """Upper corners."""


class Contact(NamedTuple):
    """First contact of a move with a wall."""

    hit: Bool[Array, ""]
    fraction: Float[Array, ""]
    """Fraction of the move before the contact; 1 without contact."""
    normal: Float[Array, "2"]
    """Unit normal of the face, towards the free side; zero without contact."""
    outer: Bool[Array, ""]
    """True if the contact is with the outer rectangle."""


def contact(walls: Walls, start: Float[Array, "2"], move: Float[Array, "2"]) -> Contact:
    """Returns the first contact of a move with any wall.

    A segment enters a box where it is between both pairs of faces at once (the slab test). It leaves the outer rectangle at
    the nearer of the two faces ahead. The start must be free.

    Args:
        walls: Border and boxes.
        start: Where the move begins.
        move: Displacement.
    """
    safe = jnp.where(jnp.abs(move) < _MIN_MOVE, _MIN_MOVE, move)
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
    """Returns True if a point is inside the outer rectangle and outside all boxes, with a minimal clearance."""
    within = (point >= walls.inside[0] + clearance) & (point <= walls.inside[1] - clearance)
    buried = (point > walls.low - clearance) & (point < walls.high + clearance)
    return within.all() & ~buried.all(axis=1).any()


def clear(walls: Walls, point: Float[Array, "2"], clearance: Float[Array, ""] | float) -> Float[Array, "2"]:
    """Returns the point moved by the shortest displacement to a given clearance from each wall, one wall at a time.

    The result is correct if gaps between walls are wider than twice the clearance and adjoining walls form right angles.
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
    """Moves a point until it touches a wall, and ends slightly off that wall.

    Args:
        walls: Border and boxes.
        start: Start of the move.
        move: Displacement.
        rebound: Distance from the touched wall along its normal; at least the clearance.
        clearance: Smallest distance from any wall after a contact.

    Returns:
        End of the move, and its contact.
    """
    touch = contact(walls, start, move)
    off = start + touch.fraction * move + touch.normal * jnp.maximum(rebound, clearance)
    return jnp.where(touch.hit, clear(walls, off, clearance), start + move), touch


def slide(
    walls: Walls, start: Float[Array, "2"], move: Float[Array, "2"], clearance: float
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Moves a point until it touches a wall, then slides along the wall for the rest of the move.

    Args:
        walls: Border and boxes.
        start: Start of the move.
        move: Displacement.
        clearance: Distance from the touched wall.

    Returns:
        End of the move, and a mask per axis: 0 where a wall blocked the move, 1 elsewhere.
    """
    here, touch = stop(walls, start, move, jnp.zeros(()), clearance)
    along = 1.0 - jnp.abs(touch.normal)
    rest = jnp.where(touch.hit, (1.0 - touch.fraction) * move * along, 0.0)
    there, second = stop(walls, here, rest, jnp.zeros(()), clearance)
    return there, along * (1.0 - jnp.abs(second.normal))
