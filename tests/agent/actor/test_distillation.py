"""Lessons from planning, on a problem whose best decisions and costs to go are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.agent.actor.distillation import ActorAdapter, expert, futures, react, spread

DECAY, STEP, EFFORT = 0.9, 0.5, 0.1


def riccati() -> tuple[float, float]:
    """Cost to go `P x²` and feedback `u = -K x` of `x' = 0.9 x + 0.5 u` with the stage cost `x² + 0.1 u²`."""
    p = k = 0.0
    for _ in range(1000):
        k = p * STEP * DECAY / (EFFORT + p * STEP**2)
        p = 1.0 + EFFORT * k**2 + p * (DECAY - STEP * k) ** 2
    return p, k


P, K = riccati()
PROBLEM = mpc.Problem(
    lambda params, x, u: DECAY * x + STEP * u,
    lambda params, x, u, t: x[0] ** 2 + EFFORT * u[0] ** 2,
    lambda params, x: P * x[0] ** 2,
    horizon=8,
    action_space=mpc.Box([-2.0], [2.0]),
)
SEEN = jnp.linspace(-0.5, 0.5, 21)[:, None]
VISITED = np.asarray(SEEN) * DECAY ** np.arange(0, 8, 2)  # by an actor that does nothing
IDLE = sum(DECAY ** (2 * t) for t in range(8)) + P * DECAY**16  # times x²: what it pays on its way x, 0.9 x, …


def act(params: jax.Array, x: jax.Array) -> jax.Array:
    """Half of `-gain x`: variables are halves of actions."""
    return -0.5 * params * x


EYES = ActorAdapter(lambda params, x: (params, x), lambda params, x: x, act)


def test_reacting_is_the_closed_loop():
    found = react(PROBLEM, act, jnp.asarray(K), jnp.array([0.5]))
    loop = 0.5 * (DECAY - STEP * K) ** np.arange(8)
    np.testing.assert_allclose(found[:, 0], -0.5 * K * loop, atol=1e-6)
    assert react(PROBLEM, act, jnp.asarray(K), jnp.array([0.5]), 2).shape == (2, 1)


@pytest.fixture(scope="module")
def ask():
    """By a planner that is exact here."""
    return expert(mpc.ilqr(PROBLEM), EYES, iterations=3)


def test_lessons_are_what_is_best_where_the_actor_goes(ask):
    idle = jnp.asarray(0.0)
    expert_batch = ask(idle, SEEN, jax.random.key(0), 12)
    assert expert_batch.seen.shape == expert_batch.shown.shape == (12 * 4, 1)  # of every plan the first half
    np.testing.assert_allclose(expert_batch.shown, -0.5 * K * expert_batch.seen, atol=1e-4)
    began = np.asarray(expert_batch.seen).reshape(12, 4)[:, 0]
    assert float(expert_batch.gain) == pytest.approx(np.mean((IDLE - P) * began**2), rel=1e-3)
    assert np.abs(began[:, None] - VISITED.ravel()).min(axis=1).max() < 1e-5


def test_futures_are_the_actors_and_cost_what_it_does():
    seen, costs = futures(PROBLEM, EYES)(jnp.asarray(0.0), SEEN, jax.random.key(0))
    np.testing.assert_allclose(np.sort(seen[:, 0]), np.sort(VISITED.ravel()), atol=1e-6)
    np.testing.assert_allclose(costs, IDLE * seen[:, 0] ** 2, rtol=1e-4, atol=1e-6)


def test_the_dearer_the_actors_future_the_more_likely_it_is_asked_there(ask):
    began = np.asarray(ask(jnp.asarray(0.0), SEEN, jax.random.key(1), 12).seen).reshape(12, 4)[:, 0]
    assert np.mean(began**2) > 1.5 * np.mean(VISITED**2)


def test_the_best_actor_has_nothing_to_gain(ask):
    assert abs(float(ask(jnp.asarray(K), SEEN, jax.random.key(0), 12).gain)) < 1e-5


def test_points_are_spread_as_far_as_they_go():
    line = jnp.arange(9.0)[:, None]
    assert spread(line, 3).tolist() == [0, 8, 4]
    assert sorted(spread(line, 9).tolist()) == list(range(9))
