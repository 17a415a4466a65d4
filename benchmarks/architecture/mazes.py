"""Maze: what a level above is worth, where the goal is many cells of way away.

A goal-reaching agent learns mazes, as frames, from a dot that wanders through them; a second level learns on its
representations where a few blocks lead. Then both go to the same goals: the agent alone, looking as far ahead as one level
does or as two do, and with the level above it. All plan by gradient in the same model and the same distance.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pixels import episodes, study
from benchmarks.pixels.episodes import Policy
from benchmarks.pixels.probes import encoded
from benchmarks.pixels.recipes import ROOMS, VICREG, Recipe
from benchmarks.pixels.worlds import World, walks
from envs import drawing as d
from envs import maze, rooms
from mpc.agent.hierarchical_agent import HierarchicalAgent, HierarchySettings
from mpc.agent.memory.collect import vectors
from mpc.agent.viz.figures import movie
from mpc.agent.viz.probe import Probe, probe
from world_models.training.diagnostics import rank_correlation

PyTree = Any
RECIPE = Recipe(
    replace(
        ROOMS,
        latent=32,  # place and doors are 26 numbers: with 128, all as lively, hardly any tells places
        objective_settings=VICREG | {"covariance_weight": 1.0},
        updates=1200,
        finetune_updates=1500,
        distance="ways",  # walls differ from maze to maze
        distance_settings={"updates": 8000},
    ),
    trajectories=3000,  # each in a maze of its own
    length=300,
    budget=300,
)
"""What the lowest level learns with."""
LEVELS = HierarchySettings(
    strides=(4,),
    sigma=0.2,
    horizon=10,
    reachability_weight=100.0,
    first_iterations=30,
    iterations=8,
    updates=3000,
    hidden=(192, 192),
)
"""What the level above learns and plans with: a step of it is 16 of the environment, some one and a half cells of way."""
PLANNING = (
    "horizon",
    "near",
    "prior_weight",
    "reachability_weight",
    "candidates",
    "starts",
    "first_iterations",
    "iterations",
)
"""Of these, what is taken from here also where the level was learnt in an earlier run."""
ERRANDS = {"horizon": 5, "starts": 4, "first_iterations": 20, "iterations": 6}
"""How the lowest level plans where there is one above: what it goes for is a step of that away."""
ABOVE = {"trajectories": 2000}
"""Recordings that the level above learns from, as the lowest has learnt to see them."""
TWO, FLAT = "two levels", "one level"
FLAT_PLANNERS: dict[str, dict[str, Any]] = {
    FLAT: {"horizon": 8, "starts": 8, "first_iterations": 30, "iterations": 8},
    "one level, far-sighted": {"horizon": 32, "starts": 4, "first_iterations": 30, "iterations": 4},
}
"""Name: what to change of the lowest level's planner where it plans alone, imagining as many steps as both levels do."""
RANDOM = "random"


class Levels(NamedTuple):
    """Both levels, the seconds that they took to learn, and the metrics of the upper one."""

    agent: HierarchicalAgent
    seconds: float
    metrics: dict[str, float]


def learnt(place: World, recipe: Recipe, seed: int, folder: Path, tell: Callable[[str], None]) -> Levels:
    """Learn both levels, or read back what was learnt in an earlier run.

    Args:
        place: The maze.
        recipe: Of the lowest level.
        seed: Of data and weights.
        folder: Where everything is kept.
        tell: Is told how far it is.
    """
    told, whole = folder / "levels.json", folder / "levels"
    trained = study.train(place, recipe, seed, folder, resume=True, tell=tell)
    if not told.exists():
        begun = time.perf_counter()
        agent = HierarchicalAgent(trained.agent, settings=LEVELS, seed=seed)
        (metrics,) = agent.learn(walks(place, replace(recipe, **ABOVE), 500 + seed))
        agent.save(whole)
        told.write_text(json.dumps({"seconds": time.perf_counter() - begun, "metrics": metrics}) + "\n")
    kept = json.loads(told.read_text())
    planning = {name: getattr(LEVELS, name) for name in PLANNING}
    agent = HierarchicalAgent.load(whole, render=place.frames, above=planning, settings=ERRANDS)
    return Levels(agent, round(trained.seconds + kept["seconds"], 1), kept["metrics"])


def policies(place: World, agent: HierarchicalAgent) -> dict[str, Policy]:
    """Everybody who goes to goals, by name."""
    found = {TWO: Policy(agent.first, agent.next, agent.parameters, agent.agent.settings.block)}
    for name, changes in FLAT_PLANNERS.items():
        found[name] = episodes.planning(study.planned(agent.agent, place, **changes))
    return found | {RANDOM: episodes.random(agent.agent)}


def starts(distance: str, count: int, seed: int = 2025) -> maze.State:
    """Mazes with starts and goals `[count, ...]`, the goals so far away as `maze.DISTANCES` says."""
    return jax.vmap(partial(maze.reset, distance=distance))(jax.random.split(jax.random.key(seed), count))


def sight(place: World, agent: HierarchicalAgent) -> tuple[Probe, dict[str, float]]:
    """What can be read off representations, in mazes that nothing was learnt from.

    Returns:
        A linear map to positions in pixels; and, on other mazes than those that it was fitted to, `position_error`, the mean
        distance in pixels from the true one; `doors_right`, the share of doors that such a map tells; and `rank_correlation`
        of the distance that is planned with and cells of way.
    """
    fresh = walks(place, replace(RECIPE, trajectories=600, length=45), 90_000)
    rows = jnp.asarray(fresh.observations[:: max(len(fresh.observations) // 8000, 1)])
    seen = np.asarray(encoded(place, agent.agent, rows))
    states = jax.vmap(vectors(place.task).unpack)(rows)
    truth, half = np.concatenate([states.position, states.layout], axis=1), len(rows) // 2
    reader = probe(seen[:half], truth[:half])
    guess, truth = reader(seen[half:]), truth[half:]
    some = starts("any", 500, seed=7)
    a, goal = agent.agent, place.task.goal
    assert goal is not None

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0))
    def far(params: PyTree, measure: PyTree, state: maze.State) -> jax.Array:
        here, there = (a.model.encode(params, image(state)).latent for image in (place.task.observe, goal))
        return a.distance.measure(measure, here, there)

    cells = jax.vmap(maze.away)(some)
    figures = {
        "position_error": np.linalg.norm(guess[:, :2] - truth[:, :2], axis=1).mean(),
        "doors_right": ((guess[:, 2:] > 0.5) == (truth[:, 2:] > 0.5)).mean(),
        "rank_correlation": rank_correlation(far(a.training.params, a.distance_params, some), cells),
    }
    return Probe(reader.matrix[:, :2]), {name: round(float(value), 4) for name, value in figures.items()}


def film(place: World, agent: HierarchicalAgent, reader: Probe, every: maze.State, path: Path) -> None:
    """Write a film of both levels' plans, one episode after the other: rings where the upper level expects to be step by
    step, the next of them filled; dots where the lower one does.

    Args:
        place: The maze.
        agent: Plans.
        reader: Of positions off representations.
        every: Where episodes begin, `[N, ...]`.
        path: Of the MP4 file.
    """
    task, view = place.task, rooms.VIEW
    assert task.goal is not None
    look, show, move = jax.jit(task.observe), jax.jit(task.goal), jax.jit(partial(task.step, task.params))

    @jax.jit
    def draw(state: maze.State, upper: jax.Array, lower: jax.Array) -> jax.Array:
        canvas = task.render(state) / 255.0
        for there in upper:
            canvas = d.paint(canvas, d.ring(view, there, 1.6, 0.5), d.SAND)
        canvas = d.paint(canvas, d.disc(view, upper[0], 1.6), d.SAND)
        for there in lower:
            canvas = d.paint(canvas, d.disc(view, there, 0.6), d.SKY)
        return d.picture(canvas)

    with movie(path, task.fps) as append:
        for index in range(len(every.position)):
            state, under = jax.tree.map(lambda x, i=index: x[i], every), None
            goal = np.asarray(show(state))
            for step in range(RECIPE.budget):
                action, under = agent.predict(np.asarray(look(state)), goal, under)
                low, high = (reader(level.states.latent[1:]) for level in under.course.level_states)
                append(np.asarray(draw(state, jnp.asarray(high), jnp.asarray(low)))[:320, :320])
                taken = task.actions[0] + 0.5 * (action + 1.0) * (task.actions[1] - task.actions[0])
                state = move(state, taken, jax.random.key(1000 * index + step))
                if task.success is not None and bool(task.success(state)):
                    break
