"""Exploration, action repeat, and gradient steps per environment step, in worlds whose answers are known."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from mpc.agent import Agent, AgentConfig
from mpc.agent.cost import exploration
from mpc.agent.perception.action_repeat import Repeated
from tests.agent.toys import ACTIONS, OBSERVATIONS, SMALL, Toy
from world_models import analytic, data

CONFIG = SMALL | {"planner": "gradient", "noise": 0.0, "iterations": 10, "first_iterations": 20}


class Rail(gymnasium.Env):
    """A cart that moves as it is pushed; effort costs, and with `leftwards` above 0 it is best to be at the left end."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    leftwards, steps, falls = 0.0, 0, False

    def reset(self, *, seed=None, options=None):
        """Begin in the middle."""
        super().reset(seed=seed)
        self.place, self.left = np.zeros(1, np.float32), 7
        return self.place, {}

    def step(self, action):
        """Push."""
        reward = -0.1 * float(action[0]) ** 2 - self.leftwards * float(self.place[0])
        self.place, self.left, self.steps = self.place + np.asarray(action, np.float32), self.left - 1, self.steps + 1
        over = self.left == 0
        return self.place, reward, over and self.falls, over, {}


def rail(env: Rail):
    """Return the true model, with a disagreement that grows to the right."""
    known = analytic(
        lambda params, state, action: state + action,
        lambda params, state, action: -0.1 * action[0] ** 2 - params["leftwards"] * state[0],
        None,
        {"leftwards": 1.0},
    )

    def predict(params, state, action):
        later = known.predict(params, state, action)
        return later._replace(disagreement=state.discount * (5.0 + later.latent[0]))

    return known._replace(predict=predict)


@pytest.fixture(scope="module")
def cart() -> tuple[Agent, Rail]:
    """An agent that knows everything, and disagrees with itself to the right."""
    env = Rail()
    config = CONFIG | {"random_steps": 15, "train_every": 5, "update_ratio": 2.0, "disagreement_weight": 0.0}
    return Agent(env, config=config, model=rail(env)), env


def taken(agent: Agent, newest: int) -> np.ndarray:
    """Return the last actions."""
    rows = int(agent.buffer.head[0]) - newest + np.arange(newest)
    real = np.asarray(agent.buffer.follows)[0, rows + 1]  # an episode's last observation has none
    return np.asarray(agent.buffer.actions)[0, rows, 0][real]


def test_disagreement_is_sought_until_rewards_are_informative_and_never_when_not_learning(cart):
    agent, env = cart
    agent.learn(36, progress_bar=False)
    assert (taken(agent, 18) > 0.8).all()  # nothing but effort costs: look to the right
    np.testing.assert_array_less(agent.predict(np.zeros(1, np.float32))[0], -0.8)  # the model knows better
    env.leftwards = 1.0
    agent.learn(70, progress_bar=False)  # experience doubles, and rewards count in full
    assert (taken(agent, 18) < -0.8).all()


def test_the_exploration_bonus_is_weighed_against_rewards_until_an_episode_terminates(cart):
    agent, env = cart
    env.leftwards = 1.0
    agent.learn(21, progress_bar=False)
    assert agent.config.cost.exploration_bonus < 1.0 and (taken(agent, 6) < -0.8).all()
    agent.config = agent.config.changed({"exploration_bonus": 2.0})  # a place to the right costs 1 and is worth 2
    agent.learn(21, progress_bar=False)
    assert (taken(agent, 6) > 0.8).all()
    np.testing.assert_array_less(agent.predict(np.zeros(1, np.float32))[0], -0.8)
    env.falls = True
    agent.learn(21, progress_bar=False)
    assert (taken(agent, 6) < -0.8).all()


def test_the_update_ratio_is_a_factor_on_gradient_steps(cart):
    agent, _ = cart
    trainings = agent.config.trainings(agent.num_timesteps) - agent.config.trainings(15) + SMALL["first_trainings"]
    assert int(agent.learner.training.updates) == trainings * 2 * SMALL["updates"]
    scaled = [AgentConfig().changed({"update_ratio": ratio}).scaled(400) for ratio in (0.001, 0.25, 1.0, 1.5)]
    assert scaled == [1, 100, 400, 600] and AgentConfig().changed({"update_ratio": 0.001}).scaled(0) == 0


def test_trainings_are_due_every_few_steps_and_then_as_experience_grows():
    config = AgentConfig().changed({"train_every": 10, "train_growth": 0.025})
    due = [t for t in range(1, 5001) if config.trainings(t) > config.trainings(t - 1)]
    assert [t for t in due if t <= 400] == list(range(10, 401, 10))
    later = np.array([t for t in due if t > 400])
    growth = later[1:] / later[:-1] - 1  # between whole steps
    assert (np.abs(growth - np.expm1(0.025)) < 1 / later[:-1]).all()
    assert config.changed({"train_growth": 0.0}).trainings(4999) == 499


@pytest.mark.parametrize(
    ("changes", "first", "least"),
    [({}, 6_000, 1.0), ({"least_updates": 0.5}, 12_000, 0.5), ({"updates": 5, "train_every": 10}, 200, 0.5)],
)
def test_gradient_steps_per_step_do_not_fall_below_a_floor(changes, first, least):
    config = AgentConfig().changed(changes)
    without = config.changed({"least_updates": 0.0})
    early = range(0, first, 7)
    assert [config.trainings(t) for t in early] == [without.trainings(t) for t in early]
    updates = config.learning.updates
    due = np.array([t for t in range(first, 100_001) if config.trainings(t) > config.trainings(t - 1)])
    assert abs(len(due) * updates - least * (100_000 - first)) <= updates
    assert np.diff(due).max() <= updates / least + 1 and np.diff(due).min() >= config.learning.train_every
    assert without.trainings(100_000) - without.trainings(90_000) < 0.4 * (due >= 90_000).sum()


def rewarded(rewards, terminated=False) -> data.TrajectoryBuffer:
    """Return a buffer with one episode of random actions and the rewards `rewards(place, action, t)`."""
    buffer, drawn = data.create(64, 1, (1,), (1,)), np.random.default_rng(0)
    for t in range(50):
        place, action = drawn.normal(size=(1, 1)), drawn.uniform(-1, 1, (1, 1))
        paid = np.array([rewards(float(place[0, 0]), float(action[0, 0]), t)])
        buffer = data.append(
            buffer, data.Rows(place, action, paid, np.array([terminated]), np.array([t > 0])), np.ones(1, bool)
        )
    return buffer


def noise(t: int) -> float:
    """Return a number between -1 and 1 that nothing but the time tells."""
    return float(np.sin(1e3 * t**2))


@pytest.mark.parametrize(
    ("rewards", "terminated", "intrinsic"),
    [
        (lambda place, action, t: -1.0, False, 1.0),
        (lambda place, action, t: 0.0, False, 1.0),
        (lambda place, action, t: -0.1 * action**2, False, 1.0),
        (lambda place, action, t: -abs(action), False, 1.0),
        (lambda place, action, t: -(action**4), False, 1.0),
        (lambda place, action, t: -3.0 * action**2 + 0.2 * noise(t), False, 1.0),
        (lambda place, action, t: -0.1 * action**2 + 100.0 * (t == 30), False, 0.5),
        (lambda place, action, t: -3.0 * action**2 + 0.5 * (t == 30), False, 0.5),
        (lambda place, action, t: -3.0 * action**2 + 0.5 * (t == 20), False, 0.0),
        (lambda place, action, t: -(place**2) - action**2, False, 0.0),
        (lambda place, action, t: -3.0 * action**2 + 0.2 * place, False, 0.0),  # 95% of it is the action's
        (lambda place, action, t: 1.0, True, 0.0),
    ],
    ids=[
        *("constant", "zero", "effort", "size of the action", "fourth power", "noise"),
        *("goal", "small goal", "small goal earlier", "place", "place under effort", "end"),
    ],
)
def test_rewards_are_informative_if_the_state_explains_what_actions_leave_of_them(rewards, terminated, intrinsic):
    buffer = rewarded(rewards, terminated)
    steps = {"steps": 50, "most_steps": 1000}
    assert exploration.informative(buffer) is (intrinsic < 1.0)
    bonus, reward = 0.0 if terminated else 0.3, 1.0 - intrinsic
    only = {"disagreement": -(intrinsic + reward * bonus), "reward": reward, "critic": reward, "cost": reward}
    assert exploration.weights(buffer, 0.3, True, **steps) == pytest.approx(only)
    both = {"disagreement": -bonus, "reward": 1.0, "critic": 1.0, "cost": 1.0}
    assert exploration.weights(buffer, 0.3, False, **steps) == pytest.approx(both)


def test_rewards_count_in_any_case_after_so_many_steps():
    buffer = rewarded(lambda place, action, t: -(action**2))
    assert [exploration.intrinsic_share(buffer, steps, 100) for steps in (50, 75, 100, 500)] == [1.0, 0.5, 0.0, 0.0]


def test_the_state_is_found_to_explain_a_part_among_many_numbers_of_an_observation():
    drawn = np.random.default_rng(0)
    seen = drawn.normal(size=(100, 23))
    seen[:, 5], seen[:, 6] = 1e8, 0.0
    distance = np.linalg.norm(seen[:, :3], axis=1)
    assert exploration.explained(distance, seen) > 0.3
    assert exploration.explained(drawn.normal(size=100), seen) < exploration.MATERIAL
    assert exploration.explained(np.zeros(100), seen) == 0.0 == exploration.explained(distance, np.ones((100, 2)))


@pytest.fixture(scope="module")
def holding() -> tuple[Agent, Toy]:
    """An agent that holds actions for three steps."""
    env = Toy(OBSERVATIONS[0], ACTIONS[0], length=7)
    quick = {"iterations": 1, "first_iterations": 1, "noise": 0.1}  # noise tells one decision from another
    still = analytic(lambda params, state, action: state, lambda params, state, action: action @ action, None, {})
    return Agent(env, config=CONFIG | quick | {"action_repeat": 3, "random_steps": 1000}, model=still), env


def test_repeated_steps_are_counted_as_the_environment_does_and_episodes_end_where_they_end(holding):
    agent, _ = holding
    ended: list[tuple[int, list[float]]] = []
    agent.learn(28, progress_bar=False, callback=lambda _, p: ended.append((p.timesteps, p.episode_returns)))
    assert [steps for steps, _ in ended] == [3, 6, 7, 10, 13, 14, 17, 20, 21, 24, 27, 28]  # 3 + 3 + 1, four times
    assert [returns for _, returns in ended if returns] == [[7.0]] * 4
    assert int(agent.buffer.follows.sum()) == 12  # transitions


def test_a_held_action_is_decided_on_once(holding):
    agent, _ = holding
    seen = np.random.default_rng(0).uniform(-1, 1, (5, 2, 3)).astype(np.float32)
    states: list[Any] = [None]
    made = []
    for t, rows in enumerate(seen):
        started = np.array([False, t == 2])
        action, state = agent.predict(rows, state=states[-1], episode_start=started, deterministic=False)
        made.append(action)
        states.append(state)
    for t in (1, 2):  # held for three
        np.testing.assert_array_equal(made[t][0], made[0][0])
    before, after = states[1].policy, states[3].policy  # the first episode's plan rests meanwhile
    np.testing.assert_array_equal(after.history[0], before.history[0])
    np.testing.assert_array_equal(after.planning.fallback[0], before.planning.fallback[0])
    np.testing.assert_array_equal(made[1][1], made[0][1])
    for t in (3, 4):  # another episode began at 2, and with it another action
        np.testing.assert_array_equal(made[t][1], made[2][1])
    np.testing.assert_array_equal(after.history[1, 0], seen[2, 1])
    assert (made[3][0] != made[2][0]).any() and (made[2][1] != made[1][1]).any()
    np.testing.assert_array_equal(states[-1].left, [1, 0])
    assert (agent.predict(seen[4], states[-1].released(), deterministic=False)[0] != made[4]).any(axis=1).all()


def test_vector_environments_have_to_repeat_by_themselves(holding):
    def vector(times):
        return gymnasium.vector.SyncVectorEnv([lambda: Repeated(Toy(OBSERVATIONS[0], ACTIONS[0]), times)])

    with pytest.raises(ValueError, match=r"Repeated\(env, 3\)"):
        Agent(vector(2), config=CONFIG | {"action_repeat": 3})
    with pytest.raises(ValueError, match="times=0"):
        Repeated(Toy(OBSERVATIONS[0], ACTIONS[0]), 0)
    agent = Agent(vector(3), config=CONFIG | {"action_repeat": 3}).learn(10, progress_bar=False)
    assert agent.num_timesteps == 10  # 3 + 3 + 1 + 3
