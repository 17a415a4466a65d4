"""The planner protocol, a value made of five pure functions, and `solve`, which runs any planner."""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.constraints import violation
from mpc.feasibility import infeasibility
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


def best_of(plans: Plan, handicaps: jax.Array | float = 0.0) -> Plan:
    """The best of plans side by side, `[N, ...]`, their merits raised by `handicaps`, `[N]`."""
    grade, merit = rank_key(plans)
    leader = jnp.argmin(jnp.where(grade == grade.min(), merit + handicaps, jnp.inf))
    return jax.tree.map(lambda x: x[leader], plans)


def tree_where(condition: jax.Array, one: PyTree, other: PyTree) -> PyTree:
    """One tree or another of the same types, leaf by leaf."""
    return jax.tree.map(partial(jnp.where, condition), one, other)


def all_finite(tree: PyTree) -> jax.Array:
    """Tell whether all numbers of a tree are finite."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), tree), jnp.asarray(True))


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
