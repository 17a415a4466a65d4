"""The cross-entropy method against known optima and bad models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc


def test_cem_finds_the_linear_quadratic_optimum():
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: s @ s + 0.001 * a @ a,
        horizon=8,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    start = jnp.array([0.3])
    exact = mpc.solve(mpc.gradient(problem, starts=2), None, start, jax.random.key(0), iterations=400)
    plan = mpc.solve(mpc.cem(problem, samples=256, elites=32, smoothness=0.0), None, start, jax.random.key(0), iterations=40)
    assert float(plan.cost) == pytest.approx(float(exact.cost), rel=5e-3)
    assert (np.abs(plan.actions) <= 1).all()


def test_cem_searches_discrete_actions_as_they_are():
    problem = mpc.Problem(
        lambda p, s, a: s + a @ jnp.array([-1.0, 0.0, 1.0]),
        lambda p, s, a, t: s**2,
        lambda p, s: 10 * s**2,
        horizon=6,
        action_space=mpc.Discrete(3, start=5),
    )
    plan = mpc.solve(mpc.cem(problem), None, jnp.asarray(4.0), jax.random.key(0), iterations=20)
    assert plan.actions.tolist() == [5, 5, 5, 5, 6, 6] and float(plan.cost) == 30.0


def test_cem_survives_a_model_that_breaks():
    problem = mpc.Problem(
        lambda p, s, a: s * jnp.nan, lambda p, s, a, t: jnp.sum(s), horizon=4, action_space=mpc.Box([-1.0], [1.0])
    )
    plan = mpc.solve(mpc.cem(problem, samples=16, elites=4), None, jnp.ones(1), jax.random.key(0), iterations=3)
    assert plan.status == mpc.Status.NOT_FINITE and np.isfinite(plan.actions).all()
