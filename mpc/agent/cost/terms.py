"""Terms of the cost of imagined futures, by name, and the problem that sums them up.

    minimise over u   Σ_t Σ_i w_i c_i(s[t], u[t], t) + Σ_i w_i c_i(s[H])        with w = params["cost"]["weights"]

| term | value | at every step | at the end |
|---|---|---|---|
| `reward` | minus the predicted reward of the step that led to the state | yes | yes |
| `disagreement` | disagreement of the ensemble about that step | yes | yes |
| `critic` | cost that the critic expects after the horizon | | yes |
| `cost` | a known cost of decoded observations | yes | |
| `goal` | distance to the goal | yes | |
| `goal_at_end` | distance to the goal | | yes |
| `observation_goal` | half the squared distance of the decoded observation to what matters of the goal | yes | yes |
| `effort` | mean square of the action, 1 being the largest | yes | |

What a step brings is read off the state that it leads to, so that the sum counts every step once.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.agent.config import AgentConfig
from mpc.agent.perception.action_space import ActionSpaces
from mpc.agent.world_model.residual_correction import correct
from world_models.base import LatentState, WorldModel
from world_models.distances.temporal import Distance

PyTree = Any
Term = Callable[..., jax.Array]
ObservationTerm = Callable[[PyTree, jax.Array, jax.Array, jax.Array], jax.Array]
"""`(params, observation, action, t) -> scalar`, on decoded observations and actions of the environment."""

LOOSE = np.inf
"""Bound of limits that a task does not set; they are kept by one unit, whatever the units are."""


class CostParts(NamedTuple):
    """Parts that cost terms are made of.

    `value(params, latent) -> cost to go`; `decode(params, state) -> observation`; both None where there is none. `known`: a
    cost on observations, or None. `limits`: functions of observations that a task may bound from above.
    """

    model: WorldModel
    spaces: ActionSpaces
    distance: Distance | None
    value: Callable[[PyTree, jax.Array], jax.Array] | None
    decode: Callable[[PyTree, LatentState], jax.Array] | None
    known: ObservationTerm | None
    limits: Mapping[str, ObservationTerm]

    @property
    def decodes(self) -> bool:
        """True where the model itself decodes observations."""
        return self.model.decode is not None


class Shape(NamedTuple):
    """The part of a task that needs a compiled program of its own; everything else is a parameter.

    `terms`: names of the terms whose weight is not 0. `limited`: whether there are limits. `futures`: draws of the latent
    variable that plans are evaluated on, 0 for a model without one.
    """

    horizon: int
    starts: int
    terms: tuple[str, ...]
    limited: bool
    futures: int


def default_weights(config: AgentConfig, parts: CostParts, goal: str | None) -> dict[str, float]:
    """Return the weights of a task that sets none; a known cost takes the place of the predicted reward.

    A goal is `"whole"`, `"partial"` (some numbers of an observation), or None. One whose distance these parts cannot measure
    raises a ValueError.
    """
    cost, horizon = config.cost, config.actor.horizon
    weights = dict.fromkeys(available(parts), 0.0)
    if goal == "whole" and parts.distance is not None:
        weights |= {"goal": cost.cumulative_weight / horizon, "goal_at_end": cost.terminal_weight}
    elif goal is not None:
        if "observation_goal" not in weights:
            raise ValueError("a goal needs a distance, or, for some numbers of an observation, a decoder (decoder=True)")
        weights["observation_goal"] = 1.0
    else:
        weights |= {name: 1.0 for name in ("cost" if parts.known is not None else "reward", "critic") if name in weights}
    weights["effort"] = cost.effort_weight / horizon
    if "disagreement" in weights:
        weights["disagreement"] = cost.disagreement_weight
    return weights


def available(parts: CostParts) -> tuple[str, ...]:
    """Return the names of the terms that these parts can make."""
    stage, end = term_functions(parts)
    return tuple(dict.fromkeys([*stage, *end]))


def dynamics(parts: CostParts) -> Callable[..., LatentState]:
    """Return `(params, state, action[, latent]) -> state`: the model's step, corrected by recent prediction errors."""
    spaces, model = parts.spaces, parts.model

    def advance(params: PyTree, state: LatentState, action: jax.Array, *latent: jax.Array) -> LatentState:
        later = model.predict(params["model"], state, spaces.to_model(action), *latent)
        if "corrections" not in params:
            return later
        known = correct(params["corrections"], state.latent, spaces.variables(action), later.latent)
        return later._replace(latent=known)

    if model.latents is not None:
        return lambda params, state, action, latent: advance(params, state, action, latent)
    return lambda params, state, action: advance(params, state, action)


def mean_dynamics(parts: CostParts) -> Callable[..., LatentState]:
    """Return `(params, state, action) -> state`: `dynamics` with the latent variable, where there is one, at its mean."""
    advance = dynamics(parts)
    if parts.model.latents is None:
        return advance
    mean = jnp.zeros(parts.model.latents)
    return lambda params, state, action: advance(params, state, action, mean)


def term_functions(parts: CostParts) -> tuple[dict[str, Term], dict[str, Term]]:
    """Return the terms that these parts can make, by name: those that count at every step, and those at the end."""
    stage: dict[str, Term] = {"effort": lambda p, s, a, t: jnp.mean(parts.spaces.variables(a) ** 2)}
    end: dict[str, Term] = {}
    if parts.model.has_reward:
        stage["reward"] = end["reward"] = lambda p, s, *_: -s.reward
    if parts.model.has_reward or parts.model.members > 1:
        stage["disagreement"] = end["disagreement"] = lambda p, s, *_: s.disagreement
    if parts.known is not None:
        known = _observed(parts, parts.known)
        stage["cost"] = lambda p, s, a, t: s.discount * known(p, s, a, t)
    if parts.value is not None:
        value = parts.value
        end["critic"] = lambda p, s: s.discount * value(p, s.latent)
    if parts.distance is not None:
        stage["goal"] = end["goal_at_end"] = lambda p, s, *_: to_goal(parts, p, s)
    if parts.decodes:
        stage["observation_goal"] = end["observation_goal"] = partial(_observation_goal, parts)
    return stage, end


def _observed(parts: CostParts, function: ObservationTerm, reduce: Any = jnp.sum) -> Term:
    """A function of decoded observations, reduced over the actions of a block."""
    return lambda p, s, a, t: parts.spaces.over_block(lambda u: function(p, _decoded(parts, p, s), u, t), a, reduce)


def to_goal(parts: CostParts, params: PyTree, state: LatentState) -> jax.Array:
    """Return the distance from a state to `params["cost"]["goal"]`, a latent `[D]`, over what of it matters."""
    assert parts.distance is not None
    return parts.distance.measure(params["distance"], state.latent, params["cost"]["goal"])


def _observation_goal(parts: CostParts, params: PyTree, state: LatentState, *_: Any) -> jax.Array:
    cost = params["cost"]
    assert parts.decode is not None
    return 0.5 * jnp.sum(cost["mask"] * (parts.decode(params, state) - cost["observation"]) ** 2)


def problem(parts: CostParts, shape: Shape) -> mpc.Problem:
    """Return the problem of a program, with every term of `shape.terms`."""
    weighted, ended = ({name: (0.0, f) for name, f in made.items() if name in shape.terms} for made in term_functions(parts))
    made = mpc.Problem(
        dynamics(parts),
        mpc.costs.total(**weighted) if weighted else lambda p, s, a, t: jnp.zeros(()),
        mpc.costs.total(**ended) if ended else None,
        horizon=shape.horizon,
        action_space=parts.spaces.block,
        constraints=[_limit(parts, name, f) for name, f in parts.limits.items()] if shape.limited else (),
        latents=parts.model.latents,
    )
    if parts.model.latents is None:
        return made
    return mpc.risk.over_latents(made, mpc.risk.cvar_from_params(), shape.futures)


def _limit(parts: CostParts, name: str, function: ObservationTerm) -> mpc.constraints.Constraint:
    largest = _observed(parts, function, jnp.max)

    def excess(params: PyTree, state: LatentState, action: jax.Array, t: jax.Array) -> jax.Array:
        bound = params["cost"]["limits"][name]
        return jnp.where(jnp.isfinite(bound), largest(params, state, action, t) - bound, -1.0)

    return mpc.constraints.inequality(excess, name=name)


def _decoded(parts: CostParts, params: PyTree, state: LatentState) -> jax.Array:
    assert parts.decode is not None  # checked when the agent is built
    return parts.decode(params, state) + params.get("origin", 0.0)


def check_observation_terms(parts: CostParts, params: PyTree, observation: Any) -> None:
    """Hold known costs and limits against an observation, by shapes alone.

    Raises:
        ValueError: If observations cannot be decoded, or a function does not return one number for an observation.
    """
    functions = dict(parts.limits) | ({} if parts.known is None else {"cost": parts.known})
    if functions and parts.decode is None:
        raise ValueError(
            f"{', '.join(functions)}: costs and limits are functions of decoded observations, and this model decodes none; "
            "set decoder=True, or give a model with `decode`"
        )
    action = jax.eval_shape(parts.spaces.single.relax, jnp.zeros(parts.spaces.single.size))
    for name, function in functions.items():
        given = (params, observation, action, jax.ShapeDtypeStruct((), np.int32))
        try:
            found = jax.eval_shape(function, *given)
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{name} is called as (params, observation, action, t), with observations of shape "
                f"{list(np.shape(observation))} and actions of shape {list(action.shape)}; it raised {error}"
            ) from error
        if getattr(found, "shape", None) != ():
            raise ValueError(f"{name} must return one number, of shape []; got {getattr(found, 'shape', type(found))}")
