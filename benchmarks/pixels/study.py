"""Training of one variant with one seed, and evaluation with every planner."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.pixels import drawing, episodes, probes
from benchmarks.pixels.episodes import Outcome
from benchmarks.pixels.recipes import PLANNERS, RANDOM, Recipe
from benchmarks.pixels.worlds import World, manifest, walks
from envs import teleport
from mpc.agent import Agent, AgentConfig, Progress, Task
from world_models.training.diagnostics import CollapseWarning

PyTree = Any
Log = Callable[[str], None]


def print_now(text: str) -> None:
    """Prints without buffering."""
    print(text, flush=True)


class Trained(NamedTuple):
    """A trained agent with seconds of training, number of updates, and the message of the collapse alarm, if any."""

    agent: Agent
    seconds: float
    updates: int
    alarm: str | None


def goal_agent(world: World, config: AgentConfig, seed: int, **given: Any) -> Agent:
    """Returns an agent for goals of a world that does not act in its environment, and so holds no experience.

    Args:
        world: World of the goals.
        config: Every setting of the agent.
        seed: Seed of weights and plans.
        **given: Further arguments of `Agent`.
    """
    spaces = {"observation_space": world.env.observation_space, "action_space": world.env.action_space}
    agent = Agent(None, task=goal_task(world), config=config, seed=seed, render=world.frames, **spaces, **given)
    agent.env_id = world.environment  # recordings of other environments are refused
    return agent


def goal_task(world: World) -> Task:
    """Returns the task of reaching some goal; every episode has a goal of its own."""
    goal = world.task.goal
    assert goal is not None
    return Task(goal=np.asarray(jax.jit(lambda key: goal(world.task.reset(key)))(jax.random.key(0))))


def train(
    world: World,
    recipe: Recipe,
    seed: int,
    folder: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    action_free: bool = False,
    log: Log = print_now,
) -> Trained:
    """Collects data, trains an agent and saves it; or loads it, and continues an interrupted training.

    Args:
        world: World of the data.
        recipe: Settings.
        seed: Seed of data and weights.
        folder: Folder of the checkpoint.
        resume: If True, an existing checkpoint is used.
        minutes: Time limit, including data collection; None trains for the recipe's updates.
        action_free: If True, most trajectories have no actions.
        log: Callback for progress messages.
    """
    summary, kept = folder / "training.json", folder / "checkpoint"
    record: dict[str, Any] = {"seconds": 0.0, "updates": 0, "alarm": None, "done": False, "metrics": []}
    if resume and summary.exists():
        record |= json.loads(summary.read_text())
        agent = Agent.load(kept, config=planning_settings(recipe.config), render=world.frames, task=goal_task(world))
        if record["done"]:
            return Trained(agent, record["seconds"], record["updates"], record["alarm"])
    else:
        agent = goal_agent(world, recipe.config, seed)
    begun, metrics_log = time.perf_counter() - record["seconds"], record["metrics"]
    data = walks(world, recipe, seed, action_free=action_free)
    log(f"  {data.transitions:,} transitions after {time.perf_counter() - begun:.0f} s; learning ...")

    def callback(agent: Agent, progress: Progress) -> bool:
        updates, seconds = progress.timesteps, round(time.perf_counter() - begun, 1)
        metrics_log.append({"updates": updates, "seconds": seconds} | progress.metrics)
        if len(metrics_log) % 10 == 0:
            log(f"    {updates} updates, {metrics_log[-1]['seconds']:.0f} s, loss {progress.metrics['loss']:.3f}")
        return minutes is None or time.perf_counter() - begun < 60.0 * minutes

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # reported below; some ablations collapse on purpose
            agent.learn_from(data, callback=callback, progress_bar=False, checkpoint_path=kept)
        record["done"] = True
    finally:  # an interrupted training continues later
        record |= {"seconds": round(time.perf_counter() - begun, 1), "updates": agent.learner.updates}
        record["alarm"] = record["alarm"] or agent.collapse_monitor.raised
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(json.dumps(record, indent=1) + "\n")
    return Trained(agent, record["seconds"], record["updates"], record["alarm"])


_PLANNING = {
    "actor": (
        "planner",
        "planner_options",
        "horizon",
        "starts",
        "samples",
        "first_starts",
        "first_iterations",
        "iterations",
        "step_size",
        "spread",
        "replan_every",
        "action_limit",
    ),
    "cost": ("cumulative_weight", "terminal_weight", "effort_weight"),
    "memory": ("correction_memory",),
    "learning": ("offline_updates",),
}
"""Settings that do not shape what is learnt, by group; those of a recipe also apply to agents of earlier runs."""


def planning_settings(config: AgentConfig) -> dict[str, Any]:
    """Returns the settings that may differ from those with which an agent was trained."""
    return {name: getattr(getattr(config, group), name) for group, names in _PLANNING.items() for name in names}


def planned(agent: Agent, world: World, **changes: Any) -> Agent:
    """Returns an agent with the same model and weights and other planning settings.

    Args:
        agent: Trained agent.
        world: World to plan in.
        **changes: Planning settings; `distance="latent"` selects the plain latent distance.
    """
    config, learnt = agent.config.changed(changes), agent.learner
    same = config.cost.distance == agent.config.cost.distance
    other = goal_agent(world, config, agent.seed, model=agent.model, distance=agent.components.distance if same else None)
    other.learner.training, other.learner.trained, other.learner.decoder = learnt.training, learnt.trained, learnt.decoder
    if same:
        other.learner.distance, other.learner.goal_actor = learnt.distance, learnt.goal_actor
    if config.macro_levels.strides == agent.config.macro_levels.strides:
        other.learner.macro = learnt.macro
    return other


def evaluate(
    world: World,
    recipe: Recipe,
    trained: Trained,
    seed: int,
    planners: tuple[str, ...],
    *,
    log: Log = print_now,
    at_once: int = 20,
) -> tuple[list[dict[str, Any]], dict[str, Outcome]]:
    """Evaluates success and planning time of every planner on the same model.

    Args:
        world: World to act in.
        recipe: Budget and number of episodes.
        trained: Trained agent.
        seed: Seed of the policies.
        planners: Names of `recipes.PLANNERS` or `"random"`; the suffix `" | latent"` selects the plain latent distance.
        log: Callback for progress messages.
        at_once: Episodes per call.

    Returns:
        A row for each planner, and the outcomes of its episodes.
    """
    every = manifest(world, recipe.episodes)
    agents = {name: variation(trained.agent, world, name) for name in planners}
    policies = {n: episodes.random(agent) if n == RANDOM else episodes.planning(agent) for n, agent in agents.items()}
    plans = {n: policy for n, policy in policies.items() if n != RANDOM}
    times = episodes.replan_times(world, trained.agent, plans, every)
    rows, outcomes = [], {}
    for name, agent in agents.items():
        quick = name == RANDOM or agent.config.actor.planner == "gradient"
        count = recipe.episodes if quick else min(recipe.sampled, recipe.episodes)
        starts = jax.tree.map(lambda x, count=count: x[:count], every)
        together = at_once if quick else max(at_once // 10, 1)  # sampling planners hold ten times as many futures in cache
        outcome = episodes.play(world, agent, policies[name], starts, recipe.budget, seed=seed, at_once=together, log=log)
        row: dict[str, Any] = {
            "planner": name.partition(" | ")[0],
            "distance": agent.config.cost.distance if name != RANDOM else "",
            "seed": seed,
            "success": round(float(outcome.success[:, -1].mean()), 4),
            "ever": round(float(outcome.success.any(axis=1).mean()), 4),
            "episodes": len(outcome.success),
            "each": outcome.success[:, -1].astype(int).tolist(),
            "evaluation_seconds": round(outcome.seconds, 1),
        } | {f"ms_{mark}": ms for mark, ms in times.get(name, {}).items()}
        if world.name == "teleport":
            row |= shortcuts(outcome, starts)
        log(f"  {name}: {100 * row['success']:.1f}%, {row.get('ms_p50', 0.0)} ms")
        rows.append(row)
        outcomes[name] = outcome
    return rows, outcomes


def variation(agent: Agent, world: World, name: str) -> Agent:
    """Returns the agent with the planner of a name in `recipes.PLANNERS`, and the distance after ` | `, if any."""
    base, _, distance = name.partition(" | ")
    return planned(agent, world, **PLANNERS.get(base, {}), **({"distance": distance} if distance else {}))


def shortcuts(outcome: Outcome, starts: PyTree) -> dict[str, float]:
    """Returns how often the teleport is used where it shortens the path by more than the success radius."""
    direct, through = (np.asarray(x) for x in jax.jit(jax.vmap(teleport.path_lengths))(starts))
    shorter = through < direct - 4.5
    jumped = np.asarray(outcome.states.jumps)[:, -1] > 0
    used = jumped & outcome.success[:, -1]
    return {"shorter": int(shorter.sum()), "used_where_shorter": round(float(used[shorter].mean()), 4)}


def show(world: World, trained: Trained, starts: PyTree, outcome: Outcome, stem: Path, title: str) -> None:
    """Writes the image and the film."""
    fields = probes.field(world, trained.agent, jax.tree.map(lambda x: x[0], starts))
    drawing.picture(world, outcome, starts, fields, stem.with_suffix(".png"), title)
    drawing.film(world, outcome, stem.with_suffix(".mp4"))
