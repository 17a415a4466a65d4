"""Steps to go, against the length of a corridor whose ends lie side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models.distance import latent_distance, steps_to_go


def horseshoe(count: int) -> np.ndarray:
    """Places along a horseshoe whose ends nearly touch: 0.6 apart in the plane, where neighbours are 0.4 apart."""
    angles = np.linspace(0.3, 2 * np.pi - 0.3, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def learnt():
    places = jnp.asarray(horseshoe(16))
    random = np.random.default_rng(0)
    walks = [np.clip(np.cumsum(np.append(random.integers(16), random.choice([-1, 1], 60))), 0, 15) for _ in range(20)]
    latents, lengths = places[np.concatenate(walks)], np.full(20, 60)
    distance = steps_to_go(latent=2, size=8, hidden=(64, 64), updates=2000, batch=128)
    assert distance.fit is not None
    params, metrics = distance.fit(distance.init(jax.random.key(0)), jax.random.key(1), latents, np.arange(20) * 61, lengths)
    return distance, params, metrics, places


def test_distance_is_the_length_of_the_way_not_of_the_gap(learnt):
    distance, params, _, places = learnt
    between = jax.vmap(jax.vmap(distance.measure, (None, None, 0)), (None, 0, None))(params, places, places)
    steps = np.abs(np.arange(16)[:, None] - np.arange(16))
    assert np.corrcoef(np.asarray(between).ravel(), steps.ravel())[0, 1] > 0.95
    assert between[0, 15] > 0.6 * 15
    assert np.abs(np.diag(between)).max() == 0
    taken = np.asarray(between)[steps == 1]
    assert taken.max() < 1.25 and taken.mean() > 0.6


def test_whoever_descends_it_walks_round_the_gap(learnt):
    distance, params, _, places = learnt
    far = jax.vmap(distance.measure, (None, 0, None))(params, places, places[15])
    assert bool(jnp.all(far[:-1] > far[1:]))  # every step along the way is downhill, the first included
    plain = jax.vmap(latent_distance().measure, (None, 0, None))({}, places, places[15])
    assert plain[0] < plain[7]  # and not so in the plain distance


def test_metrics_say_how_well_the_unit_is_kept(learnt):
    assert learnt[2]["too_long"] < 0.1 and learnt[2]["far"] > 1


@pytest.mark.parametrize("make", [latent_distance, lambda: steps_to_go(latent=3, updates=1)])
def test_nothing_is_steep_at_the_goal(make):
    distance = make()
    params, z = distance.init(jax.random.key(0)), jnp.ones(3)
    assert distance.measure(params, z, z) == 0
    assert bool(jnp.isfinite(jax.grad(distance.measure, argnums=1)(params, z, z)).all())


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="reach must be positive"):
        steps_to_go(latent=3, reach=0.0)
