"""The cross-entropy method for discrete actions: sample categories, refit their probabilities to an elite.

The distribution is a product of categoricals, one per step and choice; its maximum-likelihood fit to the elite is how
often each alternative occurs there (Rubinstein & Kroese 2004, ch. 4.2; smoothed so that no alternative dies by chance).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Planner, plan_from_choice
from mpc.planners.lagrangian import constrained
from mpc.problem import Problem
from mpc.rollout import energy
from mpc.spaces import MultiDiscrete


class CategoricalState(NamedTuple):
    """Probabilities `[H, V]` of every alternative, scores `[H, V]` of the best plan seen, and how undecided it still is."""

    probabilities: jax.Array
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array

    @property
    def variables(self) -> jax.Array:
        """The best plan so far, `[H, V]`."""
        return self.best

    def reset_to(self, variables: jax.Array) -> "CategoricalState":
        """Take up a proposal `[H, V]` in place of the best plan, which goes on competing as the likeliest."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(best=variables, cost=infinite, optimality=infinite)


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
        problem: What is minimised over what; its space a `Discrete`, `MultiDiscrete` or `MultiBinary`.
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
    if not 1 <= elites <= samples:
        raise ValueError(f"elites must be between 1 and samples={samples}; got {elites}")
    if not (0 <= momentum < 1 and 0 <= floor < 1 and 0 <= confidence < 1):
        raise ValueError(f"momentum, floor and confidence must lie in [0, 1); got {momentum}, {floor} and {confidence}")
    choices = np.array(space.choices)
    ends = np.cumsum(choices)
    uniform = np.repeat(1 / choices, choices)

    def draw(key: jax.Array, probabilities: jax.Array) -> jax.Array:
        """Scores `[N, H, V]` by Gumbel's trick: the largest of log p + noise is alternative i with probability p[i]."""
        mixed = (1 - floor) * probabilities + floor * uniform.astype(probabilities.dtype)
        gumbel = jax.random.gumbel(key, (horizon, space.size, samples), probabilities.dtype)
        return jnp.moveaxis(jnp.log(mixed)[..., None] + gumbel, -1, 0)

    def score(shown: jax.Array, params: Any, state: Any) -> jax.Array:
        value = energy(problem, params, state, shown)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def begin(best: jax.Array, key: jax.Array, trust: float) -> CategoricalState:
        shown = space.embed(space.decide(best))
        probabilities = trust * shown + (1 - trust) * uniform.astype(shown.dtype)
        infinite = jnp.asarray(jnp.inf, shown.dtype)
        return CategoricalState(probabilities, best, infinite, infinite, key)

    def init(params: Any, state: Any, key: jax.Array, guess: jax.Array | None = None) -> CategoricalState:
        if guess is None:
            return begin(jnp.zeros((horizon, space.size)), key, 0.0)
        return begin(space.encode(guess), key, confidence)

    def step(params: Any, state: Any, planner_state: CategoricalState) -> CategoricalState:
        key, key_draw = jax.random.split(planner_state.key)
        candidates = space.decide(draw(key_draw, planner_state.probabilities))
        # the likeliest actions and the best so far compete too, so that an iteration never loses ground
        kept = space.decide(jnp.stack([planner_state.best, planner_state.probabilities]))
        candidates = jnp.concatenate([kept, candidates[2:]])[:samples]
        shown = space.embed(candidates)
        costs = jax.vmap(score, in_axes=(0, None, None))(shown, params, state)
        values, order = jax.lax.top_k(-costs, elites)
        finite = jnp.isfinite(values)
        share = jnp.einsum("e,ehv->hv", finite / jnp.maximum(finite.sum(), 1), shown[order])
        fitted = momentum * planner_state.probabilities + (1 - momentum) * share
        probabilities = jnp.where(finite.any(), fitted, planner_state.probabilities)
        better = -values[0] < planner_state.cost
        best = jnp.where(better, space.encode(candidates[order[0]]), planner_state.best)
        likeliest = jnp.stack([p.max(axis=-1) for p in jnp.split(probabilities, ends[:-1], axis=-1)])
        return CategoricalState(probabilities, best, jnp.minimum(-values[0], planner_state.cost), 1 - likeliest.min(), key)

    def best_actions(
        params: Any, state: Any, planner_state: CategoricalState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        info = {"optimality": planner_state.optimality, "probabilities": planner_state.probabilities}
        return space.decide(planner_state.best), jnp.isfinite(planner_state.cost), info

    def shift(planner_state: CategoricalState) -> CategoricalState:
        return begin(jnp.concatenate([planner_state.best[1:], planner_state.best[-1:]]), planner_state.key, confidence)

    return Planner(init, step, plan_from_choice(problem, best_actions), shift, problem, best_actions)
