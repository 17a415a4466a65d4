"""The planner protocol, a value made of five pure functions, and `solve`, which runs any planner."""

import time
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mpc.constraints import violation
from mpc.deploy.host import check_process, on_host
from mpc.feasibility import infeasibility
from mpc.planners.checks import check_memory, check_settings, checked_guess
from mpc.planners.reverse import unless_refused
from mpc.precision import as_dynamics_keep
from mpc.problem import Problem, with_usual_promotion
from mpc.rollout import rollout, rollout_and_costates

PyTree = Any


class Status(IntEnum):
    """The reason for which a solve ended."""

    ITERATIONS = 0  # all iterations were spent
    CONVERGED = 1  # the optimality measure fell below the tolerance
    NOT_FINITE = 2  # no candidate had a finite cost: the actions are safe, but mean nothing
    DEADLINE = 3  # the time was up
    INFEASIBLE = 4  # no candidate met the constraints: the plan is the least violating one


class Plan(NamedTuple):
    """An action sequence and the future imagined for it.

    `actions`: `[H, ...]` actions of the space, exactly in bounds. `states`: `[H+1, ...]` the future imagined for them.
    `cost`: their energy; `costs`: its named terms. `status`: a `Status`. `info`: further diagnostics; with
    constraints, `info["violation"]` has every one's by name, and `info["infeasibility"]` the largest in units of what is
    allowed (see `mpc.feasibility`). `memory`: of a plan by `solve`, the planner's state, for the next one.
    """

    actions: jax.Array
    states: PyTree
    cost: jax.Array
    costs: dict[str, jax.Array]
    status: jax.Array
    info: dict[str, Any]
    memory: Any = None


class PlannerFunctions(NamedTuple):
    """The fields of a `Planner`."""

    init: Callable[..., Any]
    step: Callable[[PyTree, PyTree, Any], Any]
    plan: Callable[[PyTree, PyTree, Any], Plan]
    shift: Callable[[Any], Any]
    inject: Callable[[Any, jax.Array], Any]
    problem: Problem
    best_actions: Callable[[PyTree, PyTree, Any], tuple[jax.Array, jax.Array, dict[str, Any]]] | None = None


class Planner(PlannerFunctions):
    """An algorithm as a value: five pure functions over its own state.

    `init(params, state, key, guess) -> planner_state`: begin; `guess` is a plan's actions `[H, ...]` or None.
    `step(params, state, planner_state) -> planner_state`: one improvement. The planner's state carries `cost` (best so
    far) and `optimality` (a scalar that tends to 0), so every planner is anytime. A `cost` of infinity marks a plan that
    was not scored yet: `init` and `shift` leave it so, and `invalidate` sets it where the problem changes.
    `plan(params, state, planner_state) -> Plan`: the best found.
    `shift(planner_state) -> planner_state`: one time step later; the warm start of the next decision.
    `inject(planner_state, actions) -> planner_state`: take up a candidate `[H, ...]` from elsewhere, as `init` takes a
    guess, without losing the plan under way: after the next step, the plan costs no more than either. A candidate that is
    not finite is ignored, and the state's shapes stay.
    `best_actions(params, state, planner_state) -> (actions, found, info)`: the actions that `plan` rolls out, whether their
    cost is finite, and diagnostics (see `conclude`); optional, for planners around this one, which need no rollout.
    """

    def __new__(cls, *fields: Any, **named: Any) -> "Planner":
        own: list[Any] = [with_usual_promotion(x) if callable(x) else x for x in PlannerFunctions(*fields, **named)]
        return super().__new__(cls, *own)

    def actions(self, params: PyTree, state: PyTree, planner_state: Any) -> jax.Array:
        """The best actions `[H, ...]` found so far."""
        return self.chosen_plan(params, state, planner_state)[0]

    def chosen_plan(self, params: PyTree, state: PyTree, planner_state: Any) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        """The result of `best_actions`, or the same read off `plan` where there is no such function."""
        if self.best_actions is not None:
            return self.best_actions(params, state, planner_state)
        plan = self.plan(params, state, planner_state)
        return plan.actions, plan.status != Status.NOT_FINITE, plan.info


def invalidate(planner_state: Any) -> Any:
    """The planner's state after its problem changed: the cost of its plan is unknown.

    A state that depends on the problem in other ways has a method of the same name.
    """
    forget = getattr(planner_state, "invalidate", None)
    return planner_state._replace(cost=jnp.full_like(planner_state.cost, jnp.inf)) if forget is None else forget()


def resume(planner_state: Any) -> Any:
    """The planner's state for another solve, of which parameters and state may be others: the plan, and no cost known.

    A state that holds others, or whose plan is not what it improves next, has a method of the same name.
    """
    own = getattr(planner_state, "resume", None)
    return invalidate(planner_state) if own is None else own()


def require_no_latents(problem: Problem) -> None:
    """Refuse, when a planner is built, a problem that no planner solves as it stands.

    Raises:
        ValueError: If the problem's latents are not accounted for.
    """
    if problem.latents is not None:
        raise ValueError(
            f"planners infer actions, but this problem also has a latent of size {problem.latents} per step: "
            "choose a measure over it, with mpc.risk.over_latents(problem, measure, count)"
        )


def bounded(problem: Problem, who: str) -> None:
    """Refuse, when a planner is built that draws its actions from within the bounds, a space without them.

    Raises:
        ValueError: If a bound of the action space is infinite.
    """
    if not problem.action_space.bounded:
        raise ValueError(f"{who} needs finite bounds on every action; got {problem.action_space}")


def rank_key(plan: Plan) -> tuple[jax.Array, jax.Array]:
    """The key that ranks plans: grade (0 feasible, 1 infeasible, 2 not finite), then merit; lower is better.

    The merit is the cost of a feasible plan and the infeasibility of another.
    """
    infeasible, finite = plan.status == Status.INFEASIBLE, plan.status != Status.NOT_FINITE
    merit = jnp.where(infeasible, plan.info["infeasibility"], plan.cost) if "infeasibility" in plan.info else plan.cost
    return jnp.where(finite, jnp.where(infeasible, 1, 0), 2), jnp.where(finite, merit, jnp.inf)


def best_of(plans: Plan) -> Plan:
    """The best of plans side by side, `[N, ...]`."""
    grade, merit = rank_key(plans)
    leader = jnp.argmin(jnp.where(grade == grade.min(), merit, jnp.inf))
    return jax.tree.map(lambda x: x[leader], plans)


def tree_where(condition: jax.Array, one: PyTree, other: PyTree) -> PyTree:
    """One tree or another of the same types, leaf by leaf."""
    return jax.tree.map(partial(jnp.where, condition), one, other)


def shifted(x: jax.Array) -> jax.Array:
    """Rows `[H, ...]` one time step later, the last one repeated."""
    return jnp.concatenate([x[1:], x[-1:]])


def smoothing(horizon: int, correlation: float = 0.8) -> np.ndarray:
    """The matrix `[H, H]` that turns white noise n into `w[t] = ρ w[t-1] + sqrt(1 - ρ²) n[t]`, for ρ = `correlation`."""
    lag = np.arange(horizon)[:, None] - np.arange(horizon)[None]
    return np.where(lag >= 0, np.sqrt(1 - correlation**2) * correlation ** np.maximum(lag, 0), 0.0)


def conclude(
    problem: Problem,
    params: PyTree,
    state: PyTree,
    actions: jax.Array,
    ok: jax.Array,
    info: dict[str, Any],
    moves: Any = 0.0,
) -> Plan:
    """Roll the chosen actions `[H, ...]` out and make a plan of them.

    Args:
        problem: The problem that was searched.
        params: Its parameters.
        state: Where to start.
        actions: As executed, in bounds.
        ok: Whether the search found any finite cost.
        info: The planner's diagnostics, with the infeasibility of these actions where it is known; the costates `λ[t]`,
            `[H+1, ...]`, are added where the problem's functions have derivatives.
        moves: The least by which infeasibility is measured, see `mpc.feasibility`.
    """
    shown = problem.action_space.embed(actions)
    try:
        future, adjoint = rollout_and_costates(problem, params, state, shown)
        info = info | {"costates": adjoint}
    except (TypeError, ValueError, NotImplementedError):  # no derivatives; what is wrong besides is raised again
        future = rollout(problem, params, state, shown)
    status = jnp.asarray(Status.ITERATIONS)
    if problem.constraints:
        largest = info.get("infeasibility")
        largest = infeasibility(problem, params, future.states, shown, moves) if largest is None else largest
        named = violation(problem.constraints, params, future.states, shown)
        info = info | {"violation": named, "infeasibility": largest}
        status = jnp.where(largest <= 1, status, Status.INFEASIBLE)
    status = jnp.where(ok & jnp.isfinite(future.energy), status, Status.NOT_FINITE)
    return Plan(actions, future.states, future.energy, future.costs, status, info)


def plan_from_choice(
    problem: Problem, best_actions: Callable[..., tuple[jax.Array, jax.Array, dict[str, Any]]]
) -> Callable[..., Plan]:
    """The `plan` of a planner that has `best_actions`: it rolls them out."""
    return lambda params, state, planner_state: conclude(problem, params, state, *best_actions(params, state, planner_state))


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
