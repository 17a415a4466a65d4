"""Tests of collisions: comparison with a march in small steps, and invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import rooms, u_maze, walls

WIDTH = 3.0
contact = jax.jit(lambda layout, start, move: walls.contact(rooms.walls(layout, WIDTH), start, move))
stop = jax.jit(lambda layout, start, move, rebound: walls.stop(rooms.walls(layout, WIDTH), start, move, rebound, 0.3)[0])


def free(layout, points, clearance=0.0):
    """Returns True for points `[..., 2]` in free space, by an independent formula."""
    x, y = points[..., 0], points[..., 1]
    in_room = np.minimum(np.minimum(x, y) - 4, 60 - np.maximum(x, y)) >= clearance
    beside = np.abs(x - layout[0]) >= WIDTH / 2 + clearance
    in_door = np.abs(y - layout[1]) <= 4 - clearance
    return in_room & (beside | in_door)


def corners(layout):
    return [np.array([layout[0] + a * WIDTH / 2, layout[1] + b * 4.0]) for a in (-1, 1) for b in (-1, 1)]


@st.composite
def moves(draw):
    """Returns layout, free start and move: uniform or around the door; some towards its corners or along an axis."""
    layout = np.array([draw(st.integers(20, 44)), draw(st.integers(10, 54))], float)
    corner = corners(layout)[draw(st.integers(0, 3))]
    if draw(st.booleans()):
        start = np.array([draw(st.floats(4.3, 59.7)), draw(st.floats(4.3, 59.7))])
    else:
        start = corner + np.array([draw(st.floats(-3, 3)), draw(st.floats(-3, 3))])
    if not free(layout, start, 0.01):
        start = np.array([8.0, 8.0])
    size = draw(st.sampled_from([2.45, 12.0, 70.0]))
    move = np.array([draw(st.floats(-size, size)), draw(st.floats(-size, size))])
    aim = draw(st.sampled_from(["free", "free", "corner", "across", "up"]))
    if aim == "corner":
        move = (corner - start) * draw(st.floats(0.5, 2.0))
    if aim == "across":
        move[1] = 0.0
    if aim == "up":
        move[0] = 0.0
    return layout, start, move


@settings(max_examples=200, deadline=None)
@given(moves())
def test_the_first_contact_agrees_with_a_fine_march(drawn):
    layout, start, move = drawn
    touch = contact(*(jnp.asarray(a, jnp.float32) for a in drawn))
    shares = np.linspace(0.0, 1.0, 2001)
    path = start + shares[:, None] * move
    before = path[shares <= float(touch.fraction) - 1e-3]
    assert free(layout, before, -2e-3).all()
    if touch.hit:
        there = start + float(touch.fraction) * move
        assert not free(layout, there, 2e-3)
        assert float(jnp.dot(touch.normal, jnp.asarray(move, jnp.float32))) < 0.0
    else:
        assert free(layout, path, -2e-3).all()


@settings(max_examples=200, deadline=None)
@given(moves(), st.floats(0.0, 2.5))
def test_a_move_ends_in_free_space_off_the_touched_wall(drawn, rebound):
    layout, start, move = drawn
    end = np.asarray(stop(*(jnp.asarray(a, jnp.float32) for a in (*drawn, rebound))))
    touch = contact(*(jnp.asarray(a, jnp.float32) for a in drawn))
    assert free(layout, end)
    if touch.hit:
        assert free(layout, end, 0.3 - 1e-4)
    else:
        np.testing.assert_allclose(end, start + move, atol=1e-4)
    if (start[0] - layout[0]) * (end[0] - layout[0]) < 0:  # the dot changed rooms, which requires the door
        into = start + (np.clip((layout[0] - start[0]) / move[0], 0, 1)) * move
        assert abs(into[1] - layout[1]) <= 4 + 1e-3


def test_a_thousand_randomly_moved_dots_stay_in_free_space():
    begin = jax.jit(jax.vmap(lambda key: rooms.begin(key, WIDTH, None, None, None)))
    start, _, layouts = begin(jax.random.split(jax.random.key(0), 1000))

    def push(position, key):
        move, rebound = 6.0 * jax.random.normal(key, (1000, 2)), 0.5 * jnp.abs(jax.random.normal(key, (1000,)))
        position = jax.vmap(stop)(layouts, position, move, rebound)
        return position, position

    _, path = jax.lax.scan(push, start, jax.random.split(jax.random.key(2), 300))
    assert free(np.asarray(layouts).T[:, None], np.asarray(path)).all()


@pytest.mark.parametrize("move", [(0.0, 0.0), (1.0, 0.0), (0.0, -1.0), (2.0, 0.5)])
def test_gradients_are_finite_and_correct_without_contact(move):
    layout, start = jnp.array([32.0, 30.0]), jnp.array([12.0, 20.0])
    slope = jax.jacobian(stop, argnums=2)(layout, start, jnp.array(move), jnp.zeros(()))
    np.testing.assert_allclose(slope, np.eye(2), atol=1e-6)
    against = jax.jacobian(stop, argnums=2)(layout, jnp.array([30.0, 20.0]), jnp.array([2.4, 0.3]), jnp.zeros(()))
    assert np.isfinite(against).all() and abs(float(against[0, 0])) < 1e-5  # the wall determines the normal coordinate


def test_sliding_follows_a_wall_and_stops_in_a_corner():
    clearance = 1e-3
    slide = jax.jit(lambda start, move: walls.slide(u_maze.walls(), start, move, clearance))
    along, way = slide(jnp.array([1.0, 1.0]), jnp.array([0.3, 0.3]))
    np.testing.assert_allclose(along, [1.3, 1.1 - clearance], atol=1e-5)
    np.testing.assert_array_equal(way, [1.0, 0.0])
    corner, way = slide(jnp.array([3.0, 0.6]), jnp.array([0.5, -0.7]))
    np.testing.assert_allclose(corner, [3.1 - clearance, 0.5 + clearance], atol=1e-5)
    np.testing.assert_array_equal(way, [0.0, 0.0])
