"""Tests of the U-maze: motion of the ball compared with closed forms, and contact with walls."""

import jax
import jax.numpy as jnp
import numpy as np

from envs import u_maze

step = jax.jit(u_maze.step)


def ball(position, velocity=(0.0, 0.0)):
    return u_maze.State(jnp.array(position), jnp.array(velocity), jnp.array([1.0, 2.8]))


def test_acceleration_from_rest_follows_the_closed_form_of_linear_drag():
    """`v[k] = F/c (1 - (1 + c dt/m)^-k)`, the implicit step of `m v̇ = F - c v` from rest."""
    state, speeds = ball([0.6, 0.8]), []
    for _ in range(15):
        state = step(u_maze.PARAMS, state, jnp.array([1.0, 0.0]), jax.random.key(0))
        speeds.append(float(state.velocity[0]))
    k = np.arange(1, 16)
    np.testing.assert_allclose(speeds, 100.0 * (1 - (1 + 0.01 / 4.18879) ** -k), rtol=1e-4)
    np.testing.assert_allclose(state.position, [0.6 + 0.01 * np.sum(speeds), 0.8], rtol=1e-5)


def test_the_maximal_speed_is_as_published():
    fast = step(u_maze.PARAMS, ball([0.6, 0.8], (5.0, 0.0)), jnp.array([1.0, 0.0]), jax.random.key(0))
    np.testing.assert_allclose(fast.velocity[0], 5.23, atol=0.005)


def test_a_wall_removes_the_normal_velocity_and_keeps_the_tangential():
    state = step(u_maze.PARAMS, ball([1.0, 1.09], (2.0, 3.0)), jnp.zeros(2), jax.random.key(0))
    drag = 1 + 0.01 / 4.18879
    np.testing.assert_allclose(state.velocity, [2.0 / drag, 0.0], rtol=1e-5)
    np.testing.assert_allclose(state.position, [1.0 + 0.02 / drag, 1.1 - 1e-3], rtol=1e-5)


def test_explorers_stay_in_the_corridor_and_pass_the_bend():
    walks = jax.jit(lambda key: u_maze.explore(key, 1000, 150))(jax.random.key(0))
    x, y = np.moveaxis(np.asarray(walks.states.position), -1, 0)
    assert min(x.min(), y.min()) >= 0.5 and max(x.max(), y.max()) <= 3.1
    assert not ((x < 2.5) & (y > 1.1) & (y < 2.5)).any()
    assert np.abs(walks.states.velocity).max() <= 5.24 and np.abs(walks.actions).max() <= 1.0
    assert (((y[:, 0] < 1.8) != (y[:, -1] < 1.8)).mean()) > 0.1
    counts, *_ = np.histogram2d(x.ravel(), y.ravel(), bins=13, range=[[0.5, 3.1]] * 2)
    assert (counts > 0).sum() >= 13**2 - 10 * 7 - 2  # every cell of the corridor is visited


def test_starts_are_at_rest_in_one_arm_and_goals_in_the_other():
    def begin(key):
        state = u_maze.reset(key)
        return state, u_maze.possible(state)

    states, fine = jax.jit(jax.vmap(begin))(jax.random.split(jax.random.key(0), 2000))
    above, goal_above = np.asarray(states.position[:, 1]) > 1.8, np.asarray(states.goal[:, 1]) > 1.8
    assert (above != goal_above).all() and abs(above.mean() - 0.5) < 0.04
    assert fine["start"].all() and fine["goal"].all() and not states.velocity.any()


def test_the_image_shows_the_ball_at_its_position():
    picture = np.asarray(jax.jit(u_maze.picture)(jnp.array([2.8, 0.8])), float)
    red = picture[..., 0] - picture[..., 1]
    row, column = (np.average(np.mgrid[:64, :64][i], weights=red.clip(0) ** 2) for i in range(2))
    pixel = 3.3 / 64
    np.testing.assert_allclose([0.15 + pixel * (column + 0.5), 3.45 - pixel * (row + 0.5)], [2.8, 0.8], atol=0.03)
