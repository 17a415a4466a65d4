"""Path integral control against closed forms, a known optimum and bad models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mpc
from mpc.planners.mppi import adapted, softmin


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**30), scale=st.floats(-4, 6), wanted=st.floats(1.5, 60))
def test_the_temperature_gives_the_wanted_number_of_samples(seed, scale, wanted):
    costs = 10.0**scale * jax.random.normal(jax.random.key(seed), (100,)) ** 2
    excess = costs - costs.min()
    assume(jnp.sort(excess)[1] > 1e-6 * excess.max())  # two nearer ones count alike
    weights = softmin(excess, jax.jit(adapted)(excess, wanted))
    assert float(1 / jnp.sum(weights**2)) == pytest.approx(wanted, rel=2e-2)
    assert float(weights.sum()) == pytest.approx(1.0, rel=1e-5)


def test_one_step_moves_to_the_mean_of_the_posterior():
    # E = ½ x²/v with noise N(m, σ²) and weights exp(-E/λ): the product of two Gaussians, whose mean is m / (1 + σ²/(λ v))
    problem = mpc.Problem(
        lambda p, s, a: s,
        lambda p, s, a, t: 0.5 * a[0] ** 2 / 0.5 + 0 * s[0],
        horizon=1,
        action_space=mpc.Box([-9.0], [9.0]),
    )
    planner = mpc.mppi(problem, samples=20000, temperature=2.0, spread=0.1, cooling=1.0)
    planner_state = planner.init(None, jnp.zeros(1), jax.random.key(0), jnp.array([[1.8]]))
    moved = planner.step(None, jnp.zeros(1), planner_state).distribution.mean
    assert 9 * float(moved[0, 0]) == pytest.approx(1.8 / (1 + 0.9**2 / (2.0 * 0.5)), rel=2e-3)


def test_the_double_integrators_optimum_is_approached():
    problem = mpc.Problem(
        lambda p, s, a: jnp.stack([s[0] + 0.1 * s[1], s[1] + 0.1 * a[0]]),
        lambda p, s, a, t: s @ s + 0.1 * a @ a,
        lambda p, s: s @ s,
        horizon=20,
        action_space=mpc.Box([-3.0], [3.0]),
    )
    start = jnp.array([1.0, -0.5])
    exact = mpc.solve(mpc.gradient(problem, starts=2), None, start, jax.random.key(0), iterations=300)
    plan = mpc.solve(mpc.mppi(problem), None, start, jax.random.key(0), iterations=60)
    assert float(plan.cost) == pytest.approx(float(exact.cost), rel=2e-3)


@pytest.mark.parametrize("space", [mpc.Box([-2.0, 0.0], [1.0, 0.0]), mpc.Discrete(3), mpc.MultiBinary(2)])
def test_every_space_every_status_and_every_key(space):
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a[:1] - p, lambda p, s, a, t: jnp.sum(s * s), horizon=4, action_space=space
    )
    planner = mpc.mppi(problem, samples=16, knots=2)

    def run(seed: int, model: float) -> mpc.Plan:
        return mpc.solve(planner, jnp.asarray(model), jnp.ones(1), jax.random.key(seed), iterations=3)

    np.testing.assert_array_equal(run(0, 0.0).actions, run(0, 0.0).actions)
    assert run(0, 0.0).status == mpc.Status.ITERATIONS
    broken = run(0, np.nan)
    assert broken.status == mpc.Status.NOT_FINITE and np.isfinite(broken.actions).all()
    together = jax.vmap(lambda k: mpc.solve(planner, 0.0, jnp.ones(1), k, iterations=3).cost)(
        jax.random.split(jax.random.key(3), 2)
    )
    alone = [mpc.solve(planner, 0.0, jnp.ones(1), k, iterations=3).cost for k in jax.random.split(jax.random.key(3), 2)]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"samples": 1}, {"spread": 0.0}, {"effective": 1.0}, {"cooling": 0.0}, {"temperature": -1.0}, {"exponent": -1}],
)
def test_impossible_settings_are_refused(wrong: Any):
    problem = mpc.Problem(lambda p, s, a: s, lambda p, s, a, t: jnp.sum(s), horizon=4, action_space=mpc.Box([-1.0], [1.0]))
    with pytest.raises(ValueError, match=r"mppi|effective"):
        mpc.mppi(problem, **wrong)
