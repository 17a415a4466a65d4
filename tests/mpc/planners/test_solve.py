"""`solve` and `implicit`: why they stop, what compiles, and derivatives against finite differences."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc


def pushed(horizon: int = 10, bound: float = 0.8, constraints=()) -> mpc.Problem:
    """A point mass with a gain and an effort weight to differentiate with respect to."""
    return mpc.Problem(
        lambda p, s, a: s + 0.2 * jnp.concatenate([s[1:], p["model"] * a]),
        lambda p, s, a, t: p["cost"] * a @ a + (s[0] - 1.0) ** 2,
        lambda p, s: s @ s,
        horizon=horizon,
        action_space=mpc.Box([-bound], [bound]),
        constraints=constraints,
    )


PARAMS = {"model": 1.0, "cost": 0.1}
START = np.array([0.3, 0.1])
KEY = jax.random.key(0)


def finite_differences(function, params, state, step=1e-4):
    by_params = {
        k: (function(params | {k: v + step}, state) - function(params | {k: v - step}, state)) / (2 * step)
        for k, v in params.items()
    }
    perturbations = step * np.eye(len(state))
    return by_params, np.array(
        [(function(params, state + n) - function(params, state - n)) / (2 * step) for n in perturbations]
    )


def test_tolerance_stops_early_and_says_so_without_another_compilation():
    planner = mpc.gradient(pushed(), optimizer=optax.sgd(0.2), starts=1)
    state = jnp.asarray(START, jnp.float32)
    spent = []
    compiled: Any = jax.jit(lambda tolerance: mpc.solve(planner, PARAMS, state, KEY, 500, tolerance=tolerance))
    for tolerance in (1e-2, 1e-4):
        plan = compiled(tolerance)
        assert plan.status == mpc.Status.CONVERGED and plan.info["optimality"] <= tolerance
        spent.append(int(plan.info["iterations"]))
    assert 0 < spent[0] < spent[1] < 500 and compiled._cache_size() == 1
    assert compiled(0.0).status == mpc.Status.ITERATIONS


def test_a_deadline_buys_iterations_and_is_kept():
    planner = mpc.gradient(pushed(60), starts=8)
    state = jnp.asarray(START, jnp.float32)

    def race(deadline: float, **settings) -> tuple[mpc.Plan, float]:
        begun = time.perf_counter()
        plan = mpc.solve(planner, PARAMS, state, KEY, settings.pop("iterations", 10**6), deadline=deadline, **settings)
        return plan, time.perf_counter() - begun

    race(0.01)  # compiles, outside of its own clock too
    rounds = [(race(0.02), race(0.2)) for _ in range(3)]
    for (short, _), (long, _) in rounds:
        assert short.status == long.status == mpc.Status.DEADLINE
    assert np.median([long.info["iterations"] / short.info["iterations"] for (short, _), (long, _) in rounds]) > 3
    assert min(took for _, (_, took) in rounds) < 0.6  # other people's load included
    plan, _ = race(30.0, iterations=7)
    whole = mpc.solve(planner, PARAMS, state, KEY, 7)
    assert plan.status == mpc.Status.ITERATIONS and plan.info["iterations"] == 7
    np.testing.assert_allclose(plan.actions, whole.actions, atol=1e-5)
    plan, _ = race(30.0, tolerance=0.5)
    assert plan.status == mpc.Status.CONVERGED and plan.info["optimality"] <= 0.5


def test_what_cannot_be_asked():
    planner = mpc.gradient(pushed(), starts=1)
    state = jnp.asarray(START, jnp.float32)
    with pytest.raises(ValueError, match="clock"):
        jax.jit(lambda s: mpc.solve(planner, PARAMS, s, KEY, 3, deadline=1.0))(state)
    settings: list[dict[str, Any]] = [{"iterations": -1}, {"deadline": 0.0}, {"deadline": float("nan")}]
    for wrong in settings:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            mpc.solve(planner, PARAMS, state, KEY, **wrong)


def test_unrolled_derivatives_agree_with_finite_differences():
    planner = mpc.gradient(pushed(), optimizer=optax.sgd(0.05), starts=2)

    def first_action(params, state):
        return mpc.solve(planner, params, state, KEY, 12).actions[2, 0]

    with jax.enable_x64(True):
        slopes = jax.jit(jax.grad(first_action, argnums=(0, 1)))(PARAMS, START)
        expected = finite_differences(jax.jit(first_action), PARAMS, START, 1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), slopes, expected)


arrive = mpc.constraints.equality(lambda p, s, a, t: jnp.where(t == 10, s[1] - 0.1 * p["cost"], 0.0))
limit = mpc.constraints.inequality(lambda p, s, a, t: s[1] - 0.45)


@pytest.mark.parametrize("constraints", [(), (arrive, limit)])
def test_implicit_derivatives_agree_with_finite_differences_of_the_optimum(constraints):
    """Two actions lie at their bound here, and both constraints are active in the constrained case."""
    problem = pushed(constraints=constraints)
    planner = mpc.ilqr(problem) if constraints else mpc.gradient(problem, optimizer="lbfgs", starts=1)

    def some(plan: mpc.Plan) -> jax.Array:
        return plan.actions[2, 0] + 0.3 * plan.actions.sum() + plan.states[-1, 0]

    with jax.enable_x64(True):
        implicit = jax.jit(lambda p, s: some(mpc.implicit(planner, p, s, KEY, 100)))
        plan = mpc.solve(planner, PARAMS, START, KEY, 100)
        assert (np.abs(plan.actions) > 0.8 - 1e-6).sum() >= 2
        assert float(implicit(PARAMS, START)) == pytest.approx(float(some(plan)), abs=1e-9)
        slopes = jax.jit(jax.grad(implicit, argnums=(0, 1)))(PARAMS, START)
        expected = finite_differences(implicit, PARAMS, START, 3e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), slopes, expected)


def test_implicit_derivatives_do_not_depend_on_how_the_optimum_was_found():
    with jax.enable_x64(True):
        slopes = [
            jax.jit(jax.grad(lambda p, planner=planner: mpc.implicit(planner, p, START, KEY, 100).actions[0].sum()))(PARAMS)
            for planner in (mpc.ilqr(pushed(bound=5.0)), mpc.gradient(pushed(bound=5.0), optimizer="lbfgs", starts=1))
        ]
    for name in PARAMS:
        assert float(slopes[0][name]) == pytest.approx(float(slopes[1][name]), rel=1e-4)
    with pytest.raises(ValueError, match="discrete"):
        discrete = mpc.Problem(lambda p, s, a: s, lambda p, s, a, t: jnp.sum(a), horizon=2, action_space=mpc.Discrete(2))
        mpc.implicit(mpc.cem(discrete), None, jnp.ones(1), KEY, 1)
