"""Gradient shooting: actions improved by sending the energy's gradient backwards through imagined time.

    u ← project(u - optimizer(∂E/∂u)),        ∂E/∂u[t] = ∂cost/∂u[t] + (∂dynamics/∂u[t])ᵀ λ[t+1]

from many starts at once, for the energy has many basins. Every start remembers the best actions it has seen.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mpc.planners.base import Plan, Planner, conclude, smoothing
from mpc.problem import Problem
from mpc.rollout import energy


class GradientMemory(NamedTuple):
    """Where the search stands, over S starts, H steps and V variables a step.

    `variables`, `best`: `[S, H, V]`. `best_costs`: `[S]`. `cost`, `optimality`: scalars for the best start.
    """

    variables: jax.Array
    optimizer: Any
    best: jax.Array
    best_costs: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array


def gradient(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation | None = None,
    starts: int = 16,
    spread: float = 0.3,
) -> Planner:
    """Plan by gradient descent on the actions, from many starts in one compiled program.

    Args:
        problem: What is minimised over what; dynamics and costs must be differentiable.
        optimizer: Any optax optimiser over the variables, which live in `[-1, 1]`; Adam(0.1) unless told.
        starts: Number of starts S. More find better basins, at a cost that grows linearly once a core is full.
        spread: Standard deviation of the smoothed noise that starts are drawn from, in variables.

    Returns:
        The planner.

    Raises:
        ValueError: If `starts` is less than 1 or `spread` is negative.
    """
    if starts < 1:
        raise ValueError(f"starts must be at least 1; got {starts}")
    if spread < 0:
        raise ValueError(f"spread must not be negative; got {spread}")
    optimizer = optax.adam(0.1) if optimizer is None else optimizer
    space, horizon = problem.action_space, problem.horizon
    smooth = smoothing(horizon)

    def noise(key: jax.Array) -> jax.Array:
        white = jax.random.normal(key, (starts, horizon, space.size))
        return space.project(spread * jnp.einsum("th,shv->stv", smooth.astype(white.dtype), white))

    def score(variables: jax.Array, params: Any, state: Any) -> jax.Array:
        return energy(problem, params, state, space.relax(variables))

    def begin(variables: jax.Array, key: jax.Array) -> GradientMemory:
        infinite = jnp.full((starts,), jnp.inf, variables.dtype)
        moments = jax.vmap(optimizer.init)(variables)
        return GradientMemory(variables, moments, variables, infinite, infinite[0], infinite[0], key)

    def init(params: Any, state: Any, key: jax.Array, guess: jax.Array | None = None) -> GradientMemory:
        key, draw = jax.random.split(key)
        variables = noise(draw)
        if guess is not None:
            variables = variables.at[0].set(space.project(space.encode(guess)))
        return begin(variables, key)

    def step(params: Any, state: Any, memory: GradientMemory) -> GradientMemory:
        costs, slopes = jax.vmap(jax.value_and_grad(score), in_axes=(0, None, None))(memory.variables, params, state)
        finite = jnp.isfinite(costs) & jnp.isfinite(slopes).all(axis=(1, 2))
        slopes = jnp.where(finite[:, None, None], slopes, 0.0)  # a start that left the model's domain rests
        better = finite & (costs < memory.best_costs)
        best = jnp.where(better[:, None, None], memory.variables, memory.best)
        best_costs = jnp.where(better, costs, memory.best_costs)
        updates: Any  # optax types them as a tree; here they are one array
        updates, moments = jax.vmap(optimizer.update)(slopes, memory.optimizer, memory.variables)
        moved = space.project(memory.variables + updates)
        moved = jnp.where(jnp.isfinite(moved), moved, memory.variables)
        # the projected gradient vanishes exactly where no allowed move lowers the energy to first order
        residual = jnp.abs(space.project(memory.variables - slopes) - memory.variables).max(axis=(1, 2))
        leader = jnp.argmin(jnp.where(finite, costs, jnp.inf))
        optimality = jnp.where(finite[leader], residual[leader], jnp.inf)
        return GradientMemory(moved, moments, best, best_costs, best_costs.min(), optimality, memory.key)

    def plan(params: Any, state: Any, memory: GradientMemory) -> Plan:
        decided = jax.vmap(space.decide)(memory.best)
        costs = memory.best_costs
        if not space.exact:  # what is executed is scored, not its relaxation
            executed = jax.vmap(lambda a: energy(problem, params, state, space.embed(a)))(decided)
            costs = jnp.where(jnp.isfinite(executed) & jnp.isfinite(costs), executed, jnp.inf)
        chosen = jnp.argmin(costs)
        info = {"start_costs": costs, "optimality": memory.optimality}
        return conclude(problem, params, state, decided[chosen], jnp.isfinite(costs[chosen]), info)

    def shift(memory: GradientMemory) -> GradientMemory:
        key, draw = jax.random.split(memory.key)
        later = jnp.concatenate([memory.best[:, 1:], memory.best[:, -1:]], axis=1)
        order = jnp.argmin(memory.best_costs)
        later = later.at[0].set(later[order])
        fresh = jnp.arange(starts)[:, None, None] > starts // 2
        return begin(jnp.where(fresh, noise(draw), later), key)

    return Planner(init, step, plan, shift, problem)


def propose(memory: GradientMemory, variables: jax.Array) -> GradientMemory:
    """Let a decision's last start be a proposal from elsewhere, for example an actor's, in place of noise.

    Args:
        memory: As `init` or `shift` left it.
        variables: `[H, V]`, within the space's bounds.
    """
    proposed = memory.variables.at[-1].set(variables)
    return memory._replace(variables=proposed, best=memory.best.at[-1].set(variables))
