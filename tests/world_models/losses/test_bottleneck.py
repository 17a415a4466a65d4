"""Tests of latent regularizers: comparison with closed forms and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models.losses import bottleneck

KEY = jax.random.key(0)


def test_gaussian_kl_is_the_divergence_from_a_standard_normal():
    raw = jnp.array([[[0.7, -0.4], [0.0, 0.0]]])  # mean, log deviation
    limit = bottleneck.gaussian()
    drawn = jax.vmap(lambda key: limit.draw(raw, key))(jax.random.split(KEY, 40_000))[:, 0]
    np.testing.assert_allclose(drawn.mean(axis=0), [0.7, 0.0], atol=0.02)
    np.testing.assert_allclose(drawn.std(axis=0), [np.exp(-0.4), 1.0], rtol=0.02)
    log_ratio = -0.5 * ((drawn[:, 0] - 0.7) / np.exp(-0.4)) ** 2 + 0.4 + 0.5 * drawn[:, 0] ** 2  # log of the density ratio
    np.testing.assert_allclose(limit.kl(raw)[0], log_ratio.mean(), atol=0.01)
    assert float(limit.kl(jnp.zeros((3, 2)))) == 0.0


def test_discrete_prior_is_uniform_and_kl_is_in_nats():
    limit = bottleneck.discrete(5)
    values, counts = np.unique(np.asarray(limit.shape(jax.random.normal(KEY, (50_000,)))), return_counts=True)
    assert len(values) == 5 and abs(counts / 50_000 - 0.2).max() < 0.01
    np.testing.assert_allclose(values, -values[::-1], atol=1e-6)
    odds = np.array([0.5, 0.25, 0.25, 0.0, 0.0])
    raw = jnp.log(jnp.asarray(odds) + 1e-12)[None]
    np.testing.assert_allclose(limit.kl(raw), np.log(5) - 1.5 * np.log(2), rtol=1e-5)  # entropy 1.5 bits
    drawn = jax.vmap(lambda key: limit.draw(raw, key))(jax.random.split(KEY, 20_000))[:, 0]
    np.testing.assert_allclose([(np.abs(drawn - v) < 1e-5).mean() for v in values], odds, atol=0.015)
    np.testing.assert_allclose(limit.shape(jnp.asarray(values)), values, rtol=1e-6)  # levels are unchanged


def test_samples_are_differentiable_in_the_posterior_parameters():
    for limit in (bottleneck.gaussian(), bottleneck.discrete(4), bottleneck.sparse(), bottleneck.deterministic()):
        raw = 0.1 * jax.random.normal(KEY, (3, limit.params_per_dim))
        slope = jax.grad(lambda raw, limit=limit: limit.draw(raw, KEY).sum())(raw)
        assert jnp.isfinite(slope).all() and (jnp.abs(slope).sum(axis=1) > 1e-3).all()
        assert limit.kl(raw[None]).shape == (1,)


def test_sparse_penalises_the_absolute_value_and_deterministic_nothing():
    raw = jnp.array([[2.0], [-0.5]])
    assert float(bottleneck.sparse(2.0).kl(raw)) == pytest.approx(5.0)
    assert float(bottleneck.deterministic().kl(raw)) == 0.0


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (bottleneck.discrete, {"levels": 1}, "levels >= 2"),
        (bottleneck.discrete, {"temperature": 0.0}, "temperature > 0"),
        (bottleneck.sparse, {"weight": -1.0}, "positive weight"),
    ],
)
def test_invalid_settings_raise(make, settings, said):
    with pytest.raises(ValueError, match=said):
        make(**settings)
