"""Estimation of a state from observations that are noisy, incomplete, late or missing.

An extended Kalman filter over the dynamics of a problem,

    s[t+1] = f(params, s[t], a[t]) + w,   w ~ N(0, Q),        z[t] = h(params, s[t]) + v,   v ~ N(0, diag(r²)),

which linearises f and h at its estimate. Sensors are taken in one after the other, in Joseph's form
P ← (I - K h) P (I - K h)ᵀ + K r² Kᵀ, which keeps P positive and solves no system of equations, so that estimators can be
exported. Of linear systems the estimate is exact. See Bar-Shalom, Li and Kirubarajan 2001, "Estimation with Applications to
Tracking and Navigation", chapters 5 and 10.

An estimate is of the time at which the last observation was made. `mpc.Policy.step(params, estimate.mean, state, in_flight)`
plans from it for the time at which the action acts; in a control loop, `RealTime(…, observer=Observer(…))` does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import ArrayLike

from mpc.deploy.observer import Observer
from mpc.planners.base import all_finite, tree_where
from mpc.policy import model_advance
from mpc.precision import as_dynamics_keep
from mpc.problem import Problem, with_usual_promotion

__all__ = ["Estimate", "Estimator", "Observer", "extended_kalman"]

Array = jax.Array
PyTree = Any


class Estimate(NamedTuple):
    """A state that is known with some uncertainty.

    `mean`: a state of the model. `covariance`: `[N, N]`, of its N numbers in the order of `jax.flatten_util.ravel_pytree`.
    """

    mean: PyTree
    covariance: Array


class Estimator(NamedTuple):
    """Pure functions that estimate; `jit` them, and `vmap` them over robots. What they return is finite.

    `init(params, mean, deviation) -> Estimate`: before the first observation; `deviation` is the standard deviation of all
    numbers of the state, or `[N]` of each.
    `predict(params, estimate, action) -> Estimate`: a step passes in which an action acts.
    `update(params, estimate, observation) -> Estimate`: an observation comes in; those of its numbers that are not
    finite are missing.
    """

    init: Callable[[PyTree, PyTree, Any], Estimate]
    predict: Callable[[PyTree, Estimate, Any], Estimate]
    update: Callable[[PyTree, Estimate, Any], Estimate]


def extended_kalman(
    problem: Problem,
    observe: Callable[[PyTree, PyTree], PyTree],
    *,
    process: ArrayLike,
    sensors: ArrayLike,
) -> Estimator:
    """Builds an extended Kalman filter for the dynamics of a problem.

    Args:
        problem: Its dynamics and action space; costs and constraints do not matter.
        observe: `(params, state) -> observation`, what the sensors would show, such as the positions. Angles that jump at a
            half turn are observed as cosine and sine.
        process: What happens in a step besides the dynamics: standard deviation of all numbers of the state, `[N]` of each,
            or their covariance `[N, N]`. More trusts observations more.
        sensors: Noise of the sensors, at least a little: standard deviation of all numbers of an observation, or `[M]` of
            each.

    Raises:
        ValueError: If the problem has latents or a lift, or a deviation is not finite, negative, or of the wrong shape. When
            the functions are traced: if the numbers of a state or an observation are more or fewer than deviations.

    Example:
        >>> import jax.numpy as jnp, mpc
        >>> def roll(p, s, a):  # a cart: position, velocity; steps of 0.1 s
        ...     return s + 0.1 * jnp.stack([s[1], a[0]])
        >>> problem = mpc.Problem(roll, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0]))
        >>> filter = mpc.estimation.extended_kalman(problem, lambda p, s: s[:1], process=0.01, sensors=0.01)
        >>> estimate = filter.init(None, jnp.zeros(2), 1.0)
        >>> for position in (0.1, 0.2, jnp.nan, 0.4):
        ...     estimate = filter.update(None, filter.predict(None, estimate, jnp.zeros(1)), jnp.array([position]))
        >>> round(float(estimate.mean[1]), 1)  # a meter per second
        1.0
    """
    if problem.latents is not None or problem.lift is not None:
        raise ValueError("an estimator needs a problem without latents and lift")
    process, sensors = np.asarray(process, float), np.asarray(sensors, float)
    if process.ndim > 2 or (process.ndim == 2 and process.shape[0] != process.shape[1]) or sensors.ndim > 1:
        raise ValueError(f"process must be [], [N] or [N, N] and sensors [] or [M]; got {process.shape} and {sensors.shape}")
    spread = np.linalg.eigvalsh(process) if process.ndim == 2 and np.isfinite(process).all() else process
    if not (np.isfinite(process).all() and (spread >= -1e-12).all() and np.isfinite(sensors).all() and (sensors > 0).all()):
        raise ValueError(
            f"process must be finite and not negative, sensors finite and positive; got {process} and {sensors}"
        )
    functions = (
        partial(_init, problem),
        partial(_predict, problem, process if process.ndim == 2 else process**2),
        partial(_update, observe, sensors**2),
    )
    return Estimator(*(with_usual_promotion(function) for function in functions))


def _init(problem: Problem, params: PyTree, mean: PyTree, deviation: Any) -> Estimate:
    mean = as_dynamics_keep(problem, params, mean)
    flat, _ = ravel_pytree(mean)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ValueError(f"the numbers of an estimated state must be floating point; got {flat.dtype}")
    return Estimate(mean, _covariance(jnp.square(jnp.asarray(deviation, flat.dtype)), flat.size, "deviation"))


def _covariance(variance: Array, size: int, name: str) -> Array:
    """Returns the covariance `[N, N]` of variances `[]` or `[N]`, or a covariance as it is."""
    shapes = [(), (size,)] if variance.ndim < 2 else [(size, size)]
    if variance.shape not in shapes:
        raise ValueError(f"{name} must be one number or one for each of {size}; got shape {list(variance.shape)}")
    return variance if variance.ndim == 2 else jnp.diag(jnp.broadcast_to(variance, (size,)))


def _predict(problem: Problem, noise: np.ndarray, params: PyTree, estimate: Estimate, action: Any) -> Estimate:
    flat, rebuilt = ravel_pytree(estimate.mean)

    def step(flat: Array) -> tuple[Array, Array]:
        after = ravel_pytree(model_advance(problem, params, rebuilt(flat), action))[0]
        return after, after

    slope, after = jax.jacfwd(step, has_aux=True)(flat)
    added = _covariance(jnp.asarray(noise, flat.dtype), flat.size, "process")
    covariance = slope @ estimate.covariance @ slope.T + added
    return _finite(Estimate(rebuilt(after), 0.5 * (covariance + covariance.T)), estimate)


def _update(observe: Callable[..., PyTree], noise: np.ndarray, params: PyTree, estimate: Estimate, seen: Any) -> Estimate:
    flat, rebuilt = ravel_pytree(estimate.mean)

    def sensed(flat: Array) -> tuple[Array, Array]:
        shown = ravel_pytree(observe(params, rebuilt(flat)))[0].astype(flat.dtype)
        return shown, shown

    slope, expected = jax.jacfwd(sensed, has_aux=True)(flat)
    shown = ravel_pytree(jax.tree.map(jnp.asarray, seen))[0].astype(flat.dtype)
    if shown.shape != expected.shape or noise.shape not in ((), expected.shape):
        raise ValueError(
            f"an observation has {expected.size} numbers; got {shown.size}, and sensors of shape {list(noise.shape)}"
        )

    def take_in(before: tuple[Array, Array], sensor: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        """Takes in one sensor, whose slope is that at the mean before the observation."""
        (change, covariance), (slope, surprise, variance) = before, sensor
        gain = covariance @ slope / (slope @ covariance @ slope + variance)
        rest = jnp.eye(len(slope), dtype=gain.dtype) - jnp.outer(gain, slope)
        after = change + gain * (surprise - slope @ change), rest @ covariance @ rest.T + variance * jnp.outer(gain, gain)
        return tree_where(all_finite((surprise, after)), after, before), None

    variances = jnp.broadcast_to(jnp.asarray(noise, flat.dtype), expected.shape)
    begin = jnp.zeros_like(flat), estimate.covariance
    (change, covariance), _ = jax.lax.scan(take_in, begin, (slope, shown - expected, variances))
    return _finite(Estimate(rebuilt(flat + change), 0.5 * (covariance + covariance.T)), estimate)


def _finite(after: Estimate, before: Estimate) -> Estimate:
    """Returns an estimate, or the one before where a number of it is not finite."""
    return tree_where(all_finite(after), after, before)
