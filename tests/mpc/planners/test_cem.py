"""The cross-entropy methods against known optima, brute force and bad models."""

from itertools import product
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.planners.knots import knots_in_time
from mpc.planners.sampling import colouring, gaussian_noise


def integrator(horizon: int = 8) -> mpc.Problem:
    """One number driven by a bounded action, with a quadratic cost."""
    return mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: s @ s + 0.001 * a @ a,
        horizon=horizon,
        action_space=mpc.Box([-1.0], [1.0]),
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda problem: mpc.cem(problem, samples=256, smoothness=0.0),
        lambda problem: mpc.icem(problem, samples=256, exponent=0.0, elites=32),
    ],
)
def test_the_linear_quadratic_optimum_is_found(build):
    problem, start = integrator(), jnp.array([0.3])
    exact = mpc.solve(mpc.gradient(problem, starts=2), None, start, jax.random.key(0), iterations=400)
    plan = mpc.solve(build(problem), None, start, jax.random.key(0), iterations=40)
    assert float(plan.cost) == pytest.approx(float(exact.cost), rel=5e-3)
    assert (np.abs(plan.actions) <= 1).all()


@pytest.mark.parametrize("space", [mpc.Discrete(3, start=5), mpc.MultiDiscrete([3, 2]), mpc.MultiBinary(2)])
def test_categorical_search_finds_what_brute_force_does(space):
    effect = np.random.default_rng(3).normal(size=space.size)
    problem = mpc.Problem(
        lambda p, s, a: 0.8 * s + jnp.stack([jnp.sum(effect * a), jnp.sin(s[0]) + a[0]]),
        lambda p, s, a, t: s @ s + 0.3 * a[1],
        lambda p, s: 3 * s @ s,
        horizon=3,
        action_space=space,
    )
    start = jnp.array([1.5, -1.0])
    each = np.stack(list(product(*[range(first, first + n) for n, first in zip(space.choices, space.start, strict=True)])))
    each = each.reshape((-1, *space.shape))
    futures = jnp.stack([jnp.stack(actions) for actions in product(each, repeat=3)])
    costs = jax.jit(jax.vmap(lambda a: mpc.energy(problem, None, start, space.embed(a))))(futures)
    plan = mpc.solve(mpc.cem(problem, samples=128, elites=16), None, start, jax.random.key(0), iterations=15)
    assert plan.actions.tolist() == futures[jnp.argmin(costs)].tolist()
    assert float(plan.cost) == pytest.approx(float(costs.min()), rel=1e-5)


def test_a_guess_is_where_categorical_search_begins():
    problem = mpc.Problem(
        lambda p, s, a: s, lambda p, s, a, t: jnp.sum(s) + 0 * a[0], horizon=4, action_space=mpc.Discrete(50, start=3)
    )
    guess = jnp.array([3, 40, 7, 52])
    plan = mpc.solve(mpc.categorical_cem(problem), None, jnp.ones(1), jax.random.key(0), iterations=0, guess=guess)
    assert plan.actions.tolist() == guess.tolist()


@pytest.mark.parametrize("build", [mpc.cem, mpc.icem])
def test_a_model_that_breaks_gives_a_status(build):
    problem = mpc.Problem(
        lambda p, s, a: s * jnp.nan, lambda p, s, a, t: jnp.sum(s), horizon=4, action_space=mpc.Box([-1.0], [1.0])
    )
    plan = mpc.solve(build(problem, samples=16, elites=4), None, jnp.ones(1), jax.random.key(0), iterations=3)
    assert plan.status == mpc.Status.NOT_FINITE and np.isfinite(plan.actions).all()


@pytest.mark.parametrize("build", [mpc.cem, mpc.icem])
def test_jit_is_eager_vmap_is_a_loop_and_the_key_decides(build):
    planner = build(integrator(5), samples=32, elites=4)
    states, keys = jnp.array([[0.3], [-0.7]]), jax.random.split(jax.random.key(1), 2)
    together = jax.vmap(lambda s, k: mpc.solve(planner, None, s, k, iterations=4).actions)(states, keys)
    alone = [mpc.solve(planner, None, s, k, iterations=4).actions for s, k in zip(states, keys, strict=True)]
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-5)
    other = mpc.solve(planner, None, states[0], jax.random.key(9), iterations=4).actions
    assert not np.allclose(other, alone[0], atol=1e-4)
    planner_state = planner.init(None, states[0], keys[0])
    np.testing.assert_allclose(
        planner.step(None, states[0], planner_state).distribution.mean,
        jax.jit(planner.step)(None, states[0], planner_state).distribution.mean,
        atol=1e-6,
    )


def test_the_population_shrinks_and_unspent_samples_are_not_imagined():
    planner = mpc.icem(integrator(), samples=64, elites=8, decay=2.0)
    planner_state = planner.init(None, jnp.ones(1), jax.random.key(0))
    populations = []
    for _ in range(4):
        planner_state = jax.jit(planner.step)(None, jnp.ones(1), planner_state)
        populations.append(int(planner_state.distribution.population))
    assert populations == [32, 16, 16, 16]
    assert planner_state.distribution.elites.shape == (8, 1, 2)
    assert int(planner.shift(planner_state).distribution.population) == 64


@settings(max_examples=30, deadline=None)
@given(
    horizon=st.integers(2, 40),
    share=st.floats(0.05, 1.0),
    kind=st.sampled_from(["zero", "linear", "cubic"]),
)
def test_knots_reproduce_what_they_can_describe(horizon, share, kind):
    count = min(horizon, max(2, int(share * horizon)))
    knots = knots_in_time(horizon, count, kind)
    np.testing.assert_allclose(knots.matrix.sum(axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose(knots.inverse @ knots.matrix, np.eye(count), atol=1e-6)
    if kind != "zero":  # a straight line lies in the span, and its second half is the shifted plan
        line = np.arange(horizon) / horizon
        np.testing.assert_allclose(knots.matrix @ (knots.inverse @ line), line, atol=1e-6)
    plan = jnp.asarray(np.random.default_rng(0).normal(size=(count, 2)), float)
    later = knots.matrix @ np.asarray(knots.shift(plan))
    wanted = np.asarray(knots.expand(plan))[np.minimum(np.arange(horizon) + 1, horizon - 1)]
    if count == horizon:
        np.testing.assert_allclose(later, wanted, atol=1e-5)
    best = np.linalg.lstsq(knots.matrix, wanted, rcond=None)[0]
    np.testing.assert_allclose(later, knots.matrix @ best, atol=1e-4)


def test_zero_order_knots_are_held():
    problem = integrator(10)
    plan = mpc.solve(
        mpc.cem(problem, samples=32, elites=4, knots=2, interpolation="zero"), None, jnp.ones(1), jax.random.key(0), 5
    )
    assert len(np.unique(plan.actions[:5])) == 1 and len(np.unique(plan.actions[5:])) == 1


def test_noise_has_the_spectrum_asked_for_and_is_new_for_every_key():
    colour = colouring(64, 2.0)
    wanted = colour @ colour.T
    draw = jax.jit(gaussian_noise((64, 2, 256), colour))
    noise = np.concatenate([np.asarray(draw(key)) for key in jax.random.split(jax.random.key(0), 100)], axis=-1)
    covariance = np.cov(noise.reshape(128, -1))
    np.testing.assert_allclose(covariance, np.kron(wanted, np.eye(2)), atol=0.04)
    power = np.abs(np.fft.rfft(noise[:, 0] * np.hanning(64)[:, None], axis=0)) ** 2
    slope = np.polyfit(np.log(np.arange(3, 16)), np.log(power.mean(axis=1)[3:16]), 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.25)
    np.testing.assert_allclose(colouring(20, 0.0), np.eye(20), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: mpc.cem(p, samples=4, elites=8), "elites"),
        (lambda p: mpc.cem(p, spread=0.0), "spread"),
        (lambda p: mpc.cem(p, smoothness=1.0), "smoothness"),
        (lambda p: mpc.cem(p, knots=9), "knots"),
        (lambda p: mpc.icem(p, decay=0.5), "decay"),
        (lambda p: mpc.categorical_cem(p), "discrete"),
        (lambda p: mpc.cem(p, knots=4, interpolation=cast(Any, "quintic")), "interpolation"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(integrator())


@pytest.mark.parametrize(
    "build",
    [mpc.cem, mpc.icem, mpc.mppi, lambda p: mpc.predictive_sampling(p, knots=5), lambda p: mpc.collocation(p, starts=1)],
)
def test_every_planner_here_enforces_constraints(build):
    problem = mpc.Problem(
        lambda p, s, a: s + 0.2 * a,
        lambda p, s, a, t: jnp.sum((s - 1.0) ** 2),
        horizon=5,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=[mpc.constraints.inequality(lambda p, s, a, t: s - 0.5)],
    )
    plan = mpc.solve(build(problem), None, jnp.zeros(1), jax.random.key(0), iterations=100)
    assert plan.status == mpc.Status.ITERATIONS and float(plan.info["violation"]["inequality"]) <= 1e-5
    assert float(plan.cost) == pytest.approx(
        2.5, rel=2e-2
    )  # full speed to 0.5, and there to stay: 1 + 0.8² + 0.6² + 2 · 0.5²


def test_categorical_search_enforces_constraints():
    problem = mpc.Problem(
        lambda p, s, a: s + 0.2 * a @ jnp.array([-1.0, 0.0, 1.0, 0.5]),
        lambda p, s, a, t: jnp.sum((s - 1.0) ** 2),
        horizon=5,
        action_space=mpc.Discrete(4),
        constraints=[mpc.constraints.inequality(lambda p, s, a, t: s - 0.55)],
    )
    plan = mpc.solve(mpc.cem(problem, samples=64, elites=8), None, jnp.zeros(1), jax.random.key(0), iterations=60)
    assert plan.status == mpc.Status.ITERATIONS and float(plan.cost) == pytest.approx(2.5, rel=1e-5)


def test_a_proposal_competes_with_the_plan_under_way():
    """With two samples, they are all that is scored: the better one is the plan, whichever that is."""
    wanted = jnp.array([2, 0, 1, 2])
    problem = mpc.Problem(
        lambda p, s, a: s + 1.0,
        lambda p, s, a, t: 1.0 - a[wanted[t]],
        horizon=4,
        action_space=mpc.Discrete(3),
    )
    start, key = jnp.zeros(1), jax.random.key(0)
    planner = mpc.cem(problem, samples=2, elites=1)
    other = jnp.array([0, 0, 1, 1])
    for guess, proposal in ((wanted, other), (other, wanted)):
        planner_state = planner.step(None, start, planner.inject(planner.init(None, start, key, guess), proposal))
        assert planner.plan(None, start, planner_state).actions.tolist() == wanted.tolist()
        assert float(planner_state.cost) == 0.0


def test_a_continuous_proposal_competes_with_the_mean():
    problem, start, key = integrator(), jnp.array([0.3]), jax.random.key(0)
    planner = mpc.cem(problem, samples=2, elites=1)
    good = mpc.solve(mpc.gradient(problem, starts=2), None, start, key, iterations=400).actions
    for guess, proposal in ((good, -good), (-good, good)):
        planner_state = planner.inject(planner.init(None, start, key, guess), proposal)
        plan = planner.plan(None, start, planner.step(None, start, planner_state))
        np.testing.assert_allclose(plan.actions, good, atol=1e-6)
