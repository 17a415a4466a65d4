"""What a latent space tells, and whether what is near in it is near in truth."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pixels.recipes import Recipe
from benchmarks.pixels.worlds import World, walks, way
from envs.leaves import Windy
from mpc.agent.goal_agent import GoalAgent
from mpc.agent.memory.collect import vectors
from world_models import data
from world_models.distances.temporal import Distance, latent_distance
from world_models.training.diagnostics import collapse_report, linear_probe_r2, prediction_errors, rank_correlation

PyTree = Any
TRAJECTORIES, LENGTH = 1000, 91
"""Few would do but for what stays the same in each, the layout."""
UNSEEN = 90_000
"""Seed of trajectories that nothing was learnt from."""


def probes(world: World, agent: GoalAgent, recipe: Recipe) -> dict[str, Any]:
    """What a linear map reads off latents, how many of their dimensions are used, and how far predictions are off."""
    fresh = walks(world, replace(recipe, trajectories=TRAJECTORIES, length=LENGTH), UNSEEN)
    rows = jnp.asarray(fresh.observations[:: max(len(fresh.observations) // 4000, 1)])
    latents = encoded(world, agent, rows)
    targets = jax.jit(jax.vmap(lambda row: _targets(world, vectors(world.task).unpack(row))))(rows)
    r2 = {name: rounded(linear_probe_r2(latents, values)) for name, values in targets.items()}
    report = {name: round(float(value), 4) for name, value in collapse_report(latents).items()}
    block, steps = agent.settings.block, agent.settings.window
    windows = data.draw(data.resident(fresh, steps * block, world.frames), jax.random.key(0), 64, steps, block)
    windows = windows._replace(observations=world.frames(windows.observations))
    errors = jax.jit(lambda p, w: prediction_errors(agent.model, p, w))(agent.training.params, windows)
    return {"r2": r2, "embedding": report, "prediction": {name: rounded(values) for name, values in errors.items()}}


def rounded(values: Any) -> list[float]:
    """Numbers as JSON shows them."""
    return [round(float(value), 4) for value in np.ravel(values)]


def _targets(world: World, state: Any) -> dict[str, jax.Array]:
    state = world.bare(state)
    found = {"position": state.position}
    if hasattr(state, "layout"):
        found |= {"wall_x": state.layout[:1], "door_y": state.layout[1:]}
    return found | ({"velocity": state.velocity} if hasattr(state, "velocity") else {})


def encoded(world: World, agent: GoalAgent, rows: jax.Array, at_once: int = 500) -> jax.Array:
    """Latents `[N, D]` of rows of states `[N, S]`."""

    @jax.jit
    def encode(params: PyTree, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda o: agent.model.encode(params, o).latent)(world.frames(rows))

    parts = [encode(agent.training.params, rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
    return jnp.concatenate(parts)


def distances(agent: GoalAgent) -> dict[str, tuple[Distance, PyTree]]:
    """What latents can be compared by, with parameters: the plain distance, and the agent's own if that is learnt."""
    plain = latent_distance()
    found: dict[str, tuple[Distance, PyTree]] = {"latent": (plain, {})}
    if agent.settings.distance != "latent":
        found[agent.settings.distance] = (agent.distance, agent.distance_params)
    return found


def moved(state: PyTree, position: Any) -> PyTree:
    """The state with the dot somewhere else."""
    if isinstance(state, Windy):
        return state._replace(inner=moved(state.inner, position))
    return state._replace(position=jnp.asarray(position, jnp.float32))


def truth(world: World, agent: GoalAgent, starts: PyTree) -> dict[str, float]:
    """Rank correlation of distances to goals with the lengths of the shortest ways there.

    Args:
        world: Whose images are compared.
        agent: Whose encoder and distances are judged.
        starts: Episodes `[N, ...]`: from where they begin, and from another place each, anywhere in its room.
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
        return here, there, way(world, state), task.possible(state)["start"]

    here, there, length, free = (np.asarray(part) for part in compare(agent.training.params, both))
    found = {}
    for name, (distance, params) in distances(agent).items():
        far = jax.vmap(lambda a, b, d=distance, p=params: d.measure(p, a, b))(here[free], there[free])
        found[name] = round(float(rank_correlation(far, jnp.asarray(length[free]))), 4)
    return found


def field(world: World, agent: GoalAgent, start: PyTree, size: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Distances to one goal from everywhere in its room, `{name: [size, size]}`, rows along y, and the grid's extent."""
    task = world.task
    low, high = (np.asarray(bound, np.float32) for bound in task.options["start"])
    xs, ys = (np.linspace(low[i], high[i], size, dtype=np.float32) for i in range(2))
    places = jnp.stack(jnp.meshgrid(xs, ys), axis=-1).reshape(-1, 2)

    @jax.jit
    def everything(params: PyTree, places: jax.Array) -> tuple[jax.Array, jax.Array]:
        states = jax.vmap(lambda place: moved(start, place))(places)
        latents = jax.vmap(lambda s: agent.model.encode(params, task.observe(s)).latent)(states)
        return latents, jax.vmap(lambda s: task.possible(s)["start"])(states)

    chunks = [everything(agent.training.params, part) for part in jnp.split(places, size)]
    latents, free = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    assert task.goal is not None
    goal = agent.encode(agent.training.params, np.asarray(task.goal(start))).latent
    fields = {}
    for name, (distance, params) in distances(agent).items():
        far = np.array(jax.vmap(lambda z, d=distance, p=params: d.measure(p, z, goal))(latents))
        far[~free] = np.nan
        fields[name] = far.reshape(size, size)
    return np.array([low[0], high[0], low[1], high[1]]), fields
