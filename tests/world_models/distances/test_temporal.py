"""Tests of the temporal distance: comparison with the length of a corridor whose ends are adjacent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models.distances.temporal import latent_distance, temporal_distance


def horseshoe(count: int) -> np.ndarray:
    """Returns positions along a horseshoe; its ends are 0.6 apart in the plane, and neighbours are 0.4 apart."""
    angles = np.linspace(0.3, 2 * np.pi - 0.3, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def learnt():
    places = jnp.asarray(horseshoe(16))
    random = np.random.default_rng(0)
    walks = [np.clip(np.cumsum(np.append(random.integers(16), random.choice([-1, 1], 60))), 0, 15) for _ in range(20)]
    latents, lengths = places[np.concatenate(walks)], np.full(20, 60)
    distance = temporal_distance(latent=2, size=16, parts=4, hidden=(64, 64), updates=3000, batch=64, learning_rate=1e-2)
    assert distance.fit is not None
    params, metrics = distance.fit(distance.init(jax.random.key(0)), jax.random.key(1), latents, np.arange(20) * 61, lengths)
    return distance, params, metrics, places


def test_the_distance_is_the_path_length_and_not_the_gap(learnt):
    distance, params, _, places = learnt
    between = jax.vmap(jax.vmap(distance.measure, (None, None, 0)), (None, 0, None))(params, places, places)
    steps = np.abs(np.arange(16)[:, None] - np.arange(16))
    assert np.corrcoef(np.asarray(between).ravel(), steps.ravel())[0, 1] > 0.95
    assert between[0, 15] > 0.6 * 15
    assert np.abs(np.diag(between)).max() == 0
    taken = np.asarray(between)[steps == 1]
    assert taken.max() < 1.25 and taken.mean() > 0.6


def test_descending_the_distance_leads_around_the_gap(learnt):
    distance, params, _, places = learnt
    far = jax.vmap(distance.measure, (None, 0, None))(params, places, places[15])
    assert bool(jnp.all(far[:-1] > far[1:]))  # the distance decreases with every step along the path
    plain = jax.vmap(latent_distance().measure, (None, 0, None))({}, places, places[15])
    assert plain[0] < plain[7]  # the plain distance does not


@pytest.mark.parametrize(("parts", "between"), [(1, (8 / 3) ** 0.5), (8, 2.0)])
def test_branching_paths_need_more_than_one_space(parts, between):
    """The tips of four arms of length L have path length 2L, and distance at most (8/3)^½ L in a Euclidean space."""
    arms, reach = 4, 6
    place = jnp.eye(1 + arms * reach)  # 0: the centre; 1 + a * reach + i: position i + 1 on arm a
    row = [[1 + a * reach + i for i in range(reach)] for a in range(arms)]
    pairs = [(a, b) for a in range(arms) for b in range(arms) if a != b]
    walks = np.array([[*row[a][::-1], 0, *row[b]] for a, b in pairs])
    steps = walks.shape[1] - 1
    distance = temporal_distance(latent=len(place), size=32, parts=parts, hidden=(64,), updates=2500, batch=128, penalty=1e4)
    assert distance.fit is not None
    first, lengths = np.arange(len(walks)) * (steps + 1), np.full(len(walks), steps)
    params, _ = distance.fit(distance.init(jax.random.key(0)), jax.random.key(1), place[walks.ravel()], first, lengths)
    tips = place[jnp.array([arm[-1] for arm in row])]
    far = jax.vmap(jax.vmap(distance.measure, (None, None, 0)), (None, 0, None))(params, tips, tips)
    apart = np.asarray(far)[~np.eye(arms, dtype=bool)]
    assert apart.mean() == pytest.approx(between * reach, rel=0.06)


@pytest.mark.parametrize("directed", [0, 16])
def test_one_way_paths_need_a_directed_distance(directed):
    """On a directed ring of eight positions, the next one is one step away and the previous one seven."""
    count = 8
    place = jnp.eye(count)
    walk = np.arange(8 * count) % count
    distance = temporal_distance(
        latent=count, size=16, parts=4, directed=directed, hidden=(64,), updates=2500, batch=128, penalty=1e4
    )
    assert distance.fit is not None
    given = (place[walk], np.zeros(1, int), np.array([len(walk) - 1]))
    params, _ = distance.fit(distance.init(jax.random.key(0)), jax.random.key(1), *given)
    far = np.asarray(jax.vmap(jax.vmap(distance.measure, (None, None, 0)), (None, 0, None))(params, place, place))
    true = (np.arange(count) - np.arange(count)[:, None]) % count
    if directed:
        np.testing.assert_allclose(far, true, atol=0.6)
    else:  # at most the shorter of the two directions
        assert far.max() < 0.6 * true.max()


def test_metrics_report_the_accuracy_of_the_unit(learnt):
    assert learnt[2]["too_long"] < 0.1 and learnt[2]["pair"] > 1


@pytest.mark.parametrize("make", [latent_distance, lambda: temporal_distance(latent=3, updates=1)])
def test_the_gradient_is_bounded_at_the_goal(make):
    distance = make()
    params, z = distance.init(jax.random.key(0)), jnp.ones(3)
    assert distance.measure(params, z, z) == 0
    assert bool(jnp.isfinite(jax.grad(distance.measure, argnums=1)(params, z, z)).all())


def test_invalid_settings_raise():
    with pytest.raises(ValueError, match="reach must be positive"):
        temporal_distance(latent=3, reach=0.0)
    with pytest.raises(ValueError, match="directed must be at least 0; got -1"):
        temporal_distance(latent=3, directed=-1)
    with pytest.raises(ValueError, match="size=64, parts=5"):
        temporal_distance(latent=3, parts=5)
