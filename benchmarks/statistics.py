"""Means that outliers cannot buy, with intervals that say how sure they are."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores: the lowest and the highest quarter are left out (Agarwal et al. 2021).

    Args:
        scores: Any number of scores, of any shape, at least one.

    Raises:
        ValueError: If there is no score.
    """
    values = np.sort(np.asarray(scores, float).ravel())
    if values.size == 0:
        raise ValueError("a mean needs at least one score")
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def bootstrap_interval(scores: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979).

    Args:
        scores: Independent scores, `[n]`.
        level: Coverage asked for.
        draws: Resamplings.
        seed: Of the resampling.

    Raises:
        ValueError: If there is no score.
    """
    values = np.asarray(scores, float).ravel()
    if values.size == 0:
        raise ValueError("an interval needs at least one score")
    picks = np.random.default_rng(seed).integers(0, values.size, (draws, values.size))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def stratified_interval(
    groups: Sequence[ArrayLike],
    statistic: Callable[[list[np.ndarray]], float],
    *,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic of several groups, each resampled by itself (Agarwal et al. 2021).

    Args:
        groups: Independent scores of each, `[n]`: of the runs on a task, say.
        statistic: Of resampled groups.
        level: Coverage asked for.
        draws: Resamplings.
        seed: Of the resampling.

    Raises:
        ValueError: If a group has no score.
    """
    values = [np.asarray(group, float).ravel() for group in groups]
    if not values or min(v.size for v in values) == 0:
        raise ValueError("an interval needs at least one score in every group")
    random = np.random.default_rng(seed)
    found = [statistic([v[random.integers(0, v.size, v.size)] for v in values]) for _ in range(draws)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Probability that a run of ours scores more than one of theirs, ties half (Mann & Whitney 1947).

    Args:
        ours: Scores of runs, `[n]`.
        theirs: Scores of runs, `[m]`.

    Raises:
        ValueError: If there is no score.
    """
    first, second = np.asarray(ours, float).ravel(), np.asarray(theirs, float).ravel()
    if first.size == 0 or second.size == 0:
        raise ValueError("a comparison needs at least one score on both sides")
    difference = first[:, None] - second
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def performance_profile(scores: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """Share of runs that score more than each level, `[levels]` (Dolan & Moré 2002; for scores, Agarwal et al. 2021).

    Args:
        scores: Of runs, normalised, of any shape, at least one.
        levels: To be exceeded, `[levels]`.

    Raises:
        ValueError: If there is no score.
    """
    values = np.asarray(scores, float).ravel()
    if values.size == 0:
        raise ValueError("a profile needs at least one score")
    return (values > np.asarray(levels, float)[:, None]).mean(axis=1)
