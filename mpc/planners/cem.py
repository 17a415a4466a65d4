"""The cross-entropy method: sample futures, keep an elite, sample around it (Rubinstein & Kroese 2004)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner, smoothing
from mpc.planners.categorical import categorical_cem
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import Sampler, SamplingState, ScoresAll, contestants, gaussian_noise, sampler, sampling_planner
from mpc.problem import Problem
from mpc.spaces import MultiDiscrete


@constrained(inner=10, growth=2.0)
def cem(
    problem: Problem,
    *,
    samples: int = 512,
    elites: int = 32,
    spread: float = 0.5,
    momentum: float = 0.1,
    smoothness: float = 0.5,
    knots: int | None = None,
    interpolation: Interpolation = "linear",
) -> Planner:
    """Plan by repeatedly fitting a Gaussian to the cheapest of many sampled futures.

    Needs no gradients, and scores what is really executed. Discrete actions are sampled as categories and their
    probabilities refitted: see `mpc.categorical_cem`, which this is on a discrete space.

    Args:
        problem: The problem to plan for.
        samples: Futures imagined per iteration.
        elites: How many of them the next Gaussian is fitted to.
        spread: Standard deviation to begin with, in variables, which span `[-1, 1]`.
        momentum: Share of the old mean and deviation kept at each fit; higher values converge later.
        smoothness: Correlation of the noise from one step to the next; 0 is white. Higher values find far-off basins
            sooner and settle less exactly where the optimum is not smooth.
        knots: Search over so many knots in time instead of every step; None for every step.
        interpolation: `"zero"`, `"linear"` or `"cubic"` between knots.

    Raises:
        ValueError: If there are fewer samples than elites, no elites, no spread, a share lies outside `[0, 1)`, or the
            knots do not fit the horizon.
    """
    check(samples, elites, spread, momentum)
    if not 0 <= smoothness < 1:
        raise ValueError(f"smoothness must lie in [0, 1); got {smoothness}")
    if isinstance(problem.action_space, MultiDiscrete):
        return categorical_cem(problem, samples=samples, elites=elites, momentum=momentum)
    search = sampler(problem, knots, interpolation)
    noise = gaussian_noise(
        (search.knots.count, problem.action_space.size, samples), smoothing(search.knots.count, smoothness)
    )
    return sampling_planner(problem, _Cem(search, noise, elites, spread, momentum))


class Gaussian(NamedTuple):
    """Mean and standard deviation `[K, V]` of independent knots."""

    mean: jax.Array
    std: jax.Array


@dataclass(frozen=True, eq=False)
class _Cem(ScoresAll):
    sampler: Sampler
    noise: Callable[[jax.Array], jax.Array]
    elites: int
    spread: float
    momentum: float

    def begin(self, plan: jax.Array, guided: bool, before: Gaussian | None = None) -> Gaussian:
        return Gaussian(plan, jnp.full_like(plan, self.spread))

    def draw(self, key: jax.Array, planner_state: SamplingState) -> jax.Array:
        mean, std = planner_state.distribution
        drawn = self.sampler.project(mean[..., None] + std[..., None] * self.noise(key))
        # the mean and the best so far compete too, so that an iteration never loses ground
        return contestants([mean, planner_state.best], planner_state.candidate, drawn)

    def refit(self, planner_state: SamplingState, samples: jax.Array, scores: jax.Array) -> tuple[Gaussian, jax.Array]:
        values, elite = cheapest(scores, samples, self.elites)
        mean, std = refit(values, elite, planner_state.distribution.mean, planner_state.distribution.std, self.momentum)
        return Gaussian(mean, std), std.max()

    def info(self, distribution: Gaussian) -> dict[str, Any]:
        return {"std": distribution.std}


def check(samples: int, elites: int, spread: float, momentum: float) -> None:
    """Refuse settings that no cross-entropy method takes."""
    if samples < 2 or not 1 <= elites <= samples:
        raise ValueError(f"samples must be at least 2 and elites between 1 and samples; got {samples} and {elites}")
    if not spread > 0 or not 0 <= momentum < 1:
        raise ValueError(f"spread must be positive and momentum in [0, 1); got spread={spread}, momentum={momentum}")


def cheapest(costs: jax.Array, candidates: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` lowest of costs `[N]`, lowest first, and the candidates `[K, V, count]` they belong to."""
    values, order = jax.lax.top_k(-costs, count)
    return -values, candidates[..., order]


def refit(
    values: jax.Array, elite: jax.Array, mean: jax.Array, std: jax.Array, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of the elites `[K, V, E]` whose costs `[E]` are finite, mixed with the old ones.

    The deviation is taken about the old mean, as CMA-ES does (Hansen 2016, eq. 13): about the new one it shrinks even where
    the elites all lie to one side, and the Gaussian dies on its way to the optimum.
    """
    finite = jnp.isfinite(values)
    weights = finite / jnp.maximum(finite.sum(), 1)
    centre = elite @ weights
    width = jnp.sqrt((elite - mean[..., None]) ** 2 @ weights)
    fit = finite.any()
    return (
        jnp.where(fit, momentum * mean + (1 - momentum) * centre, mean),
        jnp.where(fit, momentum * std + (1 - momentum) * width, std),
    )
