"""Planning on several levels: far ahead in macro-actions, and what comes next in actions.

    level n > 1:   minimise over noise u            (Σ_t c(z[t]) + c(z[H]) + prior_weight Σ_t ½ |u[t]|²
                                                     + reachability_weight Σ_t max(0, d(z[t-1], z[t]) / stride - 1.1)²) / H,
                                                    c(z) = 1 - exp(-d(z, g) / near)
    level 1:       minimise over blocks u           the agent's cost, to where level 2 expects to be in one step,
                                                    or to the goal where that is nearer

Every level plans by gradient, in the agent's own latent space and distance, each at its own rate: a level plans anew when
one of its steps is over. Together they are one compiled program (`mpc.cascade`).

The noise u[t] stands for the macro-actions that recordings show from where the plan is by then, moving as it does
(`world_models.macro`). A distance learnt from recordings tells little about what is many steps away, so the slower levels
ask it only whether a place is near the goal, and whether one of their steps is longer than the model steps in it, as through
a wall.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.agent.actor.policy import Planning
from mpc.agent.config import AgentConfig, MacroConfig
from mpc.agent.world_model.residual_correction import Corrections
from mpc.cascade import Cascade, Level, LevelState
from mpc.policy import conclude
from mpc.policy import shift as shift_controller
from world_models.base import LatentState, WorldModel, initial_state
from world_models.distances.temporal import Distance

PyTree = Any
LONGEST = 1.1
"""Length of a slower level's step, in steps of the distance for each model step in it, beyond which it costs something."""


def several_levels(lowest: mpc.Planner, config: AgentConfig, models: Sequence[WorldModel], distance: Distance) -> Planning:
    """Plan on several levels to a goal: `lowest` in actions, slower levels by their models, the lowest first."""
    actor, macro = config.actor, config.macro_levels
    levels = [Level(lowest, actor.iterations, max(actor.first_iterations, 1), 1)]
    below = config.every // config.world_model.block  # model steps from one plan of the lowest level to the next
    for stride, model in zip(macro.strides, models, strict=True):
        planner = macro_planner(model, distance, macro, stride)
        iterations = macro.macro_iterations, macro.macro_first_iterations
        levels.append(Level(planner, *iterations, max(stride // below, 1), lift, target(distance, macro)))
        below = stride
    return _planning(mpc.cascade.cascade(levels), lowest, macro.strides)


def _planning(cascade: Cascade, lowest: mpc.Planner, strides: tuple[int, ...]) -> Planning:
    def init(params: PyTree, belief: LatentState, key: jax.Array, guess: jax.Array | None, search: bool = True):
        given = level_params(params, strides)
        states = cascade.init(given, belief, key)
        begun = states[0].controller  # solving for the plan anew would compile the planner once more
        _, plan = conclude(lowest, given[0], belief, begun, begun)
        return states, plan._replace(info={})

    def step(params: PyTree, belief: LatentState, states: tuple[LevelState, ...], candidate: jax.Array | None):
        states, decision = cascade.step(level_params(params, strides), belief, states, candidate)
        return states, decision.plan._replace(info={})

    def shift(states: tuple[LevelState, ...]) -> tuple[LevelState, ...]:
        return (states[0]._replace(controller=shift_controller(lowest, states[0].controller)), *states[1:])

    return Planning(init, step, shift, lambda states: states[0].controller.fallback, lowest.problem)


def level_params(params: PyTree, strides: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the parameters of every level's problem, the lowest first; the slower models' are in `params["macro"]`."""
    lowest = {name: part for name, part in params.items() if name != "macro"}
    corrections = params.get("corrections")
    above = [
        {"model": part, "distance": params["distance"], "before": _before(corrections, stride), "cost": params["cost"]}
        for part, stride in zip(params["macro"], strides, strict=True)
    ]
    return [lowest, *above]


def macro_planner(model: WorldModel, distance: Distance, macro: MacroConfig, stride: int) -> mpc.Planner:
    """Return the planner of a slower level, with `stride` model steps in one of its steps."""
    nothing, each = jnp.zeros(0), 1.0 / macro.macro_horizon
    bound = np.full(macro.macro, mpc.risk.LATENT_BOUND)

    def from_goal(params: PyTree, state: LatentState, *_: Any) -> jax.Array:
        return 1.0 - jnp.exp(-distance.measure(params["distance"], state.latent, params["cost"]["goal"]) / macro.near)

    def latent_prior_cost(params: PyTree, state: LatentState, action: jax.Array, t: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(action**2)

    def reachability_penalty(params: PyTree, state: LatentState, *_: Any) -> jax.Array:
        moved = distance.measure(params["distance"], state.latent - state.carry, state.latent)
        return jax.nn.relu(moved / stride - LONGEST) ** 2

    stage = {"to_goal": (each, from_goal), "prior": (each * macro.prior_weight, latent_prior_cost)}
    end = {"to_goal_at_end": (each, from_goal)}
    if macro.reachability_weight > 0:  # it evaluates the distance once more
        stage["reachability"] = end["reachability_at_end"] = (each * macro.reachability_weight, reachability_penalty)
    problem = mpc.Problem(
        lambda params, state, action: model.predict(params["model"], state, nothing, action),
        mpc.costs.total(**stage),
        mpc.costs.total(**end),
        horizon=macro.macro_horizon,
        action_space=mpc.Box(-bound, bound),
    )
    descent = {"spread": 0.5, "step_size": 0.1, "decay_iterations": macro.macro_iterations}
    options = {"screen": (macro.candidates, 1)}
    return mpc.make_planner(problem, mpc.PlannerConfig("gradient", starts=macro.macro_starts, **descent, options=options))


def target(distance: Distance, macro: MacroConfig) -> Any:
    """Return `(params, states, age) -> goal` of the level below: this level's next state, or its goal where that is near."""

    def goal(params: PyTree, states: LatentState, age: jax.Array) -> jax.Array:
        left = jax.vmap(lambda z: distance.measure(params["distance"], z, params["cost"]["goal"]))(states.latent)
        arrived = left <= jnp.minimum(left.min() + 0.5 * macro.near, macro.near)
        return jnp.where(arrived[:2].any(), params["cost"]["goal"], states.latent[1])

    return goal


def lift(params: PyTree, state: LatentState) -> LatentState:
    """Return a slower level's state: the same latent, and by how much its last step changed it."""
    before, known = params["before"]
    return initial_state(state.latent, jnp.where(known, state.latent - before, 0.0))


def _before(corrections: Corrections | None, steps: int) -> tuple[jax.Array, jax.Array]:
    """The latent so many model steps ago, and whether it is known."""
    if corrections is None or len(corrections.reach) < steps:
        return jnp.zeros(()), jnp.asarray(False)
    return corrections.latents[steps - 1], corrections.reach[steps - 1] > 0
