"""Failures while learning: weights that diverge, environments that break, disks that are full."""

import errno

import gymnasium
import jax
import numpy as np
import pytest

from mpc.agent import Agent, online
from mpc.agent.memory import safeguards
from tests.agent.toys import SMALL
from world_models.io import atomic

LENGTH = 6


class Fragile(gymnasium.Env):
    """A point pushed to and fro, which from some step on does something else."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self):
        self.steps, self.bad = 0, lambda step: None

    def reset(self, *, seed=None, options=None):
        """Begin in the middle."""
        super().reset(seed=seed)
        self.place, self.left = np.zeros(2, np.float32), LENGTH
        return self.place, {}

    def step(self, action):
        """Push."""
        self.steps, self.left = self.steps + 1, self.left - 1
        self.place = (0.9 * self.place + np.r_[action, self.place[:1]]).astype(np.float32)
        seen = self.bad(self.steps)
        return self.place if seen is None else seen, -float(self.place @ self.place), False, self.left == 0, {}


@pytest.fixture(scope="module")
def trained() -> tuple[Agent, Fragile]:
    """An agent that has learnt for a moment, compiled once for all tests, and its environment."""
    env = Fragile()
    return Agent(env, config=SMALL | {"history": 2}).learn(25, progress_bar=False), env


@pytest.fixture
def agent(trained, tmp_path) -> tuple[Agent, Fragile]:
    """The same, with nothing wrong with it yet."""
    agent, env = trained
    env.bad = lambda step: None
    return agent, env


def weights(agent: Agent) -> list[np.ndarray]:
    """Of the model."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agent.learner.training.params["network"])]


@pytest.mark.parametrize("how", ["not finite", "explodes", "late"])
def test_a_diverging_model_steps_back_to_the_last_good_weights_and_says_so(agent, monkeypatch, how):
    agent, _ = agent
    made, before = agent.components.trainer, weights(agent)
    real = made(agent.config.scaled(agent.config.learning.updates), None)

    def diverging(training, buffer):
        after, metrics = real.fit(training, buffer)
        if how == "explodes":
            return after, metrics | {"latent": metrics["latent"] + 1e6}
        broken = after._replace(params=jax.tree.map(lambda x: x * np.nan, after.params))
        return broken, metrics if how == "late" else metrics | {"latent": np.float32(np.nan)}

    monkeypatch.setattr(agent.components, "trainer", lambda *_: real._replace(fit=diverging))
    reason = {"not finite": "latent nan", "explodes": r"predictions of 1e\+06", "late": "weights that are not finite"}[how]
    key = np.asarray(jax.random.key_data(agent.learner.training.key))
    with pytest.warns(RuntimeWarning, match=rf"the world model diverged.*{reason}.*last good weights"):
        online.train(agent)
    for old, new in zip(before, weights(agent), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (np.asarray(jax.random.key_data(agent.learner.training.key)) != key).any()  # else it would draw the same again
    monkeypatch.undo()
    assert online.train(agent)["latent"] < 100
    assert any((old != new).any() for old, new in zip(before, weights(agent), strict=True))


def test_an_environment_that_raises_ends_learning_with_a_reason_and_a_checkpoint(agent, tmp_path):
    agent, env = agent
    begun, broken = agent.num_timesteps, ValueError("the cable came off")

    def raising(step):
        if agent.num_timesteps == begun + 7:
            raise broken

    env.bad = raising
    with pytest.raises(
        safeguards.EnvironmentFailure, match=rf"ValueError at step after {begun + 7} steps: the cable"
    ) as caught:
        agent.learn(50, progress_bar=False, checkpoint_path=tmp_path / "run")
    assert caught.value.__cause__ is broken
    assert Agent.load(tmp_path / "run").num_timesteps == begun + 7
    env.bad = lambda step: None
    assert agent.learn(3, progress_bar=False).num_timesteps == begun + 10  # and it can go on


def test_a_glitch_is_endured_and_broken_physics_are_not(agent, tmp_path):
    agent, env = agent
    begun, nan = env.steps, np.full(2, np.nan, np.float32)
    env.bad = lambda step: nan if step == begun + 3 else None
    agent.learn(10, progress_bar=False)
    env.bad = lambda step: nan
    with pytest.raises(safeguards.EnvironmentFailure, match=rf"environment 0 .*nan.*the {safeguards.PATIENCE}th in a row"):
        agent.learn(100, progress_bar=False, checkpoint_path=tmp_path / "run")
    assert env.steps == begun + 10 + safeguards.PATIENCE
    assert all(np.isfinite(leaf).all() for leaf in weights(Agent.load(tmp_path / "run")))
    assert np.isfinite(agent.predict(np.zeros(2, np.float32))[0]).all()


def test_a_full_disk_loses_neither_the_agent_nor_the_checkpoint_before(agent, tmp_path, monkeypatch):
    agent, _ = agent
    agent.save(tmp_path / "run")
    kept = agent.num_timesteps

    def full(place):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "flush", full)
    with pytest.raises(OSError, match=r"No space left.*still holds what it learnt") as caught:
        agent.learn(4, progress_bar=False, checkpoint_path=tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert Agent.load(tmp_path / "run").num_timesteps == kept
    agent.save(tmp_path / "elsewhere")
    assert Agent.load(tmp_path / "elsewhere").num_timesteps == kept + 4


def test_decisions_depend_on_what_was_observed_before(agent):
    agent, _ = agent  # nothing is wrong with it; but it is compiled already
    first, second = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    _, state = agent.predict(first)
    together, after = agent.predict(second, state=state)
    done = np.asarray(agent.program.recorded(state.held))[0]
    np.testing.assert_array_equal(after.policy.history[0], [[*second, *done], [*first, 0.0]])
    alone = state._replace(policy=state.policy._replace(history=np.array([[[*second, 0.0]] * 2], np.float32)))
    assert (together != agent.predict(second, state=alone)[0]).any()
