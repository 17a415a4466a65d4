"""Double precision inside a planner, whatever precision its caller computes in.

    plan(x) = round(plan_64(widen(x)))

Newton's method and multipliers lose half of the digits they work with, and on a CPU double precision costs small problems no
time. The planner's own state keeps it between calls; parameters and states come, and plans go, in the caller's precision. A
model that has a precision of its own, such as a network that casts what it is given, keeps it: it is called with what it
computes in, and its results are widened.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, invalidate, resume
from mpc.planners.candidates import hold
from mpc.planners.double import in_double
from mpc.precision import cast_floats
from mpc.problem import Problem

PyTree = Any

PRECISIONS = ("float32", "float64")


class Parts(NamedTuple):
    """A float64 array as the sum of three float32 arrays, exact for what float32 has the range of.

    Whatever carries a planner's state from one call to the next may trace, export or choose between such parts as it would
    any arrays; a process whose option `jax_enable_x64` is off would cut 64 bits to 32 on the way.
    """

    high: jax.Array
    middle: jax.Array
    low: jax.Array


class WideState(NamedTuple):
    """The state of a planner in double precision, packed in `Parts`, with its `cost` and `optimality` in the caller's."""

    inner: Any
    cost: jax.Array
    optimality: jax.Array

    def reset_to(self, variables: jax.Array) -> "WideState":
        """Begin anew from variables `[H, V]`."""
        return RESET(self, variables)

    def invalidate(self) -> "WideState":
        """Forget the cost of the plan: the problem changed."""
        return INVALIDATE(self)

    def resume(self) -> "WideState":
        """The plan, for another solve."""
        return RESUME(self)

    def hold(self) -> "WideState":
        """Let the next step not make the plan worse."""
        return HOLD(self)


def with_precision(problem: Problem, precision: str | None, build: Callable[[Problem], Planner]) -> Planner:
    """Build a planner that computes in a precision of its own.

    Args:
        problem: The problem to plan for.
        precision: `"float64"`; `"float32"`, the precision of the states and parameters it is given; None is double precision
            on a CPU, where it costs little, and else the states'.
        build: Builds the planner.

    Raises:
        ValueError: If the precision is another one.
    """
    precision = ("float64" if jax.default_backend() == "cpu" else "float32") if precision is None else precision
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, or None; got {precision!r}")
    return build(problem) if precision == "float32" else _Wide(problem, build(_following(problem))).planner()


class _Wide:
    """A planner in double precision: `inner`, of the problem whose functions follow the precision of what they are given."""

    def __init__(self, problem: Problem, inner: Planner) -> None:
        self.problem, self.inner = problem, inner
        self._init, self._plan, self._choose = (in_double(f) for f in (self._begin, self._conclude, self._chosen))
        self._step, self._shift, self._inject = (changing(f) for f in (self._improve, inner.shift, self._take_up))

    def planner(self) -> Planner:
        best_actions = None if self.inner.best_actions is None else self.best_actions
        return Planner(self.init, self.step, self.plan, self.shift, self.inject, self.problem, best_actions)

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: PyTree = None) -> WideState:
        unknown = jnp.asarray(jnp.inf)
        return WideState(self._init(params, state, key, guess), unknown, unknown)

    def step(self, params: PyTree, state: PyTree, planner_state: WideState) -> WideState:
        return self._step(planner_state, params, state)

    def plan(self, params: PyTree, state: PyTree, planner_state: WideState) -> Plan:
        plan = self._plan(params, state, planner_state.inner)
        return plan._replace(actions=self.problem.action_space.permit(plan.actions))

    def best_actions(self, params: PyTree, state: PyTree, planner_state: WideState) -> Any:
        actions, found, info = self._choose(params, state, planner_state.inner)
        return self.problem.action_space.permit(actions), found, info

    def shift(self, planner_state: WideState) -> WideState:
        return self._shift(planner_state)

    def inject(self, planner_state: WideState, actions: jax.Array) -> WideState:
        return self._inject(planner_state, actions)

    # What follows is traced in double precision

    def _begin(self, params: PyTree, state: PyTree, key: jax.Array, guess: PyTree) -> Any:
        return packed(self.inner.init(widened(params), widened(state), key, widened(guess)))

    def _improve(self, inner: Any, params: PyTree, state: PyTree) -> Any:
        return self.inner.step(widened(params), widened(state), inner)

    def _conclude(self, params: PyTree, state: PyTree, inner: Any) -> Plan:
        return narrowed(self.inner.plan(widened(params), widened(state), unpacked(inner)), state)

    def _chosen(self, params: PyTree, state: PyTree, inner: Any) -> Any:
        return narrowed(self.inner.chosen_plan(widened(params), widened(state), unpacked(inner)), state)

    def _take_up(self, inner: Any, actions: jax.Array) -> Any:
        return self.inner.inject(inner, widened(actions))


def widened(tree: PyTree) -> PyTree:
    """The tree with floats in double precision."""
    return cast_floats(tree, jnp.float64)


def packed(tree: PyTree) -> PyTree:
    """The tree with arrays of 64 bits as ones of 32: floats in parts, counts shortened."""

    def pack(x: jax.Array) -> Any:
        if x.dtype != jnp.float64:
            return x.astype(jnp.int32) if x.dtype == jnp.int64 else x
        high = x.astype(jnp.float32)
        rest = jnp.where(jnp.isfinite(high), x - high.astype(jnp.float64), 0.0)
        middle = rest.astype(jnp.float32)
        return Parts(high, middle, (rest - middle.astype(jnp.float64)).astype(jnp.float32))

    return jax.tree.map(pack, tree)


def unpacked(tree: PyTree) -> PyTree:
    """The tree that was packed."""

    def unpack(x: Any) -> jax.Array:
        return sum((part.astype(jnp.float64) for part in x), start=jnp.zeros(())) if isinstance(x, Parts) else x

    return jax.tree.map(unpack, tree, is_leaf=lambda x: isinstance(x, Parts))


def narrowed(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with numbers of 64 bits in 32, unless another has floats of 64."""
    if any(jnp.asarray(x).dtype == jnp.float64 for x in jax.tree.leaves(like)):
        return tree
    kinds = {"float64": jnp.float32, "int64": jnp.int32}
    return jax.tree.map(lambda x: x.astype(kinds.get(str(x.dtype), x.dtype)), tree)


def changing(function: Callable[..., Any]) -> Callable[..., WideState]:
    """Let a function change a wide planner's state, its cost and optimality shown in the precision of before.

    Args:
        function: `(state in double precision, ...) -> state`.
    """

    def change(inner: Any, cost: jax.Array, optimality: jax.Array, *args: PyTree) -> tuple[Any, jax.Array, jax.Array]:
        inner = function(unpacked(inner), *args)
        return packed(inner), inner.cost.astype(cost.dtype), inner.optimality.astype(optimality.dtype)

    changed = in_double(change)
    return lambda before, *args: WideState(*changed(before.inner, before.cost, before.optimality, *args))


RESET = changing(lambda inner, variables: inner.reset_to(widened(variables)))
INVALIDATE, RESUME, HOLD = map(changing, (invalidate, resume, hold))


def _following(problem: Problem) -> Problem:
    """The problem whose functions return double precision for double precision."""
    terminal, lift = problem.terminal_cost, problem.lift
    return replace(
        problem,
        dynamics=_follow(problem.dynamics),
        cost=_follow(problem.cost),
        terminal_cost=terminal and _follow(terminal),
        constraints=tuple(replace(c, function=_follow(c.function)) for c in problem.constraints),
        lift=lift and _follow(lift),
    )


def _follow(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function that is called in single precision where it does not return double precision for double precision."""

    @wraps(function)
    def followed(*args: Any) -> PyTree:
        try:
            value = function(*args)
            kinds = {jnp.result_type(x) for x in jax.tree.leaves(value)}
            if not any(jnp.issubdtype(kind, jnp.floating) and kind != jnp.float64 for kind in kinds):
                return value
        except TypeError:  # as of a loop that carries both precisions; what is wrong in both is raised below
            pass
        single = cast_floats(args, jnp.float32)
        with jax.enable_x64(False):
            value = function(*single)
        return widened(value)

    return followed
