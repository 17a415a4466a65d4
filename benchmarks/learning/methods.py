"""The table of methods: how to make a learner for a task, and which action spaces it supports."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np

from benchmarks.learning.tasks import Task
from mpc.agent import Agent
from mpc.agent.perception import gym_spaces

MIN_CNN_SIDE = 36  # smallest image side in pixels for the convolutions of stable-baselines3 (Mnih et al. 2015)

OnStep = Callable[[int], None]
"""Callback after every environment step, with the number of steps so far."""


class Learner(Protocol):
    """A learner with the `predict` method of stable-baselines3."""

    def learn(self, steps: int, on_step: OnStep) -> None:
        """Learns for a number of environment steps, or slightly more if steps come in batches."""
        ...

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> Any:
        """Returns actions and the state for the next call."""
        ...


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    make: Callable[[Task, int], Learner]
    """`(task, seed) -> learner`."""
    actions: tuple[type, ...] = ()
    """Supported types of action spaces; empty for all."""
    learns: bool = True
    """False for a method without learning, which is evaluated once."""
    needs: tuple[str, ...] = ()
    """Required modules, from the extra `baselines`."""
    truth: bool = False
    """True if the method needs the true model of the task."""


class Planning:
    """The agent of this library."""

    def __init__(self, agent: Agent):
        self.agent, self.predict = agent, agent.predict

    def learn(self, steps: int, on_step: OnStep) -> None:
        """Learns for a number of environment steps."""
        self.agent.learn(steps, callback=lambda _, progress: on_step(progress.timesteps), progress_bar=False)


class Baseline:
    """An agent of stable-baselines3 or of a library with the same interface."""

    def __init__(self, agent: Any):
        self.agent = agent

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> Any:
        """Returns the actions of the agent."""
        return self.agent.predict(observation, state, episode_start, deterministic)

    def learn(self, steps: int, on_step: OnStep) -> None:
        """Learns in one call, because schedules of exploration and learning rates span one call."""
        self.agent.learn(steps, callback=lambda local, _: on_step(local["self"].num_timesteps) is None)


class RandomActions:
    """Uniformly random actions."""

    def __init__(self, env: gymnasium.Env, seed: int):
        self.observations, self.space = env.observation_space, env.action_space
        self.space.seed(seed)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> Any:
        """Returns random actions for a batch of observations or for one."""
        if not gym_spaces.is_batched(self.observations, observation):
            return self.space.sample(), None
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        return np.stack([self.space.sample() for _ in range(len(first))]), None

    def learn(self, steps: int, on_step: OnStep) -> None:
        """Does nothing."""


def ours(task: Task, seed: int, **changes: Any) -> Learner:
    """Returns the agent with its default settings and the given changes."""
    return Planning(Agent(task.name, seed=seed, config=changes))


def truth(task: Task, seed: int) -> Learner:
    """Returns the planner with the true dynamics, the upper bound for a learnt model."""
    assert task.truth is not None
    return Planning(Agent(task.name, seed=seed, model=task.truth()))


def floor(task: Task, seed: int) -> Learner:
    """Returns random actions, the lower bound."""
    return RandomActions(gym_spaces.make(task.name), seed)


def baseline(task: Task, seed: int, *, module: str, name: str, **changes: Any) -> Learner:
    """Returns an agent of another library with its default settings and the given changes, on the CPU.

    Raises:
        ImportError: If the library is not installed.
    """
    env = gym_spaces.make(task.name)
    settings = {} if module == "sbx" else {"device": "cpu"}  # sbx uses JAX's default device
    if name == "DQN":  # the default buffer of 1e6 steps is allocated at once, too much memory for images
        settings |= {"buffer_size": min(task.at[-1], 1_000_000)}
    policy = policy_for(env.observation_space)
    return Baseline(getattr(library(module), name)(policy, env, seed=seed, **settings, **changes))


def policy_for(space: gymnasium.Space) -> str:
    """Returns the policy class for observations; convolutions need images of at least 36 pixels."""
    if isinstance(space, gymnasium.spaces.Dict):
        return "MultiInputPolicy"
    large = gym_spaces.is_image(space) and min(gym_spaces.observation_shape(space)[:2]) >= MIN_CNN_SIDE
    return "CnnPolicy" if large else "MlpPolicy"


def library(module: str) -> Any:
    """Imports a module of the extra `baselines`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} cannot be imported ({error}): pip install 'craik[baselines]'") from error


def _row(module: str, name: str, *actions: type, **changes: Any) -> Method:
    return Method(partial(baseline, module=module, name=name, **changes), actions, needs=(module,))


_BOX = gymnasium.spaces.Box
METHODS: dict[str, Method] = {
    "craik": Method(ours),
    "craik-history": Method(partial(ours, history=2)),
    "craik-repeat": Method(partial(ours, action_repeat=2)),
    "craik-no-critic": Method(partial(ours, actor_critic_updates=0)),
    "craik-no-disagreement": Method(partial(ours, disagreement_weight=0.0)),
    "craik-cem": Method(partial(ours, planner="cem")),
    "truth": Method(truth, learns=False, truth=True),
    "random": Method(floor, learns=False),
    "sac": _row("stable_baselines3", "SAC", _BOX),
    "ppo": _row("stable_baselines3", "PPO"),
    "dqn": _row("stable_baselines3", "DQN", gymnasium.spaces.Discrete),
    # the defaults suit millions of steps: an update every 4 steps, a target update every 10,000
    "dqn-brief": _row("stable_baselines3", "DQN", gymnasium.spaces.Discrete, train_freq=1, target_update_interval=500),
    "tqc": _row("sb3_contrib", "TQC", _BOX),
    "sbx-sac": _row("sbx", "SAC", _BOX),
    "sbx-crossq": _row("sbx", "CrossQ", _BOX),
}


def fits(method: str, task: Task) -> bool:
    """Returns True if a method can play a task.

    Args:
        method: Name in the table.
        task: Task to play.

    Raises:
        ValueError: If the method is unknown.
        ImportError: If its library is not installed.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    row = METHODS[method]
    for module in row.needs:
        library(module)
    env = gym_spaces.make(task.name)
    space = env.action_space
    env.close()
    return (not row.actions or isinstance(space, row.actions)) and (task.truth is not None or not row.truth)
