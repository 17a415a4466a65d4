"""Two Rooms in the tables of actor and critic: goals given as images, scores in percent of them reached.

The actor goes downhill at first, and is then taught by recordings. What comes after the horizon is told by the learnt steps
to go; without such a critic there is the plain distance between latents.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.architecture.guesses import COLD, guessed
from benchmarks.pixels import episodes, study
from benchmarks.pixels.recipes import RECIPES
from benchmarks.pixels.worlds import World, manifest, walks, world
from mpc.agent.actor import goal_policy
from mpc.agent.evaluation import decision_times
from mpc.agent.goal_agent import GoalAgent

NAME = "two rooms"
_RECIPE = RECIPES["two_rooms"]
RECIPE = replace(_RECIPE, settings=replace(_RECIPE.settings, updates=3000, finetune_updates=3000))
"""Half of what the benchmark of pixels trains for."""
RECORDINGS = replace(RECIPE, trajectories=400)
"""What the actor is taught from."""
COUNT = 32
"""Starts and goals that plans from a proposal are made for."""


class _Decider:
    """An agent with one goal, which decides at every call, as `decision_times` asks of it."""

    def __init__(self, agent: GoalAgent, goal: Any):
        self.agent, self.goal = agent, goal

    def predict(self, observation: Any, state: Any = None, **deciding: Any) -> tuple[Any, Any]:
        """A decision, whatever is left of the one before."""
        due = None if state is None else state._replace(age=self.agent.settings.every)
        return self.agent.predict(observation, self.goal, due, **deciding)


def taught(folder: Path, seed: int, tell: Callable[[str], None]) -> tuple[World, GoalAgent]:
    """The world, and an agent taught now or in an earlier run; without an actor."""
    place = world("two_rooms")
    return place, study.train(place, RECIPE, seed, folder, resume=True, tell=tell).agent


def reached(place: World, agent: GoalAgent, policy: episodes.Policy, count: int) -> float:
    """Percent of the manifest's first goals."""
    outcome = episodes.play(place, agent, policy, manifest(place, count), RECIPE.budget, at_once=50)
    return round(100.0 * float(outcome.success[:, -1].mean()), 2)


def deployed_actor(folder: Path, seed: int, count: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Mode 1 beside Mode 2: a row of the actor's table.

    Args:
        folder: Of what was learnt.
        seed: Of everything.
        count: Episodes per score.
        tell: Is told how far it is.
    """
    place, agent = taught(folder, seed, tell)
    row: dict[str, Any] = {"task": NAME, "seed": seed, "steps": agent.updates}
    row["random"] = reached(place, agent, episodes.random(agent), count)
    row["plan"] = reached(place, agent, episodes.planning(agent), count)
    recordings = walks(place, RECORDINGS, 900 + seed)
    for name, passes in (("dreamt", 0), ("react", 1)):
        agent.distil(recordings, passes)
        row[name] = reached(place, agent, episodes.reacting(agent), count)
        row[f"{name}_share"] = round((row[name] - row["random"]) / (row["plan"] - row["random"]), 4)
    states = manifest(place, COUNT)
    goal = place.task.goal
    assert goal is not None
    decider = _Decider(agent, jax.device_get(goal(jax.tree.map(lambda x: x[0], states))))
    for mode in ("plan", "react"):
        row[f"{mode}_ms"] = decision_times(decider, place.environment, seed, mode=mode)[0]["p50"]
    encode = jax.vmap(lambda o: agent.model.encode(agent.training.params, o).latent)
    here, there = (encode(jax.vmap(look)(states)) for look in (place.task.observe, goal))
    planner = goal_policy.planner(agent.pursuer.planner.problem, agent.settings, COLD)
    seen = jnp.concatenate([here, there], axis=1)
    return row | guessed(planner, agent.actor_adapter, agent.parameters(decider.goal), seen, seed)


def seeing(folder: Path, seed: int, count: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """A short horizon with and without learnt steps to go, and a long one: rows of the critic's table.

    Args:
        folder: Of what was learnt.
        seed: Of everything.
        count: Episodes per score.
        tell: Is told how far it is.
    """
    place, agent = taught(folder, seed, tell)
    rows = []
    for horizon, critic in ((5, True), (5, False), (30, False), (30, True)):
        other = study.planned(agent, place, horizon=horizon, **({} if critic else {"distance": "latent"}))
        mean = reached(place, other, episodes.planning(other), count)
        rows.append({"task": NAME, "seed": seed, "horizon": horizon, "critic": critic, "mean": mean})
        tell(f"  {rows[-1]}")
    return rows
