"""The control loop against bad input, deadlines, and planning afresh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc import controller as loops


def integrator(horizon: int = 10) -> mpc.Problem:
    """A point that moves by a tenth of the action and wants to be at 0."""
    return mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: s @ s + 0.001 * a @ a,
        horizon=horizon,
        action_space=mpc.Box([-1.0], [1.0]),
    )


PLANNER = mpc.gradient(integrator(), starts=4)


def test_closed_loop_reaches_the_goal_and_stays():
    controller, state = mpc.Controller(PLANNER, None, iterations=20), jnp.ones(1)
    for _ in range(15):
        state = state + 0.1 * controller.act(state)
    assert abs(float(state[0])) < 0.02


def test_warm_start_beats_a_cold_one():
    problem = integrator(30)
    planner = mpc.gradient(problem, starts=1)
    start, key = jnp.ones(1), jax.random.key(0)
    loop = loops.begin(planner, None, start, key)
    loop, _, action = loops.decide(planner, None, start, loop, 60)
    after = start + 0.1 * action
    _, warm, _ = loops.decide(planner, None, after, loop, 3)
    cold = mpc.solve(planner, None, after, key, iterations=3)
    assert float(warm.cost) < float(cold.cost)


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [1.0, 2.0], "text", None, {"a": 1.0}])
def test_bad_states_get_the_last_good_plan(bad):
    controller = mpc.Controller(PLANNER, None, state=jnp.ones(1), iterations=10)
    controller.act(jnp.ones(1))
    assert controller.plan is not None
    expected = np.asarray(controller.plan.actions)
    for k in (1, 2):
        np.testing.assert_array_equal(controller.act(bad), expected[k])
        assert controller.status == mpc.Status.NOT_FINITE
    action = controller.act(jnp.ones(1))
    assert controller.status == mpc.Status.ITERATIONS and action[0] < -0.9


def test_a_long_blackout_ends_in_the_neutral_action():
    controller = mpc.Controller(PLANNER, None, state=jnp.ones(1), iterations=5)
    controller.act(jnp.ones(1))
    last = [controller.act([np.nan]) for _ in range(12)][-1]
    np.testing.assert_array_equal(last, [0.0])


def test_deadline_is_kept_and_buys_iterations():
    spent = {}
    for deadline in (0.002, 0.05):
        controller = mpc.Controller(PLANNER, None, state=jnp.ones(1), iterations=1000, deadline=deadline)
        runs = []
        for _ in range(10):
            controller.act(jnp.ones(1))
            runs.append(controller.iterations_spent)
            assert controller.late == (controller.seconds > deadline)
        spent[deadline] = np.median(runs)
    assert spent[0.05] > 2 * spent[0.002]


def test_decisions_in_chunks_equal_decisions_at_once():
    whole = mpc.Controller(PLANNER, None, state=jnp.ones(1), iterations=6)
    chunked = mpc.Controller(PLANNER, None, state=jnp.ones(1), iterations=6, deadline=60.0, chunk=2)
    for x in (1.0, 0.9, 0.7):
        np.testing.assert_allclose(whole.act(jnp.array([x])), chunked.act(jnp.array([x])), rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(x=st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_actions_are_finite_and_in_bounds_whatever_is_observed(x):
    action = CONTROLLER.act(np.array([x]))
    assert np.isfinite(action).all() and (np.abs(action) <= 1).all()


CONTROLLER = mpc.Controller(PLANNER, None, iterations=3)


def test_many_loops_at_once_equal_single_ones():
    states, keys = jnp.array([[1.0], [-0.5]]), jax.random.split(jax.random.key(1), 2)
    begun = jax.vmap(lambda s, k: loops.begin(PLANNER, None, s, k))(states, keys)
    _, _, together = jax.vmap(lambda s, m: loops.decide(PLANNER, None, s, m, 5))(states, begun)
    for i in range(2):
        loop = loops.begin(PLANNER, None, states[i], keys[i])
        np.testing.assert_allclose(loops.decide(PLANNER, None, states[i], loop, 5)[2], together[i], rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"deadline": 0.0}, {"chunk": 0}, {"deadline": float("nan")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mpc.Controller(PLANNER, None, **wrong)
