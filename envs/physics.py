"""What the tasks with known physics share: a step of Runge-Kutta, round obstacles, starts around a given one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

PyTree = Any
Circles = tuple[tuple[float, float, float], ...]

TOUCH = 1e-4
"""By how much a limit has to be exceeded to count as broken: plans that keep to it exactly touch it, and are rounded."""


def rk4(derivative: Callable[[Any, Any], Any], state: Any, action: Any, dt: Any) -> Any:
    """One step of the classical Runge-Kutta scheme, the action held; of arrays of JAX, or of whatever adds up as they do."""
    k1 = derivative(state, action)
    k2 = derivative(state + 0.5 * dt * k1, action)
    k3 = derivative(state + 0.5 * dt * k2, action)
    k4 = derivative(state + dt * k3, action)
    return state + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def certain(dynamics: Callable[[PyTree, Array, Array], Array]) -> Callable[[PyTree, Array, Array, PRNGKeyArray], Array]:
    """Dynamics `(params, state, action) -> next state` as the step of a task, which could be random and is not."""
    return lambda params, state, action, key: dynamics(params, state, action)


def depth(circles: Circles, point: Float[Array, "2"]) -> Float[Array, " K"]:
    """`1 - |p - c|² / r²` for every circle (x, y, r): positive inside."""
    middle, radius = np.array(circles)[:, :2], np.array(circles)[:, 2]
    return 1.0 - ((point - middle) ** 2).sum(axis=1) / radius**2


def crashed(circles: Circles, point: Float[Array, "2"]) -> Bool[Array, ""]:
    """Whether a point is inside a circle."""
    return (depth(circles, point) > TOUCH).any()


def around(
    key: PRNGKeyArray, start: tuple[float, ...], width: tuple[float, ...], given: Float[Array, " S"] | None
) -> Float[Array, " S"]:
    """A state uniform within ± width of a start; or the one that is given."""
    if given is not None:
        return given
    return jnp.array(start) + jnp.array(width) * jax.random.uniform(key, (len(start),), minval=-1.0, maxval=1.0)


def spread(value: float) -> float:
    """Refuse a spread of starts that is none.

    Raises:
        ValueError: With what arrived and what was wanted.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"spread must lie in [0, 1] (0: always the same start); got {value!r}")
    return float(value)
