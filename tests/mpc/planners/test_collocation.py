"""Collocation against the Riccati optimum, the pendulum's best known cost, and its own claims."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc
from tests.mpc.planners.test_gradient import pendulum


def linear(horizon: int = 20, bound: float = 2.0) -> tuple[mpc.Problem, np.ndarray, float]:
    """A double integrator with quadratic cost, a start, and the least cost from there by the Riccati recursion."""
    a, b, start = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]]), np.array([1.0, -0.5])
    value = np.eye(2)
    for _ in range(horizon):
        gain = np.linalg.solve(0.1 * np.eye(1) + b.T @ value @ b, b.T @ value @ a)
        value = np.eye(2) + a.T @ value @ (a - b @ gain)
    problem = mpc.Problem(
        lambda p, s, u: jnp.asarray(a, s.dtype) @ s + jnp.asarray(b, s.dtype) @ u,
        lambda p, s, u, t: s @ s + 0.1 * u @ u,
        lambda p, s: s @ s,
        horizon=horizon,
        action_space=mpc.Box([-bound], [bound]),
    )
    return problem, start, float(start @ value @ start)


@pytest.mark.parametrize(("synchronise", "rel"), [(1, 1e-4), (4, 1e-3), (10**6, 2e-2)])
def test_the_linear_quadratic_optimum_is_reached(synchronise, rel):
    problem, start, optimum = linear()
    planner = mpc.collocation(problem, optimizer=optax.adam(0.01), starts=1, updates=10, synchronise=synchronise)
    plan = mpc.solve(planner, None, jnp.asarray(start, float), jax.random.key(0), iterations=300)
    assert optimum * (1 - 1e-5) <= float(plan.cost) <= optimum * (1 + rel)


def test_the_pendulum_reaches_its_best_known_optimum():
    problem, start = pendulum(), jnp.array([jnp.pi, 0.0])
    planner = mpc.collocation(problem, starts=2)
    plan = mpc.solve(planner, None, start, jax.random.key(0), iterations=300)
    assert float(plan.cost) == pytest.approx(170.04488, abs=2e-3)
    again = mpc.rollout(problem, None, start, plan.actions)  # the energy is the rollout's, whatever the virtual states were
    assert float(again.energy) == float(plan.cost)
    assert (np.abs(plan.actions) <= 2).all()


def test_at_a_synchronised_point_multipliers_are_costates_and_states_rest():
    problem, start, _ = linear(6)
    planner = mpc.collocation(problem, optimizer=optax.sgd(0.0), starts=1, updates=1)
    state, guess = jnp.asarray(start, float), jnp.linspace(-1.0, 1.0, 6)[:, None]  # variables are actions / 2
    planner_state = jax.jit(planner.step)(None, state, planner.init(None, state, jax.random.key(0), guess))
    np.testing.assert_allclose(planner_state.costates, mpc.costates(problem, None, state, guess)[1:], rtol=1e-4)
    np.testing.assert_allclose(planner_state.states, mpc.rollout(problem, None, state, guess).states[1:], rtol=1e-5)
    moved = mpc.collocation(problem, optimizer=optax.sgd(1e-3), starts=1, updates=1)
    after = jax.jit(moved.step)(None, state, moved.init(None, state, jax.random.key(0), guess))
    np.testing.assert_allclose(after.states, planner_state.states, atol=1e-5)  # no state wants to move, but actions do:
    slope = jax.grad(lambda u: mpc.energy(problem, None, state, u))(guess)
    np.testing.assert_allclose(after.variables - planner_state.variables, -1e-3 * 2.0 * slope, rtol=1e-2, atol=1e-5)


def loops(jaxpr) -> list[tuple[int, list]]:
    """All loops of a program as `(length, loops inside)`."""
    found = []
    for equation in jaxpr.eqns:
        inner = [part for value in equation.params.values() for part in _programs(value)]
        nested = [loop for part in inner for loop in loops(part)]
        if equation.primitive.name in ("scan", "while"):
            found.append((equation.params.get("length", 0), nested))
        else:
            found.extend(nested)
    return found


def _programs(value) -> list:
    if isinstance(value, list | tuple):
        return [part for item in value for part in _programs(item)]
    value = getattr(value, "jaxpr", value)
    return [value] if hasattr(value, "eqns") else []


def test_updates_are_parallel_in_time():
    problem, start, _ = linear(23)
    planner = mpc.collocation(problem, starts=1, updates=7)
    state = jnp.asarray(start, float)
    planner_state = planner.init(None, state, jax.random.key(0))
    found = loops(jax.make_jaxpr(planner.step)(None, state, planner_state).jaxpr)
    assert (7, []) in found, f"the updates' loop holds a loop over time: {found}"
    assert sum(length == 23 for length, _ in found) == 2  # the round's rollout and its costates


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (mpc.Box([-0.5], [1.0]), {"noise": 0.3}),
        (mpc.Box([-0.5], [1.0]), {"stop_gradients": True, "synchronise": 5}),
        (mpc.Discrete(3), {}),
    ],
)
def test_any_setting_improves_on_the_guess_within_bounds(space, settings):
    problem = mpc.Problem(
        lambda p, s, a: {"x": s["x"] + 0.3 * a[:1]},
        lambda p, s, a, t: jnp.sum((s["x"] - 1.0) ** 2) + 0.1 * a @ a,
        lambda p, s: 5.0 * jnp.sum((s["x"] - 1.0) ** 2),
        horizon=8,
        action_space=space,
    )
    planner = mpc.collocation(problem, starts=2, **settings)
    state, keys = {"x": jnp.zeros(1)}, jax.random.split(jax.random.key(0), 2)
    guess = space.decide(jnp.zeros((8, space.size)))
    begun = mpc.energy(problem, None, state, space.embed(guess))
    plan = jax.vmap(lambda k: mpc.solve(planner, None, state, k, iterations=40, guess=guess))(keys)
    assert (np.asarray(plan.cost) < float(begun)).all()
    alone = mpc.solve(planner, None, state, keys[1], iterations=40, guess=guess)
    assert float(alone.cost) == pytest.approx(float(plan.cost[1]), rel=1e-3)
    low, high = (-0.5, 1.0) if isinstance(space, mpc.Box) else (0, 2)
    assert (np.asarray(plan.actions) >= low).all() and (np.asarray(plan.actions) <= high).all()


def test_a_model_that_breaks_gives_a_status_and_bounded_actions():
    problem = mpc.Problem(
        lambda p, s, a: s * jnp.nan, lambda p, s, a, t: jnp.sum(s), horizon=5, action_space=mpc.Box([-1.0], [1.0])
    )
    plan = mpc.solve(mpc.collocation(problem, starts=2), None, jnp.ones(2), jax.random.key(0), iterations=3)
    assert plan.status == mpc.Status.NOT_FINITE
    assert np.isfinite(plan.actions).all() and (np.abs(plan.actions) <= 1).all()


def test_a_shifted_plan_is_a_warm_start():
    problem, start = pendulum(), jnp.array([jnp.pi, 0.0])
    planner = mpc.collocation(problem, starts=1)
    improve = jax.jit(
        lambda state, planner_state: jax.lax.fori_loop(0, 20, lambda _, m: planner.step(None, state, m), planner_state)
    )
    planner_state = planner.init(None, start, jax.random.key(0))
    for _ in range(10):
        planner_state = improve(start, planner_state)
    plan = planner.plan(None, start, planner_state)
    warm = improve(plan.states[1], planner.shift(planner_state))
    cold = improve(plan.states[1], planner.init(None, plan.states[1], jax.random.key(5)))
    assert float(warm.cost) <= float(cold.cost) + 1e-2 and float(warm.cost) < 171.0


def test_impossible_settings_are_refused():
    problem = linear()[0]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"updates": 0}, "updates"),
        ({"penalty": 0.0}, "penalty"),
        ({"synchronise": 0}, "synchronise"),
        ({"noise": -1.0}, "noise"),
        ({"starts": 0}, "starts"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            mpc.collocation(problem, **settings)
