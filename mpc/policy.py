"""Decisions as pure functions of parameters and an observation: what an agent calls, and what is exported from it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.controller import ControllerState, begin, decide, neutral
from mpc.planners.base import Plan, Planner

PyTree = Any


class Policy(NamedTuple):
    """A planner together with how it is told what is seen, how it begins, and how it goes on.

    `observe(params, observation) -> state`: the state that is planned from.
    `begin(params, state, key) -> loop`: a control loop's first memory, a `ControllerState`.
    `decide(params, state, loop) -> (loop, plan, action)`: one decision, and the memory for the next one.
    `advance(params, state, action) -> state`: what an action already under way will have changed by the time the plan acts.
    `react(params, state) -> action`: what a learnt actor does without planning; None where there is none.
    """

    planner: Planner
    observe: Callable[[PyTree, jax.Array], PyTree]
    begin: Callable[[PyTree, PyTree, jax.Array], ControllerState]
    decide: Callable[[PyTree, PyTree, ControllerState], tuple[ControllerState, Plan, jax.Array]]
    advance: Callable[[PyTree, PyTree, jax.Array], PyTree]
    react: Callable[[PyTree, PyTree], jax.Array] | None = None


def policy(
    planner: Planner, *, iterations: int = 20, observe: Callable[[PyTree, jax.Array], PyTree] | None = None
) -> Policy:
    """The policy of a receding horizon: every decision improves the last one's plan, as `mpc.Controller` does.

    Args:
        planner: Any planner.
        iterations: Improvements per decision.
        observe: `(params, observation) -> state`, for example an encoder; None where the state itself is observed.

    Raises:
        ValueError: If `iterations` is not at least 1.

    Example:
        >>> import mpc
        >>> step = lambda params, state, action: state + 0.1 * action
        >>> problem = mpc.Problem(step, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0]))
        >>> decisions = mpc.policy(mpc.gradient(problem, starts=4), iterations=10)
        >>> loop = decisions.begin(None, jnp.ones(1), jax.random.key(0))
        >>> bool(decisions.decide(None, jnp.ones(1), loop)[2][0] < -0.9)
        True
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}")
    return Policy(
        planner,
        observe or (lambda params, observation: observation),
        partial(begin, planner),
        lambda params, state, loop: decide(planner, params, state, loop, iterations),
        partial(advance, planner),
    )


def advance(planner: Planner, params: PyTree, state: PyTree, action: jax.Array) -> PyTree:
    """The state one step later, by the planner's own model.

    Raises:
        ValueError: If the model carries another state along than it is given (see `Problem.lift`).
    """
    problem = planner.problem
    if problem.lift is not None:
        raise ValueError(
            "delays are made up for by predicting the state, and this problem's dynamics carry another state along than the "
            "one that is observed: give a Policy whose `advance` predicts the latter"
        )
    later = problem.dynamics(params, state, problem.action_space.embed(action))
    return jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), later, state)


def predict_through_delay(decisions: Policy, params: PyTree, state: PyTree, recent: jax.Array, flying: jax.Array) -> PyTree:
    """The state in which a plan made now will begin to act.

    Args:
        decisions: Predicts.
        params: Parameters of its planner's problem.
        state: As observed.
        recent: `[D+1, ...]`, the actions sent last, newest last.
        flying: How many of them, at most D, the observation does not show yet.
    """
    for index in range(1, len(recent)):
        later = decisions.advance(params, state, recent[index])
        state = jax.tree.map(partial(jnp.where, index >= len(recent) - flying), later, state)
    return state


def skip(planner: Planner, loop: ControllerState, steps: jax.Array) -> ControllerState:
    """A loop's memory some steps later, where decisions did not keep pace with time."""

    def later(_: Any, loop: ControllerState) -> ControllerState:
        return ControllerState(planner.shift(loop.planner), jnp.concatenate([loop.backup[1:], neutral(planner)[-1:]]))

    return jax.lax.fori_loop(0, steps, later, loop)
