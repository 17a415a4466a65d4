"""Means that outliers cannot buy, with intervals that say how sure they are."""

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
