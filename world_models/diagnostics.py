"""Is the representation collapsing? Numbers for the training log that say so long before the planner notices.

| number | a healthy encoder | a collapsed one |
|---|---|---|
| `effective_rank` | a good part of the dimensions | near 1: everything on one line or point |
| `std_min`, `std_mean`, `std_max` | near the floor that training asks for | near 0 |
| `linear_probe_r2` | near 1 for what the state must contain | near 0 or below |
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from world_models.anticollapse import centre


def effective_rank(embeddings: Float[Array, "batch dim"], weights: Float[Array, " batch"] | None = None) -> Float[Array, ""]:
    """Count the dimensions in use, as the exponential of the entropy of the singular values.

        p[k] = σ[k] / Σ σ,        rank = exp(-Σ p[k] log p[k])

    between 1 and min(batch, dim). The embeddings are centred first: a constant offset, however large, tells
    nothing apart, and would otherwise look like the one direction that matters. Embeddings that are all equal
    have rank 1.

    Args:
        embeddings: `[batch, dim]`, any unit.
        weights: `[batch]`, how many times each row counts; once each when None.

    Source: Garrido, Balestriero, Najman, LeCun (2023), RankMe, arXiv:2210.02885; Roy and Vetterli (2007).
    """
    deviations, _ = centre(embeddings, weights)
    values = jnp.linalg.svd(deviations, compute_uv=False)
    # What centring leaves of a constant is rounding, and rounding has full rank.
    counts = True if weights is None else weights[:, None] > 0
    largest = jnp.max(jnp.abs(embeddings), initial=0.0, where=counts)
    rounding = 4 * jnp.finfo(embeddings.dtype).eps * max(embeddings.shape) * largest
    values = jnp.where(values > rounding, values, 0.0)
    shares = values / jnp.maximum(jnp.sum(values), jnp.finfo(values.dtype).tiny)
    return jnp.exp(-jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1.0))))


def linear_probe_r2(
    embeddings: Float[Array, "batch dim"],
    targets: Float[Array, "batch targets"],
    *,
    ridge: float = 1e-3,
    held_out: float = 0.25,
) -> Float[Array, " targets"]:
    """Ask how much of known quantities a linear map reads off the embeddings, on rows it was not fitted to.

        W = argmin |X W - Y|² / n + ridge |W|²,        R² = 1 - |Y' - X' W|² / |Y' - mean(Y')|²

    with `X` the embeddings and `Y` the targets, standardised over the fitted rows, and `X'`, `Y'` the *last*
    rows: keep rows of one trajectory together, since neighbours in time are nearly the same row.

    Args:
        embeddings: `[batch, dim]`, any unit.
        targets: `[batch, targets]`, the quantities to be read, each in its own unit.
        ridge: Shrinks the map; higher values trust few rows less.
        held_out: The share of rows to score on, between 0 and 1.

    Returns:
        R² for each target: 1 is perfect, 0 no better than a constant. A target that does not vary scores 0.

    Raises:
        ValueError: If fewer than two rows are left to fit or to score.
    """
    fitted = round(embeddings.shape[0] * (1.0 - held_out))
    if fitted < 2 or embeddings.shape[0] - fitted < 2:
        raise ValueError(
            f"a probe needs two rows to fit and two to score; got {embeddings.shape[0]} rows, held_out={held_out}"
        )
    inputs, outputs = _standardise(embeddings, fitted), _standardise(targets, fitted)
    x, y = inputs[:fitted], outputs[:fitted]
    gram = x.T @ x / fitted + ridge * jnp.eye(x.shape[1], dtype=x.dtype)
    weights = jnp.linalg.solve(gram, x.T @ y / fitted)
    truth = outputs[fitted:]
    error = jnp.sum((truth - inputs[fitted:] @ weights) ** 2, axis=0)
    total = jnp.sum((truth - jnp.mean(truth, axis=0)) ** 2, axis=0)
    varies = total > 1e-10 * jnp.sum(truth**2, axis=0)
    return jnp.where(varies, 1.0 - error / jnp.where(varies, total, 1.0), 0.0)


def _standardise(columns: Float[Array, "batch columns"], fitted: int) -> Float[Array, "batch columns"]:
    """Give columns mean 0 and standard deviation 1 over the fitted rows; constant columns become 0."""
    mean, spread = jnp.mean(columns[:fitted], axis=0), jnp.std(columns[:fitted], axis=0)
    varies = spread > 4 * jnp.finfo(columns.dtype).eps * jnp.max(jnp.abs(columns), axis=0)
    return jnp.where(varies, (columns - mean) / jnp.where(varies, spread, 1.0), 0.0)


def collapse_report(
    embeddings: Float[Array, "batch dim"], weights: Float[Array, " batch"] | None = None
) -> dict[str, Float[Array, ""]]:
    """Summarise a batch of embeddings for the training log.

    Args:
        embeddings: `[batch, dim]`, any unit.
        weights: `[batch]`, how many times each row counts; once each when None.

    Returns:
        `effective_rank`, and the smallest, mean and largest standard deviation of a dimension, `std_min`,
        `std_mean`, `std_max`, in the unit of the embeddings.
    """
    deviations, denominator = centre(embeddings, weights)
    spread = jnp.sqrt(jnp.sum(deviations**2, axis=0) / denominator)
    return {
        "effective_rank": effective_rank(embeddings, weights),
        "std_min": jnp.min(spread),
        "std_mean": jnp.mean(spread),
        "std_max": jnp.max(spread),
    }
