"""Constraints on imagined futures, declared once on the problem and enforced by every planner built from it.

    g(params, s[t], u[t-1], t) ≤ 0     and     h(params, s[t], u[t-1], t) = 0     for t = 1..H

at every state together with the action that led there: each action, and each state that actions can change, is seen once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Function = Callable[[PyTree, PyTree, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True, eq=False)
class Constraint:
    """One constraint, of any shape; made by `inequality` and `equality`."""

    function: Function
    equality: bool
    name: str


def inequality(g: Function, name: str = "inequality") -> Constraint:
    """Demand `g(params, state, action, t) ≤ 0`, element by element, for t = 1..H.

    Args:
        g: Returns an array of any shape, for a state and the action that led to it. A limit that holds at the end only is
            `jnp.where(t == horizon, limit, -1.0)`.
        name: What plans and messages call it; constraints of one name are told apart by number.

    Raises:
        ValueError: If `g` is not a function.
    """
    return _constraint(g, False, name)


def equality(h: Function, name: str = "equality") -> Constraint:
    """Demand `h(params, state, action, t) = 0`, element by element, for t = 1..H; arguments as for `inequality`."""
    return _constraint(h, True, name)


def _constraint(function: Function, equal: bool, name: str) -> Constraint:
    if not callable(function):
        raise ValueError(f"a constraint is a function (params, state, action, t) -> array; got {function!r}")
    return Constraint(function, equal, name)


def named(constraints: Sequence[Constraint]) -> dict[str, Constraint]:
    """Constraints by name; the second of one name is `name_2`."""
    result: dict[str, Constraint] = {}
    for constraint in constraints:
        name, count = constraint.name, 1
        while name in result:
            count += 1
            name = f"{constraint.name}_{count}"
        result[name] = constraint
    return result


def along(constraint: Constraint, params: PyTree, states: PyTree, actions: jax.Array) -> jax.Array:
    """A constraint's values `[H, ...]` along a future.

    Args:
        constraint: One of a problem's.
        params: Parameters of the problem.
        states: `[H+1, ...]`.
        actions: `[H, ...]` as the model sees them.
    """
    arrived = jax.tree.map(lambda s: s[1:], states)
    return jax.vmap(constraint.function, in_axes=(None, 0, 0, 0))(params, arrived, actions, 1 + jnp.arange(len(actions)))


def table(
    constraints: Sequence[Constraint], params: PyTree, states: PyTree, actions: jax.Array, *, violated: bool = False
) -> jax.Array:
    """All constraints' values side by side, `[H, C]`, or by how much they are violated; arguments as for `violation`."""
    columns = [along(c, params, states, actions).reshape(len(actions), -1) for c in constraints]
    if violated:
        columns = [violated_by(c, values) for c, values in zip(constraints, columns, strict=True)]
    return jnp.concatenate([jnp.zeros((len(actions), 0)), *columns], axis=1)


def violated_by(constraint: Constraint, values: jax.Array) -> jax.Array:
    """By how much a constraint's values violate it: `max(g, 0)`, `|h|`."""
    return jnp.abs(values) if constraint.equality else jnp.maximum(values, 0.0)


def violation(constraints: Sequence[Constraint], params: PyTree, states: PyTree, actions: jax.Array) -> dict[str, jax.Array]:
    """Measure the violation of each constraint along a future: `max max(g, 0)` and `max |h|`, scalars by name.

    Args:
        constraints: A problem's.
        params: Parameters of the problem.
        states: `[H+1, ...]`.
        actions: `[H, ...]` as the model sees them (`space.embed` of what is executed).
    """

    def largest(constraint: Constraint) -> jax.Array:
        return jnp.max(violated_by(constraint, along(constraint, params, states, actions)), initial=0.0)

    return {name: largest(constraint) for name, constraint in named(constraints).items()}


def feasibility_tolerance(dtype: Any) -> float:
    """The share of one step's moves by which a plan may miss its constraints, see `mpc.feasibility`: 1e-6 in double
    precision, 1e-5 in single."""
    return 1e-6 if jnp.finfo(dtype).bits == 64 else 1e-5


def exact_share(dtype: Any) -> float:
    """The share of what is allowed that a solve goes on to: a hundredth in double precision, all in single."""
    return 0.01 if jnp.finfo(dtype).bits == 64 else 1.0


def reads(function: Callable, *arguments: PyTree) -> tuple[bool, ...]:
    """Tell for each argument whether the function's value may depend on it, from its jaxpr; unsure counts as yes."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    used = {id(v) for v in jaxpr.outvars} | {id(v) for equation in jaxpr.eqns for v in equation.invars}
    given = iter(jaxpr.invars)
    return tuple(any([id(next(given)) in used for _ in jax.tree.leaves(a)]) for a in arguments)
