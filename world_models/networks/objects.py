"""Networks for latents that list objects: our own numbers first, then as many for each of N others, one network for all.

    z = (own, other_1, …, other_N),    Δown = f(own, a),    Δother_i = g(own, other_i, a, v_i)

with v_i the share of a latent variable that belongs to object i. What is learnt of one object holds for all of them, which
takes a fraction of the data. The others know of us, not of each other.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP

_SMALL = 0.1  # factor on the initial weights that make changes


def _each(
    latent: Float[Array, "*batch latent"], own: int, objects: int
) -> tuple[Float[Array, "*batch own"], Float[Array, "*batch N each"]]:
    """Our own numbers, and those of the others, object by object.

    Raises:
        ValueError: If they cannot be shared out evenly.
    """
    rest = latent.shape[-1] - own
    if rest < objects or rest % objects:
        raise ValueError(f"{latent.shape[-1]} numbers less {own} of our own cannot be shared out among {objects} objects")
    return latent[..., :own], latent[..., own:].reshape(*latent.shape[:-1], objects, -1)


def _beside(
    common: list[Float[Array, "*batch _"]], each: list[Float[Array, "*batch N _"]]
) -> Float[Array, "*batch N inputs"]:
    """What the network of an object sees: the same for all, and its own."""
    shape = each[0].shape[:-1]
    spread = [jnp.broadcast_to(part[..., None, :], (*shape, part.shape[-1])) for part in common]
    return jnp.concatenate([*spread, *each], axis=-1)


class ObjectPredictor(nnx.Module):
    """A predictor without memory, see `predictors.Predictor`.

    Args:
        latent: Size of a latent.
        action: Size of an action, the latent variable at its end included.
        own: How many numbers are our own.
        objects: How many others there are, N.
        free: Size of each object's share of the latent variable.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If the numbers cannot be shared out evenly.
    """

    def __init__(
        self,
        latent: int,
        action: int,
        *,
        own: int,
        objects: int,
        free: int = 1,
        hidden: tuple[int, ...] = (64, 64),
        rngs: nnx.Rngs,
    ):
        self.own, self.objects, self.free = own, objects, free
        told = action - objects * free
        each = _each(jnp.zeros(latent), own, objects)[1].shape[-1]
        self.ours = MLP((own + told, *hidden, own), last_scale=_SMALL, rngs=rngs)
        self.others = MLP((own + told + each + free, *hidden, each), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(
        self, memory: tuple[()], latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[tuple[()], Float[Array, "*batch latent"]]:
        """One step."""
        own, others = _each(latent, self.own, self.objects)
        told, shares = _each(action, action.shape[-1] - self.objects * self.free, self.objects)
        moved = own + self.ours(jnp.concatenate([own, told], axis=-1))
        others = others + self.others(_beside([own, told], [others, shares]))
        return (), jnp.concatenate([moved, others.reshape(*latent.shape[:-1], -1)], axis=-1)

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[tuple[()], Float[Array, "batch steps latent"]]:
        """Every step of real trajectories, independently."""
        return self.step((), latents, actions)


class ObjectPosterior(nnx.Module):
    """An explainer that reads each object's share of the latent variable off that object, see `explainers`.

    Args:
        latent: Size of a representation.
        action: Size of an action, all of a block together.
        size: Of the latent variable, a multiple of the objects.
        numbers: Inferred per coordinate of it.
        own: How many numbers are our own.
        objects: How many others there are.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If something cannot be shared out evenly.
    """

    def __init__(
        self,
        latent: int,
        action: int,
        size: int,
        numbers: int,
        *,
        own: int,
        objects: int,
        hidden: tuple[int, ...] = (64, 64),
        rngs: nnx.Rngs,
    ):
        if size % objects:
            raise ValueError(f"a latent variable of size {size} cannot be shared out among {objects} objects")
        self.own, self.objects, self.size, self.numbers = own, objects, size, numbers
        each = _each(jnp.zeros(latent), own, objects)[1].shape[-1]
        self.network = MLP((own + action + 2 * each, *hidden, size // objects * numbers), last_scale=_SMALL, rngs=rngs)

    def __call__(
        self,
        before: Float[Array, "*batch latent"],
        action: Float[Array, "*batch action"],
        after: Float[Array, "*batch latent"],
    ) -> Float[Array, "*batch size numbers"]:
        """What each object's change tells about its share."""
        own, others = _each(before, self.own, self.objects)
        raw = self.network(_beside([own, action], [others, _each(after, self.own, self.objects)[1] - others]))
        return raw.reshape(*before.shape[:-1], self.size, self.numbers)
