"""Predictors: networks that predict the next latent from a latent and an action.

All predict changes, `ẑ[t+1] = z[t] + Δ`, which are small initially, so static coordinates need not be learnt.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.attention import Block
from world_models.networks.mlp import MLP, Sizes

PyTree = Any
Latents = Float[Array, "*batch latent"]
Actions = Float[Array, "*batch action"]
Units = Float[Array, "*batch units"]

_MASKED = -1e9  # score of a masked token; finite, so that a row without visible tokens gives no NaN
_SMALL = 0.1  # factor on the last layer's initial weights, so that initial changes are small


class Predictor(nnx.Module):
    """Base of all predictors, so that a world model can use any of them; one without a carry defines `step` alone.

    The `carry` is a tree of floating-point arrays with the batch axes of the latents first. It holds information about
    earlier steps.
    """

    def begin(self, latent: Latents) -> PyTree:
        """Returns the initial carry, without earlier steps."""
        return ()

    def step(self, carry: PyTree, latent: Latents, action: Actions) -> tuple[PyTree, Latents]:
        """Returns carry and latent after one step; planners roll it forward."""
        raise NotImplementedError

    def follow(self, latents: Latents, actions: Actions) -> tuple[PyTree, Latents]:
        """Returns what `step` returns after the real steps 0..t, for all t of trajectories `[batch, steps, ...]` at once."""
        return self.step((), latents, actions)


class MLPPredictor(Predictor):
    """Perceptron on latent and action, without a carry; for latents that are Markov states."""

    def __init__(self, latent: int, action: int, *, hidden: Sizes = (256, 256), rngs: nnx.Rngs) -> None:
        self.change = MLP((latent + action, *hidden, latent), last_scale=_SMALL, rngs=rngs)

    def step(self, carry: PyTree, latent: Latents, action: Actions) -> tuple[PyTree, Latents]:
        return (), latent + self.change(jnp.concatenate([latent, action], axis=-1))


class VelocityPredictor(MLPPredictor):
    """`MLPPredictor` with the last change of the latent as its carry.

    The prediction does not use the carry. A prior over actions or latents uses it, because a position does not tell the
    direction of motion.
    """

    def begin(self, latent: Latents) -> Latents:
        return jnp.zeros_like(latent)

    def step(self, carry: PyTree, latent: Latents, action: Actions) -> tuple[Latents, Latents]:
        change = self.change(jnp.concatenate([latent, action], axis=-1))
        return change, latent + change


class RecurrentPredictor(Predictor):
    """Gated recurrent unit; for partially observed worlds, such as images that do not show velocities.

        r, u = σ([x, h] W),   h ← (1 - u) h + u tanh([x, r h] V),   Δ = MLP([x, h]),   x = [z, a]

    The carry h has `units` numbers; `hidden` are the layers between carry and change.

    Source: Cho et al. (2014), arXiv:1406.1078.
    """

    def __init__(self, latent: int, action: int, *, units: int = 128, hidden: Sizes = (256,), rngs: nnx.Rngs) -> None:
        inputs = latent + action
        self.units = units
        self.gates, self.candidate = MLP((inputs + units, 2 * units), rngs=rngs), MLP((inputs + units, units), rngs=rngs)
        self.change = MLP((inputs + units, *hidden, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Latents) -> Units:
        return jnp.zeros((*latent.shape[:-1], self.units), latent.dtype)

    def step(self, carry: Units, latent: Latents, action: Actions) -> tuple[Units, Latents]:
        x = jnp.concatenate([latent, action], axis=-1)
        reset, update = jnp.split(nnx.sigmoid(self.gates(jnp.concatenate([x, carry], axis=-1))), 2, axis=-1)
        candidate = jnp.tanh(self.candidate(jnp.concatenate([x, reset * carry], axis=-1)))
        carry = (1 - update) * carry + update * candidate
        return carry, latent + self.change(jnp.concatenate([x, carry], axis=-1))

    def follow(self, latents: Latents, actions: Actions) -> tuple[Units, Latents]:
        def advance(carry: jax.Array, step: tuple[jax.Array, jax.Array]):
            carry, following = self.step(carry, *step)
            return carry, (carry, following)

        steps = (latents.swapaxes(0, 1), actions.swapaxes(0, 1))
        _, (carries, following) = jax.lax.scan(advance, self.begin(latents[:, 0]), steps)
        return carries.swapaxes(0, 1), following.swapaxes(0, 1)


class Cache(NamedTuple):
    """Keys and values of the last W tokens in every block, oldest first; `valid` is 1 for real tokens, 0 for padding."""

    keys: Float[Array, "*batch depth W width"]
    values: Float[Array, "*batch depth W width"]
    valid: Float[Array, "*batch W"]


class CausalPredictor(Predictor):
    """Causal transformer over the last W steps, with one token per latent and action.

    In every block a token attends to itself and the W - 1 tokens before it; scores depend on the age of a token. Keys and
    values are cached, so a step costs one token and equals the same step of the parallel computation.

    Args:
        window: Number W of steps that a token attends to, including its own.
        width: Size of a token, a multiple of `heads`.
        depth: Number of blocks.
        heads: Number of attention heads.

    Raises:
        ValueError: If the window is empty, or the width is not a multiple of the heads.
    """

    def __init__(
        self, latent: int, action: int, *, window: int = 8, width: int = 128, depth: int = 2, heads: int = 4, rngs: nnx.Rngs
    ) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1; got window={window}")
        self.window, self.width = window, width
        self.embed = MLP((latent + action, width), rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.ages = nnx.Param(jnp.zeros((depth, heads, window)))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.change = MLP((width, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Latents) -> Cache:
        batch = latent.shape[:-1]
        kept = jnp.zeros((*batch, len(self.blocks), self.window, self.width), latent.dtype)
        return Cache(kept, kept, jnp.zeros((*batch, self.window), latent.dtype))

    def step(self, carry: Cache, latent: Latents, action: Actions) -> tuple[Cache, Latents]:
        """Returns carry and latent after one step; the newest token replaces the oldest in the window."""
        x = self.embed(jnp.concatenate([latent, action], axis=-1))[..., None, :]
        valid = jnp.concatenate([carry.valid[..., 1:], jnp.ones_like(carry.valid[..., :1])], axis=-1)
        hidden = jnp.where(valid > 0.5, 0.0, _MASKED)[..., None, None, :]
        kept = []
        for index, block in enumerate(self.blocks):
            old = (part[..., index, 1:, :] for part in (carry.keys, carry.values))
            keys, values = (jnp.concatenate(pair, axis=-2) for pair in zip(old, block.keys_and_values(x), strict=True))
            x = block(x, keys, values, hidden + self.ages[...][index][:, None, ::-1])
            kept.append((keys, values))
        keys, values = (jnp.stack(part, axis=-3) for part in zip(*kept, strict=True))
        return Cache(keys, values, valid), latent + self._read(x)[..., 0, :]

    def follow(self, latents: Latents, actions: Actions) -> tuple[Cache, Latents]:
        x = self.embed(jnp.concatenate([latents, actions], axis=-1))
        steps = jnp.arange(latents.shape[1])
        age = steps[:, None] - steps
        visible = (age >= 0) & (age < self.window)
        biases = jnp.where(visible, self.ages[...][:, :, jnp.clip(age, 0, self.window - 1)], _MASKED)
        places = steps[:, None] + jnp.arange(1 - self.window, 1)  # [steps, W] steps in each step's window, oldest first
        there = places >= 0
        kept = []
        for block, bias in zip(self.blocks, biases, strict=True):
            keys, values = block.keys_and_values(x)
            x = block(x, keys, values, bias)
            kept.append([jnp.where(there[..., None], part[:, jnp.maximum(places, 0)], 0.0) for part in (keys, values)])
        keys, values = (jnp.stack(part, axis=-3) for part in zip(*kept, strict=True))
        valid = jnp.broadcast_to(there.astype(x.dtype), (x.shape[0], *there.shape))
        return Cache(keys, values, valid), latents + self._read(x)

    def _read(self, x: jax.Array) -> jax.Array:
        return self.change(self.norm(x))
