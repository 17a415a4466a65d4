"""Checkpoints of agents: what they learnt, what they remember, and how an agent must be made to go on from there."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from mpc.agent.config import AgentConfig
from mpc.agent.configurator.task import Task
from mpc.agent.memory import safeguards
from mpc.agent.perception import gym_spaces
from mpc.agent.world_model import readout
from mpc.deploy.untrusted import refusing
from world_models import data
from world_models.io import checkpoint
from world_models.io.atomic import locked

REQUIRED = {"observation_space", "action_space", "config", "state", "environments", "rendered", "arrays", "task"}
OPTIONAL = ("actor_critic_state", "distance", "macro", "decoder", "goal_actor")
"""Parts of what was learnt that only some agents have."""
TASK = ("weights", "limits", "horizon", "risk", "iterations", "starts", "milliseconds")
"""Parts of a task besides its goal."""


def save(agent: Any, path: str | os.PathLike[str]) -> Path:
    """Write a checkpoint of an agent.

    Args:
        agent: An `Agent`.
        path: The folder of checkpoints.
    """
    learner = agent.learner
    about = {
        "env": agent.env_id,
        "observation_space": gym_spaces.describe(agent.observation_space),
        "action_space": gym_spaces.describe(agent.action_space),
        "environments": agent.buffer.follows.shape[0],
        "rendered": agent.render is not None,
        "config": agent.config.as_dict(),
        "state": {
            "timesteps": agent.num_timesteps,
            "finetuned_timesteps": agent.finetuned_timesteps,
            "trained": learner.trained,
            "reset_at": learner.reset_at,
            "finetuned_at": learner.finetuned_at,
            "seed": agent.seed,
            "located": learner.located,
            "origin": None if learner.origin is None or not learner.located else learner.origin.tolist(),
        },
        "arrays": {
            "decoder": None if learner.decoder is None else len(learner.decoder["scales"]["y"][0]),
            "goal_actor": learner.goal_actor is not None,
            "samples": _described(agent.samples),
            "goal": _described(agent.task.goal),
        },
        "task": {name: getattr(agent.task, name) for name in TASK},
    }
    return checkpoint.save(path, _tree(agent), about, step=max(agent.num_timesteps, learner.updates))


def load(kind: Any, path: str | os.PathLike[str], env: Any, *, changes: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return the agent that a checkpoint is of.

    Args:
        kind: `Agent`.
        path: The folder of checkpoints, or one of them.
        env: To learn in, its id, a vector environment, or None.
        changes: Of its settings.
        given: What else the agent was made with.

    Raises:
        CheckpointError: If the checkpoint is foreign, damaged, of another format, or of another environment.
    """
    kept = checkpoint.describe(path)["metadata"]
    if not isinstance(kept, dict) or not set(kept) >= REQUIRED:
        raise checkpoint.CheckpointError(f"{path} is a checkpoint, but not of an agent")
    why = f"{path} is no checkpoint of an agent as this version writes it"
    damage = partial(refusing, checkpoint.CheckpointError, why)
    with damage():
        spaces: dict[str, Any] = {name: gym_spaces.rebuild(kept[name]) for name in ("observation_space", "action_space")}
        learnt = AgentConfig().changed(kept["config"])
    config = learnt.changed(changes)
    vector = None if env is None else gym_spaces.vectorise(env, config.perception.action_repeat)
    if vector is not None:
        _compare(path, kept, spaces, vector)
    task, given = given.get("task"), {name: value for name, value in given.items() if name != "task"}
    with damage() if not changes else nullcontext():  # or else it may be the changes that do not fit
        agent = kind(vector, config=config, seed=kept["state"]["seed"], **given, **spaces)
    with damage():
        tree = _restore(agent, path, kept)
        learnt_task = Task(goal=tree.get("goal"), **kept["task"])
    agent.env_id = agent.env_id or kept["env"]
    agent.samples = None  # the goal was compared with them when it was set
    agent.configure(learnt_task if task is None else task)
    agent.samples = tree.get("samples")
    return agent


def _restore(agent: Any, path: str | os.PathLike[str], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Give an agent what a checkpoint holds, and return the checkpoint's tree.

    Args:
        agent: Just made, with the settings it was saved with.
        path: As for `load`.
        kept: The checkpoint's metadata.
    """
    agent.buffer = agent.empty_buffer(kept["environments"])
    _expect(agent, kept["arrays"])
    expected = _tree(agent)
    if kept["arrays"]["goal"] is not None:
        expected["goal"] = _blank(kept["arrays"]["goal"])
    tree, _ = checkpoint.load(path, expected)
    learner, state = agent.learner, kept["state"]
    learner.training, agent.key = tree["training"], tree["key"]
    agent.buffer = tree["buffer"]._replace(summary=data.summarise(tree["buffer"]))
    for name in OPTIONAL:
        setattr(learner, name, tree.get(name, getattr(learner, name)))
    agent.num_timesteps, agent.finetuned_timesteps = state["timesteps"], state["finetuned_timesteps"]
    learner.trained, learner.reset_at, learner.finetuned_at = state["trained"], state["reset_at"], state["finetuned_at"]
    if state["origin"] is not None:
        agent.locate(np.array(state["origin"]))
    learner.located = state["located"]
    return tree


class Saver:
    """Saves an agent that learns, every so often.

    Args:
        agent: An `Agent`.
        path: The folder of checkpoints; None saves nothing.
        minutes: Between two checkpoints at most; None for any.
        updates: Gradient steps of the world model between two checkpoints at most; None for any.

    Raises:
        ValueError: If minutes or updates are not positive.
    """

    def __init__(self, agent: Any, path: str | os.PathLike[str] | None, minutes: float | None, updates: int | None) -> None:
        for name, given in (("checkpoint_minutes", minutes), ("checkpoint_updates", updates)):
            if given is not None and not given > 0:
                raise ValueError(f"{name} must be positive, or None; got {given}")
        self.agent, self.path, self.minutes, self.updates = agent, path, minutes, updates
        self._saved, self._updates = time.monotonic(), agent.learner.updates

    def save(self) -> None:
        """Save now.

        Raises:
            OSError: If the checkpoint cannot be written; the agent still holds what it learnt.
        """
        if self.path is None:
            return
        with safeguards.explain_save_error(self.path):
            save(self.agent, self.path)
        self._saved, self._updates = time.monotonic(), self.agent.learner.updates

    def save_if_due(self) -> None:
        """Save if enough time has passed, or enough was learnt, since the last time; between two steps."""
        late = self.minutes is not None and time.monotonic() - self._saved >= 60 * self.minutes
        if late or (self.updates is not None and self.agent.learner.updates - self._updates >= self.updates):
            self.save()


@contextmanager
def saving(
    agent: Any, path: str | os.PathLike[str] | None, minutes: float | None = None, updates: int | None = None
) -> Iterator[Saver]:
    """Save an agent at the end of a block, however that comes about, and let nobody else learn into the same folder.

    Yields:
        What saves it along the way; arguments are its.

    Raises:
        CheckpointError: If another process learns into the folder.
        OSError: If the checkpoint cannot be written; the agent still holds what it learnt.
    """
    saver = Saver(agent, path, minutes, updates)
    with ExitStack() as held:
        if path is not None:
            root = Path(path).expanduser().absolute()
            root.parent.mkdir(parents=True, exist_ok=True)
            if not held.enter_context(locked(root.with_name(f".{root.name}.lock"), wait=False)):
                raise checkpoint.CheckpointError(f"another process learns into {root}: give another path")
        try:
            yield saver
        finally:
            saver.save()


def _tree(agent: Any) -> dict[str, Any]:
    learner = agent.learner
    # the buffer's summary follows from its rows
    tree = {"training": learner.training, "buffer": agent.buffer._replace(summary=None), "key": agent.key}
    goal = None if agent.task.goal is None else np.asarray(agent.task.goal)
    parts = {name: getattr(learner, name) for name in OPTIONAL} | {"samples": agent.samples, "goal": goal}
    return tree | {name: part for name, part in parts.items() if part is not None and not _is_empty(part)}


def _is_empty(part: Any) -> bool:
    return isinstance(part, list | dict) and not part


def _expect(agent: Any, arrays: Mapping[str, Any]) -> None:
    """Give an agent parts of the shapes that a checkpoint holds, to be loaded into."""
    learner, made = agent.learner, agent.components
    if arrays["decoder"] is not None:
        learner.decoder = readout.example(made.latent, arrays["decoder"])
    if arrays["goal_actor"]:
        learner.goal_actor = made.goal_actor.init(jax.random.key(0))
    if arrays["samples"] is not None:
        agent.samples = _blank(arrays["samples"])


def _described(array: Any) -> list[Any] | None:
    """The shape and the dtype of an array as JSON."""
    return None if array is None else [list(np.shape(array)), str(np.asarray(array).dtype)]


def _blank(described: list[Any]) -> np.ndarray:
    return np.zeros(described[0], np.dtype(described[1]))


def _compare(path: Any, kept: dict[str, Any], spaces: dict[str, Any], vector: gymnasium.vector.VectorEnv) -> None:
    """Make sure that a checkpoint is of an environment like this one."""
    for name in ("observation_space", "action_space"):
        got = getattr(vector, f"single_{name}")
        if not gym_spaces.same(got, spaces[name]):
            raise checkpoint.CheckpointError(
                f"{path} is of another environment: it was learnt with {name} {spaces[name]}, this one has {got}"
            )
    if kept["environments"] != vector.num_envs:
        raise checkpoint.CheckpointError(
            f"{path} was learnt in {kept['environments']} environments at once, and this is {vector.num_envs} of them"
        )
