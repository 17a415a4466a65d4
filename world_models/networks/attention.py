"""Transformer block, shared by encoders and predictors."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP

Tokens = Float[Array, "*batch tokens width"]


class Block(nnx.Module):
    """Pre-norm transformer block: residual attention, then a residual perceptron.

        x ← x + softmax(q(n(x)) kᵀ / √d + bias) v,        x ← x + MLP(n(x))

    Keys and values are arguments, so that those of earlier tokens can be cached. The `width` of a token must be a multiple
    of the number of `heads`, or a ValueError is raised.

    Source: Vaswani et al. (2017), arXiv:1706.03762; Xiong et al. (2020), arXiv:2002.04745, for the pre-norm order.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        if width % heads:
            raise ValueError(f"the width must be a multiple of the heads; got width={width}, heads={heads}")
        self.heads = heads
        self.before, self.between = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.query, self.pair = MLP((width, width), rngs=rngs), MLP((width, 2 * width), rngs=rngs)
        self.out = MLP((width, width), last_scale=0.5, rngs=rngs)
        self.feed = MLP((width, 4 * width, width), last_scale=0.5, rngs=rngs)

    def keys_and_values(self, x: Tokens) -> tuple[Tokens, Tokens]:
        """Returns the keys and values of tokens."""
        keys, values = jnp.split(self.pair(self.before(x)), 2, axis=-1)
        return keys, values

    def __call__(
        self,
        x: Tokens,
        keys: Float[Array, "*batch context width"],
        values: Float[Array, "*batch context width"],
        bias: Float[Array, "*bias tokens context"] | None = None,
    ) -> Tokens:
        """Returns the tokens after the block, which attend to context tokens with these keys and values.

        The bias is added to the scores, `[heads, tokens, context]` with any leading axes; a large negative value masks.
        """
        queries, keys, values = (self._split(y) for y in (self.query(self.before(x)), keys, values))
        scores = jnp.einsum("...qhd,...khd->...hqk", queries, keys) * queries.shape[-1] ** -0.5
        attention = jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)
        mixed = jnp.einsum("...hqk,...khd->...qhd", attention, values)
        x = x + self.out(mixed.reshape(x.shape))
        return x + self.feed(self.between(x))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)
