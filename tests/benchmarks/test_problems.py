"""Tests of the problems of both tables: agreement of JAX and CasADi, and optimality of the stored optima."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from benchmarks import peers
from benchmarks.formulas import FEASIBLE, JAX, Limit, Maths, Reference, Vector, optimum
from benchmarks.literature import LITERATURE
from benchmarks.problems import REFERENCES, clohessy_wiltshire
from mpc.rollout import energy

PROBLEMS = REFERENCES | LITERATURE
every = pytest.mark.parametrize("reference", PROBLEMS.values(), ids=PROBLEMS.keys())


@every
def test_casadi_and_jax_evaluate_the_same_formulas(reference: Reference):
    cs, rng = pytest.importorskip("casadi"), np.random.default_rng(0)

    def formulas(m: Maths, x: Vector, u: Vector) -> list[Vector]:
        limits = [limit.function(m, u if limit.of_actions else x) for limit in reference.limits]
        return [reference.dynamics(m, x, u), reference.stage(m, x, u), reference.terminal(m, x), *limits]

    x, u = cs.SX.sym("x", len(reference.start)), cs.SX.sym("u", len(reference.low))
    symbolic = cs.Function("all", [x, u], formulas(peers.casadi_maths(), x, u))
    compiled = jax.jit(partial(formulas, JAX))
    for _ in range(20):
        state = np.array(reference.start) + rng.standard_normal(len(reference.start))
        action = rng.uniform(reference.low, reference.high)
        with jax.enable_x64(True):
            ours = compiled(jnp.asarray(state), jnp.asarray(action))
        for their, our in zip(symbolic(state, action), ours, strict=True):
            np.testing.assert_allclose(np.asarray(their).ravel(), np.ravel(our), rtol=1e-9, atol=1e-9)


@every
def test_the_optimum_has_its_stored_cost_and_is_feasible(reference: Reference):
    best = optimum(reference.name)
    cost, violation = reference.measure(best.actions)
    assert cost == pytest.approx(best.cost, rel=1e-9)
    assert violation <= FEASIBLE


@every
def test_small_feasible_changes_do_not_improve_the_optimum(reference: Reference):
    best, rng = optimum(reference.name), np.random.default_rng(0)
    width = np.array(reference.high) - np.array(reference.low)
    for scale in (1e-2, 1e-3, 1e-4):
        for _ in range(20):
            nearby = best.actions + scale * width * rng.standard_normal(best.actions.shape)
            cost, violation = reference.measure(np.clip(nearby, reference.low, reference.high))
            assert cost > best.cost - 1e-6 or violation > FEASIBLE


@every
def test_the_planners_problem_has_the_measured_cost_and_violation(reference: Reference):
    problem, actions = reference.problem, reference.guess(3)
    cost, violation = reference.measure(actions)
    with jax.enable_x64(True):
        start = jnp.asarray(reference.start, jnp.float64)
        problem.check(None, start)
        assert float(energy(problem, None, start, jnp.asarray(actions))) == pytest.approx(cost, rel=1e-12)
        states = mpc.rollout(problem, None, start, jnp.asarray(actions)).states
        violations = mpc.constraints.violation(problem.constraints, None, states, jnp.asarray(actions))
    assert max(map(float, violations.values()), default=0.0) == pytest.approx(violation, rel=1e-9, abs=1e-12)


@every
def test_constant_actions_are_finite_and_not_optimal(reference: Reference):
    middle = np.tile(0.5 * (np.array(reference.low) + reference.high), (reference.horizon, 1))
    cost, violation = reference.measure(middle)
    assert np.isfinite([cost, violation]).all()
    assert cost > 1.001 * optimum(reference.name).cost or violation > FEASIBLE


@every
def test_broken_bounds_are_measured_as_violations(reference: Reference):
    beyond = np.full((reference.horizon, len(reference.low)), np.array(reference.high) + 0.5)
    assert reference.measure(beyond)[1] >= 0.5
    for limit in reference.limits:
        at = jnp.asarray(reference.high if limit.of_actions else reference.start)
        assert np.asarray(limit.function(JAX, at)).ndim == 1
        assert 1 <= limit.first <= (limit.last or reference.horizon) <= reference.horizon


def test_initial_guesses_are_the_documented_smoothed_noise():
    reference = REFERENCES["cartpole"]
    white, w = np.random.default_rng(7).standard_normal((60, 1)), 0.0
    for t, guess in enumerate(reference.guess(7)):
        w = 0.8 * w + 0.6 * white[t, 0]
        assert guess[0] == pytest.approx(10.0 * np.clip(0.3 * w, -1.0, 1.0))


def test_the_orbit_agrees_with_its_differential_equation():
    n, dt, steps = 0.00113, 20.0, 2000
    transition, thrust = clohessy_wiltshire(n, dt)
    state, action = np.array([-100.0, -200.0, 60.0, 0.3, -0.2, 0.1]), np.array([1e-3, -2e-3, 3e-3])

    def derivative(s: np.ndarray) -> np.ndarray:
        x, z, vx, vy = s[0], s[2], s[3], s[4]
        pull = np.array([3 * n**2 * x + 2 * n * vy, -2 * n * vx, -(n**2) * z])
        return np.concatenate([s[3:], pull + action])

    integrated, h = state, dt / steps
    for _ in range(steps):  # midpoint rule
        integrated = integrated + h * derivative(integrated + 0.5 * h * derivative(integrated))
    np.testing.assert_allclose(transition @ state + thrust @ action, integrated, rtol=1e-7, atol=1e-7)


def test_limits_hold_at_their_steps_and_for_their_actions_only():
    """A counter with an action that is a multiple of its limit: only the steps 2 and 3 and the actions are measured."""
    limits = (
        Limit("window", lambda m, x: m.stack(x[0]), first=2, last=3),
        Limit("action", lambda m, u: m.stack(u[0] / 10.0 - 1.0), of_actions=True),
    )
    reference = Reference(
        *("counter", 5, (0.0,), (100.0,), (0.0,)),
        lambda m, x, u: m.stack(x[0] + 1.0),
        lambda m, x, u: u[0],
        lambda m, x: x[0],
        limits,
    )
    assert reference.measure(np.full((5, 1), 1.0)) == (10.0, 3.0)
    assert reference.measure(np.full((5, 1), 100.0)) == (505.0, 9.0)
    states = mpc.rollout(reference.problem, None, jnp.zeros(1), jnp.full((5, 1), 100.0)).states
    violations = mpc.constraints.violation(reference.problem.constraints, None, states, jnp.full((5, 1), 100.0))
    assert {name: float(value) for name, value in violations.items()} == {"window": 3.0, "action": 9.0}


def test_the_largest_orbit_is_close_to_that_of_continuous_time():
    assert optimum("orbit_transfer").cost == pytest.approx(-1.5252, rel=2e-3)  # Bryson & Ho 1975
