"""Model-predictive path integral control: move to the exponentially weighted mean of sampled futures (Williams 2017).

    u ← u + Σ_i w_i ε_i,        w_i ∝ exp(-(E(u + ε_i) - min E) / λ)

The temperature λ is found anew at each step, so that the weights amount to a wanted number of samples,
`1 / Σ w_i² = effective · N`; a fixed λ would have to know the scale of the costs beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import (
    Sampler,
    SamplingState,
    ScoresAll,
    colouring,
    contestants,
    gaussian_noise,
    sampler,
    sampling_planner,
)
from mpc.problem import Problem


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
        problem: The problem to plan for.
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
    noise = gaussian_noise((search.knots.count, problem.action_space.size, samples), colouring(search.knots.count, exponent))
    return sampling_planner(problem, _Mppi(search, noise, spread, temperature, max(effective * samples, 1.0), cooling))


class PathIntegral(NamedTuple):
    """Mean `[K, V]` and standard deviation of the samples, and the temperature of the last weights."""

    mean: jax.Array
    std: jax.Array
    temperature: jax.Array


@dataclass(frozen=True, eq=False)
class _Mppi(ScoresAll):
    """`wanted`: the effective number of samples that the temperature is adapted to, where it is not given."""

    sampler: Sampler
    noise: Callable[[jax.Array], jax.Array]
    spread: float
    temperature: float | None
    wanted: float
    cooling: float

    def begin(self, plan: jax.Array, guided: bool, before: PathIntegral | None = None) -> PathIntegral:
        width = jnp.asarray(self.spread, plan.dtype)
        return PathIntegral(plan, width, jnp.zeros_like(width))

    def draw(self, key: jax.Array, planner_state: SamplingState) -> jax.Array:
        mean, std, _ = planner_state.distribution
        drawn = self.sampler.project(mean[..., None] + std * self.noise(key))
        return contestants([mean, planner_state.best], planner_state.candidate, drawn)

    def refit(self, planner_state: SamplingState, samples: jax.Array, scores: jax.Array) -> tuple[PathIntegral, jax.Array]:
        before, lowest = planner_state.distribution, scores.min()
        excess = jnp.where(jnp.isfinite(scores), scores - jnp.where(jnp.isfinite(lowest), lowest, 0.0), jnp.inf)
        heat = adapted(excess, self.wanted) if self.temperature is None else jnp.asarray(self.temperature, scores.dtype)
        mean = jnp.where(jnp.isfinite(lowest), samples @ softmin(excess, heat), before.mean)
        moved = jnp.where(jnp.isfinite(lowest), jnp.abs(mean - before.mean).max(), jnp.inf)
        return PathIntegral(mean, self.cooling * before.std, heat), moved

    def info(self, distribution: PathIntegral) -> dict[str, Any]:
        return {"temperature": distribution.temperature, "std": distribution.std}


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
