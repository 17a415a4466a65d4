"""One planner after another: what the second makes of what the first found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc

KEY = jax.random.key(0)


def bumpy() -> mpc.Problem:
    """Many local minima in one action; the best is -0.6 exactly."""
    return mpc.Problem(
        lambda p, s, a: s + a,
        lambda p, s, a, t: jnp.sum((a + 0.6) ** 2 - 0.2 * jnp.cos(20 * (a + 0.6)) + 0.2),
        horizon=2,
        action_space=mpc.Box([-1.0], [1.0]),
    )


def test_the_second_descends_from_where_the_first_ended():
    problem = bumpy()
    search = mpc.cem(problem, samples=64, elites=8, smoothness=0.0)
    descent = mpc.gradient(problem, optimizer=optax.sgd(0.02), starts=1, spread=0.0)
    start = jnp.zeros(1)
    alone = [mpc.solve(p, None, start, KEY, n) for p, n in ((search, 6), (descent, 60))]
    both = mpc.solve(mpc.chain(search, descent, switch_after=6), None, start, KEY, 60)
    assert float(alone[0].cost) > 1e-4 and float(alone[1].cost) > 0.1, "neither alone finds it"
    np.testing.assert_allclose(both.actions, -0.6, atol=1e-4)
    assert bool(both.info["from_second"])


def test_before_the_switch_it_is_the_first_and_never_worse_after_it():
    problem = bumpy()
    search, poor = mpc.cem(problem, samples=64, elites=8), mpc.gradient(problem, optimizer=optax.sgd(50.0), starts=1)
    chained = mpc.chain(search, poor, switch_after=5)
    first = mpc.solve(search, None, jnp.zeros(1), jax.random.split(KEY)[0], 5)
    np.testing.assert_allclose(mpc.solve(chained, None, jnp.zeros(1), KEY, 5).actions, first.actions, atol=1e-6)
    later = mpc.solve(chained, None, jnp.zeros(1), KEY, 9)
    assert float(later.cost) <= float(first.cost) + 1e-6


def test_a_loop_goes_on_with_the_second():
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a, lambda p, s, a, t: s @ s, horizon=8, action_space=mpc.Box([-1.0], [1.0])
    )
    planner = mpc.chain(mpc.cem(problem, samples=32, elites=4), mpc.gradient(problem, starts=2), switch_after=3)
    state = jnp.ones(1)
    policy = mpc.policy(planner, iterations=5)
    policy_state = policy.init(None, state, KEY)
    for expected in (5, 10):
        policy_state, (action, plan, _) = jax.jit(policy.step)(None, state, policy_state)
        state = state + 0.1 * action
        assert int(policy_state.controller.planner_state.steps) == expected and plan.status == mpc.Status.ITERATIONS
    assert float(state[0]) < 0.85


def test_constraints_and_chains_of_chains():
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: jnp.sum((a - 1.0) ** 2),
        horizon=3,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=(mpc.constraints.inequality(lambda p, s, a, t: a[0] - 0.25, "cap"),),
    )
    pair = mpc.chain(mpc.cem(problem, samples=64, elites=8), mpc.gradient(problem, starts=2), switch_after=20)
    triple = mpc.chain(pair, mpc.ilqr(problem), switch_after=40)
    plan = mpc.solve(triple, None, jnp.zeros(1), KEY, 60)
    assert plan.status == mpc.Status.ITERATIONS and float(plan.info["violation"]["cap"]) <= 1e-5
    np.testing.assert_allclose(plan.actions, 0.25, atol=2e-3)


def test_planners_that_do_not_belong_together():
    with pytest.raises(ValueError, match="one Problem"):
        mpc.chain(mpc.cem(bumpy()), mpc.gradient(bumpy()), switch_after=3)
    problem = bumpy()
    with pytest.raises(ValueError, match="switch_after"):
        mpc.chain(mpc.cem(problem), mpc.gradient(problem), switch_after=0)
