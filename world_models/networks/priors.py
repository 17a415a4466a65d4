"""Priors of latent variables: a conditional density of each coordinate, and the map that samples from it.

    m_i = Q_i(Φ(u_i) | context, m_1 … m_{i-1}),        u ~ N(0, I)  ⟺  m ~ p(m | context)

Q_i is the quantile function of a histogram whose probabilities a network predicts, so it can be multimodal. A planner that
optimises u instead of m reaches only likely values of m, for any u.

Sources: planning in the noise of a prior that depends on the state: Singh et al. (2021), Parrot, arXiv:2011.10024; flows
made of histograms: Müller et al. (2019), Neural importance sampling, arXiv:1808.03856.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from world_models.networks.mlp import MLP, Sizes

Context = Float[Array, "*batch context"]
Codes = Float[Array, "*batch size"]
_EDGE = 3.5
"""Edge of the histograms, in standard deviations of a code that is standard normal on average."""
_MAX_NOISE = 3.0  # largest |u| that `noise` returns


class QuantilePrior(nnx.Module):
    """Autoregressive prior with one histogram per coordinate.

    Args:
        bins: Bins of each histogram. More bins resolve sharper edges and need more data.
        trim: Probability subtracted from every bin when codes are drawn, relative to a uniform bin, because a softmax never
            gives a probability of zero.
        hidden: Units of the shared hidden layers.
        head: Units of the hidden layer of each coordinate.
    """

    def __init__(
        self,
        context: int,
        size: int,
        *,
        bins: int = 24,
        trim: float = 0.35,
        hidden: Sizes = (192, 192),
        head: int = 64,
        rngs: nnx.Rngs,
    ) -> None:
        self.bins, self.trim = bins, trim / bins
        self.trunk = MLP((context, *hidden), rngs=rngs)
        self.heads = nnx.List([MLP((hidden[-1] + i, head, bins), rngs=rngs) for i in range(size)])

    def log_density(self, context: Context, code: Codes) -> Float[Array, "*batch"]:
        """Returns `log p(code | context)` in nats; values beyond the edges count as values at the edges."""
        features, total = self._features(context), jnp.zeros(code.shape[:-1])
        for i, head in enumerate(self.heads):
            probabilities = jax.nn.log_softmax(self._scores(head, features, code[..., :i]))
            bin_, _ = self._bin(code[..., i])
            total += jnp.take_along_axis(probabilities, bin_[..., None], axis=-1)[..., 0] - np.log(2 * _EDGE / self.bins)
        return total

    def code(self, context: Context, noise: Codes) -> Codes:
        """Returns the code for standard normal noise in a context."""
        features, code = self._features(context), noise[..., :0]
        for i, head in enumerate(self.heads):
            probabilities, below = self._odds(head, features, code)
            rank = norm.cdf(noise[..., i])
            bin_ = jnp.minimum(jnp.sum(rank[..., None] > below + probabilities, axis=-1), self.bins - 1)
            within = (rank - _at(below, bin_)) / jnp.maximum(_at(probabilities, bin_), 1e-6)
            code = jnp.concatenate([code, (2 * _EDGE * ((bin_ + within) / self.bins) - _EDGE)[..., None]], axis=-1)
        return code

    def noise(self, context: Context, code: Codes) -> Codes:
        """Returns the noise of a code, clipped to ±3; a code of zero probability gets that of the nearest possible code."""
        features, noise = self._features(context), []
        for i, head in enumerate(self.heads):
            probabilities, below = self._odds(head, features, code[..., :i])
            bin_, within = self._bin(code[..., i])
            rank = _at(below, bin_) + within * _at(probabilities, bin_)
            noise.append(norm.ppf(jnp.clip(rank, 0.0, 1.0)))  # rounding can make a sum of probabilities exceed 1
        return jnp.clip(jnp.stack(noise, axis=-1), -_MAX_NOISE, _MAX_NOISE)

    def _features(self, context: jax.Array) -> jax.Array:
        return nnx.silu(self.trunk(context))

    def _scores(self, head: MLP, features: jax.Array, before: jax.Array) -> jax.Array:
        return head(jnp.concatenate([features, before], axis=-1))

    def _odds(self, head: MLP, features: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the trimmed probability of each bin, and the sum over all bins below it."""
        probabilities = nnx.relu(nnx.softmax(self._scores(head, features, before)) - self.trim)
        probabilities = probabilities / jnp.sum(probabilities, axis=-1, keepdims=True)
        return probabilities, jnp.cumsum(probabilities, axis=-1) - probabilities

    def _bin(self, coordinate: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the bin of a coordinate, and the fraction of that bin below it."""
        position = jnp.clip((coordinate + _EDGE) / (2 * _EDGE), 0.0, 1.0) * self.bins
        bin_ = jnp.minimum(position.astype(jnp.int32), self.bins - 1)
        return bin_, position - bin_


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
