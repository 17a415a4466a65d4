"""Predictors: networks that predict the next latent from a latent and an action.

All predictors have one signature, so a world model can use any of them. A predictor has a `carry`, a tree of floating-point
arrays with the batch axes of the latents first, which holds information about earlier steps:

    begin(latent) -> carry                                   the initial carry, without earlier steps
    step(carry, latent, action) -> (carry, next latent)      one step; planners roll it forward
    follow(latents, actions) -> (carries, next latents)      all steps of real trajectories in parallel: entry t is the
                                                             result of `step` after the real steps 0..t

All predict changes, `ẑ[t+1] = z[t] + Δ`, which are small initially, so static coordinates need not be learnt.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.attention import Block
from world_models.networks.mlp import MLP

PyTree = Any

_MASKED = -1e9  # score of a masked token; finite, so that a row without visible tokens gives no NaN
_SMALL = 0.1  # factor on the last layer's initial weights, so that initial changes are small


class Predictor(Protocol):
    """Signature of a predictor; see the module docstring."""

    def begin(self, latent: Float[Array, "*batch latent"]) -> PyTree:
        """Returns the carry without earlier steps."""
        ...

    def step(
        self, carry: PyTree, latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[PyTree, Float[Array, "*batch latent"]]:
        """Returns carry and latent after an action."""
        ...

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[PyTree, Float[Array, "batch steps latent"]]:
        """Returns carries and next latents after every step of real trajectories."""
        ...


class MLPPredictor(nnx.Module):
    """Perceptron on latent and action, without a carry; for latents that are Markov states.

    Args:
        latent: Size of a latent.
        action: Size of an action, all actions of a block together.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.
    """

    def __init__(self, latent: int, action: int, *, hidden: tuple[int, ...] = (256, 256), rngs: nnx.Rngs):
        self.change = MLP((latent + action, *hidden, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> tuple[()]:
        """Returns the initial carry, which is empty."""
        return ()

    def step(
        self, carry: tuple[()], latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[tuple[()], Float[Array, "*batch latent"]]:
        """Returns carry and latent after one step."""
        return (), latent + self.change(jnp.concatenate([latent, action], axis=-1))

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[tuple[()], Float[Array, "batch steps latent"]]:
        """Returns carries and next latents for every step of real trajectories; steps are independent."""
        return self.step((), latents, actions)


class VelocityPredictor(MLPPredictor):
    """`MLPPredictor` with the last change of the latent as its carry.

    The prediction does not use the carry. A prior over actions or latents uses it, because a position does not tell the
    direction of motion.
    """

    def begin(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "*batch latent"]:
        """Returns a zero change."""
        return jnp.zeros_like(latent)

    def step(
        self, carry: Any, latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[Float[Array, "*batch latent"], Float[Array, "*batch latent"]]:
        """Returns carry and latent after one step."""
        change = self.change(jnp.concatenate([latent, action], axis=-1))
        return change, latent + change

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[Float[Array, "batch steps latent"], Float[Array, "batch steps latent"]]:
        """Returns carries and next latents for every step of real trajectories."""
        return self.step((), latents, actions)


class RecurrentPredictor(nnx.Module):
    """Gated recurrent unit; for partially observed worlds, such as images that do not show velocities.

        r, u = σ([x, h] W),   h ← (1 - u) h + u tanh([x, r h] V),   Δ = MLP([x, h]),   x = [z, a]

    Args:
        latent: Size of a latent.
        action: Size of an action, all actions of a block together.
        units: Size of the carry h.
        hidden: Units of the hidden layers between carry and change.
        rngs: Source of the initial weights.

    Source: Cho et al. (2014), arXiv:1406.1078.
    """

    def __init__(self, latent: int, action: int, *, units: int = 128, hidden: tuple[int, ...] = (256,), rngs: nnx.Rngs):
        inputs = latent + action
        self.units = units
        self.gates, self.candidate = MLP((inputs + units, 2 * units), rngs=rngs), MLP((inputs + units, units), rngs=rngs)
        self.change = MLP((inputs + units, *hidden, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "*batch units"]:
        """Returns a zero carry."""
        return jnp.zeros((*latent.shape[:-1], self.units), latent.dtype)

    def step(
        self,
        carry: Float[Array, "*batch units"],
        latent: Float[Array, "*batch latent"],
        action: Float[Array, "*batch action"],
    ) -> tuple[Float[Array, "*batch units"], Float[Array, "*batch latent"]]:
        """Returns carry and latent after one step."""
        x = jnp.concatenate([latent, action], axis=-1)
        reset, update = jnp.split(nnx.sigmoid(self.gates(jnp.concatenate([x, carry], axis=-1))), 2, axis=-1)
        candidate = jnp.tanh(self.candidate(jnp.concatenate([x, reset * carry], axis=-1)))
        carry = (1 - update) * carry + update * candidate
        return carry, latent + self.change(jnp.concatenate([x, carry], axis=-1))

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[Float[Array, "batch steps units"], Float[Array, "batch steps latent"]]:
        """Returns carries and next latents for every step of real trajectories, by a sequential scan."""

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


class CausalPredictor(nnx.Module):
    """Causal transformer over the last W steps, with one token per latent and action.

    In every block a token attends to itself and the W - 1 tokens before it; scores depend on the age of a token. Keys and
    values are cached, so a step costs one token and equals the same step of the parallel computation.

    Args:
        latent: Size of a latent.
        action: Size of an action, all actions of a block together.
        window: Number W of steps that a token attends to, including its own.
        width: Size of a token, a multiple of `heads`.
        depth: Number of blocks.
        heads: Number of attention heads.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If the window is empty, or the width is not a multiple of the heads.
    """

    def __init__(
        self,
        latent: int,
        action: int,
        *,
        window: int = 8,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1; got window={window}")
        self.window, self.width = window, width
        self.embed = MLP((latent + action, width), rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.ages = nnx.Param(jnp.zeros((depth, heads, window)))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.change = MLP((width, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> Cache:
        """Returns an empty window."""
        batch = latent.shape[:-1]
        kept = jnp.zeros((*batch, len(self.blocks), self.window, self.width), latent.dtype)
        return Cache(kept, kept, jnp.zeros((*batch, self.window), latent.dtype))

    def step(
        self, carry: Cache, latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[Cache, Float[Array, "*batch latent"]]:
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

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[Cache, Float[Array, "batch steps latent"]]:
        """Returns carries and next latents for every step of real trajectories, computed in parallel."""
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
