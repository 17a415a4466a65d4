"""Short-term memory: what is shown to the model is what really was seen, whichever way episodes restart."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from mpc.agent import Agent
from mpc.agent.memory import recall
from tests.agent.toys import SMALL

STEPS = 3


class Clock(gymnasium.Env):
    """Shows the number of its episode, and the time."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    episode = 0.0

    def __init__(self, length: int):
        self.length = length

    def reset(self, *, seed=None, options=None):
        """Another episode."""
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self.look(), {}

    def look(self):
        """Now."""
        return np.array([self.episode, self.time], np.float32)

    def step(self, action):
        """Tick."""
        self.time += 1
        return self.look(), 0.0, False, self.time == self.length, {}


def test_memory_begins_as_if_nothing_had_moved_and_endures_glitches():
    rows = [np.array([[float(t)]]) for t in range(5)]
    seen = recall(None, rows[0], None, STEPS)
    np.testing.assert_array_equal(seen[0, :, 0], [0, 0, 0])
    for t in (1, 2, 3):
        seen = recall(seen, rows[t], None, STEPS)
    np.testing.assert_array_equal(seen[0, :, 0], [3, 2, 1])
    glitch = recall(seen, np.array([[np.nan]]), None, STEPS)
    assert np.isnan(glitch[0, 0, 0])
    np.testing.assert_array_equal(recall(glitch, rows[4], None, STEPS)[0, :, 0], [4, 4, 3])
    np.testing.assert_array_equal(recall(seen, rows[4], np.array([True]), STEPS)[0, :, 0], [4, 4, 4])


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode), ids=str)
def test_what_is_learnt_from_is_what_was_seen_in_the_same_episode(mode):
    env = gymnasium.vector.SyncVectorEnv([lambda n=n: Clock(n) for n in (4, 7)], autoreset_mode=mode)
    settings = replace(SMALL, memory=STEPS, random_steps=1000)  # nothing is learnt here
    agent = Agent(env, settings=settings).learn(60, progress_bar=False)
    for ring, filled, follows in zip(agent.buffer.observations, agent.buffer.filled, agent.buffer.follows, strict=True):
        rows = np.asarray(ring)[: int(filled)].reshape(int(filled), STEPS, 2)
        rows = rows[:, :1] - np.concatenate([np.zeros_like(rows[:, :1]), np.cumsum(rows[:, 1:], axis=1)], axis=1)
        episode, time = rows[..., 0], rows[..., 1]
        assert (episode == episode[:, :1]).all()
        np.testing.assert_array_equal(time, np.maximum(time[:, :1] - np.arange(STEPS), 0))
        linked = np.asarray(follows)[: int(filled)]
        np.testing.assert_array_equal(np.diff(time[:, 0])[linked[1:]], 1)
        assert linked.sum() >= 20
