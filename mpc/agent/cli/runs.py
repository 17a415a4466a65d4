"""Runs: how a command finds an agent in a run's folder, and gives it a task."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import jax

from mpc.agent.agent import Agent
from mpc.agent.cli.options import TaskOptions
from mpc.agent.configurator.task import Task, read_goal
from mpc.agent.evaluation import own_goal
from mpc.agent.memory.collect import task_of, vectors
from mpc.agent.perception import gym_spaces
from world_models import data
from world_models.data import Dataset
from world_models.io import checkpoint
from world_models.io.atomic import locked
from world_models.io.checkpoint import CheckpointError

_MINARI = re.compile(r"[\w.-]+(/[\w.-]+)*-v\d+")


def checkpoint_of(folder: Path) -> Path:
    """Return the folder of checkpoints of a run, or the folder itself where it is one."""
    inner = folder / "checkpoint"
    return inner if inner.is_dir() else folder


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Context manager in which no other process learns in a run's folder, whose files only one can write.

    Raises:
        ValueError: If another process does already.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / ".lock", wait=False) as held:
            if not held:
                raise ValueError(f"another process learns in {folder}: give another --out")
            yield
    finally:
        if not existed and {file.name for file in folder.iterdir()} <= {".lock"}:  # nothing came of it
            shutil.rmtree(folder)


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run's folder holds a checkpoint; one that was killed early may hold an unfinished one alone."""
    try:
        checkpoint.describe(checkpoint_of(folder))
    except CheckpointError:
        return any(folder.glob("checkpoint/checkpoint-*"))
    return True


def load(run: Path, env: str | None = None, *, learns: bool = False) -> Agent:
    """Return the agent of a run, whatever it learnt from.

    Args:
        run: The run's folder, or its checkpoint folder.
        env: Id of its environment, which must be like the one learnt in; the one that the checkpoint names if None.
        learns: Whether it is to learn on in that environment.

    Raises:
        CheckpointError: If there is no checkpoint of an agent, or it is of another environment.
    """
    path = checkpoint_of(run)
    kept = checkpoint.describe(path)["metadata"]
    name = env or kept.get("env")
    render = _rendering(path, name) if kept.get("rendered") else None
    return Agent.load(path, name if learns or env is not None else None, render=render)


def _rendering(path: Path, env: str | None) -> Callable[[jax.Array], jax.Array]:
    """Return the function that renders the states that a run's recordings hold."""
    task = None
    if env is not None:
        made = gym_spaces.make(env)
        task = task_of(made)
        made.close()
    if task is None:
        raise CheckpointError(f"{path} learnt from states, which only a task of ours renders; its environment is {env}")
    return vectors(task).frames


def environment(agent: Agent, env: str | None) -> str:
    """Return the id of an agent's environment.

    Args:
        agent: Of a run.
        env: As it was given on the command line, or None.

    Raises:
        ValueError: If neither says it.
    """
    name = env or agent.env_id
    if name is None:
        raise ValueError("the checkpoint does not say which environment it is of: give --env ID")
    return name


def read_dataset(source: str) -> Dataset:
    """Return a dataset by its path, or a Minari dataset by its id.

    Raises:
        DatasetError: If there is none.
        ImportError: If it is Minari's, which is not installed.
    """
    if Path(source).expanduser().exists() or not _MINARI.fullmatch(source):
        return data.load(source)
    return data.read_minari(source)


def give_task(agent: Agent, options: TaskOptions) -> str | None:
    """Configure an agent for the task given on the command line; return the task's name, or None where none was given.

    Raises:
        ValueError: If both a goal and a task are given, or one of them does not fit the agent.
    """
    if options.goal is not None and options.task is not None:
        raise ValueError("give --goal or --task, not both: a task's file may name a goal")
    if options.task is not None:
        agent.configure(options.task)
        return f"task-{options.task.stem}"
    if options.goal is not None:
        agent.configure(replace(agent.task, goal=goal(options.goal, agent.observation_space)))
        return f"goal-{options.goal.stem}"
    return None


def goal(path: Path, space: gymnasium.Space) -> Any:
    """Return the goal in a file.

    Args:
        path: Of an image or a .npy file.
        space: Of observations.

    Raises:
        ValueError: If it cannot be read, or is no observation, with what arrived and what was wanted.
    """
    try:
        return read_goal(path, gym_spaces.observation_shape(space))
    except ValueError as error:
        raise ValueError(f"the goal {path} {error}") from error


def first_task(env: gymnasium.Env, seed: int, path: Path | None) -> Task:
    """Return the task of an agent that is about to learn: to a goal that is given or that the environment sets, or reward.

    Args:
        env: To learn in.
        seed: Of the reset that tells the environment's goal.
        path: Of a goal, or None.
    """
    if path is not None:
        return Task(goal=goal(path, env.observation_space))
    env.reset(seed=seed)
    return Task(goal=own_goal(env))


def follows_own_goals(agent: Agent, env: str) -> bool:
    """Return whether an agent is to reach the goals that its environment sets, as it measures distances to goals.

    Args:
        agent: Whose task was not given on the command line.
        env: Id of its environment.
    """
    if agent.components.distance is None:
        return False
    made = gym_spaces.make(env)
    made.reset(seed=0)
    found = own_goal(made)
    made.close()
    return found is not None


def require_purpose(agent: Agent) -> None:
    """Make sure that an agent's task minimises something.

    Raises:
        ValueError: If nothing but effort and disagreement counts.
    """
    counted = {name for name, weight in agent.setup.weights.items() if weight}
    if not counted - {"effort", "disagreement"}:
        raise ValueError("this agent predicts no rewards, so that it needs a goal: give --goal IMAGE or --task TASK.toml")
