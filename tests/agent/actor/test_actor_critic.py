"""Actor and critic on a problem whose best policy and cost to go are known in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.agent.actor.actor_critic import (
    ActorCritic,
    ActorCriticState,
    Hyperparameters,
    Imagination,
    actor_critic,
    lambda_returns,
)
from mpc.spaces import Discrete
from world_models import data
from world_models.base import LatentState, initial_state

DECAY, STEP, EFFORT, DISCOUNT = 0.9, 0.5, 0.1, 0.95


def dynamics(params, state: LatentState, action: jax.Array) -> LatentState:
    """`x' = 0.9 x + 0.5 u`, never terminating."""
    return state._replace(latent=DECAY * state.latent + STEP * action, discount=state.discount * DISCOUNT)


def step_cost(params, state: LatentState, action: jax.Array, later: LatentState) -> jax.Array:
    """`x² + 0.1 u²`, discounted."""
    return state.discount * (state.latent[0] ** 2 + EFFORT * action[0] ** 2)


def riccati() -> tuple[float, float]:
    """Cost to go `P x²` and feedback `u = -K x` of the discounted problem, by iterating the Riccati equation."""
    p = k = 0.0
    for _ in range(1000):
        k = DISCOUNT * p * STEP * DECAY / (EFFORT + DISCOUNT * p * STEP**2)
        p = 1.0 + EFFORT * k**2 + DISCOUNT * p * (DECAY - STEP * k) ** 2
    return p, k


WORLD = Imagination(
    dynamics,
    step_cost,
    value_floor=lambda _: jnp.asarray(-jnp.inf),
    encode=lambda _, observation: initial_state(observation),
    space=mpc.Box([-1.0], [1.0]),
    latent=1,
)
P, K = riccati()
HERE = jnp.linspace(-0.5, 0.5, 11)[:, None]


@pytest.fixture(scope="module")
def buffer() -> data.TrajectoryBuffer:
    """Observations between -0.6 and 0.6."""
    made = data.create(256, 1, (1,), (1,))
    for i, x in enumerate(np.linspace(-0.6, 0.6, 200)):
        row = data.Rows(np.full((1, 1), x), np.zeros((1, 1)), np.zeros(1), np.zeros(1, bool), np.array([i > 0]))
        made = data.append(made, row, np.ones(1, bool))
    return made


@pytest.fixture(scope="module")
def learnt(buffer) -> tuple[ActorCritic, ActorCriticState]:
    """Actor and critic after learning."""
    faster = Hyperparameters(actor_averaging=0.98, critic_averaging=0.95, learning_rate=5e-3)
    made = actor_critic(WORLD, faster._replace(hidden=16, steps=5, updates=600))
    return made, made.fit(made.init(jax.random.key(0)), {}, buffer)[0]


def test_actor_and_critic_find_the_discounted_lqr(learnt):
    made, state = learnt
    np.testing.assert_allclose(jax.vmap(partial(made.act, state.actor_ema))(HERE), -K * HERE, atol=0.05)
    np.testing.assert_allclose(jax.vmap(partial(made.value, {}, state.target))(HERE), P * HERE[:, 0] ** 2, atol=0.05)


def test_the_actor_of_lower_imagined_cost_is_deployed(learnt, buffer):
    made, state = learnt
    idle, good = state.deployed_actor, state.actor_ema
    for deployed, average in ((idle, good), (good, idle)):
        found = made.deploy(state._replace(deployed_actor=deployed, actor_ema=average), {}, buffer)
        jax.tree.map(np.testing.assert_array_equal, found.deployed_actor, good)


def test_lambda_returns_lie_between_one_step_and_the_whole_future():
    costs, ratios, values = (jnp.asarray(x) for x in ([1.0, 2.0, 3.0], [0.5, 0.9, 0.8], [10.0, 20.0, 30.0]))
    whole = [1 + 0.5 * (2 + 0.9 * (3 + 0.8 * 30)), 2 + 0.9 * (3 + 0.8 * 30), 3 + 0.8 * 30]
    np.testing.assert_allclose(lambda_returns(costs, ratios, values, 0.0), costs + ratios * values, rtol=1e-6)
    np.testing.assert_allclose(lambda_returns(costs, ratios, values, 1.0), whole, rtol=1e-6)
    # where every value is what is left of the future, the trace makes no difference
    constant = lambda_returns(jnp.full(9, 2.0), jnp.full(9, 0.9), jnp.full(9, 20.0), 0.7)
    np.testing.assert_allclose(constant, 20.0, rtol=1e-5)


def test_a_value_is_not_below_the_floor():
    made = actor_critic(WORLD._replace(value_floor=lambda params: params))
    state = made.init(jax.random.key(0))
    assert float(made.value(jnp.asarray(2.5), state.target, jnp.ones(1))) == 2.5
    assert float(made.value(jnp.asarray(-2.5), state.target, jnp.ones(1))) == 0.0


def test_the_more_pessimistic_critic_counts():
    made = actor_critic(WORLD)
    critic = made.init(jax.random.key(0)).critic
    last = max(critic["biases"])  # both begin as a constant 0, so that their last biases are all that they return
    critic["biases"][last] = jnp.array([3.0, -5.0]).reshape(2, 1, 1)
    np.testing.assert_allclose(made.value({}, critic, jnp.ones((4, 1))), 3.0)


def test_an_actor_imitates_choices():
    """The first choice where z < 0, else the second."""
    space = Discrete(2)
    made = actor_critic(WORLD._replace(space=space), Hyperparameters(hidden=16))
    latents = jnp.linspace(-1.0, 1.0, 200)[:, None]
    taken = jnp.concatenate([latents < 0.0, latents >= 0.0], axis=1).astype(jnp.float32)
    state, _ = made.imitate(made.init(jax.random.key(0)), latents, taken)
    variables = jax.vmap(partial(made.act, state.deployed_actor))(latents)
    apart = np.abs(latents[:, 0]) > 0.1
    np.testing.assert_array_equal(jax.vmap(space.decide)(variables)[apart], (latents[:, 0] >= 0.0)[apart])
