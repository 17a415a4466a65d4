"""One planner after another: the first finds a basin, the second its bottom (CEM then gradient, gradient then iLQR, …)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, Status, conclude, rank_key, resume, shifted, tree_where
from mpc.planners.candidates import checked, finite

PyTree = Any


class ChainState(NamedTuple):
    """The states of both planners, how many `steps` were made, and the key that the second will begin with.

    `candidate`: actions `[H, ...]` for the second planner where it is about to begin, and they are `pending`.
    """

    first: Any
    second: Any
    steps: jax.Array
    key: jax.Array
    cost: jax.Array
    optimality: jax.Array
    candidate: jax.Array
    pending: jax.Array

    def resume(self) -> "ChainState":
        """Both planners' states, for another solve."""
        first, second = resume(self.first), resume(self.second)
        return self._replace(first=first, second=second, cost=jnp.full_like(self.cost, jnp.inf))


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
    own = _Chain(first, second, switch_after)
    return Planner(own.init, own.step, own.plan, own.shift, own.inject, first.problem)


@dataclass(frozen=True, eq=False)
class _Chain:
    first: Planner
    second: Planner
    switch_after: int

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> ChainState:
        now, later = jax.random.split(key)
        begun, waiting = self.first.init(params, state, now, guess), self.second.init(params, state, later, guess)
        infinite, problem = jnp.full_like(waiting.optimality, jnp.inf), self.first.problem
        nothing = problem.action_space.decide(jnp.zeros((problem.horizon, problem.action_space.size)))
        return ChainState(begun, waiting, jnp.asarray(0), later, begun.cost, infinite, nothing, jnp.asarray(False))

    def _search(self, params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        return planner_state._replace(first=self.first.step(params, state, planner_state.first))

    def _hand_over(self, params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        found = self.first.plan(params, state, planner_state.first).actions
        begun = self.second.init(params, state, planner_state.key, found)
        contested = self.second.inject(begun, planner_state.candidate)
        begun = tree_where(planner_state.pending, contested, begun)
        settled = planner_state._replace(second=begun, pending=jnp.zeros_like(planner_state.pending))
        return self._refine(params, state, settled)

    def _refine(self, params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        return planner_state._replace(second=self.second.step(params, state, planner_state.second))

    def step(self, params: PyTree, state: PyTree, planner_state: ChainState) -> ChainState:
        phase = jnp.clip(planner_state.steps - self.switch_after + 1, 0, 2)
        phases = (self._search, self._hand_over, self._refine)
        planner_state = jax.lax.switch(phase, phases, params, state, planner_state)
        cost = jnp.where(phase == 0, planner_state.first.cost, planner_state.second.cost)
        optimality = jnp.where(phase == 0, jnp.inf, planner_state.second.optimality)
        return planner_state._replace(steps=planner_state.steps + 1, cost=cost, optimality=optimality)

    def plan(self, params: PyTree, state: PyTree, planner_state: ChainState) -> Plan:
        one = self.first.plan(params, state, planner_state.first)
        two = self.second.plan(params, state, planner_state.second)
        (grade_1, merit_1), (grade_2, merit_2) = rank_key(one), rank_key(two)
        no_worse = (grade_2 < grade_1) | ((grade_2 == grade_1) & (merit_2 <= merit_1))
        later = (planner_state.steps > self.switch_after) & no_worse
        actions = jnp.where(later, two.actions, one.actions)
        ok = jnp.where(later, two.status, one.status) != Status.NOT_FINITE
        info = {"optimality": planner_state.optimality, "from_second": later}
        if self.first.problem.constraints:
            info["infeasibility"] = jnp.where(later, *(plan.info["infeasibility"] for plan in (two, one)))
        return conclude(self.first.problem, params, state, actions, ok, info)

    def shift(self, planner_state: ChainState) -> ChainState:
        infinite = jnp.full_like(planner_state.cost, jnp.inf)
        return planner_state._replace(
            first=self.first.shift(planner_state.first),
            second=self.second.shift(planner_state.second),
            cost=infinite,
            optimality=infinite,
            candidate=shifted(planner_state.candidate),
        )

    def inject(self, planner_state: ChainState, actions: jax.Array) -> ChainState:
        """Into the planner that is at work; at the switch, the second has yet to begin, and the chain keeps it so long."""
        actions, left = checked(self.first.problem, actions), planner_state.steps - self.switch_after
        taken = finite(actions)

        def active(now: jax.Array, planner: Planner, own: Any) -> Any:
            return tree_where(now, planner.inject(own, actions), own)

        return planner_state._replace(
            first=active(left < 0, self.first, planner_state.first),
            second=active(left > 0, self.second, planner_state.second),
            candidate=jnp.where(taken, actions.astype(planner_state.candidate.dtype), planner_state.candidate),
            pending=planner_state.pending | (taken & (left == 0)),
        )
