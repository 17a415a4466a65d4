"""Predictive sampling: it never loses ground, finds a known optimum, and survives bad models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc


def reach(horizon: int = 10, space=None) -> mpc.Problem:
    return mpc.Problem(
        lambda p, s, a: s + 0.2 * a[:1],
        lambda p, s, a, t: jnp.sum((s - 1.0) ** 2),
        horizon=horizon,
        action_space=mpc.Box([-1.0], [1.0]) if space is None else space,
    )


def test_it_never_loses_ground_and_ends_near_the_optimum():
    planner, state = mpc.predictive_sampling(reach(), knots=10), jnp.zeros(1)
    planner_state = planner.init(None, state, jax.random.key(0))
    costs = []
    for _ in range(60):
        planner_state = jax.jit(planner.step)(None, state, planner_state)
        costs.append(float(planner_state.cost))
    assert (np.diff(costs) <= 0).all()
    # full speed for five steps and then rest: 1 + 0.8² + 0.6² + 0.4² + 0.2²
    assert costs[-1] == pytest.approx(2.2, rel=5e-3)


def test_a_warm_start_is_as_good_as_its_shifted_plan():
    planner, state = mpc.predictive_sampling(reach(), knots=10, samples=8), jnp.zeros(1)
    plan = mpc.solve(planner, None, state, jax.random.key(0), iterations=30)
    again = mpc.solve(planner, None, state, jax.random.key(1), iterations=1, guess=plan.actions)
    assert float(again.cost) <= float(plan.cost) * (1 + 1e-5)


@pytest.mark.parametrize("space", [mpc.Discrete(3), mpc.MultiDiscrete([2, 3]), mpc.Box([-1.0], [0.5])])
def test_spaces_batches_and_broken_models(space):
    planner = mpc.predictive_sampling(reach(4, space), samples=8)
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(lambda k: mpc.solve(planner, None, jnp.zeros(1), k, iterations=3).cost)(keys)
    alone = [mpc.solve(planner, None, jnp.zeros(1), k, iterations=3).cost for k in keys]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5)
    broken = mpc.solve(planner, None, jnp.full(1, jnp.nan), keys[0], iterations=2)
    assert broken.status == mpc.Status.NOT_FINITE and np.isfinite(broken.actions).all()


def test_impossible_settings_are_refused():
    wrong: list[dict[str, Any]] = [{"samples": 1}, {"spread": 0.0}, {"scales": 0}, {"exponent": -1.0}]
    for settings in wrong:
        with pytest.raises(ValueError, match="predictive_sampling needs"):
            mpc.predictive_sampling(reach(), **settings)
