"""The transformer block that encoders and predictors share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP


class Block(nnx.Module):
    """A pre-norm transformer block: attention, then a perceptron, each added to what came in.

        x ← x + softmax(q(n(x)) kᵀ / √d + bias) v,        x ← x + MLP(n(x))

    Keys and values are given from outside, so that those of earlier tokens can be kept instead of computed again.

    Args:
        width: Numbers per token, a multiple of the heads.
        heads: Of attention, with `width / heads` numbers each.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If the width is no multiple of the heads.

    Source: Vaswani et al. (2017), arXiv:1706.03762; Xiong et al. (2020), arXiv:2002.04745, for the place of the norms.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        if width % heads:
            raise ValueError(f"the width must be a multiple of the heads; got width={width}, heads={heads}")
        self.heads = heads
        self.before, self.between = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.query, self.pair = MLP((width, width), rngs=rngs), MLP((width, 2 * width), rngs=rngs)
        self.out = MLP((width, width), last_scale=0.5, rngs=rngs)
        self.feed = MLP((width, 4 * width, width), last_scale=0.5, rngs=rngs)

    def keys_and_values(
        self, x: Float[Array, "*batch tokens width"]
    ) -> tuple[Float[Array, "*batch tokens width"], Float[Array, "*batch tokens width"]]:
        """What tokens show to others, and what they hand over."""
        keys, values = jnp.split(self.pair(self.before(x)), 2, axis=-1)
        return keys, values

    def __call__(
        self,
        x: Float[Array, "*batch tokens width"],
        keys: Float[Array, "*batch seen width"],
        values: Float[Array, "*batch seen width"],
        bias: Float[Array, "*bias tokens seen"] | None = None,
    ) -> Float[Array, "*batch tokens width"]:
        """Let tokens look at keys.

        Args:
            x: The tokens.
            keys: Of what they look at.
            values: Of what they look at.
            bias: Added to the scores, `[heads, tokens, seen]` with any leading axes; very negative hides.
        """
        queries, keys, values = (self._split(y) for y in (self.query(self.before(x)), keys, values))
        scores = jnp.einsum("...qhd,...khd->...hqk", queries, keys) * queries.shape[-1] ** -0.5
        shares = jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)
        mixed = jnp.einsum("...hqk,...khd->...qhd", shares, values)
        x = x + self.out(mixed.reshape(x.shape))
        return x + self.feed(self.between(x))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)
