"""Whole episodes, many in one compiled program; a policy receives observations and the latent of the goal only."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pixels.worlds import World
from mpc.agent import Agent

PyTree = Any


class BlockPolicy(NamedTuple):
    """A policy that decides on the next `every` actions at once.

    `begin(params, observation, key) -> (state, actions)`: the first decision of an episode; `decide(params, observation,
    state) -> (state, actions)`: a later one. Actions `[every, A]` lie in [-1, 1], the bounds of the Gymnasium environment.
    `params`: the agent's; the goal of an episode takes the place of `params["cost"]["goal"]`.
    """

    begin: Callable[[PyTree, jax.Array, jax.Array], tuple[Any, jax.Array]]
    decide: Callable[[PyTree, jax.Array, Any], tuple[Any, jax.Array]]
    params: PyTree
    every: int


class Outcome(NamedTuple):
    """N episodes of T steps: states `[N, T+1, ...]` and success flags `[N, T+1]`."""

    states: PyTree
    success: np.ndarray
    seconds: float


def planning(agent: Agent) -> BlockPolicy:
    """Returns the policy that executes the agent's plans (Mode 2); the first plan follows a wide search."""
    made = agent.program.made
    return _policy(agent, made.init, made.decide)


def reacting(agent: Agent) -> BlockPolicy:
    """Returns the policy of the agent's actor, without planning (Mode 1).

    Raises:
        ValueError: If the agent has no actor.
    """
    made = agent.program.made
    if made.react is None:
        raise ValueError("this agent has no actor to react with: distil makes one")
    return _policy(agent, partial(made.init, wide=False), made.react)


def _policy(agent: Agent, init: Callable[..., Any], step: Callable[..., Any]) -> BlockPolicy:
    every = agent.config.every

    def decide(params: PyTree, observation: jax.Array, state: Any) -> tuple[Any, jax.Array]:
        state = step(params, observation, state)
        return state, state.plan.actions[:every]

    def begin(params: PyTree, observation: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        return decide(params, observation, init(params, observation, key))

    return BlockPolicy(begin, decide, agent.params, every)


def random(agent: Agent) -> BlockPolicy:
    """Returns the policy of uniformly random actions."""
    shape = (agent.config.every, *agent.action_space.shape)  # type: ignore[misc]

    def draw(params: PyTree, observation: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, use = jax.random.split(key)
        return key, jax.random.uniform(use, shape, minval=-1.0)

    return BlockPolicy(draw, draw, agent.params, agent.config.every)


def play(
    world: World,
    agent: Agent,
    policy: BlockPolicy,
    starts: PyTree,
    budget: int,
    *,
    seed: int = 0,
    at_once: int = 20,
    log: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Runs episodes to the end of their budget.

    Args:
        world: World to act in.
        agent: Agent whose encoder maps the goal to a latent.
        policy: BlockPolicy to run.
        starts: Start states `[N, ...]`.
        budget: Steps T.
        seed: Seed of the policy and of the world.
        at_once: Episodes per call; limited by the plans that fit in the processor's caches.
        log: Callback for progress messages.
    """
    count = len(jax.tree.leaves(starts)[0])
    at_once = min(at_once, count)
    program = jax.jit(jax.vmap(partial(_episode, world, agent, policy, budget), in_axes=(None, 0, 0)))
    keys = jax.random.split(jax.random.key(seed), count)
    begun, parts = time.perf_counter(), []
    for begin in range(0, count, at_once):
        rows = np.minimum(np.arange(begin, begin + at_once), count - 1)  # the last call repeats its last episode
        made = program(policy.params, jax.tree.map(lambda x, rows=rows: x[rows], starts), keys[rows])
        kept = slice(0, count - begin)
        parts.append(jax.tree.map(lambda x, kept=kept: np.asarray(x)[kept], made))
        done = sum(part[1][:, -1].sum() for part in parts)
        log(f"    {begin + len(parts[-1][1])} of {count} episodes, {done} successful")
    states, success = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return Outcome(states, success, time.perf_counter() - begun)


def _episode(world: World, agent: Agent, policy: BlockPolicy, budget: int, params: PyTree, start: PyTree, key: jax.Array):
    task = world.task
    low, high = map(jnp.asarray, task.actions)
    assert task.goal is not None
    begin, moving = jax.random.split(key)
    params = with_goal(params, agent.model.encode(params["model"], task.goal(start)).latent)
    policy_state, actions = policy.begin(params, task.observe(start), begin)

    def move(state: PyTree, given: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
        action, key = given
        following = task.step(task.params, state, low + 0.5 * (action + 1.0) * (high - low), key)
        return following, following

    def decide(carry: tuple[PyTree, Any, jax.Array], keys: jax.Array) -> tuple[tuple[PyTree, Any, jax.Array], PyTree]:
        state, policy_state, actions = carry
        state, path = jax.lax.scan(move, state, (actions, keys))
        return (state, *policy.decide(params, task.observe(state), policy_state)), path

    decisions = -(-budget // policy.every)
    keys = jax.random.split(moving, (decisions, policy.every))
    _, path = jax.lax.scan(decide, (start, policy_state, actions), keys)
    path = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:budget], path)
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, path)
    return states, jax.vmap(task.success)(states)


def with_goal(params: PyTree, latent: jax.Array) -> PyTree:
    """Returns an agent's parameters with another goal, a latent `[D]`."""
    return params | {"cost": params["cost"] | {"goal": latent}}


def replan_times(
    world: World, agent: Agent, policies: dict[str, BlockPolicy], starts: PyTree, repeats: int = 60
) -> dict[str, dict[str, float]]:
    """Returns milliseconds per plan in a single episode, including encoding, without compilation.

    Policies take turns, so that other load of the machine affects all of them equally.

    Args:
        world: World to plan in.
        agent: Agent whose encoder maps the goal to a latent.
        policies: Policies by name.
        starts: States `[N, ...]`; plans start in the first one.
        repeats: Timed plans per policy.

    Returns:
        For each name, `first`: time of an episode's first plan, the wide search included; `mean`, `p50`, `p95`, `p99`:
        times of later plans.
    """
    task = world.task
    assert task.goal is not None
    state = jax.tree.map(lambda x: x[0], starts)
    seen, goal = np.asarray(jax.jit(task.observe)(state)), np.asarray(jax.jit(task.goal)(state))
    replans, opening, times = {}, {}, {name: [] for name in policies}
    wanted = agent.encode(goal)
    for name, policy in policies.items():
        params = with_goal(policy.params, wanted)
        first = partial(jax.jit(policy.begin), params, seen, jax.random.key(0))
        replans[name] = partial(jax.jit(policy.decide), params, seen)
        (policy_state, _), _ = timed(first)
        timed(replans[name], policy_state)
        opening[name] = timed(first)
    current = {name: policy_state for name, ((policy_state, _), _) in opening.items()}
    for _ in range(repeats):
        for name, replan in replans.items():
            (current[name], _), seconds = timed(replan, current[name])
            times[name].append(seconds)
    marks = {name: {f"p{q}": np.percentile(each, q) for q in (50, 95, 99)} for name, each in times.items()}
    every = {name: {"first": opening[name][1], "mean": np.mean(each)} | marks[name] for name, each in times.items()}
    return {name: {mark: round(1e3 * float(value), 3) for mark, value in found.items()} for name, found in every.items()}


def timed(program: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """Returns the result of a compiled program and its run time in seconds."""
    begun = time.perf_counter()
    result = jax.block_until_ready(program(*given))
    return result, time.perf_counter() - begun
