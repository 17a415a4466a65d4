"""Probes of a latent space: linear decoding, collapse, prediction errors, and accuracy of distances."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pixels.recipes import Recipe
from benchmarks.pixels.worlds import World, path_length, walks
from envs.leaves import Windy
from mpc.agent import Agent
from mpc.agent.memory.collect import vectors
from world_models import data
from world_models.distances.temporal import Distance, latent_distance
from world_models.training.diagnostics import collapse_report, linear_probe_r2, prediction_errors, rank_correlation

PyTree = Any
TRAJECTORIES, LENGTH = 1000, 91
"""Trajectories and their steps; many are needed because the layout is constant within a trajectory."""
TEST_SEED = 90_000
"""Seed of test trajectories."""


def probes(world: World, agent: Agent, recipe: Recipe) -> dict[str, Any]:
    """Returns R² of linear probes, a collapse report of the embedding, and prediction errors."""
    fresh = walks(world, replace(recipe, trajectories=TRAJECTORIES, length=LENGTH), TEST_SEED)
    rows = jnp.asarray(fresh.observations[:: max(len(fresh.observations) // 4000, 1)])
    latents = encoded(world, agent, rows)
    targets = jax.jit(jax.vmap(lambda row: _targets(world, vectors(world.task).unpack(row))))(rows)
    r2 = {name: rounded(linear_probe_r2(latents, values)) for name, values in targets.items()}
    report = {name: round(float(value), 4) for name, value in collapse_report(latents).items()}
    block, steps = agent.config.world_model.block, agent.config.learning.window
    windows = data.draw(data.resident(fresh, steps * block, world.frames), jax.random.key(0), 64, steps, block)
    windows = windows._replace(observations=world.frames(windows.observations))
    errors = jax.jit(lambda p, w: prediction_errors(agent.model, p, w))(agent.learner.training.params, windows)
    return {"r2": r2, "embedding": report, "prediction": {name: rounded(values) for name, values in errors.items()}}


def rounded(values: Any) -> list[float]:
    """Returns numbers rounded to 4 digits for JSON."""
    return [round(float(value), 4) for value in np.ravel(values)]


def _targets(world: World, state: Any) -> dict[str, jax.Array]:
    state = world.bare(state)
    targets = {"position": state.position}
    if hasattr(state, "layout"):
        targets |= {"wall_x": state.layout[:1], "door_y": state.layout[1:]}
    return targets | ({"velocity": state.velocity} if hasattr(state, "velocity") else {})


def encoded(world: World, agent: Agent, rows: jax.Array, at_once: int = 500) -> jax.Array:
    """Returns the latents `[N, D]` of rows of states `[N, S]`."""

    @jax.jit
    def encode(params: PyTree, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda o: agent.model.encode(params, o).latent)(world.frames(rows))

    parts = [encode(agent.learner.training.params, rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
    return jnp.concatenate(parts)


def distances(agent: Agent) -> dict[str, tuple[Distance, PyTree]]:
    """Returns distances with their parameters: the plain latent distance, and the agent's learnt distance if it has one."""
    plain = latent_distance()
    result: dict[str, tuple[Distance, PyTree]] = {"latent": (plain, {})}
    name, learnt = agent.config.cost.distance, agent.components.distance
    if name != "latent" and learnt is not None:
        result[name] = (learnt, agent.learner.distance)
    return result


def moved(state: PyTree, position: Any) -> PyTree:
    """Returns the state with another position of the dot."""
    if isinstance(state, Windy):
        return state._replace(inner=moved(state.inner, position))
    return state._replace(position=jnp.asarray(position, jnp.float32))


def truth(world: World, agent: Agent, starts: PyTree) -> dict[str, float]:
    """Returns the rank correlation of latent distances to goals with the lengths of shortest paths.

    Args:
        world: World of the images.
        agent: Agent whose encoder and distances are evaluated.
        starts: Start states `[N, ...]`; each is also evaluated at a second, random position.
    """
    task, count = world.task, len(jax.tree.leaves(starts)[0])
    low, high = task.options["start"]
    elsewhere = np.random.default_rng(7).uniform(low + 1e-3, high - 1e-3, (count, len(low)))
    both = jax.tree.map(lambda *x: jnp.concatenate(x), starts, jax.vmap(moved)(starts, elsewhere))
    goal = task.goal
    assert goal is not None

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def compare(params: PyTree, state: PyTree) -> tuple[jax.Array, ...]:
        here, there = (agent.model.encode(params, image(state)).latent for image in (task.observe, goal))
        return here, there, path_length(world, state), task.possible(state)["start"]

    here, there, length, free = (np.asarray(part) for part in compare(agent.learner.training.params, both))
    correlations = {}
    for name, (distance, params) in distances(agent).items():
        values = jax.vmap(lambda a, b, d=distance, p=params: d.measure(p, a, b))(here[free], there[free])
        correlations[name] = round(float(rank_correlation(values, jnp.asarray(length[free]))), 4)
    return correlations


def field(world: World, agent: Agent, start: PyTree, size: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the extent of a grid over the room, and distances to one goal on it, `{name: [size, size]}`, rows along y."""
    task = world.task
    low, high = (np.asarray(bound, np.float32) for bound in task.options["start"])
    xs, ys = (np.linspace(low[i], high[i], size, dtype=np.float32) for i in range(2))
    places = jnp.stack(jnp.meshgrid(xs, ys), axis=-1).reshape(-1, 2)

    @jax.jit
    def everything(params: PyTree, places: jax.Array) -> tuple[jax.Array, jax.Array]:
        states = jax.vmap(lambda place: moved(start, place))(places)
        latents = jax.vmap(lambda s: agent.model.encode(params, task.observe(s)).latent)(states)
        return latents, jax.vmap(lambda s: task.possible(s)["start"])(states)

    chunks = [everything(agent.learner.training.params, part) for part in jnp.split(places, size)]
    latents, free = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    assert task.goal is not None
    goal = agent.encode(np.asarray(task.goal(start)))
    fields = {}
    for name, (distance, params) in distances(agent).items():
        values = np.array(jax.vmap(lambda z, d=distance, p=params: d.measure(p, z, goal))(latents))
        values[~free] = np.nan
        fields[name] = values.reshape(size, size)
    return np.array([low[0], high[0], low[1], high[1]]), fields
