"""What every planner is: a value made of four pure functions; and `solve`, the one driver of them all."""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.problem import Problem
from mpc.rollout import costates, rollout

PyTree = Any


class Status(IntEnum):
    """Why a solve ended."""

    ITERATIONS = 0  # all iterations were spent
    CONVERGED = 1  # the optimality measure fell below the tolerance
    NOT_FINITE = 2  # no candidate had a finite cost: the actions are safe, but mean nothing


class Plan(NamedTuple):
    """What to do and what is expected to come of it.

    `actions`: `[H, ...]` actions of the space, exactly in bounds. `states`: `[H+1, ...]` the future imagined for them.
    `cost`: their energy; `costs`: its named terms. `status`: a `Status`. `info`: what else is worth looking at.
    """

    actions: jax.Array
    states: PyTree
    cost: jax.Array
    costs: dict[str, jax.Array]
    status: jax.Array
    info: dict[str, Any]


class Planner(NamedTuple):
    """An algorithm as a value: four pure functions over its own state.

    `init(params, state, key, guess) -> memory`: begin; `guess` is a plan's actions `[H, ...]` or None.
    `step(params, state, memory) -> memory`: one improvement. The memory carries `cost` (best so far) and `optimality`
    (a scalar that tends to 0), so every planner is anytime.
    `plan(params, state, memory) -> Plan`: the best found.
    `shift(memory) -> memory`: one time step later; the warm start of the next decision.
    """

    init: Callable[..., Any]
    step: Callable[[PyTree, PyTree, Any], Any]
    plan: Callable[[PyTree, PyTree, Any], Plan]
    shift: Callable[[Any], Any]
    problem: Problem


def smoothing(horizon: int, memory: float = 0.8) -> np.ndarray:
    """The matrix `[H, H]` that turns white noise n into `w[t] = ρ w[t-1] + sqrt(1 - ρ²) n[t]`, for ρ = `memory`."""
    lag = np.arange(horizon)[:, None] - np.arange(horizon)[None]
    return np.where(lag >= 0, np.sqrt(1 - memory**2) * memory ** np.maximum(lag, 0), 0.0)


def conclude(
    problem: Problem, params: PyTree, state: PyTree, actions: jax.Array, ok: jax.Array, info: dict[str, Any]
) -> Plan:
    """Imagine what the chosen actions `[H, ...]` lead to, and make a plan of it.

    Args:
        problem: The problem that was searched.
        params: Its parameters.
        state: Where to start.
        actions: As executed, in bounds.
        ok: Whether the search found any finite cost.
        info: What the planner wants to show; the costates `λ[t]`, `[H+1, ...]`, are added.
    """
    shown = problem.action_space.embed(actions)
    future = rollout(problem, params, state, shown)
    status = jnp.where(ok & jnp.isfinite(future.energy), Status.ITERATIONS, Status.NOT_FINITE)
    info = info | {"costates": costates(problem, params, state, shown)}
    return Plan(actions, future.states, future.energy, future.costs, status, info)


@partial(jax.jit, static_argnames=("planner", "iterations", "tolerance"))
def solve(
    planner: Planner,
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    iterations: int = 100,
    *,
    guess: jax.Array | None = None,
    tolerance: float | None = None,
) -> Plan:
    """Plan from scratch, as one compiled program.

    Args:
        planner: Any planner; compiled once per planner value, so build it once and keep it.
        params: Parameters of the problem's functions.
        state: Where to start.
        key: Randomness; the same key gives the same plan.
        iterations: Improvements to make, at most.
        guess: Actions `[H, ...]` to begin with, if there are any.
        tolerance: Stop once the planner's optimality measure is at most this; None spends every iteration.

    Returns:
        The plan. It is finite and in bounds whatever the model returned; `plan.status` says how it came about.

    Raises:
        ValueError: If the problem's functions do not fit the state (see `Problem.check`), or iterations < 0.
    """
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0; got {iterations}")
    planner.problem.check(params, state)
    state = planner.problem.lifted(params, state)
    memory = planner.init(params, state, key, guess)
    if tolerance is None:
        memory = jax.lax.fori_loop(0, iterations, lambda _, m: planner.step(params, state, m), memory)
        plan = planner.plan(params, state, memory)
        return plan._replace(info=plan.info | {"iterations": jnp.asarray(iterations)})

    def unfinished(carry):
        count, memory = carry
        return (count < iterations) & ((count == 0) | ~(memory.optimality <= tolerance))

    def improve(carry):
        count, memory = carry
        return count + 1, planner.step(params, state, memory)

    count, memory = jax.lax.while_loop(unfinished, improve, (jnp.asarray(0), memory))
    plan = planner.plan(params, state, memory)
    converged = (plan.status == Status.ITERATIONS) & (count > 0) & (memory.optimality <= tolerance)
    status = jnp.where(converged, Status.CONVERGED, plan.status)
    return plan._replace(status=status, info=plan.info | {"iterations": count})
