"""Diagnostics of representations, for the training log: a collapse shows in them long before a planner fails.

| number | a healthy encoder | a collapsed one |
|---|---|---|
| `effective_rank` | a good part of the dimensions | near 1: everything on one line or point |
| `std_min`, `std_mean`, `std_max` | near the floor that training asks for | near 0 |
| `linear_probe_r2` | near 1 for what the state must contain | near 0 or below |

A `CollapseMonitor` watches the first two. Two further numbers tell whether a representation that has not collapsed can be
planned in: `prediction_errors`, and `distance_correlation` between distances in it and true ones.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.stats import rankdata
from jaxtyping import Array, Float, Int

from world_models.base import WorldModel
from world_models.data.replay_buffer import Window
from world_models.losses.terms import centre


def effective_rank(embeddings: Float[Array, "batch dim"], weights: Float[Array, " batch"] | None = None) -> Float[Array, ""]:
    """Count the dimensions in use, as the exponential of the entropy of the singular values.

        p[k] = σ[k] / Σ σ,        rank = exp(-Σ p[k] log p[k])

    between 1 and min(batch, dim). The embeddings are centred first: a constant offset, however large, tells
    nothing apart, and would otherwise look like the one direction that matters. Embeddings that are all equal
    have rank 1. `weights` are how many times each row counts; once each when None.

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
    """Score how much of known quantities a linear map reads off the embeddings, on rows it was not fitted to.

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
    """Summarise a batch of embeddings for the training log; weights are those of `effective_rank`.

    Returns:
        `effective_rank`, its share `rank_share` of what it could be at most, and the smallest, mean and largest standard
        deviation of a dimension, `std_min`, `std_mean`, `std_max`, in the unit of the embeddings.
    """
    deviations, denominator = centre(embeddings, weights)
    spread = jnp.sqrt(jnp.sum(deviations**2, axis=0) / denominator)
    rank = effective_rank(embeddings, weights)
    return {
        "effective_rank": rank,
        "rank_share": rank / min(embeddings.shape),
        "std_min": jnp.min(spread),
        "std_mean": jnp.mean(spread),
        "std_max": jnp.max(spread),
    }


class CollapseWarning(UserWarning):
    """A representation is collapsing."""


class CollapseMonitor:
    """Warns once when a representation collapses, given the metrics of training, which include `collapse_report`.

    | sign | in health | in collapse | threshold |
    |---|---|---|---|
    | all at one point: `std_mean` | 0.15 to 1, far above with InfoNCE | 0.01 after 100 updates | 0.05 |
    | few directions left: `rank_share` | 0.74 or more, where decorrelation is asked for | 0.3 or less | 0.4 |

    The figures are those of a dot that moves (16 dimensions) and of rooms (64 dimensions). The second row is what is left
    where only an inverse-dynamics term holds a representation open: what moves survives, what is static goes. VICReg and
    SIGReg ask for decorrelation; Barlow Twins at its usual weight, InfoNCE and BYOL do not, and keep a share of 0.2 or more:
    give 0.1.

    Args:
        spread: Least mean standard deviation, in the unit of the latents.
        share: Least effective rank, as a share of the dimensions.
        after: Updates before which it does not warn: an encoder that has hardly learnt may be anything.
    """

    def __init__(self, *, spread: float = 0.05, share: float = 0.4, after: int = 200) -> None:
        self.spread, self.share, self.after = spread, share, after
        self.raised: str | None = None
        """The warning, once it was given."""

    def __call__(self, metrics: Mapping[str, Any], updates: int) -> str | None:
        """Check a report, and warn with a `CollapseWarning` if it is the first bad one.

        Args:
            metrics: With `std_mean`, `effective_rank` and `rank_share`; numbers that are not finite are bad ones.
            updates: Gradient steps taken so far.

        Returns:
            The reason why this report is bad, or None.
        """
        if updates < self.after:
            return None
        spread, rank, share = (float(metrics[name]) for name in ("std_mean", "effective_rank", "rank_share"))
        reason = None
        if not spread >= self.spread:
            reason = f"dimensions vary by {spread:.3g} on average, less than {self.spread:g}: all at one point"
        elif not share >= self.share:
            reason = (
                f"the effective rank is {rank:.3g}, a share of {share:.2g}, less than {self.share:g}: few directions left"
            )
        if reason is not None and self.raised is None:
            self.raised = f"the representation is collapsing after {updates} updates: {reason}"
            warnings.warn(self.raised, CollapseWarning, stacklevel=2)
        return reason


def prediction_errors(model: WorldModel, params: Any, windows: Window) -> dict[str, Float[Array, "..."]]:
    """Measure prediction errors, step by step, beside the distances that have to be told apart.

    Args:
        windows: `[B, L+1, ...]`, every step of which was really taken.

    Returns:
        Root mean squares over windows: `error` `[L]`, of `ẑ[k] - z[k]`, predictions chained from the first observation;
        `moved` `[L]`, of `z[k] - z[0]`, the error of predicting that nothing moves; and `apart`, a scalar, of the difference
        of latents of different windows. A plan of k steps can tell places apart that are further from each other than
        `error[k]`.
    """

    def one(observations: Array, actions: Array) -> tuple[Array, Array]:
        states = jax.vmap(lambda o: model.encode(params, o))(observations)
        first = jax.tree.map(lambda s: s[0], states)

        def advance(state: Any, action: Array):
            state = model.predict(params, state, action)
            return state, state.latent

        return jax.lax.scan(advance, first, actions)[1], states.latent

    guessed, latents = jax.vmap(one)(windows.observations, windows.actions)

    def size(gap: Array) -> Array:
        return jnp.sqrt(jnp.mean(jnp.sum(gap**2, axis=-1), axis=0))

    return {
        "error": size(guessed - latents[:, 1:]),
        "moved": size(latents[:, 1:] - latents[:, :1]),
        "apart": jnp.mean(size(latents - jnp.roll(latents, 1, axis=0))),
    }


def distance_correlation(
    embeddings: Float[Array, "batch dim"], pairs: Int[Array, "pairs two"], distances: Float[Array, " pairs"]
) -> Float[Array, ""]:
    """Spearman's rank correlation between latent and true distances of pairs of rows, from -1 to 1.

    A planner that descends latent distances needs it near 1, for the distances that matter to it: lengths of paths, not of
    lines through walls.
    """
    gaps = jnp.linalg.norm(embeddings[pairs[:, 0]] - embeddings[pairs[:, 1]], axis=-1)
    return rank_correlation(gaps, distances)


def rank_correlation(first: Float[Array, " n"], second: Float[Array, " n"]) -> Float[Array, ""]:
    """Spearman's rank correlation of two lists of numbers, from -1 to 1; ties share their mean rank."""
    a, b = (rankdata(x) - (len(x) + 1) / 2 for x in (first, second))
    return jnp.sum(a * b) / jnp.maximum(jnp.sqrt(jnp.sum(a**2) * jnp.sum(b**2)), 1e-9)
