"""Units of costs, constraints and states do not change a plan; what a plan is said to be is true."""

import jax
import jax.numpy as jnp
import pytest

import mpc
from mpc.planners.base import Status


def double_integrator(state: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.stack([state[0] + 0.1 * state[1] + 0.005 * action[0], state[1] + 0.1 * action[0]])


def in_units(*constraints: mpc.constraints.Constraint) -> mpc.Problem:
    """A point mass that goes to 1; `params` are the units of the cost, the constraints and the state."""
    return mpc.Problem(
        lambda p, s, a: p[2] * double_integrator(s / p[2], a),
        lambda p, s, a, t: p[0] * ((s[0] / p[2] - 1) ** 2 + 0.01 * a[0] ** 2),
        horizon=20,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=constraints,
    )


UNITS = [(1.0, 1.0, 1.0), (1e-6, 1.0, 1.0), (1e6, 1.0, 1.0), (1.0, 1.0, 1e-6), (1.0, 1.0, 1e6)]


def test_newton_does_not_hang_on_units():
    planner = mpc.ilqr(in_units())
    found = []
    for units in UNITS:
        p = jnp.asarray(units, float)
        plan = mpc.solve(planner, p, jnp.zeros(2), jax.random.key(0), 40, tolerance=1e-4)
        assert plan.status == Status.CONVERGED
        found.append(float(plan.cost) / units[0])
    assert found == pytest.approx([found[0]] * len(UNITS), rel=1e-5)


def test_a_cost_is_not_said_to_be_settled_because_it_is_enormous():
    """Bounded actions can hold this unstable state; whoever begins at the wrong bound sees costs of 1e17."""
    problem = mpc.Problem(
        lambda p, s, a: 20 * s + a,
        lambda p, s, a, t: jnp.sum(s**2) + 0.1 * jnp.sum(a * a),
        horizon=15,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    planner, start = mpc.ilqr(problem), jnp.full(1, 0.04)
    for side in (-1.0, 1.0):
        guess = jnp.full((15, 1), side)
        plan = mpc.solve(planner, None, start, jax.random.key(0), 60, guess=guess, tolerance=1e-4)
        assert plan.status == Status.ITERATIONS or float(plan.cost) < 0.06545


def test_a_kink_is_not_taken_for_an_optimum():
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: jnp.linalg.norm(s) + 0.01 * jnp.sum(a * a),
        lambda p, s: jnp.linalg.norm(s),
        horizon=10,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    planner = mpc.ilqr(problem)
    rest = mpc.solve(planner, None, jnp.zeros(1), jax.random.key(0), 10, guess=jnp.zeros((10, 1)), tolerance=1e-4)
    assert rest.cost == 0 and rest.status == Status.CONVERGED and rest.info["optimality"] == 0
    plan = mpc.solve(planner, None, jnp.full(1, 0.5), jax.random.key(0), 60, tolerance=1e-4)
    assert plan.status != Status.CONVERGED or float(plan.cost) < 1.5507
