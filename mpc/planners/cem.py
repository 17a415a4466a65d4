"""The cross-entropy method: sample futures, keep an elite, sample around it (Rubinstein & Kroese 2004)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner, plan_from_choice, smoothing
from mpc.planners.categorical import categorical_cem
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import gaussian_noise, sampler
from mpc.problem import Problem
from mpc.spaces import MultiDiscrete


class CemState(NamedTuple):
    """A Gaussian over `[K, V]` knots, the best sample seen, and how wide the Gaussian still is."""

    mean: jax.Array
    std: jax.Array
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array

    @property
    def variables(self) -> jax.Array:
        """The best plan so far; `[H, V]` where every step is a knot."""
        return self.best

    def reset_to(self, variables: jax.Array) -> "CemState":
        """Take up a proposal in place of the best plan, which goes on competing as the mean."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(best=variables, cost=infinite, optimality=infinite)


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
        problem: What is minimised over what.
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
    steps, size = search.knots.count, problem.action_space.size
    noise = gaussian_noise((steps, size, samples), smoothing(steps, smoothness))

    def begin(mean: jax.Array, key: jax.Array) -> CemState:
        infinite = jnp.asarray(jnp.inf, mean.dtype)
        return CemState(mean, jnp.full_like(mean, spread), mean, infinite, infinite, key)

    def init(params: Any, state: Any, key: jax.Array, guess: jax.Array | None = None) -> CemState:
        return begin(search.start(guess), key)

    def step(params: Any, state: Any, planner_state: CemState) -> CemState:
        key, draw = jax.random.split(planner_state.key)
        candidates = search.project(planner_state.mean[..., None] + planner_state.std[..., None] * noise(draw))
        # the mean and the best so far compete too, so that an iteration never loses ground
        kept = jnp.stack([planner_state.mean, planner_state.best], axis=-1)
        candidates = jnp.concatenate([kept, candidates[..., 2:]], axis=-1)[..., :samples]
        costs = search.scores(candidates, params, state)
        values, elite = cheapest(costs, candidates, elites)
        mean, std = refit(values, elite, planner_state.mean, planner_state.std, momentum)
        better = values[0] < planner_state.cost
        best = jnp.where(better, elite[..., 0], planner_state.best)
        return CemState(mean, std, best, jnp.minimum(values[0], planner_state.cost), std.max(), key)

    def best_actions(params: Any, state: Any, planner_state: CemState) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        info = {"optimality": planner_state.optimality, "std": planner_state.std}
        return search.decide(planner_state.best, params), jnp.isfinite(planner_state.cost), info

    def shift(planner_state: CemState) -> CemState:
        return begin(search.knots.shift(planner_state.best), planner_state.key)

    return Planner(init, step, plan_from_choice(problem, best_actions), shift, problem, best_actions)


def check(samples: int, elites: int, spread: float, momentum: float) -> None:
    """What every cross-entropy method asks of its settings."""
    if not 1 <= elites <= samples:
        raise ValueError(f"elites must be between 1 and samples={samples}; got {elites}")
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
