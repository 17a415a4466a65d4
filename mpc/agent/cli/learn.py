"""`craik learn`: learn from experience, or from recordings, in one run's folder."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import tyro

from mpc.agent.agent import Agent
from mpc.agent.cli import runs, trackers
from mpc.agent.cli.options import Common, mapping, say
from mpc.agent.cli.plan import score
from mpc.agent.cli.run_log import RunLog
from mpc.agent.memory.collect import rendering
from mpc.agent.perception import gym_spaces
from mpc.agent.viz import figures
from world_models.data import Dataset


@dataclass
class Learn(Common):
    """Learn a world model of an environment, from experience or from recordings, to plan in it.

    The task is to collect reward, or to reach a goal where one is given or the environment sets one.

    Examples: craik learn CartPole-v1 --steps 2000;  craik learn CartPole-v1 --steps 2000 --resume;
    craik learn Pendulum-v1 --update-ratio 0.25 --distil;  craik learn craik/TwoRooms-v0 --offline data/rooms --updates 6000
    """

    env: tyro.conf.Positional[str] = "Pendulum-v1"
    """Id of a Gymnasium environment."""
    steps: int = 1000
    """Environment steps to take in this run."""
    out: Path | None = None
    """The run's folder; runs/ENV-SEED unless told."""
    resume: bool = False
    """Go on from the checkpoint in the run's folder, online or offline, however it was learnt before."""
    episodes: int = 20
    """Episodes per score; 0 for none."""
    update_ratio: float | None = None
    """Gradient steps per environment step, as a factor: more learns from fewer steps, and takes longer over each."""
    offline: str | None = None
    """Recordings to learn from instead of acting: what `craik collect` wrote, or the id of a Minari dataset."""
    updates: int | None = None
    """Gradient steps to take in this run, offline; what is missing of the settings' number unless told."""
    goal: Path | None = None
    """An image or .npy file of the observation to reach; the environment's own, where it sets one, unless told."""
    checkpoint_minutes: float = 10.0
    """Time between two checkpoints."""
    checkpoint_updates: int | None = None
    """Gradient steps of the world model between two checkpoints, where time alone is not to decide."""
    distil: bool = False
    """In the end, teach the actor what planning comes to, for `craik plan --mode react`."""
    log: str = ",".join(trackers.USUAL)
    """Trackers that metrics are written to, separated by commas: csv, tensorboard, wandb, mlflow."""
    settings: str = "{}"
    """Settings that differ from the defaults, as JSON, by name or by group (`mpc.agent.config.AgentConfig`)."""


def learn(options: Learn) -> dict[str, Any]:
    """Learn, or go on learning, and return the report."""
    folder = options.out or Path("runs") / f"{options.env.replace('/', '-')}-{options.seed}"
    trackers.names_of(options.log)  # raises before anything is learnt or written
    with runs.claimed(folder):
        return _learn_in(folder, options)


def _learn_in(folder: Path, options: Learn) -> dict[str, Any]:
    tell = say(options)
    begun = runs.has_checkpoint(folder)
    if begun and not options.resume:
        raise ValueError(f"{folder} holds a run already: add --resume to go on with it, or give another --out")
    dataset = None if options.offline is None else runs.read_dataset(options.offline).require(environment=options.env)
    if options.resume and not begun:
        tell(f"There is no checkpoint in {folder} yet: learning begins anew.")
    agent = _resumed(options, folder, dataset) if begun else _new(options, dataset)
    how = f"for {options.steps} steps" if dataset is None else f"from {dataset.transitions:,} recorded steps"
    tell(f"Learning in {options.env} {how}; writing to {folder} ...")
    report: dict[str, Any] = {"env": options.env, "folder": str(folder)}
    report |= _learn(agent, folder, options, options.steps, dataset, options.updates)
    if options.distil:
        tell("Teaching the actor what planning comes to ...")
        report["distilled"] = agent.distil(dataset)
        agent.save(folder / "checkpoint")
    own_goals = options.goal is None and runs.follows_own_goals(agent, options.env)
    if options.episodes:
        seeds = range(options.seed, options.seed + options.episodes)
        tell(f"Scoring {options.episodes} episodes ...")
        report["scores"] = score(agent, options.env, seeds, tell, own_goals=own_goals)
    report |= figures.show(agent, options.env, folder, options.seed, own_goals=own_goals)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    tell(f"  look at {folder}/futures.png and {folder}/video.mp4; plan again with: craik plan {folder}")
    return report


def learn_into(agent: Agent, folder: Path, options: Common, steps: int) -> list[float]:
    """Learn online with everything logged, and return the returns of the episodes along the way."""
    return _learn(agent, folder, options, steps, None, None)["returns"]


def _learn(
    agent: Agent, folder: Path, options: Common, steps: int, dataset: Dataset | None, updates: int | None
) -> dict[str, Any]:
    """Learn from steps, or from a dataset, with everything logged; return the part of the report on it."""
    config = {"env": agent.env_id, "seed": options.seed, "config": agent.config.as_dict(), "argv": sys.argv[1:]}
    shown = not (options.quiet or options.json)
    given: dict[str, Any] = {"checkpoint_path": folder / "checkpoint", "progress_bar": shown}
    if isinstance(options, Learn):
        given |= {name: getattr(options, name) for name in ("checkpoint_minutes", "checkpoint_updates")}
    at = {"timesteps": agent.num_timesteps, "updates": agent.learner.updates}
    log_to = trackers.names_of(options.log) if isinstance(options, Learn) else trackers.USUAL
    with RunLog(folder, config, "" if dataset is None else trackers.OFFLINE, at, log_to) as log:
        if dataset is None:
            agent.learn(steps, callback=log, **given)
        else:
            agent.learn_from(dataset, updates=updates, callback=log, **given)
    report = {"timesteps": agent.num_timesteps, "updates": agent.learner.updates, "returns": log.returns}
    return report | {"metrics": log.metrics, "alarm": agent.collapse_monitor.raised}


def _new(options: Learn, dataset: Dataset | None) -> Agent:
    """A new agent with the settings asked for."""
    given = mapping(options.settings, "--settings")
    if options.update_ratio is not None:
        given["update_ratio"] = options.update_ratio
    env = gym_spaces.make(options.env)
    task = runs.first_task(env, options.seed, options.goal)
    return Agent(env, task=task, config=given, seed=options.seed, render=_render(dataset, env))


def _resumed(options: Learn, folder: Path, dataset: Dataset | None) -> Agent:
    """The agent that a run is to go on with."""
    if mapping(options.settings, "--settings") or options.update_ratio is not None:
        raise ValueError(f"{folder} goes on with the settings it began with: leave out --update-ratio and --settings")
    agent = runs.load(folder, options.env, learns=True)
    env = gym_spaces.make(options.env)
    if agent.components.distance is not None:
        agent.configure(runs.first_task(env, options.seed, options.goal))
    elif options.goal is not None:
        raise ValueError(f"{folder} measures no distance to goals, so that it cannot go on with --goal")
    if dataset is not None and (_render(dataset, env) is None) != (agent.render is None):
        stored = "states" if agent.render is None else "observations"
        raise ValueError(f"{options.offline} stores {stored}, unlike the recordings that {folder} began with")
    env.close()
    return agent


def _render(dataset: Dataset | None, env: gymnasium.Env) -> Any:
    return None if dataset is None else rendering(dataset, env)
