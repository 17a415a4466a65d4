"""iCEM, the sample-efficient cross-entropy method (Pinneri et al. 2020).

To CEM it adds coloured noise, elites that are kept from one iteration to the next and shifted from one decision to the
next, and a population that shrinks as the Gaussian narrows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner
from mpc.planners.cem import cheapest, check, refit
from mpc.planners.knots import Interpolation
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import Sampler, SamplingState, colouring, gaussian_noise, sampler, sampling_planner
from mpc.problem import Problem


@constrained(inner=10, growth=2.0)
def icem(
    problem: Problem,
    *,
    samples: int = 512,
    elites: int = 32,
    spread: float = 0.5,
    momentum: float = 0.1,
    exponent: float = 1.0,
    kept: float = 0.3,
    decay: float = 1.1,
    knots: int | None = None,
    interpolation: Interpolation = "linear",
) -> Planner:
    """Plan as `mpc.cem` does, with far fewer samples for the same cost.

    Args:
        problem: The problem; a continuous action space.
        samples: Futures imagined in the first iteration of a decision.
        elites: How many of them the next Gaussian is fitted to.
        spread: Standard deviation to begin with, in variables, which span `[-1, 1]`.
        momentum: Share of the old mean and deviation kept at each fit; higher values converge later.
        exponent: Of the noise's power spectrum `f^-exponent`: 0 is white, 2 changes slowly. The paper takes 2 to 4 for
            locomotion and 0.25 where actions must switch.
        kept: Share of the elites that compete again in the next iteration.
        decay: The population is divided by this at each iteration, down to twice the elites; the paper takes 1.25.
            1 keeps it.
        knots: Search over so many knots in time instead of every step; None for every step.
        interpolation: `"zero"`, `"linear"` or `"cubic"` between knots.

    Raises:
        ValueError: If the action space is discrete, there are fewer samples than twice the elites, no elites, no spread, a
            share lies outside `[0, 1)`, the exponent is negative, decay is below 1, or the knots do not fit the horizon.
    """
    check(samples, elites, spread, momentum)
    if not problem.action_space.exact:
        raise ValueError("icem needs a continuous action space; use mpc.cem, which samples categories")
    if samples < 2 * elites or exponent < 0 or not 0 <= kept < 1 or decay < 1:
        raise ValueError(
            "icem needs samples >= 2 elites, exponent >= 0, kept in [0, 1) and decay >= 1; "
            f"got samples={samples}, elites={elites}, exponent={exponent}, kept={kept}, decay={decay}"
        )
    search = sampler(problem, knots, interpolation)
    block = 2 * elites
    count = -(-samples // block) * block
    noise = gaussian_noise((search.knots.count, problem.action_space.size, count), colouring(search.knots.count, exponent))
    return sampling_planner(
        problem, _Icem(search, noise, elites, max(int(kept * elites), 1), count, spread, momentum, decay)
    )


class ShrinkingGaussian(NamedTuple):
    """A Gaussian over knots `[K, V]`, the elites `[K, V, E]` of the last fit, and the size of the next population."""

    mean: jax.Array
    std: jax.Array
    elites: jax.Array
    population: jax.Array


@dataclass(frozen=True, eq=False)
class _Icem:
    """`again`: elites that compete once more. `count`: the first population, in whole blocks of twice the elites."""

    sampler: Sampler
    noise: Callable[[jax.Array], jax.Array]
    elites: int
    again: int
    count: int
    spread: float
    momentum: float
    decay: float

    def begin(self, plan: jax.Array, guided: bool, before: ShrinkingGaussian | None = None) -> ShrinkingGaussian:
        old = jnp.broadcast_to(plan[..., None], (*plan.shape, self.again))
        if before is not None:
            old = self.sampler.knots.shift(before.elites)
        return ShrinkingGaussian(plan, jnp.full_like(plan, self.spread), old, jnp.asarray(self.count, plan.dtype))

    def draw(self, key: jax.Array, planner_state: SamplingState) -> jax.Array:
        mean, std, elites, _ = planner_state.distribution
        kept = jnp.concatenate([mean[..., None], elites], axis=-1)
        if kept.shape[-1] >= self.count:  # which would leave no room to search
            kept = planner_state.best[..., None]
        drawn = self.sampler.project(mean[..., None] + std[..., None] * self.noise(key))
        samples = jnp.concatenate([kept, drawn[..., kept.shape[-1] :]], axis=-1)
        slot, last = planner_state.candidate, 2 * self.elites - 1  # of the first block, which is always scored
        return samples.at[..., last].set(jnp.where(slot.pending, slot.variables, samples[..., last]))

    def scores(self, samples: jax.Array, planner_state: SamplingState, params: Any, state: Any) -> jax.Array:
        """Energies, infinite beyond the population: futures are imagined block by block, so that few take less time."""
        block = 2 * self.elites

        def score(index: jax.Array, costs: jax.Array) -> jax.Array:
            some = jax.lax.dynamic_slice_in_dim(samples, index * block, block, axis=-1)
            return jax.lax.dynamic_update_slice_in_dim(
                costs, self.sampler.scores(some, params, state), index * block, axis=0
            )

        blocks = jnp.ceil(planner_state.distribution.population / block).astype(jnp.int32)
        return jax.lax.fori_loop(0, blocks, score, jnp.full(self.count, jnp.inf, samples.dtype))

    def refit(
        self, planner_state: SamplingState, samples: jax.Array, scores: jax.Array
    ) -> tuple[ShrinkingGaussian, jax.Array]:
        before = planner_state.distribution
        values, elite = cheapest(scores, samples, self.elites)
        mean, std = refit(values, elite, before.mean, before.std, self.momentum)
        population = jnp.maximum(before.population / self.decay, 2 * self.elites)
        return ShrinkingGaussian(mean, std, elite[..., : self.again], population), std.max()

    def info(self, distribution: ShrinkingGaussian) -> dict[str, Any]:
        return {"std": distribution.std, "population": distribution.population}
