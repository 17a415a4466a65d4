"""Regularisers that keep an encoder from collapsing.

A joint-embedding model that only has to predict its own embeddings is best served by an encoder that maps
everything to one point. The terms here make that expensive. Each looks at one batch of embeddings, `[batch,
dim]`, and returns a scalar:

| term | asks that | is zero when |
|---|---|---|
| `variance` | every dimension varies over the batch | every standard deviation is at least the floor |
| `covariance` | no dimension repeats another | the dimensions are uncorrelated |

All take `weights` `[batch]`, the number of times each row counts; a row of weight 0, such as the padding
after the end of an episode, counts for nothing whatever it holds.

Source: Bardes, Ponce, LeCun (2022), VICReg: Variance-Invariance-Covariance Regularization, arXiv:2105.04906.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

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
