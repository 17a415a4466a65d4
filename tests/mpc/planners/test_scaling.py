"""Units of costs, constraints and states do not change a plan; what a plan is said to be is true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.feasibility import infeasibility
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


def test_constrained_plans_do_not_hang_on_units_and_are_feasible_in_all_of_them():
    """A constraint times 1e-5, a cost times 1e4: what is allowed, the penalty and the tolerance follow."""
    slow = mpc.constraints.inequality(lambda p, s, a, t: p[1] * (s[1] / p[2] - 0.3))
    with jax.enable_x64(True):
        planner, found = mpc.ilqr(in_units(slow)), []
        for units in [*UNITS, (1.0, 1e-5, 1.0), (1.0, 1e6, 1.0), (1e4, 1e-4, 1e-3)]:
            p = jnp.asarray(units, float)
            plan = mpc.solve(planner, p, jnp.zeros(2), jax.random.key(0), 60, tolerance=1e-4)
            assert plan.status == Status.CONVERGED and float(plan.info["infeasibility"]) <= 1
            assert float(plan.info["violation"]["inequality"]) <= 1e-6 * units[1]
            found.append(float(plan.cost) / units[0])
    assert found == pytest.approx([found[0]] * len(found), rel=1e-6)


RECOVERING = {"ilqr": mpc.ilqr, "gradient": lambda p: mpc.gradient(p, starts=1), "mppi": lambda p: mpc.mppi(p, samples=64)}


@pytest.mark.parametrize("name", RECOVERING)
def test_a_limit_that_could_not_be_kept_for_a_while_leaves_nothing_behind(name):
    """The limit jumps behind the mass for five decisions; one begun anew after that is there three decisions before."""
    planner = RECOVERING[name](in_units(mpc.constraints.inequality(lambda p, s, a, t: s[0] - p[1])))

    def params(limit: float) -> jax.Array:
        return jnp.asarray((1.0, limit, 1.0), jnp.float32)

    controller = mpc.Controller(planner, params(0.8), observation=jnp.zeros(2), iterations=20)
    back = []
    for fresh in (False, True):
        state, controller.params = np.array([0.8, 0.0]), params(0.8)
        controller.reset()
        places = []
        for tick in range(28):
            controller.params = params(-0.2 if 2 <= tick < 7 else 0.8)
            if fresh and tick == 7:
                controller.reset()
            action = controller.act(state)
            assert (controller.status == Status.INFEASIBLE) >= (2 <= tick < 7)
            state = np.asarray(double_integrator(jnp.asarray(state), jnp.asarray(action)), float)
            places.append(state[0])
        back.append(np.flatnonzero(np.array(places) < 0.75)[-1] + 1)
    assert back[0] <= back[1] + 3 and max(back) < len(places)


def test_a_constraint_in_a_tiny_unit_is_kept_and_its_violation_seen():
    """1e-5 (x - 0.3) <= 0: a plan 0.495 past the limit was feasible."""
    problem = mpc.Problem(
        lambda p, s, a: double_integrator(s, a),
        lambda p, s, a, t: (s[0] - 1) ** 2 + 0.01 * a[0] ** 2,
        horizon=20,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=[mpc.constraints.inequality(lambda p, s, a, t: 1e-5 * (s[0] - 0.3))],
    )
    plan = mpc.solve(mpc.ilqr(problem), None, jnp.zeros(2), jax.random.key(0), 60)
    assert plan.status != Status.INFEASIBLE and float(plan.states[:, 0].max()) == pytest.approx(0.3, abs=1e-3)
    for push, past in ((0.1, False), (0.795 / 2.0, True)):
        actions = jnp.full((20, 1), push)
        states = mpc.rollout(problem, None, jnp.zeros(2), actions).states
        assert (states[-1, 0] > 0.79) == past == (float(infeasibility(problem, None, states, actions)) > 100)


LIMITED = in_units(mpc.constraints.inequality(lambda p, s, a, t: p[1] * (s[0] / p[2] - 0.3)))


@jax.jit
def share_of_what_is_allowed(params: jax.Array, actions: jax.Array) -> jax.Array:
    states = mpc.rollout(LIMITED, params, jnp.zeros(2), actions).states
    return infeasibility(LIMITED, params, states, actions)


exponents = st.floats(-9, 9)


@settings(deadline=None, max_examples=50)
@given(exponents, exponents, st.floats(0.1, 1.0))
def test_what_counts_as_feasible_does_not_hang_on_units(of_constraint, of_state, push):
    """The same future, with its limit in nanometres and its state in gigametres."""
    actions = jnp.full((20, 1), push, jnp.float32)
    known = share_of_what_is_allowed(jnp.asarray((1.0, 1.0, 1.0), jnp.float32), actions)
    units = jnp.asarray((1.0, 10.0**of_constraint, 10.0**of_state), jnp.float32)
    assert float(share_of_what_is_allowed(units, actions)) == pytest.approx(float(known), rel=1e-2, abs=1e-2)


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
    assert (
        mpc.solve(mpc.gradient(problem, starts=1), None, jnp.zeros(1), jax.random.key(0), 2, guess=jnp.zeros((10, 1))).cost
        == 0
    )
    plan = mpc.solve(planner, None, jnp.full(1, 0.5), jax.random.key(0), 60, tolerance=1e-4)
    assert plan.status != Status.CONVERGED or float(plan.cost) < 1.5507


def test_a_start_from_which_the_model_blows_up_retreats():
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * (20 * s**3 + a),
        lambda p, s, a, t: jnp.sum(s**2) + 0.1 * jnp.sum(a * a),
        horizon=40,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    planner, guess = mpc.gradient(problem, starts=1), jnp.ones((40, 1))
    assert not np.isfinite(mpc.energy(problem, None, jnp.zeros(1), guess))
    plan = mpc.solve(planner, None, jnp.zeros(1), jax.random.key(0), 60, guess=guess)
    assert plan.status == Status.ITERATIONS and float(plan.cost) < 1e-2
