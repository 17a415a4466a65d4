"""Terms of losses on embeddings: variance, covariance, slowness, straightness, inverse dynamics and contrast.

Embeddings are `[batch, dim]`, or `[batch, time, dim]` of consecutive observations, in any unit; floors are in their unit.
Weights are the number of times each row counts, 1 if None. Rows of weight 0, such as padding after the end of an episode,
are ignored and may hold any value. The objectives of `anticollapse` are sums of these terms.

Sources: Bardes, Ponce, LeCun (2022), VICReg, arXiv:2105.04906; Sobal et al. (2025), PLDM, arXiv:2502.14819, for its use in
world models; each function cites its own source.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Loss = Float[Array, ""]
Batch = Float[Array, "batch dim"]
Counts = Float[Array, " batch"] | None
Series = Float[Array, "batch time dim"]
Weights = Float[Array, "batch time"] | None

_EPSILON = 1e-4  # inside the square root, as in the paper: at zero variance the gradient stays finite


def _given(weights: Array | None, rows: Array) -> Array:
    return jnp.ones(rows.shape[:-1], rows.dtype) if weights is None else weights


def centre(embeddings: Batch, weights: Counts = None) -> tuple[Batch, Loss]:
    """Subtracts the weighted mean, and scales rows by the square roots of their weights.

    Returns:
        Scaled deviations `d[n] = sqrt(w[n]) (z[n] - mean)`, and the denominator `Σ w - 1`, at least 1: the usual unbiased
        estimate of the covariance matrix is `d.T @ d / (Σ w - 1)`.
    """
    weights = _given(weights, embeddings)
    counts = weights[:, None] > 0
    # both `where` are needed: 0 * NaN is NaN, and the derivative of a square root at 0 is infinite
    embeddings = jnp.where(counts, embeddings, 0.0)
    roots = jnp.where(counts, jnp.sqrt(jnp.where(counts, weights[:, None], 1.0)), 0.0)
    total = jnp.sum(weights)
    # a sum, because accelerators compute matrix products at a lower precision than this subtraction needs
    mean = jnp.sum(weights[:, None] * embeddings, axis=0) / jnp.maximum(total, jnp.finfo(total.dtype).tiny)
    return roots * (embeddings - mean), jnp.maximum(total - 1.0, 1.0)


def variance(embeddings: Batch, weights: Counts = None, *, floor: float = 1.0) -> Loss:
    """Penalises dimensions that vary too little, `v(z) = mean over d of max(0, floor - sqrt(Var(z[:, d]) + 1e-4))`.

    A higher floor spreads embeddings wider.
    """
    deviations, denominator = centre(embeddings, weights)
    spread = jnp.sqrt(jnp.sum(deviations**2, axis=0) / denominator + _EPSILON)
    return jnp.mean(jnp.maximum(0.0, floor - spread))


def covariance(embeddings: Batch, weights: Counts = None) -> Loss:
    """Penalises correlated dimensions, `c(z) = (1 / dim) Σ over i ≠ j of Cov(z)[i, j]²`."""
    deviations, denominator = centre(embeddings, weights)
    dimensions = embeddings.shape[1]
    matrix = deviations.T @ deviations / denominator
    return jnp.sum(jnp.where(jnp.eye(dimensions, dtype=bool), 0.0, matrix) ** 2) / dimensions


def variance_covariance(
    embeddings: Batch,
    weights: Counts = None,
    *,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    floor: float = 1.0,
) -> tuple[Loss, dict[str, Loss]]:
    """Returns `variance_weight v(z) + covariance_weight c(z)`, and both terms; default weights are VICReg's."""
    terms = {"variance": variance(embeddings, weights, floor=floor), "covariance": covariance(embeddings, weights)}
    return variance_weight * terms["variance"] + covariance_weight * terms["covariance"], terms


def as_rows(embeddings: Series, weights: Weights) -> tuple[Float[Array, "rows dim"], Float[Array, " rows"]]:
    """Returns embeddings of all times as rows, with their weights; rows of weight 0 are set to 0."""
    weights = _given(weights, embeddings)
    rows, weights = embeddings.reshape(-1, embeddings.shape[-1]), weights.reshape(-1)
    return jnp.where(weights[:, None] > 0, rows, 0.0), weights


def mean(values: Float[Array, "*rows"], weights: Float[Array, "*rows"]) -> Loss:
    """Returns the weighted mean; values of weight 0 are ignored."""
    return jnp.sum(weights * jnp.where(weights > 0, values, 0.0)) / jnp.maximum(jnp.sum(weights), 1e-9)


def linked(
    embeddings: Series, weights: Weights
) -> tuple[Series, Float[Array, "batch steps"], Float[Array, "batch steps dim"]]:
    """Returns embeddings with rows of weight 0 set to 0, weights of the steps between rows, and the steps."""
    weights = _given(weights, embeddings)
    embeddings = jnp.where(weights[..., None] > 0, embeddings, 0.0)
    return embeddings, jnp.minimum(weights[:, 1:], weights[:, :-1]), embeddings[:, 1:] - embeddings[:, :-1]


def slowness(embeddings: Series, weights: Weights = None) -> Loss:
    """Returns the mean over steps and dimensions of `(z[t+1] - z[t])²`.

    Together with a variance term it favours features that are slow or constant within an episode and differ between
    episodes, such as the position of a door.
    """
    _, links, steps = linked(embeddings, weights)
    return mean(jnp.mean(steps**2, axis=-1), links)


def straightness(embeddings: Series, weights: Weights = None) -> Loss:
    """Returns the mean of `1 - cos(z[t+1] - z[t], z[t+2] - z[t+1])`: 0 for straight trajectories, 2 for reversals.

    Along straight latent trajectories, latent distance is proportional to the remaining path, which helps a planner that
    minimises latent distance. A step of length 0 counts as a right angle. At least three times are needed.

    Source: Hénaff, Goris, Simoncelli (2019), Perceptual straightening of natural videos, Nature Neuroscience 22.
    """
    _, links, steps = linked(embeddings, weights)
    length = jnp.sqrt(jnp.sum(steps**2, axis=-1) + 1e-8)
    cosine = jnp.sum(steps[:, 1:] * steps[:, :-1], axis=-1) / (length[:, 1:] * length[:, :-1])
    return mean(1.0 - cosine, jnp.minimum(links[:, 1:], links[:, :-1]))


def inverse_dynamics(
    read: Callable[[Array, Array], Array],
    embeddings: Series,
    actions: Float[Array, "batch steps action"],
    weights: Float[Array, "batch steps"] | None = None,
) -> Loss:
    """Returns the error of an inverse model: the mean over steps and dimensions of `(read(z[t], z[t+1]) - a[t])²`.

    The term keeps controllable features in the embedding; without it an encoder may keep only slow or autonomous features.

    Args:
        read: Inverse model `(z, z') -> action`, with any leading axes.
        embeddings: `[batch, time, dim]`.
        actions: `[batch, time - 1, action]`, scaled to about 1.
        weights: Of the actions, `[batch, time - 1]`.

    Source: Pathak et al. (2017), arXiv:1705.05363; Sobal et al. (2025), arXiv:2502.14819.
    """
    weights = _given(weights, actions)
    counts = weights[..., None] > 0
    before, after = (jnp.where(counts, z, 0.0) for z in (embeddings[:, :-1], embeddings[:, 1:]))
    error = read(before, after) - jnp.where(counts, actions, 0.0)
    return mean(jnp.mean(error**2, axis=-1), weights)


def episode_variance(embeddings: Series, weights: Weights = None, *, floor: float = 1.0) -> Loss:
    """Penalises dimensions whose mean over a window varies too little between windows.

    It is `variance` of time averages, so variation within episodes does not reduce it.
    """
    weights = _given(weights, embeddings)
    total = jnp.sum(weights, axis=1)
    sums = jnp.sum(weights[..., None] * jnp.where(weights[..., None] > 0, embeddings, 0.0), axis=1)
    return variance(sums / jnp.maximum(total, 1e-9)[:, None], (total > 0).astype(embeddings.dtype), floor=floor)


def contrast(
    a: Float[Array, "rows dim"], b: Float[Array, "rows dim"], counts: Float[Array, " rows"], temperature: float
) -> tuple[Float[Array, " rows"], Float[Array, "rows rows"]]:
    """Returns the cross-entropy of matching row n of `a` with row n of `b`, by squared distance, and the scores."""
    distance = (jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2 * a @ b.T) / a.shape[1]
    scores = jnp.where(counts > 0, -distance / temperature + jnp.log(jnp.where(counts > 0, counts, 1.0)), -jnp.inf)
    cross_entropy = jax.nn.logsumexp(jnp.where(counts.any(), scores, 0.0), axis=1) + jnp.diag(distance) / temperature
    return cross_entropy, scores


def episode_contrast(embeddings: Series, weights: Weights = None, *, temperature: float = 0.1) -> Loss:
    """Returns a contrastive loss between the first and the last embedding of each window, on half of the dimensions.

        loss = - mean_n log ( exp(-d[n, n] / temperature) / Σ_m exp(-d[n, m] / temperature) )

    `d[n, m]` is the squared distance, averaged over the first half of the dimensions, from the first embedding of window n
    to the last of window m. These dimensions learn features that are constant within an episode and differ between
    episodes, such as the position of a door. The other half is free to change. A window counts by its first and last weight.

    Source: van den Oord, Li, Vinyals (2018), arXiv:1807.03748, between windows instead of times.
    """
    half = max(embeddings.shape[-1] // 2, 1)
    weights = _given(weights, embeddings)
    counts = jnp.minimum(weights[:, 0], weights[:, -1])
    a, b = (jnp.where(counts[:, None] > 0, embeddings[:, t, :half], 0.0) for t in (0, -1))
    cross_entropy, _ = contrast(a, b, counts, temperature)
    return mean(cross_entropy, counts)
