"""One planner after another: the first finds a basin, the second its bottom (CEM then gradient, gradient then iLQR, …)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, Status, conclude, rank_key

PyTree = Any


class ChainState(NamedTuple):
    """Both planners' memories, how many `steps` were made, and the key that the second will begin with."""

    first: Any
    second: Any
    steps: jax.Array
    key: jax.Array
    cost: jax.Array
    optimality: jax.Array


def chain(first: Planner, second: Planner, *, switch_after: int) -> Planner:
    """Plan with one planner for some steps, and from there on with another, which begins where the first ended.

    The plan is the better of both. A chain is a planner: chains of chains are, too.

    Args:
        first: Searches widely, for example `mpc.cem(problem)`.
        second: Improves on what the first has found, for example `mpc.gradient(problem, starts=1)`; of the same problem.
        switch_after: Steps of the first planner. They are counted over all decisions of a control loop: once the second has
            taken over, it goes on from its own warm starts.

    Raises:
        ValueError: If the planners are of different problems, or `switch_after` is less than 1.
    """
    if first.problem is not second.problem:
        raise ValueError("chain needs two planners built from one Problem object; these were built from two")
    if isinstance(switch_after, bool) or not isinstance(switch_after, int) or switch_after < 1:
        raise ValueError(f"switch_after must be a whole number of steps, at least 1; got {switch_after!r}")
    problem = first.problem

    def init(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> ChainState:
        now, later = jax.random.split(key)
        begun, waiting = first.init(params, state, now, guess), second.init(params, state, later, guess)
        return ChainState(begun, waiting, jnp.asarray(0), later, begun.cost, jnp.full_like(waiting.optimality, jnp.inf))

    def search(params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        return planner_state._replace(first=first.step(params, state, planner_state.first))

    def hand_over(params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        found = first.plan(params, state, planner_state.first).actions
        return refine(params, state, planner_state._replace(second=second.init(params, state, planner_state.key, found)))

    def refine(params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        return planner_state._replace(second=second.step(params, state, planner_state.second))

    def step(params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        phase = jnp.clip(planner_state.steps - switch_after + 1, 0, 2)
        planner_state = jax.lax.switch(phase, (search, hand_over, refine), params, state, planner_state)
        cost = jnp.where(phase == 0, planner_state.first.cost, planner_state.second.cost)
        optimality = jnp.where(phase == 0, jnp.inf, planner_state.second.optimality)
        return planner_state._replace(steps=planner_state.steps + 1, cost=cost, optimality=optimality)

    def plan(params: PyTree, state: PyTree, planner_state: ChainState) -> Plan:
        plans = [p.plan(params, state, m) for p, m in ((first, planner_state.first), (second, planner_state.second))]
        (grade_1, merit_1), (grade_2, merit_2) = map(rank_key, plans)
        later = (planner_state.steps > switch_after) & ((grade_2 < grade_1) | ((grade_2 == grade_1) & (merit_2 <= merit_1)))
        actions = jnp.where(later, plans[1].actions, plans[0].actions)
        ok = jnp.where(later, plans[1].status, plans[0].status) != Status.NOT_FINITE
        info = {"optimality": planner_state.optimality, "from_second": later}
        return conclude(problem, params, state, actions, ok, info)

    def shift(planner_state: ChainState) -> ChainState:
        infinite = jnp.full_like(planner_state.cost, jnp.inf)
        shifted = first.shift(planner_state.first), second.shift(planner_state.second)
        return ChainState(*shifted, planner_state.steps, planner_state.key, infinite, infinite)

    return Planner(init, step, plan, shift, problem)
