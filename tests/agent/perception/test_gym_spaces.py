"""An agent learns and acts in every kind of space, and remembers every kind of reset alike."""

import gymnasium
import pytest

from mpc.agent import Agent
from tests.agent.toys import ACTIONS, OBSERVATIONS, SMALL, Toy

PAIRS = list(zip(OBSERVATIONS, ACTIONS, strict=True))  # they are flattened, each on its own


@pytest.mark.parametrize(("observation", "action"), PAIRS, ids=lambda s: str(s)[:30])
def test_every_space_is_learnt_in_and_acted_in(observation, action):
    agent = Agent(Toy(observation, action), config=SMALL | {"random_steps": 10}).learn(15, progress_bar=False)
    assert agent.num_timesteps == 15 and agent.learner.trained
    chosen, _ = agent.predict(observation.sample(), deterministic=False)
    assert action.contains(chosen) or action.contains(int(chosen))


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode), ids=str)
def test_all_autoreset_modes_remember_the_same_number_of_real_transitions(mode):
    observation, action = OBSERVATIONS[0], ACTIONS[0]
    lengths = (3, 5)
    env = gymnasium.vector.SyncVectorEnv([lambda n=n: Toy(observation, action, n) for n in lengths], autoreset_mode=mode)
    seen: list[float] = []
    agent = Agent(env, config=SMALL).learn(40, progress_bar=False, callback=lambda _, p: seen.extend(p.episode_returns))
    assert set(seen) == {3.0, 5.0}
    follows = int(agent.buffer.follows.sum())
    assert agent.num_timesteps - env.num_envs <= follows <= agent.num_timesteps
