"""The agent's policy: take an observation in, improve the plan under way, act; or react without planning.

One function makes the policy of every agent: seeking rewards or reaching goals, with one level or several, from vectors,
histories or images, with or without a latent variable. What differs are the parts and `params`:

    params = {"model", "cost": {"weights", "goal", "limits"}, "distance", "actor", "critic", "decoder", "macro", "risk",
              "iterations"}

None of them recompiles anything.

    belief:   s[t] = the latent of the observation, with the predictor's carry and corrections as predicted
    Mode 2:   the plan under way, the actor's proposal beside it, a few improvements, its next actions
    Mode 1:   the actor's actions, with what was planned before behind them
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mpc
from mpc.agent.actor.distillation import react as follow_actor
from mpc.agent.perception.action_space import ActionSpaces
from mpc.agent.perception.history import History
from mpc.agent.world_model import residual_correction
from mpc.agent.world_model.residual_correction import Corrections
from mpc.planners.base import all_finite, tree_where
from mpc.policy import ControllerState, InFlight, begin, conclude, finish, improve, shift
from mpc.precision import as_dynamics_keep
from world_models.base import LatentState, WorldModel, initial_state

PyTree = Any
Array = jax.Array
Act = Callable[[PyTree, LatentState], Array]


class PolicyState(NamedTuple):
    """All that persists from one decision to the next.

    `planning`: of the planner, or of every level. `belief`: the state that was planned from. `history`: observations.
    `plan`: the last one, its `actions` `[P, ...]` one per environment step. `age`: how many of these were executed.
    `begun`: whether a decision was made. `unplanned`: decisions since the last plan. `corrections`: recent errors.
    """

    planning: Any
    belief: LatentState
    history: Array
    plan: mpc.Plan
    age: Array
    begun: Array
    unplanned: Array
    corrections: Corrections
    key: Array


class Planning(NamedTuple):
    """Functions that make and keep plans, for one level or several.

    `init(params, belief, key, wide) -> (planning, Plan)`; `step(params, belief, planning, candidate) -> (planning, Plan)`,
    the plan's actions being safe; `shift(planning) -> planning`, a model step later; `fallback(planning) -> [H, ...]`.
    """

    init: Callable[..., tuple[Any, mpc.Plan]]
    step: Callable[..., tuple[Any, mpc.Plan]]
    shift: Callable[[Any], Any]
    fallback: Callable[[Any], Array]
    problem: mpc.Problem


class AgentPolicy(NamedTuple):
    """The functions of a policy; `as_policy` makes an `mpc.Policy` of them.

    `init(params, observation, key, wide=True) -> PolicyState`. `decide(params, observation, state, in_flight=None) ->
    PolicyState` plans anew, `hold(params, observation, state)` keeps to the plan, `react(params, observation, state)` takes
    the actor's actions (None without one). After `decide` and `react` the next action is `state.plan.actions[0]`.
    """

    init: Callable[..., PolicyState]
    decide: Callable[..., PolicyState]
    hold: Callable[..., PolicyState]
    react: Callable[..., PolicyState] | None
    planning: Planning
    spaces: ActionSpaces
    every: int


def single_level(wide: mpc.Planner, planner: mpc.Planner, first_iterations: int) -> Planning:
    """Plan on one level, as a receding horizon.

    `wide` makes an episode's first plan by `first_iterations`, which later ones stay near; `planner` improves plans from one
    decision to the next by `params["iterations"]`.
    """

    def init(params: PyTree, belief: LatentState, key: Array, guess: Array | None, search: bool = True):
        if not search:  # compiles no planner
            begun = begin(planner, params, belief, key, guess)
            return begun, conclude(planner, params, belief, begun, begun)[1]._replace(info={})
        found = mpc.solve(wide, params, belief, key, first_iterations, guess=guess)
        return begin(planner, params, belief, key, found.actions), found._replace(info={}, memory=None)

    def step(params: PyTree, belief: LatentState, planning: ControllerState, candidate: Array | None):
        tried = planning
        if candidate is not None:
            tried = planning._replace(planner_state=planner.inject(planning.planner_state, candidate))
        improved = improve(planner, params, belief, tried, params["iterations"])
        later, decision = finish(planner, params, belief, improved, planning)
        return later, decision.plan._replace(info={})

    return Planning(init, step, partial(shift, planner), lambda planning: planning.fallback, planner.problem)


class Parts(NamedTuple):
    """Parts of a policy besides its planning.

    `advance(params, state, action) -> state`: a step of the planner's problem, with the latent variable at its mean; without
    corrections in `params`, of the model alone. `act`: None without an actor.
    """

    model: WorldModel
    advance: Callable[..., LatentState]
    spaces: ActionSpaces
    history: History
    act: Act | None
    correction_memory: int
    every: int


def agent_policy(parts: Parts, planning: Planning) -> AgentPolicy:
    """Make the functions of a policy.

    Raises:
        ValueError: When traced, if plans are to be made within blocks and the predictor carries something from step to step.
    """

    def init(params: PyTree, observation: Array, key: Array, wide: bool = True) -> PolicyState:
        history = parts.history.begin(observation)
        belief = _encode(parts, planning.problem, params, history)
        corrections = residual_correction.nothing(parts.correction_memory, belief.latent.shape[0], parts.spaces.block.size)
        given = _with_corrections(params, corrections)
        key, draw = jax.random.split(key)
        # the actor proposes when the first decision is made: it must not narrow the wide search
        started, plan = planning.init(given, belief, draw, None, wide)
        flat = plan._replace(actions=parts.spaces.per_step(plan.actions))
        zero = jnp.zeros((), jnp.int32)
        return PolicyState(started, belief, history, flat, zero, jnp.asarray(False), zero, corrections, key)

    def look(params: PyTree, observation: Array, state: PolicyState, in_flight: InFlight | None = None):
        """The state after an observation was taken in, and the parameters to plan with."""
        seen = _observed(parts, observation, state, in_flight)
        belief, corrections = _perceive(parts, planning.problem, params, seen, state)
        given = _with_corrections(params, corrections)
        if in_flight is not None:
            belief = _through_delay(parts, params, belief, in_flight)
        return state._replace(belief=belief, history=seen, corrections=corrections), given

    def decide(params: PyTree, observation: Array, state: PolicyState, in_flight: InFlight | None = None) -> PolicyState:
        state, given = look(params, observation, state, in_flight)
        ready = _aligned(parts, planning, given, state)
        candidate = None if parts.act is None else proposal(parts, planning, given, state.belief)
        later, plan = planning.step(given, state.belief, ready, candidate)
        for _ in range(parts.every // parts.spaces.count - 1):
            later = planning.shift(later)
        return _decided(parts, state, later, plan, unplanned=jnp.zeros_like(state.unplanned))

    def hold(params: PyTree, observation: Array, state: PolicyState) -> PolicyState:
        return state._replace(history=_observed(parts, observation, state), age=state.age + 1)

    def react(params: PyTree, observation: Array, state: PolicyState) -> PolicyState:
        state, given = look(params, observation, state)
        count = -(-parts.every // parts.spaces.count)
        taken = proposal(parts, planning, given, state.belief, count)
        actions = jnp.concatenate([taken, planning.fallback(state.planning)[count:]])
        later = state.planning
        for _ in range(count):
            later = planning.shift(later)
        unknown = jnp.asarray(jnp.inf, state.plan.cost.dtype)
        plan = state.plan._replace(actions=actions, cost=unknown, status=jnp.full_like(state.plan.status, 0))
        return _decided(parts, state, later, plan, unplanned=state.unplanned + 1)

    return AgentPolicy(init, decide, hold, None if parts.act is None else react, planning, parts.spaces, parts.every)


def as_policy(made: AgentPolicy) -> mpc.Policy:
    """Return the policy that controllers, exporters and servers know: one step per environment step.

    Observations are as the environment returns them; `params["origin"]` is subtracted where there is one.
    """
    horizon = made.planning.problem.horizon * made.spaces.count

    def init(params: PyTree, observation: Array, key: Array) -> PolicyState:
        return made.init(params, relative(params, observation), key)

    def decision(state: PolicyState) -> tuple[PolicyState, mpc.Decision]:
        index = jnp.minimum(jnp.arange(horizon) + state.age, horizon - 1)
        plan = state.plan._replace(actions=state.plan.actions[index])
        return state, mpc.Decision(plan.actions[0], plan, plan.status)

    def stepping(decide: Callable[..., PolicyState]) -> Callable[..., tuple[PolicyState, mpc.Decision]]:
        def step(params: PyTree, observation: Array, state: PolicyState, in_flight: InFlight | None = None):
            given, observation = () if in_flight is None else (in_flight,), relative(params, observation)
            if made.every == 1:
                return decision(decide(params, observation, state, *given))
            due = ~state.begun | (state.age + 1 >= made.every)
            anew, go_on = (lambda s: decide(params, observation, s, *given)), (lambda s: made.hold(params, observation, s))
            return decision(jax.lax.cond(due, anew, go_on, state))

        return step

    def skip(state: PolicyState, steps: Array) -> PolicyState:
        def later(_: Any, state: PolicyState) -> PolicyState:
            return state._replace(planning=made.planning.shift(state.planning))

        # a block that was begun is carried on; what is missed are whole blocks
        missed = steps if made.spaces.count == 1 else steps // made.spaces.count
        return jax.lax.fori_loop(0, missed, later, state)

    react = None if made.react is None else stepping(lambda p, o, s, *_: made.react(p, o, s))  # type: ignore[misc]
    return mpc.Policy(init, stepping(made.decide), react, made.spaces.single, horizon, skip)


def relative(params: PyTree, observation: Array) -> Array:
    """Return an observation as the model takes it: relative to `params["origin"]`, where there is one."""
    return observation - params["origin"] if "origin" in params else observation


def proposal(parts: Parts, planning: Planning, params: PyTree, belief: LatentState, steps: int | None = None) -> Array:
    """Return what the actor would do from a state: blocks of actions `[steps, ...]`; over the horizon if None."""
    assert parts.act is not None
    problem = replace(planning.problem, dynamics=parts.advance)
    return problem.action_space.decide(follow_actor(problem, parts.act, params, belief, steps))


def _encode(parts: Parts, problem: mpc.Problem, params: PyTree, history: Array) -> LatentState:
    return as_dynamics_keep(problem, params, parts.model.encode(params["model"], parts.history.model_input(history)))


def _with_corrections(params: PyTree, corrections: Corrections) -> PyTree:
    return params if len(corrections.reach) == 0 else params | {"corrections": corrections}


def _observed(parts: Parts, observation: Array, state: PolicyState, in_flight: InFlight | None = None) -> Array:
    """The history after an observation; the first one is known already."""
    if parts.history.steps == 1:
        return parts.history.append(state.history, observation, None)
    action = parts.spaces.recorded(_executed(state, in_flight))
    newer = parts.history.append(state.history, observation, action).astype(state.history.dtype)
    return jnp.where(state.begun, newer, state.history)


def _executed(state: PolicyState, in_flight: InFlight | None) -> Array:
    """The action executed last: the one sent, where it is told, else the one decided on. Choices sent are not told apart."""
    decided = state.plan.actions[state.age]
    if in_flight is None or not jnp.issubdtype(decided.dtype, jnp.floating):
        return decided
    sent = jnp.asarray(in_flight.actions[-1], decided.dtype)
    return jnp.where(jnp.isfinite(sent).all(), sent, decided)


def _perceive(
    parts: Parts, problem: mpc.Problem, params: PyTree, history: Array, state: PolicyState
) -> tuple[LatentState, Corrections]:
    """The belief after the actions executed since the last plan: the latent as seen where finite, else as predicted."""
    seen = _encode(parts, problem, params, history)
    if parts.every % parts.spaces.count:
        if jax.tree.leaves(seen.carry):
            raise ValueError(
                f"this predictor carries a state from block to block of {parts.spaces.count} actions: replan_every must be "
                f"a multiple of that; got {parts.every}"
            )
        return tree_where(all_finite(seen) | ~state.begun, seen, _arrived(state.belief)), state.corrections
    taken = parts.spaces.in_blocks(state.plan.actions[: parts.every])
    before = expected = state.belief
    for action in taken:
        before, expected = expected, parts.advance(params, expected, parts.spaces.block.embed(action))
    belief = _arrived(expected._replace(latent=jnp.where(all_finite(seen.latent), seen.latent, expected.latent)))
    done = parts.spaces.variables(parts.spaces.block.embed(taken[-1]))
    newer = residual_correction.remember(state.corrections, before.latent, done, expected.latent, belief.latent)
    corrections = tree_where(all_finite(newer) & state.begun, newer, state.corrections)
    return tree_where(all_finite(belief) & state.begun, belief, seen), corrections


def _through_delay(parts: Parts, params: PyTree, belief: LatentState, in_flight: InFlight) -> LatentState:
    """The belief once the actions in flight have acted."""
    if len(in_flight.actions) > 1 and parts.spaces.count > 1:
        raise ValueError(f"delays cannot be predicted through by a model of {parts.spaces.count} actions a step")
    for index in range(1, len(in_flight.actions)):
        later = parts.advance(params, belief, parts.spaces.single.embed(in_flight.actions[index]))
        belief = tree_where(index >= len(in_flight.actions) - in_flight.count, _arrived(later), belief)
    return belief


def _aligned(parts: Parts, planning: Planning, params: PyTree, state: PolicyState) -> Any:
    """The planning to go on from; begun anew where the plan goes on in the middle of a block."""
    if parts.every % parts.spaces.count == 0:
        return state.planning
    actions = state.plan.actions
    left = jnp.concatenate([actions[parts.every :], jnp.repeat(actions[-1:], parts.every, axis=0)])
    left = parts.spaces.in_blocks(jnp.where(state.begun, left, actions))
    begun, _ = planning.init(params, state.belief, state.key, left, False)
    return begun._replace(fallback=left)


def _decided(parts: Parts, state: PolicyState, planning: Any, plan: mpc.Plan, unplanned: Array) -> PolicyState:
    flat = plan._replace(actions=parts.spaces.per_step(plan.actions))
    key = jax.random.fold_in(state.key, 0)
    zero = jnp.zeros_like(state.age)
    return state._replace(planning=planning, plan=flat, age=zero, begun=jnp.asarray(True), unplanned=unplanned, key=key)


def _arrived(state: LatentState) -> LatentState:
    """A predicted state as one to plan from: what led there counts for nothing."""
    return initial_state(state.latent, state.carry)
