"""The commands around goals: collect trajectories, learn from them, plan to an image."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import jax
import numpy as np
import tyro

from mpc.agent.cli.options import Common, mapping, say
from mpc.agent.cli.run_log import Log
from mpc.agent.goal_agent import GoalAgent, Progress
from mpc.agent.goal_config import GoalSettings
from mpc.agent.memory.collect import collect, rendering, task_of, vectors
from mpc.agent.perception import gym_spaces
from mpc.agent.viz import goal_figures
from world_models import data
from world_models.data import Dataset, DatasetError
from world_models.io import checkpoint

_MINARI = re.compile(r"[\w.-]+(/[\w.-]+)*-v\d+")


@dataclass
class Collect(Common):
    """Record trajectories to learn from: exploring ones in craik/* tasks, smooth random actions elsewhere.

    Example: craik collect craik/TwoRooms-v0 --episodes 2000 --out data/rooms
    """

    env: tyro.conf.Positional[str] = "craik/TwoRooms-v0"
    """Id of a Gymnasium environment."""
    episodes: int = 1000
    """How many."""
    length: int | None = None
    """Steps of each; the explorer's, or the environment's, unless told."""
    out: Path | None = None
    """A folder to be, or a file NAME.npz; data/ENV unless told."""


def gather(options: Collect) -> dict[str, Any]:
    """`craik collect`."""
    target = options.out or Path("data") / options.env.replace("/", "-")
    if target.exists():
        raise DatasetError(f"{target} exists already")
    dataset = collect(options.env, options.episodes, length=options.length, seed=options.seed)
    data.save(target, dataset)
    rows = "states" if dataset.about.notes.get("rows") == "states" else "observations"
    say(options)(f"{options.episodes} episodes of {options.env}, {dataset.transitions:,} steps as {rows}, are in {target}")
    shape = list(dataset.observations.shape[1:])
    report = {"env": options.env, "episodes": len(dataset.lengths), "transitions": dataset.transitions}
    return report | {"rows": rows, "shape": shape, "out": str(target)}


def read(source: str) -> Dataset:
    """A dataset by its path, or a Minari dataset by its id.

    Raises:
        DatasetError: If there is none.
        ImportError: If it is Minari's, which is not installed.
    """
    if Path(source).exists() or not _MINARI.fullmatch(source):
        return data.load(source)
    return data.read_minari(source)


def learn(options: Any, folder: Path) -> dict[str, Any]:
    """`craik learn ENV --offline DATA`.

    Args:
        options: With `env`, `offline`, `updates`, `distil`, `settings`, `resume`, and what is common.
        folder: Of the run.
    """
    dataset = read(options.offline).require(environment=options.env)
    env = gym_spaces.make(options.env)
    render = rendering(dataset, env)
    given = mapping(options.settings, "--settings")
    if options.resume:
        agent = GoalAgent.load(folder / "checkpoint", render=render, settings=given)
    else:
        agent = GoalAgent(env, settings=_settings(given), seed=options.seed, render=render)
    env.close()
    tell, shown = say(options), not (options.quiet or options.json) and sys.stderr.isatty()
    tell(f"Learning from {dataset.transitions:,} steps of {options.env}; writing to {folder} ...")
    config = {"env": options.env, "seed": options.seed, "data": options.offline, "settings": agent.settings.asdict()}
    last: dict[str, float] = {}
    with Log(folder, config | {"argv": sys.argv[1:]}) as log:

        def note(agent: GoalAgent, progress: Progress) -> None:
            last.update(progress.metrics)
            log.write(progress.updates, progress.metrics)

        path = folder / "checkpoint"
        agent.learn(dataset, updates=options.updates, callback=note, progress_bar=shown, checkpoint_path=path)
    report = {"env": options.env, "updates": agent.updates, "folder": str(folder), "metrics": last}
    report["alarm"] = agent.alarm.raised
    if options.distil:
        tell("Teaching an actor what planning comes to ...")
        report["distilled"] = agent.distil(dataset)
        agent.save(folder / "checkpoint")
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    tell(f"  {agent.updates} updates; plan with: craik plan {folder} --goal IMAGE")
    return report


def _settings(given: dict[str, Any]) -> GoalSettings:
    try:
        return GoalSettings(**given)
    except TypeError as error:
        raise ValueError(f"--settings: {error}") from error


def is_goal_run(path: Path) -> bool:
    """Whether a checkpoint is a goal-reaching agent's.

    Raises:
        CheckpointError: If there is no checkpoint.
    """
    return checkpoint.describe(path)["metadata"].get("kind") == "goals"


def plan(options: Any, path: Path) -> dict[str, Any]:
    """`craik plan RUN --goal IMAGE`, or without one, to the goals that the environment sets.

    Args:
        options: With `checkpoint`, `env`, `mode`, `goal`, `reset`, `episodes`, `video`, and what is common.
        path: Of the checkpoint.
    """
    kept = checkpoint.describe(path)["metadata"]
    name = options.env or kept["env"]
    if name is None:
        raise ValueError("the checkpoint does not say which environment it is of: give --env ID")
    env = gym_spaces.make(name, render_mode="rgb_array")
    if gym_spaces.describe(env.observation_space) != kept["observation_space"]:
        raise checkpoint.CheckpointError(f"{path} is of another environment than {name}: {kept['env']}")
    agent = GoalAgent.load(path, render=_rendering_again(kept, env))
    given = mapping(options.reset, "--reset")
    if options.goal is not None:
        report = reach(agent, env, read_image(options.goal, agent), options, options.goal.stem, given)
    else:
        report = score(agent, env, options, given)
        if options.video:
            report |= reach(agent, env, None, options, "own", given)
    env.close()
    return {"env": name, "checkpoint": str(path), "updates": agent.updates} | report


def _rendering_again(kept: dict[str, Any], env: gymnasium.Env) -> Callable[[jax.Array], jax.Array] | None:
    """What shows an album of states; None for one of observations."""
    shape, task = kept["state"]["album"][0][1:], task_of(env)
    return None if task is None or shape == list(env.observation_space.shape or ()) else vectors(task).frames


def read_image(path: Path, agent: GoalAgent) -> np.ndarray:
    """A goal, from a `.npy` file or any image.

    Raises:
        ValueError: If it cannot be read, or is no observation of the environment's, with what arrived and what was wanted.
    """
    try:
        image = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(imageio.imread(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"the goal {path} cannot be read: {error}") from error
    wanted = agent.observation_space.shape
    if image.ndim == 2 and wanted == (*image.shape, 1):
        image = image[..., None]
    if image.shape != wanted:
        raise ValueError(f"the goal {path} has shape {image.shape}, and the environment's observations have {wanted}")
    return image


def begin(env: gymnasium.Env, seed: int, given: dict[str, Any]) -> Any:
    """The first observation of an episode."""
    return env.reset(seed=seed, options=given or None)[0]


def own_goal(env: gymnasium.Env) -> np.ndarray:
    """The goal that the environment sets in this episode.

    Raises:
        ValueError: If it sets none.
    """
    ask: Any = getattr(env.unwrapped, "goal_observation", None)
    if ask is None:
        raise ValueError("this environment sets no goals of its own: give --goal IMAGE")
    return ask()


def reach(
    agent: GoalAgent, env: gymnasium.Env, goal: np.ndarray | None, options: Any, name: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Go to one goal, its own if None, and leave numbers, a picture and a film in a folder of their own."""
    observation = begin(env, options.seed, given)
    goal = own_goal(env) if goal is None else goal
    episode = goal_figures.pursue(agent, env, observation, goal, mode=options.mode)
    folder = options.checkpoint / f"goal-{name}"
    columns = ("step", "distance", "success")
    (folder / "metrics.csv").unlink(missing_ok=True)  # of an earlier plan to the same goal
    with Log(folder, {"goal": name, "seed": options.seed, "reset": given}, columns) as log:
        for t, far in enumerate(episode.distances):
            told = {"success": episode.success[t - 1]} if t and np.isfinite(episode.success[t - 1]) else {}
            log.write(t, {"distance": round(float(far), 6)} | told)
    picture, video = folder / "path.png", folder / "video.mp4"
    goal_figures.picture(episode, goal, picture, f"{env.spec.id if env.spec else ''}: {name}")
    goal_figures.film(episode, goal, video, fps=env.metadata.get("render_fps", 20))
    say(options)(f"  look at {picture} and {video}")
    success = None if np.isnan(episode.success).any() else bool(episode.success[-1])
    ends = {"first": float(episode.distances[0]), "last": float(episode.distances[-1])}
    return {"goal": name, "steps": len(episode.success), "success": success, "distance": ends, "folder": str(folder)}


def score(agent: GoalAgent, env: gymnasium.Env, options: Any, given: dict[str, Any]) -> dict[str, Any]:
    """How often the environment's own goals are reached, judged by it at the end of each episode."""
    reached = []
    for seed in range(options.seed, options.seed + options.episodes):
        observation = begin(env, seed, given)
        goal, state, over, info = own_goal(env), None, False, {}
        while not over:
            action, state = agent.predict(observation, goal, state, mode=options.mode)
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        reached.append(bool(info.get("success", False)))
    if reached:
        say(options)(f"  {sum(reached)} of {len(reached)} goals reached")
    return {"reached": reached, "success": float(np.mean(reached)) if reached else None}
