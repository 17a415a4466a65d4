"""Tests of the T-maze: rewards, and observations that do not repeat the cue."""

import gymnasium
import numpy as np

import envs  # noqa: F401  (registers the id)
from envs import t_maze


def walk(policy, seed, **settings):
    """Returns observations and rewards of an episode, and its termination and success flags."""
    env = gymnasium.make("craik/TMaze-v0", **settings)
    observation, info = env.reset(seed=seed)
    observations, rewards, terminated, truncated = [observation], [], False, False
    while not (terminated or truncated):
        action = np.array([policy(observations)], np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return np.array(observations), np.array(rewards), terminated, bool(info["success"])


def test_the_return_is_1_for_the_cued_arm_and_minus_1_for_the_other():
    for seed in range(6):
        _, rewards, over, well = walk(lambda seen: seen[0][2], seed)
        assert over and well and len(rewards) == t_maze.LENGTH + 4
        np.testing.assert_array_equal(rewards[-4:], 0.25)
        assert not rewards[:-4].any()
        _, rewards, over, well = walk(lambda seen: -seen[0][2], seed)
        assert over and not well and rewards.sum() == -1.0


def test_observations_after_the_cue_are_identical():
    """Actions before the junction that depend on the cue leave no trace of it."""

    def marking(seen):
        return seen[0][2] if len(seen) <= t_maze.LENGTH else 0.3

    walks = [walk(marking, seed)[0] for seed in range(8)]
    left, right = (next(seen for seen in walks if seen[0, 2] == cue) for cue in (1.0, -1.0))
    np.testing.assert_array_equal(left[1:], right[1:])


def test_an_episode_without_a_turn_is_truncated_and_a_visible_cue_stays():
    seen, rewards, over, well = walk(lambda _: 0.0, 3, visible=True)
    assert not over and not well and len(rewards) == 60 and not rewards.any()
    assert (seen[:, 2] == seen[0, 2]).all() and abs(seen[0, 2]) == 1.0


def test_a_given_cue_is_used():
    env = gymnasium.make("craik/TMaze-v0")
    for cue in (-1.0, 1.0):
        assert env.reset(seed=0, options={"cue": [cue]})[0][2] == cue
