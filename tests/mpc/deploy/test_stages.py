"""A control loop with an observer in front and a guard behind: what is planned from, and what is sent."""

import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from benchmarks.faults import PERIOD, cart
from mpc.deploy.observer import Observer
from mpc.deploy.realtime import RealTime
from mpc.deploy.specs import Signal
from mpc.deploy.workers import Inline, Job


@pytest.fixture(scope="module")
def artefact():
    return cart()


class Clock:
    """A clock that shows what it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def loop_of(artefact, **settings):
    clock = Clock()
    return RealTime(artefact, **({"safe": [0.0], "clock": clock, "worker": Inline} | settings)), clock


@pytest.mark.parametrize("lag", [0, 1])
def test_a_tracker_finds_speeds_from_positions_that_come_late_or_not_at_all(artefact, lag):
    jobs: list[Job] = []

    class Watched(Inline):
        def submit(self, job: Job) -> bool:
            jobs.append(job)
            return super().submit(job)

    def roll(params, s, a):
        return s + PERIOD * jnp.stack([s[1], a[0]])

    problem = mpc.Problem(roll, lambda p, s, a, t: s @ s, horizon=3, action_space=mpc.Box([-1.0], [1.0]))
    kalman = mpc.estimation.extended_kalman(problem, lambda p, s: s[:1], process=1e-5, sensors=1e-4)
    observer = Observer(kalman, None, np.zeros(2), 1.0, sensors=Signal((1,), low=-9.0, high=9.0), period=PERIOD)
    loop, clock = loop_of(artefact, worker=Watched, observer=observer, latency=lag * PERIOD)
    states, waiting, drawn = [np.array([0.5, -0.3])] * 2, [np.zeros(1)] * lag, np.random.default_rng(0)
    for tick in range(80):
        clock.now += PERIOD
        seen = [None, [np.nan], ["?"]][drawn.integers(3)] if drawn.uniform() < 0.2 else states[-2][:1]
        waiting.append(loop.tick(seen, clock.now - PERIOD))
        if tick > 40:  # the observation is of the state before
            np.testing.assert_allclose(jobs[-1].observation, states[-2], atol=2e-3)
        states.append(np.asarray(roll(None, states[-1], waiting.pop(0))))
    assert len(jobs) > 75 and np.ptp(np.array(states)[40:, 1]) > 0.05
    loop.tick(None, clock.now)
    jobs.clear()
    clock.now += 4 * PERIOD  # stale by now
    loop.tick(None)
    assert not jobs


def test_a_guard_has_the_last_word_while_it_knows_the_state(artefact):
    asked = []

    def guard(observation, in_flight, action):
        asked.append((observation.copy(), int(in_flight.count), action.copy()))
        return np.array([-0.25], np.float32), True, len(asked) < 3

    with pytest.raises(ValueError, match="limit them in its problem"):
        loop_of(artefact, guard=guard, rate=0.5)
    loop, clock = loop_of(artefact, guard=guard, safe=[0.7])
    asked.clear()
    sent = []
    for stamp in (0.0, -PERIOD / 2, None, None, None, None):
        clock.now += PERIOD
        sent.append(loop.tick(None if stamp is None else [0.5, 0.0], None if stamp is None else clock.now + stamp)[0])
    np.testing.assert_allclose(sent[:3], -0.25)
    assert -0.25 not in sent[3:]  # the artefact predicts two steps, and the observation is older
    assert [count for _, count, _ in asked] == [0, 1, 2] and asked[0][2] == np.float32(0.7)
    faults = loop.health.faults
    assert (faults["changed by the guard"], faults["no safe action known"], faults["not guarded"]) == (3, 1, 3)
