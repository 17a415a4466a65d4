"""What imagines the next latent from a latent and an action.

All have one signature, so that a world model may be built with any. A predictor carries a `memory`, a tree of floating-point
arrays with the batch axes of the latents first, through which earlier steps may matter:

    begin(latent) -> memory                                  nothing has been seen before
    step(memory, latent, action) -> (memory, next latent)    one step; what planners roll forward
    follow(latents, actions) -> (memories, next latents)     the same for every step of real trajectories, side by side:
                                                             entry t is what `step` gives after the real steps 0..t

All predict changes, `ẑ[t+1] = z[t] + Δ`, and begin with small ones: what doesn't move need not be learnt.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.attention import Block
from world_models.networks.mlp import MLP

PyTree = Any

_HIDDEN = -1e9  # hides a token, and stays finite where everything is hidden
_SMALL = 0.1  # factor on the initial weights that make changes


class Predictor(Protocol):
    """See the module."""

    def begin(self, latent: Float[Array, "*batch latent"]) -> PyTree:
        """The memory before anything was seen."""
        ...

    def step(
        self, memory: PyTree, latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[PyTree, Float[Array, "*batch latent"]]:
        """Memory and latent after an action."""
        ...

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[PyTree, Float[Array, "batch steps latent"]]:
        """Memories and next latents after every step of real trajectories."""
        ...


class MLPPredictor(nnx.Module):
    """A perceptron on latent and action, without memory: for latents that say everything there is to know.

    Args:
        latent: Size of a latent.
        action: Size of an action, all of a block together.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.
    """

    def __init__(self, latent: int, action: int, *, hidden: tuple[int, ...] = (256, 256), rngs: nnx.Rngs):
        self.change = MLP((latent + action, *hidden, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(
        self, memory: tuple[()], latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[tuple[()], Float[Array, "*batch latent"]]:
        """One step."""
        return (), latent + self.change(jnp.concatenate([latent, action], axis=-1))

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[tuple[()], Float[Array, "batch steps latent"]]:
        """Every step of real trajectories, independently."""
        return self.step((), latents, actions)


class VelocityPredictor(MLPPredictor):
    """The same, with a memory of what changed in the last step: not for its predictions, but for priors beside it.

    Where one is does not say where one is heading, and who walks seldom turns back.
    """

    def begin(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "*batch latent"]:
        """No change is known."""
        return jnp.zeros_like(latent)

    def step(
        self, memory: Any, latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[Float[Array, "*batch latent"], Float[Array, "*batch latent"]]:
        """One step."""
        change = self.change(jnp.concatenate([latent, action], axis=-1))
        return change, latent + change

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[Float[Array, "batch steps latent"], Float[Array, "batch steps latent"]]:
        """Every step of real trajectories."""
        return self.step((), latents, actions)


class RecurrentPredictor(nnx.Module):
    """A gated recurrent unit beside the latent: for worlds in which one observation does not say what moves how.

        r, u = σ([x, h] W),   h ← (1 - u) h + u tanh([x, r h] V),   Δ = MLP([x, h]),   x = [z, a]

    Args:
        latent: Size of a latent.
        action: Size of an action, all of a block together.
        units: Size of the memory h.
        hidden: Units of the hidden layers between memory and change.
        rngs: Source of the initial weights.

    Source: Cho et al. (2014), arXiv:1406.1078.
    """

    def __init__(self, latent: int, action: int, *, units: int = 128, hidden: tuple[int, ...] = (256,), rngs: nnx.Rngs):
        inputs = latent + action
        self.units = units
        self.gates, self.candidate = MLP((inputs + units, 2 * units), rngs=rngs), MLP((inputs + units, units), rngs=rngs)
        self.change = MLP((inputs + units, *hidden, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> Float[Array, "*batch units"]:
        """An empty memory."""
        return jnp.zeros((*latent.shape[:-1], self.units), latent.dtype)

    def step(
        self,
        memory: Float[Array, "*batch units"],
        latent: Float[Array, "*batch latent"],
        action: Float[Array, "*batch action"],
    ) -> tuple[Float[Array, "*batch units"], Float[Array, "*batch latent"]]:
        """One step."""
        x = jnp.concatenate([latent, action], axis=-1)
        reset, renew = jnp.split(nnx.sigmoid(self.gates(jnp.concatenate([x, memory], axis=-1))), 2, axis=-1)
        news = jnp.tanh(self.candidate(jnp.concatenate([x, reset * memory], axis=-1)))
        memory = (1 - renew) * memory + renew * news
        return memory, latent + self.change(jnp.concatenate([x, memory], axis=-1))

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[Float[Array, "batch steps units"], Float[Array, "batch steps latent"]]:
        """Every step of real trajectories, one after the other."""

        def advance(memory: jax.Array, step: tuple[jax.Array, jax.Array]):
            memory, following = self.step(memory, *step)
            return memory, (memory, following)

        steps = (latents.swapaxes(0, 1), actions.swapaxes(0, 1))
        _, (memories, following) = jax.lax.scan(advance, self.begin(latents[:, 0]), steps)
        return memories.swapaxes(0, 1), following.swapaxes(0, 1)


class Cache(NamedTuple):
    """Keys and values of the last W tokens in every block, oldest first, and which of them were really seen (1, else 0)."""

    keys: Float[Array, "*batch depth W width"]
    values: Float[Array, "*batch depth W width"]
    seen: Float[Array, "*batch W"]


class CausalPredictor(nnx.Module):
    """A causal transformer over the last W steps, a token for each latent and its action.

    A token sees itself and the W - 1 before it, in every block; scores depend on how long ago a token was, not on when. Keys
    and values of tokens once seen are kept, so that a step costs one token and equals the same step computed in parallel.

    Args:
        latent: Size of a latent.
        action: Size of an action, all of a block together.
        window: Steps W that a token sees, its own included.
        width: Numbers per token, a multiple of the heads.
        depth: Blocks.
        heads: Of attention.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If the window is empty or the width doesn't fit.
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
            raise ValueError(f"a token sees itself at least, window >= 1; got window={window}")
        self.window, self.width = window, width
        self.embed = MLP((latent + action, width), rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.ages = nnx.Param(jnp.zeros((depth, heads, window)))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.change = MLP((width, latent), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> Cache:
        """An empty window."""
        batch = latent.shape[:-1]
        kept = jnp.zeros((*batch, len(self.blocks), self.window, self.width), latent.dtype)
        return Cache(kept, kept, jnp.zeros((*batch, self.window), latent.dtype))

    def step(
        self, memory: Cache, latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[Cache, Float[Array, "*batch latent"]]:
        """One step: the oldest token is forgotten, and the newest looks at those left and itself."""
        x = self.embed(jnp.concatenate([latent, action], axis=-1))[..., None, :]
        seen = jnp.concatenate([memory.seen[..., 1:], jnp.ones_like(memory.seen[..., :1])], axis=-1)
        hidden = jnp.where(seen > 0.5, 0.0, _HIDDEN)[..., None, None, :]
        kept = []
        for index, block in enumerate(self.blocks):
            old = (part[..., index, 1:, :] for part in (memory.keys, memory.values))
            keys, values = (jnp.concatenate(pair, axis=-2) for pair in zip(old, block.keys_and_values(x), strict=True))
            x = block(x, keys, values, hidden + self.ages[...][index][:, None, ::-1])
            kept.append((keys, values))
        keys, values = (jnp.stack(part, axis=-3) for part in zip(*kept, strict=True))
        return Cache(keys, values, seen), latent + self._read(x)[..., 0, :]

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[Cache, Float[Array, "batch steps latent"]]:
        """Every step of real trajectories, side by side."""
        x = self.embed(jnp.concatenate([latents, actions], axis=-1))
        steps = jnp.arange(latents.shape[1])
        age = steps[:, None] - steps
        visible = (age >= 0) & (age < self.window)
        biases = jnp.where(visible, self.ages[...][:, :, jnp.clip(age, 0, self.window - 1)], _HIDDEN)
        places = steps[:, None] + jnp.arange(1 - self.window, 1)  # [steps, W] what each step's window holds, oldest first
        there = places >= 0
        kept = []
        for block, bias in zip(self.blocks, biases, strict=True):
            keys, values = block.keys_and_values(x)
            x = block(x, keys, values, bias)
            kept.append([jnp.where(there[..., None], part[:, jnp.maximum(places, 0)], 0.0) for part in (keys, values)])
        keys, values = (jnp.stack(part, axis=-3) for part in zip(*kept, strict=True))
        seen = jnp.broadcast_to(there.astype(x.dtype), (x.shape[0], *there.shape))
        return Cache(keys, values, seen), latents + self._read(x)

    def _read(self, x: jax.Array) -> jax.Array:
        return self.change(self.norm(x))
