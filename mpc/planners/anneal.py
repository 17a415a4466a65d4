"""Annealing: search a blurred version of discrete choices first, and sharpen it step by step.

A relaxed choice is a softmax of scores; the sharper it is, the closer it comes to what is executed, and the less its
gradient tells about the alternatives (Jang et al. 2017; Maddison et al. 2017).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, resume

PyTree = Any


class AnnealState(NamedTuple):
    """The state of the planner inside, and the number of `steps` of this decision."""

    inner: Any
    steps: jax.Array
    cost: jax.Array
    optimality: jax.Array

    def resume(self) -> "AnnealState":
        """The plan, for another solve, blurred anew."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(inner=resume(self.inner), steps=jnp.zeros_like(self.steps), cost=infinite)


def anneal(planner: Planner, *, start: float = 0.2, steps: int = 50) -> Planner:
    """Let the sharpness of a planner's relaxed choices rise from `start` to 1, geometrically, over its first `steps`.

    For planners that see relaxed actions, such as `mpc.gradient` and `mpc.collocation`; a continuous space has nothing to
    sharpen. The sharpness reaches the action space as `params["sharpness"]`, so the parameters are a dict or None.

    Args:
        planner: Any planner.
        start: Sharpness to begin with; lower values blur more.
        steps: Steps until the sharpness is 1, counted anew at every decision.

    Raises:
        ValueError: If `start` is not in `(0, 1]` or `steps` is less than 1; when solving, if the parameters are of another
            kind.
    """
    if not 0 < start <= 1 or steps < 1:
        raise ValueError(f"anneal needs start in (0, 1] and steps >= 1; got start={start}, steps={steps}")

    def at(params: PyTree, count: jax.Array) -> PyTree:
        if params is not None and not isinstance(params, Mapping):
            raise ValueError(f"anneal sets params['sharpness']: params must be a dict or None; got {type(params).__name__}")
        left = jnp.maximum(1.0 - count / steps, 0.0)
        return {**(params or {}), "sharpness": start**left}

    def init(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> AnnealState:
        first = jnp.asarray(0)
        inner = planner.init(at(params, first), state, key, guess)
        return AnnealState(inner, first, inner.cost, inner.optimality)

    def step(params: PyTree, state: PyTree, planner_state: AnnealState) -> AnnealState:
        inner = planner.step(at(params, planner_state.steps), state, planner_state.inner)
        return AnnealState(
            inner, planner_state.steps + 1, inner.cost, jnp.where(planner_state.steps < steps, jnp.inf, inner.optimality)
        )

    def plan(params: PyTree, state: PyTree, planner_state: AnnealState) -> Plan:
        return planner.plan(at(params, jnp.asarray(steps)), state, planner_state.inner)

    def shift(planner_state: AnnealState) -> AnnealState:
        inner = planner.shift(planner_state.inner)
        return AnnealState(inner, jnp.zeros_like(planner_state.steps), inner.cost, inner.optimality)

    def inject(planner_state: AnnealState, actions: jax.Array) -> AnnealState:
        return planner_state._replace(inner=planner.inject(planner_state.inner, actions))

    return Planner(init, step, plan, shift, inject, planner.problem)
