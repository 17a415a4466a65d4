"""Tasks by name, and the compiled functions that the environments of a task share."""

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs import leaves
from envs.task import Task

PyTree = Any
_DISTRACTOR_SETTINGS = ("leaves", "noise")


class EnvState(NamedTuple):
    """State of an environment between two calls; in a vector of environments every leaf has a leading axis."""

    state: PyTree
    key: jax.Array


class Outputs(NamedTuple):
    """Arrays of one call of `reset` or `step`, on the device."""

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    info: dict[str, jax.Array]


def named(name: str, settings: Mapping[str, Any]) -> Task:
    """Returns the task of a module of this package.

    Args:
        name: Name of the module, for example `"two_rooms"`.
        settings: Keywords of its `task`, and of every task `leaves` (strength of the leaves behind images) and `noise`
            (noise dimensions appended to vectors).

    Raises:
        ValueError: If a setting or its value is unknown.
    """
    make = importlib.import_module(f"envs.{name}").task
    own = list(inspect.signature(make).parameters)
    unknown = [setting for setting in settings if setting not in (*own, *_DISTRACTOR_SETTINGS)]
    if unknown:
        available = ", ".join([*own, *_DISTRACTOR_SETTINGS, "normalised"])
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; it has {available}")
    task = make(**{setting: value for setting, value in settings.items() if setting in own})
    if settings.get("leaves"):
        task = leaves.behind(task, leaves.STRENGTH if settings["leaves"] is True else float(settings["leaves"]))
    return leaves.beside(task, settings["noise"]) if settings.get("noise") else task


class Programs:
    """Compiled functions of a task, shared by all its environments: single ones `[...]` and vectors `[n, ...]`."""

    def __init__(self, task: Task) -> None:
        def outputs(state: PyTree, reward: jax.Array) -> Outputs:
            info = {"success": task.success(state)} | task.report(state)
            return Outputs(task.observe(state), reward, task.terminated(state), info)

        def reset(key: jax.Array, given: dict[str, jax.Array]) -> tuple[EnvState, Outputs, dict[str, jax.Array]]:
            key, use = jax.random.split(key)
            state = task.reset(use, **given)
            return EnvState(state, key), outputs(state, jnp.zeros(())), task.possible(state)

        def step(params: PyTree, env: EnvState, action: jax.Array) -> tuple[EnvState, Outputs]:
            key, use = jax.random.split(env.key)
            following = task.step(params, env.state, action, use)
            return EnvState(following, key), outputs(following, task.reward(params, env.state, action, following))

        reset_all, step_all = jax.vmap(reset), jax.vmap(step, in_axes=(None, 0, 0))

        def reset_where(
            mask: jax.Array, envs: EnvState, last: Outputs, given: dict[str, jax.Array]
        ) -> tuple[EnvState, Outputs, dict]:
            fresh, first, possible = reset_all(envs.key, given)
            return select(mask, fresh, envs), select(mask, first, last), possible

        def step_or_reset(params: PyTree, envs: EnvState, action: jax.Array, over: jax.Array) -> tuple[EnvState, Outputs]:
            stepped, last = step_all(params, envs, action)
            fresh, first, _ = reset_all(envs.key, {})
            first = first._replace(terminated=jnp.zeros_like(first.terminated))
            return select(over, fresh, stepped), select(over, first, last)

        self.reset, self.step = jax.jit(reset), jax.jit(step)
        self.reset_all, self.step_all = jax.jit(reset_all), jax.jit(step_all)
        self.reset_where, self.step_or_reset = jax.jit(reset_where), jax.jit(step_or_reset)
        self.render, self.render_all = jax.jit(task.render), jax.jit(jax.vmap(task.render))
        self.goal = self.goal_all = None
        if task.goal is not None:
            self.goal, self.goal_all = jax.jit(task.goal), jax.jit(jax.vmap(task.goal))
        self.keys = jax.jit(jax.vmap(jax.random.key))


programs = cache(Programs)


def select(mask: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Returns a pytree that takes each environment from `on_true` or `on_false`, by a mask over the leading axis."""

    def where(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(where, on_true, on_false)
