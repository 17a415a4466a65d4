"""Tests of the pendulum: step-by-step comparison with Gymnasium's pendulum."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from envs import pendulum


def test_every_step_equals_gymnasiums_pendulum():
    env, random = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    step = jax.jit(lambda s, a: (pendulum.dynamics(pendulum.PARAMS, s, a), pendulum.reward(pendulum.PARAMS, s, a)))
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        for _ in range(200):
            state = pendulum.state_of(jnp.asarray(observation))
            action = random.uniform(-3, 3, 1).astype(np.float32)
            following, reward = step(state, jnp.asarray(action))
            observation, real, *_ = env.step(action)
            np.testing.assert_allclose(pendulum.observe(following), observation, atol=2e-4)
            np.testing.assert_allclose(reward, float(real), rtol=1e-4, atol=1e-4)


def test_starts_cover_the_ranges_of_gymnasium():
    states = np.asarray(jax.vmap(pendulum.reset)(jax.random.split(jax.random.key(0), 4000)))
    assert np.abs(states[:, 0]).max() <= np.pi and np.abs(states[:, 1]).max() <= 1.0
    np.testing.assert_allclose(states.std(axis=0), np.array([np.pi, 1.0]) / np.sqrt(3), rtol=0.03)


def test_energy_is_conserved_without_torque():
    params, state = pendulum.PARAMS | {"dt": 1e-4}, jnp.array([2.0, 0.0])

    def energy(s):
        return s[1] ** 2 / 6 + 5 * jnp.cos(s[0])

    after = jax.lax.fori_loop(0, 10_000, lambda _, s: pendulum.dynamics(params, s, jnp.zeros(1)), state)
    np.testing.assert_allclose(energy(after), energy(state), atol=5e-3)
    assert abs(float(after[0] - state[0])) > 0.5


def test_gradients_agree_with_finite_differences():
    state, action = jnp.array([1.0, 0.5]), jnp.array([0.3])
    slope = jax.jacobian(pendulum.dynamics, argnums=1)(pendulum.PARAMS, state, action)
    step = 1e-2
    for i in range(2):
        nudge = step * jnp.eye(2)[i]
        ahead = pendulum.dynamics(pendulum.PARAMS, state + nudge, action)
        behind = pendulum.dynamics(pendulum.PARAMS, state - nudge, action)
        np.testing.assert_allclose(slope[:, i], (ahead - behind) / (2 * step), atol=1e-3)
