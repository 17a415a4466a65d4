"""Tests of the loss terms: closed forms, NumPy's covariance, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models.losses.terms import episode_contrast, variance_covariance


def _embeddings(seed: int = 0, batch: int = 40, dim: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(batch, dim)) @ random.normal(size=(dim, dim)) + 3.0).astype(np.float32)


def _reference(z: np.ndarray, floor: float) -> tuple[float, float]:
    """Returns both terms by the formulas of the paper, with NumPy's covariance."""
    matrix = np.cov(z.astype(np.float64), rowvar=False)
    hinge = np.maximum(0.0, floor - np.sqrt(np.diag(matrix) + 1e-4)).mean()
    return float(hinge), float((matrix**2).sum() - (np.diag(matrix) ** 2).sum()) / z.shape[1]


@pytest.mark.parametrize("floor", [1.0, 3.0])
def test_variance_and_covariance_match_the_paper(floor: float):
    z = _embeddings()
    hinge, off_diagonal = _reference(z, floor)
    loss, terms = variance_covariance(jnp.asarray(z), variance_weight=7.0, covariance_weight=0.5, floor=floor)
    np.testing.assert_allclose(terms["variance"], hinge, rtol=1e-4)
    np.testing.assert_allclose(terms["covariance"], off_diagonal, rtol=1e-4)
    np.testing.assert_allclose(loss, 7.0 * hinge + 0.5 * off_diagonal, rtol=1e-4)


def test_integer_weights_equal_repeated_rows():
    z, weights = _embeddings(batch=12), np.array([0, 1, 2, 1, 3, 1, 0, 1, 1, 2, 1, 1])
    repeated = variance_covariance(jnp.asarray(np.repeat(z, weights, axis=0)), floor=3.0)
    weighted = variance_covariance(jnp.asarray(z), jnp.asarray(weights, jnp.float32), floor=3.0)
    np.testing.assert_allclose(jax.tree.leaves(weighted), jax.tree.leaves(repeated), rtol=1e-4)


def test_padding_is_ignored_even_if_it_is_nan():
    z = _embeddings(batch=20)
    weights = jnp.arange(20) < 13
    padded = jnp.asarray(z).at[13:].set(jnp.nan)

    def loss(rows: jax.Array, weights: jax.Array | None = None) -> jax.Array:
        return variance_covariance(rows, weights, floor=3.0)[0]

    loss_and_slope = jax.jit(jax.value_and_grad(loss))
    value, slope = loss_and_slope(padded, weights.astype(jnp.float32))
    wanted, wanted_slope = loss_and_slope(padded[:13])
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(slope[:13], wanted_slope, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(slope[13:], 0.0)


def test_the_gradient_agrees_with_finite_differences():
    z, direction = jnp.asarray(_embeddings()), jnp.asarray(_embeddings(1) - 3.0)

    @jax.jit
    def along(step: float) -> jax.Array:
        return variance_covariance(z + step * direction, floor=3.0)[0]

    slope = jax.grad(along)(0.0)
    np.testing.assert_allclose(slope, (along(1e-2) - along(-1e-2)) / 2e-2, rtol=1e-2)


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_a_collapsed_batch_is_penalised_with_a_finite_gradient(rows: int):
    z = jnp.full((rows, 4), 0.3)
    loss, slope = jax.jit(jax.value_and_grad(lambda z: variance_covariance(z)[0]))(z)
    np.testing.assert_allclose(loss, 25.0 * (1.0 - 1e-2), rtol=1e-5)
    assert jnp.isfinite(slope).all()


def test_an_empty_batch_has_a_finite_gradient():
    slope = jax.jit(jax.grad(lambda z: variance_covariance(z, jnp.zeros(6))[0]))(jnp.ones((6, 3)))
    np.testing.assert_array_equal(slope, 0.0)


def test_minimising_the_terms_removes_a_collapse():
    z = 1e-3 * jnp.asarray(_embeddings(2, batch=64, dim=4))
    slope = jax.jit(jax.grad(lambda z: variance_covariance(z)[0]))
    for _ in range(1000):
        z = z - 0.5 * slope(z)
    matrix = np.cov(np.asarray(z), rowvar=False)
    assert (np.sqrt(np.diag(matrix)) > 0.95).all()
    assert np.abs(matrix - np.diag(np.diag(matrix))).max() < 0.05


def test_episode_contrast_is_log_n_for_equal_windows_and_zero_for_distinct_ones():
    same = jnp.ones((8, 3, 4))
    assert abs(float(episode_contrast(same)) - np.log(8)) < 1e-5
    apart = same * jnp.arange(8.0)[:, None, None]
    assert float(episode_contrast(apart)) < 1e-3
    moving = apart.at[..., 2:].set(jax.random.normal(jax.random.key(0), (8, 3, 2)))  # the second half is free to move
    assert float(episode_contrast(moving)) < 1e-3
    broken = jnp.concatenate([same, jnp.full((2, 3, 4), jnp.nan)])
    counted = jnp.ones((10, 3)).at[8:].set(0.0)
    assert abs(float(episode_contrast(broken, counted)) - np.log(8)) < 1e-5
