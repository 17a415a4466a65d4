"""Ways to go, in a field whose wall ends above in some recordings, and below in the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall

from tests.world_models import dots
from world_models.ways import edges, pieces, shortest, ways_to_go

PACE = 1.2  # of walks


def seen(places: np.ndarray, above: np.ndarray) -> np.ndarray:
    """What is seen of places `[..., 2]`: where they are, and where the wall ends."""
    return np.concatenate([places / 4.0, 2.0 * above[..., None] - 1.0], axis=-1).astype(np.float32)


def turned(places: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Places upside down where the wall ends below, to be measured by `dots.way`."""
    return np.where(above[..., None], places, np.stack([places[..., 0], 15.0 - places[..., 1]], axis=-1))


@pytest.fixture(scope="module")
def learnt():
    walks = dots.around(200)
    above = np.repeat(np.arange(200) % 2 == 0, 49)
    latents = seen(turned(walks.observations, above), above)
    distance = ways_to_go(latent=3, size=8, hidden=(64, 64), updates=2000, batch=256, near=0.4, learning_rate=5e-3)
    assert distance.fit is not None
    params, metrics = distance.fit(distance.init(jax.random.key(0)), jax.random.key(1), latents, walks.first, walks.lengths)
    return distance, params, metrics


@pytest.fixture(scope="module")
def pairs(learnt):
    """Places, where the wall ends, and how far it is by what was learnt."""
    random = np.random.default_rng(5)
    places, above = random.uniform(2.0, 13.0, (2, 2000, 2)), random.random(2000) < 0.5
    far = jax.jit(jax.vmap(learnt[0].measure, (None, 0, 0)))(learnt[1], *(seen(ends, above) for ends in places))
    return places, above, np.asarray(far)


def test_the_way_is_as_long_as_the_wall_of_the_picture_makes_it(pairs):
    places, above, far = pairs
    way = dots.way(*(turned(ends, above) for ends in places)) / PACE
    assert np.corrcoef(far, way)[0, 1] > 0.97
    assert np.abs(far / way - 1.0)[way > 2.0].mean() < 0.15


def test_the_same_two_places_are_far_apart_where_a_wall_is_between_them(learnt, pairs):
    places, above, far = pairs
    other = jax.vmap(learnt[0].measure, (None, 0, 0))(learnt[1], *(seen(ends, ~above) for ends in places))
    shut = [dots.way(*(turned(ends, sides) for ends in places)) for sides in (above, ~above)]
    much = shut[0] > 1.7 * shut[1]
    assert much.sum() > 50
    assert np.median(far[much] / np.asarray(other)[much]) > 1.5


def test_it_is_the_same_there_and_back_and_flat_at_the_goal(learnt):
    distance, params, _ = learnt
    z, goal = jnp.array([1.0, 1.0, 1.0]), jnp.array([3.0, 1.5, 1.0])
    assert distance.measure(params, z, z) == 0
    np.testing.assert_allclose(distance.measure(params, z, goal), distance.measure(params, goal, z), rtol=1e-5)
    assert bool(jnp.isfinite(jax.grad(distance.measure, argnums=1)(params, z, z)).all())


def test_shortest_ways_are_those_of_another_program():
    random = np.random.default_rng(0)
    weights = np.where(random.random((12, 12)) < 0.25, random.uniform(0.1, 2.0, (12, 12)), np.inf)
    np.testing.assert_allclose(shortest(jnp.asarray(weights)), floyd_warshall(weights), rtol=1e-5)


def test_a_recording_that_comes_back_is_cut_short():
    """Along a line to its end, and back beside it; then rows that are not of the recording."""
    out = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    rows = np.concatenate([out, out[::-1] + np.array([0.0, 0.5]), out[:2]]).astype(np.float32)
    ways = np.asarray(shortest(edges(jnp.asarray(rows), jnp.int32(10), jnp.float32(1.0), 0.9)))
    assert ways[0, 9] == pytest.approx(0.5) and ways[1, 7] == pytest.approx(1.5) and ways[0, 4] == 4.0
    assert np.isinf(ways[:10, 10:]).all()


def test_pieces_are_of_a_length_that_graphs_can_have():
    begins, known = pieces(np.array([0, 11]), np.array([10, 3]), 4)
    assert begins.tolist() == [0, 3, 6, 11] and known.tolist() == [4, 4, 5, 4]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="reach must be positive; got 0"):
        ways_to_go(latent=3, reach=0.0)
