"""Helpers of the analytic tasks: Runge-Kutta integration, round obstacles and start distributions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

PyTree = Any
Circles = tuple[tuple[float, float, float], ...]

TOUCH = 1e-4
"""Constraint value above which a limit counts as violated; optimal plans touch a limit up to rounding."""


def rk4(derivative: Callable[[Any, Any], Any], state: Any, action: Any, dt: Any) -> Any:
    """Returns the state after one classical Runge-Kutta step with a constant action; works on JAX and NumPy arrays."""
    k1 = derivative(state, action)
    k2 = derivative(state + 0.5 * dt * k1, action)
    k3 = derivative(state + 0.5 * dt * k2, action)
    k4 = derivative(state + dt * k3, action)
    return state + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def deterministic(
    dynamics: Callable[[PyTree, Array, Array], Array],
) -> Callable[[PyTree, Array, Array, PRNGKeyArray], Array]:
    """Adapts deterministic dynamics `(params, state, action) -> next state` to the signature of `Task.step`."""
    return lambda params, state, action, key: dynamics(params, state, action)


def depth(circles: Circles, point: Float[Array, "2"]) -> Float[Array, " K"]:
    """Returns `1 - |p - c|² / r²` for every circle `(x, y, r)`; it is positive inside."""
    middle, radius = np.array(circles)[:, :2], np.array(circles)[:, 2]
    return 1.0 - ((point - middle) ** 2).sum(axis=1) / radius**2


def crashed(circles: Circles, point: Float[Array, "2"]) -> Bool[Array, ""]:
    """Returns True if a point is inside a circle."""
    return (depth(circles, point) > TOUCH).any()


def around(
    key: PRNGKeyArray, start: tuple[float, ...], width: tuple[float, ...], given: Float[Array, " S"] | None
) -> Float[Array, " S"]:
    """Returns a state drawn uniformly from start ± width, or `given` if it is not None."""
    if given is not None:
        return given
    return jnp.array(start) + jnp.array(width) * jax.random.uniform(key, (len(start),), minval=-1.0, maxval=1.0)


def spread(value: float) -> float:
    """Checks and returns the scale of a start distribution.

    Raises:
        ValueError: If it is outside [0, 1].
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"spread must lie in [0, 1] (0 always starts at the same state); got {value!r}")
    return float(value)
