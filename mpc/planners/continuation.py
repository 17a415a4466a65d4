"""Continuation in the horizon: solve the first stretch of it alone, without the terminal cost, and then all of it.

A terminal cost that is far steeper than what leads there draws every start straight into the nearest basin it has. Without
it a plan first learns to move, over a stretch of `h < H` steps,

    minimise over u   Σ_{t<h} cost(params, s[t], u[t], t)     subject to the constraints for t = 1..h

and the whole problem, begun from there, ends in other basins and often in better ones (homotopy or continuation methods;
Allgower & Georg 1990). Stretches differ from start to start, for nobody knows which is best.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.constraints import Constraint
from mpc.planners.base import Planner, invalidate, plan_from_choice, resume, tree_where
from mpc.planners.candidates import finite, hold
from mpc.problem import Problem

PyTree = Any

SETTLED = 0.1  # the optimality at which a stretch is solved well enough
SHORTEST = 0.75  # share of the horizon


class TruncatedParams(NamedTuple):
    """Parameters of the problem over a stretch: the problem's own, and after how many steps it ends."""

    params: PyTree
    end: jax.Array


class ContinuationState(NamedTuple):
    """The state of the planner inside, the end of its first `stretch`, whether it works on that, and the steps `spent`.

    `stretch`: 0 where there is none. `cost`: of the whole problem; infinite while that is `pending`.
    """

    inner: Any
    stretch: jax.Array
    pending: jax.Array
    spent: jax.Array
    cost: jax.Array
    optimality: jax.Array

    def reset_to(self, variables: jax.Array) -> "ContinuationState":
        """Begin anew from variables `[H, V]`, on the stretch if there is one."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(
            inner=self.inner.reset_to(variables),
            pending=self.stretch > 0,
            spent=jnp.zeros_like(self.spent),
            cost=infinite,
            optimality=infinite.astype(self.optimality.dtype),
        )

    def resume(self) -> "ContinuationState":
        """The plan, for another solve; on its stretch still where it was."""
        return self._replace(inner=resume(self.inner), cost=jnp.full_like(self.cost, jnp.inf))

    def hold(self) -> "ContinuationState":
        """The next step must not make the plan worse."""
        return self._replace(inner=hold(self.inner))


def continuation(problem: Problem, build: Callable[[Problem], Planner], *, steps: int) -> Planner:
    """Let a planner with a single start solve a stretch of the horizon first.

    The stretch is drawn at `init`, from three quarters of the horizon to one step less. A guess is a plan of the whole
    horizon and improved as that; so is, in a control loop that has no time to lose, every start after the first decision.

    Args:
        problem: The problem to plan for.
        build: Builds the planner, for the problem whose parameters are `TruncatedParams`; its state has `reset_to` (see
            `multistart`).
        steps: Steps, at most, on the stretch; fewer where it settles sooner.

    Raises:
        ValueError: If `steps` is less than 1, or the horizon 1, which has no first stretch.
    """
    if steps < 1 or problem.horizon < 2:
        raise ValueError(
            "continuation needs at least 1 step on a first stretch, and a horizon of at least 2; "
            f"got {steps} steps and a horizon of {problem.horizon}"
        )
    planner, horizon = build(stretched(problem)), problem.horizon

    def init(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> ContinuationState:
        draw, own = jax.random.split(key)
        inner = planner.init(TruncatedParams(params, jnp.asarray(horizon)), state, own, guess)
        stretch = jax.random.randint(draw, (), max(int(SHORTEST * horizon), 1), horizon, jnp.int32)
        pending = jnp.asarray(guess is None)
        return ContinuationState(inner, stretch, pending, jnp.zeros_like(stretch), inner.cost, inner.optimality)

    def step(params: PyTree, state: PyTree, planner_state: ContinuationState) -> ContinuationState:
        pending = planner_state.pending
        end = jnp.where(pending, planner_state.stretch, horizon)
        inner, spent = planner.step(TruncatedParams(params, end), state, planner_state.inner), planner_state.spent + 1
        solved = pending & ((spent >= steps) | (inner.optimality <= SETTLED))
        cost, optimality = (jnp.where(pending, jnp.inf, x).astype(x.dtype) for x in (inner.cost, inner.optimality))
        inner = tree_where(solved, invalidate(inner), inner)
        return ContinuationState(inner, planner_state.stretch, pending & ~solved, spent, cost, optimality)

    def best_actions(
        params: PyTree, state: PyTree, planner_state: ContinuationState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        return planner.chosen_plan(TruncatedParams(params, jnp.asarray(horizon)), state, planner_state.inner)

    def shift(planner_state: ContinuationState) -> ContinuationState:
        inner = planner.shift(planner_state.inner)
        none, require_no_latents = jnp.zeros_like(planner_state.stretch), jnp.zeros_like(planner_state.pending)
        return ContinuationState(inner, none, require_no_latents, none, inner.cost, inner.optimality)

    def inject(planner_state: ContinuationState, actions: jax.Array) -> ContinuationState:
        # a candidate is a plan of the whole horizon, and compared with the plan under way as that
        taken = finite(actions)
        ended = taken & planner_state.pending
        inner = tree_where(ended, invalidate(planner_state.inner), planner_state.inner)
        return planner_state._replace(inner=planner.inject(inner, actions), pending=planner_state.pending & ~taken)

    return Planner(init, step, plan_from_choice(problem, best_actions), shift, inject, problem, best_actions)


def stretched(problem: Problem) -> Problem:
    """The problem whose parameters are `TruncatedParams`: nothing counts after the end; at the horizon, the terminal
    cost does."""
    terminal = problem.terminal_cost

    def limited(constraint: Constraint) -> Constraint:
        idle = 0.0 if constraint.equality else -1.0

        def function(given: TruncatedParams, state: PyTree, action: jax.Array, t: jax.Array) -> jax.Array:
            return jnp.where(t <= given.end, constraint.function(given.params, state, action, t), idle)

        return replace(constraint, function=function)

    return replace(
        problem,
        dynamics=lambda given, *rest: problem.dynamics(given.params, *rest),
        cost=lambda given, state, action, t: jnp.where(t < given.end, problem.cost(given.params, state, action, t), 0.0),
        terminal_cost=terminal
        and (lambda given, state: jnp.where(given.end < problem.horizon, 0.0, terminal(given.params, state))),
        constraints=tuple(map(limited, problem.constraints)),
        lift=None,
    )
