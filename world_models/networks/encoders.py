"""What turns an observation into a latent, and a latent into a frame.

Frames are cut into disjoint patches and patches multiplied by matrices: what a convolution with a stride of its own width
computes, without a convolution, whose gradients take several times as long on a CPU.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Num

from world_models.networks import patches
from world_models.networks.attention import Block
from world_models.networks.mlp import MLP

Levels = tuple[tuple[int, int], ...]

LEVELS: Levels = ((4, 32), (4, 64), (2, 128))
"""Patches of 4x4 pixels become 32 numbers, 4x4 of those 64, 2x2 of those 128: 64x64 pixels become 2x2 places."""


def levels_for(shape: tuple[int, ...]) -> Levels:
    """Levels of patches that leave about 4x4 places of an image `[H, W, C]`; 5x5 of one of 10x10, seen closely."""
    side = max(shape[:2])
    return ((2, 32),) if side <= 16 else ((math.ceil(side / 12), 32), (3, 64))


class VectorEncoder(nnx.Module):
    """A multi-layer perceptron for observations that are vectors already, `[*batch, O]` to `[*batch, latent]`.

    Args:
        shape: `(O,)`.
        latent: Size of a latent.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If observations are no vectors.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, *, hidden: tuple[int, ...] = (128, 128), rngs: nnx.Rngs):
        if len(shape) != 1:
            raise ValueError(
                f"observations of shape {list(shape)} are no vectors: encode frames with PatchEncoder or ViTEncoder"
            )
        self.network = MLP((shape[0], *hidden, latent), rngs=rngs)

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch latent"]:
        """Normalised observations to latents."""
        return self.network(observation)


class Identity(nnx.Module):
    """Nothing to learn: a latent is the normalised observation, for vectors that say all there is to know.

    Args:
        shape: `(O,)`.
        latent: Size of a latent, O.
        rngs: Not looked at.

    Raises:
        ValueError: If observations are no vectors of that size.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, *, rngs: nnx.Rngs):
        if shape != (latent,):
            raise ValueError(f"observations of shape {list(shape)} are no latents of size {latent} as they are")

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch observation"]:
        """The observation."""
        return observation


class PatchEncoder(nnx.Module):
    """Patches, then patches of patches, each level one matrix product, then a multi-layer perceptron on all that is left.

        x ← silu(cut(x, p) W + b)   for every level (p, width),        z = MLP(x of every place)

    Args:
        shape: `(H, W, C)` of a frame.
        latent: Size of a latent.
        levels: `(patch, width)` from pixels upwards: the side of a patch, and how many numbers it becomes.
        dense: Units of the hidden layers of the perceptron at the end.
        fit: What to do with frames whose sides are no multiple of the product of the patches: see `patches.fitted`.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If frames don't fit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        *,
        levels: Levels = LEVELS,
        dense: tuple[int, ...] = (256,),
        fit: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.shape, self.sides = tuple(shape), tuple(patch for patch, _ in levels)
        self.size = patches.fitted(shape, math.prod(self.sides), fit)
        widths = (shape[-1], *(width for _, width in levels))
        self.layers = nnx.List(
            [
                MLP((p * p * before, after), rngs=rngs)
                for p, before, after in zip(self.sides, widths, widths[1:], strict=False)
            ]
        )
        places = math.prod(side // math.prod(self.sides) for side in self.size)
        self.head = MLP((places * widths[-1], *dense, latent), rngs=rngs)

    def __call__(self, frames: Num[Array, "*batch H W C"]) -> Float[Array, "*batch latent"]:
        """Frames, as bytes or numbers, to latents."""
        x = patches.cut(patches.resize(patches.unit(_shaped(frames, self.shape)), *self.size), self.sides)
        batch, above = x.shape[:-2], (*self.sides[1:], None)
        for side, layer in zip(above, self.layers, strict=True):
            x = nnx.silu(layer(x))
            # consecutive rows are the patches of a patch, and at last all places of a frame
            x = x.reshape(*batch, -1) if side is None else x.reshape(*batch, -1, side**2 * x.shape[-1])
        return self.head(x)


class PatchDecoder(nnx.Module):
    """A patch encoder run backwards: a perceptron, then each place becomes a patch by one matrix product, level by level.

    Args:
        shape: `(H, W, C)` of a frame.
        latent: Size of a latent.
        levels: As of the encoder, from pixels upwards.
        dense: Units of the hidden layers of the perceptron.
        fit: As of the encoder; what it cropped comes back as zeros, what it padded is cut off.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If frames don't fit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        *,
        levels: Levels = LEVELS,
        dense: tuple[int, ...] = (256,),
        fit: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.shape, self.sides = tuple(shape), tuple(patch for patch, _ in levels)
        self.size = patches.fitted(shape, math.prod(self.sides), fit)
        self.places = math.prod(side // math.prod(self.sides) for side in self.size)
        widths = (*(width for _, width in reversed(levels)), shape[-1])
        self.head = MLP((latent, *dense, self.places * widths[0]), rngs=rngs)
        steps = zip(reversed(self.sides), widths, widths[1:], strict=False)
        self.layers = nnx.List([MLP((before, p * p * after), rngs=rngs) for p, before, after in steps])

    def __call__(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "*batch H W C"]:
        """Latents to frames, in the unit of what the encoder was given."""
        x = self.head(latent)
        x = x.reshape(*x.shape[:-1], self.places, -1)
        for layer in self.layers:
            x = layer(nnx.silu(x.reshape(*x.shape[:-2], -1, layer.kernels[0].shape[0])))
        x = x.reshape(*latent.shape[:-1], -1, self.sides[0] ** 2 * self.shape[-1])
        return patches.resize(patches.join(x, self.sides, *self.size), *self.shape[:2])


class ViTEncoder(nnx.Module):
    """A small vision transformer: patches as tokens with their places, pre-norm blocks, the mean of all tokens.

    Every patch sees every other, which patches of patches don't until the end: for worlds where it matters how far apart
    things are. It costs more per frame.

    Args:
        shape: `(H, W, C)` of a frame.
        latent: Size of a latent.
        patch: Side of a patch in pixels; smaller ones see finer, at a cost that grows with the fourth power.
        width: Numbers per token, a multiple of 4 and of the heads.
        depth: Blocks.
        heads: Of attention.
        fit: What to do with frames whose sides are no multiple of the patch: see `patches.fitted`.
        rngs: Source of the initial weights; places begin as sines and cosines and are learnt.

    Raises:
        ValueError: If frames or the width don't fit.

    Source: Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, arXiv:2010.11929.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        *,
        patch: int = 8,
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        fit: str | None = None,
        rngs: nnx.Rngs,
    ):
        if width % 4 or width % heads:
            raise ValueError(f"the width must be a multiple of 4 and of the heads; got width={width}, heads={heads}")
        self.shape, self.patch = tuple(shape), patch
        self.size = patches.fitted(shape, patch, fit)
        self.embed = MLP((patch * patch * shape[-1], width), rngs=rngs)
        self.places = nnx.Param(jnp.asarray(_waves(self.size[0] // patch, self.size[1] // patch, width)))
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = MLP((width, latent), rngs=rngs)

    def __call__(self, frames: Num[Array, "*batch H W C"]) -> Float[Array, "*batch latent"]:
        """Frames, as bytes or numbers, to latents."""
        x = patches.cut(patches.resize(patches.unit(_shaped(frames, self.shape)), *self.size), (self.patch,))
        x = self.embed(x) + self.places[...]
        for block in self.blocks:
            x = block(x, *block.keys_and_values(x))
        return self.head(self.norm(x).mean(axis=-2))


def _shaped(frames: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if frames.shape[-3:] != shape:
        raise ValueError(f"this encoder was made for frames of shape {list(shape)}; got {list(frames.shape[-3:])}")
    return frames


def _waves(rows: int, columns: int, width: int) -> np.ndarray:
    """Sines and cosines of row and column at wavelengths from 2π to 10,000 · 2π, `[rows * columns, width]`."""
    rates = 10_000.0 ** -(np.arange(width // 4) / max(width // 4, 1))
    row, column = (np.arange(n)[:, None] * rates for n in (rows, columns))
    row, column = (np.concatenate([np.sin(x), np.cos(x)], axis=1) for x in (row, column))
    shape = (rows, columns, width // 2)
    places = [np.broadcast_to(row[:, None], shape), np.broadcast_to(column[None], shape)]
    return np.concatenate(places, axis=-1).astype(np.float32).reshape(rows * columns, width)
