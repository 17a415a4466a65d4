"""`solve`, which runs any planner: a program by itself, or chunks of one until a deadline."""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mpc.deploy.host import check_process, on_host
from mpc.planners.base import Plan, Planner, Status, resume
from mpc.planners.checks import check_memory, check_settings, checked_guess
from mpc.planners.reverse import unless_refused
from mpc.precision import as_dynamics_keep

PyTree = Any


def solve(
    planner: Planner,
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    iterations: int = 100,
    *,
    guess: jax.Array | None = None,
    memory: Any = None,
    tolerance: float | None = None,
    deadline: float | None = None,
) -> Plan:
    """Plan from scratch; without a deadline one program that `jit`, `vmap` and, with fixed iterations, `grad` take.

    Args:
        planner: Any planner; compiled once per planner value, so build it once and keep it.
        params: Parameters of the problem's functions.
        state: Where to start.
        key: Randomness; the same key gives the same plan.
        iterations: Improvements to make, at most.
        guess: Actions `[H, ...]` to begin with, if there are any.
        memory: An earlier plan's `memory`, to go on from: its actions, multipliers and other starts, for other parameters
            and states, too. The plan is not worse than the earlier one's actions. One time step later it is
            `planner.shift(plan.memory)`.
        tolerance: Stop once the planner's optimality measure is at most this; None spends every iteration.
        deadline: Seconds this may take, compilation apart, or None. The clock is looked at between chunks of iterations,
            and no chunk is begun that would, by the time the others took, end too late.

    Returns:
        The plan. It is finite and in bounds whatever the model returned; `plan.status` says why the search ended.

    Raises:
        ValueError: If the problem's functions do not fit the state (see `Problem.check`), a guess or a memory does not fit
            the planner, or there are both, iterations < 0, or there is a deadline that is not positive, or one inside a
            function that JAX traces.
        ForkedProcessError: In a process forked from one that ran compiled programs, where it would wait for ever.
    """
    check_settings(iterations, tolerance, guess, memory)
    check_process()
    tolerance = None if tolerance is None else jax.device_put(tolerance)
    if deadline is None:
        return _solve(planner, params, state, key, (guess, memory), tolerance, iterations=iterations)
    if not deadline > 0:
        raise ValueError(f"deadline must be a positive number of seconds or None; got {deadline}")
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((params, state, key, guess, memory))):
        raise ValueError(
            "a deadline needs a clock, which traced functions do not have: call solve outside of jit, vmap and grad"
        )
    return _solve_until_deadline(planner, params, state, key, (guess, memory), tolerance, iterations, deadline)


def _unfinished(planner_state: Any, count: jax.Array, iterations: Any, tolerance: Any) -> jax.Array:
    return (count < iterations) & ((count == 0) | ~(planner_state.optimality <= tolerance))


def _improve(
    planner: Planner, params: PyTree, state: PyTree, planner_state: Any, count: jax.Array, until: Any, tolerance: Any
):
    """Steps from the `count`-th on, until there are `until` or the optimality is at most `tolerance`."""
    state = _carried(planner, params, state)

    def improve(carry):
        planner_state, count = carry
        return planner.step(params, state, planner_state), count + 1

    return jax.lax.while_loop(lambda c: _unfinished(*c, until, tolerance), improve, (planner_state, count))


def _carried(planner: Planner, params: PyTree, state: PyTree) -> PyTree:
    """The state that the planner is given: in a precision that the dynamics keep, and lifted."""
    return planner.problem.lifted(params, as_dynamics_keep(planner.problem, params, state))


def _conclude(planner: Planner, params: PyTree, state: PyTree, planner_state: Any, count: Any, tolerance: Any) -> Plan:
    plan = planner.plan(params, _carried(planner, params, state), planner_state)
    unscored = (count == 0) & jnp.isfinite(plan.cost) & (plan.status == Status.NOT_FINITE)
    plan = plan._replace(status=jnp.where(unscored, Status.ITERATIONS, plan.status).astype(plan.status.dtype))
    converged = (plan.status == Status.ITERATIONS) & (count > 0) & (planner_state.optimality <= tolerance)
    status = jnp.where(converged, Status.CONVERGED, plan.status).astype(plan.status.dtype)
    return plan._replace(status=status, info=plan.info | {"iterations": jnp.asarray(count)}, memory=planner_state)


@partial(jax.jit, static_argnames=("planner", "iterations"))
def _solve(planner: Planner, params: PyTree, state: PyTree, *rest: Any, iterations: int) -> Plan:
    solved = partial(_solved, planner, iterations)
    shapes = jax.tree.map(jax.typeof, (params, state, *rest))
    return unless_refused(solved(params, state, *rest), partial(_try_reverse, solved, shapes))


def _try_reverse(solved: Callable[..., Plan], shapes: tuple[Any, ...]) -> None:
    """Trace derivatives in reverse.

    Raises:
        ValueError: If there are none, as of loops of unknown length, with what to use instead.
    """

    def reverse(params: PyTree, state: PyTree, *rest: Any) -> Any:
        plan, pull = jax.vjp(lambda params, state: solved(params, state, *rest).cost, params, state)
        return pull(jnp.ones_like(plan))

    try:
        jax.eval_shape(reverse, *shapes)
    except ValueError as error:
        raise ValueError(
            "this planner's iterations have no derivatives in reverse, or their number is unknown (tolerance): "
            "differentiate mpc.implicit instead of mpc.solve, or forwards (jax.jvp, jax.jacfwd)"
        ) from error


def _solved(
    planner: Planner, iterations: int, params: PyTree, state: PyTree, key: jax.Array, begun: Any, tolerance: Any
) -> Plan:
    planner_state, count = _begin(planner, params, state, key, begun), jnp.asarray(iterations)
    if tolerance is None:  # a loop of known length, which can be differentiated in reverse
        lifted = _carried(planner, params, state)
        planner_state = jax.lax.fori_loop(0, iterations, lambda _, m: planner.step(params, lifted, m), planner_state)
        return _conclude(planner, params, state, planner_state, count, -jnp.inf)
    planner_state, count = _improve(planner, params, state, planner_state, jnp.asarray(0), iterations, tolerance)
    return _conclude(planner, params, state, planner_state, count, tolerance)


def _begin(planner: Planner, params: PyTree, state: PyTree, key: jax.Array, begun: tuple[Any, Any]) -> Any:
    state = as_dynamics_keep(planner.problem, params, state)
    planner.problem.check(params, state)
    guess, memory = begun
    if memory is not None:
        check_memory(memory, jax.eval_shape(partial(_begin, planner), params, state, key, (None, None)))
        return resume(memory)
    guess = None if guess is None else checked_guess(planner.problem, guess)
    return planner.init(params, planner.problem.lifted(params, state), key, guess)


PHASES = [jax.jit(f, static_argnames="planner") for f in (_begin, _improve, _conclude)]


@lru_cache(maxsize=1024)
def _readiness(planner: Planner, structure: Any, types: tuple[Any, ...]) -> list[bool]:
    """A list that is empty until all phases were compiled for arguments of these types."""
    return []


@on_host
def _solve_until_deadline(
    planner: Planner, params: PyTree, state: PyTree, key: Any, begun: Any, tolerance: Any, iterations: int, deadline: float
) -> Plan:
    """Improve in chunks, each sized by the pace of those before, while there is time for one more and the conclusion."""
    tolerance = -jnp.inf if tolerance is None else tolerance
    begin, improve, conclude = PHASES
    start, none = (params, state), jnp.asarray(0)
    leaves, structure = jax.tree.flatten((start, key, begun, tolerance))
    ready = _readiness(planner, structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
    if not ready:  # calls compile what no clock counts; twice, for a step's memory may be typed otherwise than the first
        planner_state = begin(planner, *start, key, begun)
        for _ in range(2):
            conclude(planner, *start, planner_state, none, tolerance)
            planner_state, _ = jax.block_until_ready(improve(planner, *start, planner_state, none, none + 1, tolerance))
        ready.append(True)

    end = time.perf_counter() + deadline
    planner_state, count = begin(planner, *start, key, begun), none
    plan, reserve = _timed(conclude, planner, *start, planner_state, count, tolerance)
    spent, chunk, pace = 0, 1, 0.0
    while chunk > 0 and spent < iterations:
        until = jnp.asarray(min(spent + chunk, iterations))
        (planner_state, count), took = _timed(improve, planner, *start, planner_state, count, until, tolerance)
        made, spent = int(count) - spent, int(count)
        if spent < int(until):
            break  # the tolerance is met
        # as many more as surely fit into half of the time left: pace varies, and one chunk too long is too late
        pace = max(took / made, 0.9 * pace)
        left = end - reserve - time.perf_counter()
        chunk = int(left / pace) if left < 2 * pace else int(0.5 * left / pace)
    plan = conclude(planner, *start, planner_state, count, tolerance) if spent else plan
    late = (plan.status == Status.ITERATIONS) & (spent < iterations)
    return plan._replace(status=jnp.where(late, Status.DEADLINE, plan.status))


def _timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    return jax.block_until_ready(function(*args)), time.perf_counter() - begun
