"""Model-predictive path integral control: move to the exponentially weighted mean of sampled futures (Williams 2017).

    u ← u + Σ_i w_i ε_i,        w_i ∝ exp(-(E(u + ε_i) - min E) / λ)

The temperature λ is found anew at each step, so that the weights amount to a wanted number of samples,
`1 / Σ w_i² = effective · N`; a fixed λ would have to know the scale of the costs beforehand.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner, plan_from_choice
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import colouring, gaussian_noise, sampler
from mpc.problem import Problem


class MppiState(NamedTuple):
    """The mean `[K, V]` of the sampling distribution, its width, the temperature, and the best candidate seen."""

    mean: jax.Array
    std: jax.Array
    temperature: jax.Array
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array


@constrained(inner=10, growth=2.0)
def mppi(
    problem: Problem,
    *,
    samples: int = 512,
    spread: float = 0.5,
    temperature: float | None = None,
    effective: float = 0.02,
    cooling: float = 0.95,
    exponent: float = 1.0,
    knots: int | None = None,
    interpolation: Interpolation = "linear",
) -> Planner:
    """Plan by moving to the mean of sampled futures, weighted by the exponential of minus their energy.

    Needs no gradients. Smoother than CEM, since every sample has a say; less exact, since bad ones do too.

    Args:
        problem: What is minimised over what.
        samples: Futures imagined per iteration.
        spread: Standard deviation of the noise to begin with, in variables, which span `[-1, 1]`.
        temperature: λ, in units of the cost; None to adapt it.
        effective: Share of the samples that the adapted weights amount to; higher values average over more of them.
        cooling: Factor by which the noise narrows at every iteration of one decision; 1 keeps it, as in the paper.
        exponent: Of the noise's power spectrum `f^-exponent`; 0 is white, 2 changes slowly.
        knots: Search over so many knots in time instead of every step; None for every step.
        interpolation: `"zero"`, `"linear"` or `"cubic"` between knots.

    Raises:
        ValueError: If there are fewer than 2 samples, a setting is not positive, a share lies above 1, the exponent is
            negative, or the knots do not fit the horizon.
    """
    if samples < 2 or not spread > 0 or exponent < 0 or (temperature is not None and not temperature > 0):
        raise ValueError(
            "mppi needs samples >= 2, spread > 0, exponent >= 0 and temperature > 0 or None; "
            f"got samples={samples}, spread={spread}, exponent={exponent}, temperature={temperature}"
        )
    if not 0 < effective < 1 or not 0 < cooling <= 1:
        raise ValueError(f"effective must lie in (0, 1) and cooling in (0, 1]; got effective={effective}, cooling={cooling}")
    search = sampler(problem, knots, interpolation)
    steps, size = search.knots.count, problem.action_space.size
    noise = gaussian_noise((steps, size, samples), colouring(steps, exponent))
    wanted = max(effective * samples, 1.0)

    def begin(mean: jax.Array, key: jax.Array) -> MppiState:
        infinite, width = jnp.asarray(jnp.inf, mean.dtype), jnp.asarray(spread, mean.dtype)
        return MppiState(mean, width, jnp.zeros_like(width), mean, infinite, infinite, key)

    def init(params: Any, state: Any, key: jax.Array, guess: jax.Array | None = None) -> MppiState:
        return begin(search.start(guess), key)

    def step(params: Any, state: Any, planner_state: MppiState) -> MppiState:
        key, draw = jax.random.split(planner_state.key)
        drawn = search.project(planner_state.mean[..., None] + planner_state.std * noise(draw))
        candidates = jnp.concatenate([planner_state.mean[..., None], planner_state.best[..., None], drawn[..., 2:]], axis=-1)
        costs = search.scores(candidates, params, state)
        leader = jnp.argmin(costs)
        lowest = costs[leader]
        excess = jnp.where(jnp.isfinite(costs), costs - jnp.where(jnp.isfinite(lowest), lowest, 0.0), jnp.inf)
        heat = adapted(excess, wanted) if temperature is None else jnp.asarray(temperature, costs.dtype)
        weights = softmin(excess, heat)
        mean = jnp.where(jnp.isfinite(lowest), candidates @ weights, planner_state.mean)
        better = lowest < planner_state.cost
        best = jnp.where(better, candidates[..., leader], planner_state.best)
        moved = jnp.where(jnp.isfinite(lowest), jnp.abs(mean - planner_state.mean).max(), jnp.inf)
        return MppiState(mean, cooling * planner_state.std, heat, best, jnp.minimum(lowest, planner_state.cost), moved, key)

    def best_actions(params: Any, state: Any, planner_state: MppiState) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        info = {"optimality": planner_state.optimality, "temperature": planner_state.temperature, "std": planner_state.std}
        return search.decide(planner_state.best, params), jnp.isfinite(planner_state.cost), info

    def shift(planner_state: MppiState) -> MppiState:
        return begin(search.knots.shift(planner_state.best), planner_state.key)

    return Planner(init, step, plan_from_choice(problem, best_actions), shift, problem, best_actions)


def softmin(excess: jax.Array, temperature: jax.Array) -> jax.Array:
    """Weights `[N]`, adding up to 1, proportional to `exp(-excess / temperature)`; the lowest excess is 0."""
    weights = jnp.exp(-excess / jnp.maximum(temperature, jnp.finfo(excess.dtype).tiny))
    return weights / jnp.maximum(weights.sum(), 1.0)


def adapted(excess: jax.Array, wanted: float) -> jax.Array:
    """The temperature at which `1 / Σ w²` is `wanted`, by bisection: it grows with the temperature.

    Args:
        excess: `[N]` energies above the lowest; infinite where they do not count.
        wanted: Effective number of samples, at least 1.
    """
    scale = jnp.maximum(jnp.max(jnp.where(jnp.isfinite(excess), excess, 0.0)), jnp.finfo(excess.dtype).tiny)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        weights = softmin(excess, scale * jnp.exp(middle))
        enough = weights.sum() ** 2 >= wanted * jnp.sum(weights**2)
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    # between a ten-millionth and a thousand times the span of the costs; 20 halvings fix λ to 0.01%
    bounds = (jnp.asarray(-16.0, excess.dtype), jnp.asarray(7.0, excess.dtype))
    return scale * jnp.exp(jax.lax.fori_loop(0, 20, halve, bounds)[1])
