"""`craik plan`: plan with what was learnt, for a run's own task or for one that is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from mpc.agent.actor.time_budget import Mode
from mpc.agent.agent import Agent
from mpc.agent.cli import runs
from mpc.agent.cli.options import TaskOptions, mapping, say
from mpc.agent.evaluation import evaluate, random_returns, success
from mpc.agent.viz import figures


@dataclass
class Plan(TaskOptions):
    """Plan with what was learnt: score a run, film it, or give it a goal or another task.

    Without --goal and --task, an agent that measures distances to goals reaches those that its environment sets; any other
    collects reward. With one of them, one episode is filmed, in a folder of its own.

    Examples: craik plan runs/demo --episodes 5 --video;  craik plan runs/demo --mode react;
    craik plan runs/rooms --goal goal.png;  craik plan runs/rooms --task careful.toml --episodes 20
    """

    checkpoint: tyro.conf.Positional[Path] = Path("runs/demo")
    """A run's folder, or its checkpoint folder."""
    env: str | None = None
    """Id of the environment; the one learnt in unless told."""
    episodes: int | None = None
    """Episodes to score, with the seeds SEED, SEED+1, …; 20, or none with --goal or --task, unless told."""
    mode: Literal["plan", "react"] | float = "plan"
    """Plan; react, the actor by itself; or, within so many milliseconds, plan where there is time and else react."""
    video: bool = False
    """Also film an episode, into the run's folder."""
    reset: str = "{}"
    """Options of the environment's reset, as JSON, for example '{"layout": [32, 30]}'."""


def plan(options: Plan) -> dict[str, Any]:
    """Score and film a run, and return the report."""
    agent, tell = runs.load(options.checkpoint, options.env), say(options)
    env, reset = runs.environment(agent, options.env), mapping(options.reset, "--reset")
    given = runs.give_task(agent, options)
    own_goals = given is None and runs.follows_own_goals(agent, env)
    if not own_goals:
        runs.require_purpose(agent)
    report: dict[str, Any] = {"env": env, "checkpoint": str(options.checkpoint), "task": given}
    report |= {"timesteps": agent.num_timesteps, "updates": agent.learner.updates}
    episodes = options.episodes if options.episodes is not None else 20 if given is None else 0
    how: dict[str, Any] = {"own_goals": own_goals, "reset": reset, "mode": options.mode}
    if episodes:
        report["scores"] = score(agent, env, range(options.seed, options.seed + episodes), tell, **how)
    if options.video or given is not None:
        folder = options.checkpoint if given is None else options.checkpoint / given
        folder.mkdir(exist_ok=True)
        report |= {"folder": str(folder)} | figures.show(agent, env, folder, options.seed, **how)
        tell(f"  look at {folder}/futures.png and {folder}/video.mp4")
    return report


def score(
    agent: Agent,
    env: str,
    seeds: range,
    tell: Callable[[str], None],
    *,
    own_goals: bool,
    reset: dict[str, Any] | None = None,
    mode: Mode = "plan",
) -> dict[str, Any]:
    """Return how an agent does in episodes: how often goals are reached, or its returns and those of random actions.

    Args:
        agent: With its task.
        env: Id of its environment.
        seeds: Of the episodes.
        tell: Prints.
        own_goals: Whether the environment sets the goals.
        reset: Options of its reset, where a goal is to be reached.
        mode: As for `Agent.predict`.
    """
    if own_goals or agent.setup.has_goal:
        reached = success(agent, env, seeds, own_goals=own_goals, reset=reset, mode=mode)
        tell(f"  {sum(reached)} of {len(reached)} goals reached")
        return {"reached": reached, "success": sum(reached) / len(reached)}
    planned, random = evaluate(agent, env, seeds, mode=mode), random_returns(env, seeds)
    tell(f"  mean return of {len(seeds)} episodes: {planned.mean():.1f}; random actions {random.mean():.1f}")
    return {"mean": float(planned.mean()), "returns": planned.tolist(), "random": float(random.mean())}
