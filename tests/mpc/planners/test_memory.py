"""Solves that go on from what an earlier one remembers, and controllers that end a decision where it has converged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc

KEY, START = jax.random.key(0), jnp.array([1.0, 0.0])
BOX = mpc.Box([-1.0], [1.0])


def push(params, state, action):
    return state + 0.2 * jnp.stack([state[1], action[0]])


def to_the_goal(params, state, action, t):
    return (state[0] - params) ** 2 + 0.1 * state[1] ** 2 + 0.01 * action @ action


PROBLEM = mpc.Problem(push, to_the_goal, horizon=12, action_space=BOX)
SLOW = mpc.Problem(
    push,
    to_the_goal,
    horizon=12,
    action_space=BOX,
    constraints=[mpc.constraints.inequality(lambda p, s, a, t: s[1] ** 2 - 0.3**2, "speed")],
)
PLANNERS = {
    "gradient": (lambda: mpc.gradient(PROBLEM, starts=3), 40),
    "lbfgs": (lambda: mpc.gradient(PROBLEM, optimizer="lbfgs", starts=1), 15),
    "ilqr": (lambda: mpc.ilqr(PROBLEM), 6),
    "ilqr, 3 starts": (lambda: mpc.ilqr(PROBLEM, starts=3, precision="float32"), 6),
    "ilqr, constrained": (lambda: mpc.ilqr(SLOW), 60),
    "ilqr, continued": (lambda: mpc.ilqr(PROBLEM, continuation=5), 20),
    "collocation": (lambda: mpc.collocation(PROBLEM, starts=2), 60),
    "cem": (lambda: mpc.cem(PROBLEM, samples=64, elites=8), 20),
    "mppi": (lambda: mpc.mppi(PROBLEM, samples=64), 20),
    "chain": (lambda: mpc.chain(mpc.cem(PROBLEM, samples=32, elites=8), mpc.ilqr(PROBLEM), switch_after=3), 8),
}


@pytest.mark.parametrize("name", PLANNERS)
def test_a_solve_goes_on_from_an_earlier_one(name):
    build, iterations = PLANNERS[name]
    planner, goal = build(), jnp.asarray(0.0)
    first = mpc.solve(planner, goal, START, KEY, iterations)
    again = mpc.solve(planner, goal, START, KEY, 1, memory=first.memory)
    assert float(again.cost) <= float(first.cost) + 1e-5 and again.status != mpc.Status.INFEASIBLE
    moved = jnp.asarray(0.3)  # the goal jumps: the earlier plan is the least that is expected
    later = mpc.solve(planner, moved, START, KEY, 1, memory=first.memory)
    assert float(later.cost) <= float(mpc.energy(PROBLEM, moved, START, first.actions)) + 1e-5
    following = mpc.solve(planner, goal, first.states[1], KEY, iterations, memory=planner.shift(first.memory))
    fresh = mpc.solve(planner, goal, first.states[1], KEY, 2 * iterations)
    assert float(following.cost) <= 1.05 * float(fresh.cost)


def test_multipliers_are_remembered():
    planner = PLANNERS["ilqr, constrained"][0]()
    first = mpc.solve(planner, jnp.asarray(0.0), START, KEY, 200, tolerance=1e-5)
    assert first.status == mpc.Status.CONVERGED and float(jnp.abs(first.info["duals"]).max()) > 1e-3
    again = mpc.solve(planner, jnp.asarray(0.0), START, KEY, 200, memory=first.memory, tolerance=1e-5)
    assert again.status == mpc.Status.CONVERGED
    assert 3 * int(again.info["iterations"]) <= int(first.info["iterations"])


def test_a_guess_beside_a_memory_is_refused():
    planner = mpc.ilqr(PROBLEM)
    first = mpc.solve(planner, jnp.asarray(0.0), START, KEY, 2)
    with pytest.raises(ValueError, match="a guess or goes on from a memory, not both"):
        mpc.solve(planner, jnp.asarray(0.0), START, KEY, 2, guess=first.actions, memory=first.memory)


@pytest.mark.parametrize("deadline", [None, 10.0])
def test_a_controller_spends_what_the_first_decision_needs_and_stops_where_the_others_have_converged(deadline):
    planner = mpc.ilqr(PROBLEM)
    controller = mpc.Controller(
        planner, jnp.asarray(0.0), observation=START, iterations=3, first_iterations=40, tolerance=1e-6, deadline=deadline
    )
    state = START
    for decision in range(5):
        action, spent = controller.act(state), controller.iterations_spent or 0
        if decision == 0:
            assert 3 < spent < 40 and controller.status == mpc.Status.CONVERGED
            exact = mpc.solve(planner, jnp.asarray(0.0), START, KEY, 40, tolerance=1e-6)
            np.testing.assert_allclose(action, exact.actions[0], atol=1e-4)
        else:
            assert spent <= 3
        state = push(None, state, jnp.asarray(action))
    controller.reset()
    controller.act(START)
    assert (controller.iterations_spent or 0) > 3


def test_settings_of_convergence_are_checked():
    with pytest.raises(ValueError, match="tolerance must be at least 0, or None; got -1"):
        mpc.policy(mpc.ilqr(PROBLEM), tolerance=-1.0)
    with pytest.raises(ValueError, match="a policy has a tolerance of its own"):
        mpc.Controller(mpc.policy(mpc.ilqr(PROBLEM)), jnp.asarray(0.0), tolerance=0.1)
    with pytest.raises(ValueError, match=r"must be at least 1; got .*'first_iterations': 0"):
        mpc.Controller(mpc.ilqr(PROBLEM), jnp.asarray(0.0), first_iterations=0)
