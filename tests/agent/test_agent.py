"""The agent in small: conventions, bad input, persistence; and that it learns."""

import os
import signal
import subprocess
import sys
from functools import cache

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from mpc.agent import Agent, AgentConfig, evaluate
from mpc.agent.evaluation import random_returns
from mpc.agent.memory.collect import collect
from mpc.agent.perception.gym_spaces import planner_space
from tests.agent.toys import ACTIONS, OBSERVATIONS, SMALL, Toy
from world_models import WorldModel, analytic
from world_models.io.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def pendulum() -> Agent:
    """A small agent that has learnt for a moment."""
    return Agent("Pendulum-v1", config=SMALL, seed=3).learn(30, progress_bar=False)


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
def test_the_expected_state_takes_the_place_of_an_observation_that_is_not_finite(pendulum, bad):
    good, broken = np.array([1.0, 0.0, 0.5], np.float32), np.full(3, bad, np.float32)
    _, state = pendulum.predict(good)
    expected = pendulum.imagine(state).latent[1]
    action, state = pendulum.predict(broken, state=state)
    np.testing.assert_allclose(state.policy.belief.latent[0], expected, atol=1e-5)
    first, _ = pendulum.predict(broken)
    for one in (action, first):
        assert np.isfinite(one).all() and (np.abs(one) <= 2).all()


def test_a_state_of_another_number_of_observations_is_refused(pendulum):
    _, state = pendulum.predict(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"of 2 observations, and 1 arrived: pass state=None"):
        pendulum.predict(np.zeros(3, np.float32), state=state)
    with pytest.raises(ValueError, match=r"episode_start is of 3 observations, and 2 arrived"):
        pendulum.predict(np.zeros((2, 3), np.float32), state=state, episode_start=np.zeros(3, bool))


def test_actions_may_be_written_into(pendulum):
    action, state = pendulum.predict(np.zeros(3, np.float32))
    kept = state.held.copy()
    action += 1.0
    np.testing.assert_array_equal(state.held, kept)


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
        (OBSERVATIONS[0], spaces.Box(-np.inf, np.inf, (1,)), "TransformAction"),
        (OBSERVATIONS[0], spaces.Box(0, 3, (1,), np.int64), "MultiDiscrete"),
    ],
)
def test_unsupported_spaces_are_named_with_a_way_out(observation, action, named):
    with pytest.raises(ValueError, match=named):
        Agent(Toy(observation, action), config=SMALL)


def test_unbounded_actions_are_taken_once_wrapped_as_the_message_says():
    env = Toy(OBSERVATIONS[0], spaces.Box(-np.inf, np.inf, (1,)))
    bounded = gymnasium.wrappers.TransformAction(env, lambda action: action, spaces.Box(-2.0, 2.0, (1,)))
    assert planner_space(bounded.action_space).bounded


def test_a_known_cost_of_observations_replaces_the_reward():
    """Of what a learnt model decodes: the action 1.0 is found, whatever the rewards are."""
    seen: list[tuple[int, ...]] = []

    def cost(params, observation, action, t):
        seen.append((observation.shape, action.shape))
        return 3.0 * (action[0] - 1.0) ** 2

    exact = {"planner": "gradient", "disagreement_weight": 0.0, "exploration_bonus": 0.0, "iterations": 150, "starts": 4}
    agent = Agent("Pendulum-v1", config=SMALL | exact, cost=cost).learn(25, progress_bar=False)
    assert set(seen) == {((3,), (1,))}
    action, state = agent.predict(np.array([1.0, 0.0, 0.5], np.float32))
    np.testing.assert_allclose(action, 1.0, atol=0.05)
    np.testing.assert_allclose(state.policy.plan.actions, 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        (lambda params, observation, action, t: observation, r"one number, of shape \[\]; got \(3,\)"),
        (
            lambda params, observation, action, t: observation @ action,
            r"observations of shape \[3\] and actions of shape \[1\]",
        ),
    ],
)
def test_a_known_cost_that_does_not_fit_is_refused_when_the_agent_is_made(cost, reason):
    with pytest.raises(ValueError, match=f"(?s)cost.*{reason}"):
        Agent("Pendulum-v1", config=SMALL, cost=cost)


TANK = {
    "horizon": 2,
    "starts": 4,
    "first_starts": 4,
    "samples": 64,
    "iterations": 30,
    "first_iterations": 30,
    "step_size": 0.1,
}
CHAIN = {"stages": ({"name": "cem", "samples": 64}, {"name": "gradient", "step_size": 0.05}), "switch_after": 10}


@pytest.mark.parametrize(
    "planner", ["gradient", "ilqr", "collocation", "cem", "icem", "mppi", "predictive_sampling", "chain"]
)
def test_every_planner_finds_the_optimum_of_a_known_model_in_the_units_of_the_environment(planner):
    """A tank that is filled by 0 to 20 at a time: from a level of 3 to 12, and no further, it takes 9, and then nothing."""
    config = TANK | {"planner": planner, "planner_options": CHAIN if planner == "chain" else {}}
    config |= {"actor_critic_updates": 0, "exploration_bonus": 0.0}
    agent = Agent(
        None,
        config=config,
        model=tank(),
        observation_space=spaces.Box(0.0, 50.0, (1,)),
        action_space=spaces.Box(0.0, 20.0, (1,)),
    )
    action, state = agent.predict(np.array([3.0], np.float32))
    np.testing.assert_allclose(action, 9.0, atol=0.75)
    np.testing.assert_allclose(agent.imagine(state).latent[1:, 0], 12.0, atol=1.5)


@cache
def tank() -> WorldModel:
    """The level of a tank, and what it costs to be off 12."""
    return analytic(
        lambda params, level, poured: level + poured,
        lambda params, level, poured: -((level[0] + poured[0] - 12.0) ** 2) / 10.0,
        None,
        {},
    )


def test_recordings_come_first_and_experience_after():
    """The weights learnt offline decide from the first step on, and both are in the replay buffer."""
    config = {"noise": 1e-6, "exploration_bonus": 0.0, "disagreement_weight": 0.0, "actor_critic_reset_growth": 100.0}
    agent, swings = Agent("Pendulum-v1", config=SMALL | config, seed=3), collect("Pendulum-v1", 2, length=20)
    agent.learn_from(swings, progress_bar=False)
    assert swings.actions is not None
    assert agent.learner.updates == SMALL["offline_updates"] and int(agent.buffer.filled[0]) == 42
    np.testing.assert_allclose(agent.buffer.rewards[0, :42], swings.rewards, rtol=1e-6)
    np.testing.assert_allclose(2.0 * agent.buffer.actions[0, :20, 0], swings.actions[:20, 0], atol=1e-5)  # torques up to 2
    first, _ = gymnasium.make("Pendulum-v1").reset(seed=3)
    expected, _ = agent.predict(first)
    agent.learn(12, progress_bar=False)
    kept = np.asarray(agent.buffer.observations[0])
    np.testing.assert_allclose(kept[:42], swings.observations, rtol=1e-6)
    np.testing.assert_allclose(kept[42], first, rtol=1e-6)
    np.testing.assert_allclose(2.0 * agent.buffer.actions[0, 42], expected, atol=1e-3)
    assert not agent.buffer.follows[0, 42]
    assert agent.learner.updates == SMALL["offline_updates"] + SMALL["updates"]  # one training was due


@pytest.mark.parametrize(
    "wrong",
    [{"update_ratio": 0.0}, {"action_repeat": 0}, {"horizon": 0}, {"discount": 1.5}, {"members": 2.5}, {"step_size": 0.0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AgentConfig.of(wrong)


def test_a_callback_ends_learning():
    agent = Agent("Pendulum-v1", config=SMALL)
    agent.learn(100, progress_bar=False, callback=lambda a, p: p.timesteps < 7)
    assert agent.num_timesteps == 7


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_learning_leaves_a_checkpoint_to_go_on_from(tmp_path, how):
    program = (
        "from mpc.agent import Agent\n"
        "from tests.agent.toys import SMALL\n"
        f"Agent('Pendulum-v1', config=SMALL).learn(10**6, progress_bar=False, checkpoint_path=r'{tmp_path}/run',\n"
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

    agent, before = Agent("Pendulum-v1", config=SMALL), signal.getsignal(how)
    with pytest.raises(raised):
        agent.learn(60, progress_bar=False, callback=burn, checkpoint_path=tmp_path / "run")
    assert agent.num_timesteps == 25 == Agent.load(tmp_path / "run").num_timesteps
    assert signal.getsignal(how) is before


class Slide(gymnasium.Env):
    """A place on a line, moved by at most 1; ten steps, each costs the square of the distance to 0."""

    observation_space, action_space = spaces.Box(-3.0, 3.0, (1,)), spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        """Begin anywhere in the middle."""
        super().reset(seed=seed)
        self.place, self.left = self.np_random.uniform(-2.0, 2.0, 1).astype(np.float32), 10
        return self.place, {}

    def step(self, action):
        """Move."""
        self.place, self.left = np.clip(self.place + action, -3.0, 3.0).astype(np.float32), self.left - 1
        return self.place, -float(self.place[0] ** 2), False, self.left == 0, {}


def test_a_task_is_learnt_in_60_steps():
    """Learning in small: beside the optimum, an agent loses less than a tenth of what random actions do, for every seed."""
    config = {"random_steps": 40, "updates": 150, "hidden": 32, "samples": 64, "iterations": 4, "window": 4}
    episodes = range(5)
    starts = np.abs([Slide().reset(seed=seed)[0][0] for seed in episodes])
    optimum = -sum(np.maximum(starts - step, 0.0) ** 2 for step in range(1, 11))  # full speed to the middle
    lost = optimum - random_returns(Slide, episodes)
    for seed in range(3):
        agent = Agent(Slide(), config=SMALL | config, seed=seed).learn(60, progress_bar=False)
        assert (optimum - evaluate(agent, Slide, episodes)).mean() < 0.1 * lost.mean()
