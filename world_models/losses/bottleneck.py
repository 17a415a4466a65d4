"""Regularizers that limit the information in a latent variable.

A predictor ŝ' = f(s, a, z) whose z is inferred from s' can copy s' into z. Then every future has low energy, and a random z
leads to an arbitrary future: the model has learnt nothing. A regularizer limits the information in z:

| regularizer | posterior per coordinate | KL term R, in nats | prior sample |
|---|---|---|---|
| `gaussian` | a normal distribution | divergence from the standard normal | standard normal |
| `discrete` | probabilities of L levels | divergence from the uniform distribution | a uniform level |
| `sparse` | a number | `weight |z|`, as for a Laplace prior | standard normal; the true frequencies are not learnt |
| `deterministic` | a number | 0; only the number of coordinates limits the information | standard normal |

Planners treat every latent as standard normal, as `mpc.risk.over_latents` samples it; `shape` maps such a value to the
predictor's input.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.2; Kingma, Welling (2014), arXiv:1312.6114;
Jang, Gu, Poole (2017), arXiv:1611.01144, and Maddison, Mnih, Teh (2017), arXiv:1611.00712, for sampling levels.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

_MAX_LOG_STD = 4.0  # limit of |log σ|, so that exp does not overflow


class LatentRegularizer(NamedTuple):
    """A regularizer: pure functions of the posterior parameters `raw` `[*batch, size, params_per_dim]`.

    `draw(raw, key) -> latent [*batch, size]`: a sample, differentiable in `raw`. `likeliest(raw) -> latent`: the mode.
    `kl(raw) -> [*batch]`: in nats, minimal for a posterior equal to the prior. `penalty(latent) -> [*batch]`: negative log
    prior of a value, up to a constant. `shape(latent) -> latent`: maps a standard normal latent to the predictor's input;
    results of `draw` and `likeliest` need no mapping.
    """

    params_per_dim: int
    draw: Callable[[Array, Array], Array]
    likeliest: Callable[[Array], Array]
    kl: Callable[[Array], Array]
    penalty: Callable[[Array], Array]
    shape: Callable[[Array], Array]


def gaussian() -> LatentRegularizer:
    """Returns a regularizer with a normal posterior and `KL(N(μ, σ²) | N(0, 1)) = ½ (μ² + σ² - 1) - log σ`."""

    def read(raw: Float[Array, "*batch 2"]) -> tuple[Array, Array]:
        return raw[..., 0], jnp.clip(raw[..., 1], -_MAX_LOG_STD, _MAX_LOG_STD)

    def draw(raw: Float[Array, "*batch 2"], key: PRNGKeyArray) -> Float[Array, "*batch"]:
        mean, spread = read(raw)
        return mean + jnp.exp(spread) * jax.random.normal(key, mean.shape)

    def kl(raw: Float[Array, "*batch size 2"]) -> Float[Array, "*batch"]:
        mean, spread = read(raw)
        return jnp.sum(0.5 * (mean**2 + jnp.exp(2 * spread) - 1.0) - spread, axis=-1)

    def penalty(latent: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
        return 0.5 * jnp.sum(latent**2, axis=-1)

    return LatentRegularizer(2, draw, lambda raw: raw[..., 0], kl, penalty, lambda latent: latent)


def discrete(levels: int = 8, temperature: float = 1.0) -> LatentRegularizer:
    """Returns a regularizer with a categorical posterior over L levels and `KL = Σ_l p_l log(L p_l)`.

    The levels are evenly spaced quantiles of the standard normal distribution. Samples are levels with the gradient of a
    softmax (straight-through).

    Args:
        levels: Number of levels L; a coordinate carries at most `log L` nats.
        temperature: Temperature of the softmax; lower values give less biased and noisier gradients.

    Raises:
        ValueError: If there are fewer than two levels, or the temperature is not positive.
    """
    if levels < 2 or not temperature > 0:
        raise ValueError(f"discrete needs levels >= 2 and temperature > 0; got levels={levels}, temperature={temperature}")
    places = np.array([NormalDist().inv_cdf((level + 0.5) / levels) for level in range(levels)], np.float32)
    edges = np.array([NormalDist().inv_cdf(level / levels) for level in range(1, levels)], np.float32)

    def likeliest(raw: Float[Array, "*batch L"]) -> Float[Array, "*batch"]:
        return jnp.asarray(places)[jnp.argmax(raw, axis=-1)]

    def draw(raw: Float[Array, "*batch L"], key: PRNGKeyArray) -> Float[Array, "*batch"]:
        scores = raw + jax.random.gumbel(key, raw.shape)
        soft = jax.nn.softmax(scores / temperature) @ places
        return soft + jax.lax.stop_gradient(likeliest(scores) - soft)

    def kl(raw: Float[Array, "*batch size L"]) -> Float[Array, "*batch"]:
        odds = jax.nn.log_softmax(raw)
        return jnp.sum(jnp.exp(odds) * (odds + np.log(levels)), axis=(-2, -1))

    def shape(latent: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        nearest = jnp.asarray(places)[jnp.searchsorted(jnp.asarray(edges), latent)]
        return latent + jax.lax.stop_gradient(nearest - latent)

    return LatentRegularizer(levels, draw, likeliest, kl, lambda latent: jnp.zeros(latent.shape[:-1]), shape)


def sparse(weight: float = 1.0) -> LatentRegularizer:
    """Returns a regularizer with a deterministic posterior and an L1 penalty, so that few coordinates are non-zero.

    Args:
        weight: Penalty in nats per unit, positive, or a ValueError is raised.
    """
    if not weight > 0:
        raise ValueError(f"sparse needs a positive weight; got {weight}")
    return _plain(lambda latent: weight * jnp.sum(jnp.abs(latent), axis=-1))


def deterministic() -> LatentRegularizer:
    """Returns a regularizer with a deterministic posterior and no penalty; only the number of coordinates limits it."""
    return _plain(lambda latent: jnp.zeros(latent.shape[:-1]))


def _plain(penalty: Callable[[Array], Array]) -> LatentRegularizer:
    def value(raw: Float[Array, "*batch 1"]) -> Float[Array, "*batch"]:
        return raw[..., 0]

    return LatentRegularizer(1, lambda raw, _: value(raw), value, lambda raw: penalty(value(raw)), penalty, lambda z: z)
