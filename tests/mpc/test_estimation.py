"""The extended Kalman filter: beside the exact one on linear systems, and with missing and impossible numbers."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc

A = np.array([[1.0, 0.1, 0.0], [0.0, 0.9, 0.1], [-0.1, 0.0, 0.95]])
B = np.array([[0.0], [0.1], [0.05]])
C = np.array([[1.0, 0.0, 0.0], [0.3, 0.0, 1.0]])
Q, R = np.diag([1e-3, 2e-3, 5e-3]) + 5e-4, np.array([0.1, 0.2])
LINEAR = mpc.Problem(
    lambda p, s, a: jnp.asarray(A, s.dtype) @ s + jnp.asarray(B, s.dtype) @ a,
    lambda p, s, a, t: s @ s,
    horizon=3,
    action_space=mpc.Box([-1.0], [1.0]),
)
KALMAN = mpc.estimation.extended_kalman(LINEAR, lambda p, s: jnp.asarray(C, s.dtype) @ s, process=Q, sensors=R)


def exact(mean, P, action, seen):
    """Returns the estimate of the textbook: one gain for all sensors that show something."""
    mean, P = A @ mean + B @ action, A @ P @ A.T + Q
    there = np.isfinite(seen)
    H, noise = C[there], np.diag(R[there] ** 2)
    K = P @ H.T @ np.linalg.inv(H @ P @ H.T + noise)
    return mean + K @ (seen[there] - H @ mean), (np.eye(3) - K @ H) @ P


def test_estimates_of_linear_systems_are_exact_with_sensors_missing():
    drawn = np.random.default_rng(0)
    actions, seen = drawn.uniform(-1.0, 1.0, (40, 1)), drawn.normal(size=(40, 2))
    seen[drawn.uniform(size=seen.shape) < 0.3] = np.nan

    def step(estimate, given):
        estimate = KALMAN.update(None, KALMAN.predict(None, estimate, given[0]), given[1])
        return estimate, estimate

    with jax.enable_x64(True):
        _, found = jax.jit(partial(jax.lax.scan, step))(KALMAN.init(None, np.ones(3), 2.0), (actions, seen))
        _, third = jax.vmap(partial(jax.lax.scan, step), (None, 0))(
            KALMAN.init(None, np.ones(3), 2.0), (actions[None], seen[None])
        )
    mean, P = np.ones(3), 4.0 * np.eye(3)
    for t in range(40):
        mean, P = exact(mean, P, actions[t], seen[t])
        np.testing.assert_allclose(found.mean[t], mean, atol=1e-9)
        np.testing.assert_allclose(found.covariance[t], P, atol=1e-9)
    np.testing.assert_allclose(third.covariance[0], found.covariance, atol=1e-12)


def test_errors_of_a_swinging_pole_are_as_large_as_the_filter_says():
    def swing(p, s, a):
        return s + 0.05 * jnp.stack([s[1], 9.0 * jnp.sin(s[0]) - 0.2 * s[1] + a[0]])

    problem = mpc.Problem(swing, lambda p, s, a, t: s @ s, horizon=3, action_space=mpc.Box([-1.0], [1.0]))
    angle = mpc.estimation.extended_kalman(
        problem, lambda p, s: {"c": jnp.cos(s[0]), "s": jnp.sin(s[0])}, process=[1e-3, 2e-2], sensors=0.05
    )

    def step(carry, key):
        state, estimate = carry
        acts, moves, shows, hides = jax.random.split(key, 4)
        action = jax.random.uniform(acts, (1,), minval=-1.0)
        state = swing(None, state, action) + jnp.array([1e-3, 2e-2]) * jax.random.normal(moves, (2,))
        shown = jnp.stack([jnp.cos(state[0]), jnp.sin(state[0])]) + 0.05 * jax.random.normal(shows, (2,))
        shown = jnp.where(jax.random.uniform(hides) < 0.1, jnp.nan, shown)
        estimate = angle.update(None, angle.predict(None, estimate, action), {"c": shown[0], "s": shown[1]})
        error = state - estimate.mean
        return (state, estimate), error @ jnp.linalg.solve(estimate.covariance, error)

    def trial(key):
        start, drawn = jax.random.split(key)
        state = jnp.array([3.0, 0.0]) + 0.2 * jax.random.normal(start, (2,))
        begin = state, angle.init(None, jnp.array([3.0, 0.0]), 0.2)
        return jax.lax.scan(step, begin, jax.random.split(drawn, 200))[1]

    squared = jax.jit(jax.vmap(trial))(jax.random.split(jax.random.key(0), 64))  # of 2 degrees of freedom, so 2 on average
    assert 1.8 < squared.mean() < 2.3


def test_what_comes_out_is_finite_and_positive_whatever_comes_in():
    estimate = KALMAN.init(None, np.ones(3), 1e3)
    update, predict = jax.jit(KALMAN.update), jax.jit(KALMAN.predict)
    for seen in ([np.nan, np.nan], [np.inf, 1.0], [-np.inf, np.nan], [1e38, -1e38], [1e-3, 0.0]):
        for action in (0.5, np.nan, np.inf):
            estimate = update(None, predict(None, estimate, np.array([action])), np.array(seen))
            assert all(np.isfinite(leaf).all() for leaf in estimate)
    for _ in range(300):
        estimate = update(None, predict(None, estimate, np.zeros(1)), np.array([0.0, np.nan]))
    assert np.linalg.eigvalsh(np.asarray(estimate.covariance, np.float64)).min() > 0
    np.testing.assert_array_equal(estimate.covariance, np.asarray(estimate.covariance).T)


@pytest.mark.parametrize(
    ("changes", "noise", "message"),
    [
        ({"lift": lambda p, s: s}, {}, "without latents and lift"),
        ({}, {"sensors": 0.0}, "sensors finite and positive"),
        ({}, {"process": np.nan}, "process must be finite"),
        ({}, {"process": -np.eye(3)}, "not negative"),
        ({}, {"process": np.ones((2, 3))}, r"\[N, N\]"),
    ],
)
def test_impossible_noise_is_refused(changes, noise, message):
    with pytest.raises(ValueError, match=message):
        mpc.estimation.extended_kalman(
            replace(LINEAR, **changes), lambda p, s: s, **({"process": 0.1, "sensors": 0.1} | noise)
        )


def test_numbers_that_do_not_fit_are_refused():
    estimate = KALMAN.init(None, np.ones(3), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(estimate.covariance, np.diag([1.0, 4.0, 9.0]))
    with pytest.raises(ValueError, match="one for each of 3"):
        KALMAN.init(None, np.ones(3), [1.0, 2.0])
    with pytest.raises(ValueError, match="has 2 numbers; got 1"):
        KALMAN.update(None, estimate, np.ones(1))
