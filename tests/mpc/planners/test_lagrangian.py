"""The augmented Lagrangian against closed forms, and what its planners make of constraints that cannot be met."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.planners.augmented import Augmented, StateWithAction, augment
from mpc.planners.multistart import multistart

A, B, H = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.0], [0.2]]), 10
START = np.array([1.0, 0.5])


def dynamics(params, state, action):
    return jnp.asarray(A, state.dtype) @ state + jnp.asarray(B, state.dtype) @ action


def problem(*constraints: mpc.constraints.Constraint, bound: float = 10.0) -> mpc.Problem:
    """A point mass that is to come to rest with little effort."""
    return mpc.Problem(
        dynamics,
        lambda p, s, a, t: s @ s + 0.1 * a @ a,
        horizon=H,
        action_space=mpc.Box([-bound], [bound]),
        constraints=constraints,
    )


arrive = mpc.constraints.equality(lambda p, s, a, t: jnp.where(t == H, s - 0.1, 0.0), "arrive")
slow = mpc.constraints.inequality(lambda p, s, a, t: -0.4 - s[1], "slow")
weak = mpc.constraints.inequality(lambda p, s, a, t: jnp.abs(a[0]) - 2.0, "weak")
gentle = mpc.constraints.inequality(lambda p, s, a, t: a[0] - 1.0 + 0.5 * s[0], "gentle")


def quadratic() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`states = X u + x` and the energy `½ uᵀ Q u + qᵀ u + constant` of the problem without constraints."""
    x = np.stack([np.linalg.matrix_power(A, t) @ START for t in range(H + 1)])
    X = np.zeros((H + 1, 2, H))
    for t in range(1, H + 1):
        X[t] = A @ X[t - 1]
        X[t][:, t - 1] += B[:, 0]
    flat, offset = X[:-1].reshape(-1, H), x[:-1].reshape(-1)
    return X, x, 2 * flat.T @ flat + 0.2 * np.eye(H), 2 * flat.T @ offset


def equality_optimum() -> np.ndarray:
    X, x, Q, q = quadratic()
    matrix = np.block([[Q, X[-1].T], [X[-1], np.zeros((2, 2))]])
    return np.linalg.solve(matrix, np.concatenate([-q, 0.1 - x[-1]]))[:H]


@pytest.mark.parametrize(
    ("build", "double"),
    [(lambda p: mpc.ilqr(p, starts=1), True), (lambda p: mpc.gradient(p, optimizer="lbfgs", starts=1), False)],
)
def test_equality_constrained_optimum_of_the_kkt_system(build, double):
    with jax.enable_x64(double):
        plan = mpc.solve(build(problem(arrive)), None, jnp.asarray(START, float), jax.random.key(0), 150)
        assert plan.status == mpc.Status.ITERATIONS
        assert float(plan.info["violation"]["arrive"]) <= (1e-6 if double else 1e-5)
        np.testing.assert_allclose(plan.actions[:, 0], equality_optimum(), atol=1e-4 if double else 1e-2)
        best = mpc.energy(problem(), None, jnp.asarray(START, float), jnp.asarray(equality_optimum())[:, None])
        assert float(plan.cost) == pytest.approx(float(best), rel=1e-8 if double else 1e-3)


def test_inequalities_satisfy_the_kkt_conditions():
    with jax.enable_x64(True):
        planner = mpc.gradient(problem(slow, weak), optimizer="lbfgs", starts=1)
        plan = mpc.solve(planner, None, jnp.asarray(START), jax.random.key(0), 400)
        X, x, Q, q = quadratic()
        u, duals = np.asarray(plan.actions[:, 0]), np.asarray(plan.info["duals"])
        value = np.stack([-0.4 - (X[1:, 1] @ u + x[1:, 1]), np.abs(u) - 2.0], axis=1)
        assert max(float(v) for v in plan.info["violation"].values()) <= 1e-6
        assert (duals >= 0).all() and (duals > 0.1).any(axis=0).all(), "both constraints must matter here"
        np.testing.assert_allclose(duals * value, 0.0, atol=1e-4)
        np.testing.assert_allclose(Q @ u + q - duals[:, 0] @ X[1:, 1] + duals[:, 1] * np.sign(u), 0.0, atol=1e-4)


@pytest.mark.parametrize("which", [(slow,), (weak,), (arrive, gentle), (slow, weak, arrive)])
def test_the_augmented_energy_is_the_formula(which):
    rng = np.random.default_rng(0)
    for _ in range(3):
        actions = jnp.asarray(2 * rng.standard_normal((H, 1)), jnp.float32)
        states = mpc.rollout(problem(*which), None, jnp.asarray(START, jnp.float32), actions).states
        values = np.asarray(mpc.constraints.table(which, None, states, actions), np.float64)
        equal = np.concatenate([np.full(2 if c is arrive else 1, c.equality) for c in which])
        duals, rho = np.where(equal, 1, 0) * rng.standard_normal(values.shape) + ~equal * rng.random(values.shape), 3.0
        pushed = np.where(equal, duals + rho * values, np.maximum(0, duals + rho * values))
        expected = float(mpc.energy(problem(*which), None, jnp.asarray(START, jnp.float32), actions))
        expected += np.sum(pushed**2 - duals**2) / (2 * rho)
        given = Augmented(None, jnp.asarray(duals, jnp.float32), jnp.asarray(rho))
        first = jnp.asarray(START, jnp.float32)
        lifted = StateWithAction(first, jnp.zeros(1)) if gentle in which else first
        assert float(mpc.energy(augment(problem(*which)), given, lifted, actions)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("build", [mpc.cem, mpc.gradient, mpc.ilqr])
def test_what_cannot_be_met_is_violated_least_and_said(build):
    far = mpc.constraints.equality(lambda p, s, a, t: a[0] - 2.0, "far")
    hopeless = problem(far, bound=1.0)
    plan = mpc.solve(build(hopeless), None, jnp.asarray(START, jnp.float32), jax.random.key(0), 100)
    assert plan.status == mpc.Status.INFEASIBLE
    assert float(plan.info["violation"]["far"]) == pytest.approx(1.0, abs=0.02)
    assert (np.abs(plan.actions) <= 1).all()


def test_a_state_and_its_action_together():
    plan = mpc.solve(mpc.ilqr(problem(gentle)), None, jnp.asarray(START, jnp.float32), jax.random.key(0), 60)
    states, actions = np.asarray(plan.states), np.asarray(plan.actions)
    assert (actions[:, 0] - 1.0 + 0.5 * states[1:, 0] <= 1e-5).all() and plan.status == mpc.Status.ITERATIONS


def test_rate_limits_as_constraints_are_met_in_single_precision():
    """A point mass tracks a sine; the state carries the last action and by how much it changed."""
    tracking = mpc.Problem(
        lambda p, s, a: jnp.stack([s[0] + 0.1 * s[1], s[1] + 0.1 * a[0], a[0], a[0] - s[2]]),
        lambda p, s, a, t: 10 * (s[0] - jnp.sin(0.3 * t)) ** 2 + 0.01 * a[0] ** 2,
        horizon=40,
        action_space=mpc.Box([-1.7], [1.7]),
        constraints=(mpc.constraints.inequality(lambda p, s, a, t: jnp.stack([s[3], -s[3]]) - 0.3),),
    )
    solve = jax.jit(lambda key: mpc.solve(mpc.ilqr(tracking), None, jnp.zeros(4), key, 200, tolerance=1e-5))
    for seed in range(5):
        plan = solve(jax.random.key(seed))
        assert plan.status != mpc.Status.INFEASIBLE and float(plan.cost) == pytest.approx(127.1879, rel=1e-5)


def test_duals_are_carried_to_the_next_decision_one_step_on():
    planner = mpc.ilqr(problem(slow), starts=1, precision="float32")

    @jax.jit
    def improve(planner_state, state):
        planner_state = jax.lax.fori_loop(0, 4, lambda _, m: planner.step(None, state, m), planner_state)
        return planner_state, planner.plan(None, state, planner_state)

    state = jnp.asarray(START, jnp.float32)
    begin = jax.jit(planner.init)
    planner_state, plan = improve(begin(None, state, jax.random.key(0), jnp.zeros((H, 1))), state)
    for _ in range(9):
        planner_state, plan = improve(planner_state, state)
    warm = planner.shift(planner_state)
    np.testing.assert_array_equal(warm.duals, jnp.concatenate([planner_state.duals[1:], planner_state.duals[-1:]]))
    assert float(planner_state.duals.max()) > 0.1 and np.isinf(warm.cost) and np.isinf(warm.best.infeasibility)
    after = plan.states[1]
    guess = jnp.concatenate([plan.actions[1:], plan.actions[-1:]])
    cold = begin(None, after, jax.random.key(0), guess)  # the same actions, but no duals
    with_duals, without = (improve(m, after)[1] for m in (warm, cold))
    assert with_duals.status != mpc.Status.INFEASIBLE and float(with_duals.cost) < 0.9 * float(without.cost)


def test_the_feasible_start_wins_though_another_is_cheaper():
    """Two basins: the cheap one lies where the constraint cannot be met."""
    trap = mpc.Problem(
        lambda p, s, a: s,
        lambda p, s, a, t: (a[0] - 0.8) ** 2 * (a[0] + 0.8) ** 2 + 0.1 * a[0],
        horizon=1,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=(mpc.constraints.inequality(lambda p, s, a, t: 0.3 - jnp.where(a[0] > 0, a[0], 0.0 * a[0])),),
    )
    plan = mpc.solve(mpc.gradient(trap, starts=16, spread=1.0), None, jnp.zeros(1), jax.random.key(0), 200)
    assert float(plan.actions[0, 0]) == pytest.approx(0.78, abs=0.05) and plan.status == mpc.Status.ITERATIONS


def test_broken_models_and_settings():
    broken = mpc.Problem(
        lambda p, s, a: s * jnp.nan,
        lambda p, s, a, t: jnp.sum(s),
        horizon=3,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=(mpc.constraints.inequality(lambda p, s, a, t: s),),
    )
    plan = mpc.solve(mpc.gradient(broken, starts=2), None, jnp.ones(1), jax.random.key(0), 30)
    assert plan.status == mpc.Status.NOT_FINITE and np.isfinite(plan.actions).all()
    with pytest.raises(ValueError, match="without"):
        mpc.lagrangian(problem(), mpc.cem)
    settings: list[dict[str, Any]] = [{"inner": 0}, {"penalty": 0.0}, {"growth": 0.5}]
    for wrong in settings:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            mpc.lagrangian(problem(slow), mpc.cem, **wrong)


def test_vmapped_solves_equal_single_ones():
    planner = multistart(mpc.lagrangian(problem(slow), lambda p: mpc.gradient(p, starts=1), inner=5), starts=2)
    states = jnp.asarray([[1.0, 0.5], [-0.5, 0.2]])
    together = jax.vmap(lambda s: mpc.solve(planner, None, s, jax.random.key(1), 30).actions)(states)
    for state, expected in zip(states, together, strict=True):
        np.testing.assert_allclose(mpc.solve(planner, None, state, jax.random.key(1), 30).actions, expected, atol=2e-3)
