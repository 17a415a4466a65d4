"""Objectives that prevent the collapse of an encoder.

The prediction error of a joint-embedding model alone is minimal for an encoder that maps every input to one point. These
objectives penalise such a collapse. They have one signature, and each of them completes a JEPA:

    objective(embeddings, predictions, weights=None, *, targets=None, key=None, …) -> (loss, unweighted terms by name)

- `embeddings` `[batch, time, dim]`: embeddings of consecutive observations;
- `predictions` `[batch, time - 1, dim]`: predictions of all embeddings but the first, each from the one before it;
- `weights` `[batch, time]`: number of times each embedding counts, 1 if None; rows of weight 0, such as padding after an
  episode, are ignored and may hold any value;
- `targets`: targets of the predictions if these are not the embeddings, of the same shape;
- `key`: for objectives that use random numbers. Settings are keywords, set by `functools.partial`.

| objective | reads | requires that | is minimal when |
|---|---|---|---|
| `decorrelation` | embeddings | dimensions vary and are uncorrelated | as `vicreg`, without its temporal terms |
| `vicreg` | embeddings | dimensions vary and are uncorrelated | standard deviations reach the floor, without correlation |
| `barlow_twins` | predictions, targets | dimension i of both correlates alone | the cross-correlation is the identity |
| `sigreg` | embeddings, key | embeddings are standard normal | they are |
| `infonce` | predictions, targets | a prediction is nearest to its own target | targets lie far apart |
| `byol` | predictions, targets | both have one direction | they do; only an EMA encoder prevents a collapse |

The terms of the objectives are in `terms`. `moving_average` updates the EMA encoder. Each function cites its own source.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from world_models.losses import terms
from world_models.losses.terms import Loss, Series, Weights, as_rows, linked, mean

PyTree = Any
Result = tuple[Loss, dict[str, Loss]]
Objective = Callable[..., Result]
Rows = Float[Array, "rows dim"]


class Inputs(NamedTuple):
    """The arguments that all objectives have; targets are the embeddings where none are given."""

    embeddings: Series
    predictions: Float[Array, "batch steps dim"]
    weights: Weights
    targets: Series
    key: PRNGKeyArray | None

    def pairs(self) -> tuple[Rows, Rows, Float[Array, " rows"]]:
        """Returns predictions and their targets as rows, and the weight of each pair."""
        targets, links, _ = linked(self.targets, self.weights)
        (predicted, counts), (target, _) = as_rows(self.predictions, links), as_rows(targets[:, 1:], links)
        return predicted, target, counts


def objective(loss: Callable[..., Result]) -> Objective:
    """Gives a loss `(inputs, **settings)` the signature of all objectives, `(embeddings, predictions, weights, …)`."""

    @wraps(loss)
    def made(
        embeddings: Series,
        predictions: Float[Array, "batch steps dim"],
        weights: Weights = None,
        *,
        targets: Series | None = None,
        key: PRNGKeyArray | None = None,
        **settings: Any,
    ) -> Result:
        return loss(Inputs(embeddings, predictions, weights, embeddings if targets is None else targets, key), **settings)

    return made


@objective
def vicreg(
    inputs: Inputs,
    *,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    slowness_weight: float = 0.0,
    episode_weight: float = 0.0,
    contrast_weight: float = 0.0,
    floor: float = 1.0,
    episode_floor: float = 0.5,
) -> Result:
    """Returns the VICReg loss with additional temporal terms; its invariance term is the JEPA's prediction error.

        loss = variance_weight v(z) + covariance_weight c(z) + slowness_weight s(z) + episode_weight v(time averages of z)
               + contrast_weight episode_contrast(z)

    Args:
        variance_weight: Weight of `variance` over batch and time.
        covariance_weight: Weight of `covariance` over batch and time.
        slowness_weight: Weight of `slowness`; higher values favour static features, and too high values remove moving ones.
        episode_weight: Weight of `episode_variance`; higher values favour features that differ between episodes.
        contrast_weight: Weight of `episode_contrast`; it learns static features in minutes, variance alone takes hours.
        floor: Required standard deviation over batch and time.
        episode_floor: Required standard deviation of time averages; it must be below `floor`, or features cannot move.

    Source: Bardes, Ponce, LeCun (2022), arXiv:2105.04906; in world models: Sobal et al. (2025), PLDM, arXiv:2502.14819.
    """
    given = {"variance_weight": variance_weight, "covariance_weight": covariance_weight, "floor": floor}
    loss, found = terms.variance_covariance(*as_rows(inputs.embeddings, inputs.weights), **given)
    found["slowness"] = terms.slowness(inputs.embeddings, inputs.weights)
    found["episode_variance"] = terms.episode_variance(inputs.embeddings, inputs.weights, floor=episode_floor)
    loss += slowness_weight * found["slowness"] + episode_weight * found["episode_variance"]
    if contrast_weight:
        found["contrast"] = terms.episode_contrast(inputs.embeddings, inputs.weights)
        loss += contrast_weight * found["contrast"]
    return loss, found


@objective
def decorrelation(
    inputs: Inputs, *, variance_weight: float = 25.0, covariance_weight: float = 1.0, floor: float = 1.0
) -> Result:
    """Returns the variance and covariance terms of `vicreg`, without temporal terms (`variance_covariance`)."""
    given = {"variance_weight": variance_weight, "covariance_weight": covariance_weight, "floor": floor}
    return terms.variance_covariance(*as_rows(inputs.embeddings, inputs.weights), **given)


@objective
def barlow_twins(inputs: Inputs, *, weight: float = 1.0, redundancy: float = 5e-3) -> Result:
    """Returns the Barlow Twins loss: the cross-correlation of predictions and targets should be the identity.

        loss = weight / dim ( Σ_i (1 - C[i, i])² + redundancy Σ_{i ≠ j} C[i, j]² )

    `C[i, j]` is the correlation of dimension i of predictions with dimension j of targets. The loss is independent of scale.
    The weight of the prediction error must be small relative to it, because the prediction error shrinks the embeddings.
    The terms `alignment` and `redundancy` are the two sums divided by dim; higher values of `redundancy` decorrelate more.

    Source: Zbontar et al. (2021), Barlow Twins, arXiv:2103.03230.
    """
    a, b, counts = inputs.pairs()
    one, other = (_standard(x, counts) for x in (a, b))
    dim = a.shape[-1]
    correlation = one.T @ (counts[:, None] * other) / jnp.maximum(jnp.sum(counts), 1e-9)
    diagonal = jnp.diag(correlation)
    aligned = jnp.sum((1.0 - diagonal) ** 2) / dim
    redundant = jnp.sum(jnp.where(jnp.eye(dim, dtype=bool), 0.0, correlation) ** 2) / dim
    return weight * (aligned + redundancy * redundant), {"alignment": aligned, "redundancy": redundant}


def _standard(rows: Rows, counts: Float[Array, " rows"]) -> Rows:
    """Normalises every column to weighted mean 0 and standard deviation 1; constant columns become 0."""
    total = jnp.maximum(jnp.sum(counts), 1e-9)
    deviations = rows - jnp.sum(counts[:, None] * rows, axis=0) / total
    return deviations / jnp.sqrt(jnp.sum(counts[:, None] * deviations**2, axis=0) / total + 1e-9)


@objective
def sigreg(inputs: Inputs, *, weight: float = 0.05, directions: int = 64, points: int = 17) -> Result:
    """Returns LeJEPA's SIGReg loss: embeddings should be standard normal along random directions.

    Along a direction u the N embeddings are numbers `x = u·z`. The Epps-Pulley statistic compares their characteristic
    function with that of the standard normal distribution,

        T(u) = N ∫ |1/N Σ_n exp(i t x[n]) - exp(-t²/2)|² exp(-t²/2) dt,        loss = weight · mean over u of T(u)

    by the trapezoidal rule between -5 and 5. A normal sample has T of about 1 for any N; for collapsed embeddings T grows
    with N. Without a key, the directions are the same in every step.

    Args:
        weight: Weight of the loss.
        directions: Number of directions; more reduce the variance of the loss, at proportional cost.
        points: Number of quadrature points, odd.

    Raises:
        ValueError: If `directions` is below 1, or `points` is even or below 3.

    Source: Balestriero, LeCun (2025), LeJEPA, arXiv:2511.08544; Epps, Pulley (1983), Biometrika 70.
    """
    if directions < 1 or points < 3 or points % 2 == 0:
        raise ValueError(f"sigreg needs directions >= 1 and an odd number of points >= 3; got {directions}, {points}")
    rows, counts = as_rows(inputs.embeddings, inputs.weights)
    key = jax.random.key(0) if inputs.key is None else inputs.key
    axes = jax.random.normal(key, (rows.shape[1], directions), rows.dtype)
    axes = axes / jnp.linalg.norm(axes, axis=0)
    t = jnp.linspace(0.0, 5.0, points // 2 + 1)  # the integrand is even
    phases = t[:, None, None] * (rows @ axes)
    total = jnp.maximum(jnp.sum(counts), 1e-9)
    real, imaginary = (jnp.einsum("n,tnm->tm", counts, wave(phases)) / total for wave in (jnp.cos, jnp.sin))
    normal = jnp.exp(-(t**2) / 2)[:, None]
    gap = ((real - normal) ** 2 + imaginary**2) * normal
    statistic = jnp.mean(2 * total * jnp.trapezoid(gap, t, axis=0))
    return weight * statistic, {"sigreg": statistic}


@objective
def infonce(inputs: Inputs, *, weight: float = 1.0, temperature: float = 0.1) -> Result:
    """Returns the InfoNCE loss: each prediction should be nearer to its target than to all other targets in the batch.

        loss = - weight · mean_n log ( exp(-d[n, n] / temperature) / Σ_m exp(-d[n, m] / temperature) )

    `d[n, m]` is the squared distance, averaged over dimensions, from prediction n to target m. It is the distance that
    planners minimise, rather than an angle. Higher temperatures spread embeddings wider. The term `picked` is the fraction
    of predictions nearest to their own target.

    Source: van den Oord, Li, Vinyals (2018), arXiv:1807.03748.
    """
    a, b, counts = inputs.pairs()
    cross_entropy, scores = terms.contrast(a, b, counts, temperature)
    correct = jnp.argmax(scores, axis=1) == jnp.arange(len(counts))
    loss = mean(cross_entropy, counts)
    return weight * loss, {"infonce": loss, "picked": mean(correct.astype(a.dtype), counts)}


@objective
def byol(inputs: Inputs, *, weight: float = 1.0) -> Result:
    """Returns the BYOL loss: predictions should have the direction of the EMA encoder's embeddings (`moving_average`).

        loss = weight · mean ( 2 - 2 cos(ẑ[t+1], z̄[t+1]) )

    The targets get no gradient. The loss itself does not prevent a collapse; the lag of the EMA encoder does, so `targets`
    must be its embeddings.

    Source: Grill et al. (2020), arXiv:2006.07733; Assran et al. (2023), I-JEPA, arXiv:2301.08243.
    """
    rows, links, _ = linked(inputs.targets, inputs.weights)
    goals, predicted = jax.lax.stop_gradient(rows[:, 1:]), jnp.where(links[..., None] > 0, inputs.predictions, 1.0)
    lengths = jnp.sqrt((jnp.sum(predicted**2, axis=-1) + 1e-8) * (jnp.sum(goals**2, axis=-1) + 1e-8))
    loss = mean(2 - 2 * jnp.sum(predicted * goals, axis=-1) / lengths, links)
    return weight * loss, {"byol": loss}


def moving_average(average: PyTree, network: PyTree, keep: float) -> PyTree:
    """Returns the exponential moving average `keep · average + (1 - keep) · network`, leaf by leaf; keep lies in [0, 1]."""
    return optax.incremental_update(network, average, 1 - keep)
