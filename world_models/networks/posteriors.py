"""Posterior networks: they infer the latent variable of a transition from the latents before and after it.

    Posterior(latent, action, size, params_per_dim, *, rngs),
    posterior(before, action, after) -> raw [*batch, size, params_per_dim]

`params_per_dim`, the number of parameters per coordinate, is the attribute of a regularizer in `losses.bottleneck`.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP, Sizes
from world_models.networks.predictors import Actions, Latents

_SMALL = 0.1  # factor on the last layer's initial weights, so that the initial posterior carries little information


class MLPPosterior(nnx.Module):
    """Posterior by a perceptron on the latent, the action and the change of the latent."""

    def __init__(
        self, latent: int, action: int, size: int, params_per_dim: int, *, hidden: Sizes = (256, 256), rngs: nnx.Rngs
    ) -> None:
        self.size, self.params_per_dim = size, params_per_dim
        self.network = MLP((2 * latent + action, *hidden, size * params_per_dim), last_scale=_SMALL, rngs=rngs)

    def __call__(self, before: Latents, action: Actions, after: Latents) -> Float[Array, "*batch size params_per_dim"]:
        """Returns the posterior parameters of each coordinate."""
        raw = self.network(jnp.concatenate([before, action, after - before], axis=-1))
        return raw.reshape(*raw.shape[:-1], self.size, self.params_per_dim)
