"""Tests of priors: their density, frequencies of samples, and a context that excludes some codes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from world_models.networks import QuantilePrior

BINS, EDGE = 8, 3.5
CONTEXT = jnp.array([0.3, -1.2])


@pytest.fixture(scope="module")
def prior():
    """Returns an untrimmed prior of two coordinates with large weights, so that it is not uniform."""
    made = QuantilePrior(2, 2, bins=BINS, trim=0.0, hidden=(16,), head=16, rngs=nnx.Rngs(0))
    for head in made.heads:
        head.kernels[-1][...] = 6.0 * head.kernels[-1][...]
    return made


def test_the_density_integrates_to_one(prior):
    middles = EDGE * ((2 * np.arange(BINS) + 1) / BINS - 1)
    codes = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1)
    density = np.exp(prior.log_density(jnp.broadcast_to(CONTEXT, codes.shape), jnp.asarray(codes)))
    assert density.sum() * (2 * EDGE / BINS) ** 2 == pytest.approx(1.0, rel=1e-5)
    assert density.max() > 10 * density.min()


def test_sampled_codes_follow_the_density(prior):
    noise = jax.random.normal(jax.random.key(0), (40_000, 2))
    codes = np.asarray(prior.code(jnp.broadcast_to(CONTEXT, noise.shape), noise))
    counted, edges, _ = np.histogram2d(*codes.T, bins=BINS, range=[[-EDGE, EDGE]] * 2)
    middles = jnp.asarray(np.stack(np.meshgrid(*[(edges[1:] + edges[:-1]) / 2] * 2, indexing="ij"), axis=-1))
    odds = np.exp(prior.log_density(jnp.broadcast_to(CONTEXT, middles.shape), middles)) * (2 * EDGE / BINS) ** 2
    np.testing.assert_allclose(counted / len(codes), odds, atol=0.01)


def test_noise_inverts_code(prior):
    noise = jnp.clip(jax.random.normal(jax.random.key(1), (100, 2)), -2.5, 2.5)
    context = jax.random.normal(jax.random.key(2), (100, 2))
    np.testing.assert_allclose(prior.noise(context, prior.code(context, noise)), noise, atol=2e-2)


def test_codes_at_the_edges_have_the_largest_noise(prior):
    """Sums of probabilities can round to slightly more than 1; the noise must still be finite."""
    context = jax.random.normal(jax.random.key(6), (2000, 2))
    for side in (-1.0, 1.0):
        noise = prior.noise(context, jnp.full_like(context, side * EDGE))
        np.testing.assert_array_equal(noise, jnp.full_like(noise, side * 3.0))


def test_codes_without_data_are_never_sampled():
    """Codes lie around -1 or 1; a non-zero context allows only the code of its sign."""
    key = jax.random.key(3)
    sides = jax.random.randint(key, (2000,), -1, 2)
    either = jnp.sign(jax.random.normal(jax.random.key(4), sides.shape))
    signs = jnp.where(sides == 0, either, sides)
    codes = signs[:, None] + 0.1 * jax.random.normal(jax.random.key(5), (2000, 1))
    contexts = sides[:, None].astype(jnp.float32)
    graph, weights = nnx.split(QuantilePrior(1, 1, bins=16, hidden=(16,), head=16, rngs=nnx.Rngs(0)))
    rule = optax.adam(0.02)

    @jax.jit
    def learn(weights):
        def update(carry, _):
            weights, state = carry
            slopes = jax.grad(lambda w: -nnx.merge(graph, w).log_density(contexts, codes).mean())(weights)
            steps, state = rule.update(slopes, state)
            return (optax.apply_updates(weights, steps), state), None

        return jax.lax.scan(update, (weights, rule.init(weights)), length=150)[0][0]

    learnt, noise = nnx.merge(graph, learn(weights)), jnp.linspace(-3.0, 3.0, 201)[:, None]
    left, both, right = (learnt.code(jnp.full_like(noise, side), noise)[:, 0] for side in (-1.0, 0.0, 1.0))
    assert left.max() < -0.4 < 0.4 < right.min()  # for any noise
    share = float(jax.scipy.stats.norm.cdf(noise[:, 0])[jnp.argmax(both > 0)])
    assert share == pytest.approx(0.5, abs=0.1) and jnp.mean(jnp.abs(both) < 0.4) < 0.01
