"""The base of the sampling planners: candidates as knots in time, their scores, cheap noise, and the loop around them.

    sample futures around the plan, score them, keep the cheapest, refit the distribution; again and again

An algorithm fills in the distribution: how it begins, what it draws, and how scores change it (`SamplingAlgorithm`).
Samples lie along the last axis, `[K, V, N]`, so that everything done to all of them is one long vector operation.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Planner, plan_from_choice
from mpc.planners.candidates import Candidate, emptied, injector, later, no_candidate
from mpc.planners.knots import Interpolation, Knots, knots_in_time
from mpc.problem import Problem
from mpc.rollout import energy

PyTree = Any

ALONE = 16  # quantiles of the noise of a single draw, whose own is 0


class Sampler(NamedTuple):
    """Samples of one problem's plans, over K knots and V variables each; made by `sampler`.

    `scores(samples [K, V, N], params, state) -> [N]`: energies of what would be executed, infinite where not finite.
    `project(samples) -> samples`: knots clipped to where the space's variables lie.
    `start(guess) -> knots [K, V]`: a guess's actions `[H, ...]` as knots; zero without one.
    `decide(knots, params) -> actions [H, ...]`: the actions that knots stand for, as executed.
    """

    knots: Knots
    scores: Callable[[jax.Array, PyTree, PyTree], jax.Array]
    project: Callable[[jax.Array], jax.Array]
    start: Callable[[jax.Array | None], jax.Array]
    decide: Callable[[jax.Array, PyTree], jax.Array]


class SamplingState(NamedTuple):
    """State of a sampling planner.

    `distribution`: the algorithm's own. `best`: knots `[K, V]` of the cheapest sample of this decision. `cost`: its cost.
    `optimality`: the algorithm's measure of how unsettled it is. `candidate`: a slot for one.
    """

    distribution: Any
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array
    candidate: Candidate

    @property
    def variables(self) -> jax.Array:
        """The best plan so far; `[H, V]` where every step is a knot."""
        return self.best


class SamplingAlgorithm(Protocol):
    """The parts of a sampling planner that algorithms differ in; all methods are pure.

    `begin(plan, guided, before)`: the distribution around knots `[K, V]`, which are a plan if `guided` and else zeros;
    `before`: the distribution of the decision before, or None.
    `draw(key, planner_state)`: samples `[K, V, N]`; the best plan so far and a pending candidate are among them.
    `scores(samples, planner_state, params, state)`: their energies `[N]`, infinite where there is none.
    `refit(planner_state, samples, scores)`: the next distribution and the optimality.
    `info(distribution)`: quantities worth showing with the plan.
    """

    @property
    def sampler(self) -> Sampler: ...

    def begin(self, plan: jax.Array, guided: bool, before: Any = None) -> Any: ...
    def draw(self, key: jax.Array, planner_state: SamplingState) -> jax.Array: ...
    def scores(self, samples: jax.Array, planner_state: SamplingState, params: PyTree, state: PyTree) -> jax.Array: ...
    def refit(self, planner_state: SamplingState, samples: jax.Array, scores: jax.Array) -> tuple[Any, jax.Array]: ...
    def info(self, distribution: Any) -> dict[str, Any]: ...


class ScoresAll:
    """The usual `scores` of an algorithm: every sample is imagined."""

    sampler: Sampler

    def scores(self, samples: jax.Array, planner_state: SamplingState, params: PyTree, state: PyTree) -> jax.Array:
        """Energies `[N]` of samples `[K, V, N]`."""
        return self.sampler.scores(samples, params, state)


def sampling_planner(problem: Problem, algorithm: SamplingAlgorithm) -> Planner:
    """The planner of a sampling algorithm."""
    search = algorithm.sampler

    def begin(plan: jax.Array, key: jax.Array, guided: bool, before: Any = None) -> SamplingState:
        infinite = jnp.asarray(jnp.inf, plan.dtype)
        distribution = algorithm.begin(plan, guided, before)
        return SamplingState(distribution, plan, infinite, infinite, key, no_candidate(plan))

    def init(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> SamplingState:
        return begin(search.start(guess), key, guess is not None)

    def step(params: PyTree, state: PyTree, planner_state: SamplingState) -> SamplingState:
        key, draw = jax.random.split(planner_state.key)
        samples = algorithm.draw(draw, planner_state)
        scores = algorithm.scores(samples, planner_state, params, state)
        distribution, optimality = algorithm.refit(planner_state, samples, scores)
        first = jnp.argmin(scores)
        better = scores[first] < planner_state.cost
        best = jnp.where(better, samples[..., first], planner_state.best)
        cost, slot = jnp.minimum(scores[first], planner_state.cost), emptied(planner_state.candidate)
        return SamplingState(distribution, best, cost, optimality, key, slot)

    def best_actions(
        params: PyTree, state: PyTree, planner_state: SamplingState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        info = {"optimality": planner_state.optimality, **algorithm.info(planner_state.distribution)}
        return search.decide(planner_state.best, params), jnp.isfinite(planner_state.cost), info

    def shift(planner_state: SamplingState) -> SamplingState:
        plan, slot = search.knots.shift(planner_state.best), later(planner_state.candidate, search.knots.shift)
        return begin(plan, planner_state.key, True, planner_state.distribution)._replace(candidate=slot)

    inject = injector(problem, search.start)
    return Planner(init, step, plan_from_choice(problem, best_actions), shift, inject, problem, best_actions)


def sampler(problem: Problem, knots: int | None, interpolation: Interpolation) -> Sampler:
    """Samples of plans of `problem`, described by `knots` (None for every step) joined by `interpolation`."""
    space, horizon = problem.action_space, problem.horizon
    grid = knots_in_time(horizon, knots, interpolation)

    def decide(candidate: jax.Array, params: PyTree) -> jax.Array:
        return space.bind(params).decide(space.project(grid.expand(candidate)))

    def score(candidate: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        value = energy(problem, params, state, space.embed(decide(candidate, params)))
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def project(candidates: jax.Array) -> jax.Array:
        return jnp.moveaxis(space.project(jnp.moveaxis(candidates, 1, -1)), -1, 1)

    def start(guess: jax.Array | None) -> jax.Array:
        if guess is None:
            return jnp.zeros((grid.count, space.size))
        return grid.fit(space.project(space.encode(guess)))

    return Sampler(grid, jax.vmap(score, in_axes=(-1, None, None)), project, start, decide)


def colouring(steps: int, exponent: float) -> np.ndarray:
    """The matrix `[steps, steps]` that turns white noise into stationary noise with power spectrum `f^-exponent`.

    0 is white, 1 pink, 2 red noise; every step keeps unit variance. The Cholesky factor of the autocovariance that the
    spectrum implies over twice the length (Timmer & König 1995; used for planning by Pinneri et al. 2020).
    """
    power = np.fft.rfftfreq(2 * steps, d=0.5)
    power = np.where(power > 0, power, power[min(1, len(power) - 1)]) ** -float(exponent)
    covariance = np.fft.irfft(power)[:steps]
    lag = np.abs(np.arange(steps)[:, None] - np.arange(steps))
    return np.linalg.cholesky(covariance[lag] / covariance[0] + 1e-9 * np.eye(steps))


def gaussian_noise(shape: tuple[int, int, int], colour: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Unit Gaussian noise, coloured along the first axis by a `[K, K]` matrix, as a function of the key.

    Random numbers would cost more than small models' futures do. So the N draws of each coordinate are drawn once and for
    all, as the normal distribution's own N quantiles in random order (Latin hypercube: McKay et al. 1979); a key only
    decides by how much each coordinate's draws are rotated against the others', and their signs.

    Args:
        shape: Of the noise, `[K, V, N]`.
        colour: `[K, K]`, see `colouring`.
    """
    steps, size, count = shape
    cards, normal, order = count if count > 1 else ALONE, NormalDist(), np.random.default_rng(0)
    quantiles = np.array([normal.inv_cdf((i + 0.5) / cards) for i in range(cards)])
    deck = order.permuted(np.broadcast_to(quantiles / quantiles.std(), (steps, size, cards)), axis=-1)

    def draw(key: jax.Array) -> jax.Array:
        bits = jax.random.bits(key, (steps, size, 1), jnp.uint32)
        places = ((bits >> 1) % cards + np.arange(count, dtype=np.uint32)) % cards
        dtype = jnp.result_type(float)
        white = jnp.take_along_axis(jnp.asarray(deck, dtype), places.astype(jnp.int32), axis=-1)
        white = white * jnp.where(bits & 1, 1.0, -1.0).astype(dtype)
        return (jnp.asarray(colour, dtype) @ white.reshape(steps, -1)).reshape(shape)

    return draw


def contestants(kept: list[jax.Array], candidate: Candidate, drawn: jax.Array, spare: int = 0) -> jax.Array:
    """The samples to score, `[..., N]`: those kept, a pending candidate, and as many draws as there is room for.

    Args:
        kept: Each `[...]`.
        candidate: The slot.
        drawn: `[..., N]`, of which the first give way; N at least 2.
        spare: Index of the one among `kept` that gives way, to the candidate or a draw, where there is room for no more; it
            must not be the only one that holds the plan under way.
    """
    count, size = len(kept), drawn.shape[-1]
    if size > count:
        kept = [*kept, jnp.where(candidate.pending, candidate.variables, drawn[..., count])]
    else:
        kept[spare] = jnp.where(candidate.pending, candidate.variables, drawn[..., spare])
    return jnp.concatenate([jnp.stack(kept, axis=-1), drawn[..., len(kept) :]], axis=-1)
