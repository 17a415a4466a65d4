"""Tests of the maze: trees, shortest paths and walls compared with counting, search and images."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import maze, rooms


@pytest.fixture(scope="module")
def starts():
    """Returns 400 mazes with far goals, and all shortest paths in them."""
    states = jax.jit(jax.vmap(maze.task().reset))(jax.random.split(jax.random.key(0), 400))
    return states, np.asarray(jax.jit(jax.vmap(maze.shortest_paths))(states.layout))


def flood(layout, start):
    """Returns the path length to every cell by breadth-first search."""
    far, edge = {start: 0}, [start]
    while edge:
        here = edge.pop(0)
        for door, (a, b) in zip(layout, maze.PAIRS, strict=True):
            for one, other in ((a, b), (b, a)):
                if door and one == here and other not in far:
                    far[other] = far[here] + 1
                    edge.append(other)
    return far


def test_doors_form_a_tree_and_shortest_paths_match_a_search(starts):
    states, ways = starts
    assert (np.asarray(states.layout).sum(axis=1) == 15).all()  # fifteen doors that join sixteen cells: a tree
    for index in range(0, 400, 40):
        for start in (0, 6, 15):
            far = flood(np.asarray(states.layout[index]), start)
            np.testing.assert_array_equal(ways[index, start], [far[cell] for cell in range(16)])
    assert len(np.unique(np.asarray(states.layout), axis=0)) > 390


def test_goal_distances_match_the_setting_and_positions_are_free(starts):
    states, _ = starts
    cells = np.asarray(jax.jit(jax.vmap(maze.cells_to_goal))(states))
    assert cells.min() >= 9 and (cells >= 11).any()
    for place in (states.position, states.goal):
        offset = (np.asarray(place) - rooms.LOW) % maze.CELL - maze.CELL / 2
        assert np.abs(offset).max() <= maze.ROOM + 1e-4
    near = jax.jit(jax.vmap(maze.task("state", "near").reset))(jax.random.split(jax.random.key(1), 100))
    assert set(np.asarray(jax.jit(jax.vmap(maze.cells_to_goal))(near))) <= {3.0, 4.0, 5.0}


def test_the_image_shows_doors_where_dots_can_pass(starts):
    """Moves through every possible door, from the centre of one cell to that of the other."""
    layout = starts[0].layout[0]
    shown = np.asarray(jax.jit(maze.plan)(layout))
    middles = np.array([maze._centre(jnp.asarray(pair)) for pair in maze.PAIRS])
    state = maze.State(jnp.asarray(middles[:, 0]), jnp.asarray(middles[:, 0]), jnp.tile(layout, (24, 1)))
    step = jax.jit(jax.vmap(maze.step, in_axes=(None, 0, 0, 0)))
    heading = (middles[:, 1] - middles[:, 0]) / maze.CELL
    for t in range(8):
        keys = jax.random.split(jax.random.key(t), 24)
        state = step(maze.task().params, state, jnp.asarray(2.0 * heading), keys)
    passed = np.linalg.norm(np.asarray(state.position) - middles[:, 0], axis=1) > maze.CELL / 2
    np.testing.assert_array_equal(passed, np.asarray(layout) > 0.5)
    column, row = np.round(middles.mean(axis=1)).astype(int).T
    np.testing.assert_array_equal(shown[row, column] == 0, passed)


def test_explorers_pass_through_doors_only():
    walks = jax.jit(lambda key: maze.explore(key, 40, 300))(jax.random.key(2))
    cells = np.asarray(jax.vmap(jax.vmap(maze.cell))(walks.states.position)) @ np.array([1, 4])
    seen = []
    for layout, path in zip(np.asarray(walks.states.layout[:, 0]), cells, strict=True):
        open_ = {frozenset(pair) for pair in maze.PAIRS[layout > 0.5].tolist()}
        moves = {frozenset((int(a), int(b))) for a, b in pairwise(path) if a != b}
        assert moves <= open_
        seen.append(len(set(path.tolist())))
    assert np.mean(seen) > 6
    speed = np.linalg.norm(np.asarray(walks.actions), axis=-1)
    assert 1.4 < speed.mean() < 1.8
