"""The deadline loop against a clock that the work itself moves, and `solve` against its compiler."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.deadline import Pace


class Work:
    """Iterations of known lengths: `improve` and `conclude` move the clock."""

    def __init__(self, seconds: float, conclusion: float = 0.0, converges_at: int = 10**9):
        self.now, self.seconds, self.conclusion, self.converges_at = 0.0, seconds, conclusion, converges_at
        self.counts: list[int] = []
        self.pace = Pace(lambda: self.now)

    def improve(self, working: int, count: int) -> tuple[int, int]:
        made = min(count, self.converges_at - working)
        self.now += made * self.seconds
        self.counts.append(count)
        return working + made, made

    def conclude(self) -> str:
        self.now += self.conclusion
        return "done"

    def run(self, deadline: float, **settings) -> int:
        """Runs one decision, and returns the iterations made."""
        end = self.now + deadline
        settings.setdefault("iterations", 10**6)
        working, spent = self.pace.improve(self.improve, 0, end=end, **settings)
        assert working == spent and self.pace.conclude(self.conclude) == "done"
        return spent


def test_chunks_fill_the_time_and_leave_room_for_the_conclusion():
    work = Work(seconds=1.0, conclusion=2.5)
    work.run(1.0)  # measures
    assert work.run(10.0) == 7 and work.run(10.0, chunk=3) == 6
    assert work.run(0.1) == 1  # one is made in any case
    assert work.run(100.0, iterations=5) == 5
    assert work.run(100.0, iterations=5, chunk=3) == 5 and work.counts[-2:] == [3, 2]


def test_growing_chunks_look_at_the_clock_less_often_and_end_in_time():
    work = Work(seconds=1.0)
    spent = work.run(1000.5, growing=True)
    assert spent == 1000 and work.now <= 1000.5 and len(work.counts) < 15


def test_a_hiccup_is_forgotten_and_a_search_that_converged_ends():
    work = Work(seconds=10.0)
    work.run(1.0)
    work.seconds = 0.1
    before = work.run(15.0)
    for _ in range(10):
        work.run(15.0)
    assert work.run(15.0) > before
    done = Work(seconds=1.0, converges_at=7)
    assert done.run(1000.0, growing=True) == 7


COMPILING = [f"/jax/core/compile/{x}_duration" for x in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")]


@pytest.fixture
def traces():
    """Whatever JAX traced, lowered or compiled since it was last cleared."""
    made: list[str] = []

    def listen(event: str, *_: object, **__: object) -> None:
        # threads that other tests left behind may compile, too
        if event in COMPILING and threading.current_thread() is threading.main_thread():
            made.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield made
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_second_solve_traces_nothing_and_takes_its_deadline(traces):
    """A third of a second a call where phases are traced anew; a second leaves room for a machine that is busy."""
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0])
    )
    planner, key = mpc.gradient(problem, starts=4), jax.random.key(0)
    mpc.solve(planner, None, jnp.ones(1), key, 10**6, deadline=0.05)
    assert traces
    for state in [jnp.array([0.5]), jnp.array([-1.0])]:
        traces.clear()
        begun = time.perf_counter()
        plan = mpc.solve(planner, None, state, key, 10**6, deadline=0.05)
        seconds = time.perf_counter() - begun
        assert plan.status == mpc.Status.DEADLINE and int(plan.info["iterations"]) > 1
        assert traces == [] and 0.02 < seconds < 1.0
    traces.clear()
    mpc.solve(planner, None, jnp.ones(1), key, 10**6, guess=jnp.zeros((10, 1)), deadline=0.05)
    assert traces  # of another make: compiled before the clock runs


@pytest.mark.parametrize("settings", [{}, {"tolerance": 0.0}, {"deadline": 60.0}, {"deadline": 60.0, "tolerance": 0.0}])
def test_a_planner_is_traced_once_for_states_of_one_shape(traces, settings):
    problem = mpc.Problem(lambda p, s, a: s + a, lambda p, s, a, t: s @ s, horizon=2, action_space=mpc.Box([-1.0], [1.0]))
    planner, key = mpc.mppi(problem, samples=2), jax.random.key(0)
    for state in [np.ones(1, np.float32), jnp.zeros(1)]:
        traces.clear()
        mpc.solve(planner, {"unused": 0.5}, state, key, 2, **settings)
        assert bool(traces) == (state[0] == 1)
