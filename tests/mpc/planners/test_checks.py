"""Tests of what no solve can use: it is refused in words that say what arrived, or done without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc

KEY, START, BOX = jax.random.key(0), jnp.zeros(2), mpc.Box([-2.0], [2.0])


def problem(horizon: int = 6) -> mpc.Problem:
    return mpc.Problem(
        lambda p, s, a: s + 0.1 * jnp.stack([s[1], a[0]]),
        lambda p, s, a, t: (s[0] - 1.0) ** 2 + 0.01 * a @ a,
        horizon=horizon,
        action_space=BOX,
    )


LONG, SHORT = mpc.ilqr(problem()), mpc.ilqr(problem(4))
SEARCH = mpc.cem(problem(), samples=16, elites=4)


@pytest.mark.parametrize("planner", [mpc.icem, mpc.cem, mpc.mppi])
def test_models_without_derivatives_are_planned_for_by_sampling(planner):
    loop = mpc.Problem(
        lambda p, s, a: jax.lax.while_loop(lambda x: x[0] < -5, lambda x: x + 1, s) + 0.3 * a,
        lambda p, s, a, t: s @ s,
        horizon=4,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    plan = mpc.solve(planner(loop), None, jnp.ones(1), KEY, 10)
    assert float(plan.cost) < 2.5 and "costates" not in plan.info  # doing nothing costs 4


def test_memories_of_others_are_refused():
    found = mpc.solve(LONG, None, START, KEY, 2)
    for planner, memory, words in (
        (
            LONG,
            mpc.solve(SHORT, None, START, KEY, 2).memory,
            r"problem of the same sizes.*shape \[4, 1\], \[6, 1\] was wanted",
        ),
        (LONG, mpc.solve(SEARCH, None, START, KEY, 2).memory, "same planner, a WideState; got SamplingState"),
        (LONG, found, "same planner, a WideState; got Plan"),
        (SEARCH, found.memory, "same planner, a SamplingState; got WideState"),
        (LONG, jax.tree.map(lambda x: jnp.stack([x, x]), found.memory), "not of several at once"),
    ):
        with pytest.raises(ValueError, match=words):
            mpc.solve(planner, None, START, KEY, 2, memory=memory)


@pytest.mark.parametrize("planner", [LONG, SEARCH, mpc.gradient(problem(), starts=1)])
def test_what_is_not_finite_leaves_no_trace(planner):
    fresh = mpc.solve(planner, None, START, KEY, 30)
    begun = mpc.solve(planner, None, jnp.full(2, jnp.nan), KEY, 3)
    assert begun.status == mpc.Status.NOT_FINITE
    after = mpc.solve(planner, None, START, KEY, 30, memory=begun.memory)
    guessed = mpc.solve(planner, None, START, KEY, 30, guess=jnp.full((6, 1), jnp.nan))
    for plan in (after, guessed):
        assert float(plan.cost) == pytest.approx(float(fresh.cost), rel=2e-2)


def test_settings_and_guesses_are_checked():
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"guess": np.zeros((5, 1))}, r"a guess must be actions of shape \[6, 1\]; got \[5, 1\]"),
        ({"iterations": 2.0}, r"iterations must be a whole number, at least 0; got 2\.0"),
        ({"iterations": -1}, "at least 0; got -1"),
        ({"tolerance": float("nan")}, "tolerance must be a number, or None; got nan"),
        ({"tolerance": "tight"}, "got 'tight'"),
    )
    for settings, words in cases:
        with pytest.raises(ValueError, match=words):
            mpc.solve(LONG, None, START, KEY, **settings)
    unscored = mpc.solve(LONG, None, START, KEY, 0, guess=jnp.zeros((6, 1)))
    assert float(unscored.cost) == pytest.approx(6.0) and unscored.status == mpc.Status.ITERATIONS
