"""A walker that the wind takes left or right: what its latent variable tells, and what it may not tell."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from world_models import data, trainer
from world_models.data import About, Dataset
from world_models.latent_variables import energy, latent_variable_model
from world_models.losses import bottleneck
from world_models.networks import MLPPosterior, MLPPredictor, ObjectPosterior, ObjectPredictor

SMALL = {
    "predictor": partial(MLPPredictor, hidden=(32, 32)),
    "posterior": partial(MLPPosterior, hidden=(32, 32)),
    "normalised": False,
}


def windy(episodes=200, length=8) -> Dataset:
    """`x' = x + a/2 + w`, with w = -1, 0, 1 at odds of a quarter, a half and a quarter; and y, which nothing moves."""
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (episodes, length, 1))
    wind = random.choice([-1.0, 0.0, 0.0, 1.0], (episodes, length, 1))
    start = random.uniform(-1, 1, (episodes, 1, 2))
    x = start[..., :1] + np.concatenate([np.zeros((episodes, 1, 1)), np.cumsum(actions / 2 + wind, axis=1)], axis=1)
    seen = np.concatenate([x, np.repeat(start[..., 1:], length + 1, axis=1)], axis=-1)
    rows = episodes * (length + 1)
    return Dataset(
        observations=seen.reshape(rows, 2).astype(np.float32),
        actions=np.pad(actions, ((0, 0), (0, 1), (0, 0))).reshape(rows, 1).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
        lengths=np.full(episodes, length),
        about=About("wind"),
    )


LIMITS = {
    "noise": (bottleneck.gaussian(), 1),
    "discrete": (bottleneck.discrete(4), 1),
    "unrestricted": (bottleneck.deterministic(), 2),
}


@pytest.fixture(scope="module")
def learnt():
    """`name -> model, parameters`, learnt once each."""
    made = {}

    def learn(name, updates=1000):
        if name not in made:
            limit, latents = LIMITS[name]
            model = latent_variable_model(2, 1, latents=latents, limit=limit, free_nats=0.5, **SMALL)
            fall = optax.adam(optax.cosine_decay_schedule(5e-3, updates, 0.01))
            model_trainer = trainer(model, optimizer=fall, batch=64, length=1, updates=updates, averaging=0.99)
            training, _ = model_trainer.fit(model_trainer.init(jax.random.key(0)), data.resident(windy(), 1))
            made[name] = model, training.params
        return made[name]

    return learn


def blown(model, params, wind):
    """Errors of the future that the wind made: under the inferred latent, under zero."""

    @jax.jit
    def errors(params, wind):
        before, action = jnp.array([0.3, -0.4]), jnp.array([0.5])
        start, came = (model.encode(params, o) for o in (before, before + jnp.stack([0.25 + wind, 0.0])))
        found = model.infer_latent(params, start, action, came)
        return [jnp.sum((model.predict(params, start, action, z).latent - came.latent) ** 2) for z in (found, 0 * found)]

    return [float(x) for x in errors(params, jnp.float32(wind))]


def test_inferred_latents_explain_what_zero_cannot(learnt):
    model, params = learnt("noise")
    for wind in (-1.0, 1.0):
        inferred, zero = blown(model, params, wind)
        assert inferred < 0.2 * zero and zero > 0.5
    assert blown(model, params, 0.0)[1] < 0.1  # the mean of all futures is a calm


def drawn(model, params):
    """States that latents drawn at random lead to."""
    start, action = model.encode(params, jnp.array([0.3, -0.4])), jnp.array([0.5])
    draws = jax.random.normal(jax.random.key(3), (2000, model.latents))
    return jax.jit(jax.vmap(lambda z: model.predict(params, start, action, z).latent))(draws)


def test_drawn_latents_blow_as_often_as_the_wind(learnt):
    """A quarter, a half and a quarter: two of four levels stand for the calm."""
    model, params = learnt("discrete")
    after = drawn(model, params)
    moved = np.asarray(after[:, 0]) - 0.55
    shares = [(moved < -0.4).mean(), (np.abs(moved) < 0.4).mean(), (moved > 0.4).mean()]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.05)
    np.testing.assert_allclose(after[:, 1], -0.4, atol=0.05)


def test_a_latent_without_a_limit_tells_the_future_and_cannot_be_drawn(learnt):
    """It is right about what came, once it is told; but what is drawn is mostly weather that never was."""
    model, params = learnt("unrestricted")
    assert blown(model, params, 1.0)[0] < 1e-3
    between = {}
    for name in ("discrete", "unrestricted"):
        moved = np.abs(np.asarray(drawn(*learnt(name))[:, 0]) - 0.55)
        between[name] = (np.abs(moved[:, None] - np.array([0.0, 1.0])) > 0.25).all(axis=1).mean()
    assert between["unrestricted"] > 0.4 and between["discrete"] < between["unrestricted"]


def test_energy_is_that_of_a_normal_distribution():
    error, sigma = jnp.array([0.3, -2.0]), 0.5
    density = [np.exp(-0.5 * (e / sigma) ** 2) for e in (0.3, -2.0)]
    np.testing.assert_allclose(energy(error, sigma), -np.log(density).sum(), rtol=1e-5)


def test_objects_are_treated_alike_and_apart():
    """Whoever swaps two objects and their latents gets the swapped future, and one's latent moves nobody else."""
    share = {"own": 2, "objects": 3, "hidden": (16,)}
    model = latent_variable_model(
        8,
        1,
        latents=3,
        normalised=False,
        predictor=partial(ObjectPredictor, **share),
        posterior=partial(ObjectPosterior, **share),
    )
    params, infer_latent = model.init(jax.random.key(0)), model.infer_latent
    assert infer_latent is not None
    seen, z, action = jax.random.normal(jax.random.key(1), (8,)), jnp.array([0.5, -1.0, 2.0]), jnp.array([0.3])
    swap = jnp.array([0, 1, 4, 5, 2, 3, 6, 7])

    @jax.jit
    def after(seen, z):
        start = model.encode(params, seen)
        following = model.predict(params, start, action, z)
        return following.latent, infer_latent(params, start, action, following)

    (plain, told), (swapped, told_swapped) = after(seen, z), after(seen[swap], z[jnp.array([1, 0, 2])])
    np.testing.assert_allclose(swapped, plain[swap], atol=1e-6)
    np.testing.assert_allclose(told_swapped, told[jnp.array([1, 0, 2])], atol=1e-4)
    other = after(seen, z.at[1].set(3.0))[0]
    same = np.asarray(other == plain)
    assert same[[0, 1, 2, 3, 6, 7]].all() and not same[[4, 5]].any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="latents >= 1"):
        latent_variable_model(2, 1, latents=0)
    with pytest.raises(ValueError, match="cannot be divided equally among 3"):
        latent_variable_model(7, 1, latents=3, predictor=partial(ObjectPredictor, own=3, objects=3))
    model = latent_variable_model(2, 1, latents=1, **SMALL)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"latent variable of size 1; got none"):
        model.predict(params, model.encode(params, jnp.zeros(2)), jnp.zeros(1))
