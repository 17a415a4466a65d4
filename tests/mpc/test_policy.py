"""Policies as pure functions: jit = eager, vmap = loop, and what they make of delays, last actions and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.policy import in_phases, predict_through_delay

PARAMS = {"gain": jnp.float32(0.1)}


def integrator(space=None, **others) -> mpc.Problem:
    """A point that moves by the gain times the action and wants to be at 0."""
    return mpc.Problem(
        lambda p, s, a: s + p["gain"] * a,
        lambda p, s, a, t: s @ s + 0.001 * a @ a,
        horizon=6,
        action_space=space or mpc.Box([-1.0], [1.0]),
        **others,
    )


POLICY = mpc.policy(mpc.gradient(integrator(), starts=2), iterations=5)
STEP = jax.jit(POLICY.step)


def begun(x: float = 1.0, policy: mpc.Policy = POLICY):
    return policy.init(PARAMS, jnp.array([x]), jax.random.key(0))


def sent(*actions: float, count: int = 0) -> mpc.InFlight:
    return mpc.InFlight(jnp.array(actions)[:, None], jnp.int32(count))


def test_jit_is_eager_and_the_plan_begins_with_the_action():
    state, x = begun(), jnp.array([0.7])
    (_, eager), (_, compiled) = POLICY.step(PARAMS, x, state), STEP(PARAMS, x, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eager, compiled)
    np.testing.assert_array_equal(compiled.action, compiled.plan.actions[0])
    assert compiled.plan.actions.shape == (POLICY.horizon, *POLICY.action_space.shape)
    assert compiled.status == compiled.plan.status == mpc.Status.ITERATIONS


def test_vmap_is_a_loop():
    observations, keys = jnp.array([[1.0], [-0.5]]), jax.random.split(jax.random.key(1), 2)
    states = jax.vmap(POLICY.init, in_axes=(None, 0, 0))(PARAMS, observations, keys)
    _, together = jax.vmap(POLICY.step, in_axes=(None, 0, 0))(PARAMS, observations, states)
    for i in range(2):
        _, alone = STEP(PARAMS, observations[i], POLICY.init(PARAMS, observations[i], keys[i]))
        np.testing.assert_allclose(alone.action, together.action[i], rtol=1e-4)


def test_a_step_is_its_phases():
    state, x = begun(), jnp.array([0.7])
    phases = POLICY.phases
    assert phases is not None
    working = phases.prepare(PARAMS, x, state, None)
    for count in (2, 3):
        working = phases.improve(PARAMS, working, count)
    after, decision = phases.finish(PARAMS, working)
    expected_after, expected = jax.jit(in_phases(phases, 5))(PARAMS, x, state)
    np.testing.assert_allclose(decision.plan.actions, expected.plan.actions, atol=1e-6)
    np.testing.assert_allclose(after.controller.fallback, expected_after.controller.fallback, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(allow_nan=True, allow_infinity=True, width=32),
    actions=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=3, max_size=3),
    count=st.integers(0, 2),
)
def test_actions_are_finite_and_in_bounds_whatever_comes(x, actions, count):
    _, decision = STEP(PARAMS, jnp.array([x], jnp.float32), begun(), sent(*actions, count=count))
    assert np.isfinite(decision.plan.actions).all() and (np.abs(decision.plan.actions) <= 1).all()
    assert -1 <= decision.action[0] <= 1


def test_delays_are_compensated_by_the_model():
    """With two actions in flight, the plan is that for the state they lead to."""
    x = jnp.array([0.5])
    for count, ahead in ((0, 0.5), (1, 0.5 + 0.1 * 0.7), (2, 0.5 + 0.1 * (0.7 - 1.0))):
        late = STEP(PARAMS, x, begun(), sent(0.9, -1.0, 0.7, count=count))[1]
        np.testing.assert_allclose(late.plan.states[0], [ahead], atol=1e-6)
        np.testing.assert_allclose(late.action, STEP(PARAMS, jnp.array([ahead]), begun())[1].action, atol=1e-4)


def test_actions_that_were_never_sent_change_nothing():
    predicted = predict_through_delay(
        lambda p, s, a: s + p["gain"] * a, PARAMS, jnp.array([0.5]), sent(np.nan, np.nan, 1.0, count=2)
    )
    np.testing.assert_allclose(predicted, [0.6])
    np.testing.assert_allclose(
        STEP(PARAMS, jnp.ones(1), begun(), sent(np.nan, np.nan, np.nan, count=2))[1].plan.states[0], 1
    )


@pytest.mark.parametrize("executed", [None, 0.3])
def test_limited_rates_hold_from_the_action_executed_last(executed):
    space = mpc.spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.1)
    policy = mpc.policy(mpc.gradient(integrator(space), starts=1), iterations=5)
    state, step = begun(policy=policy), jax.jit(policy.step)
    assert np.isnan(state.last_action).all()
    last = None
    for _ in range(4):
        in_flight = None if executed is None or last is None else sent(executed)
        state, decision = step(PARAMS, jnp.ones(1), state, in_flight)
        if last is not None:
            assert abs(float(decision.action[0]) - (last if executed is None else executed)) <= 0.1 + 1e-6
        last = float(decision.action[0])
    assert state.last_action[0] == last


def test_skipped_steps_shift_the_plan():
    state, decision = STEP(PARAMS, jnp.ones(1), begun())
    blind = STEP(PARAMS, jnp.array([jnp.nan]), POLICY.skip(state, 2))[1]
    assert blind.status == mpc.Status.NOT_FINITE
    np.testing.assert_array_equal(blind.action, decision.plan.actions[3])


def test_observations_are_encoded_and_predicted_by_functions_that_are_given():
    def advance(params, state, action):
        return state - 100.0  # whatever it is, it is what is planned from

    policy = mpc.policy(
        mpc.gradient(integrator(), starts=1), iterations=1, observe=lambda p, image: image.mean()[None], advance=advance
    )
    image = jnp.full((2, 2), 0.25)
    state = policy.init(PARAMS, image, jax.random.key(0))
    np.testing.assert_allclose(policy.step(PARAMS, image, state)[1].plan.states[0], [0.25])
    late = policy.step(PARAMS, image, state, sent(0.0, 0.0, count=1))[1]
    np.testing.assert_allclose(late.plan.states[0], [-99.75])


def test_what_cannot_be_predicted_is_said_when_it_is_built():
    problem = integrator(lift=lambda p, s: s)
    policy = mpc.policy(mpc.gradient(problem, starts=1), iterations=1)
    state = policy.init(PARAMS, jnp.ones(1), jax.random.key(0))
    assert policy.step(PARAMS, jnp.ones(1), state, sent(0.5))[1].action.shape == (1,)  # nothing can be in flight
    with pytest.raises(ValueError, match=r"give mpc\.policy\(\.\.\., advance=function\)"):
        jax.eval_shape(policy.step, PARAMS, jnp.ones(1), state, sent(0.5, 0.5, count=1))
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        mpc.policy(mpc.gradient(problem, starts=1), iterations=0)
    with pytest.raises(ValueError, match="must be floating point"):
        POLICY.init(PARAMS, jnp.ones(1, int), jax.random.key(0))


def test_choices_are_remembered_as_choices():
    problem = mpc.Problem(
        lambda p, s, a: s + a[:1], lambda p, s, a, t: s @ s, horizon=2, action_space=mpc.Discrete(3, start=4)
    )
    policy = mpc.policy(mpc.gradient(problem, starts=1), iterations=1)
    state = policy.init(None, jnp.ones(1), jax.random.key(0))
    assert state.last_action == 4
    after, decision = policy.step(None, jnp.ones(1), state, mpc.InFlight(jnp.array([4, 5]), jnp.int32(1)))
    assert after.last_action == decision.action and 4 <= decision.action <= 6
