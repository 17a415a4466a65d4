"""Who learns: one table. A method is how to make a learner of a task, and what kinds of actions it can take."""

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

CONVOLVED = 36  # pixels along a side that the convolutions of stable-baselines3 (Mnih et al. 2015) need

Seen = Callable[[int], None]
"""Called after every environment step with their number so far."""


class Learner(Protocol):
    """Learns in its environment, and decides as agents of stable-baselines3 do."""

    def learn(self, steps: int, seen: Seen) -> None:
        """Take so many environment steps, or a few more where they come in batches."""
        ...

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> Any:
        """Actions, and what to hand to the next call."""
        ...


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    make: Callable[[Task, int], Learner]
    """`(task, seed) -> learner`."""
    actions: tuple[type, ...] = ()
    """Kinds of action spaces it takes; empty for all."""
    learns: bool = True
    """Whether its score changes with experience; what does not learn is scored once."""
    needs: tuple[str, ...] = ()
    """Modules to be installed, by the extra `baselines`."""
    truth: bool = False
    """Whether the task has to have a true model."""


class Planning:
    """Our agent."""

    def __init__(self, agent: Agent):
        self.agent, self.predict = agent, agent.predict

    def learn(self, steps: int, seen: Seen) -> None:
        """Learn, looking at nothing but the task's spaces."""
        self.agent.learn(steps, callback=lambda _, progress: seen(progress.timesteps), progress_bar=False)


class Reinforced:
    """An agent of stable-baselines3 or one of its kin."""

    def __init__(self, agent: Any):
        self.agent = agent

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> Any:
        """As it decides itself."""
        return self.agent.predict(observation, state, episode_start, deterministic)

    def learn(self, steps: int, seen: Seen) -> None:
        """Learn in one go: exploration and rates that fall over a whole training would fall over each part of one."""
        self.agent.learn(steps, callback=lambda local, _: seen(local["self"].num_timesteps) is None)


class Floor:
    """Random actions."""

    def __init__(self, env: gymnasium.Env, seed: int):
        self.seen, self.space = env.observation_space, env.action_space
        self.space.seed(seed)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> Any:
        """Uniformly, for a batch of observations or for one."""
        if not gym_spaces.is_batched(self.seen, observation):
            return self.space.sample(), None
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        return np.stack([self.space.sample() for _ in range(len(first))]), None

    def learn(self, steps: int, seen: Seen) -> None:
        """Nothing."""


def ours(task: Task, seed: int, **changes: Any) -> Learner:
    """Our agent with its default settings, but for what is to be otherwise."""
    return Planning(Agent(task.name, seed=seed, settings=changes))


def truth(task: Task, seed: int) -> Learner:
    """Our planner in the true dynamics: what remains to be learnt."""
    assert task.truth is not None
    return Planning(Agent(task.name, seed=seed, model=task.truth()))


def floor(task: Task, seed: int) -> Learner:
    """What no learning brings."""
    return Floor(gym_spaces.make(task.name), seed)


def reinforced(task: Task, seed: int, *, module: str, name: str, **changes: Any) -> Learner:
    """An agent with the default settings of its library but for what is to be otherwise, on the CPU.

    Raises:
        ImportError: If the library is not installed, with the extra that has it.
    """
    env = gym_spaces.make(task.name)
    where = {} if module == "sbx" else {"device": "cpu"}  # JAX has a device of its own accord
    if name == "DQN":  # room for a million steps, the default, would be reserved at once: too much where they are images
        where |= {"buffer_size": min(task.at[-1], 1_000_000)}
    return Reinforced(getattr(library(module), name)(policy_for(env.observation_space), env, seed=seed, **where, **changes))


def policy_for(space: gymnasium.Space) -> str:
    """The kind of network that fits observations: convolutions where images are large enough for those of the library."""
    if isinstance(space, gymnasium.spaces.Dict):
        return "MultiInputPolicy"
    large = gym_spaces.is_image(space) and min(gym_spaces.observation_shape(space)[:2]) >= CONVOLVED
    return "CnnPolicy" if large else "MlpPolicy"


def library(module: str) -> Any:
    """A module of the extra `baselines`.

    Raises:
        ImportError: If it is not installed, with the extra that has it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} cannot be imported ({error}): pip install 'craik[baselines]'") from error


def _row(module: str, name: str, *actions: type, **changes: Any) -> Method:
    return Method(partial(reinforced, module=module, name=name, **changes), actions, needs=(module,))


_BOX = gymnasium.spaces.Box
METHODS: dict[str, Method] = {
    "craik": Method(ours),
    "craik-memory": Method(partial(ours, memory=2)),
    "craik-repeat": Method(partial(ours, repeat=2)),
    "craik-no-critic": Method(partial(ours, practice=0)),
    "craik-no-doubt": Method(partial(ours, disagreement=0.0)),
    "craik-cem": Method(partial(ours, planner="cem")),
    "truth": Method(truth, learns=False, truth=True),
    "random": Method(floor, learns=False),
    "sac": _row("stable_baselines3", "SAC", _BOX),
    "ppo": _row("stable_baselines3", "PPO"),
    "dqn": _row("stable_baselines3", "DQN", gymnasium.spaces.Discrete),
    # the defaults are meant for millions of steps: an update every fourth, targets that move every ten thousandth
    "dqn-brief": _row("stable_baselines3", "DQN", gymnasium.spaces.Discrete, train_freq=1, target_update_interval=500),
    "tqc": _row("sb3_contrib", "TQC", _BOX),
    "sbx-sac": _row("sbx", "SAC", _BOX),
    "sbx-crossq": _row("sbx", "CrossQ", _BOX),
}


def fits(method: str, task: Task) -> bool:
    """Whether a method can play a task.

    Args:
        method: A name of the table.
        task: To be played.

    Raises:
        ValueError: If there is no such method.
        ImportError: If its library is not installed.
    """
    if method not in METHODS:
        raise ValueError(f"no method is called {method!r}; there are {', '.join(METHODS)}")
    row = METHODS[method]
    for module in row.needs:
        library(module)
    env = gym_spaces.make(task.name)
    space = env.action_space
    env.close()
    return (not row.actions or isinstance(space, row.actions)) and (task.truth is not None or not row.truth)
