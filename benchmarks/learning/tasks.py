"""What is known of tasks beforehand: where to score, when a task counts as done, and true models where there are any."""

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
    """A task of Gymnasium as the benchmark needs it."""

    name: str
    at: tuple[int, ...]
    """Environment steps at which to score."""
    goal: float | None = None
    """Return at which it counts as done; None where nobody said."""
    truth: Callable[[], WorldModel] | None = None
    """True dynamics and reward, where we have them."""


def _pendulum() -> WorldModel:
    p = envs.pendulum
    return analytic(p.dynamics, p.reward, p.state_of, p.PARAMS, scale=p.MAX_TORQUE)


def _cartpole() -> WorldModel:
    c = envs.cartpole_swingup
    return analytic(c.dynamics, c.reward, c.state_of, c.PARAMS, scale=c.MAX_FORCE)


HIDDEN = "benchmarks/PendulumHidden-v1"
"""Pendulum-v1 without its speed: it has to be remembered where the pendulum came from."""

VISIBLE = "benchmarks/TMazeVisible-v0"
"""The T-maze with a cue that is seen everywhere: nothing has to be remembered."""

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
"""Games seen as images: MinAtar's, 10x10, and Atari's, where a step is four frames."""

KNOWN = (
    SUITE
    | GAMES
    | {
        task.name: task
        for task in (
            Task(SWINGUP, (500, 1_000, 2_000, 3_000), truth=_cartpole),
            *(Task(f"{name}-v5", (5_000, 10_000, 25_000)) for name in ("HalfCheetah", "Hopper", "Walker2d")),
            # steps of DeepMind Control are frames; the best public scores after 50,000 of them are goals
            Task("dm_control/cartpole-swingup-v0", (10_000, 25_000, 50_000), 870.0),
            Task("dm_control/pendulum-swingup-v0", (10_000, 25_000, 50_000), 832.0),
            Task("dm_control/reacher-easy-v0", (10_000, 25_000, 50_000), 867.0),
            Task("dm_control/finger-spin-v0", (10_000, 25_000, 50_000), 937.0),
        )
    }
)
OTHERWISE = (500, 1_000, 2_000)
"""Steps at which tasks are scored that nothing is known of."""


def _seen(observation: np.ndarray) -> np.ndarray:
    return observation[:2]


def _without_speed(**settings: Any) -> gymnasium.Env:
    env = gymnasium.make("Pendulum-v1", **settings).unwrapped
    space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    return gymnasium.wrappers.TransformObservation(env, _seen, space)


def register() -> None:
    """Make known to Gymnasium the tasks that are of this benchmark alone; to do so twice does no harm."""
    if HIDDEN not in gymnasium.registry:
        gymnasium.register(HIDDEN, entry_point=_without_speed, max_episode_steps=200, disable_env_checker=True)
        maze = dict(gymnasium.spec("craik/TMaze-v0").kwargs) | {"visible": True}
        gymnasium.register(VISIBLE, "envs.gym:Env", max_episode_steps=60, kwargs=maze, disable_env_checker=True)


def task(name: str, at: tuple[int, ...] = (), goal: float | None = None) -> Task:
    """A task, with what was asked for otherwise.

    Args:
        name: Id of an environment.
        at: Environment steps at which to score; none for the usual ones.
        goal: Return at which it counts as done; None for the usual one.

    Raises:
        ValueError: If the steps do not increase.
    """
    known = KNOWN.get(name, Task(name, OTHERWISE))
    at = at or known.at
    if list(at) != sorted(set(at)) or at[0] < 1:
        raise ValueError(f"steps to score at must increase, from at least 1; got {' '.join(map(str, at))}")
    return Task(name, at, known.goal if goal is None else goal, known.truth)
