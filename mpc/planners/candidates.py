"""Candidates: plans from elsewhere, such as an actor's proposal, that a planner takes up without losing its own.

    u ← argmin { E(u), E(candidate) }        at the next step, on the problem as it then is

`Planner.inject` puts a candidate into a slot of the planner's state; the next `step` empties the slot. Slots have a fixed
shape, so that nothing recompiles, and steps without a candidate skip what deals with one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.problem import Problem

PyTree = Any


class Candidate(NamedTuple):
    """A slot for one candidate: its `variables` `[H, V]` (or knots `[K, V]`), and whether it is `pending`."""

    variables: jax.Array
    pending: jax.Array


def no_candidate(like: jax.Array) -> Candidate:
    """An empty slot for variables shaped as these."""
    return Candidate(jnp.zeros_like(like), jnp.asarray(False))


def later(candidate: Candidate, shift: Callable[[jax.Array], jax.Array]) -> Candidate:
    """The slot one time step later."""
    return candidate._replace(variables=shift(candidate.variables))


def emptied(candidate: Candidate) -> Candidate:
    """The slot after its candidate was dealt with."""
    return candidate._replace(pending=jnp.zeros_like(candidate.pending))


def checked(problem: Problem, actions: Any) -> jax.Array:
    """A candidate's actions as an array.

    Raises:
        ValueError: If they are not one action of the space for each step of the horizon.
    """
    actions, wanted = jnp.asarray(actions), (problem.horizon, *problem.action_space.shape)
    if actions.shape != wanted:
        raise ValueError(f"a candidate must be actions of shape {list(wanted)}; got {list(actions.shape)}")
    return actions


def finite(actions: jax.Array) -> jax.Array:
    """Tell whether all numbers of a candidate are finite."""
    return jnp.isfinite(actions).all()


def injector(
    problem: Problem, encode: Callable[[jax.Array], jax.Array] | None = None
) -> Callable[[PyTree, jax.Array], PyTree]:
    """The `inject` of a planner whose state has a slot called `candidate`; actions that are not finite are ignored.

    Args:
        problem: The planner's.
        encode: `actions [H, ...] -> variables` as the slot holds them; the action space's own, projected, if None.
    """
    space = problem.action_space
    encode = encode or (lambda actions: space.project(space.encode(actions)))

    def inject(planner_state: PyTree, actions: jax.Array) -> PyTree:
        actions, slot = checked(problem, actions), planner_state.candidate
        taken = finite(actions)
        variables = jnp.where(taken, encode(actions).astype(slot.variables.dtype), slot.variables)
        return planner_state._replace(candidate=Candidate(variables, slot.pending | taken))

    return inject


def where_pending(pending: jax.Array, function: Callable[..., PyTree], otherwise: PyTree, *operands: PyTree) -> PyTree:
    """`function(*operands)` where a candidate is pending, else `otherwise`, of the same shapes; without derivatives.

    A loop of at most one turn and not a `cond`: of many planners under `vmap`, a `cond` would compute both sides always.
    The barrier keeps XLA from hoisting what does not change out of the loop, where it would be computed always, too.
    """
    operands, value = jax.lax.stop_gradient((operands, otherwise))

    def turn(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
        _, given = jax.lax.optimization_barrier((carry[0], operands))
        found = jax.tree.map(lambda x, like: x.astype(like.dtype), function(*given), carry[1])
        return jnp.zeros_like(pending), found

    _, value = jax.lax.while_loop(lambda carry: carry[0], turn, (pending, value))
    return jax.tree.map(lambda new, old: jnp.where(pending, new, old), value, otherwise)


def compete(
    candidate: Candidate,
    plans: tuple[jax.Array, ...],
    cost: jax.Array,
    score: Callable[[jax.Array, PyTree, PyTree], jax.Array],
    params: PyTree,
    state: PyTree,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hold a pending candidate against the plan under way: `(taken, plan, cost)`, the cheapest and what it costs.

    Args:
        candidate: The slot.
        plans: The variables that the plan under way may be, shaped as the slot's; the first where nothing is pending.
        cost: Known cost of the first; returned as it is where nothing is pending.
        score: `(variables, params, state) -> energy` of what is executed.
        params: Of the problem.
        state: Where to start.
    """

    def race(every: tuple[jax.Array, ...], params: PyTree, state: PyTree) -> tuple[jax.Array, jax.Array, jax.Array]:
        rivals = jnp.stack(every)
        costs = jax.lax.map(lambda rival: score(rival, params, state), rivals)
        costs = jnp.where(jnp.isnan(costs), jnp.inf, costs)
        first = jnp.argmin(costs)
        return first == len(plans), rivals[first], costs[first]

    nothing = (jnp.zeros_like(candidate.pending), plans[0], cost)
    return where_pending(candidate.pending, race, nothing, (*plans, candidate.variables), params, state)


def hold(planner_state: PyTree) -> PyTree:
    """A start whose plan the next step must not make worse, for planners whose steps might; they have a method `hold`."""
    own = getattr(planner_state, "hold", None)
    return planner_state if own is None else own()
