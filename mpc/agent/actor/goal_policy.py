"""Going after a goal, as pure functions: plan, carry a part of the plan out, look, plan again from what is left of it.

    minimise over blocks u    Σ_{t=0}^{H-1} (cumulative_weight d(z[t], z_goal) + effort_weight |u[t]|²) / H
                              + terminal_weight d(z[H], z_goal)
    subject to                z[t+1] = predict(z[t], u[t]) + what the last blocks have shown to be wrong with that

with |u|² the mean square of a block, of which 1 is the largest action. An action of the problem is a block of actions of the
environment. Goal, weights of the cost, weights of networks and what was just seen to go wrong (`corrections`) are
parameters: none of them recompiles anything.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import mpc
from mpc import controller as loops
from mpc.agent.actor.distillation import react
from mpc.agent.actor.goal_actor import GoalActor, polyak_step
from mpc.agent.goal_config import GoalSettings
from mpc.agent.world_model.residual_correction import Corrections, correct, nothing, remember
from mpc.planners.multistart import MultistartState, propose
from world_models.base import WorldModel
from world_models.distances.temporal import Distance

PyTree = Any


class GoalPolicyState(NamedTuple):
    """A plan being carried out, or a reaction.

    `state`: what the model believed when it was made. `actions` `[H * block, A]`: of the environment, to be taken one after
    the other. `cost`: what the plan is expected to cost, infinite where nothing was planned; `status`: an `mpc.Status`.
    `corrections`: what has gone otherwise than predicted. The rest is for the next plan.
    """

    state: PyTree
    actions: Float[Array, "steps action"]
    cost: Float[Array, ""]
    status: Array
    corrections: Corrections
    loop: loops.ControllerState
    key: Array


class GoalPolicy(NamedTuple):
    """Seven pure functions; over many episodes, `vmap` them.

    Their parameters are `{"model": …, "distance": …, "goal": latent [D], "cost": {"weights": {…}}}`, made by
    `parameters`, and `"actor"`, where there is one. `first(params, observation, key) -> GoalPolicyState`. `next(params,
    observation, policy_state) -> GoalPolicyState`, `every` environment steps later. With an actor, plans begin
    from what it would do; and
    `start` and `react`, of the same signatures, do what it says, without planning. `imagine(params, policy_state) -> states
    [H+1, ...]`, what the plan is expected to lead to. `measure(params, state) -> scalar`, how far a state is from the goal.
    `see(params, state) -> seen [S]`, what the actor sees.
    """

    first: Callable[[PyTree, Array, Array], GoalPolicyState]
    next: Callable[[PyTree, Array, GoalPolicyState], GoalPolicyState]
    start: Callable[[PyTree, Array, Array], GoalPolicyState]
    react: Callable[[PyTree, Array, GoalPolicyState], GoalPolicyState]
    imagine: Callable[[PyTree, GoalPolicyState], PyTree]
    measure: Callable[[PyTree, PyTree], Array]
    see: Callable[[PyTree, PyTree], Array]
    planner: mpc.Planner
    every: int


def parameters(
    settings: GoalSettings, model: PyTree, distance: PyTree, goal: Array, actor: PyTree | None = None
) -> dict[str, Any]:
    """What a pursuer's functions are given.

    Args:
        settings: Of which the weights of the cost count.
        model: Parameters of the world model.
        distance: Parameters of the distance.
        goal: Latent of the goal, `[D]`.
        actor: Weights of the actor, where there is one.
    """
    weights = {
        "way": settings.cumulative_weight / settings.horizon,
        "effort": settings.effort_weight / settings.horizon,
        "end": settings.terminal_weight,
    }
    weights = {name: np.float32(weight) for name, weight in weights.items()}
    params = {"model": model, "distance": distance, "goal": goal, "cost": {"weights": weights}}
    return params if actor is None else params | {"actor": actor}


def space(low: np.ndarray, high: np.ndarray, block: int, limit: float | None) -> mpc.Box:
    """Blocks of actions `[block * A]`, between the bounds of the environment and those of the settings.

    Raises:
        ValueError: If the limit leaves no action.
    """
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (low, high))
    if limit is not None:
        if (low > limit).any() or (high < -limit).any():
            raise ValueError(f"action_limit={limit} leaves nothing of actions between {low} and {high}")
        low, high = np.maximum(low, -limit), np.minimum(high, limit)
    return mpc.Box(np.tile(low, block), np.tile(high, block))


def problem(model: WorldModel, distance: Distance, blocks: mpc.Box, horizon: int) -> mpc.Problem:
    """Come near to a goal in the latent space of a world model."""

    def far(params: PyTree, state: PyTree, *_: Any) -> Array:
        return distance.measure(params["distance"], state.latent, params["goal"])

    def effort(params: PyTree, state: PyTree, action: Array, t: Array) -> Array:
        return jnp.mean(blocks.encode(action) ** 2)

    def dynamics(params: PyTree, state: PyTree, action: Array) -> PyTree:
        later = model.predict(params["model"], state, action)
        known = correct(params["recent"], state.latent, blocks.encode(action), later.latent)
        return later._replace(latent=known)

    return mpc.Problem(
        dynamics,
        mpc.costs.total(way=(1.0 / horizon, far), effort=(0.0, effort)),
        mpc.costs.total(end=(1.0, far)),
        horizon=horizon,
        action_space=blocks,
    )


def planner(task: mpc.Problem, settings: GoalSettings, iterations: int) -> mpc.Planner:
    """The planner that settings name, for plans of so many iterations.

    A gradient of a distance is as long beside the goal as far from it: steps that did not shrink would never settle.
    """
    spread, samples = settings.spread, settings.samples
    if settings.planner == "gradient":
        steps = optax.cosine_decay_schedule(settings.step_size, iterations, alpha=0.1)
        return mpc.gradient(task, optimizer=optax.adam(steps), starts=settings.starts, spread=spread)
    elites = max(samples // 10, 1)
    if settings.planner == "cem":
        return mpc.cem(task, samples=samples, elites=elites, spread=spread)
    if settings.planner == "icem":
        return mpc.icem(task, samples=samples, elites=elites, spread=spread)
    return mpc.mppi(task, samples=samples, spread=spread)


def pursuer(model: WorldModel, distance: Distance, blocks: mpc.Box, settings: GoalSettings, actor: GoalActor) -> GoalPolicy:
    """Make the functions.

    Args:
        model: Whose states have a `latent`.
        distance: In its latent space.
        blocks: The space of blocks of actions, as `space` makes it.
        settings: How to plan.
        actor: Reacts.

    Raises:
        ValueError: By `first`, when it is traced, if plans are to be made within blocks, and the predictor remembers from
            block to block.
    """
    block, every, horizon = settings.block, settings.every, settings.horizon
    task = problem(model, distance, blocks, horizon)
    begin_by, plan_by = (planner(task, settings, count) for count in (settings.first_iterations, settings.iterations))
    whole = every % block == 0

    def spend(
        params: PyTree, state: PyTree, by: mpc.Planner, loop: loops.ControllerState, iterations: int, key: Array
    ) -> GoalPolicyState:
        improved = loops.improve(by, params, state, loop, iterations)
        later, plan, _ = loops.finish(plan_by, params, state, improved, loop)
        for _ in range(every // block - 1):
            later = loops.ControllerState(plan_by.shift(later.planner), _later(later.backup, 1))
        return GoalPolicyState(
            state, plan.actions.reshape(horizon * block, -1), plan.cost, plan.status, params["recent"], later, key
        )

    def act(params: PyTree, state: PyTree) -> Array:
        return actor.act(params["actor"], see(params, state))

    def see(params: PyTree, state: PyTree) -> Array:
        def far(variables: Array) -> Array:
            return measure(params, task.dynamics(params, state, blocks.relax(variables)))

        return jnp.concatenate([state.latent, params["goal"], polyak_step(far, blocks.size)])

    def blank(params: PyTree, observation: Array) -> tuple[PyTree, PyTree]:
        """The state at the beginning of an episode, and the parameters with nothing in recent memory."""
        state = model.encode(params["model"], observation)
        if not whole and jax.tree.leaves(getattr(state, "memory", ())):
            raise ValueError(
                f"this predictor remembers blocks of {block}: replan_every must be a multiple of that; got {every}"
            )
        return state, params | {"recent": nothing(settings.correction_memory, state.latent.shape[0], blocks.size)}

    def first(params: PyTree, observation: Array, key: Array) -> GoalPolicyState:
        key, draw = jax.random.split(key)
        state, params = blank(params, observation)
        guess = blocks.decide(react(task, act, params, state)) if "actor" in params else None
        loop = loops.begin(begin_by, params, state, draw, guess)
        return spend(params, state, begin_by, loop, settings.first_iterations, key)

    def next_(params: PyTree, observation: Array, policy_state: GoalPolicyState) -> GoalPolicyState:
        (state, corrections), loop, key = (
            update_belief(params, observation, policy_state),
            policy_state.loop,
            policy_state.key,
        )
        params = params | {"recent": corrections}
        if not whole:  # what is left of the plan begins in the middle of a block: it is cut into blocks anew
            key, draw = jax.random.split(key)
            left = _later(policy_state.actions, every).reshape(horizon, -1)
            loop = loops.begin(plan_by, params, state, draw, left)._replace(backup=left)
        if "actor" in params and isinstance(loop.planner, MultistartState):
            loop = loop._replace(planner=propose(loop.planner, react(task, act, params, state)))
        return spend(params, state, plan_by, loop, settings.iterations, key)

    def reacted(params: PyTree, state: PyTree, loop: loops.ControllerState, key: Array) -> GoalPolicyState:
        """As many blocks of the actor's as are taken before the next look, and behind them what was planned before."""
        count = -(-every // block)
        done = blocks.decide(react(task, act, params, state, count))
        actions = jnp.concatenate([done, loop.backup[count:]]).reshape(horizon * block, -1)
        for _ in range(every // block):
            loop = loops.ControllerState(plan_by.shift(loop.planner), _later(loop.backup, 1))
        unknown, status = jnp.asarray(jnp.inf), jnp.asarray(mpc.Status.ITERATIONS)
        return GoalPolicyState(state, actions, unknown, status, params["recent"], loop, key)

    def start(params: PyTree, observation: Array, key: Array) -> GoalPolicyState:
        key, draw = jax.random.split(key)
        state, params = blank(params, observation)
        return reacted(params, state, loops.begin(plan_by, params, state, draw), key)

    def react_(params: PyTree, observation: Array, policy_state: GoalPolicyState) -> GoalPolicyState:
        state, corrections = update_belief(params, observation, policy_state)
        return reacted(params | {"recent": corrections}, state, policy_state.loop, policy_state.key)

    def update_belief(params: PyTree, observation: Array, policy_state: GoalPolicyState) -> tuple[PyTree, Corrections]:
        if whole:
            taken = policy_state.actions[:every].reshape(every // block, -1)
            return perceive(model, blocks, params["model"], observation, policy_state.state, taken, policy_state.corrections)
        # a block that has only begun says nothing about blocks
        seen = model.encode(params["model"], observation)
        return _where(_finite(seen), seen, policy_state.state), policy_state.corrections

    def imagine(params: PyTree, policy_state: GoalPolicyState) -> PyTree:
        params = params | {"recent": policy_state.corrections}
        return mpc.rollout(task, params, policy_state.state, policy_state.actions.reshape(horizon, -1)).states

    def measure(params: PyTree, state: PyTree) -> Array:
        return distance.measure(params["distance"], state.latent, params["goal"])

    return GoalPolicy(first, next_, start, react_, imagine, measure, see, plan_by, every)


def perceive(
    model: WorldModel,
    blocks: mpc.Box,
    params: PyTree,
    observation: Array,
    before: PyTree,
    taken: Array,
    corrections: Corrections,
) -> tuple[PyTree, Corrections]:
    """The state once blocks are carried out, and what is remembered then.

    The predictor's memory is as predicted, the latent as seen, or as predicted where nothing can be seen.

    Args:
        model: Predicts.
        blocks: The space of its actions.
        params: Its parameters.
        observation: What is seen.
        before: The state that the blocks began from.
        taken: The blocks, `[N, block * A]`.
        recent: What was remembered before.
    """
    seen = model.encode(params, observation)
    began = expected = before
    for action in taken:
        began, expected = expected, model.predict(params, expected, action)
    both = expected._replace(latent=_where(_finite(seen.latent), seen.latent, expected.latent))
    newer = remember(corrections, began.latent, blocks.encode(taken[-1]), expected.latent, both.latent)
    return _where(_finite(both), both, seen), _where(_finite(newer), newer, corrections)


def _later(actions: Array, steps: int) -> Array:
    """The actions some steps later, the last one repeated."""
    return jnp.concatenate([actions[steps:], jnp.repeat(actions[-1:], steps, axis=0)])


def _finite(tree: PyTree) -> Array:
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), tree), jnp.asarray(True))


def _where(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
