"""Tasks of the benchmark with their data, a fixed manifest of starts and goals, and true path lengths."""

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
from benchmarks.pixels.recipes import ACTION_FREE_SHARE, Recipe
from envs import rooms, teleport, u_maze
from envs.exploring import Trajectories
from envs.leaves import Windy, blow, calm
from envs.task import Task
from mpc.agent.memory.collect import explored, vectors
from world_models.data import Dataset, mixed

PyTree = Any
MANIFESTS = Path(__file__).parent / "manifests"
EPISODES = 300
"""Number of episodes in every manifest."""
_IDS = {module: name for name, (module, _) in envs.IDS.items()}


class World(NamedTuple):
    """A task with its environment and explorer; `settings` are those of the environment."""

    name: str
    task: Task
    env: gymnasium.Env
    explore: Callable[..., Trajectories]
    settings: dict[str, Any]

    @property
    def environment(self) -> str:
        """Gymnasium id of the environment."""
        return _IDS[self.name]

    @property
    def frames(self) -> Callable[[jax.Array], jax.Array]:
        """Function `rows [..., S] -> observations`."""
        return vectors(self.task).frames

    def bare(self, state: PyTree) -> Any:
        """Returns the state of the task without the state of the leaves."""
        return state.inner if isinstance(state, Windy) else state


def world(name: str, **settings: Any) -> World:
    """Returns the world of a task.

    Args:
        name: Name of its module, for example `"two_rooms"`.
        **settings: Settings of its environment.

    Raises:
        ValueError: If the task has no explorer.
    """
    module = importlib.import_module(f"envs.{name}")
    if not hasattr(module, "explore"):
        raise ValueError(f"{name} has no `explore` function to collect trajectories")
    env = gymnasium.make(_IDS[name], **settings)
    task: Task = env.unwrapped.task  # type: ignore[attr-defined]
    explore = partial(_windy, module.explore) if settings.get("leaves") else module.explore
    return World(name, task, env, explore, settings)


def _windy(explore: Callable[..., Trajectories], key: jax.Array, batch: int, length: int, **given: Any) -> Trajectories:
    """Returns exploring trajectories with the state of windy leaves, which do not affect the task."""
    explore_key, wind_key, goals = jax.random.split(key, 3)
    walks = explore(explore_key, batch, length, **given)

    def wind(key: jax.Array) -> Any:
        begin, steps = jax.random.split(key)
        first = calm(begin)

        def advance(state: Any, key: jax.Array) -> tuple[Any, Any]:
            state = blow(state, key)
            return state, state

        _, rest = jax.lax.scan(advance, first, jax.random.split(steps, length))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    winds = jax.vmap(wind)(jax.random.split(wind_key, batch))
    goal_winds = jax.vmap(calm)(jax.random.split(goals, batch))
    goal_winds = jax.tree.map(lambda x: jnp.repeat(x[:, None], length + 1, axis=1), goal_winds)
    return Trajectories(Windy(walks.states, winds, goal_winds), walks.actions)


def walks(world: World, recipe: Recipe, seed: int, *, action_free: bool = False) -> Dataset:
    """Returns training trajectories of the world's explorer.

    Args:
        world: World to explore.
        recipe: Number and length of trajectories.
        seed: Seed of all random numbers.
        action_free: If True, most trajectories have no actions.
    """
    explore = partial(world.explore, **dict(recipe.explorer))
    count = recipe.trajectories
    every = explored(world.task, explore, world.environment, count, length=recipe.length, seed=seed)
    if not action_free:
        return every
    labelled = max(round((1.0 - ACTION_FREE_SHARE) * count), 1)
    return mixed(_part(every, 0, labelled), _part(every, labelled, count))


def _part(dataset: Dataset, begin: int, end: int) -> Dataset:
    """Returns a range of a dataset's episodes."""
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
    """Returns the start states of the first `count` episodes, `[count, ...]`, read from a file.

    Args:
        world: World of the episodes.
        count: Number of episodes.
        folder: Folder of the files, one per task.

    Raises:
        ValueError: If the file has fewer episodes.
    """
    file = folder / f"{world.name}.json"
    if not file.exists():
        write_manifest(world, file)
    given = {name: np.asarray(values, np.float32) for name, values in json.loads(file.read_text()).items()}
    available = min(len(values) for values in given.values())
    if available < count:
        raise ValueError(f"{file} has {available} episodes, but {count} were requested")
    given = {name: values[:count] for name, values in given.items()}
    keys = jax.random.split(jax.random.key(0), count)  # for parts that are not in the manifest: the leaves
    return jax.jit(jax.vmap(lambda key, given: world.task.reset(key, **given)))(keys, given)


def write_manifest(world: World, file: Path) -> None:
    """Draws starts, goals and layouts and writes them to a file."""
    states = world.bare(jax.vmap(world.task.reset)(jax.random.split(jax.random.key(2025), EPISODES)))
    fields = {"start": states.position, "goal": states.goal}
    if hasattr(states, "layout"):
        fields["layout"] = states.layout
    given = {name: np.round(np.asarray(values, np.float64), 4).tolist() for name, values in fields.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f' "{name}": {json.dumps(values)}' for name, values in given.items())
    file.write_text(f"{{\n{lines}\n}}\n")


# True path lengths


def path_length(world: World, state: Any) -> jax.Array:
    """Returns the length of the shortest path from a state to its goal, in the units of the task."""
    state = world.bare(state)
    if world.name == "u_maze":
        return _u_maze_path_length(state.position, state.goal)
    if world.name == "teleport":
        return jnp.minimum(*teleport.path_lengths(state))
    width = importlib.import_module(f"envs.{world.name}").WIDTH
    return rooms.path_length(state.layout, state.position, state.goal, width)


def _u_maze_path_length(start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns the path length around the slab of the U-Maze: straight, or over one or both of its corners."""
    corners = jnp.array([[u_maze.EDGE, u_maze.FLOOR], [u_maze.EDGE, u_maze.CEILING]])
    share = jnp.linspace(0.0, 1.0, 257)[:, None]

    def leg(a: jax.Array, b: jax.Array) -> jax.Array:
        points = a + share * (b - a)
        inside = (points[:, 0] < u_maze.EDGE - 1e-3) & (points[:, 1] > u_maze.FLOOR + 1e-3)
        blocked = (inside & (points[:, 1] < u_maze.CEILING - 1e-3)).any()
        return jnp.where(blocked, jnp.inf, jnp.linalg.norm(b - a))

    low, high = corners
    lengths = [
        leg(start, end),
        leg(start, low) + leg(low, end),
        leg(start, high) + leg(high, end),
        leg(start, low) + leg(low, high) + leg(high, end),
        leg(start, high) + leg(high, low) + leg(low, end),
    ]
    return jnp.stack(lengths).min()
