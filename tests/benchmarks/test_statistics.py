"""Tests of statistics: values computed by hand, and coverage of intervals."""

import numpy as np
import pytest

from benchmarks.statistics import (
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)


def test_interquartile_mean_excludes_the_outer_quarters():
    assert interquartile_mean([1, 2, 3, 4, 5, 6, 7, 1000]) == 4.5
    assert interquartile_mean([3.0]) == 3.0
    with pytest.raises(ValueError, match="at least one"):
        interquartile_mean([])


def test_bootstrap_intervals_have_about_nominal_coverage():
    draws = np.random.default_rng(0).normal(5.0, 2.0, (300, 30))
    intervals = [bootstrap_interval(row, draws=500) for row in draws]
    covered = np.mean([low <= 5.0 <= high for low, high in intervals])
    assert 0.89 <= covered <= 0.98
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_improvement_is_the_fraction_of_pairs_won_with_ties_counting_half():
    assert probability_of_improvement([1, 2, 3], [0, 2]) == pytest.approx((1 + 1.5 + 2) / 6)
    assert probability_of_improvement([1.0], [1.0]) == 0.5
    with pytest.raises(ValueError, match="both sides"):
        probability_of_improvement([], [1.0])


def test_profiles_are_the_fraction_of_scores_above_each_level():
    np.testing.assert_array_equal(performance_profile([[0.0, 0.5], [0.5, 1.0]], [-1, 0, 0.5, 1]), [1, 0.75, 0.25, 0])


def test_stratified_intervals_resample_each_group_separately():
    apart = [np.zeros(10), np.ones(10)]  # the groups differ; within each there is no variance
    assert stratified_interval(apart, lambda groups: float(np.concatenate(groups).mean()), draws=100) == (0.5, 0.5)
    draws = np.random.default_rng(1).normal(0.0, 1.0, (100, 2, 20))
    intervals = [stratified_interval(list(d), lambda g: float(np.mean(g)), draws=300) for d in draws]
    assert 0.86 <= np.mean([low <= 0.0 <= high for low, high in intervals]) <= 0.98
