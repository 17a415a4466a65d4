"""Conversion of frames: to floating point, to a size divisible into patches, and to and from patches."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

Frames = Float[Array, "*batch H W C"]
Patches = Float[Array, "*batch patches pixels"]


def unit(frames: Num[Array, "*frames"]) -> Float[Array, "*frames"]:
    """Converts bytes to numbers in [0, 1]; returns floating-point frames unchanged.

    Raises:
        ValueError: If frames have another dtype.
    """
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255.0
    if not jnp.issubdtype(frames.dtype, jnp.floating):
        raise ValueError(f"frames must be bytes (uint8) or floating-point numbers; got {frames.dtype}")
    return frames


def padded_size(shape: tuple[int, ...], patch: int, fit: str | None) -> tuple[int, int]:
    """Returns the height and width of padded or cropped frames, multiples of the patch side.

    Args:
        shape: `(H, W, C)` of a frame.
        patch: Side of a patch in pixels; with several levels, the product of their sides.
        fit: For sizes that are not multiples: `"pad"` surrounds frames with zeros, `"crop"` keeps their middle, None raises
            an error.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a frame must have shape [height, width, channels]; got {list(shape)}")
    if fit not in (None, "pad", "crop"):
        raise ValueError(f"fit must be 'pad', 'crop' or None; got {fit!r}")
    height, width, _ = shape
    padded = math.ceil(height / patch) * patch, math.ceil(width / patch) * patch
    cropped = height // patch * patch, width // patch * patch
    if padded == cropped:
        return padded
    if fit is None:
        raise ValueError(
            f"frames of {height}x{width} do not divide into patches of {patch}x{patch}: fit='pad' surrounds them with zeros "
            f"to {padded[0]}x{padded[1]}, fit='crop' keeps the middle {cropped[0]}x{cropped[1]}"
        )
    if fit == "crop" and min(cropped) < 1:
        raise ValueError(f"frames of {height}x{width} are smaller than a patch of {patch}x{patch} and cannot be cropped")
    return padded if fit == "pad" else cropped


def resize(frames: Float[Array, "*batch H W C"], height: int, width: int) -> Float[Array, "*batch h w C"]:
    """Pads frames with zeros or crops them around the middle; an odd difference affects the last row or column.

    Both axes must be padded, or both cropped.
    """
    for axis, size in ((-3, height), (-2, width)):
        change = size - frames.shape[axis]
        if change > 0:
            widths = [(0, 0)] * frames.ndim
            widths[axis] = (change // 2, change - change // 2)
            frames = jnp.pad(frames, widths)
        elif change < 0:
            frames = jnp.take(frames, jnp.arange(size) + -change // 2, axis=axis)
    return frames


def cut(frames: Frames, sides: tuple[int, ...]) -> Patches:
    """Cuts frames into disjoint patches, each a row of `sides[0]² C` numbers, in hierarchical order.

    `sides[1]²` consecutive rows form one patch of the next level, and so on upwards. After one transposition of pixels,
    every higher level is a reshape.

    Args:
        frames: Frames whose height and width are multiples of the product of the sides.
        sides: Side of a patch in pixels, side of a second-level patch in patches, and so on upwards.
    """
    *batch, height, width, channels = frames.shape
    order, axes = _order(len(batch), len(sides)), (*reversed(sides),)
    whole = math.prod(sides)
    tiles = frames.reshape(*batch, height // whole, *axes, width // whole, *axes, channels)
    return tiles.transpose(order).reshape(*batch, -1, sides[0] ** 2 * channels)


def join(tiles: Patches, sides: tuple[int, ...], height: int, width: int) -> Frames:
    """Joins patches to frames of so many pixels, the inverse of `cut`."""
    *batch, _, pixels = tiles.shape
    order, axes = _order(len(batch), len(sides)), (*reversed(sides),)
    whole = math.prod(sides)
    pairs = (side for side in axes for _ in range(2))
    split = tiles.reshape(*batch, height // whole, width // whole, *pairs, pixels // sides[0] ** 2)
    back = tuple(order.index(axis) for axis in range(len(order)))
    return split.transpose(back).reshape(*batch, height, width, pixels // sides[0] ** 2)


def _order(batch: int, levels: int) -> tuple[int, ...]:
    """Returns the axes of `[*batch, rows, side, …, columns, side, …, channels]` with row and column axes interleaved."""
    rows = range(batch, batch + levels + 1)
    columns = range(batch + levels + 1, batch + 2 * levels + 2)
    pairs = (axis for pair in zip(rows, columns, strict=True) for axis in pair)
    return (*range(batch), *pairs, batch + 2 * levels + 2)
