"""The precision of states: that which the dynamics keep, whatever observations come in.

With `jax_enable_x64`, actions are float64, and dynamics promote a float32 state; networks that cast return float32 for a
float64 state. Neither is a fault of the dynamics.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mpc.problem import Problem

PyTree = Any


def as_dynamics_keep(problem: Problem, params: PyTree, state: PyTree) -> PyTree:
    """Converts the floats of a state to a precision that the problem's dynamics keep, by shapes alone.

    Args:
        problem: Whose dynamics.
        params: Its parameters.
        state: As it was observed. It stays as it is where the dynamics keep that, or no precision at all.
    """
    state = jax.tree.map(jnp.asarray, state)
    floats = {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    if floats <= {jnp.result_type(float)} and not jax.config.read("jax_enable_x64"):
        return state
    for kind in (None, jnp.result_type(float), jnp.dtype(jnp.float32)):
        converted = state if kind is None else cast_floats(state, kind)
        if _kept(problem, params, converted):
            return converted
    return state


def cast_floats(tree: PyTree, kind: Any) -> PyTree:
    """Casts the floats of a tree to a dtype, and leaves the rest as it is."""
    return jax.tree.map(lambda x: jnp.asarray(x, kind) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree)


def _kept(problem: Problem, params: PyTree, state: PyTree) -> bool:
    """Returns whether a step of the dynamics leaves a state of the same dtypes."""
    before = jax.eval_shape(lambda s: jax.tree.map(jnp.asarray, problem.lifted(params, s)), state)
    try:
        after = jax.eval_shape(problem.dynamics, params, before, *problem.inputs())
    except Exception:  # the check that follows tells of whatever the user's function raises
        return False
    return [x.dtype for x in jax.tree.leaves(before)] == [getattr(x, "dtype", None) for x in jax.tree.leaves(after)]
