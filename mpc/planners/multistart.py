"""Many starts around any single-start planner: an energy has many basins, and one descent ends in one of them.

The starts are the leading axis of the planner's memory and improve in one compiled program. A planner that is to be started
many times keeps a memory (a NamedTuple) with

| | |
|---|---|
| `cost`, `optimality` | scalars, as every planner's; starts are ranked by `cost` (best so far, `inf` where there is none) |
| `reset_to(variables)` | a method: this memory, beginning anew from variables `[H, V]` and knowing nothing about their
cost |
| `pending` | where there is one: whether the start works on something else first; no solve ends while one does |
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, Status, best_of, smoothing

PyTree = Any


class MultistartState(NamedTuple):
    """The memories of S starts side by side, `[S, ...]`, and the `cost` and `optimality` of the best among them."""

    starts: PyTree
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array


def multistart(
    single: Planner, *, starts: int, spread: float = 0.3, screen: tuple[int, int] | None = None, together: bool = True
) -> Planner:
    """Run a planner from many starts at once, and plan by the best basin found.

    The first start is the guess, where one is given; the others are smoothed noise. Between decisions the better half of
    the starts is kept, one time step later, and the other half drawn afresh.

    Args:
        single: A planner with one start, whose memory has `cost`, `optimality` and `reset_to` (see above).
        starts: Number of starts S.
        spread: Standard deviation of the noise, in variables, which span `[-1, 1]`.
        screen: `(candidates, steps)`: draw so many starts to begin with, spend so many steps on each, and go on with
            the best S of them; None goes on with all. Screening is worth its steps where most starts are hopeless.
        together: Whether starts improve side by side, by `vmap`, or one after the other: on a CPU, small loops without a
            batch axis are several times quicker, and one start need not wait for another's line search.

    Returns:
        The planner. `plan.info["start_costs"]`, `[S]`, is what each start came to, where discrete actions are scored as
        executed.

    Raises:
        ValueError: If `starts` is less than 1, `spread` is negative, or there are fewer candidates than starts.
    """
    candidates, screening = (starts, 0) if screen is None else screen
    if starts < 1:
        raise ValueError(f"starts must be at least 1; got {starts}")
    if spread < 0:
        raise ValueError(f"spread must not be negative; got {spread}")
    if candidates < starts or screening < 0:
        raise ValueError(f"screen must be (candidates >= starts, steps >= 0); got {screen} for {starts} starts")
    problem = single.problem
    space, horizon = problem.action_space, problem.horizon
    kept = starts // 2 + 1

    def noise(key: jax.Array, count: int) -> jax.Array:
        white = jax.random.normal(key, (count, horizon, space.size))
        return space.project(spread * jnp.einsum("th,shv->stv", smoothing(horizon).astype(white.dtype), white))

    def init(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> MultistartState:
        key, draw, own = jax.random.split(key, 3)
        begun = jax.vmap(lambda k: single.init(params, state, k, guess))(jax.random.split(own, candidates))
        planner_state = jax.vmap(lambda m, v: m.reset_to(v))(begun, noise(draw, candidates))
        if guess is not None:
            planner_state = jax.tree.map(lambda first, rest: jnp.concatenate([first[:1], rest[1:]]), begun, planner_state)
        if candidates > starts:
            planner_state = jax.lax.fori_loop(0, screening, lambda _, m: improve(params, state, m), planner_state)
            planner_state = _take(planner_state, jnp.argsort(planner_state.cost)[:starts])
        return _summary(planner_state, key)

    def every(function: Callable[[PyTree], PyTree], planner_state: PyTree) -> PyTree:
        return jax.vmap(function)(planner_state) if together else jax.lax.map(function, planner_state)

    def improve(params: PyTree, state: PyTree, planner_state: PyTree) -> PyTree:
        return every(partial(single.step, params, state), planner_state)

    def step(params: PyTree, state: PyTree, planner_state: MultistartState) -> MultistartState:
        return _summary(improve(params, state, planner_state.starts), planner_state.key)

    def plan(params: PyTree, state: PyTree, planner_state: MultistartState) -> Plan:
        costs = planner_state.starts.cost
        if space.exact and not problem.constraints:
            chosen_plan = single.plan(params, state, _take(planner_state.starts, _leader(costs)))
        else:  # what is executed is scored, not its relaxation, nor an energy with penalties
            plans = every(partial(single.plan, params, state), planner_state.starts)
            costs = jnp.where(plans.status == Status.NOT_FINITE, jnp.inf, plans.cost)
            chosen_plan = best_of(plans)
        return chosen_plan._replace(info=chosen_plan.info | {"start_costs": costs})

    def shift(planner_state: MultistartState) -> MultistartState:
        key, draw = jax.random.split(planner_state.key)
        later = jax.vmap(single.shift)(_take(planner_state.starts, jnp.argsort(planner_state.starts.cost)))
        fresh = jax.vmap(lambda m, v: m.reset_to(v))(later, noise(draw, starts))
        mixed = jax.tree.map(lambda old, new: jnp.concatenate([old[:kept], new[kept:]]), later, fresh)
        return _summary(mixed, key)

    def _alone(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> PyTree:
        draw, own = jax.random.split(key)
        planner_state = single.init(params, state, own, guess)
        return planner_state if guess is not None else planner_state.reset_to(noise(draw, 1)[0])

    def _plan_alone(params: PyTree, state: PyTree, planner_state: PyTree) -> Plan:
        plan = single.plan(params, state, planner_state)
        return plan._replace(info=plan.info | {"start_costs": plan.cost[None]})

    if candidates == 1:  # nothing to stand side by side
        return Planner(_alone, single.step, _plan_alone, single.shift, problem)
    return Planner(init, step, plan, shift, problem)


def _leader(costs: jax.Array) -> jax.Array:
    return jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))


def _take(planner_state: PyTree, starts: jax.Array) -> PyTree:
    return jax.tree.map(lambda x: x[starts], planner_state)


def _summary(starts: PyTree, key: jax.Array) -> MultistartState:
    leader = _leader(starts.cost)
    waiting = jnp.any(getattr(starts, "pending", False))
    optimality = jnp.where(waiting, jnp.inf, starts.optimality[leader]).astype(starts.optimality.dtype)
    return MultistartState(starts, starts.cost[leader], optimality, key)


def side_by_side(planner_state: PyTree) -> PyTree:
    """The memories of all starts of a planner, `[S, ...]`, also where S is 1."""
    return (
        planner_state.starts
        if isinstance(planner_state, MultistartState)
        else jax.tree.map(lambda x: x[None], planner_state)
    )


def propose(planner_state: PyTree, variables: jax.Array) -> PyTree:
    """Let a decision's last start be a proposal from elsewhere, for example an actor's, in place of noise.

    Args:
        memory: Of a planner with many starts, as `init` or `shift` left it.
        variables: `[H, V]`, within the space's bounds.
    """
    if not isinstance(planner_state, MultistartState):
        return planner_state.reset_to(variables)
    last = _take(planner_state.starts, jnp.asarray(-1)).reset_to(variables)
    return planner_state._replace(starts=jax.tree.map(lambda every, new: every.at[-1].set(new), planner_state.starts, last))
