"""Planning teaches an actor, on a problem whose best decisions and costs to go are known in closed form."""

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
REMEMBERED = jnp.linspace(-0.5, 0.5, 21)[:, None]
VISITED = np.asarray(REMEMBERED) * DECAY ** np.arange(0, 8, 2)  # by an actor that does nothing
IDLE_COST = sum(DECAY ** (2 * t) for t in range(8)) + P * DECAY**16  # times x²: of its future x, 0.9 x, …
IDLE = jnp.asarray(0.0)


def act(params: jax.Array, x: jax.Array) -> jax.Array:
    """Half of `-gain x`: variables are halves of actions."""
    return -0.5 * params * x


ADAPTER = ActorAdapter(lambda params, x: (params, x), lambda params, x: x, act)


def test_reacting_is_the_closed_loop():
    found = react(PROBLEM, act, jnp.asarray(K), jnp.array([0.5]))
    loop = 0.5 * (DECAY - STEP * K) ** np.arange(8)
    np.testing.assert_allclose(found[:, 0], -0.5 * K * loop, atol=1e-6)
    assert react(PROBLEM, act, jnp.asarray(K), jnp.array([0.5]), 2).shape == (2, 1)


@pytest.fixture(scope="module")
def ask():
    """An expert whose plans are exact here."""
    return expert(mpc.ilqr(PROBLEM), ADAPTER, iterations=3)


def test_the_expert_shows_the_best_actions_where_the_actor_goes(ask):
    batch = ask(IDLE, REMEMBERED, jax.random.key(0), 12)
    assert batch.seen.shape == batch.shown.shape == (12 * 4, 1)  # the first half of every plan
    np.testing.assert_allclose(batch.shown, -0.5 * K * batch.seen, atol=1e-4)
    began = np.asarray(batch.seen).reshape(12, 4)[:, 0]
    assert float(batch.gain) == pytest.approx(np.mean((IDLE_COST - P) * began**2), rel=1e-3)
    assert np.abs(began[:, None] - VISITED.ravel()).min(axis=1).max() < 1e-5


def test_futures_and_their_costs_are_those_of_the_actor():
    seen, costs = futures(PROBLEM, ADAPTER)(IDLE, REMEMBERED, jax.random.key(0))
    np.testing.assert_allclose(np.sort(seen[:, 0]), np.sort(VISITED.ravel()), atol=1e-6)
    np.testing.assert_allclose(costs, IDLE_COST * seen[:, 0] ** 2, rtol=1e-4, atol=1e-6)


def test_the_expert_is_asked_more_often_where_the_actor_costs_more(ask):
    began = np.asarray(ask(IDLE, REMEMBERED, jax.random.key(1), 12).seen).reshape(12, 4)[:, 0]
    assert np.mean(began**2) > 1.5 * np.mean(VISITED**2)


def test_nothing_is_gained_on_the_best_actor(ask):
    assert abs(float(ask(jnp.asarray(K), REMEMBERED, jax.random.key(0), 12).gain)) < 1e-5


def test_points_are_spread_as_far_as_they_go():
    line = jnp.arange(9.0)[:, None]
    assert spread(line, 3).tolist() == [0, 8, 4]
    assert sorted(spread(line, 9).tolist()) == list(range(9))
