"""Tests of warnings of unusual experience: learning goes on, and the warning has the quantity."""

import warnings

import gymnasium
import numpy as np
import pytest

from mpc.agent import Agent
from mpc.agent.memory.unusual import UnusualExperience, UnusualMonitor
from mpc.agent.perception import gym_spaces
from tests.agent.toys import SMALL


class Odd(gymnasium.Env):
    """A point that moves by the action, odd in one way."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, scale: float = 1.0, constant: bool = False, jumps: tuple[int, ...] = (), length: int | None = 30):
        self.scale, self.constant, self.jumps, self.length, self.taken, self.t = scale, constant, set(jumps), length, 0, 0
        self.x = np.zeros(2)

    def _seen(self) -> np.ndarray:
        jumped = 1e8 if self.taken in self.jumps else 0.0
        self.jumps.discard(self.taken)
        return np.ones(2) if self.constant else self.x + np.array([0.0, jumped])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1.0, 1.0, 2), 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t, self.taken = self.t + 1, self.taken + 1
        self.x = np.clip([self.x[0] + 0.2 * action[0], self.x[0]], -3.0, 3.0)
        ended = self.length is not None and self.t >= self.length
        return self._seen(), -self.scale * self.x[0] ** 2, ended and self.length == 1, ended, {}


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({}, None),
        ({"scale": 1e6}, r"rewards have a size of \de\+0[56]"),
        ({"scale": 1e-6}, r"rewards have a size of \de-0[67]"),
        ({"constant": True}, "none of their 2 numbers has varied"),
        ({"jumps": (60,)}, r"numbers \[1\] of an observation jumped to \[1000000.*after 59 steps"),
        ({"jumps": (60, 90)}, r"numbers \[1\]"),  # 90 is the end of an episode: its last observation
        ({"length": 1}, "all of 100 episodes ended after 1 step"),
        ({"length": None}, "no episode has ended in 1000 steps"),
    ],
)
def test_learning_goes_on_from_unusual_experience_and_tells_of_it(odd, message):
    env, steps = Odd(**odd), 1010 if odd == {"length": None} else 150
    agent = Agent(env, seed=0, config=SMALL | {"capacity": 2000, "train_every": 50})
    if message is None:
        agent.learn(steps, progress_bar=False)
    else:
        message = message.replace(r"\de", r"\d\.\de")
        with pytest.warns(UnusualExperience, match=message) as caught:
            agent.learn(steps, progress_bar=False)
        assert len(caught) == 1  # once
    assert agent.num_timesteps == steps and agent.learner.updates > 5
    scales = agent.learner.training.params["scales"]
    assert float(np.max(scales.observation_std)) < 10.0  # not that of a jump
    assert np.isfinite(agent.predict(np.zeros(2))[0]).all()


def monitor() -> UnusualMonitor:
    return UnusualMonitor(gym_spaces.vectorise(Odd()))


def test_what_jumps_again_and_again_or_grows_is_no_fault():
    seen, random = monitor(), np.random.default_rng(0)
    rows = [random.normal(size=(1, 2)).astype(np.float32) for _ in range(40)]
    for row in rows[:20]:
        assert np.isfinite(seen.without_jumps(row, 0)).all()
    far = np.array([[0.0, 1e8]], np.float32)
    with pytest.warns(UnusualExperience, match=r"\[1\]"):
        assert np.isnan(seen.without_jumps(far, 0)).all()
    assert np.isnan(seen.without_jumps(far, 0)).all()
    assert (seen.without_jumps(far, 0) == far).all()
    assert (seen.without_jumps(-far, 0) == -far).all()
    growing, numbers = monitor(), 10.0 ** np.arange(30)
    for number in numbers:  # a thousandfold every 3 steps, and a constant that begins to vary
        row = np.array([[number, 5.0 if number < 1e20 else 1e20]])
        assert (growing.without_jumps(row, 0) == row).all()


def test_observations_that_are_no_vectors_of_floats_are_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 4), np.int32)):
            assert monitor().without_jumps(rows, 0) is rows


def test_a_time_limit_or_an_end_shows_that_episodes_do():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limited = UnusualMonitor(gym_spaces.vectorise(gymnasium.make("Pendulum-v1")))
        limited.stepped(np.ones(1), 10**6)
        ended = monitor()
        ended.ended(np.array([50]))
        ended.stepped(np.ones(1), 10**6)
        for _ in range(300):  # some episodes last longer than a step
            ended.ended(np.array([1]))
