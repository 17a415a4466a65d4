"""What proposes which latent variable explains a transition: `[*batch, size, numbers]` from the latents before and after.

    Explainer(latent, action, size, numbers, *, rngs),   explainer(before, action, after) -> raw

`numbers` is what a limit of `world_models.losses.bottleneck` wants to know of each coordinate.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP

_SMALL = 0.1  # factor on the last layer's initial weights: at first hardly anything is told


class MLPPosterior(nnx.Module):
    """A perceptron on what was, what was done, and what changed.

    Args:
        latent: Size of a representation.
        action: Size of an action, all of a block together.
        size: Of the latent variable.
        numbers: Inferred per coordinate of it.
        hidden: Units of the hidden layers.
        rngs: Source of the initial weights.
    """

    def __init__(
        self, latent: int, action: int, size: int, numbers: int, *, hidden: tuple[int, ...] = (256, 256), rngs: nnx.Rngs
    ):
        self.size, self.numbers = size, numbers
        self.network = MLP((2 * latent + action, *hidden, size * numbers), last_scale=_SMALL, rngs=rngs)

    def __call__(
        self,
        before: Float[Array, "*batch latent"],
        action: Float[Array, "*batch action"],
        after: Float[Array, "*batch latent"],
    ) -> Float[Array, "*batch size numbers"]:
        """What the change tells about each coordinate."""
        raw = self.network(jnp.concatenate([before, action, after - before], axis=-1))
        return raw.reshape(*raw.shape[:-1], self.size, self.numbers)
