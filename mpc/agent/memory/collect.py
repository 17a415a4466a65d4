"""Trajectories to learn from: of a task's own explorer where it has one, else of smooth random actions.

Explored trajectories store states, a few numbers each, of which frames are rendered on the way: a hundredth of the memory,
and quicker than reading frames.
"""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mpc.agent.perception import gym_spaces
from world_models.data import About, Dataset, gather

PyTree = Any
STATES = {"rows": "states"}
"""Note of a dataset that stores states."""
LENGTH = 91
"""Steps of an explored trajectory, as its sources take them."""
_AT_ONCE = 250  # trajectories in one call


class Vectors(NamedTuple):
    """A task's states as vectors.

    `pack(state) -> [S]`; `unpack([S]) -> state`; `frames([..., S]) -> [..., *shape]`, what is observed in them.
    """

    pack: Callable[[PyTree], jax.Array]
    unpack: Callable[[jax.Array], PyTree]
    frames: Callable[[jax.Array], jax.Array]


@cache
def vectors(task: Any) -> Vectors:
    """Return how a task's states are stored; the same functions for the same task, so that nothing compiles twice.

    Args:
        task: An `envs.task.Task`.
    """
    like = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(task.reset, jax.random.key(0)))
    unpack = ravel_pytree(like)[1]

    def frames(rows: jax.Array) -> jax.Array:
        flat = rows.reshape(-1, rows.shape[-1])
        seen = jax.vmap(lambda row: task.observe(unpack(row)))(flat)
        return seen.reshape(*rows.shape[:-1], *seen.shape[1:])

    return Vectors(lambda state: ravel_pytree(state)[0].astype(jnp.float32), unpack, frames)


def task_of(env: gymnasium.Env) -> Any:
    """The task behind an environment, or None where it is none of ours."""
    return getattr(env.unwrapped, "task", None)


def explorer(task: Any) -> Callable[..., Any] | None:
    """`(key, batch, length) -> trajectories`, where the task's module has one."""
    return None if task is None else getattr(importlib.import_module(f"envs.{task.name}"), "explore", None)


def explored(
    task: Any, explore: Callable[..., Any], environment: str, episodes: int, *, length: int = LENGTH, seed: int = 0
) -> Dataset:
    """Trajectories of an exploring policy, as states; actions are scaled to [-1, 1], as the environment takes them.

    Args:
        task: An `envs.task.Task`.
        explore: `(key, batch, length) -> trajectories` of its states and actions in its own units.
        environment: Its id.
        episodes: How many.
        length: Steps of each.
        seed: Of everything random.
    """
    pack = vectors(task).pack
    low, high = task.actions

    @jax.jit
    def walk(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        walks = explore(key, _AT_ONCE, length)
        return jax.vmap(jax.vmap(pack))(walks.states), 2.0 * (walks.actions - low) / (high - low) - 1.0

    keys = jax.random.split(jax.random.key(seed), -(-episodes // _AT_ONCE))
    states, actions = (
        np.concatenate(parts)[:episodes] for parts in zip(*(tuple(map(np.asarray, walk(key))) for key in keys), strict=True)
    )
    rows = episodes * (length + 1)
    return Dataset(
        observations=states.reshape(rows, -1),
        actions=np.pad(actions, ((0, 0), (0, 1), (0, 0))).reshape(rows, -1),
        rewards=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
        lengths=np.full(episodes, length),
        about=About(environment, action_meaning="in [-1, 1]", notes=dict(STATES)),
    )


def wandered(env: gymnasium.Env, environment: str, episodes: int, *, length: int | None = None, seed: int = 0) -> Dataset:
    """Trajectories of smooth random actions, as they are observed.

        a[t] = middle + half width · tanh(w[t]),      w[t] = ρ w[t-1] + sqrt(1 - ρ²) n[t],      ρ = 0.9

    Args:
        env: With continuous, bounded actions.
        environment: Its id.
        episodes: How many.
        length: Steps of each, at most; as long as episodes last if None.
        seed: Of everything random.

    Raises:
        ValueError: If actions are not continuous and bounded.
    """
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise ValueError(f"smooth random actions need continuous, bounded ones; the action space is {space}")
    random, memory, parts = np.random.default_rng(seed), 0.9, isinstance(env.observation_space, gymnasium.spaces.Dict)
    middle, half = 0.5 * (space.high + space.low), 0.5 * (space.high - space.low)

    def seen(observation: Any) -> Any:
        return gym_spaces.flat(env.observation_space, observation, batched=False)[0] if parts else observation

    def episode(index: int) -> dict[str, np.ndarray]:
        observation, _ = env.reset(seed=seed + index)
        observation = seen(observation)
        kept: dict[str, list[Any]] = {"observations": [observation], "actions": [], "rewards": [], "terminated": []}
        wander, over = random.standard_normal(space.shape), False
        while not over and (length is None or len(kept["actions"]) < length):
            action = (middle + half * np.tanh(wander)).astype(space.dtype)
            observation, reward, terminated, truncated, _ = env.step(action)
            for name, value in zip(kept, (seen(observation), action, reward, terminated), strict=True):
                kept[name].append(value)
            wander = memory * wander + np.sqrt(1.0 - memory**2) * random.standard_normal(space.shape)
            over = terminated or truncated
        return {name: np.asarray(values) for name, values in kept.items()}

    about = About(environment, str(env.observation_space), str(space))
    return gather((episode(index) for index in range(episodes)), about)


def collect(environment: str, episodes: int, *, length: int | None = None, seed: int = 0) -> Dataset:
    """Trajectories of a Gymnasium environment to learn from.

    Args:
        environment: Its id.
        episodes: How many.
        length: Steps of each; those of the explorer, or of the environment, if None.
        seed: Of everything random.

    Raises:
        ValueError: If a number is not positive, or smooth random actions don't fit the environment.
    """
    if episodes < 1 or (length is not None and length < 1):
        raise ValueError(f"episodes and their length must be at least 1; got {episodes} and {length}")
    env = gym_spaces.make(environment)
    try:
        task = task_of(env)
        explore = explorer(task)
        if explore is not None:
            return explored(task, explore, environment, episodes, length=length or LENGTH, seed=seed)
        return wandered(env, environment, episodes, length=length, seed=seed)
    finally:
        env.close()


def rendering(dataset: Dataset, env: gymnasium.Env) -> Callable[[jax.Array], jax.Array] | None:
    """Return the function that renders a dataset's rows as observations; None where they are observations already.

    Args:
        dataset: Of states or of observations.
        env: Its environment.

    Raises:
        ValueError: If it holds states, and the environment cannot be observed in given ones.
    """
    if dataset.about.notes.get("rows") != STATES["rows"]:
        return None
    task = task_of(env)
    if task is None:
        raise ValueError(
            f"the dataset holds states, and {dataset.about.environment!r} is no task of ours that could show them"
        )
    return vectors(task).frames
