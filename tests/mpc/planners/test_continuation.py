"""Continuation in the horizon: what a stretch counts, when it ends, and that it finds what plain starts do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from benchmarks.formulas import optimum
from benchmarks.problems import REFERENCES
from mpc.planners.continuation import TruncatedParams, continuation, stretched
from mpc.planners.ilqr import newton

STATE = jnp.array([1.0])


def leaky(horizon: int = 8) -> mpc.Problem:
    """Keep a leaky quantity at zero; `1 <= s` is asked for at every step, and `s = a` at the end."""
    return mpc.Problem(
        lambda p, s, a: p * s + a,
        lambda p, s, a, t: (1.0 + t) * jnp.sum(s**2) + jnp.sum(a**2),
        lambda p, s: 100.0 * jnp.sum(s**2),
        horizon=horizon,
        action_space=mpc.Box([-3.0], [3.0]),
        constraints=(
            mpc.constraints.inequality(lambda p, s, a, t: 1.0 - s, name="most"),
            mpc.constraints.equality(lambda p, s, a, t: s - a, name="same"),
        ),
    )


def single(problem: mpc.Problem) -> mpc.Planner:
    return newton(problem, second_order=0.003, damping=1e-6, parallel=False)


@pytest.mark.parametrize("end", [1, 5, 8])
def test_a_stretch_counts_its_own_steps_alone(end):
    problem, actions = leaky(), jnp.linspace(-1.0, 1.0, 8)[:, None]
    given = TruncatedParams(0.5, jnp.asarray(end))
    s, wanted, values = 1.0, 0.0, []
    for t, a in enumerate(np.asarray(actions, np.float64)[:, 0]):
        wanted += ((1 + t) * s**2 + a**2) * (t < end)
        s = 0.5 * s + a
        values.append((1.0 - s, s - a) if t + 1 <= end else (-1.0, 0.0))
    wanted += 100.0 * s**2 * (end == 8)
    assert float(mpc.energy(stretched(problem), given, STATE, actions)) == pytest.approx(wanted, rel=1e-5)
    states = mpc.rollout(stretched(problem), given, STATE, actions).states
    found = mpc.constraints.table(stretched(problem).constraints, given, states, actions)
    np.testing.assert_allclose(found, values, atol=1e-5)


def unlimited(horizon: int = 8) -> mpc.Problem:
    constrained = leaky(horizon)
    return mpc.Problem(
        constrained.dynamics,
        constrained.cost,
        constrained.terminal_cost,
        horizon=horizon,
        action_space=constrained.action_space,
    )


@pytest.mark.parametrize("constrained", [False, True])
def test_it_ends_where_the_whole_problem_has_its_only_optimum(constrained):
    problem = leaky(4) if constrained else unlimited()
    params = 0.0 if constrained else 0.5  # without memory, s = a is met by itself
    plans = [
        mpc.solve(planner, params, STATE, jax.random.key(0), iterations=80, tolerance=1e-5)
        for planner in (mpc.ilqr(problem), mpc.ilqr(problem, starts=2, continuation=20))
    ]
    assert float(plans[1].cost) == pytest.approx(float(plans[0].cost), rel=1e-4)
    np.testing.assert_allclose(plans[1].actions, plans[0].actions, atol=1e-3)
    assert all(plan.status in (mpc.Status.ITERATIONS, mpc.Status.CONVERGED) for plan in plans)
    if constrained:  # the states asked for are 1, and so then are the actions
        np.testing.assert_allclose(plans[1].actions, 1.0, atol=1e-4)


def test_what_a_start_is_worth_is_not_known_before_it_has_left_its_stretch():
    planner = continuation(unlimited(), single, steps=3)
    step = jax.jit(planner.step)
    planner_state = planner.init(0.5, STATE, jax.random.key(0)).reset_to(jnp.ones((8, 1)))
    assert 6 <= int(planner_state.stretch) < 8 and planner_state.pending
    seen = []
    while planner_state.pending:
        planner_state = step(0.5, STATE, planner_state)
        seen.append(float(planner_state.cost))
    assert np.isinf(seen).all() and 1 <= len(seen) <= 3
    assert np.isfinite(step(0.5, STATE, planner_state).cost)
    later = planner.shift(planner_state).reset_to(jnp.zeros((8, 1)))
    assert not later.pending  # in a control loop there is no time for stretches


def test_a_guess_is_improved_as_a_whole_and_no_solve_ends_while_others_are_on_their_stretch():
    reference = REFERENCES["pendulum"]
    guess, start = jnp.asarray(optimum("pendulum").actions), jnp.asarray(reference.start)
    planner = mpc.ilqr(reference.problem, starts=3, continuation=20, precision="float32")
    planner_state = planner.init(None, start, jax.random.key(0), guess)
    assert planner_state.starts.pending.tolist() == [False, True, True]
    planner_state = jax.jit(planner.step)(None, start, planner_state)
    assert float(planner_state.cost) == pytest.approx(optimum("pendulum").cost, rel=1e-5)
    assert planner_state.starts.pending.any() and np.isinf(planner_state.optimality)
    plan = mpc.solve(planner, None, start, jax.random.key(0), iterations=40, guess=guess, tolerance=1e-3)
    assert plan.status == mpc.Status.CONVERGED and plan.info["iterations"] > 1


def test_the_cart_poles_better_basin_is_found_by_every_seed():
    """40.850, where plain starts end at 65.344 and at 64.96: of ten plain solves, few get there."""
    reference = REFERENCES["cartpole"]
    keys = jax.random.split(jax.random.key(0), 10)

    def costs(planner: mpc.Planner) -> np.ndarray:
        start = jnp.asarray(reference.start)
        plans = jax.lax.map(lambda key: mpc.solve(planner, None, start, key, iterations=60, tolerance=1e-3).actions, keys)
        return np.array([reference.measure(actions)[0] for actions in plans])

    best = optimum("cartpole").cost
    assert (costs(mpc.ilqr(reference.problem, starts=8, continuation=20)) <= best * (1 + 1e-3)).all()
    assert (costs(mpc.ilqr(reference.problem, starts=8)) <= best * (1 + 1e-3)).mean() < 0.8


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        mpc.ilqr(unlimited(), continuation=-1)
    with pytest.raises(ValueError, match="horizon"):
        mpc.ilqr(unlimited(1), continuation=3)
