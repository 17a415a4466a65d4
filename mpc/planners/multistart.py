"""Many starts around any single-start planner: an energy has many basins, and one descent ends in one of them.

The starts are the leading axis of the planner's state and improve in one compiled program. The state of a planner with a
single start is a NamedTuple with

| | |
|---|---|
| `cost`, `optimality` | scalars, as in every planner's state; starts are ranked by `cost` (best so far, `inf` if unknown) |
| `reset_to(variables)` | a method: the state that begins anew from variables `[H, V]`, their cost unknown |
| `pending` | optional: whether the start solves another problem first; no solve ends while one does |
| `hold()` | optional method, see `mpc.planners.candidates.hold` |
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.constraints import exact_share
from mpc.planners.base import Plan, Planner, Status, best_of, conclude, resume, smoothing, tree_where
from mpc.planners.candidates import checked, finite, hold
from mpc.problem import Problem
from mpc.rollout import energy

PyTree = Any

SLIGHT = 1e-5
"""Share of its cost by which a plan that keeps constraints only loosely must be the cheaper one."""


class MultistartState(NamedTuple):
    """The states of S starts side by side, `[S, ...]`, and the `cost` and `optimality` of the best of them."""

    starts: PyTree
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array

    def resume(self) -> "MultistartState":
        """All starts, for another solve."""
        return self._replace(starts=resume(self.starts), cost=jnp.full_like(self.cost, jnp.inf))


def multistart(
    single: Planner,
    *,
    starts: int,
    spread: float = 0.3,
    narrowest: float = 1.0,
    screen: tuple[int, int] | None = None,
    together: bool = True,
) -> Planner:
    """Run a planner from many starts at once, and plan by the best basin found.

    The first start is the guess, where one is given; the others are smoothed noise. None is the middle of the space
    throughout, which may be a saddle, as a pendulum's that hangs, but the plan is where that is cheaper. Between decisions
    the better half of the starts is kept, one time step later, and the other half drawn afresh.

    Args:
        single: A planner with one start, whose state has `cost`, `optimality` and `reset_to` (see above).
        starts: Number of starts S.
        spread: Standard deviation of the noise, in variables, which span `[-1, 1]`.
        narrowest: Share of the spread down to which that of the starts falls in even ratios, from the first to the last,
            before the first decision: some problems want starts far from rest, others starts close to it.
        screen: `(candidates, steps)`: draw so many starts to begin with, spend so many steps on each, and go on with
            the best S of them; None goes on with all. Screening is worth its steps where most starts are hopeless.
        together: Whether starts improve side by side, by `vmap`, or one after the other: on a CPU, small loops without a
            batch axis are several times quicker, and one start need not wait for another's line search.

    Returns:
        The planner. `plan.info["start_costs"]`, `[S]`, is the cost of the plan of each start, discrete actions scored as
        executed.

    Raises:
        ValueError: If `starts` is less than 1, `spread` is negative, or there are fewer candidates than starts.
    """
    candidates, screening = (starts, 0) if screen is None else screen
    if starts < 1:
        raise ValueError(f"starts must be at least 1; got {starts}")
    if spread < 0 or not 0 < narrowest <= 1:
        raise ValueError(f"spread must not be negative, and narrowest in (0, 1]; got {spread} and {narrowest}")
    if candidates < starts or screening < 0:
        raise ValueError(f"screen must be (candidates >= starts, steps >= 0); got {screen} for {starts} starts")
    if candidates == 1:  # nothing to stand side by side
        alone = _Alone(single, spread)
        return Planner(alone.init, single.step, alone.plan, single.shift, single.inject, single.problem)
    widths = spread * narrowest ** np.linspace(0.0, 1.0, candidates)
    own = _Multistart(single, starts, spread, widths, candidates, screening, together)
    return Planner(own.init, own.step, own.plan, own.shift, own.inject, single.problem)


def noise(problem: Problem, spread: np.ndarray | float, key: jax.Array, count: int) -> jax.Array:
    """Smoothed noise `[count, H, V]` to start from, in variables; `spread` is one for all, or `[count]`."""
    space, horizon = problem.action_space, problem.horizon
    white = jax.random.normal(key, (count, horizon, space.size), jnp.float32).astype(float)  # the same in every precision
    widths = jnp.asarray(spread, white.dtype).reshape(-1, 1, 1)
    return space.project(widths * jnp.einsum("th,shv->stv", smoothing(horizon).astype(white.dtype), white))


def middle(problem: Problem) -> jax.Array:
    """The variables `[H, V]` of the middle of the space throughout."""
    return jnp.zeros((problem.horizon, problem.action_space.size))


@dataclass(frozen=True, eq=False)
class _Alone:
    """A single start, which begins in noise where there is no guess."""

    single: Planner
    spread: float

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> PyTree:
        draw, own = jax.random.split(key)
        start = self.single.init(params, state, own, guess)
        return start if guess is not None else start.reset_to(noise(self.single.problem, self.spread, draw, 1)[0])

    def plan(self, params: PyTree, state: PyTree, planner_state: PyTree) -> Plan:
        plan = _no_dearer_than_rest(self.single, params, state, planner_state)
        return plan._replace(info=plan.info | {"start_costs": plan.cost[None]})


@dataclass(frozen=True, eq=False)
class _Multistart:
    """Several starts, with the settings of `multistart`."""

    single: Planner
    starts: int
    spread: float
    widths: np.ndarray
    candidates: int
    screening: int
    together: bool

    def _every(self, function: Callable[[PyTree], PyTree], starts: PyTree) -> PyTree:
        return jax.vmap(function)(starts) if self.together else jax.lax.map(function, starts)

    def _costs_tell(self) -> bool:
        """Tell whether a start's `cost` is that of executed actions, without penalties."""
        return self.single.problem.action_space.exact and not self.single.problem.constraints

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> MultistartState:
        key, draw, own = jax.random.split(key, 3)
        begun = jax.vmap(lambda k: self.single.init(params, state, k, guess))(jax.random.split(own, self.candidates))
        drawn = noise(self.single.problem, self.widths, draw, self.candidates)
        starts = jax.vmap(lambda start, variables: start.reset_to(variables))(begun, drawn)
        if guess is not None:
            starts = jax.tree.map(lambda first, rest: jnp.concatenate([first[:1], rest[1:]]), begun, starts)
        if self.candidates > self.starts:
            improve = partial(self._every, partial(self.single.step, params, state))
            starts = jax.lax.fori_loop(0, self.screening, lambda _, starts: improve(starts), starts)
            starts = _take(starts, jnp.argsort(starts.cost)[: self.starts])
        return _summary(starts, key)

    def step(self, params: PyTree, state: PyTree, planner_state: MultistartState) -> MultistartState:
        return _summary(self._every(partial(self.single.step, params, state), planner_state.starts), planner_state.key)

    def plan(self, params: PyTree, state: PyTree, planner_state: MultistartState) -> Plan:
        costs = planner_state.starts.cost
        if self._costs_tell():
            leader = _take(planner_state.starts, _leader(costs))
            chosen = _no_dearer_than_rest(self.single, params, state, leader)
        else:
            plans = self._every(partial(self.single.plan, params, state), planner_state.starts)
            costs = jnp.where(plans.status == Status.NOT_FINITE, jnp.inf, plans.cost)
            chosen = best_of(plans, _loose(plans))
        return chosen._replace(info=chosen.info | {"start_costs": costs})

    def shift(self, planner_state: MultistartState) -> MultistartState:
        key, draw = jax.random.split(planner_state.key)
        old = jax.vmap(self.single.shift)(_take(planner_state.starts, jnp.argsort(planner_state.starts.cost)))
        drawn, kept = noise(self.single.problem, self.spread, draw, self.starts), self.starts // 2 + 1
        fresh = jax.vmap(lambda start, variables: start.reset_to(variables))(old, drawn)
        mixed = jax.tree.map(lambda old, new: jnp.concatenate([old[:kept], new[kept:]]), old, fresh)
        return _summary(mixed, key)

    def inject(self, planner_state: MultistartState, actions: jax.Array) -> MultistartState:
        """The candidate replaces the costliest start, or where costs do not tell, competes with the plan of the last."""
        problem, starts = self.single.problem, planner_state.starts
        actions, space = checked(problem, actions), problem.action_space
        if self.starts == 1 or not self._costs_tell():
            place = jnp.asarray(self.starts - 1)
            begun = self.single.inject(_take(starts, place), actions)
        else:
            leader = _leader(starts.cost)
            starts = _put(starts, leader, hold(_take(starts, leader)))
            place = self.starts - 1 - jnp.argmax(jnp.where(jnp.isnan(starts.cost), jnp.inf, starts.cost)[::-1])
            old = _take(starts, place)
            new = old.reset_to(space.project(space.encode(actions)))
            begun = tree_where(finite(actions), new, old)
        return _summary(_put(starts, place, begun), planner_state.key)


def _no_dearer_than_rest(single: Planner, params: PyTree, state: PyTree, planner_state: PyTree) -> Plan:
    """The plan of a start, or the middle of the space throughout where that is cheaper."""
    problem = single.problem
    space = problem.action_space
    if single.best_actions is None:  # constraints, of which the planner compares as many itself
        return single.plan(params, state, planner_state)
    actions, found, info = single.best_actions(params, state, planner_state)
    rivals = jnp.stack([actions, space.bind(params).decide(middle(problem)).astype(actions.dtype)])
    own, rest = jax.lax.map(lambda actions: energy(problem, params, state, space.embed(actions)), rivals)
    better = jnp.isfinite(rest) & ~(own <= rest)
    return conclude(problem, params, state, jnp.where(better, rivals[1], actions), found | better, info)


def _loose(plans: Plan) -> jax.Array:
    """The costs by which plans are dearer that keep constraints but loosely, `[S]`: they gain by what they violate."""
    far = plans.info.get("infeasibility", jnp.zeros_like(plans.cost))
    return jnp.where(far > exact_share(far.dtype), SLIGHT * jnp.abs(plans.cost), 0.0)


def _leader(costs: jax.Array) -> jax.Array:
    return jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))


def _take(starts: PyTree, which: jax.Array) -> PyTree:
    return jax.tree.map(lambda x: x[which], starts)


def _put(starts: PyTree, place: jax.Array, start: PyTree) -> PyTree:
    return jax.tree.map(lambda every, one: every.at[place].set(one), starts, start)


def _summary(starts: PyTree, key: jax.Array) -> MultistartState:
    leader = _leader(starts.cost)
    waiting = jnp.any(getattr(starts, "pending", False))
    optimality = jnp.where(waiting, jnp.inf, starts.optimality[leader]).astype(starts.optimality.dtype)
    return MultistartState(starts, starts.cost[leader], optimality, key)


def side_by_side(planner_state: PyTree) -> PyTree:
    """The states of all starts of a planner, `[S, ...]`, also where S is 1."""
    return (
        planner_state.starts
        if isinstance(planner_state, MultistartState)
        else jax.tree.map(lambda x: x[None], planner_state)
    )
