"""Frames as numbers, of a size that patches fill, cut into patches and put together again."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def unit(frames: Num[Array, "*frames"]) -> Float[Array, "*frames"]:
    """Bytes as numbers from 0 to 1; floating-point frames as they are.

    Raises:
        ValueError: If frames are neither.
    """
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255.0
    if not jnp.issubdtype(frames.dtype, jnp.floating):
        raise ValueError(f"frames are bytes (uint8) from 0 to 255 or floating-point numbers; got {frames.dtype}")
    return frames


def fitted(shape: tuple[int, ...], patch: int, fit: str | None) -> tuple[int, int]:
    """The height and width that frames are brought to, multiples of the patch.

    Args:
        shape: `(H, W, C)` of a frame.
        patch: Side of a patch in pixels; of the patches of patches, where there are several levels.
        fit: `"pad"` surrounds frames that don't fit with zeros, `"crop"` drops what is too much around their middle, None
            takes only frames that fit.

    Raises:
        ValueError: If frames don't fit and nothing was said about it, or have no three axes, or crop to nothing.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"frames are [height, width, channels]; got {list(shape)}")
    if fit not in (None, "pad", "crop"):
        raise ValueError(f"fit must be 'pad', 'crop' or None; got {fit!r}")
    height, width, _ = shape
    padded = math.ceil(height / patch) * patch, math.ceil(width / patch) * patch
    cropped = height // patch * patch, width // patch * patch
    if padded == cropped:
        return padded
    if fit is None:
        raise ValueError(
            f"frames of {height}x{width} don't divide into patches of {patch}x{patch}: fit='pad' surrounds them with zeros "
            f"to {padded[0]}x{padded[1]}, fit='crop' keeps the middle {cropped[0]}x{cropped[1]}"
        )
    if fit == "crop" and min(cropped) < 1:
        raise ValueError(f"frames of {height}x{width} are smaller than a patch of {patch}x{patch}: nothing would be left")
    return padded if fit == "pad" else cropped


def resize(frames: Float[Array, "*batch H W C"], height: int, width: int) -> Float[Array, "*batch h w C"]:
    """Pad with zeros or crop around the middle; where that is odd, the last row or column is the one more or less.

    Args:
        frames: What is to be resized.
        height: In pixels; no frame is padded along one axis and cropped along the other.
        width: In pixels.
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


def cut(frames: Float[Array, "*batch H W C"], sides: tuple[int, ...]) -> Float[Array, "*batch patches pixels"]:
    """Cut frames into disjoint patches, each a row of its `sides[0]² C` numbers, in the order of patches of patches.

    Rows come sorted by the patch of `sides[-1]²` patches of … of `sides[1]²` patches that they lie in, row by row within
    each, so that `sides[1]²` consecutive rows are one patch of the next level: after one transposition of pixels, every
    level above is a mere reshape.

    Args:
        frames: Of a height and width that are multiples of the product of the sides.
        sides: Of a patch in pixels, of a patch of patches in patches, and so on upwards.
    """
    *batch, height, width, channels = frames.shape
    order, axes = _order(len(batch), len(sides)), (*reversed(sides),)
    whole = math.prod(sides)
    tiles = frames.reshape(*batch, height // whole, *axes, width // whole, *axes, channels)
    return tiles.transpose(order).reshape(*batch, -1, sides[0] ** 2 * channels)


def join(
    tiles: Float[Array, "*batch patches pixels"], sides: tuple[int, ...], height: int, width: int
) -> Float[Array, "*batch H W C"]:
    """Put patches together again, the inverse of `cut`.

    Args:
        tiles: In the order of `cut`.
        sides: As of `cut`.
        height: Of the frames in pixels.
        width: Of the frames in pixels.
    """
    *batch, _, pixels = tiles.shape
    order, axes = _order(len(batch), len(sides)), (*reversed(sides),)
    whole = math.prod(sides)
    pairs = (side for side in axes for _ in range(2))
    split = tiles.reshape(*batch, height // whole, width // whole, *pairs, pixels // sides[0] ** 2)
    back = tuple(order.index(axis) for axis in range(len(order)))
    return split.transpose(back).reshape(*batch, height, width, pixels // sides[0] ** 2)


def _order(batch: int, levels: int) -> tuple[int, ...]:
    """Axes of `[*batch, rows, side, …, columns, side, …, channels]` with rows and columns of every level side by side."""
    rows = range(batch, batch + levels + 1)
    columns = range(batch + levels + 1, batch + 2 * levels + 2)
    pairs = (axis for pair in zip(rows, columns, strict=True) for axis in pair)
    return (*range(batch), *pairs, batch + 2 * levels + 2)
