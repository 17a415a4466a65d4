"""Tasks as the benchmark needs them: data, a fixed manifest of starts and goals, and how far it truly is."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import envs
from benchmarks.pixels.recipes import WATCHED, Recipe
from envs import rooms, teleport, u_maze
from envs.exploring import Trajectories
from envs.leaves import Windy, blow, calm
from envs.task import Task
from mpc.agent.memory.collect import explored, vectors
from world_models.data import Dataset, mixed

PyTree = Any
MANIFESTS = Path(__file__).parent / "manifests"
EPISODES = 300
"""In every manifest."""
_IDS = {module: name for name, (module, _) in envs.IDS.items()}


class World(NamedTuple):
    """A task, its environment, and how to explore it; `settings` are those of the environment."""

    name: str
    task: Task
    env: gymnasium.Env
    explore: Callable[..., Trajectories]
    settings: dict[str, Any]

    @property
    def environment(self) -> str:
        """Its Gymnasium id."""
        return _IDS[self.name]

    @property
    def frames(self) -> Callable[[jax.Array], jax.Array]:
        """`rows [..., S] -> observations`."""
        return vectors(self.task).frames

    def bare(self, state: PyTree) -> Any:
        """The state without the wind around it."""
        return state.inner if isinstance(state, Windy) else state


def world(name: str, **settings: Any) -> World:
    """A task by the name of its module.

    Args:
        name: For example `"two_rooms"`.
        **settings: Of its environment.

    Raises:
        ValueError: If it cannot be explored.
    """
    module = importlib.import_module(f"envs.{name}")
    if not hasattr(module, "explore"):
        raise ValueError(f"{name} has no explorer to collect trajectories with")
    env = gymnasium.make(_IDS[name], **settings)
    task: Task = env.unwrapped.task  # type: ignore[attr-defined]
    explore = partial(_windy, module.explore) if settings.get("leaves") else module.explore
    return World(name, task, env, explore, settings)


def _windy(explore: Callable[..., Trajectories], key: jax.Array, batch: int, length: int, **given: Any) -> Trajectories:
    """What is explored in still air, with wind around it: the wind touches nothing."""
    walking, winding, goals = jax.random.split(key, 3)
    walks = explore(walking, batch, length, **given)

    def wind(key: jax.Array) -> Any:
        begin, blowing = jax.random.split(key)
        first = calm(begin)

        def later(now: Any, key: jax.Array) -> tuple[Any, Any]:
            now = blow(now, key)
            return now, now

        _, rest = jax.lax.scan(later, first, jax.random.split(blowing, length))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    winds = jax.vmap(wind)(jax.random.split(winding, batch))
    then = jax.vmap(calm)(jax.random.split(goals, batch))
    then = jax.tree.map(lambda x: jnp.repeat(x[:, None], length + 1, axis=1), then)
    return Trajectories(Windy(walks.states, winds, then), walks.actions)


def walks(world: World, recipe: Recipe, seed: int, *, watching: bool = False) -> Dataset:
    """Trajectories to learn from.

    Args:
        world: Where.
        recipe: How many, how long.
        seed: Of everything random.
        watching: Whether most of them tell no actions.
    """
    explore = partial(world.explore, **dict(recipe.explorer))
    count = recipe.trajectories
    every = explored(world.task, explore, world.environment, count, length=recipe.length, seed=seed)
    if not watching:
        return every
    told = max(round((1.0 - WATCHED) * count), 1)
    return mixed(_part(every, 0, told), _part(every, told, count))


def _part(dataset: Dataset, begin: int, end: int) -> Dataset:
    """Some of a dataset's episodes."""
    edges = np.append(dataset.first, len(dataset.rewards))
    rows = slice(int(edges[begin]), int(edges[end]))
    assert dataset.actions is not None
    return replace(
        dataset,
        observations=dataset.observations[rows],
        actions=dataset.actions[rows],
        rewards=dataset.rewards[rows],
        terminated=dataset.terminated[rows],
        lengths=dataset.lengths[begin:end],
    )


# The manifest


def manifest(world: World, count: int, folder: Path = MANIFESTS) -> PyTree:
    """The states that the first `count` episodes begin in, `[count, ...]`: fixed, whatever draws random numbers by then.

    Args:
        world: Where.
        count: Episodes.
        folder: Of the files, one per task.

    Raises:
        ValueError: If the file holds fewer episodes than are asked for.
    """
    file = folder / f"{world.name}.json"
    if not file.exists():
        write_manifest(world, file)
    given = {name: np.asarray(values, np.float32) for name, values in json.loads(file.read_text()).items()}
    kept = min(len(values) for values in given.values())
    if kept < count:
        raise ValueError(f"{file} holds {kept} episodes, and {count} were asked for")
    given = {name: values[:count] for name, values in given.items()}
    keys = jax.random.split(jax.random.key(0), count)  # of what is not in the manifest: the wind
    return jax.jit(jax.vmap(lambda key, given: world.task.reset(key, **given)))(keys, given)


def write_manifest(world: World, file: Path) -> None:
    """Draw starts, goals and layouts, once and for all."""
    states = world.bare(jax.vmap(world.task.reset)(jax.random.split(jax.random.key(2025), EPISODES)))
    fields = {"start": states.position, "goal": states.goal}
    if hasattr(states, "layout"):
        fields["layout"] = states.layout
    given = {name: np.round(np.asarray(values, np.float64), 4).tolist() for name, values in fields.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f' "{name}": {json.dumps(values)}' for name, values in given.items())
    file.write_text(f"{{\n{lines}\n}}\n")


# How far it truly is


def way(world: World, state: Any) -> jax.Array:
    """Length of the shortest way from a state to its goal, in the task's unit."""
    state = world.bare(state)
    if world.name == "u_maze":
        return _bend(state.position, state.goal)
    if world.name == "teleport":
        return jnp.minimum(*teleport.ways(state))
    width = importlib.import_module(f"envs.{world.name}").WIDTH
    return rooms.path_length(state.layout, state.position, state.goal, width)


def _bend(start: jax.Array, end: jax.Array) -> jax.Array:
    """Round the slab of the U-Maze: straight where it can be, else by one of the slab's two corners, or both."""
    corners = jnp.array([[u_maze.EDGE, u_maze.FLOOR], [u_maze.EDGE, u_maze.CEILING]])
    share = jnp.linspace(0.0, 1.0, 257)[:, None]

    def leg(a: jax.Array, b: jax.Array) -> jax.Array:
        points = a + share * (b - a)
        inside = (points[:, 0] < u_maze.EDGE - 1e-3) & (points[:, 1] > u_maze.FLOOR + 1e-3)
        blocked = (inside & (points[:, 1] < u_maze.CEILING - 1e-3)).any()
        return jnp.where(blocked, jnp.inf, jnp.linalg.norm(b - a))

    low, high = corners
    ways = [
        leg(start, end),
        leg(start, low) + leg(low, end),
        leg(start, high) + leg(high, end),
        leg(start, low) + leg(low, high) + leg(high, end),
        leg(start, high) + leg(high, low) + leg(low, end),
    ]
    return jnp.stack(ways).min()
