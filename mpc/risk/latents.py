"""Plans under latent variables: over many draws of them, or inferred together with the actions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.costs import Total, itemise
from mpc.problem import Problem
from mpc.risk.ensemble import ScenarioState, Terms, copies, over_scenarios, step_index
from mpc.risk.measures import Measure
from mpc.spaces import Box

PyTree = Any


def over_latents(problem: Problem, measure: Measure, count: int, seed: int = 0) -> Problem:
    """Plan one action sequence for many draws of the latents that decide what the actions leave open.

    The draws `[N, H, size]` are standard normal, and the same for every candidate, iteration and decision, so that two
    plans are compared on the same luck. `params["latents"]`, of that shape, replaces them without recompiling.

    Args:
        problem: With latents declared, and dynamics `(params, state, action, latent)`.
        measure: Of the draws' energies; see this module.
        count: Number of draws N.
        seed: Of the draws.

    Returns:
        A problem without latents whose plans show all draws' states, as `over_models` does.

    Raises:
        ValueError: If the problem has no latents, the count is less than 1, or a term is called risk; when solving, if
            `params["latents"]` has another shape.
    """
    if problem.latents is None:
        raise ValueError("over_latents needs a problem with latents: Problem(..., latents=size)")
    shape = (count, problem.horizon, problem.latents)
    fixed = np.random.default_rng(seed).standard_normal(shape) if count > 0 else np.zeros(shape)

    def each(function: Callable, params: PyTree, states: PyTree, *rest: Any) -> Any:
        return jax.vmap(lambda s: function(params, s, *rest))(states)

    def advance(params: PyTree, worlds: ScenarioState, action: jax.Array) -> PyTree:
        given = params.get("latents", fixed) if isinstance(params, Mapping) else fixed
        if jnp.shape(given) != shape:
            raise ValueError(f"params['latents'] must be [count, horizon, latents] = {list(shape)}; got {jnp.shape(given)}")
        draws = jnp.asarray(given, worlds.spent.dtype)
        now = jax.lax.dynamic_index_in_dim(draws, step_index(worlds), axis=1, keepdims=False)
        return jax.vmap(lambda s, z: problem.dynamics(params, s, action, z))(worlds.states, now)

    def spread(params: PyTree, state: PyTree) -> PyTree:
        return copies(problem.lifted(params, state), count)

    return over_scenarios(problem, measure, count, each, advance, spread)


LATENT_BOUND = 3.0
"""Deviations within which latents are inferred."""


def with_latents_as_actions(problem: Problem, weight: float = 1.0) -> Problem:
    """Make the latents part of the actions, so that a planner infers both: an optimistic plan.

        minimise over u, z   E(u, z) + weight Σ_t ½ |z[t]|²

    Args:
        problem: With latents, and a `Box` of actions.
        weight: Cost per nat of how unlikely the latents are; higher values keep them nearer to the likeliest.

    Returns:
        A problem without latents whose actions are `[A + latents]`: the actions, flat, and then the latents, each within
        `LATENT_BOUND` of 0; the cost term `latent_prior_cost` is `weight Σ_t ½ |z[t]|²`.

    Raises:
        ValueError: If the problem has no latents, its action space is no `Box`, the weight is not positive, or a cost term
            is called latent_prior_cost.
    """
    if problem.latents is None:
        raise ValueError("with_latents_as_actions needs a problem with latents: Problem(..., latents=size)")
    space = problem.action_space
    if not isinstance(space, Box):
        raise ValueError(f"latents are inferred beside continuous actions, in an mpc.Box; got {type(space).__name__}")
    if not weight > 0:
        raise ValueError(
            f"with_latents_as_actions needs a positive weight, or latents cost nothing however unlikely; got {weight}"
        )
    if isinstance(problem.cost, Total) and "latent_prior_cost" in problem.cost.weighted:
        raise ValueError("a cost term is called latent_prior_cost, the name of the cost of latents; rename it")
    size, reach = space.size, np.full(problem.latents, LATENT_BOUND)

    def parted(both: jax.Array) -> tuple[jax.Array, jax.Array]:
        return both[:size].reshape(space.shape), both[size:]

    def stage(params: PyTree, state: PyTree, both: jax.Array, t: jax.Array) -> dict[str, jax.Array]:
        action, latent = parted(both)
        terms = itemise(problem.cost, "stage")(params, state, action, t)
        return terms | {"latent_prior_cost": 0.5 * weight * jnp.sum(latent**2)}

    constraints = [
        replace(c, function=lambda params, state, both, t, f=c.function: f(params, state, parted(both)[0], t))
        for c in problem.constraints
    ]
    return replace(
        problem,
        dynamics=lambda params, state, both: problem.dynamics(params, state, *parted(both)),
        cost=Terms(stage),
        action_space=Box(np.concatenate([space.low.ravel(), -reach]), np.concatenate([space.high.ravel(), reach])),
        constraints=constraints,
        latents=None,
    )
