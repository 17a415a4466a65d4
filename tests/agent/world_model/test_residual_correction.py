"""Correction of recent prediction errors: errors of known size, and a wall that the model knows nothing of."""

import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent.world_model.residual_correction import Corrections, correct, nothing, remember
from tests.agent.toys import exact_agent, moved

BEGAN, ACTION, EXPECTED, OBSERVED = (jnp.array(x) for x in ([1.0, 2.0], [0.5], [2.0, 2.0], [1.0, 2.5]))


def remembered(times: int = 1) -> Corrections:
    """Return the corrections after the same error was made so many times."""
    corrections = nothing(3, 2, 1)
    for _ in range(times):
        corrections = remember(corrections, BEGAN, ACTION, EXPECTED, OBSERVED)
    return corrections


def test_a_prediction_is_corrected_where_it_was_wrong_and_left_alone_far_away():
    for times in (1, 3, 5):  # more often than there is room for: the average of equal errors is the same
        np.testing.assert_allclose(correct(remembered(times), BEGAN, ACTION, EXPECTED), OBSERVED, rtol=1e-6)
    elsewhere, opposite = BEGAN + 20.0, -9.0 * ACTION
    np.testing.assert_allclose(correct(remembered(), elsewhere, ACTION, EXPECTED), EXPECTED, rtol=1e-6)
    np.testing.assert_allclose(correct(remembered(), BEGAN, opposite, EXPECTED), EXPECTED, rtol=1e-6)


def test_a_correction_fades_over_the_step_that_was_expected():
    aside = BEGAN + jnp.array([0.0, 1.0])  # as far as the step was expected to go
    share = (correct(remembered(), aside, ACTION, EXPECTED) - EXPECTED) / (OBSERVED - EXPECTED)
    np.testing.assert_allclose(share, np.exp(-0.5), rtol=1e-5)


def test_nothing_is_corrected_before_anything_happened_or_where_nothing_is_kept():
    for corrections in (nothing(3, 2, 1), remember(nothing(0, 2, 1), BEGAN, ACTION, EXPECTED, OBSERVED)):
        assert (correct(corrections, jnp.zeros(2), jnp.zeros(1), EXPECTED) == EXPECTED).all()


@pytest.mark.parametrize(("correction_memory", "through"), [(16, True), (0, False)])
def test_a_wall_that_the_model_does_not_know_is_passed_only_with_corrections(correction_memory, through):
    goal = np.array([12.0, 5.0], np.float32)
    agent = exact_agent(goal=goal, config={"correction_memory": correction_memory})
    place, state = np.array([3.0, 5.0], np.float32), None
    for _ in range(60):
        action, state = agent.predict(place, state)
        later = moved(place, action)
        if (place[0] < 7.5) != (later[0] < 7.5) and later[1] < 6.0:  # beside the door, a dot slides along the wall
            later[0] = place[0]
        place = later
    assert (np.linalg.norm(place - goal) < 0.5) == through
