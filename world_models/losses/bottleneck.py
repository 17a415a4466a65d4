"""How much a latent variable may tell: what keeps it from carrying the whole future that it is inferred from.

A predictor ŝ' = f(s, a, z) whose z is inferred from s' can be handed s' in z. Then every future has low energy, the true one
and any other, and a z that was drawn at random leads anywhere: nothing was learnt. So the information in z is limited:

| limit | what is inferred per coordinate | kl R, in nats | drawn without knowing the future |
|---|---|---|---|
| `noise` | a normal distribution | its divergence from the standard normal one | standard normal |
| `discrete` | odds of L levels | their divergence from even odds | a level, all as likely |
| `sparse` | a number | `weight |z|`, as under a Laplace prior | standard normal: it is not told how often each happens |
| `free` | a number | nothing: only the number of coordinates limits it | standard normal |

To planners every latent is standard normal, as `mpc.risk.over_latents` draws it; `shape` makes of that what the predictor is
shown.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.2; Kingma, Welling (2014), arXiv:1312.6114;
Jang, Gu, Poole (2017), arXiv:1611.01144, and Maddison, Mnih, Teh (2017), arXiv:1611.00712, for draws of levels.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

_LOUDEST = 4.0  # |log deviation|, so that an exponential never runs away


class LatentRegularizer(NamedTuple):
    """A way to limit the information in a latent; pure functions of `raw` `[*batch, size, params_per_dim]`, what was
    inferred.

    `draw(raw, key) -> latent [*batch, size]`, with a gradient to `raw`. `likeliest(raw) -> latent`, without randomness.
    `kl(raw) -> [*batch]`, in nats, least when nothing is told; `penalty(latent) -> [*batch]`, what a single value costs,
    but for a constant. `shape(latent) -> latent`: a standard normal latent as
    the predictor is shown it; what `draw` and `likeliest` give is shown as it is.
    """

    params_per_dim: int
    draw: Callable[[Array, Array], Array]
    likeliest: Callable[[Array], Array]
    kl: Callable[[Array], Array]
    penalty: Callable[[Array], Array]
    shape: Callable[[Array], Array]


def gaussian() -> LatentRegularizer:
    """A normal distribution per coordinate, priced by `KL(N(μ, σ²) | N(0, 1)) = ½ (μ² + σ² - 1) - log σ`."""

    def read(raw: Float[Array, "*batch 2"]) -> tuple[Array, Array]:
        return raw[..., 0], jnp.clip(raw[..., 1], -_LOUDEST, _LOUDEST)

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
    """One of L levels per coordinate, at even quantiles of the standard normal distribution; `Σ_l p_l log(L p_l)` nats.

    Draws are levels, with the gradient of a softmax beside them (straight-through).

    Args:
        levels: L; a coordinate carries at most `log L` nats.
        temperature: Of the softmax; lower values give truer and noisier gradients.

    Raises:
        ValueError: If there are fewer than two levels, or the temperature is not positive.
    """
    if levels < 2 or not temperature > 0:
        raise ValueError(f"discrete needs levels >= 2 and temperature > 0; got levels={levels}, temperature={temperature}")
    places = np.array([NormalDist().inv_cdf((level + 0.5) / levels) for level in range(levels)], np.float32)
    edges = np.array([NormalDist().inv_cdf(level / levels) for level in range(1, levels)], np.float32)

    def draw(raw: Float[Array, "*batch L"], key: PRNGKeyArray) -> Float[Array, "*batch"]:
        scores = raw + jax.random.gumbel(key, raw.shape)
        soft = jax.nn.softmax(scores / temperature) @ places
        return soft + jax.lax.stop_gradient(jnp.asarray(places)[jnp.argmax(scores, axis=-1)] - soft)

    def kl(raw: Float[Array, "*batch size L"]) -> Float[Array, "*batch"]:
        odds = jax.nn.log_softmax(raw)
        return jnp.sum(jnp.exp(odds) * (odds + np.log(levels)), axis=(-2, -1))

    def shape(latent: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        nearest = jnp.asarray(places)[jnp.searchsorted(jnp.asarray(edges), latent)]
        return latent + jax.lax.stop_gradient(nearest - latent)

    def likeliest(raw: Float[Array, "*batch L"]) -> Float[Array, "*batch"]:
        return jnp.asarray(places)[jnp.argmax(raw, axis=-1)]

    return LatentRegularizer(levels, draw, likeliest, kl, lambda latent: jnp.zeros(latent.shape[:-1]), shape)


def sparse(weight: float = 1.0) -> LatentRegularizer:
    """A number per coordinate, priced by its absolute value: few coordinates are used at a time.

    Args:
        weight: Nats per unit.

    Raises:
        ValueError: If the weight is not positive.
    """
    if not weight > 0:
        raise ValueError(f"sparse needs a positive weight; got {weight}")
    return _plain(lambda latent: weight * jnp.sum(jnp.abs(latent), axis=-1))


def deterministic() -> LatentRegularizer:
    """A number per coordinate, at no kl: with few coordinates a limit, with as many as the state has, none."""
    return _plain(lambda latent: jnp.zeros(latent.shape[:-1]))


def _plain(penalty: Callable[[Array], Array]) -> LatentRegularizer:
    def value(raw: Float[Array, "*batch 1"]) -> Float[Array, "*batch"]:
        return raw[..., 0]

    return LatentRegularizer(
        1, lambda raw, key: value(raw), value, lambda raw: penalty(value(raw)), penalty, lambda latent: latent
    )
