"""Policies: everything that decides, as pure functions of parameters and an observation.

    state           = policy.init(params, observation, key)              an episode begins
    state, decision = policy.step(params, observation, state)            Mode 2: improve the shifted plan, act
    state, decision = policy.react(params, observation, state)           Mode 1: act without planning

Controllers, exporters, real-time loops and servers know nothing else of what decides. `policy` builds one from a planner:
the receding horizon, in which every decision improves the last plan, executes its first action and shifts the rest.

A decision that cannot be trusted, because the observation or the plan is not finite, falls back on the next action of the
last plan that could be trusted, and, once that plan is used up, on the neutral action.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.deploy.specs import InFlight
from mpc.planners.base import Plan, Planner, Status, tree_where
from mpc.precision import as_dynamics_keep
from mpc.problem import Problem, with_usual_promotion
from mpc.spaces import Space

PyTree = Any

__all__ = ["ControllerState", "Decision", "InFlight", "Phases", "Policy", "PolicyState", "policy"]


class Decision(NamedTuple):
    """One decision.

    `action`: `[...]`, executed now; finite and in bounds whatever happened. `plan`: its `actions` `[H, ...]` are this action
    and the next ones, one per environment step. `status`: an `mpc.Status` code.
    """

    action: jax.Array
    plan: Plan
    status: jax.Array


class Phases(NamedTuple):
    """The parts of a `step`, for a loop that looks at the clock in between.

    `step` equals `finish(params, improve(params, prepare(params, observation, state, in_flight), n))`.

    `prepare(params, observation, state, in_flight) -> working`: take the observation in; `in_flight` may be None.
    `improve(params, working, iterations) -> working`: spend that many iterations, a number known when it is traced.
    `finish(params, working) -> (state, Decision)`.
    `made(working) -> int`: iterations that this decision has made, which are fewer than asked for where it has converged;
    None where they never are.
    """

    prepare: Callable[[PyTree, PyTree, PyTree, InFlight | None], Any]
    improve: Callable[[PyTree, Any, int], Any]
    finish: Callable[[PyTree, Any], tuple[Any, Decision]]
    made: Callable[[Any], jax.Array] | None = None


class Policy(NamedTuple):
    """Pure functions that decide; `jit` them, and `vmap` them over environments.

    `init(params, observation, key) -> state`: an episode begins; it may search widely.
    `step(params, observation, state, in_flight=None) -> (state, Decision)`: improve the plan, act (Mode 2).
    `react`: of the same signature, act without planning (Mode 1); None where there is no actor.
    `action_space`: of one executed action. `horizon`: length of a decision's `plan.actions`.
    `skip(state, steps) -> state`: the state some steps later, where decisions were missed.
    `phases`: the parts of `step`, or None where a step is indivisible.
    """

    init: Callable[[PyTree, PyTree, jax.Array], Any]
    step: Callable[..., tuple[Any, Decision]]
    react: Callable[..., tuple[Any, Decision]] | None
    action_space: Space
    horizon: int
    skip: Callable[[Any, Any], Any]
    phases: Phases | None = None


class ControllerState(NamedTuple):
    """The state of a receding horizon between two decisions.

    `planner_state`: the planner's state. `fallback`: `[H, ...]`, actions to fall back on, the next one first.
    """

    planner_state: Any
    fallback: jax.Array


class PolicyState(NamedTuple):
    """The state of a policy made by `policy`.

    `controller`: the receding horizon. `last_action`: `[...]`, the action decided on last; NaN, or the lowest choice, where
    there was none.
    """

    controller: ControllerState
    last_action: jax.Array


class Working(NamedTuple):
    """A decision of a policy made by `policy`, under way.

    `state`: the model state to plan from. `controller`: the receding horizon as it is by now; `before`: as it was before the
    decision, to return to if the decision fails. `last_action`: `[...]`, the action executed last. `made`: iterations.
    """

    state: PyTree
    controller: ControllerState
    before: ControllerState
    last_action: jax.Array
    made: jax.Array


def policy(
    planner: Planner,
    *,
    iterations: int = 20,
    tolerance: float | None = None,
    observe: Callable[[PyTree, PyTree], PyTree] | None = None,
    advance: Callable[[PyTree, PyTree, jax.Array], PyTree] | None = None,
) -> Policy:
    """Builds the policy of a receding horizon from a planner.

    Args:
        planner: Any planner.
        iterations: Improvements per step, at most so many with a tolerance.
        tolerance: The planner's optimality measure at which a decision has converged, whose status then is `CONVERGED`, or
            None to make all iterations.
        observe: `(params, observation) -> state`, for example an encoder; None where the model state itself is observed.
        advance: `(params, state, action) -> state` one step later, for actions that are in flight; the planner's own model
            unless given. Problems with a `lift` need one.

    Raises:
        ValueError: If `iterations` is not at least 1, or the tolerance is negative. When `init` is traced: if the problem's
            functions do not fit the state. When `step` is traced with actions in flight: if the problem has a `lift` and
            there is no `advance`.

    Example:
        >>> import mpc
        >>> step = lambda params, state, action: state + 0.1 * action
        >>> problem = mpc.Problem(step, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0]))
        >>> policy = mpc.policy(mpc.gradient(problem, starts=4), iterations=10)
        >>> state = policy.init(None, jnp.ones(1), jax.random.key(0))
        >>> state, decision = policy.step(None, jnp.ones(1), state)
        >>> bool(decision.action[0] < -0.9)
        True
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, or None; got {tolerance}")
    observe = observe or (lambda params, observation: observation)
    prepare = partial(_prepare, planner, observe, advance or partial(model_advance, planner.problem))
    made = None if tolerance is None else lambda working: working.made
    phases = Phases(prepare, partial(_improve, planner, tolerance), partial(_finish, planner, tolerance), made)
    return Policy(
        partial(_init, planner, observe),
        in_phases(phases, iterations),
        None,
        planner.problem.action_space,
        planner.problem.horizon,
        partial(_skip, planner),
        phases,
    )


def _init(
    planner: Planner, observe: Callable[..., PyTree], params: PyTree, observation: PyTree, key: jax.Array
) -> PolicyState:
    params = planner.problem.action_space.remember(params, None)
    state = as_dynamics_keep(planner.problem, params, observe(params, observation))
    planner.problem.check(params, state)
    first = neutral(planner)[0]
    return PolicyState(begin(planner, params, state, key), first if _counted(first) else jnp.full_like(first, jnp.nan))


def in_phases(phases: Phases, iterations: int) -> Callable[..., tuple[Any, Decision]]:
    """Returns the `step` that takes all phases one after the other, with so many iterations."""
    return partial(_step, phases, iterations)


def _step(
    phases: Phases, iterations: int, params: PyTree, observation: PyTree, state: Any, in_flight: InFlight | None = None
) -> tuple[Any, Decision]:
    working = phases.prepare(params, observation, state, in_flight)
    return phases.finish(params, phases.improve(params, working, iterations))


def _prepare(
    planner: Planner,
    observe: Callable[..., PyTree],
    advance: Callable[..., PyTree],
    params: PyTree,
    observation: PyTree,
    state: PolicyState,
    in_flight: InFlight | None,
) -> Working:
    last = state.last_action
    if in_flight is not None:  # the action sent may differ from the one decided on
        newest = jnp.asarray(in_flight.actions[-1], last.dtype)
        last = jnp.where(jnp.isfinite(newest).all(), newest, last)
    params = planner.problem.action_space.remember(params, last)
    seen = as_dynamics_keep(planner.problem, params, observe(params, observation))
    if in_flight is not None:
        seen = predict_through_delay(advance, params, seen, in_flight)
    return Working(seen, state.controller, state.controller, last, jnp.zeros((), jnp.int32))


def _improve(planner: Planner, tolerance: float | None, params: PyTree, working: Working, iterations: int) -> Working:
    params, state = planner.problem.action_space.remember(params, working.last_action), working.state
    if tolerance is None:
        controller = improve(planner, params, state, working.controller, iterations)
        return working._replace(controller=controller, made=working.made + iterations)
    most = working.made + iterations

    def unfinished(working: Working) -> jax.Array:
        return (working.made < most) & ~_converged(working, tolerance)

    def one_more(working: Working) -> Working:
        return working._replace(controller=improve(planner, params, state, working.controller, 1), made=working.made + 1)

    return jax.lax.while_loop(unfinished, one_more, working)


def _converged(working: Working, tolerance: float) -> jax.Array:
    return (working.made > 0) & (working.controller.planner_state.optimality <= tolerance)


def _finish(planner: Planner, tolerance: float | None, params: PyTree, working: Working) -> tuple[PolicyState, Decision]:
    params = planner.problem.action_space.remember(params, working.last_action)
    controller, decision = finish(planner, params, working.state, working.controller, working.before)
    if tolerance is not None:
        converged = (decision.status == Status.ITERATIONS) & _converged(working, tolerance)
        status = jnp.where(converged, Status.CONVERGED, decision.status).astype(decision.status.dtype)
        plan = decision.plan._replace(status=status, info=decision.plan.info | {"iterations": working.made})
        decision = decision._replace(plan=plan, status=status)
    return PolicyState(controller, decision.action), decision


def _skip(planner: Planner, state: PolicyState, steps: Any) -> PolicyState:
    controller = jax.lax.fori_loop(0, steps, lambda _, c: shift(planner, c), state.controller)
    return state._replace(controller=controller)


# The receding horizon of one planner, of which policies are made


@with_usual_promotion
def neutral(planner: Planner) -> jax.Array:
    """Returns the actions `[H, ...]` taken when nothing is known: the middle of the space, or its first alternative."""
    problem = planner.problem
    return problem.action_space.decide(jnp.zeros((problem.horizon, problem.action_space.size)))


def begin(
    planner: Planner, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None
) -> ControllerState:
    """Begins a receding horizon, with nothing to fall back on yet.

    Args:
        planner: The planner.
        params: Parameters of its problem.
        state: The model state to plan from.
        key: Randomness of the planner.
        guess: `[H, ...]`, actions to begin with, or None.
    """
    return ControllerState(planner.init(params, planner.problem.lifted(params, state), key, guess), neutral(planner))


def improve(
    planner: Planner, params: PyTree, state: PyTree, controller: ControllerState, iterations: int
) -> ControllerState:
    """Spends iterations on the decision at hand."""
    state = planner.problem.lifted(params, state)
    improved = jax.lax.fori_loop(0, iterations, lambda _, s: planner.step(params, state, s), controller.planner_state)
    return controller._replace(planner_state=improved)


@with_usual_promotion
def conclude(
    planner: Planner, params: PyTree, state: PyTree, controller: ControllerState, before: ControllerState
) -> tuple[ControllerState, Plan]:
    """Takes the plan out of a decision's iterations, or falls back where it cannot be trusted.

    Args:
        planner: The planner.
        params: Parameters of its problem.
        state: The model state that was planned from.
        controller: The receding horizon after the iterations.
        before: The receding horizon before them.

    Returns:
        The receding horizon, not shifted, with the plan's actions to fall back on; and the plan, finite and in bounds.
    """
    plan = planner.plan(params, planner.problem.lifted(params, state), controller.planner_state)
    fine = jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), (state, plan.actions, plan.cost)))
    trusted = fine & (plan.status != Status.NOT_FINITE)
    fallback = planner.problem.action_space.bind(params).permit(before.fallback)
    actions = jnp.where(trusted, plan.actions, fallback)
    planner_state = tree_where(trusted, controller.planner_state, before.planner_state)
    plan = plan._replace(actions=actions, status=jnp.where(trusted, plan.status, Status.NOT_FINITE))
    return ControllerState(planner_state, actions), plan


def shift(planner: Planner, controller: ControllerState) -> ControllerState:
    """Moves the receding horizon one step on."""
    fallback = jnp.concatenate([controller.fallback[1:], neutral(planner)[-1:]])
    return ControllerState(planner.shift(controller.planner_state), fallback)


def finish(
    planner: Planner, params: PyTree, state: PyTree, controller: ControllerState, before: ControllerState
) -> tuple[ControllerState, Decision]:
    """Ends a decision, as `conclude` does, and shifts the receding horizon to where the next decision finds it."""
    controller, plan = conclude(planner, params, state, controller, before)
    return shift(planner, controller), Decision(plan.actions[0], plan, plan.status)


# Delays


def model_advance(problem: Problem, params: PyTree, state: PyTree, action: jax.Array) -> PyTree:
    """Returns the state one step later, by the problem's own model.

    Raises:
        ValueError: If the model carries another state along than it is given (see `Problem.lift`).
    """
    if problem.lift is not None:
        raise ValueError(
            "a delay is compensated by predicting the observed state, but this problem's dynamics carry another one along "
            "(Problem.lift): give mpc.policy(..., advance=function) that predicts the observed one, or export without delay"
        )
    later = problem.dynamics(params, state, problem.action_space.embed(action))
    return jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), later, state)


def predict_through_delay(
    advance: Callable[[PyTree, PyTree, jax.Array], PyTree], params: PyTree, state: PyTree, in_flight: InFlight
) -> PyTree:
    """Predicts the state in which a plan made now begins to act.

    Args:
        advance: `(params, state, action) -> state` one step later.
        params: Its parameters.
        state: As observed.
        in_flight: The actions sent last, of which the newest `count` are not in the state yet. Those that are not finite
            were not sent, and change nothing.
    """
    actions = jnp.asarray(in_flight.actions)
    for index in range(1, len(actions)):
        acts = (index >= len(actions) - in_flight.count) & jnp.isfinite(actions[index]).all()
        state = tree_where(acts, advance(params, state, actions[index]), state)
    return state


def _counted(actions: jax.Array) -> bool:
    """Returns whether actions are choices, which have no NaN."""
    return not jnp.issubdtype(actions.dtype, jnp.floating)
