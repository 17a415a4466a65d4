"""Maze: the value of a second level of planning for distant goals.

An agent learns mazes from images of an exploring dot. Its second level learns how several blocks of actions change its
latents. The agent then plans to the same goals alone, with a short and with a long horizon, and with the
second level. All variants plan by gradient, with the same model and the same distance.
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
from benchmarks.pixels.episodes import BlockPolicy
from benchmarks.pixels.probes import encoded
from benchmarks.pixels.recipes import ROOMS, VICREG, Recipe
from benchmarks.pixels.worlds import World, walks
from envs import drawing as d
from envs import maze, rooms
from mpc.agent import Agent, Task
from mpc.agent.memory.collect import vectors
from mpc.agent.viz.figures import movie
from mpc.agent.viz.probe import Probe, probe
from world_models import macro
from world_models.data import Dataset
from world_models.training.diagnostics import rank_correlation

PyTree = Any
RECIPE = Recipe(
    {
        **ROOMS,
        "latent": 32,  # position and doors are 26 numbers; with 128 dimensions of equal variance few encode the position
        "objective_options": VICREG | {"covariance_weight": 1.0},
        "offline_updates": 1200,
        "finetune_updates": 1500,
        "distance": "shortest_path",  # the walls differ between mazes
        "distance_options": {"updates": 8000},
    },
    trajectories=3000,  # each in a different maze
    length=300,
    budget=300,
)
"""Settings of the lower level."""
LEVELS: dict[str, Any] = {
    "strides": (4,),
    "macro_sigma": 0.2,
    "macro_horizon": 10,
    "reachability_weight": 100.0,
    "macro_first_iterations": 30,
    "macro_iterations": 8,
    "macro_updates": 3000,
    "macro_hidden": (192, 192),
}
"""Settings of the upper level; its step is 16 steps of the environment, about one and a half cells."""
TRAINING = ("strides", "macro_sigma", "macro_updates", "macro_hidden")
"""Those of `LEVELS` that shape what is learnt; the others also apply to a level from an earlier run."""
LOWER = {"horizon": 5, "starts": 4, "first_starts": 4, "first_iterations": 20, "iterations": 6}
"""Planner of the lower level below an upper one: its goal is one upper step away."""
UPPER = {"trajectories": 2000}
"""Recordings for the upper level."""
TWO, FLAT = "two levels", "one level"
FLAT_PLANNERS: dict[str, dict[str, Any]] = {
    FLAT: {"horizon": 8, "starts": 8, "first_starts": 8, "first_iterations": 30, "iterations": 8},
    "one level, long horizon": {"horizon": 32, "starts": 4, "first_starts": 4, "first_iterations": 30, "iterations": 4},
}
"""Changes of the lower level's planner for planning alone; in total as many imagined steps as with two levels."""
RANDOM = "random"


class Levels(NamedTuple):
    """The agent, seconds of training, and metrics of the upper level."""

    agent: Agent
    seconds: float
    metrics: dict[str, float]


def trained(place: World, recipe: Recipe, seed: int, folder: Path, log: Callable[[str], None]) -> Levels:
    """Trains both levels, or loads them from an earlier run.

    Args:
        place: World of the maze.
        recipe: Recipe of the lower level.
        seed: Seed of data and weights.
        folder: Folder of the agents.
        log: Callback for progress messages.
    """
    record, whole = folder / "levels.json", folder / "levels"
    lower = study.train(place, recipe, seed, folder, resume=True, log=log)
    if not record.exists():
        begun = time.perf_counter()
        agent = study.planned(lower.agent, place, **LEVELS)
        metrics = learn_upper(agent, walks(place, replace(recipe, **UPPER), 500 + seed), seed)
        agent.save(whole)
        record.write_text(json.dumps({"seconds": time.perf_counter() - begun, "metrics": metrics}) + "\n")
    kept = json.loads(record.read_text())
    changes = {name: value for name, value in LEVELS.items() if name not in TRAINING} | LOWER
    agent = Agent.load(whole, config=changes, render=place.frames, task=study.goal_task(place))
    return Levels(agent, round(lower.seconds + kept["seconds"], 1), kept["metrics"])


def learn_upper(agent: Agent, dataset: Dataset, seed: int) -> dict[str, float]:
    """Trains the upper level of an agent on recordings of its own, in the agent's latents as they are; returns metrics."""
    levels, learner, key = agent.config.macro_levels, agent.learner, jax.random.fold_in(jax.random.key(seed), 0)
    encoded = macro.encode_dataset(dataset, learner.encode_rows, agent.config.world_model.block)
    (model,), (stride,) = agent.components.macro_models, levels.strides
    learner.macro[0], metrics = macro.learn(model, encoded, key, stride=stride, updates=levels.macro_updates)
    return metrics


def policies(place: World, agent: Agent) -> dict[str, BlockPolicy]:
    """Returns the compared policies by name."""
    result = {TWO: episodes.planning(agent)}
    for name, changes in FLAT_PLANNERS.items():
        result[name] = episodes.planning(study.planned(agent, place, strides=(), **changes))
    return result | {RANDOM: episodes.random(agent)}


def starts(distance: str, count: int, seed: int = 2025) -> maze.State:
    """Returns mazes with starts and goals `[count, ...]`, at path lengths of `maze.DISTANCES`."""
    return jax.vmap(partial(maze.reset, distance=distance))(jax.random.split(jax.random.key(seed), count))


def probe_latents(place: World, agent: Agent) -> tuple[Probe, dict[str, float]]:
    """Fits linear probes to latents in test mazes.

    Returns:
        A linear probe of positions in pixels; and, on mazes to which the probes were not fitted, `position_error`: mean
        distance from the true position in pixels; `doors_right`: accuracy of a linear probe of the doors; and
        `rank_correlation` of the planning distance with the shortest path in cells.
    """
    fresh = walks(place, replace(RECIPE, trajectories=600, length=45), 90_000)
    rows = jnp.asarray(fresh.observations[:: max(len(fresh.observations) // 8000, 1)])
    seen = np.asarray(encoded(place, agent, rows))
    states = jax.vmap(vectors(place.task).unpack)(rows)
    truth, half = np.concatenate([states.position, states.layout], axis=1), len(rows) // 2
    reader = probe(seen[:half], truth[:half])
    guess, truth = reader(seen[half:]), truth[half:]
    some = starts("any", 500, seed=7)
    distance, learner, goal = agent.components.distance, agent.learner, place.task.goal
    assert goal is not None and distance is not None

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0))
    def measure_distance(params: PyTree, measure: PyTree, state: maze.State) -> jax.Array:
        here, there = (agent.model.encode(params, image(state)).latent for image in (place.task.observe, goal))
        return distance.measure(measure, here, there)

    cells = jax.vmap(maze.cells_to_goal)(some)
    figures = {
        "position_error": np.linalg.norm(guess[:, :2] - truth[:, :2], axis=1).mean(),
        "doors_right": ((guess[:, 2:] > 0.5) == (truth[:, 2:] > 0.5)).mean(),
        "rank_correlation": rank_correlation(measure_distance(learner.training.params, learner.distance, some), cells),
    }
    return Probe(reader.matrix[:, :2]), {name: round(float(value), 4) for name, value in figures.items()}


def film(place: World, agent: Agent, reader: Probe, every: maze.State, path: Path) -> None:
    """Writes a film of the plans of both levels, one episode after another.

    Rings mark the predicted positions of the upper level's steps, the next one filled; dots those of the lower level.

    Args:
        place: World of the maze.
        agent: Agent that plans.
        reader: Probe of positions.
        every: Start states `[N, ...]`.
        path: Path of the MP4 file.
    """
    task, view = place.task, rooms.VIEW
    assert task.goal is not None
    look, show, move = jax.jit(task.observe), jax.jit(task.goal), jax.jit(partial(task.step, task.params))

    @jax.jit
    def draw(state: maze.State, upper: jax.Array, lower: jax.Array) -> jax.Array:
        canvas = task.render(state) / 255.0
        for position in upper:
            canvas = d.paint(canvas, d.ring(view, position, 1.6, 0.5), d.SAND)
        canvas = d.paint(canvas, d.disc(view, upper[0], 1.6), d.SAND)
        for position in lower:
            canvas = d.paint(canvas, d.disc(view, position, 0.6), d.SKY)
        return d.picture(canvas)

    with movie(path, task.fps) as append:
        for index in range(len(every.position)):
            state, policy_state = jax.tree.map(lambda x, i=index: x[i], every), None
            agent.configure(Task(goal=np.asarray(show(state))))
            for step in range(RECIPE.budget):
                action, policy_state = agent.predict(np.asarray(look(state)), policy_state)
                low, high = (reader(level.states.latent[0, 1:]) for level in policy_state.policy.planning)
                append(np.asarray(draw(state, jnp.asarray(high), jnp.asarray(low)))[:320, :320])
                taken = task.actions[0] + 0.5 * (action + 1.0) * (task.actions[1] - task.actions[0])
                state = move(state, taken, jax.random.key(1000 * index + step))
                if task.success is not None and bool(task.success(state)):
                    break
