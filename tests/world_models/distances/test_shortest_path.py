"""Tests of the shortest-path distance on a ring that is cut at one of two positions, depending on the recording."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall

from world_models.distances.shortest_path import edges, pieces, shortest, shortest_path_distance

COUNT = 16
"""Number of positions on the ring; the cut is before the first position, or before the opposite one."""


def seen(place: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    """Returns the latents of positions `[...]` on the ring: the position and the cut."""
    angle = 2.0 * np.pi * place / COUNT
    return np.stack([np.cos(angle), np.sin(angle), 2.0 * opposite - 1.0], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def learnt():
    random, steps = np.random.default_rng(0), 150
    opposite = np.arange(20) % 2
    moves = random.choice([-1, 1], (20, steps))
    walks = [random.integers(COUNT, size=20)]
    for move in moves.T:
        walks.append(np.clip(walks[-1] + move, 0, COUNT - 1))  # counted from the cut
    places = (np.stack(walks, axis=1) + COUNT // 2 * opposite[:, None]) % COUNT
    latents = seen(places, np.repeat(opposite[:, None], steps + 1, axis=1)).reshape(-1, 3)
    distance = shortest_path_distance(
        latent=3, size=8, hidden=(64, 64), updates=1000, batch=128, near=0.5, learning_rate=5e-3
    )
    assert distance.fit is not None
    first, lengths = np.arange(20) * (steps + 1), np.full(20, steps)
    params, metrics = distance.fit(distance.init(jax.random.key(0)), jax.random.key(1), latents, first, lengths)
    return distance, params, metrics


@pytest.mark.parametrize("opposite", [0, 1])
def test_the_distance_follows_the_path_around_the_cut(learnt, opposite):
    distance, params, _ = learnt
    along = (np.arange(COUNT) - COUNT // 2 * opposite) % COUNT
    z = seen(np.arange(COUNT), np.full(COUNT, opposite))
    far = np.asarray(jax.vmap(jax.vmap(distance.measure, (None, None, 0)), (None, 0, None))(params, z, z))
    way = np.abs(along[:, None] - along)
    assert np.abs(far - way).mean() < 0.6 and np.corrcoef(far.ravel(), way.ravel())[0, 1] > 0.98
    cut = np.flatnonzero(along == 0)[0]
    assert far[cut - 1, cut] > 0.7 * (COUNT - 1)  # neighbours across the cut have the largest distance
    assert far[cut - 9, cut - 8] < 2.0  # position of the other cut


def test_the_distance_is_symmetric_and_smooth_at_the_goal(learnt):
    distance, params, _ = learnt
    z, goal = jnp.array([1.0, 1.0, 1.0]), jnp.array([3.0, 1.5, 1.0])
    assert distance.measure(params, z, z) == 0
    np.testing.assert_allclose(distance.measure(params, z, goal), distance.measure(params, goal, z), rtol=1e-5)
    assert bool(jnp.isfinite(jax.grad(distance.measure, argnums=1)(params, z, z)).all())


def test_shortest_paths_match_scipy():
    random = np.random.default_rng(0)
    weights = np.where(random.random((12, 12)) < 0.25, random.uniform(0.1, 2.0, (12, 12)), np.inf)
    np.testing.assert_allclose(shortest(jnp.asarray(weights)), floyd_warshall(weights), rtol=1e-5)


def test_a_recording_that_crosses_itself_gets_a_shortcut():
    """A recording along a line and back beside it, followed by padding rows."""
    out = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    rows = np.concatenate([out, out[::-1] + np.array([0.0, 0.5]), out[:2]]).astype(np.float32)
    ways = np.asarray(shortest(edges(jnp.asarray(rows), jnp.int32(10), jnp.float32(1.0), 0.9)))
    assert ways[0, 9] == pytest.approx(0.5) and ways[1, 7] == pytest.approx(1.5) and ways[0, 4] == 4.0
    assert np.isinf(ways[:10, 10:]).all()


def test_pieces_have_at_most_the_graph_size():
    begins, known = pieces(np.array([0, 11]), np.array([10, 3]), 4)
    assert begins.tolist() == [0, 3, 6, 11] and known.tolist() == [4, 4, 5, 4]


def test_invalid_settings_raise():
    with pytest.raises(ValueError, match="reach must be positive; got 0"):
        shortest_path_distance(latent=3, reach=0.0)
