"""Predictive sampling: perturb the plan, keep the best of what was tried, and nothing else (Howell et al. 2022)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Planner
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import Sampler, SamplingState, ScoresAll, colouring, gaussian_noise, sampler, sampling_planner
from mpc.problem import Problem


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
        problem: The problem to plan for.
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
    noise = gaussian_noise(
        (search.knots.count, problem.action_space.size, samples - 1), colouring(search.knots.count, exponent)
    )
    widths = spread * 0.5 ** (np.arange(samples - 1) % scales)
    return sampling_planner(problem, _PredictiveSampling(search, noise, widths))


@dataclass(frozen=True, eq=False)
class _PredictiveSampling(ScoresAll):
    """The distribution is nothing but the best plan; `widths`: `[N-1]` standard deviations of the changes to it."""

    sampler: Sampler
    noise: Callable[[jax.Array], jax.Array]
    widths: np.ndarray

    def begin(self, plan: jax.Array, guided: bool, before: Any = None) -> tuple[()]:
        return ()

    def draw(self, key: jax.Array, planner_state: SamplingState) -> jax.Array:
        best, slot = planner_state.best[..., None], planner_state.candidate
        changed = self.sampler.project(best + self.widths.astype(best.dtype) * self.noise(key))
        changed = changed.at[..., -1].set(jnp.where(slot.pending, slot.variables, changed[..., -1]))
        return jnp.concatenate([best, changed], axis=-1)

    def refit(self, planner_state: SamplingState, samples: jax.Array, scores: jax.Array) -> tuple[tuple[()], jax.Array]:
        first = jnp.argmin(scores)
        moved = jnp.abs(samples[..., first] - planner_state.best).max()
        return (), jnp.where(jnp.isfinite(scores[first]), moved, jnp.inf)

    def info(self, distribution: tuple[()]) -> dict[str, Any]:
        return {}
