"""One variant of a task, trained with one seed, and evaluated with every planner."""

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.pixels import drawing, episodes, probes
from benchmarks.pixels.episodes import Outcome
from benchmarks.pixels.recipes import PLANNERS, RANDOM, Recipe
from benchmarks.pixels.worlds import World, manifest, walks
from envs import teleport
from mpc.agent.goal_agent import GoalAgent, Progress
from world_models.distances.temporal import latent_distance
from world_models.training.diagnostics import CollapseWarning

PyTree = Any
Tell = Callable[[str], None]


def say(text: str) -> None:
    """Print at once, also into files."""
    print(text, flush=True)


class Trained(NamedTuple):
    """An agent, and how it came about: seconds, updates, and what the collapse alarm said, if anything."""

    agent: GoalAgent
    seconds: float
    updates: int
    alarm: str | None


def train(
    world: World,
    recipe: Recipe,
    seed: int,
    folder: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    watching: bool = False,
    tell: Tell = say,
) -> Trained:
    """Collect and learn, and keep what was learnt; or read it back, and learn on if it was interrupted.

    Args:
        world: Where.
        recipe: How.
        seed: Of data and weights.
        folder: Of the checkpoint.
        resume: Whether to begin with a checkpoint, if there is one.
        minutes: When to end at the latest, collection included; after the recipe's updates if None.
        watching: Whether most trajectories tell no actions.
        tell: Is told how far it is.
    """
    summary, kept = folder / "training.json", folder / "checkpoint"
    told: dict[str, Any] = {"seconds": 0.0, "updates": 0, "alarm": None, "done": False, "metrics": []}
    if resume and summary.exists():
        told |= json.loads(summary.read_text())
        planning = {name: getattr(recipe.settings, name) for name in _PLANNING}
        agent = GoalAgent.load(kept, render=world.frames, settings=planning)
        if told["done"]:
            return Trained(agent, told["seconds"], told["updates"], told["alarm"])
    else:
        agent = GoalAgent(world.env, settings=recipe.settings, seed=seed, render=world.frames)
    begun, log = time.perf_counter() - told["seconds"], told["metrics"]
    data = walks(world, recipe, seed, watching=watching)
    tell(f"  {data.transitions:,} transitions after {time.perf_counter() - begun:.0f} s; learning ...")

    def callback(agent: GoalAgent, progress: Progress) -> bool:
        log.append({"updates": progress.updates, "seconds": round(time.perf_counter() - begun, 1)} | progress.metrics)
        if len(log) % 10 == 0:
            tell(f"    {progress.updates} updates, {log[-1]['seconds']:.0f} s, loss {progress.metrics['loss']:.3f}")
        return minutes is None or time.perf_counter() - begun < 60.0 * minutes

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # reported below; ablations are meant to collapse
            agent.learn(data, callback=callback, progress_bar=False, checkpoint_path=kept)
        told["done"] = True
    finally:  # interrupted, it is gone on with later
        told |= {"seconds": round(time.perf_counter() - begun, 1), "updates": agent.updates}
        told["alarm"] = told["alarm"] or agent.alarm.raised
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(json.dumps(told, indent=1) + "\n")
    return Trained(agent, told["seconds"], told["updates"], told["alarm"])


_PLANNING = (
    "planner",
    "horizon",
    "starts",
    "samples",
    "first_iterations",
    "iterations",
    "step_size",
    "spread",
    "cumulative_weight",
    "terminal_weight",
    "effort_weight",
    "replan_every",
    "correction_memory",
    "action_limit",
    "updates",
)


def planned(agent: GoalAgent, world: World, **changes: Any) -> GoalAgent:
    """The same model and weights, planned in otherwise.

    Args:
        agent: Trained.
        world: Where.
        **changes: Of settings that do not shape what was learnt; `distance="latent"` takes the plain distance.
    """
    settings = replace(agent.settings, **changes)
    same = settings.distance == agent.settings.distance
    other = GoalAgent(
        world.env,
        settings=settings,
        seed=agent.seed,
        render=world.frames,
        model=agent.model,
        distance=agent.distance if same else latent_distance(),
    )
    other.training, other.album = agent.training, agent.album
    other.distance_params = agent.distance_params if same else {}
    return other


def evaluate(
    world: World,
    recipe: Recipe,
    trained: Trained,
    seed: int,
    planners: tuple[str, ...],
    *,
    tell: Tell = say,
    at_once: int = 20,
) -> tuple[list[dict[str, Any]], dict[str, Outcome]]:
    """Success, and the time a plan takes, of every planner on the same model.

    Args:
        world: Where.
        recipe: Budget and number of episodes.
        trained: What to plan in.
        seed: Of policies.
        planners: Names of `recipes.PLANNERS` or `"random"`; with `" | latent"` after it, in the plain distance.
        tell: Is told how far it is.
        at_once: Episodes in one call.

    Returns:
        A row for each planner, and what came of its episodes.
    """
    every = manifest(world, recipe.episodes)
    agents = {name: variation(trained.agent, world, name) for name in planners}
    policies = {n: episodes.random(agent) if n == RANDOM else episodes.planning(agent) for n, agent in agents.items()}
    plans = {n: policy for n, policy in policies.items() if n != RANDOM}
    times = episodes.replan_times(world, trained.agent, plans, every)
    rows, outcomes = [], {}
    for name, agent in agents.items():
        quick = name == RANDOM or agent.settings.planner == "gradient"
        count = recipe.episodes if quick else min(recipe.sampled, recipe.episodes)
        starts = jax.tree.map(lambda x, count=count: x[:count], every)
        together = at_once if quick else max(at_once // 10, 1)  # ten times as many futures of each fill the caches
        outcome = episodes.play(world, agent, policies[name], starts, recipe.budget, seed=seed, at_once=together, tell=tell)
        row: dict[str, Any] = {
            "planner": name.partition(" | ")[0],
            "distance": agent.settings.distance if name != RANDOM else "",
            "seed": seed,
            "success": round(float(outcome.success[:, -1].mean()), 4),
            "ever": round(float(outcome.success.any(axis=1).mean()), 4),
            "episodes": len(outcome.success),
            "each": outcome.success[:, -1].astype(int).tolist(),
            "evaluation_seconds": round(outcome.seconds, 1),
        } | {f"ms_{mark}": ms for mark, ms in times.get(name, {}).items()}
        if world.name == "teleport":
            row |= shortcuts(outcome, starts)
        tell(f"  {name}: {100 * row['success']:.1f}%, {row.get('ms_p50', 0.0)} ms")
        rows.append(row)
        outcomes[name] = outcome
    return rows, outcomes


def variation(agent: GoalAgent, world: World, name: str) -> GoalAgent:
    """The agent that plans as a name of `recipes.PLANNERS` says, in another distance where one stands behind ` | `."""
    base, _, distance = name.partition(" | ")
    return planned(agent, world, **PLANNERS.get(base, {}), **({"distance": distance} if distance else {}))


def shortcuts(outcome: Outcome, starts: PyTree) -> dict[str, float]:
    """How often the teleport is used where it is shorter, by more than the radius that counts as there."""
    direct, through = (np.asarray(x) for x in jax.jit(jax.vmap(teleport.ways))(starts))
    shorter = through < direct - 4.5
    jumped = np.asarray(outcome.states.jumps)[:, -1] > 0
    used = jumped & outcome.success[:, -1]
    return {"shorter": int(shorter.sum()), "used_where_shorter": round(float(used[shorter].mean()), 4)}


def show(world: World, trained: Trained, starts: PyTree, outcome: Outcome, stem: Path, title: str) -> None:
    """Write the picture and the film."""
    fields = probes.field(world, trained.agent, jax.tree.map(lambda x: x[0], starts))
    drawing.picture(world, outcome, starts, fields, stem.with_suffix(".png"), title)
    drawing.film(world, outcome, stem.with_suffix(".mp4"))
