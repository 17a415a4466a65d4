"""Tasks of DeepMind Control, by the ids that shimmy registers; without the extra, an error that names it."""

import importlib.util

import gymnasium
import numpy as np
import pytest

from mpc.agent import Agent
from mpc.agent.cli.main import main
from mpc.agent.perception import gym_spaces
from tests.agent.toys import SMALL

INSTALLED = importlib.util.find_spec("dm_control") is not None
NAME = "dm_control/cartpole-swingup-v0"
needed = pytest.mark.skipif(not INSTALLED, reason="needs craik[dmc]")


@pytest.mark.skipif(INSTALLED, reason="craik[dmc] is installed")
def test_without_the_extra_the_error_names_it(capsys):
    assert main(["learn", NAME, "--steps", "10"]) == 2
    assert "pip install 'craik[dmc]'" in capsys.readouterr().err


@needed
@pytest.mark.filterwarnings("ignore")  # of a window that is not there
def test_the_task_is_deepminds_own():
    from dm_control import suite  # type: ignore[import-not-found]

    env, theirs = gym_spaces.make(NAME), suite.load("cartpole", "swingup", task_kwargs={"random": 3})
    raw, _ = env.reset(seed=3)
    shown = theirs.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 1)):
        row = gym_spaces.rows(env.observation_space, raw, batched=False)[0]
        np.testing.assert_allclose(row, np.concatenate(list(shown.observation.values())), rtol=1e-6)
        raw, reward, terminated, truncated, _ = env.step(action)
        shown = theirs.step(action)
        assert reward == shown.reward and not terminated and not truncated


@needed
@pytest.mark.filterwarnings("ignore")
def test_an_agent_learns_in_it_and_its_episodes_are_cut_off_not_ended():
    returns: list[float] = []
    agent = Agent(NAME, config=SMALL | {"random_steps": 990, "action_repeat": 2})
    agent.learn(1010, progress_bar=False, callback=lambda _, p: returns.extend(p.episode_returns))
    assert agent.num_timesteps == 1010 and agent.learner.trained and len(returns) == 1
    assert not np.asarray(agent.buffer.terminated).any()
    assert gymnasium.spaces.Box(-1, 1, (1,)).contains(np.float32(agent.predict(agent.observation_space.sample())[0]))
