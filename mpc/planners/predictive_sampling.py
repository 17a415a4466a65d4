"""Predictive sampling: perturb the plan, keep the best of what was tried, and nothing else (Howell et al. 2022)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner, plan_from_choice
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import colouring, gaussian_noise, sampler
from mpc.problem import Problem


class PredictiveSamplingState(NamedTuple):
    """The best knots seen `[K, V]`, what they cost, and how far they moved at the last step."""

    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array


@constrained(inner=10, growth=2.0)
def predictive_sampling(
    problem: Problem,
    *,
    samples: int = 128,
    spread: float = 0.3,
    scales: int = 4,
    exponent: float = 0.0,
    knots: int | None = None,
    interpolation: Interpolation = "cubic",
) -> Planner:
    """Plan by trying random changes to the best plan so far.

    The simplest planner there is: hard to beat when a decision must be made in a few milliseconds from a good warm start,
    and much too patient for a hard problem from a cold one. Take `mpc.cem` there.

    Args:
        problem: What is minimised over what.
        samples: Futures imagined per iteration, the best so far being one.
        spread: Largest standard deviation of the changes, in variables, which span `[-1, 1]`.
        scales: Candidates are perturbed at so many sizes at once, `spread`, `spread / 2`, `spread / 4` …; 1 is the paper's.
        exponent: Of the noise's power spectrum `f^-exponent`; 0 is white, 2 changes slowly.
        knots: Number of knots in time; None for 1 in 5 steps.
        interpolation: `"zero"`, `"linear"` or `"cubic"` between knots.

    Raises:
        ValueError: If there are fewer than 2 samples, no spread or scale, the exponent is negative, or the knots do not
            fit the horizon.
    """
    if samples < 2 or not spread > 0 or scales < 1 or exponent < 0:
        raise ValueError(
            "predictive_sampling needs samples >= 2, spread > 0, scales >= 1 and exponent >= 0; "
            f"got samples={samples}, spread={spread}, scales={scales}, exponent={exponent}"
        )
    knots = min(problem.horizon, max(2, -(-problem.horizon // 5))) if knots is None else knots
    search = sampler(problem, knots, interpolation)
    steps, size = search.knots.count, problem.action_space.size
    noise = gaussian_noise((steps, size, samples - 1), colouring(steps, exponent))

    def begin(best: jax.Array, key: jax.Array) -> PredictiveSamplingState:
        infinite = jnp.asarray(jnp.inf, best.dtype)
        return PredictiveSamplingState(best, infinite, infinite, key)

    def init(params: Any, state: Any, key: jax.Array, guess: jax.Array | None = None) -> PredictiveSamplingState:
        return begin(search.start(guess), key)

    def step(params: Any, state: Any, planner_state: PredictiveSamplingState) -> PredictiveSamplingState:
        key, draw = jax.random.split(planner_state.key)
        widths = spread * 0.5 ** (jnp.arange(samples - 1) % scales)
        changed = search.project(planner_state.best[..., None] + widths.astype(planner_state.best.dtype) * noise(draw))
        candidates = jnp.concatenate([planner_state.best[..., None], changed], axis=-1)
        costs = search.scores(candidates, params, state)
        leader = jnp.argmin(costs)
        best = candidates[..., leader]
        moved = jnp.where(jnp.isfinite(costs[leader]), jnp.abs(best - planner_state.best).max(), jnp.inf)
        return PredictiveSamplingState(best, costs[leader], moved, key)

    def best_actions(
        params: Any, state: Any, planner_state: PredictiveSamplingState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        return (
            search.decide(planner_state.best, params),
            jnp.isfinite(planner_state.cost),
            {"optimality": planner_state.optimality},
        )

    def shift(planner_state: PredictiveSamplingState) -> PredictiveSamplingState:
        return begin(search.knots.shift(planner_state.best), planner_state.key)

    return Planner(init, step, plan_from_choice(problem, best_actions), shift, problem, best_actions)
