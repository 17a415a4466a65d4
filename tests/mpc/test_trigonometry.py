"""Sine, cosine and tangent against NumPy's in float64, and their derivatives against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc import trigonometry

pytestmark = pytest.mark.usefixtures("optimised")  # of large numbers, products have to be fused with the sums behind them

NAMES = ("sin", "cos")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("most", [1.0, 10.0, 1e3, 1e5, 1e6])
def test_values_agree_with_numpy(name, most):
    x = np.random.default_rng(0).uniform(-most, most, 100_000).astype(np.float32)
    found = np.asarray(jax.jit(getattr(trigonometry, name))(x), np.float64)
    wanted = getattr(np, name)(x.astype(np.float64))
    assert np.abs(found - wanted).max() <= max(2e-7, 1e-3 * np.spacing(np.float32(most)))


def test_tangent_agrees_with_numpy():
    x = np.linspace(-1.5, 1.5, 10_001, dtype=np.float32)
    np.testing.assert_allclose(trigonometry.tan(x), np.tan(x.astype(np.float64)), rtol=5e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "derivative"), [("sin", np.cos), ("cos", lambda x: -np.sin(x))])
def test_derivatives_forwards_backwards_and_twice(name, derivative):
    function, x = getattr(trigonometry, name), jnp.linspace(-7.0, 7.0, 101)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(jax.vmap(jax.grad(function))(x), derivative(exact), atol=3e-7)
    np.testing.assert_allclose(jax.vmap(jax.jacfwd(function))(x), derivative(exact), atol=3e-7)
    np.testing.assert_allclose(jax.vmap(jax.hessian(function))(x), -getattr(np, name)(exact), atol=3e-7)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_sine_has_none_and_other_types_keep_theirs(name):
    function = getattr(trigonometry, name)
    assert np.isnan(function(jnp.asarray([jnp.inf, -jnp.inf, jnp.nan]))).all()
    half = jnp.ones(3, jnp.float16)
    assert function(half).dtype == jnp.float16
    np.testing.assert_array_equal(function(half), getattr(jnp, name)(half))


@pytest.mark.parametrize("name", NAMES)
def test_of_however_large_a_number_it_is_bounded(name):
    x = np.float32(10.0) ** np.linspace(5, 38, 100_000, dtype=np.float32)
    assert np.abs(getattr(trigonometry, name)(np.concatenate([x, -x]))).max() <= 1.0 + 2e-7


def test_vmapped_solves_with_it_equal_single_ones():
    """And the energy is that of the model with the library's sine."""

    def problem(sin, cos) -> mpc.Problem:
        return mpc.Problem(
            lambda p, s, a: s + 0.05 * jnp.stack([s[1], 15.0 * sin(s[0]) + 3.0 * a[0]]),
            lambda p, s, a, t: 1.0 - cos(s[0]) + 0.1 * s[1] ** 2,
            horizon=20,
            action_space=mpc.Box([-2.0], [2.0]),
        )

    planner = mpc.gradient(problem(trigonometry.sin, trigonometry.cos), starts=1)
    states, key = jnp.array([[3.0, 0.0], [1.0, -2.0], [-20.0, 0.5]]), jax.random.key(0)
    together = jax.vmap(lambda s: mpc.solve(planner, None, s, key, iterations=20).actions)(states)
    for state, actions in zip(states, together, strict=True):
        alone = mpc.solve(planner, None, state, key, iterations=20)
        np.testing.assert_allclose(actions, alone.actions, atol=1e-4)
        library = mpc.energy(problem(jnp.sin, jnp.cos), None, state, alone.actions)
        assert float(alone.cost) == pytest.approx(float(library), rel=1e-5)
