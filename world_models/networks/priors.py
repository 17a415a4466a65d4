"""What latent variables are likely where: a density of each coordinate given a context, and the map that draws from it.

    m_i = Q_i(Φ(u_i) | context, m_1 … m_{i-1}),        u ~ N(0, I)  ⟺  m ~ p(m | context)

Q_i is the quantile function of a histogram whose odds a network gives: it can have several peaks, and nothing between them.
Who plans in u instead of m can reach only what is likely there, whatever u is chosen.

Sources: planning in the noise of a prior that depends on the state: Singh et al. (2021), Parrot, arXiv:2011.10024; flows
made of histograms: Müller et al. (2019), Neural importance sampling, arXiv:1808.03856.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP

_EDGE = 3.5
"""Where histograms end, in standard deviations of a code that is standard normal on average."""
_FARTHEST = 3.0  # |u| that a code is found at, at most


class QuantilePrior(nnx.Module):
    """Histograms of one coordinate after the other.

    Args:
        context: Size of what is known.
        size: Of the latent variable.
        bins: Of each histogram. More tell sharper edges, and take more data.
        trim: Odds that count as none when codes are drawn, as a share of even ones: a network never says that something
            does not happen. Odds within a histogram are lessened by so much.
        hidden: Units of the hidden layers.
        head: Units of the hidden layer of a coordinate's own.
        rngs: Source of the initial weights.
    """

    def __init__(
        self,
        context: int,
        size: int,
        *,
        bins: int = 24,
        trim: float = 0.35,
        hidden: tuple[int, ...] = (192, 192),
        head: int = 64,
        rngs: nnx.Rngs,
    ):
        self.bins, self.trim = bins, trim / bins
        self.trunk = MLP((context, *hidden), rngs=rngs)
        self.heads = nnx.List([MLP((hidden[-1] + i, head, bins), rngs=rngs) for i in range(size)])

    def log_density(
        self, context: Float[Array, "*batch context"], code: Float[Array, "*batch size"]
    ) -> Float[Array, "*batch"]:
        """`log p(code | context)`, in nats; what lies beyond the edges counts as at them."""
        features, total = self._features(context), jnp.zeros(code.shape[:-1])
        for i, head in enumerate(self.heads):
            odds = jax.nn.log_softmax(self._scores(head, features, code[..., :i]))
            place, _ = self._place(code[..., i])
            total += jnp.take_along_axis(odds, place[..., None], axis=-1)[..., 0] - np.log(2 * _EDGE / self.bins)
        return total

    def code(
        self, context: Float[Array, "*batch context"], noise: Float[Array, "*batch size"]
    ) -> Float[Array, "*batch size"]:
        """What standard normal noise stands for in a context."""
        features, found = self._features(context), noise[..., :0]
        for i, head in enumerate(self.heads):
            odds, below = self._odds(head, features, found)
            rank = norm.cdf(noise[..., i])
            place = jnp.minimum(jnp.sum(rank[..., None] > below + odds, axis=-1), self.bins - 1)
            within = (rank - _at(below, place)) / jnp.maximum(_at(odds, place), 1e-6)
            found = jnp.concatenate([found, (2 * _EDGE * ((place + within) / self.bins) - _EDGE)[..., None]], axis=-1)
        return found

    def noise(
        self, context: Float[Array, "*batch context"], code: Float[Array, "*batch size"]
    ) -> Float[Array, "*batch size"]:
        """The noise that stands for a code, within 3 of 0; of what has no odds, that of the nearest that has."""
        features, found = self._features(context), []
        for i, head in enumerate(self.heads):
            odds, below = self._odds(head, features, code[..., :i])
            place, within = self._place(code[..., i])
            rank = _at(below, place) + within * _at(odds, place)
            found.append(norm.ppf(jnp.clip(rank, 0.0, 1.0)))  # sums of odds may round to more than 1, which is no rank
        return jnp.clip(jnp.stack(found, axis=-1), -_FARTHEST, _FARTHEST)

    def _features(self, context: jax.Array) -> jax.Array:
        return nnx.silu(self.trunk(context))

    def _scores(self, head: MLP, features: jax.Array, before: jax.Array) -> jax.Array:
        return head(jnp.concatenate([features, before], axis=-1))

    def _odds(self, head: MLP, features: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Trimmed odds of each bin, and of all bins below it."""
        odds = nnx.relu(nnx.softmax(self._scores(head, features, before)) - self.trim)
        odds = odds / jnp.sum(odds, axis=-1, keepdims=True)
        return odds, jnp.cumsum(odds, axis=-1) - odds

    def _place(self, coordinate: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The bin, and how much of it lies below."""
        along = jnp.clip((coordinate + _EDGE) / (2 * _EDGE), 0.0, 1.0) * self.bins
        place = jnp.minimum(along.astype(jnp.int32), self.bins - 1)
        return place, along - place


def _at(every: jax.Array, place: jax.Array) -> jax.Array:
    return jnp.take_along_axis(every, place[..., None], axis=-1)[..., 0]
