"""An agent learns and acts in every kind of space, and remembers every kind of reset alike."""

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent import Agent
from mpc.agent.perception import gym_spaces
from tests.agent.toys import ACTIONS, ACTOR, OBSERVATIONS, SMALL, Toy
from world_models import analytic

PAIRS = list(zip(OBSERVATIONS, ACTIONS, strict=True))  # they are flattened, each on its own
SAMPLED = {"planner": "cem", "samples": 64, "first_iterations": 10, "horizon": 2}


@pytest.mark.parametrize(("observation", "action"), PAIRS, ids=lambda s: str(s)[:30])
def test_the_best_action_of_every_space_is_found(observation, action):
    action.seed(1)
    observation.seed(1)
    best = action.sample()
    known = gym_spaces.planner_space(action).embed(jnp.asarray(best))
    model = analytic(lambda _, state, u: state, lambda best, state, u: -jnp.sum((u - best) ** 2), None, known)
    config = SMALL | SAMPLED | {"random_steps": 10}
    agent = Agent(Toy(observation, action), config=config, model=model).learn(15, progress_bar=False)
    assert agent.num_timesteps == 15 and agent.learner.trained
    found, state = agent.predict(observation.sample())
    np.testing.assert_allclose(found, best, atol=0.05)
    exploring, _ = agent.predict(observation.sample(), state, deterministic=False)
    assert action.contains(exploring) or action.contains(int(exploring))


def test_a_model_an_actor_and_a_critic_are_learnt_where_actions_are_several_choices():
    observation, action = OBSERVATIONS[4], ACTIONS[3]
    agent = Agent(Toy(observation, action), config=SMALL | ACTOR | {"random_steps": 10}).learn(15, progress_bar=False)
    assert int(agent.learner.training.updates) == SMALL["updates"]
    assert action.contains(agent.predict(observation.sample(), deterministic=False)[0])


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode), ids=str)
def test_all_autoreset_modes_remember_the_same_number_of_real_transitions(mode):
    observation, action = OBSERVATIONS[0], ACTIONS[0]
    lengths = (3, 5)
    env = gymnasium.vector.SyncVectorEnv([lambda n=n: Toy(observation, action, n) for n in lengths], autoreset_mode=mode)
    seen: list[float] = []
    agent = Agent(env, config=SMALL | {"random_steps": 1000})  # nothing is learnt here
    agent.learn(40, progress_bar=False, callback=lambda _, p: seen.extend(p.episode_returns))
    assert set(seen) == {3.0, 5.0}
    follows = int(agent.buffer.follows.sum())
    assert agent.num_timesteps - env.num_envs <= follows <= agent.num_timesteps
