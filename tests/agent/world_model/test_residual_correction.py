"""Memory of what went wrong: corrections of known size, and a wall that the model knows nothing of."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent.world_model import residual_correction
from tests.agent.test_goals import QUICK, knowing

BEGAN, DONE, EXPECTED, SEEN = (jnp.array(x) for x in ([1.0, 2.0], [0.5], [2.0, 2.0], [1.0, 2.5]))


def remembered(times: int = 1) -> residual_correction.Corrections:
    memory = residual_correction.nothing(3, 2, 1)
    for _ in range(times):
        memory = residual_correction.remember(memory, BEGAN, DONE, EXPECTED, SEEN)
    return memory


def test_what_was_tried_is_known_and_what_is_far_is_left_to_the_model():
    for times in (1, 3, 5):  # more often than there is room: the average of what agrees is the same
        np.testing.assert_allclose(residual_correction.correct(remembered(times), BEGAN, DONE, EXPECTED), SEEN, rtol=1e-6)
    elsewhere, opposite = BEGAN + 20.0, -9.0 * DONE
    np.testing.assert_allclose(residual_correction.correct(remembered(), elsewhere, DONE, EXPECTED), EXPECTED, rtol=1e-6)
    np.testing.assert_allclose(residual_correction.correct(remembered(), BEGAN, opposite, EXPECTED), EXPECTED, rtol=1e-6)


def test_a_correction_fades_over_the_step_that_was_expected():
    aside = BEGAN + jnp.array([0.0, 1.0])  # as far as the step was expected to go
    share = (residual_correction.correct(remembered(), aside, DONE, EXPECTED) - EXPECTED) / (SEEN - EXPECTED)
    np.testing.assert_allclose(share, np.exp(-0.5), rtol=1e-5)


def test_nothing_is_corrected_before_anything_happened_or_where_nothing_is_kept():
    for memory in (
        residual_correction.nothing(3, 2, 1),
        residual_correction.remember(residual_correction.nothing(0, 2, 1), BEGAN, DONE, EXPECTED, SEEN),
    ):
        assert (residual_correction.correct(memory, jnp.zeros(2), jnp.zeros(1), EXPECTED) == EXPECTED).all()


@pytest.mark.parametrize(("correction_memory", "through"), [(16, True), (0, False)])
def test_a_wall_that_the_model_knows_nothing_of_is_tried_until_the_door_is_found(correction_memory, through):
    agent = knowing(replace(QUICK, correction_memory=correction_memory))
    place, goal, state = np.array([3.0, 5.0], np.float32), np.array([12.0, 5.0], np.float32), None
    for _ in range(60):
        action, state = agent.predict(place, goal, state)
        moved = np.clip(place + action, 1.0, 14.0).astype(np.float32)
        if (place[0] < 7.5) != (moved[0] < 7.5) and moved[1] < 6.0:  # beside the door, a dot slides along the wall
            moved[0] = place[0]
        place = moved
    assert (np.linalg.norm(place - goal) < 0.5) == through
