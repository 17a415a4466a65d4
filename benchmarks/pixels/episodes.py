"""Whole episodes, many at once in one compiled program. A policy sees observations and a goal's latent, nothing else."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pixels.worlds import World
from mpc.agent.goal_agent import GoalAgent

PyTree = Any


class Policy(NamedTuple):
    """What acts: `first(params, observation, key) -> memory` and `next(params, observation, memory) -> memory`, whose
    `memory.actions` `[≥ every, A]` in [-1, 1] are taken one after the other. `params(latent)`: with a goal."""

    first: Callable[[PyTree, jax.Array, jax.Array], Any]
    next: Callable[[PyTree, jax.Array, Any], Any]
    params: Callable[[Any], PyTree]
    every: int


class Outcome(NamedTuple):
    """N episodes of T steps: the states `[N, T+1, ...]` gone through, and whether each was at the goal, `[N, T+1]`."""

    states: PyTree
    success: np.ndarray
    seconds: float


class _Random(NamedTuple):
    actions: jax.Array
    key: jax.Array


def planning(agent: GoalAgent) -> Policy:
    """The agent's plans."""
    return Policy(agent.pursuer.first, agent.pursuer.next, agent._parameters, agent.pursuer.every)


def reacting(agent: GoalAgent) -> Policy:
    """What the agent's actor does, without planning."""
    return Policy(agent.pursuer.start, agent.pursuer.react, agent._parameters, agent.pursuer.every)


def random(agent: GoalAgent) -> Policy:
    """Uniformly random actions, each drawn anew."""
    size, every = int(np.prod(agent.action_space.shape)), agent.settings.every

    def draw(key: jax.Array) -> _Random:
        key, use = jax.random.split(key)
        return _Random(jax.random.uniform(use, (every, size), minval=-1.0), key)

    def params(latent: Any) -> PyTree:
        return {"model": agent.training.params, "goal": latent}

    return Policy(lambda params, seen, key: draw(key), lambda params, seen, memory: draw(memory.key), params, every)


def play(
    world: World,
    agent: GoalAgent,
    policy: Policy,
    starts: PyTree,
    budget: int,
    *,
    seed: int = 0,
    at_once: int = 20,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Play episodes to the end of their budget.

    Args:
        world: What is acted in.
        agent: Whose encoder sees the goal.
        policy: What acts.
        starts: States `[N, ...]`.
        budget: Steps T.
        seed: Of policies and of the world's randomness.
        at_once: Episodes in one call: as many as the processor's caches hold plans of.
        tell: Is told how far it is.
    """
    count = len(jax.tree.leaves(starts)[0])
    at_once = min(at_once, count)
    program = jax.jit(jax.vmap(partial(_episode, world, agent, policy, budget), in_axes=(None, 0, 0)))
    parameters = policy.params(None)
    keys = jax.random.split(jax.random.key(seed), count)
    begun, parts = time.perf_counter(), []
    for begin in range(0, count, at_once):
        rows = np.minimum(np.arange(begin, begin + at_once), count - 1)  # the last call repeats its last episode
        made = program(parameters, jax.tree.map(lambda x, rows=rows: x[rows], starts), keys[rows])
        kept = slice(0, count - begin)
        parts.append(jax.tree.map(lambda x, kept=kept: np.asarray(x)[kept], made))
        done = sum(part[1][:, -1].sum() for part in parts)
        tell(f"    {begin + len(parts[-1][1])} of {count} episodes, {done} successful")
    states, success = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return Outcome(states, success, time.perf_counter() - begun)


def _episode(world: World, agent: GoalAgent, policy: Policy, budget: int, params: PyTree, start: PyTree, key: jax.Array):
    task = world.task
    low, high = map(jnp.asarray, task.actions)
    assert task.goal is not None
    begin, moving = jax.random.split(key)
    params = params | {"goal": agent.model.encode(params["model"], task.goal(start)).latent}
    memory = policy.first(params, task.observe(start), begin)

    def move(state: PyTree, given: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
        action, key = given
        following = task.step(task.params, state, low + 0.5 * (action + 1.0) * (high - low), key)
        return following, following

    def decide(carry: tuple[PyTree, Any], keys: jax.Array) -> tuple[tuple[PyTree, Any], PyTree]:
        state, memory = carry
        state, path = jax.lax.scan(move, state, (memory.actions[: policy.every], keys))
        return (state, policy.next(params, task.observe(state), memory)), path

    decisions = -(-budget // policy.every)
    keys = jax.random.split(moving, (decisions, policy.every))
    _, path = jax.lax.scan(decide, (start, memory), keys)
    path = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:budget], path)
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, path)
    return states, jax.vmap(task.success)(states)


def replan_times(
    world: World, agent: GoalAgent, policies: dict[str, Policy], starts: PyTree, repeats: int = 60
) -> dict[str, dict[str, float]]:
    """Milliseconds of a plan in a single episode, encoding included, compilation apart.

    Policies plan in turns, so that whatever else the machine does at the time slows all of them alike.

    Args:
        world: Where.
        agent: Whose encoder sees the goal.
        policies: What plans, by name.
        starts: States `[N, ...]`, of which the first is planned from.
        repeats: Plans of each to time.

    Returns:
        For each name, `first`: of an episode's first plan; `mean`, `p50`, `p95`, `p99`: of all later ones.
    """
    task = world.task
    assert task.goal is not None
    state = jax.tree.map(lambda x: x[0], starts)
    seen, goal = np.asarray(jax.jit(task.observe)(state)), np.asarray(jax.jit(task.goal)(state))
    replans, opening, times = {}, {}, {name: [] for name in policies}
    wanted = agent.encode(agent.training.params, goal).latent
    for name, policy in policies.items():
        params = policy.params(wanted)
        first = partial(jax.jit(policy.first), params, seen, jax.random.key(0))
        replans[name] = partial(jax.jit(policy.next), params, seen)
        memory, _ = timed(first)
        timed(replans[name], memory)
        opening[name] = timed(first)
    underway = {name: memory for name, (memory, _) in opening.items()}
    for _ in range(repeats):
        for name, replan in replans.items():
            underway[name], seconds = timed(replan, underway[name])
            times[name].append(seconds)
    marks = {name: {f"p{q}": np.percentile(each, q) for q in (50, 95, 99)} for name, each in times.items()}
    every = {name: {"first": opening[name][1], "mean": np.mean(each)} | marks[name] for name, each in times.items()}
    return {name: {mark: round(1e3 * float(value), 3) for mark, value in found.items()} for name, found in every.items()}


def timed(program: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """What a compiled program gives, and the seconds that it takes."""
    begun = time.perf_counter()
    found = jax.block_until_ready(program(*given))
    return found, time.perf_counter() - begun
