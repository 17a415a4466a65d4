"""Feasibility of imagined futures, in whatever units constraints, states and actions are.

A violation is allowed where moving every coordinate by the tolerance, as a share of what it moves in one step, or by the
rounding of its value, would change the constraint as much:

    |max(g, 0)|, |h|  ≤  ‖∂c/∂(s, a) · (ε Δ + r |s, a|)‖₂

with ε = `constraints.feasibility_tolerance`, Δ the largest change of each coordinate between two steps, along the future and
in a few steps of random actions, so that a future at rest has one, too, and r the rounding of some tens of operations.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mpc.constraints import feasibility_tolerance, table
from mpc.problem import Problem

Array = jax.Array
PyTree = Any

STEPS = 4  # of random actions: enough for them to reach a position through jerk
DIRECTIONS = 8  # that a gradient's norm is found from; exact up to as many coordinates
OPERATIONS = 64  # whose rounding is no violation
LEAST = 1e-3  # of the largest allowance of a constraint over time: the least at other times


def moves(states: PyTree, actions: Array) -> Array:
    """The largest change `[N]` of each coordinate of the state between two steps, and the largest value of the action's."""
    points, taken = _flat(states), actions.reshape(len(actions), -1)
    return jnp.concatenate([jnp.abs(jnp.diff(points, axis=0)).max(axis=0), jnp.abs(taken).max(axis=0)])


def sensitivity(problem: Problem, params: PyTree, states: PyTree, actions: Array, scale: Array) -> Array:
    """By how much constraints change, `[H, C]`, if every coordinate changes by its own scale.

    Args:
        problem: With constraints.
        params: Its parameters.
        states: `[H+1, ...]`.
        actions: `[H, ...]` as the model sees them.
        scale: `[N]`, of all coordinates of state and action, as from `moves`.
    """
    row, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], states))
    size = len(row)
    points = jnp.concatenate([_flat(states)[1:], actions.reshape(len(actions), -1)], axis=1)

    def change(direction: Array) -> Array:
        def values(points: Array) -> Array:
            arrived = jax.vmap(unravel)(points[:, :size].astype(row.dtype))
            rows = jax.tree.map(lambda first, rest: jnp.concatenate([first[:1], rest]), states, arrived)
            return table(problem.constraints, params, rows, points[:, size:].reshape(actions.shape).astype(actions.dtype))

        return jax.jvp(values, (points,), (jnp.broadcast_to(direction, points.shape),))[1]

    length = points.shape[1]
    signs = np.eye(length) if length <= DIRECTIONS else np.random.default_rng(1).choice([-1, 1], (DIRECTIONS, length))
    norm = jnp.sum if length <= DIRECTIONS else jnp.mean
    changes = jax.lax.map(change, jnp.asarray(signs, points.dtype) * scale)
    found = jnp.sqrt(norm(changes**2, axis=0))
    return jnp.where(jnp.isfinite(found), found, 0.0)


def infeasibility(problem: Problem, params: PyTree, states: PyTree, actions: Array, least: Any = 0.0) -> Array:
    """The largest violation in units of what is allowed: a future is feasible up to 1, and one without a value never is.

    Args:
        problem: With constraints.
        params: Its parameters.
        states: `[H+1, ...]`.
        actions: `[H, ...]` as the model sees them.
        least: Moves that count where the future's own are smaller.
    """
    violations = table(problem.constraints, params, states, actions, violated=True).astype(float)
    exactness, tolerance = OPERATIONS * jnp.finfo(violations.dtype).eps, feasibility_tolerance(violations.dtype)
    largest = jnp.concatenate([jnp.abs(x).max(axis=0) for x in (_flat(states), actions.reshape(len(actions), -1))])
    scale = tolerance * jnp.maximum(moves(states, actions), least) + exactness * largest
    allowed = sensitivity(problem, params, states, actions, scale).astype(violations.dtype)
    allowed = jnp.maximum(allowed, LEAST * allowed.max(axis=0))
    largest_share = jnp.max(violations / jnp.where(allowed > 0, allowed, tolerance), initial=0.0)
    return jnp.where(jnp.isnan(largest_share), jnp.inf, largest_share)


def _flat(states: PyTree) -> Array:
    return jax.vmap(lambda s: ravel_pytree(s)[0])(states)
