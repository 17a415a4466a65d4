"""The cross-entropy method: sample futures, keep an elite, sample around it (Rubinstein & Kroese 2004)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, conclude, smoothing
from mpc.planners.lagrangian import constrained
from mpc.problem import Problem
from mpc.rollout import energy


class CemMemory(NamedTuple):
    """A Gaussian over `[H, V]` variables, the best sample seen, and how wide the Gaussian still is."""

    mean: jax.Array
    std: jax.Array
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array


@constrained(inner=10, growth=2.0)
def cem(
    problem: Problem,
    *,
    samples: int = 512,
    elites: int = 64,
    spread: float = 0.5,
    momentum: float = 0.1,
    smoothness: float = 0.5,
) -> Planner:
    """Plan by repeatedly fitting a Gaussian to the cheapest of many sampled futures.

    Needs no gradients, and scores what is really executed, so discrete actions are searched as they are.

    Args:
        problem: What is minimised over what.
        samples: Futures imagined per iteration.
        elites: How many of them the next Gaussian is fitted to.
        spread: Standard deviation to begin with, in variables, which span `[-1, 1]`.
        momentum: Share of the old mean and deviation kept at each fit; higher values converge later.
        smoothness: Correlation of the noise from one step to the next (coloured noise; Pinneri et al. 2020); 0 is white.
            Higher values find far-off basins sooner and settle less exactly where the optimum is not smooth.

    Raises:
        ValueError: If there are fewer samples than elites, no elites, no spread, or a share lies outside `[0, 1)`.
    """
    if not 1 <= elites <= samples:
        raise ValueError(f"elites must be between 1 and samples={samples}; got {elites}")
    if spread <= 0 or not 0 <= momentum < 1 or not 0 <= smoothness < 1:
        raise ValueError(
            "spread must be positive, momentum and smoothness in [0, 1); "
            f"got spread={spread}, momentum={momentum}, smoothness={smoothness}"
        )
    space, horizon = problem.action_space, problem.horizon
    smooth = smoothing(horizon, smoothness)

    def score(variables: jax.Array, params: Any, state: Any) -> jax.Array:
        value = energy(problem, params, state, space.embed(space.decide(variables)))
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def begin(mean: jax.Array, key: jax.Array) -> CemMemory:
        infinite = jnp.asarray(jnp.inf, mean.dtype)
        return CemMemory(mean, jnp.full_like(mean, spread), mean, infinite, infinite, key)

    def init(params: Any, state: Any, key: jax.Array, guess: jax.Array | None = None) -> CemMemory:
        mean = jnp.zeros((horizon, space.size)) if guess is None else space.project(space.encode(guess))
        return begin(mean, key)

    def step(params: Any, state: Any, memory: CemMemory) -> CemMemory:
        key, draw = jax.random.split(memory.key)
        white = jax.random.normal(draw, (samples, horizon, space.size), memory.mean.dtype)
        noise = jnp.einsum("th,shv->stv", smooth.astype(white.dtype), white)
        candidates = space.project(memory.mean + memory.std * noise)
        # the mean and the best so far compete too, so that an iteration never loses ground
        candidates = candidates.at[0].set(memory.mean).at[-1].set(memory.best)
        costs = jax.vmap(score, in_axes=(0, None, None))(candidates, params, state)
        values, order = jax.lax.top_k(-costs, elites)
        finite = jnp.isfinite(values)
        count = jnp.maximum(finite.sum(), 1)
        weights = (finite / count)[:, None, None]
        elite = candidates[order]
        mean = jnp.sum(weights * elite, axis=0)
        std = jnp.sqrt(jnp.sum(weights * (elite - mean) ** 2, axis=0))
        fit = finite.any()
        mean = jnp.where(fit, momentum * memory.mean + (1 - momentum) * mean, memory.mean)
        std = jnp.where(fit, momentum * memory.std + (1 - momentum) * std, memory.std)
        better = -values[0] < memory.cost
        best = jnp.where(better, elite[0], memory.best)
        return CemMemory(mean, std, best, jnp.minimum(-values[0], memory.cost), std.max(), key)

    def plan(params: Any, state: Any, memory: CemMemory) -> Plan:
        info = {"optimality": memory.optimality, "std": memory.std}
        return conclude(problem, params, state, space.decide(memory.best), jnp.isfinite(memory.cost), info)

    def shift(memory: CemMemory) -> CemMemory:
        return begin(jnp.concatenate([memory.best[1:], memory.best[-1:]]), memory.key)

    return Planner(init, step, plan, shift, problem)
