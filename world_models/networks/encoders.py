"""Encoders, which map observations to latents, and a decoder, which maps latents to frames.

Frames are cut into disjoint patches, and patches are multiplied by matrices. This equals a convolution whose stride is its
width; on a CPU its gradients are several times faster than those of a convolution.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Num

from world_models.networks import patches
from world_models.networks.attention import Block
from world_models.networks.history_attention import HistoryAttention
from world_models.networks.mlp import MLP, Sizes

Levels = tuple[tuple[int, int], ...]
Fit = str | None
"""`"pad"` or `"crop"` for frames whose sides are not a multiple of those of patches, see `patches.padded_size`."""
LEVELS: Levels = ((4, 32), (4, 64), (2, 128))
"""`(patch side, features)` from pixels upwards: 4x4 pixels -> 32, 4x4 patches -> 64, 2x2 -> 128; 64x64 pixels -> 2x2."""


def levels_for(shape: tuple[int, ...]) -> Levels:
    """Returns levels that reduce an image `[H, W, C]` to about 4x4 positions; small images (10x10) keep 5x5."""
    side = max(shape[:2])
    return ((2, 32),) if side <= 16 else ((math.ceil(side / 12), 32), (3, 64))


class VectorEncoder(nnx.Module):
    """Multi-layer perceptron for vectors of shape `(O,)`; other shapes raise a ValueError."""

    def __init__(self, shape: Sizes, latent: int, *, hidden: Sizes = (128, 128), rngs: nnx.Rngs) -> None:
        if len(shape) != 1:
            raise ValueError(f"VectorEncoder needs vectors; got shape {list(shape)} (for frames: PatchEncoder, ViTEncoder)")
        self.network = MLP((shape[0], *hidden, latent), rngs=rngs)

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch latent"]:
        """Returns the latents of normalised observations."""
        return self.network(observation)


class Identity(nnx.Module):
    """Identity encoder: the latent is the normalised observation, a vector of size `latent`, or a ValueError is raised."""

    def __init__(self, shape: Sizes, latent: int, *, rngs: nnx.Rngs) -> None:
        if shape != (latent,):
            raise ValueError(f"Identity needs observations of shape [{latent}]; got {list(shape)}")

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch observation"]:
        """Returns the observation."""
        return observation


class ResidualEncoder(nnx.Module):
    """Identity plus a learnt residual, for vectors; for a history, the newest step and an attention readout.

        x = o[0],  or  (o[0], attention(o[0], …, o[K-1])),        z = (x, 0) + MLP(x)

    The initial residual is 0, so initial latents are observations. Latents include the attention readout, so predictions
    carry it forward.

    Raises:
        ValueError: If observations are not vectors, or the latent is smaller than `inputs(O, K)`, the size of x.
    """

    READOUT = 8
    """Size of the attention readout of a history."""

    def __init__(self, shape: Sizes, latent: int, *, hidden: int = 64, rngs: nnx.Rngs) -> None:
        if len(shape) > 2:
            raise ValueError(f"ResidualEncoder needs vectors; got shape {list(shape)} (for frames: PatchEncoder)")
        steps, size = (1, *shape)[-2:]
        inputs = self.inputs(size, steps)
        if latent < inputs:
            raise ValueError(f"latent must be at least {inputs}; got latent={latent}")
        self.latent = latent
        self.history_attention = HistoryAttention(size, steps, self.READOUT, rngs=rngs) if steps > 1 else None
        self.residual = MLP((inputs, hidden, latent), last_scale=0.0, rngs=rngs)

    @classmethod
    def inputs(cls, observation: int, steps: int) -> int:
        """Returns the size of x."""
        return observation + cls.READOUT * (steps > 1)

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*rows latent"]:
        """Returns the latents of normalised observations `[..., O]` or histories `[..., K, O]`."""
        x = observation
        if self.history_attention is not None:
            x = jnp.concatenate([observation[..., 0, :], self.history_attention(observation)], axis=-1)
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.latent - x.shape[-1])])
        return padded + self.residual(x)


class VectorDecoder(nnx.Module):
    """Multi-layer perceptron from latents to vectors `(O,)` or histories `(K, O)`."""

    def __init__(self, shape: Sizes, latent: int, *, hidden: Sizes = (128,), rngs: nnx.Rngs) -> None:
        self.shape = tuple(shape)
        self.network = MLP((latent, *hidden, math.prod(shape)), rngs=rngs)

    def __call__(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "..."]:
        """Returns the normalised observations of latents."""
        return self.network(latent).reshape(*latent.shape[:-1], *self.shape)


class PatchEncoder(nnx.Module):
    """Hierarchical patch encoder: one matrix product per level of patches, then a multi-layer perceptron.

        x ← silu(cut(x, p) W + b)   for every level (p, width),        z = MLP(x of all positions)

    Args:
        levels: `(patch, width)` from pixels upwards: side and features of a patch.
        dense: Units of the hidden layers of the final perceptron.

    Raises:
        ValueError: If the frame size does not fit the patches.
    """

    def __init__(
        self, shape: Sizes, latent: int, *, levels: Levels = LEVELS, dense: Sizes = (256,), fit: Fit = None, rngs: nnx.Rngs
    ) -> None:
        self.shape, self.sides = tuple(shape), tuple(patch for patch, _ in levels)
        self.size, places = _layout(shape, self.sides, fit)
        widths = (shape[-1], *(width for _, width in levels))
        layers = zip(self.sides, pairwise(widths), strict=True)
        self.layers = nnx.List([MLP((side**2 * before, after), rngs=rngs) for side, (before, after) in layers])
        self.head = MLP((places * widths[-1], *dense, latent), rngs=rngs)

    def __call__(self, frames: Num[Array, "*batch H W C"]) -> Float[Array, "*batch latent"]:
        """Returns the latents of frames, which are bytes or floating-point numbers."""
        x = _tiles(frames, self.shape, self.size, self.sides)
        batch, above = x.shape[:-2], (*self.sides[1:], None)
        for side, layer in zip(above, self.layers, strict=True):
            x = nnx.silu(layer(x))
            # consecutive rows are the patches of one larger patch, and finally all positions of a frame
            x = x.reshape(*batch, -1) if side is None else x.reshape(*batch, -1, side**2 * x.shape[-1])
        return self.head(x)


class StandardisedPatchEncoder(PatchEncoder):
    """Patch encoder for images of any size; its latents have mean 0 and mean square 1 over their dimensions.

    Unlike vectors, images have no scale for latents to adopt. `hidden` are the units of the last hidden layer.
    """

    def __init__(self, shape: Sizes, latent: int, *, hidden: int = 64, rngs: nnx.Rngs) -> None:
        super().__init__(shape, latent, levels=levels_for(shape), dense=(hidden,), fit="pad", rngs=rngs)

    def __call__(self, frames: Num[Array, "*batch H W C"]) -> Float[Array, "*batch latent"]:
        """Returns the standardised latents of frames, which are bytes or floating-point numbers."""
        latent = super().__call__(frames)
        centred = latent - latent.mean(axis=-1, keepdims=True)
        return centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-6)


class PatchDecoder(nnx.Module):
    """Hierarchical patch decoder, the reverse of `PatchEncoder`: a perceptron, then one matrix product per level.

    It takes the arguments of the encoder, and raises as it does. Cropped pixels are zero, padded pixels are removed.
    """

    def __init__(
        self, shape: Sizes, latent: int, *, levels: Levels = LEVELS, dense: Sizes = (256,), fit: Fit = None, rngs: nnx.Rngs
    ) -> None:
        self.shape, self.sides = tuple(shape), tuple(patch for patch, _ in levels)
        self.size, self.places = _layout(shape, self.sides, fit)
        widths = (*(width for _, width in reversed(levels)), shape[-1])
        self.head = MLP((latent, *dense, self.places * widths[0]), rngs=rngs)
        layers = zip(reversed(self.sides), pairwise(widths), strict=True)
        self.layers = nnx.List([MLP((before, side**2 * after), rngs=rngs) for side, (before, after) in layers])

    def __call__(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "*batch H W C"]:
        """Returns the frames of latents, in the units of the encoder's input."""
        x = self.head(latent)
        x = x.reshape(*x.shape[:-1], self.places, -1)
        for layer in self.layers:
            x = layer(nnx.silu(x.reshape(*x.shape[:-2], -1, layer.kernels[0].shape[0])))
        x = x.reshape(*latent.shape[:-1], -1, self.sides[0] ** 2 * self.shape[-1])
        return patches.resize(patches.join(x, self.sides, *self.size), *self.shape[:2])


class ViTEncoder(nnx.Module):
    """Small vision transformer: patch tokens with learnt positions, pre-norm blocks, and the mean of all tokens.

    Every patch attends to every other in each block, so distances between objects are available early. It costs more per
    frame than `PatchEncoder`. Positions start as sines and cosines.

    Args:
        patch: Side of a patch in pixels; smaller patches resolve more detail, at a cost that grows with the fourth power.
        width: Size of a token, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Number of attention heads.

    Raises:
        ValueError: If the frame size or the width does not fit.

    Source: Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, arXiv:2010.11929.
    """

    def __init__(
        self,
        shape: Sizes,
        latent: int,
        *,
        patch: int = 8,
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        fit: Fit = None,
        rngs: nnx.Rngs,
    ) -> None:
        if width % 4 or width % heads:
            raise ValueError(f"the width must be a multiple of 4 and of the heads; got width={width}, heads={heads}")
        self.shape, self.patch = tuple(shape), patch
        self.size, _ = _layout(shape, (patch,), fit)
        self.embed = MLP((patch * patch * shape[-1], width), rngs=rngs)
        self.places = nnx.Param(jnp.asarray(_waves(self.size[0] // patch, self.size[1] // patch, width)))
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = MLP((width, latent), rngs=rngs)

    def __call__(self, frames: Num[Array, "*batch H W C"]) -> Float[Array, "*batch latent"]:
        """Returns the latents of frames, which are bytes or floating-point numbers."""
        x = self.embed(_tiles(frames, self.shape, self.size, (self.patch,))) + self.places[...]
        for block in self.blocks:
            x = block(x, *block.keys_and_values(x))
        return self.head(self.norm(x).mean(axis=-2))


def _layout(shape: Sizes, sides: Sizes, fit: Fit) -> tuple[tuple[int, int], int]:
    """Returns height and width of padded or cropped frames, and the number of patches of the highest level in them."""
    whole = math.prod(sides)
    size = patches.padded_size(shape, whole, fit)
    return size, math.prod(side // whole for side in size)


def _tiles(frames: jax.Array, shape: Sizes, size: tuple[int, int], sides: Sizes) -> jax.Array:
    """Returns the patches of frames of a shape, padded or cropped to a size."""
    if frames.shape[-3:] != shape:
        raise ValueError(f"the encoder needs frames of shape {list(shape)}; got {list(frames.shape[-3:])}")
    return patches.cut(patches.resize(patches.unit(frames), *size), sides)


def _waves(rows: int, columns: int, width: int) -> np.ndarray:
    """Returns sines and cosines of row and column at wavelengths from 2π to 10,000 · 2π, `[rows * columns, width]`."""
    rates = 10_000.0 ** -(np.arange(width // 4) / max(width // 4, 1))
    row, column = (np.arange(n)[:, None] * rates for n in (rows, columns))
    row, column = (np.concatenate([np.sin(x), np.cos(x)], axis=1) for x in (row, column))
    shape = (rows, columns, width // 2)
    places = [np.broadcast_to(row[:, None], shape), np.broadcast_to(column[None], shape)]
    return np.concatenate(places, axis=-1).astype(np.float32).reshape(rows * columns, width)
