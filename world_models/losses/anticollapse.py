"""What keeps an encoder from collapsing, and other things asked of embeddings.

A joint-embedding model that only has to predict its own embeddings is best served by an encoder that maps everything to one
point. What is here makes that expensive.

**Objectives** all have one signature, and any of them completes a JEPA:

    objective(embeddings, predictions, weights=None, *, targets=None, key=None, …) -> (loss, metrics)

with `embeddings` `[batch, time, dim]` of consecutive observations, `predictions` `[batch, time - 1, dim]` of all but the
first of them, each made from the one before, `weights` `[batch, time]`, the number of times each embedding counts,
`targets`, of the shape of embeddings, that predictions are held against where these are not the embeddings themselves, and a
`key` for those that draw at random. Settings are keywords: `functools.partial` gives other ones.

| objective | asks that | is least when |
|---|---|---|
| `vicreg` | dimensions vary, none repeats another | standard deviations reach the floor, without correlation |
| `barlow_twins` | dimension i of predictions tells dimension i alone | the cross-correlation is the identity |
| `sigreg` | embeddings are a standard normal cloud | they are |
| `infonce` | predictions are nearer to what came than to all else | embeddings lie far apart |
| `byol` | predictions point where a slow copy of the encoder does | they do: only the copy prevents a collapse |

**Terms** that they are made of, or that go with them: `variance`, `covariance`, `slowness`, `straightness`,
`inverse_dynamics`, and `moving_average`, which makes the slow copy. A row of weight 0, such as the padding after the end of
an episode, counts for nothing whatever it holds.

Sources: Bardes, Ponce, LeCun (2022), VICReg, arXiv:2105.04906; Sobal et al. (2025), PLDM, arXiv:2502.14819, for its use in
world models; each function names its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

PyTree = Any
Loss = Float[Array, ""]
Objective = Callable[..., tuple[Loss, dict[str, Loss]]]

_EPSILON = 1e-4  # inside the square root, as in the paper: at zero variance the gradient stays finite


def centre(
    embeddings: Float[Array, "batch dim"], weights: Float[Array, " batch"] | None = None
) -> tuple[Float[Array, "batch dim"], Float[Array, ""]]:
    """Subtract the weighted mean, and scale rows such that products of columns are weighted sums.

    With `d[n] = sqrt(w[n]) (z[n] - mean)` the covariance matrix is `d.T @ d / (Σ w - 1)`, the usual unbiased
    estimate.

    Args:
        embeddings: `[batch, dim]`, any unit.
        weights: `[batch]`, how many times each row counts; once each when None.

    Returns:
        The scaled deviations `d`, `[batch, dim]`, and the denominator `Σ w - 1`, no less than 1.
    """
    weights = jnp.ones(embeddings.shape[0], embeddings.dtype) if weights is None else weights
    counts = weights[:, None] > 0
    # Both selections are needed: 0 * NaN is NaN, and the slope of a square root at 0 is infinite.
    embeddings = jnp.where(counts, embeddings, 0.0)
    roots = jnp.where(counts, jnp.sqrt(jnp.where(counts, weights[:, None], 1.0)), 0.0)
    total = jnp.sum(weights)
    # A sum, not a product of matrices, which accelerators round too coarsely to be subtracted.
    mean = jnp.sum(weights[:, None] * embeddings, axis=0) / jnp.maximum(total, jnp.finfo(total.dtype).tiny)
    return roots * (embeddings - mean), jnp.maximum(total - 1.0, 1.0)


def variance(
    embeddings: Float[Array, "batch dim"],
    weights: Float[Array, " batch"] | None = None,
    *,
    floor: float = 1.0,
) -> Float[Array, ""]:
    """Penalise dimensions whose standard deviation over the batch is below a floor.

        v(z) = mean over d of  max(0, floor - sqrt(Var(z[:, d]) + 1e-4))

    Args:
        embeddings: `[batch, dim]`, any unit.
        weights: `[batch]`, how many times each row counts; once each when None.
        floor: The standard deviation asked for, in the unit of the embeddings; a higher one spreads them
            wider.
    """
    deviations, denominator = centre(embeddings, weights)
    spread = jnp.sqrt(jnp.sum(deviations**2, axis=0) / denominator + _EPSILON)
    return jnp.mean(jnp.maximum(0.0, floor - spread))


def covariance(embeddings: Float[Array, "batch dim"], weights: Float[Array, " batch"] | None = None) -> Float[Array, ""]:
    """Penalise dimensions that vary together.

        c(z) = (1 / dim) Σ over i ≠ j of  Cov(z)[i, j]²

    Args:
        embeddings: `[batch, dim]`, any unit.
        weights: `[batch]`, how many times each row counts; once each when None.
    """
    deviations, denominator = centre(embeddings, weights)
    dimensions = embeddings.shape[1]
    matrix = deviations.T @ deviations / denominator
    return jnp.sum(jnp.where(jnp.eye(dimensions, dtype=bool), 0.0, matrix) ** 2) / dimensions


def variance_covariance(
    embeddings: Float[Array, "batch dim"],
    weights: Float[Array, " batch"] | None = None,
    *,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    floor: float = 1.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Add the two terms of VICReg that need no second view; the defaults are the paper's.

        loss = variance_weight v(z) + covariance_weight c(z)

    Args:
        embeddings: `[batch, dim]`, any unit.
        weights: `[batch]`, how many times each row counts; once each when None.
        variance_weight: Of `variance`; higher values insist that every dimension is used.
        covariance_weight: Of `covariance`; higher values insist that dimensions differ from each other.
        floor: The standard deviation asked for, in the unit of the embeddings.

    Returns:
        The weighted sum, and the two terms before weighting, `{"variance": …, "covariance": …}`.
    """
    terms = {
        "variance": variance(embeddings, weights, floor=floor),
        "covariance": covariance(embeddings, weights),
    }
    return variance_weight * terms["variance"] + covariance_weight * terms["covariance"], terms


def _flat(
    embeddings: Float[Array, "batch time dim"], weights: Float[Array, "batch time"] | None
) -> tuple[Float[Array, "rows dim"], Float[Array, " rows"]]:
    """Embeddings of all times as rows, with their weights, 0 times NaN taken for 0."""
    weights = jnp.ones(embeddings.shape[:2], embeddings.dtype) if weights is None else weights
    rows, weights = embeddings.reshape(-1, embeddings.shape[-1]), weights.reshape(-1)
    return jnp.where(weights[:, None] > 0, rows, 0.0), weights


def mean(values: Float[Array, "*rows"], weights: Float[Array, "*rows"]) -> Loss:
    """The weighted mean; what counts for nothing may be anything."""
    return jnp.sum(weights * jnp.where(weights > 0, values, 0.0)) / jnp.maximum(jnp.sum(weights), 1e-9)


def _links(
    embeddings: Float[Array, "batch time dim"], weights: Float[Array, "batch time"] | None
) -> tuple[Float[Array, "batch time dim"], Float[Array, "batch steps"], Float[Array, "batch steps dim"]]:
    """Embeddings without what counts for nothing, the weights of steps between two that count, and the steps."""
    weights = jnp.ones(embeddings.shape[:2], embeddings.dtype) if weights is None else weights
    embeddings = jnp.where(weights[..., None] > 0, embeddings, 0.0)
    return embeddings, jnp.minimum(weights[:, 1:], weights[:, :-1]), embeddings[:, 1:] - embeddings[:, :-1]


def _pairs(
    predictions: Float[Array, "batch steps dim"],
    came: Float[Array, "batch time dim"],
    weights: Float[Array, "batch time"] | None,
) -> tuple[Float[Array, "rows dim"], Float[Array, "rows dim"], Float[Array, " rows"]]:
    """Predictions and what came as rows, and how many times each pair counts."""
    came, links, _ = _links(came, weights)
    (guessed, counts), (seen, _) = _flat(predictions, links), _flat(came[:, 1:], links)
    return guessed, seen, counts


def slowness(embeddings: Float[Array, "batch time dim"], weights: Float[Array, "batch time"] | None = None) -> Loss:
    """How far embeddings move from one time to the next: the mean over steps and dimensions of `(z[t+1] - z[t])²`.

    Beside a variance term it favours what changes slowly or not at all within an episode and differs between episodes, such
    as the place of a door.

    Args:
        embeddings: `[batch, time, dim]`, any unit.
        weights: `[batch, time]`, how many times each counts; once each when None.
    """
    _, links, steps = _links(embeddings, weights)
    return mean(jnp.mean(steps**2, axis=-1), links)


def straightness(embeddings: Float[Array, "batch time dim"], weights: Float[Array, "batch time"] | None = None) -> Loss:
    """How much trajectories bend: the mean of `1 - cos(z[t+1] - z[t], z[t+2] - z[t+1])`, 0 when straight, 2 when turning
    back.

    Where latent trajectories are straight, distance in the latent space is distance to go, which is what a planner that
    descends it needs. A step of no length counts as at a right angle.

    Args:
        embeddings: `[batch, time, dim]`, of at least three times, any unit.
        weights: `[batch, time]`, how many times each counts; once each when None.

    Source: Hénaff, Goris, Simoncelli (2019), Perceptual straightening of natural videos, Nature Neuroscience 22.
    """
    _, links, steps = _links(embeddings, weights)
    length = jnp.sqrt(jnp.sum(steps**2, axis=-1) + 1e-8)
    cosine = jnp.sum(steps[:, 1:] * steps[:, :-1], axis=-1) / (length[:, 1:] * length[:, :-1])
    return mean(1.0 - cosine, jnp.minimum(links[:, 1:], links[:, :-1]))


def inverse_dynamics(
    read: Callable[[Array, Array], Array],
    embeddings: Float[Array, "batch time dim"],
    actions: Float[Array, "batch steps action"],
    weights: Float[Array, "batch steps"] | None = None,
) -> Loss:
    """How badly actions can be read off what they did: the mean over steps and dimensions of `(read(z[t], z[t+1]) - a[t])²`.

    What an agent can move is what its actions can be read off; without this term an encoder may keep only what moves slowly
    or by itself.

    Args:
        read: `(z, z') -> action`, with any leading axes.
        embeddings: `[batch, time, dim]`.
        actions: `[batch, time - 1, action]`, scaled to about 1.
        weights: `[batch, time - 1]`, how many times each action counts; once each when None.

    Source: Pathak et al. (2017), arXiv:1705.05363; Sobal et al. (2025), arXiv:2502.14819.
    """
    weights = jnp.ones(actions.shape[:2], embeddings.dtype) if weights is None else weights
    counts = weights[..., None] > 0
    before, after = (jnp.where(counts, z, 0.0) for z in (embeddings[:, :-1], embeddings[:, 1:]))
    error = read(before, after) - jnp.where(counts, actions, 0.0)
    return mean(jnp.mean(error**2, axis=-1), weights)


def episode_variance(
    embeddings: Float[Array, "batch time dim"], weights: Float[Array, "batch time"] | None = None, *, floor: float = 1.0
) -> Loss:
    """Penalise dimensions whose mean over a window varies too little between windows.

    It is `variance` of time averages: a dimension that merely changes within every episode does not satisfy it.

    Args:
        embeddings: `[batch, time, dim]`, any unit.
        weights: `[batch, time]`, how many times each counts; once each when None.
        floor: The standard deviation asked for, in the unit of the embeddings.
    """
    weights = jnp.ones(embeddings.shape[:2], embeddings.dtype) if weights is None else weights
    total = jnp.sum(weights, axis=1)
    sums = jnp.sum(weights[..., None] * jnp.where(weights[..., None] > 0, embeddings, 0.0), axis=1)
    return variance(sums / jnp.maximum(total, 1e-9)[:, None], (total > 0).astype(embeddings.dtype), floor=floor)


def _contrast(
    a: Float[Array, "rows dim"], b: Float[Array, "rows dim"], counts: Float[Array, " rows"], temperature: float
) -> tuple[Float[Array, " rows"], Float[Array, "rows rows"]]:
    """How surprising it is that row n of `a` belongs to row n of `b`, by squared distance, and the scores of all rows."""
    distance = (jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2 * a @ b.T) / a.shape[1]
    scores = jnp.where(counts > 0, -distance / temperature + jnp.log(jnp.where(counts > 0, counts, 1.0)), -jnp.inf)
    surprise = jax.nn.logsumexp(jnp.where(counts.any(), scores, 0.0), axis=1) + jnp.diag(distance) / temperature
    return surprise, scores


def episode_contrast(
    embeddings: Float[Array, "batch time dim"],
    weights: Float[Array, "batch time"] | None = None,
    *,
    temperature: float = 0.1,
) -> Loss:
    """Let the beginning of every window pick its own end out of those of all windows, by half of the dimensions.

        loss = - mean_n log ( exp(-d[n, n] / temperature) / Σ_m exp(-d[n, m] / temperature) )

    with `d[n, m]` the squared distance, averaged over the first half of the dimensions, from the first embedding of window n
    to the last of window m. What tells windows of different episodes apart is what stays as it is within each: those
    dimensions come to hold what is static, such as the place of a door, and the other half is free to move.

    Args:
        embeddings: `[batch, time, dim]`, any unit.
        weights: `[batch, time]`, how many times each counts; a window counts where its ends do; once each when None.
        temperature: Squared distance at which two windows begin to be told apart.

    Source: van den Oord, Li, Vinyals (2018), arXiv:1807.03748, between windows instead of times.
    """
    half = max(embeddings.shape[-1] // 2, 1)
    weights = jnp.ones(embeddings.shape[:2], embeddings.dtype) if weights is None else weights
    counts = jnp.minimum(weights[:, 0], weights[:, -1])
    a, b = (jnp.where(counts[:, None] > 0, embeddings[:, t, :half], 0.0) for t in (0, -1))
    surprise, _ = _contrast(a, b, counts, temperature)
    return mean(surprise, counts)


def vicreg(
    embeddings: Float[Array, "batch time dim"],
    predictions: Float[Array, "batch steps dim"],
    weights: Float[Array, "batch time"] | None = None,
    *,
    targets: Float[Array, "batch time dim"] | None = None,
    key: PRNGKeyArray | None = None,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    slowness_weight: float = 0.0,
    episode_weight: float = 0.0,
    contrast_weight: float = 0.0,
    floor: float = 1.0,
    episode_floor: float = 0.5,
) -> tuple[Loss, dict[str, Loss]]:
    """VICReg with what time adds to it; its invariance term is the JEPA's prediction error.

        loss = variance_weight v(z) + covariance_weight c(z) + slowness_weight s(z) + episode_weight v(time averages of z)
               + contrast_weight episode_contrast(z)

    Args:
        embeddings: `[batch, time, dim]`.
        predictions: Not looked at.
        weights: `[batch, time]`, how many times each counts; once each when None.
        targets: Not looked at.
        key: Not looked at.
        variance_weight: Of `variance` over batch and time.
        covariance_weight: Of `covariance` over batch and time.
        slowness_weight: Of `slowness`; higher values favour what is static, and hide what moves when far above the others.
        episode_weight: Of `episode_variance`; higher values favour what tells one episode from another.
        contrast_weight: Of `episode_contrast`; it finds what is static within minutes, where variance alone takes hours.
        floor: Standard deviation asked for over batch and time.
        episode_floor: Standard deviation asked for of time averages, less than `floor`, or nothing could move.

    Returns:
        The weighted sum, and every term before weighting.
    """
    rows, counts = _flat(embeddings, weights)
    loss, terms = variance_covariance(
        rows, counts, variance_weight=variance_weight, covariance_weight=covariance_weight, floor=floor
    )
    terms["slowness"] = slowness(embeddings, weights)
    terms["episode_variance"] = episode_variance(embeddings, weights, floor=episode_floor)
    loss += slowness_weight * terms["slowness"] + episode_weight * terms["episode_variance"]
    if contrast_weight:
        terms["contrast"] = episode_contrast(embeddings, weights)
        loss += contrast_weight * terms["contrast"]
    return loss, terms


def barlow_twins(
    embeddings: Float[Array, "batch time dim"],
    predictions: Float[Array, "batch steps dim"],
    weights: Float[Array, "batch time"] | None = None,
    *,
    targets: Float[Array, "batch time dim"] | None = None,
    key: PRNGKeyArray | None = None,
    weight: float = 1.0,
    redundancy: float = 5e-3,
) -> tuple[Loss, dict[str, Loss]]:
    """Make the cross-correlation between predictions and what came the identity.

        loss = weight / dim ( Σ_i (1 - C[i, i])² + redundancy Σ_{i ≠ j} C[i, j]² )

    with `C[i, j]` the correlation of dimension i of predictions with dimension j of embeddings. It does not see scale: the
    prediction error beside it should be small against it, or shrinks the embeddings.

    Args:
        embeddings: `[batch, time, dim]`.
        predictions: `[batch, time - 1, dim]`.
        weights: `[batch, time]`, how many times each embedding counts; once each when None.
        targets: `[batch, time, dim]`, what came; the embeddings when None.
        key: Not looked at.
        weight: Of the whole.
        redundancy: Of what should be zero; higher values insist that dimensions differ.

    Returns:
        The loss, and `alignment` and `redundancy`, the two sums over the number of dimensions.

    Source: Zbontar et al. (2021), Barlow Twins, arXiv:2103.03230.
    """
    a, b, counts = _pairs(predictions, embeddings if targets is None else targets, weights)
    one, other = (_standard(x, counts) for x in (a, b))
    dim = embeddings.shape[-1]
    correlation = one.T @ (counts[:, None] * other) / jnp.maximum(jnp.sum(counts), 1e-9)
    diagonal = jnp.diag(correlation)
    aligned = jnp.sum((1.0 - diagonal) ** 2) / dim
    redundant = jnp.sum(jnp.where(jnp.eye(dim, dtype=bool), 0.0, correlation) ** 2) / dim
    return weight * (aligned + redundancy * redundant), {"alignment": aligned, "redundancy": redundant}


def _standard(rows: Float[Array, "rows dim"], counts: Float[Array, " rows"]) -> Float[Array, "rows dim"]:
    """Weighted mean 0 and standard deviation 1 in every column; constant columns become 0."""
    total = jnp.maximum(jnp.sum(counts), 1e-9)
    deviations = rows - jnp.sum(counts[:, None] * rows, axis=0) / total
    return deviations / jnp.sqrt(jnp.sum(counts[:, None] * deviations**2, axis=0) / total + 1e-9)


def sigreg(
    embeddings: Float[Array, "batch time dim"],
    predictions: Float[Array, "batch steps dim"],
    weights: Float[Array, "batch time"] | None = None,
    *,
    targets: Float[Array, "batch time dim"] | None = None,
    key: PRNGKeyArray | None = None,
    weight: float = 0.05,
    directions: int = 64,
    points: int = 17,
) -> tuple[Loss, dict[str, Loss]]:
    """Make embeddings a standard normal cloud, judged along random directions (LeJEPA's sketched regulariser).

    Along a direction u the N embeddings are numbers `x = u·z`. Their Epps-Pulley statistic compares empirical and normal
    characteristic functions,

        T(u) = N ∫ |1/N Σ_n exp(i t x[n]) - exp(-t²/2)|² exp(-t²/2) dt,        loss = weight · mean over u of T(u)

    by the trapezoidal rule between -5 and 5. Whatever N, a normal sample has T of about 1; one point has T that grows with
    N.

    Args:
        embeddings: `[batch, time, dim]`.
        predictions: Not looked at.
        weights: `[batch, time]`, how many times each counts; once each when None.
        targets: Not looked at.
        key: Draws the directions, other ones at every step; the same ones always when None.
        weight: Of the whole.
        directions: How many; more judge a step more evenly, at proportional cost.
        points: Of the quadrature, an odd number.

    Returns:
        The loss, and `sigreg`, the mean statistic.

    Raises:
        ValueError: If there are no directions, or the points are even or fewer than 3.

    Source: Balestriero, LeCun (2025), LeJEPA, arXiv:2511.08544; Epps, Pulley (1983), Biometrika 70.
    """
    if directions < 1 or points < 3 or points % 2 == 0:
        raise ValueError(f"sigreg needs directions >= 1 and an odd number of points >= 3; got {directions}, {points}")
    rows, counts = _flat(embeddings, weights)
    key = jax.random.key(0) if key is None else key
    axes = jax.random.normal(key, (rows.shape[1], directions), rows.dtype)
    axes = axes / jnp.linalg.norm(axes, axis=0)
    t = jnp.linspace(0.0, 5.0, points // 2 + 1)  # the integrand is even
    turns = t[:, None, None] * (rows @ axes)
    total = jnp.maximum(jnp.sum(counts), 1e-9)
    real, imaginary = (jnp.einsum("n,tnm->tm", counts, wave(turns)) / total for wave in (jnp.cos, jnp.sin))
    normal = jnp.exp(-(t**2) / 2)[:, None]
    gap = ((real - normal) ** 2 + imaginary**2) * normal
    statistic = jnp.mean(2 * total * jnp.trapezoid(gap, t, axis=0))
    return weight * statistic, {"sigreg": statistic}


def infonce(
    embeddings: Float[Array, "batch time dim"],
    predictions: Float[Array, "batch steps dim"],
    weights: Float[Array, "batch time"] | None = None,
    *,
    targets: Float[Array, "batch time dim"] | None = None,
    key: PRNGKeyArray | None = None,
    weight: float = 1.0,
    temperature: float = 0.1,
) -> tuple[Loss, dict[str, Loss]]:
    """Let every prediction pick what came out of all that came anywhere in the batch.

        loss = - weight · mean_n log ( exp(-d[n, n] / temperature) / Σ_m exp(-d[n, m] / temperature) )

    with `d[n, m]` the squared distance, over dimensions averaged, from prediction n to embedding m: the distance that
    planners descend, rather than an angle.

    Args:
        embeddings: `[batch, time, dim]`.
        predictions: `[batch, time - 1, dim]`.
        weights: `[batch, time]`, how many times each embedding counts; once each when None.
        targets: `[batch, time, dim]`, what came; the embeddings when None.
        key: Not looked at.
        weight: Of the whole.
        temperature: Squared distance at which two embeddings begin to be told apart; higher ones spread embeddings wider.

    Returns:
        The loss, and `infonce`, the mean before weighting, and `picked`, the share of right choices.

    Source: van den Oord, Li, Vinyals (2018), arXiv:1807.03748.
    """
    a, b, counts = _pairs(predictions, embeddings if targets is None else targets, weights)
    surprise, scores = _contrast(a, b, counts, temperature)
    right = jnp.argmax(scores, axis=1) == jnp.arange(len(counts))
    loss = mean(surprise, counts)
    return weight * loss, {"infonce": loss, "picked": mean(right.astype(a.dtype), counts)}


def byol(
    embeddings: Float[Array, "batch time dim"],
    predictions: Float[Array, "batch steps dim"],
    weights: Float[Array, "batch time"] | None = None,
    *,
    targets: Float[Array, "batch time dim"] | None = None,
    key: PRNGKeyArray | None = None,
    weight: float = 1.0,
) -> tuple[Loss, dict[str, Loss]]:
    """Let predictions point where a slow copy of the encoder, see `moving_average`, sees what came.

        loss = weight · mean ( 2 - 2 cos(ẑ[t+1], z̄[t+1]) )

    No gradient flows into the embeddings. Nothing in this loss forbids a collapse; what avoids it is that the copy lags
    behind, so give it embeddings of the copy.

    Args:
        embeddings: `[batch, time, dim]`.
        predictions: `[batch, time - 1, dim]`.
        weights: `[batch, time]`, how many times each embedding counts; once each when None.
        targets: `[batch, time, dim]`, of the slow copy; the embeddings themselves, which collapse, when None.
        key: Not looked at.
        weight: Of the whole.

    Returns:
        The loss, and `byol`, the mean before weighting.

    Source: Grill et al. (2020), arXiv:2006.07733; Assran et al. (2023), I-JEPA, arXiv:2301.08243.
    """
    seen, links, _ = _links(embeddings if targets is None else targets, weights)
    goals, guesses = jax.lax.stop_gradient(seen[:, 1:]), jnp.where(links[..., None] > 0, predictions, 1.0)
    lengths = jnp.sqrt((jnp.sum(guesses**2, axis=-1) + 1e-8) * (jnp.sum(goals**2, axis=-1) + 1e-8))
    loss = mean(2 - 2 * jnp.sum(guesses * goals, axis=-1) / lengths, links)
    return weight * loss, {"byol": loss}


def moving_average(average: PyTree, network: PyTree, keep: float) -> PyTree:
    """Let a slow copy of weights follow: `keep · average + (1 - keep) · network`, leaf by leaf.

    Args:
        average: The slow copy.
        network: What it follows.
        keep: Share of itself kept, from 0 to 1; after n steps with still weights `keepⁿ` of the start is left.
    """
    return optax.incremental_update(network, average, 1 - keep)
