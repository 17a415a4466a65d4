"""Tasks as pure JAX functions: batchable, differentiable and rendered in JAX, each with a Gymnasium environment.

Importing this package only registers the Gymnasium ids (`craik/TwoRooms-v0` …). The module of a task is imported on first
use.
"""

import importlib
from types import ModuleType

import gymnasium

IDS = {
    "craik/Car-v0": ("car", 100),
    "craik/CartPoleSwingUp-v0": ("cartpole_swingup", 200),
    "craik/Crossing-v0": ("crossing", 300),
    "craik/Maze-v0": ("maze", 300),
    "craik/Pendulum-v0": ("pendulum", 200),
    "craik/Quadrotor-v0": ("quadrotor", 120),
    "craik/Rendezvous-v0": ("rendezvous", 60),
    "craik/TMaze-v0": ("t_maze", 60),
    "craik/Teleport-v0": ("teleport", 200),
    "craik/TwoRooms-v0": ("two_rooms", 200),
    "craik/UMaze-v0": ("u_maze", 300),
    "craik/Wall-v0": ("wall", 300),
}
"""Gymnasium id -> (module of the task, steps after which an episode is truncated)."""
ROBOT_IDS = {
    "craik/CartPoleRobot-v0": "cartpole",
    "craik/DoublePendulumRobot-v0": "double_pendulum",
    "craik/QuadrotorRobot-v0": "quadrotor",
    "craik/ReacherRobot-v0": "reacher",
}
"""Gymnasium id -> robot simulated by MuJoCo; episodes have 400 steps."""
_MODULES = {module for module, _ in IDS.values()} | {
    "drawing",
    "exploring",
    "gym",
    "leaves",
    "physics",
    "robots",
    "rooms",
    "task",
    "walls",
    "wrappers",
}

__all__ = ["IDS", "ROBOT_IDS"]

for _id, (_module, _steps) in IDS.items():
    gymnasium.register(
        _id,
        entry_point="envs.gym:Env",
        vector_entry_point="envs.gym:VectorEnv",
        max_episode_steps=_steps,
        kwargs={"task": _module},
        disable_env_checker=True,  # the passive checker doubles the time of a first step; the tests run the full checker
    )

for _id, _robot in ROBOT_IDS.items():
    gymnasium.register(_id, entry_point="envs.robots.env:RobotEnv", max_episode_steps=400, kwargs={"robot": _robot})


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"envs.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
