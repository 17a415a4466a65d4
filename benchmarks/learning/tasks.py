"""The tasks of the benchmark: evaluation steps, goals, and true models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

import envs
from world_models import analytic
from world_models.base import WorldModel


@dataclass(frozen=True)
class Task:
    """A Gymnasium task with the data that the benchmark needs."""

    name: str
    at: tuple[int, ...]
    """Environment steps at which to evaluate."""
    goal: float | None = None
    """Return at which the task counts as solved; None if undefined."""
    truth: Callable[[], WorldModel] | None = None
    """World model of the true dynamics and reward, if available."""


def _pendulum() -> WorldModel:
    p = envs.pendulum
    return analytic(p.dynamics, p.reward, p.state_of, p.PARAMS)


def _cartpole() -> WorldModel:
    c = envs.cartpole_swingup
    return analytic(c.dynamics, c.reward, c.state_of, c.PARAMS)


HIDDEN = "benchmarks/PendulumHidden-v1"
"""Pendulum-v1 without the observation of its speed, which must be inferred from earlier observations."""

VISIBLE = "benchmarks/TMazeVisible-v0"
"""T-maze with a cue that is always observed, which needs no memory."""

SWINGUP = "craik/CartPoleSwingUp-v0"

SUITE = {
    task.name: task
    for task in (
        Task("Pendulum-v1", (300, 600, 1_000), -160.0, _pendulum),
        Task("InvertedPendulum-v5", (600,), 1_000.0),
        Task("InvertedDoublePendulum-v5", (1_000,), 9_300.0),
        Task("CartPole-v1", (1_200,), 500.0),
        Task("Acrobot-v1", (1_000, 2_500, 5_000), -85.0),
        Task("MountainCarContinuous-v0", (500,), 90.0),
        Task("Reacher-v5", (1_000, 2_500, 5_000), -5.0),
        Task(HIDDEN, (500, 1_000, 1_500), -170.0),
    )
}
GAMES = {
    name: Task(name, (2_000, 5_000))
    for name in (
        *(f"MinAtar/{game}-v1" for game in ("Breakout", "Freeway", "Asterix", "SpaceInvaders", "Seaquest")),
        *("ALE/Pong-v5", "ALE/Freeway-v5"),
    )
}
"""Games with image observations: MinAtar (10x10) and Atari (a step is four frames)."""

TASKS = (
    SUITE
    | GAMES
    | {
        task.name: task
        for task in (
            Task(SWINGUP, (500, 1_000, 2_000, 3_000), truth=_cartpole),
            *(Task(f"{name}-v5", (5_000, 10_000, 25_000)) for name in ("HalfCheetah", "Hopper", "Walker2d")),
            # steps of DeepMind Control are frames; the goals are the best published scores after 50,000 frames
            Task("dm_control/cartpole-swingup-v0", (10_000, 25_000, 50_000), 870.0),
            Task("dm_control/pendulum-swingup-v0", (10_000, 25_000, 50_000), 832.0),
            Task("dm_control/reacher-easy-v0", (10_000, 25_000, 50_000), 867.0),
            Task("dm_control/finger-spin-v0", (10_000, 25_000, 50_000), 937.0),
        )
    }
)
DEFAULT_AT = (500, 1_000, 2_000)
"""Evaluation steps of tasks that are not listed."""


def _drop_speed(observation: np.ndarray) -> np.ndarray:
    return observation[:2]


def _without_speed(**settings: Any) -> gymnasium.Env:
    env = gymnasium.make("Pendulum-v1", **settings).unwrapped
    space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    return gymnasium.wrappers.TransformObservation(env, _drop_speed, space)


def register() -> None:
    """Registers the tasks of this benchmark with Gymnasium; repeated calls have no effect."""
    if HIDDEN not in gymnasium.registry:
        gymnasium.register(HIDDEN, entry_point=_without_speed, max_episode_steps=200, disable_env_checker=True)
        maze = dict(gymnasium.spec("craik/TMaze-v0").kwargs) | {"visible": True}
        gymnasium.register(VISIBLE, "envs.gym:Env", max_episode_steps=60, kwargs=maze, disable_env_checker=True)


def task(name: str, at: tuple[int, ...] = (), goal: float | None = None) -> Task:
    """Returns a task, with changes of its defaults.

    Args:
        name: Id of an environment.
        at: Environment steps at which to evaluate; empty for the default.
        goal: Return at which the task counts as solved; None for the default.

    Raises:
        ValueError: If the steps do not increase.
    """
    default = TASKS.get(name, Task(name, DEFAULT_AT))
    at = at or default.at
    if list(at) != sorted(set(at)) or at[0] < 1:
        raise ValueError(f"evaluation steps must increase, from at least 1; got {' '.join(map(str, at))}")
    return Task(name, at, default.goal if goal is None else goal, default.truth)
