"""The agent in small: conventions, bad input, persistence; and that it learns."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

import mpc
from mpc.agent import Agent, Settings, evaluate
from mpc.agent.cost import reward
from tests.agent.toys import ACTIONS, OBSERVATIONS, SMALL, Toy
from world_models.io.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def pendulum() -> Agent:
    """A small agent that has learnt for a moment."""
    return Agent("Pendulum-v1", settings=SMALL, seed=3).learn(30, progress_bar=False)


def test_batches_equal_single_observations(pendulum):
    observations = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -2.0]], np.float32)
    together, state = pendulum.predict(observations)
    assert together.shape == (2, 1) and together.dtype == np.float32
    again, _ = pendulum.predict(observations)
    np.testing.assert_array_equal(together, again)
    alone, _ = pendulum.predict(observations[0])
    assert alone.shape == (1,)
    warm, _ = pendulum.predict(observations, state=state)
    fresh, _ = pendulum.predict(observations, state=state, episode_start=np.array([True, False]))
    np.testing.assert_allclose(fresh[0], together[0], atol=1e-5)
    np.testing.assert_allclose(fresh[1], warm[1], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_observation_that_is_not_finite_gets_the_last_plans_action(pendulum, bad):
    good = np.array([1.0, 0.0, 0.5], np.float32)
    _, state = pendulum.predict(good)
    expected = np.asarray(state.loop.backup[0, 0])
    action, state = pendulum.predict(np.full(3, bad, np.float32), state=state)
    np.testing.assert_array_equal(action, expected)
    first, _ = pendulum.predict(np.full(3, bad, np.float32))
    assert np.isfinite(first).all() and (np.abs(first) <= 2).all()


def test_wrong_shapes_are_refused(pendulum):
    with pytest.raises(ValueError, match=r"shape \(3,\).*got \(4,\)"):
        pendulum.predict(np.zeros(4))


def test_saved_and_loaded_agents_act_and_learn_alike(pendulum, tmp_path):
    pendulum.save(tmp_path / "run")
    loaded = Agent.load(tmp_path / "run", "Pendulum-v1")
    observation = np.array([0.3, 0.9, 1.0], np.float32)
    np.testing.assert_array_equal(loaded.predict(observation)[0], pendulum.predict(observation)[0])
    jax.tree.map(np.testing.assert_array_equal, loaded.learner.training.params, pendulum.learner.training.params)
    twin = Agent.load(tmp_path / "run", "Pendulum-v1")
    for agent in (loaded, twin):
        agent.learn(15, progress_bar=False)
    assert loaded.num_timesteps == 45
    jax.tree.map(np.testing.assert_array_equal, loaded.learner.training.params, twin.learner.training.params)


def test_checkpoints_of_other_environments_are_refused(pendulum, tmp_path):
    pendulum.save(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"another environment.*observation_space"):
        Agent.load(tmp_path / "run", "CartPole-v1")
    with pytest.raises(CheckpointError, match="environments at once"):
        Agent.load(tmp_path / "run", gymnasium.make_vec("Pendulum-v1", 3))
    (tmp_path / "foreign").mkdir()
    with pytest.raises(CheckpointError):
        Agent.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("observation", "action", "named"),
    [
        (spaces.Tuple([spaces.Discrete(2)]), ACTIONS[0], "Tuple"),
        (spaces.Text(5), ACTIONS[0], "Text"),
        (spaces.Graph(ACTIONS[0], None), ACTIONS[0], "Graph"),
        (spaces.Dict({"x": spaces.Text(5)}), ACTIONS[0], "Text"),
        (spaces.Box(0, 255, (84, 84, 3)), ACTIONS[0], "21168.*uint8"),
        (OBSERVATIONS[0], spaces.Tuple([spaces.Discrete(2)]), "Tuple"),
        (OBSERVATIONS[0], spaces.Box(-np.inf, np.inf, (1,)), "RescaleAction"),
        (OBSERVATIONS[0], spaces.Box(0, 3, (1,), np.int64), "MultiDiscrete"),
    ],
)
def test_unsupported_spaces_are_named_with_a_way_out(observation, action, named):
    with pytest.raises(ValueError, match=named):
        Agent(Toy(observation, action), settings=SMALL)


def test_a_known_cost_replaces_the_learnt_reward():
    agent = Agent("Pendulum-v1", settings=SMALL, cost=lambda p, s, a, t: 3.0 * (a[0] - 1.0) ** 2)
    agent = agent.learn(25, progress_bar=False)
    settings = replace(SMALL, starts=4, disagreement=0.0)
    planner = reward.planner(agent.model, agent.space, settings, agent.learner.actor_critic, agent.cost)
    params = agent.params | {"cost": agent.params["cost"] | {"disagreement": np.float32(0.0)}}
    state = agent.model.encode(params["model"], jax.numpy.zeros(3))
    plan = mpc.solve(planner, params, state, jax.random.key(0), iterations=300)
    np.testing.assert_allclose(plan.actions, 1.0, atol=0.05)


@pytest.mark.parametrize(
    "wrong", [{"effort": 0.0}, {"repeat": 0}, {"horizon": 0}, {"discount": 1.5}, {"members": 2.5}, {"step_size": 0.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_a_callback_ends_learning():
    agent = Agent("Pendulum-v1", settings=SMALL)
    agent.learn(100, progress_bar=False, callback=lambda a, p: p.timesteps < 7)
    assert agent.num_timesteps == 7


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_learning_leaves_a_checkpoint_to_go_on_from(tmp_path, how):
    program = (
        "from tests.agent.test_agent import *\n"
        f"Agent('Pendulum-v1', settings=SMALL).learn(10**6, progress_bar=False, checkpoint_path=r'{tmp_path}/run',\n"
        "    callback=lambda a, p: print(p.timesteps, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 25:
            break
    os.kill(process.pid, how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    agent = Agent.load(tmp_path / "run", "Pendulum-v1")
    before = agent.num_timesteps
    assert before >= 25 and agent.learn(5, progress_bar=False).num_timesteps == before + 5


@pytest.mark.parametrize(("how", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interruption_is_not_lost_in_a_finaliser(tmp_path, how, raised):
    class Fuse:
        def __del__(self):  # whatever is raised in here, Python prints and forgets
            signal.raise_signal(how)

    def burn(agent: Agent, progress) -> None:
        if progress.timesteps == 25:
            Fuse()

    agent, before = Agent("Pendulum-v1", settings=SMALL), signal.getsignal(how)
    with pytest.raises(raised):
        agent.learn(60, progress_bar=False, callback=burn, checkpoint_path=tmp_path / "run")
    assert agent.num_timesteps == 25 == Agent.load(tmp_path / "run").num_timesteps
    assert signal.getsignal(how) is before


@pytest.mark.usefixtures("optimised")
def test_pendulum_is_swung_up_after_300_steps():
    """The first learning bar in small: one seed instead of five."""
    begun = time.perf_counter()
    agent = Agent("Pendulum-v1", seed=0).learn(300, progress_bar=False)
    returns = evaluate(agent, "Pendulum-v1", range(10))
    print(f"{returns.mean():.1f} in {time.perf_counter() - begun:.0f} s")
    assert returns.mean() >= -160.0
