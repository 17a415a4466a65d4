"""Tests of trials: evaluation of known trajectories, and simulated time."""

import numpy as np
import pytest

from benchmarks.trials import SimulatedTime, evaluate
from envs.robots import named
from envs.robots.plant import Body, Trace
from mpc.deploy.telemetry import Health


def trace(good, seconds=10.0):
    """Returns a cart-pole trajectory that is upright where `good(time)` and hangs elsewhere, with two pushes."""
    times = np.arange(0.0, seconds, 0.02)
    angle = np.where([good(time) for time in times], 0.1, np.pi)
    states = np.stack([0 * times, angle, 0 * times, 0 * times], axis=1)
    pushes = np.where((times > 3.0) & (times < 3.1) | (times > 7.0) & (times < 7.1), -0.5, 0.0)
    return Trace(times, states, states[:, :1], pushes)


@pytest.mark.parametrize(
    ("good", "success", "first", "since"),
    [
        (lambda time: time > 1.0, True, 1.02, 1.0),
        (lambda time: time > 1.0 and not 4.5 < time < 4.7, True, 1.02, 4.68),
        (lambda time: time > 1.0 and not 8.0 < time < 8.05, False, 1.02, 8.04),
        (lambda time: False, False, None, 9.98),
        (lambda time: True, True, 0.0, 0.0),
    ],
)
def test_a_trial_succeeds_if_the_task_is_achieved_in_time_and_maintained(good, success, first, since):
    verdict = evaluate("craik/CartPoleRobot-v0", Health(capacity=4), trace(good), until=5.0)
    assert (verdict["success"], verdict["first_good"]) == (success, first) and np.isclose(verdict["good_from"], since)
    assert verdict["pushes"] == 2


def test_simulated_time_advances_only_with_an_action():
    pytest.importorskip("mujoco", reason="robots need the extra [mujoco]")
    simulated = SimulatedTime(Body(named("cartpole"), delay=0.02, push=0.0, seed=0))
    first, stamp = simulated.newest()
    again, _ = simulated.newest()
    np.testing.assert_array_equal(first, again)
    for _ in range(2):
        simulated.send(np.array([10.0]))
    later, now = simulated.newest()
    assert (stamp, now) == (0.0, 0.04) and later[3] > 0.1  # 10 N on 1.1 kg, during the second period only
    assert later[3] < 10.0 * 0.022
    slow = SimulatedTime(Body(named("cartpole"), delay=0.0, push=0.0, seed=0), period=0.04)
    slow.send(np.array([10.0]))
    assert slow.clock() == 0.04 and np.isclose(slow.newest()[0][3], 0.4 / 1.1, rtol=0.2)
