"""Attention over the last steps: what is worth knowing now of what was seen then."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP


class HistoryAttention(nnx.Module):
    """Attention from the newest step to all that are remembered, several heads side by side.

        m_h = Σ_k softmax_k(q_h(x[0]) · κ_h(x[k]) / √d + b_h[k]) v_h(x[k]),        m = (m_1, …, m_H)

    What a step contains and how long ago it was both decide how much it counts; how long ago does not, to begin with.

    Args:
        token: Numbers of a step.
        steps: Remembered, K, the newest first.
        size: Numbers read out, all heads together.
        heads: H, each of which hands over d = size / H numbers.
        rngs: Source of the initial weights.

    Raises:
        ValueError: If the size is no multiple of the heads.

    Source: Vaswani et al. (2017), arXiv:1706.03762; the learnt bias by distance: Raffel et al. (2020), arXiv:1910.10683.
    """

    def __init__(self, token: int, steps: int, size: int, *, heads: int = 2, rngs: nnx.Rngs):
        if size % heads:
            raise ValueError(f"what is read out must be a multiple of the heads; got size={size}, heads={heads}")
        self.heads = heads
        self.query, self.pair = MLP((token, size), rngs=rngs), MLP((token, 2 * size), rngs=rngs)
        self.bias = nnx.Param(jnp.zeros((steps, heads)))

    def __call__(self, tokens: Float[Array, "*batch steps token"]) -> Float[Array, "*batch size"]:
        """Read out `[..., K, token]`."""
        leading, (steps, token) = tokens.shape[:-2], tokens.shape[-2:]
        every = tokens.reshape(-1, token)
        keys, values = (self._split(part, steps) for part in jnp.split(self.pair(every), 2, axis=-1))
        queries = self._split(self.query(tokens[..., 0, :].reshape(-1, token)), 1)
        # sums of products, not matrix products: with several batch axes those are slow on XLA:CPU
        scores = (queries * keys).sum(axis=-1) * keys.shape[-1] ** -0.5 + self.bias[...]
        shares = jax.nn.softmax(scores, axis=1)
        return (shares[..., None] * values).sum(axis=1).reshape(*leading, -1)

    def _split(self, rows: jax.Array, steps: int) -> jax.Array:
        """`[N * K, size] -> [N, K, H, d]`."""
        return rows.reshape(-1, steps, self.heads, rows.shape[-1] // self.heads)
