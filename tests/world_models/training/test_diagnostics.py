"""The diagnostics against spectra that are known by construction, and least squares by NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models.training import diagnostics


def _with_spectrum(values: list[float], batch: int = 50, offset: float = 0.0) -> jax.Array:
    """Make centred embeddings with these singular values, then move them all by an offset."""
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(np.column_stack([np.ones(batch), random.normal(size=(batch, len(values)))]))
    right, _ = np.linalg.qr(random.normal(size=(len(values), len(values))))
    return jnp.asarray(left[:, 1:] * values @ right + offset, jnp.float32)


def _rank(values: list[float]) -> float:
    shares = np.array([value for value in values if value > 0.0])
    shares = shares / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("values", [[9.0] * 6, [5.0, 0.0, 0.0], [4.0, 4.0, 0.0, 0.0], [8.0, 4.0, 2.0, 1.0]])
def test_effective_rank_is_the_entropy_of_the_spectrum(values: list[float], offset: float):
    rank = jax.jit(diagnostics.effective_rank)(_with_spectrum(values, offset=offset))
    np.testing.assert_allclose(rank, _rank(values), rtol=1e-2)


@pytest.mark.parametrize("value", [0.0, 1 / 3, -1e4])
def test_embeddings_that_are_all_equal_have_rank_one(value: float):
    report = jax.jit(diagnostics.collapse_report)(jnp.full((1000, 16), value))
    assert report["effective_rank"] == 1.0
    assert report["std_max"] <= 1e-5 * abs(value)


def test_the_report_leaves_padding_out():
    random = np.random.default_rng(1)
    z = (random.normal(size=(30, 4)) * [0.1, 1.0, 2.0, 0.5]).astype(np.float32)
    padded = jnp.asarray(np.concatenate([z, np.full((10, 4), np.nan, np.float32)]))
    report = jax.jit(diagnostics.collapse_report)(padded, (jnp.arange(40) < 30).astype(jnp.float32))
    spread = z.std(axis=0, ddof=1)
    np.testing.assert_allclose(report["std_min"], spread.min(), rtol=1e-4)
    np.testing.assert_allclose(report["std_mean"], spread.mean(), rtol=1e-4)
    np.testing.assert_allclose(report["std_max"], spread.max(), rtol=1e-4)
    spectrum = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(report["effective_rank"], _rank(spectrum.tolist()), rtol=1e-4)


def test_a_probe_scores_what_is_linear_and_not_what_is_absent():
    random = np.random.default_rng(2)
    z = random.normal(size=(400, 8)).astype(np.float32)
    linear = z @ random.normal(size=8) + 50.0
    targets = np.column_stack([linear, 1e-3 * linear, random.normal(size=400), np.full(400, 0.1)])
    score = jax.jit(diagnostics.linear_probe_r2)(jnp.asarray(z), jnp.asarray(targets, jnp.float32))
    assert score[0] > 0.999
    assert score[1] > 0.999
    assert score[2] < 0.1
    assert score[3] == 0.0


def test_an_almost_free_probe_is_least_squares_on_held_out_rows():
    random = np.random.default_rng(3)
    z = random.normal(size=(60, 3)).astype(np.float32) + 2.0
    y = (z @ random.normal(size=(3, 2)) + random.normal(size=(60, 2))).astype(np.float32)
    ones = np.ones((60, 1))
    design = np.concatenate([z, ones], axis=1)
    fit = np.linalg.lstsq(design[:45], y[:45])[0]
    error = ((y[45:] - design[45:] @ fit) ** 2).sum(0)
    wanted = 1.0 - error / ((y[45:] - y[45:].mean(0)) ** 2).sum(0)
    score = jax.jit(partial(diagnostics.linear_probe_r2, ridge=1e-7))(jnp.asarray(z), jnp.asarray(y))
    np.testing.assert_allclose(score, wanted, rtol=1e-3, atol=1e-4)


def test_a_probe_of_a_collapsed_encoder_finds_nothing():
    targets = jnp.asarray(np.random.default_rng(4).normal(size=(100, 2)), jnp.float32)
    assert (jax.jit(diagnostics.linear_probe_r2)(jnp.full((100, 5), 0.7), targets) <= 0.0).all()


def test_a_probe_needs_rows_to_fit_and_to_score():
    with pytest.raises(ValueError, match="two rows"):
        diagnostics.linear_probe_r2(jnp.ones((4, 2)), jnp.ones((4, 1)), held_out=0.1)
