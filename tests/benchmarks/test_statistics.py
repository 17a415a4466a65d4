"""Statistics against values worked out by hand, and against coverage."""

import numpy as np
import pytest

from benchmarks.statistics import bootstrap_interval, interquartile_mean


def test_interquartile_mean_leaves_out_the_outer_quarters():
    assert interquartile_mean([1, 2, 3, 4, 5, 6, 7, 1000]) == 4.5
    assert interquartile_mean([3.0]) == 3.0
    with pytest.raises(ValueError, match="at least one"):
        interquartile_mean([])


def test_bootstrap_intervals_cover_the_true_mean_about_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(5.0, 2.0, (300, 30))
    intervals = [bootstrap_interval(row, draws=500) for row in draws]
    covered = np.mean([low <= 5.0 <= high for low, high in intervals])
    assert 0.89 <= covered <= 0.98
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
