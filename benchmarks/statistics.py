"""Robust statistics of scores: interquartile means, bootstrap intervals, probability of improvement, profiles."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def interquartile_mean(scores: ArrayLike) -> float:
    """Returns the mean of the middle half of all scores, without the lowest and the highest quarter (Agarwal et al. 2021).

    Args:
        scores: At least one score, of any shape.

    Raises:
        ValueError: If there is no score.
    """
    values = np.sort(np.asarray(scores, float).ravel())
    if values.size == 0:
        raise ValueError("a mean needs at least one score")
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def bootstrap_interval(scores: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean (Efron 1979).

    Args:
        scores: Independent scores, `[n]`.
        level: Coverage.
        draws: Number of resamplings.
        seed: Seed of the resampling.

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
    """Returns the bootstrap interval of a statistic of several groups, each resampled separately (Agarwal et al. 2021).

    Args:
        groups: Independent scores `[n]` of each group, for example of the runs on one task.
        statistic: Statistic of the resampled groups.
        level: Coverage.
        draws: Number of resamplings.
        seed: Seed of the resampling.

    Raises:
        ValueError: If a group has no score.
    """
    values = [np.asarray(group, float).ravel() for group in groups]
    if not values or min(v.size for v in values) == 0:
        raise ValueError("an interval needs at least one score in every group")
    random = np.random.default_rng(seed)
    values_of = [statistic([v[random.integers(0, v.size, v.size)] for v in values]) for _ in range(draws)]
    low, high = np.quantile(values_of, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Returns the probability that a run of the first method scores higher; ties count half (Mann & Whitney 1947).

    Args:
        ours: Scores of the first method's runs, `[n]`.
        theirs: Scores of the second method's runs, `[m]`.

    Raises:
        ValueError: If there is no score.
    """
    first, second = np.asarray(ours, float).ravel(), np.asarray(theirs, float).ravel()
    if first.size == 0 or second.size == 0:
        raise ValueError("a comparison needs at least one score on both sides")
    difference = first[:, None] - second
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def performance_profile(scores: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """Returns the fraction of runs above each level, `[levels]` (Dolan & Moré 2002; for scores, Agarwal et al. 2021).

    Args:
        scores: At least one normalised score, of any shape.
        levels: Levels, `[levels]`.

    Raises:
        ValueError: If there is no score.
    """
    values = np.asarray(scores, float).ravel()
    if values.size == 0:
        raise ValueError("a profile needs at least one score")
    return (values > np.asarray(levels, float)[:, None]).mean(axis=1)
