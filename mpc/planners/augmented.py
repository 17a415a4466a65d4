"""The problem without constraints whose energy is the augmented Lagrangian (see `mpc.planners.lagrangian`)."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.constraints import Constraint, reads
from mpc.problem import Problem

PyTree = Any


class Augmented(NamedTuple):
    """Parameters of the augmented problem: the problem's own, duals `[H, C]` for t = 1..H, the penalties, one or `[C]`."""

    params: PyTree
    duals: jax.Array
    penalty: jax.Array


class StateWithAction(NamedTuple):
    """A state and the action that led to it."""

    state: PyTree
    action: jax.Array


def augment(problem: Problem) -> Problem:
    """The problem without constraints whose parameters are `Augmented` and whose energy is the augmented Lagrangian.

    Every constraint is charged where the planner sees all that it reads: one on actions alone when the action is taken, one
    on states alone when the state is reached. Only one that reads both needs states that remember the action before.
    """

    def charge(given: Augmented, state: PyTree, action: jax.Array, t: jax.Array, leaving: bool) -> jax.Array:
        total, first = jnp.zeros(()), 0
        for constraint in problem.constraints:
            reads_state, _, size = look(constraint, problem, given.params, state)
            columns, first = slice(first, first + size), first + size
            if reads_state != leaving:
                values = constraint.function(given.params, state, action, t).reshape(-1)
                duals = given.duals[t - 1, columns].astype(values.dtype)
                penalty = jnp.broadcast_to(given.penalty, given.duals.shape[1:])[columns].astype(values.dtype)
                total = total + _psi(values, duals, penalty, constraint.equality)
        return total

    def dynamics(given: Augmented, lifted: PyTree, action: jax.Array) -> PyTree:
        if isinstance(lifted, StateWithAction):
            return StateWithAction(problem.dynamics(given.params, lifted.state, action), action)
        return problem.dynamics(given.params, lifted, action)

    def arrival(given: Augmented, lifted: PyTree, t: jax.Array) -> jax.Array:
        state, action = lifted if isinstance(lifted, StateWithAction) else (lifted, _idle(problem))
        return charge(given, state, action, t, leaving=False)

    def cost(given: Augmented, lifted: PyTree, action: jax.Array, t: jax.Array) -> jax.Array:
        state = lifted.state if isinstance(lifted, StateWithAction) else lifted
        own = problem.cost(given.params, state, action, t) + charge(given, state, action, t + 1, leaving=True)
        return own + jnp.where(t > 0, arrival(given, lifted, t), 0.0)

    def terminal_cost(given: Augmented, lifted: PyTree) -> jax.Array:
        charged = arrival(given, lifted, jnp.asarray(problem.horizon))
        if problem.terminal_cost is None:
            return charged
        return problem.terminal_cost(given.params, lifted.state if isinstance(lifted, StateWithAction) else lifted) + charged

    return Problem(dynamics, cost, terminal_cost, horizon=problem.horizon, action_space=problem.action_space)


def _psi(values: jax.Array, duals: jax.Array, penalty: jax.Array, equality: bool) -> jax.Array:
    """`Σ ψ(c, λ, ρ)`, multiplied out where the max is positive: the difference of squares would lose single precision."""
    active = values * (duals + 0.5 * penalty * values)
    if equality:
        return jnp.sum(active)
    return jnp.sum(jnp.where(duals + penalty * values > 0, active, -0.5 * duals * duals / penalty))


def _idle(problem: Problem) -> jax.Array:
    return problem.action_space.relax(jnp.zeros(problem.action_space.size))


def look(constraint: Constraint, problem: Problem, params: PyTree, state: PyTree) -> tuple[bool, bool, int]:
    """Tell whether a constraint reads the state and the action, and count its values."""
    leaves, structure = jax.tree.flatten((params, state))
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    return _looked(constraint, problem, structure, shapes, jax.config.read("jax_enable_x64"))


@lru_cache(maxsize=1024)
def _looked(constraint: Constraint, problem: Problem, structure: Any, shapes: tuple, _: bool) -> tuple[bool, bool, int]:
    params, state = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    example = (params, state, _idle(problem), jnp.asarray(1))
    _, reads_state, reads_action, _ = reads(constraint.function, *example)
    return reads_state, reads_action, jax.eval_shape(constraint.function, *example).size


def equalities(problem: Problem, params: PyTree, state: PyTree) -> np.ndarray:
    """Mask `[C]` of the values that must be zero."""
    sizes = [(c.equality, look(c, problem, params, state)[2]) for c in problem.constraints]
    return np.array([equality for equality, size in sizes for _ in range(size)], bool)


def lift(problem: Problem, params: PyTree, state: PyTree) -> PyTree:
    looks = [look(c, problem, params, state) for c in problem.constraints]
    mixed = any(reads_state and reads_action for reads_state, reads_action, _ in looks)
    return StateWithAction(state, _idle(problem)) if mixed else state
