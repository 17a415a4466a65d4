"""`solve` and `implicit`: why they stop, what compiles, and derivatives against finite differences."""

import time
from collections.abc import Callable
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


def pulled(space: mpc.spaces.Space) -> mpc.Problem:
    """A point that is pulled to `goal` by the first action; the last one has no effect."""
    return mpc.Problem(
        lambda p, s, a: s + 0.2 * a[:1],
        lambda p, s, a, t: jnp.sum((s - p["goal"]) ** 2) + 0.1 * a[0] ** 2,
        horizon=3,
        action_space=space,
    )


# how `jax.grad` of `solve` does with fixed iterations: None where it is right, and else what the error points to
REVERSE: dict[str, tuple[Callable[[mpc.Problem], mpc.Planner], str | None]] = {
    "gradient": (lambda p: mpc.gradient(p, starts=2), None),
    "gradient, normalised": (lambda p: mpc.gradient(p, starts=1, normalise=True), None),
    "lbfgs": (lambda p: mpc.gradient(p, optimizer="lbfgs", starts=1), "implicit"),
    "ilqr": (lambda p: mpc.ilqr(p), "implicit"),
    "collocation": (lambda p: mpc.collocation(p, starts=1), "implicit"),
    "cem": (lambda p: mpc.cem(p, samples=4, elites=2), None),
    "icem": (lambda p: mpc.icem(p, samples=4, elites=2), None),
    "mppi": (lambda p: mpc.mppi(p, samples=4), None),
    "predictive sampling": (lambda p: mpc.predictive_sampling(p, samples=4), None),
    "chain": (lambda p: mpc.chain(mpc.mppi(p, samples=4), mpc.gradient(p, starts=1), switch_after=1), None),
    "chain with ilqr": (lambda p: mpc.chain(mpc.mppi(p, samples=4), mpc.ilqr(p), switch_after=1), "implicit"),
}


@pytest.mark.parametrize("name", REVERSE)
def test_derivatives_of_a_solve_are_right_or_the_error_points_to_implicit(name):
    build, said = REVERSE[name]
    planner = build(pulled(mpc.Box([-1.0, -1.0], [1.0, 1.0])))

    def cost(goal: Any, tolerance: float | None = None) -> jax.Array:
        return mpc.solve(planner, {"goal": goal}, jnp.array([0.3]), KEY, 2, tolerance=tolerance).cost

    if said is not None:
        with pytest.raises(ValueError, match=said):
            jax.eval_shape(jax.grad(cost), 0.5)
        return
    if name == "gradient":
        with pytest.raises(ValueError, match="implicit"):
            jax.eval_shape(jax.grad(cost), 0.5, 0.0)
    (low, _), (_, slope), (high, _) = map(jax.jit(jax.value_and_grad(cost)), (0.49, 0.5, 0.51))
    assert float(slope) == pytest.approx(float(high - low) / 2e-2, rel=2e-3)


def test_implicit_derivatives_are_finite_where_an_action_has_no_effect():
    planner = mpc.gradient(pulled(mpc.Box([-1.0, -1.0], [1.0, 1.0])), starts=1)
    slope = jax.jit(jax.grad(lambda goal: mpc.implicit(planner, {"goal": goal}, jnp.array([0.3]), KEY, 200).cost))(0.5)
    assert float(slope) == pytest.approx(float(jax.grad(unconstrained)(0.5)), rel=1e-3)


def unconstrained(goal: Any) -> jax.Array:
    """The least cost of `pulled` from 0.3 by its normal equations."""
    reach = 0.2 * jnp.tril(jnp.ones((3, 3)), -1)
    pushes = jnp.linalg.solve(reach.T @ reach + 0.1 * jnp.eye(3), reach.T @ (jnp.ones(3) * (goal - 0.3)))
    return jnp.sum((0.3 + reach @ pushes - goal) ** 2) + 0.1 * pushes @ pushes
