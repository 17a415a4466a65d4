"""Every planner on every kind of action space: one table of planners, one of spaces; a new planner joins by adding a row."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc

HORIZON = 8
# how to build it, iterations to spend, how far from the linear-quadratic optimum that may leave it (relative)
PLANNERS: dict[str, tuple[Callable[..., mpc.Planner], int, float]] = {
    "gradient": (lambda p: mpc.gradient(p, starts=4), 100, 1e-4),
    "lbfgs": (lambda p: mpc.gradient(p, optimizer="lbfgs", starts=2), 20, 1e-4),
    "ilqr": (lambda p: mpc.ilqr(p), 3, 1e-5),
    "collocation": (lambda p: mpc.collocation(p, starts=2), 60, 1e-2),
    "cem": (lambda p: mpc.cem(p, samples=256, elites=16), 30, 2e-2),
    "icem": (lambda p: mpc.icem(p, samples=256, elites=16), 30, 2e-2),
    "mppi": (lambda p: mpc.mppi(p, samples=256), 60, 3e-2),
    "predictive sampling": (lambda p: mpc.predictive_sampling(p, samples=256), 100, 0.2),
    "chain": (lambda p: mpc.chain(mpc.cem(p, samples=32, elites=8), mpc.ilqr(p), switch_after=5), 8, 1e-5),
}
SPACES = {"box": mpc.Box([-2.0, 0.5], [1.0, 3.0]), "choices": mpc.MultiDiscrete([3, 2])}
CONTINUOUS = {"icem"}
BOX = [(p, "box") for p in PLANNERS]
PAIRS = [(p, s) for p in PLANNERS for s in SPACES if s == "box" or p not in CONTINUOUS]
A, B, Q, R = np.array([[1.0, 0.2], [-0.1, 0.9]]), np.array([[0.1, 0.3], [0.4, -0.2]]), 1.0, 0.2
TARGET = np.array([-0.3, 1.6])  # controls at rest, inside the box


def problem(space: mpc.spaces.Space) -> mpc.Problem:
    """Linear dynamics that turn to NaN where `params` says so; quadratic cost."""
    push = jnp.asarray(B if space.exact else np.resize(B, (2, space.size)), float)

    def dynamics(params, state, action):
        moved = jnp.asarray(A, float) @ state + push @ (action - (TARGET if space.exact else 0.0))
        return jnp.where(state[0] > params, jnp.nan, moved)

    def cost(params, state, action, t):
        return Q * state @ state + (R * (action - TARGET) @ (action - TARGET) if space.exact else 0.0)

    return mpc.Problem(dynamics, cost, lambda p, s: Q * s @ s, horizon=HORIZON, action_space=space)


def riccati(state: np.ndarray) -> float:
    """The least cost of the box's problem, whose optimum lies inside the box."""
    value = Q * np.eye(2)
    for _ in range(HORIZON):
        gain = np.linalg.solve(R * np.eye(2) + B.T @ value @ B, B.T @ value @ A)
        value = Q * np.eye(2) + A.T @ value @ A - A.T @ value @ B @ gain
    return float(state @ value @ state)


@pytest.fixture(scope="module")
def case(request):
    """A planner on a space, and its compiled solve `(edge, state, seed) -> plan`; states beyond the edge turn to NaN."""
    name, space = request.param
    build, iterations, gap = PLANNERS[name]
    planner = build(problem(SPACES[space]))
    return (
        planner,
        iterations,
        gap,
        lambda edge, state, seed: mpc.solve(
            planner, jnp.asarray(edge, float), jnp.asarray(state, float), jax.random.key(seed), iterations
        ),
    )


def in_bounds(space: mpc.spaces.Space, actions: np.ndarray) -> bool:
    """True if every action belongs to the space."""
    if isinstance(space, mpc.Box):
        return bool(((actions >= space.low) & (actions <= space.high)).all())
    return bool(((actions >= 0) & (actions < np.array(space.choices))).all())  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", BOX, indirect=True, ids="-".join)
def test_linear_quadratic_problems_are_solved(case):
    _, _, gap, solve = case
    state = np.array([0.5, -0.4])
    best = riccati(state)
    found = float(solve(np.inf, state, 0).cost)
    assert best * (1 - 1e-5) <= found <= best * (1 + gap)


@pytest.mark.parametrize("case", PAIRS, indirect=True, ids="-".join)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from([np.inf, 1.0, -5.0]), st.integers(0, 2**31 - 1))
def test_plans_are_in_bounds_and_finite_whatever_the_model_does(case, x, y, edge, seed):
    planner, _, _, solve = case
    plan = solve(edge, [x, y], seed)
    actions = np.asarray(plan.actions)
    assert np.isfinite(actions).all() and in_bounds(planner.problem.action_space, actions)
    # a relaxed search may find nothing finite though what it rounds to is
    assert np.isfinite(float(plan.cost)) or int(plan.status) == mpc.Status.NOT_FINITE
    assert int(plan.status) != mpc.Status.NOT_FINITE or edge < np.inf
    np.testing.assert_array_equal(actions, solve(edge, [x, y], seed).actions)


@pytest.mark.parametrize("case", BOX, indirect=True, ids="-".join)
def test_vmap_is_a_loop(case):
    planner, iterations, _, _ = case
    states, keys = jnp.array([[0.5, -0.4], [-0.2, 0.3]]), jax.random.split(jax.random.key(3))
    together = jax.vmap(lambda s, k: mpc.solve(planner, jnp.asarray(jnp.inf), s, k, iterations))(states, keys)
    for i in range(2):
        alone = mpc.solve(planner, jnp.asarray(jnp.inf), states[i], keys[i], iterations)
        np.testing.assert_allclose(together.cost[i], alone.cost, rtol=2e-4)


SMALLEST: dict[str, Callable[[mpc.Problem], mpc.Planner]] = {
    "cem": lambda p: mpc.cem(p, samples=2, elites=1),
    "cem of choices": lambda p: mpc.cem(p, samples=2, elites=1),
    "icem": lambda p: mpc.icem(p, samples=2, elites=1),
    "mppi": lambda p: mpc.mppi(p, samples=2),
    "predictive sampling": lambda p: mpc.predictive_sampling(p, samples=2),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_fewest_samples_allowed_search(name):
    """Nothing is as dear as to stay, which is what planners begin with."""
    choices = "choices" in name
    push = (lambda a: a[2] - a[0]) if choices else (lambda a: a)
    problem = mpc.Problem(
        lambda p, s, a: s + 0.2 * push(a),
        lambda p, s, a, t: jnp.sum((s - 1.0) ** 2),
        horizon=5,
        action_space=mpc.Discrete(3) if choices else mpc.Box(-1.0, 1.0, shape=()),
    )
    plan = mpc.solve(SMALLEST[name](problem), None, jnp.zeros(1), jax.random.key(0), 30)
    assert plan.actions.shape == (5,) and float(plan.cost) < (10.0 if choices else 4.99)
