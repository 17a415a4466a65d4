"""Actor and critic on a problem whose best policy and cost to go are known in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.agent.actor.actor_critic import actor_critic
from world_models import data
from world_models.base import Imagined, initial_state

DECAY, STEP, EFFORT, DISCOUNT = 0.9, 0.5, 0.1, 0.95


def dynamics(params, state: Imagined, action: jax.Array) -> Imagined:
    """`x' = 0.9 x + 0.5 u`, never terminating."""
    return state._replace(latent=DECAY * state.latent + STEP * action, discount=state.discount * DISCOUNT)


def step_cost(params, state: Imagined, action: jax.Array, later: Imagined) -> jax.Array:
    """`x² + 0.1 u²`, weighted like the model's by-products."""
    return state.discount * (state.latent[0] ** 2 + EFFORT * action[0] ** 2)


def riccati() -> tuple[float, float]:
    """Cost to go `P x²` and feedback `u = -K x` of the discounted problem, by iterating the Riccati equation."""
    p = k = 0.0
    for _ in range(1000):
        k = DISCOUNT * p * STEP * DECAY / (EFFORT + DISCOUNT * p * STEP**2)
        p = 1.0 + EFFORT * k**2 + DISCOUNT * p * (DECAY - STEP * k) ** 2
    return p, k


def test_actor_and_critic_find_the_discounted_lqr():
    space = mpc.Box([-1.0], [1.0])
    least = jnp.asarray(-jnp.inf)
    agent_ac = actor_critic(
        dynamics, step_cost, lambda _: least, lambda _, o: initial_state(o), space, 1, steps=10, updates=3000, hidden=32
    )
    buffer = data.create(256, 1, (1,), (1,))
    for i, x in enumerate(np.linspace(-0.6, 0.6, 200)):
        row = data.Rows(np.full((1, 1), x), np.zeros((1, 1)), np.zeros(1), np.zeros(1, bool), np.array([i > 0]))
        buffer = data.append(buffer, row, np.ones(1, bool))
    practice, _ = agent_ac.fit(agent_ac.init(jax.random.key(0)), {}, buffer)
    p, k = riccati()
    at = jnp.linspace(-0.5, 0.5, 11)[:, None]
    np.testing.assert_allclose(jax.vmap(partial(agent_ac.act, practice.actor_ema))(at), -k * at, atol=0.05)
    found = jax.vmap(partial(agent_ac.value, {}, practice.target))(at)
    np.testing.assert_allclose(found, p * at[:, 0] ** 2, atol=0.05)

    idle, good = (
        practice.deployed_actor,
        practice.actor_ema,
    )  # who acts: the one that costs less, whichever of the two has been acting
    for deployed_actor, actor_ema in ((idle, good), (good, idle)):
        chosen = agent_ac.choose(
            practice._replace(deployed_actor=deployed_actor, actor_ema=actor_ema), {}, buffer
        ).deployed_actor
        jax.tree.map(np.testing.assert_array_equal, chosen, good)


def test_no_value_is_better_than_the_best_possible():
    agent_ac = actor_critic(dynamics, step_cost, lambda p: p, lambda _, o: initial_state(o), mpc.Box([-1.0], [1.0]), 1)
    practice = agent_ac.init(jax.random.key(0))
    assert float(agent_ac.value(jnp.asarray(2.5), practice.target, jnp.ones(1))) == 2.5
    assert float(agent_ac.value(jnp.asarray(-2.5), practice.target, jnp.ones(1))) == 0.0


def test_the_more_pessimistic_critic_counts():
    agent_ac = actor_critic(
        dynamics, step_cost, lambda _: jnp.asarray(-jnp.inf), lambda _, o: initial_state(o), mpc.Box([-1.0], [1.0]), 1
    )
    critic = agent_ac.init(jax.random.key(0)).critic
    last = max(critic["biases"])  # both begin as a constant 0; their last biases are all they say
    critic["biases"][last] = jnp.array([3.0, -5.0]).reshape(2, 1, 1)
    np.testing.assert_allclose(agent_ac.value({}, critic, jnp.ones((4, 1))), 3.0)
