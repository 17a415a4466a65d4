"""What the sampling planners share: candidates as knots in time, noise that costs next to nothing, and their scores.

Candidates lie along the last axis, `[K, V, N]`, so that everything done to all of them is one long vector operation.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.knots import Interpolation, Knots, knots_in_time
from mpc.problem import Problem
from mpc.rollout import energy

PyTree = Any


class Sampler(NamedTuple):
    """How one planner draws and scores candidates, over K knots and V variables each; made by `sampler`.

    `scores(candidates [K, V, N], params, state) -> [N]`: energies of what would be executed, infinite where not finite.
    `project(candidates) -> candidates`: knots clipped to where the space's variables lie.
    `start(guess) -> knots [K, V]`: a guess's actions `[H, ...]` as knots; zero without one.
    `decide(knots, params) -> actions [H, ...]`: what knots stand for, as executed.
    """

    knots: Knots
    scores: Callable[[jax.Array, PyTree, PyTree], jax.Array]
    project: Callable[[jax.Array], jax.Array]
    start: Callable[[jax.Array | None], jax.Array]
    decide: Callable[[jax.Array, PyTree], jax.Array]


def sampler(problem: Problem, knots: int | None, interpolation: Interpolation) -> Sampler:
    """Candidates of `problem`, described by `knots` (None for every step) joined by `interpolation`."""
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
    normal, order = NormalDist(), np.random.default_rng(0)
    quantiles = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    quantiles /= max(quantiles.std(), 1e-9)
    deck = order.permuted(np.broadcast_to(quantiles, shape), axis=-1)

    def draw(key: jax.Array) -> jax.Array:
        bits = jax.random.bits(key, (steps, size, 1), jnp.uint32)
        places = ((bits >> 1) % count + np.arange(count, dtype=np.uint32)) % count
        dtype = jnp.result_type(float)
        white = jnp.take_along_axis(jnp.asarray(deck, dtype), places.astype(jnp.int32), axis=-1)
        white = white * jnp.where(bits & 1, 1.0, -1.0).astype(dtype)
        return (jnp.asarray(colour, dtype) @ white.reshape(steps, -1)).reshape(shape)

    return draw
