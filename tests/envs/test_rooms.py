"""Tests of Two Rooms, Wall and Teleport: images, starts, path lengths and explorers compared with formulas and search."""

from itertools import pairwise

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

import envs  # noqa: F401 registers the environments
from envs import exploring, rooms, teleport, two_rooms, wall

LAYOUT = jnp.array([32.0, 10.0])


def test_the_image_matches_the_formula_of_dot_and_walls():
    picture = np.asarray(jax.jit(two_rooms.picture)(jnp.array([20.0, 41.0]), LAYOUT), float)
    rows, columns = np.mgrid[:65, :65]
    expected = 255.0 * np.exp(-((columns - 20) ** 2 + (rows - 41) ** 2) / (2 * 1.3**2))
    np.testing.assert_allclose(picture[..., 0], expected, atol=0.51)
    lines = np.zeros((65, 65))
    lines[4:61, [4, 60]] = lines[[4, 60], 4:61] = 255
    lines[4:61, 31:34] = 255
    lines[7:14, 31:34] = 0  # the door: 10 ± 4, its faces shut
    np.testing.assert_array_equal(picture[..., 1], lines)


def test_wall_draws_the_room_at_3_5_times_the_resolution():
    picture = np.asarray(jax.jit(wall.picture)(jnp.array([20.0, 41.0]), jnp.array([32.0, 30.0])), float)
    dark = (picture.sum(axis=-1) < 255).mean(axis=0)[60:190]  # share of each column that is wall
    assert 224 * 6 / 65 - 1.5 <= (dark > 0.5).sum() <= 224 * 6 / 65 + 1.5
    place = np.unravel_index((picture[..., 0] - picture[..., 1]).argmax(), (224, 224))
    np.testing.assert_allclose(place, [(41.5) * 224 / 65 - 0.5, 20.5 * 224 / 65 - 0.5], atol=0.6)


@pytest.fixture(scope="module")
def starts():
    return jax.jit(jax.vmap(two_rooms.reset))(jax.random.split(jax.random.key(0), 4000))


def test_starts_and_goals_lie_in_different_rooms_and_off_the_walls(starts):
    position, goal, layout = (np.asarray(a) for a in starts)
    left = position[:, 0] < layout[:, 0]
    assert ((goal[:, 0] < layout[:, 0]) != left).all() and abs(left.mean() - 0.5) < 0.03
    for place in (position, goal):
        assert (place >= 6.6).all() and (place <= 57.4).all()
        assert (np.abs(place[:, 0] - layout[:, 0]) >= 1.5 + 2.6 - 1e-4).all()
    np.testing.assert_allclose([position[:, 1].min(), position[:, 1].max()], [6.6, 57.4], atol=0.2)


def test_layouts_cover_all_integer_positions(starts):
    layout = np.asarray(starts.layout)
    np.testing.assert_array_equal(np.unique(layout[:, 0]), np.arange(20, 45))
    np.testing.assert_array_equal(np.unique(layout[:, 1]), np.arange(10, 55))


def test_a_dot_moves_by_its_clipped_action_and_stops_at_the_wall():
    step = jax.jit(jax.vmap(two_rooms.step, in_axes=(None, 0, 0, 0)))
    places = jnp.array([[20.0, 40.0]] + [[30.0, 40.0]] * 300)
    state = rooms.State(places, jnp.full((301, 2), 50.0), jnp.tile(LAYOUT, (301, 1)))
    actions = jnp.array([[1.0, -9.0]] + [[2.45, 0.0]] * 300)
    ends = np.asarray(step(two_rooms.PARAMS, state, actions, jax.random.split(jax.random.key(1), 301)).position)
    np.testing.assert_allclose(ends[0], [21.0, 40.0 - 2.45], rtol=1e-6)
    off = 30.5 - ends[1:, 0]
    assert off.min() >= 0.3 - 1e-5 and off.max() > 0.8
    np.testing.assert_allclose((off < 0.301).mean(), 0.451, atol=0.09)  # P(|N(0, 0.5²)| < 0.3)


def test_path_length_equals_a_brute_force_search_over_door_crossings():
    slits = np.linspace(-4.0, 4.0, 201)
    keys = jax.random.split(jax.random.key(3), 40)
    drawn = jax.jit(jax.vmap(two_rooms.reset))(keys)
    length = jax.jit(jax.vmap(lambda layout, start, end: rooms.path_length(layout, start, end, 3.0)))
    lengths = length(drawn.layout, drawn.position, drawn.goal)
    for i in range(0, 40, 2):
        a, b, layout = (np.asarray(part[i], float) for part in drawn)
        a, b = (a, b) if a[0] < b[0] else (b, a)
        first = np.stack([np.full(201, layout[0] - 1.5), layout[1] + slits], axis=1)
        second = first + np.array([3.0, 0.0])
        legs = np.linalg.norm(first - a, axis=1)[:, None] + np.linalg.norm(second - b, axis=1)[None, :]
        brute = (legs + np.linalg.norm(first[:, None] - second[None], axis=2)).min()
        assert brute - 2e-2 <= float(lengths[i]) <= brute + 1e-3
    within = jnp.full((40, 2), 8.0), jnp.full((40, 2), 14.0)  # in the left room of all layouts
    np.testing.assert_allclose(length(drawn.layout, *within), np.hypot(6, 6), rtol=1e-5)


def test_explorers_match_their_stride_turn_and_door_statistics():
    walks = jax.jit(lambda key: two_rooms.explore(key, 2000))(jax.random.key(0))
    assert walks.actions.shape == (2000, 91, 2) and walks.states.position.shape == (2000, 92, 2)
    strides = np.linalg.norm(walks.actions, axis=-1)
    assert strides.min() >= 0.2 - 1e-4 and strides.max() <= 1.8 + 1e-4
    np.testing.assert_allclose([strides.mean(), strides.std()], [1.0, 0.4 * 0.8796], atol=0.01)  # a normal cut at ±2σ
    side = np.asarray(walks.states.position[..., 0] < walks.states.layout[..., 0])
    np.testing.assert_allclose((side != side[:, :1]).any(axis=1).mean(), 0.35, atol=0.04)
    heading = np.arctan2(walks.actions[..., 1], walks.actions[..., 0])
    turns = np.cos(np.diff(heading, axis=1)).mean(axis=1)
    np.testing.assert_allclose(np.median(turns), ive(1, 5) / ive(0, 5), atol=0.02)  # most dots do not seek the door
    frames = jax.jit(jax.vmap(two_rooms.task().observe))(jax.tree.map(lambda a: a[0], walks.states))
    assert frames.shape == (92, 65, 65, 2)


def test_long_recordings_visit_both_rooms():
    walks = jax.jit(lambda key: two_rooms.explore(key, 200, 728, 1.0))(jax.random.key(0))
    side = np.asarray(walks.states.position[..., 0] < walks.states.layout[..., 0])
    assert (side[:, 1:] != side[:, :-1]).sum(axis=1).mean() > 6  # in eight periods
    assert np.minimum(side.mean(axis=1), 1 - side.mean(axis=1)).mean() > 0.25


def test_turns_follow_the_von_mises_distribution():
    turns = exploring.von_mises(jax.random.uniform(jax.random.key(0), (20_000,)), 5.0)
    for order in (1, 2):
        np.testing.assert_allclose(jnp.cos(order * turns).mean(), ive(order, 5) / ive(0, 5), atol=0.01)
    assert abs(float(jnp.sin(turns).mean())) < 0.01


def test_the_right_border_teleports_to_the_left_border_only():
    step = jax.jit(teleport.step)
    layout, goal, none = jnp.array([32.0, 30.0]), jnp.array([10.0, 10.0]), jnp.zeros((), jnp.int32)
    right = teleport.State(jnp.array([59.0, 20.0]), goal, layout, none)
    for state, move, x, jumps in (
        (right, (2.0, 1.0), 4.3, 1),
        (right, (0.5, 0.0), 59.5, 0),
        (right._replace(position=jnp.array([5.0, 20.0])), (-2.0, 0.0), 4.3, 0),
        (right._replace(position=jnp.array([50.0, 59.0])), (0.0, 2.0), 50.0, 0),
    ):
        for key in jax.random.split(jax.random.key(0), 5):
            ended = step(teleport.PARAMS, state, jnp.array(move), key)
            assert int(ended.jumps) == jumps and x - 1e-4 <= float(ended.position[0]) <= x + 2.0 * (x < 5)
    assert 20.0 < float(step(teleport.PARAMS, right, jnp.array([2.0, 1.0]), key).position[1]) < 21.0


def test_path_lengths_through_the_teleport_are_correct():
    """With the left room copied to the right of the right room, a path through the teleport is straight."""
    state = teleport.State(
        jnp.array([50.0, 20.0]), jnp.array([14.0, 40.0]), jnp.array([32.0, 54.0]), jnp.zeros((), jnp.int32)
    )
    door, jump = jax.jit(teleport.path_lengths)(state)
    np.testing.assert_allclose(jump, np.hypot(60 - 50 + 14 - 4, 20), atol=0.01)
    corner = np.array([[50, 20], [33.5, 50], [30.5, 50], [14, 40]])
    np.testing.assert_allclose(door, sum(np.linalg.norm(q - p) for p, q in pairwise(corner)), atol=0.01)


def test_episodes_truncate_at_the_budget_and_do_not_terminate_on_success():
    env = gymnasium.make("craik/Wall-v0", max_episode_steps=30, observation="state")
    _, info = env.reset(seed=0, options={"start": [20.0, 20.0], "goal": [23.0, 20.0]})
    assert info["success"] and info["distance"] == pytest.approx(3.0)
    for t in range(30):
        _, reward, terminated, truncated, info = env.step([0.0, 0.0])
        assert reward == 1.0 and not terminated and truncated == (t == 29)
    env.close()
