"""Two Rooms in the tables of actor and critic: image goals, with the percentage of reached goals as the score.

The actor first follows the gradient of the distance and is then distilled from recordings. The critic is the learnt
temporal distance; without it, the plain distance between latents is used.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import mpc
from benchmarks.architecture.proposals import COLD, proposal_iterations
from benchmarks.pixels import episodes, study
from benchmarks.pixels.recipes import RECIPES
from benchmarks.pixels.worlds import World, manifest, walks, world
from mpc.agent import Agent, Task
from mpc.agent.actor import teaching
from mpc.agent.evaluation import decision_times

NAME = "two rooms"
RECIPE = RECIPES["two_rooms"].changed({"offline_updates": 3000, "finetune_updates": 3000})
"""Half of the training of the pixel benchmark."""
RECORDINGS = replace(RECIPE, trajectories=400)
"""Recordings from which the actor is distilled."""
COUNT = 32
"""Number of starts and goals for plans from a proposal."""


class _EveryCall:
    """An agent that makes a new decision in every call, as `decision_times` requires."""

    def __init__(self, agent: Agent):
        self.agent = agent

    def predict(self, observation: Any, state: Any = None, **deciding: Any) -> tuple[Any, Any]:
        """Returns a new decision, even if actions of the previous one remain."""
        if state is not None:
            age = jnp.full_like(state.policy.age, self.agent.config.every - 1)
            state = state._replace(policy=state.policy._replace(age=age))
        return self.agent.predict(observation, state, **deciding)


def trained(folder: Path, seed: int, log: Callable[[str], None]) -> tuple[World, Agent]:
    """Returns the world and an agent without an actor; trains it unless a checkpoint exists."""
    place = world("two_rooms")
    return place, study.train(place, RECIPE, seed, folder, resume=True, log=log).agent


def reached(place: World, agent: Agent, policy: episodes.BlockPolicy, count: int) -> float:
    """Returns the percentage of reached goals, over the first goals of the manifest."""
    outcome = episodes.play(place, agent, policy, manifest(place, count), RECIPE.budget, at_once=50)
    return round(100.0 * float(outcome.success[:, -1].mean()), 2)


def actor_row(folder: Path, seed: int, count: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Returns a row of the actor's table: Mode 1 and Mode 2.

    Args:
        folder: Folder of the trained agent.
        seed: Seed of all random numbers.
        count: Episodes per score.
        log: Callback for progress messages.
    """
    place, agent = trained(folder, seed, log)
    row: dict[str, Any] = {"task": NAME, "seed": seed, "steps": agent.learner.updates}
    row["random"] = reached(place, agent, episodes.random(agent), count)
    row["plan"] = reached(place, agent, episodes.planning(agent), count)
    for name, learn in (("imagined", follow_gradient), ("react", lambda a: a.distil(walks(place, RECORDINGS, 900 + seed)))):
        learn(agent)
        row[name] = reached(place, agent, episodes.reacting(agent), count)
        row[f"{name}_share"] = round((row[name] - row["random"]) / (row["plan"] - row["random"]), 4)
    states = manifest(place, COUNT)
    goal = place.task.goal
    assert goal is not None
    agent.configure(Task(goal=jax.device_get(goal(jax.tree.map(lambda x: x[0], states)))))
    for mode in ("plan", "react"):
        row[f"{mode}_ms"] = decision_times(_EveryCall(agent), place.environment, seed, mode=mode)[0]["p50"]
    encode = jax.vmap(lambda o: agent.model.encode(agent.learner.training.params, o).latent)
    here, there = (encode(jax.vmap(look)(states)) for look in (place.task.observe, goal))
    planner = mpc.make_planner(agent.program.problem, agent.config.planner(COLD))
    seen = jnp.concatenate([here, there], axis=1)
    return row | proposal_iterations(planner, teaching.goal_adapter(agent), agent.params, seen, seed)


def follow_gradient(agent: Agent) -> None:
    """Gives the agent an untrained actor, which takes one step along the gradient of the distance."""
    actor = agent.components.goal_actor
    assert actor is not None
    agent.learner.goal_actor = actor.init(jax.random.key(agent.seed))


def critic_rows(folder: Path, seed: int, count: int, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """Returns rows of the critic's table: a short and a long horizon, each with and without the temporal distance.

    Args:
        folder: Folder of the trained agent.
        seed: Seed of all random numbers.
        count: Episodes per score.
        log: Callback for progress messages.
    """
    place, agent = trained(folder, seed, log)
    rows = []
    for horizon, critic in ((5, True), (5, False), (30, False), (30, True)):
        other = study.planned(agent, place, horizon=horizon, **({} if critic else {"distance": "latent"}))
        mean = reached(place, other, episodes.planning(other), count)
        rows.append({"task": NAME, "seed": seed, "horizon": horizon, "critic": critic, "mean": mean})
        log(f"  {rows[-1]}")
    return rows
