"""Networks for object-centric latents: the agent's own state, then the states of N objects; one network serves all objects.

    z = (own, object_1, …, object_N),    Δown = f(own, a),    Δobject_i = g(own, object_i, a, v_i)

v_i is the part of the latent variable that belongs to object i. The weights are shared between objects, which needs a
fraction of the data. Objects depend on the agent, not on each other.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP, Sizes
from world_models.networks.predictors import Actions, Latents, Predictor, PyTree

_SMALL = 0.1  # factor on the last layer's initial weights, so that initial changes are small


def _split(latent: Latents, own: int, objects: int) -> tuple[Float[Array, "*batch own"], Float[Array, "*batch N each"]]:
    """Splits a vector into the agent's own part and one part per object; unequal ones raise a ValueError."""
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


class ObjectPredictor(Predictor):
    """Object-centric predictor without a carry; the latent variable is at the end of the action.

    Args:
        own: Size of the agent's own state.
        objects: Number of objects N.
        free: Size of each object's part of the latent variable.

    Raises:
        ValueError: If the sizes cannot be divided equally among the objects.
    """

    def __init__(
        self, latent: int, action: int, *, own: int, objects: int, free: int = 1, hidden: Sizes = (64, 64), rngs: nnx.Rngs
    ) -> None:
        self.own, self.objects, self.free = own, objects, free
        action_size = action - objects * free
        each = _split(jnp.zeros(latent), own, objects)[1].shape[-1]
        self.ours = MLP((own + action_size, *hidden, own), last_scale=_SMALL, rngs=rngs)
        self.others = MLP((own + action_size + each + free, *hidden, each), last_scale=_SMALL, rngs=rngs)

    def step(self, carry: PyTree, latent: Latents, action: Actions) -> tuple[PyTree, Latents]:
        own, others = _split(latent, self.own, self.objects)
        action, parts = _split(action, action.shape[-1] - self.objects * self.free, self.objects)
        moved = own + self.ours(jnp.concatenate([own, action], axis=-1))
        others = others + self.others(_object_inputs([own, action], [others, parts]))
        return (), jnp.concatenate([moved, others.reshape(*latent.shape[:-1], -1)], axis=-1)


class ObjectPosterior(nnx.Module):
    """Posterior that infers each object's part of the latent variable from that object; see `posteriors`.

    `own` and `objects` are those of the predictor. A size that is not a multiple of `objects` raises a ValueError.
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
        hidden: Sizes = (64, 64),
        rngs: nnx.Rngs,
    ) -> None:
        if size % objects:
            raise ValueError(f"size must be a multiple of objects; got size={size}, objects={objects}")
        self.own, self.objects, self.size, self.params_per_dim = own, objects, size, params_per_dim
        each = _split(jnp.zeros(latent), own, objects)[1].shape[-1]
        self.network = MLP(
            (own + action + 2 * each, *hidden, size // objects * params_per_dim), last_scale=_SMALL, rngs=rngs
        )

    def __call__(self, before: Latents, action: Actions, after: Latents) -> Float[Array, "*batch size params_per_dim"]:
        """Returns the posterior parameters of each object's part, from the change of that object."""
        own, others = _split(before, self.own, self.objects)
        raw = self.network(_object_inputs([own, action], [others, _split(after, self.own, self.objects)[1] - others]))
        return raw.reshape(*before.shape[:-1], self.size, self.params_per_dim)
