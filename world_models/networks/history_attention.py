"""Attention over the observation history."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP


class HistoryAttention(nnx.Module):
    """Multi-head attention from the newest step to all K steps of the history.

        m_h = Σ_k softmax_k(q_h(x[0]) · κ_h(x[k]) / √d + b_h[k]) v_h(x[k]),        m = (m_1, …, m_H)

    The weight of a step depends on its content and on its age; the dependence on age is initially zero.

    Args:
        token: Size of a step's token.
        steps: Number of steps K of the history, newest first.
        size: Size of the output, all heads together; a multiple of the heads, or a ValueError is raised.
        heads: Number of heads H, each with d = size / H outputs.

    Source: Vaswani et al. (2017), arXiv:1706.03762; the learnt bias by distance: Raffel et al. (2020), arXiv:1910.10683.
    """

    def __init__(self, token: int, steps: int, size: int, *, heads: int = 2, rngs: nnx.Rngs) -> None:
        if size % heads:
            raise ValueError(f"size must be a multiple of heads; got size={size}, heads={heads}")
        self.heads = heads
        self.query, self.pair = MLP((token, size), rngs=rngs), MLP((token, 2 * size), rngs=rngs)
        self.bias = nnx.Param(jnp.zeros((steps, heads)))

    def __call__(self, tokens: Float[Array, "*batch steps token"]) -> Float[Array, "*batch size"]:
        """Returns the output `[..., size]` for tokens `[..., K, token]`."""
        leading, (steps, token) = tokens.shape[:-2], tokens.shape[-2:]
        rows = tokens.reshape(-1, token)
        keys, values = (self._split(part, steps) for part in jnp.split(self.pair(rows), 2, axis=-1))
        queries = self._split(self.query(tokens[..., 0, :].reshape(-1, token)), 1)
        # sums of products, because matrix products with several batch axes are slow on XLA:CPU
        scores = (queries * keys).sum(axis=-1) * keys.shape[-1] ** -0.5 + self.bias[...]
        attention = jax.nn.softmax(scores, axis=1)
        return (attention[..., None] * values).sum(axis=1).reshape(*leading, -1)

    def _split(self, rows: jax.Array, steps: int) -> jax.Array:
        """Reshapes `[N * K, size]` to `[N, K, H, d]`."""
        return rows.reshape(-1, steps, self.heads, rows.shape[-1] // self.heads)
