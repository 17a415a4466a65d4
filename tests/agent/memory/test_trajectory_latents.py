"""Latents of whole trajectories: which rows are embedded, and which of them actions are known for."""

import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent.memory import trajectory_latents
from tests.world_models import dots
from world_models.data import DatasetError


@pytest.fixture(scope="module")
def walks():
    return dots.dataset(12)


def test_few_sequences_are_spread_over_all_trajectories(walks):
    few = trajectory_latents.embed(walks, 2, 5, lambda rows: jnp.zeros((len(rows), 1)))
    assert len(few.first) == len(few.lengths) == 5 and len(few.row) == len(few.latents) == (few.lengths + 1).sum()
    assert few.row[0] == 0 and few.row[-1] == len(walks.observations) - 2  # the last of the twelve from its second row on
    for first, steps in zip(few.first, few.lengths, strict=True):
        assert (np.diff(few.row[first : first + steps + 1]) == 2).all()


def test_whole_trajectories_are_embedded_in_the_order_that_they_were_recorded_in(walks):
    """Twelve of 24 steps, of which 5 sequences make 3, the first and the last among them."""
    some = trajectory_latents.embed(walks, 2, 5, lambda rows: jnp.asarray(rows), whole=True)
    assert sorted(set(some.of)) == [0, 5, 11] and len(some.first) == 6
    dense = some.dense()
    every = np.concatenate([25 * i + np.arange(25) for i in (0, 5, 11)])
    assert dense.row.tolist() == every.tolist() and dense.first.tolist() == [0, 25, 50]
    assert dense.lengths.tolist() == [24] * 3
    np.testing.assert_array_equal(dense.latents, walks.observations[every])
    with pytest.raises(DatasetError, match="at least 49 steps"):
        trajectory_latents.embed(walks, 25, 5, jnp.asarray, whole=True)


def test_sequences_with_missing_actions_are_left_out():
    taken = np.array([[0.0], [np.nan], [1.0], [2.0], [np.nan]])
    assert trajectory_latents.with_actions(np.arange(4), taken, 1).tolist() == [0, 2, 3]
    assert trajectory_latents.with_actions(np.arange(3), taken, 2).tolist() == [2]
