"""Networks for object-centric latents: the agent's own state, then the states of N objects; one network serves all objects.

    z = (own, object_1, …, object_N),    Δown = f(own, a),    Δobject_i = g(own, object_i, a, v_i)

v_i is the part of the latent variable that belongs to object i. The weights are shared between objects, which needs a
fraction of the data. Objects depend on the agent, not on each other.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP

_SMALL = 0.1  # factor on the last layer's initial weights, so that initial changes are small


def _split(
    latent: Float[Array, "*batch latent"], own: int, objects: int
) -> tuple[Float[Array, "*batch own"], Float[Array, "*batch N each"]]:
    """Splits a vector into the agent's own part and one equal part per object.

    Raises:
        ValueError: If the parts of the objects cannot be equal.
    """
    rest = latent.shape[-1] - own
    if rest < objects or rest % objects:
        raise ValueError(f"{latent.shape[-1]} - {own} numbers cannot be divided equally among {objects} objects")
    return latent[..., :own], latent[..., own:].reshape(*latent.shape[:-1], objects, -1)


def _object_inputs(
    common: list[Float[Array, "*batch _"]], each: list[Float[Array, "*batch N _"]]
) -> Float[Array, "*batch N inputs"]:
    """Returns the inputs of the object network: common parts, repeated for each object, and the object's parts."""
    shape = each[0].shape[:-1]
    repeated = [jnp.broadcast_to(part[..., None, :], (*shape, part.shape[-1])) for part in common]
    return jnp.concatenate([*repeated, *each], axis=-1)


class ObjectPredictor(nnx.Module):
    """Object-centric predictor without a carry; see `predictors.Predictor`.

    Args:
        latent: Size of a latent.
        action: Size of an action, including the latent variable at its end.
        own: Size of the agent's own state.
        objects: Number of objects N.
        free: Size of each object's part of the latent variable.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If the sizes cannot be divided equally among the objects.
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
        action_size = action - objects * free
        each = _split(jnp.zeros(latent), own, objects)[1].shape[-1]
        self.ours = MLP((own + action_size, *hidden, own), last_scale=_SMALL, rngs=rngs)
        self.others = MLP((own + action_size + each + free, *hidden, each), last_scale=_SMALL, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> tuple[()]:
        """Returns the initial carry, which is empty."""
        return ()

    def step(
        self, carry: tuple[()], latent: Float[Array, "*batch latent"], action: Float[Array, "*batch action"]
    ) -> tuple[tuple[()], Float[Array, "*batch latent"]]:
        """Returns carry and latent after one step."""
        own, others = _split(latent, self.own, self.objects)
        action, parts = _split(action, action.shape[-1] - self.objects * self.free, self.objects)
        moved = own + self.ours(jnp.concatenate([own, action], axis=-1))
        others = others + self.others(_object_inputs([own, action], [others, parts]))
        return (), jnp.concatenate([moved, others.reshape(*latent.shape[:-1], -1)], axis=-1)

    def follow(
        self, latents: Float[Array, "batch steps latent"], actions: Float[Array, "batch steps action"]
    ) -> tuple[tuple[()], Float[Array, "batch steps latent"]]:
        """Returns carries and next latents for every step of real trajectories; steps are independent."""
        return self.step((), latents, actions)


class ObjectPosterior(nnx.Module):
    """Posterior that infers each object's part of the latent variable from that object; see `posteriors`.

    Args:
        latent: Size of a latent.
        action: Size of an action, all actions of a block together.
        size: Size of the latent variable, a multiple of `objects`.
        params_per_dim: Number of parameters per coordinate of the latent variable.
        own: Size of the agent's own state.
        objects: Number of objects.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If a size cannot be divided equally among the objects.
    """

    def __init__(
        self,
        latent: int,
        action: int,
        size: int,
        params_per_dim: int,
        *,
        own: int,
        objects: int,
        hidden: tuple[int, ...] = (64, 64),
        rngs: nnx.Rngs,
    ):
        if size % objects:
            raise ValueError(f"size must be a multiple of objects; got size={size}, objects={objects}")
        self.own, self.objects, self.size, self.params_per_dim = own, objects, size, params_per_dim
        each = _split(jnp.zeros(latent), own, objects)[1].shape[-1]
        self.network = MLP(
            (own + action + 2 * each, *hidden, size // objects * params_per_dim), last_scale=_SMALL, rngs=rngs
        )

    def __call__(
        self,
        before: Float[Array, "*batch latent"],
        action: Float[Array, "*batch action"],
        after: Float[Array, "*batch latent"],
    ) -> Float[Array, "*batch size params_per_dim"]:
        """Returns the posterior parameters of each object's part, from the change of that object."""
        own, others = _split(before, self.own, self.objects)
        raw = self.network(_object_inputs([own, action], [others, _split(after, self.own, self.objects)[1] - others]))
        return raw.reshape(*before.shape[:-1], self.size, self.params_per_dim)
