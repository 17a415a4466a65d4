"""The cross-entropy method for discrete actions: sample categories, refit their probabilities to an elite.

The distribution is a product of categoricals, one per step and choice; its maximum-likelihood fit to the elite is how
often each alternative occurs there (Rubinstein & Kroese 2004, ch. 4.2; smoothed so that no alternative dies by chance).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Planner
from mpc.planners.knots import knots_in_time
from mpc.planners.lagrangian import constrained
from mpc.planners.sampling import Sampler, SamplingState, ScoresAll, contestants, sampling_planner
from mpc.problem import Problem
from mpc.rollout import energy
from mpc.spaces import MultiDiscrete


@constrained(inner=10, growth=2.0)
def categorical_cem(
    problem: Problem,
    *,
    samples: int = 512,
    elites: int = 32,
    momentum: float = 0.1,
    floor: float = 0.01,
    confidence: float = 0.5,
) -> Planner:
    """Plan discrete actions by repeatedly fitting categorical probabilities to the cheapest of many sampled futures.

        p[t, i] ← (1 - momentum) · (share of the elite that chose i at step t) + momentum · p[t, i]

    Args:
        problem: The problem; its space a `Discrete`, `MultiDiscrete` or `MultiBinary`.
        samples: Futures imagined per iteration.
        elites: How many of them the next probabilities are fitted to.
        momentum: Share of the old probabilities kept at each fit; higher values decide later.
        floor: Share of uniform chance mixed into every draw; higher values forget nothing and settle less.
        confidence: Probability with which a guess or the last plan's action is followed at first.

    Raises:
        ValueError: If the space is not discrete, there are fewer samples than elites, no elites, or a share lies outside
            `[0, 1)`.
    """
    space, horizon = problem.action_space, problem.horizon
    if not isinstance(space, MultiDiscrete):
        raise ValueError(f"categorical_cem needs a discrete action space; got {type(space).__name__}; use mpc.cem")
    if samples < 2 or not 1 <= elites <= samples:
        raise ValueError(f"samples must be at least 2 and elites between 1 and samples; got {samples} and {elites}")
    if not (0 <= momentum < 1 and 0 <= floor < 1 and 0 <= confidence < 1):
        raise ValueError(f"momentum, floor and confidence must lie in [0, 1); got {momentum}, {floor} and {confidence}")
    uniform = np.repeat(1 / np.array(space.choices), space.choices)
    grid = knots_in_time(horizon)

    def score(sample: jax.Array, params: Any, state: Any) -> jax.Array:
        value = energy(problem, params, state, space.embed(space.decide(sample)))
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def start(guess: jax.Array | None) -> jax.Array:
        return jnp.zeros((horizon, space.size)) if guess is None else space.encode(guess)

    scores = jax.vmap(score, in_axes=(-1, None, None))
    search = Sampler(grid, scores, lambda samples: samples, start, lambda best, params: space.decide(best))
    return sampling_planner(problem, _Categorical(search, space, uniform, samples, elites, momentum, floor, confidence))


@dataclass(frozen=True, eq=False)
class _Categorical(ScoresAll):
    """The distribution: probabilities `[H, V]` of every alternative; samples are scores of 1 for the choices, -1 else."""

    sampler: Sampler
    space: MultiDiscrete
    uniform: np.ndarray
    samples: int
    elites: int
    momentum: float
    floor: float
    confidence: float

    def begin(self, plan: jax.Array, guided: bool, before: jax.Array | None = None) -> jax.Array:
        shown = self.space.embed(self.space.decide(plan))
        trust = self.confidence if guided else 0.0
        return trust * shown + (1 - trust) * self.uniform.astype(shown.dtype)

    def draw(self, key: jax.Array, planner_state: SamplingState) -> jax.Array:
        """By Gumbel's trick: the largest of log p + noise is alternative i with probability p[i]."""
        probabilities = planner_state.distribution
        mixed = (1 - self.floor) * probabilities + self.floor * self.uniform.astype(probabilities.dtype)
        gumbel = jax.random.gumbel(key, (*probabilities.shape, self.samples), probabilities.dtype)
        # the likeliest actions and the best so far compete too, so that an iteration never loses ground
        kept, drawn = [planner_state.best, probabilities], jnp.log(mixed)[..., None] + gumbel
        samples = jnp.moveaxis(contestants(kept, planner_state.candidate, drawn, spare=1), -1, 0)
        return jnp.moveaxis(self.space.encode(self.space.decide(samples)), 0, -1)

    def refit(self, planner_state: SamplingState, samples: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, order = jax.lax.top_k(-scores, self.elites)
        finite, before = jnp.isfinite(values), planner_state.distribution
        share = (0.5 + 0.5 * samples[..., order]) @ (finite / jnp.maximum(finite.sum(), 1))
        fitted = self.momentum * before + (1 - self.momentum) * share
        probabilities = jnp.where(finite.any(), fitted, before)
        ends = np.cumsum(self.space.choices)[:-1]
        likeliest = jnp.stack([p.max(axis=-1) for p in jnp.split(probabilities, ends, axis=-1)])
        return probabilities, 1 - likeliest.min()

    def info(self, distribution: jax.Array) -> dict[str, Any]:
        return {"probabilities": distribution}
