"""Trajectories of exploring policies: their type, the loop that makes them, and the random numbers they use."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Trajectories(NamedTuple):
    """States and actions of B trajectories of L steps; observations follow by mapping a task's `observe` over the states."""

    states: Any
    """`[B, L+1, ...]`."""
    actions: Float[Array, "*b L A"]
    """`[B, L, A]`."""


def walk(advance: Callable[[Any, Any], tuple[Any, tuple[Any, Array]]], carry: Any, state: Any, drawn: Any) -> Trajectories:
    """Returns one trajectory: states `[L+1, ...]` and actions `[L, A]`.

    Args:
        advance: `(carry, random numbers of a step) -> (carry, (next state, action))`.
        carry: Initial carry of the policy; it includes the state.
        state: Start state.
        drawn: `[L, ...]`: the random numbers of all steps. One draw is much faster than a draw in every step.
    """
    _, (states, actions) = jax.lax.scan(advance, carry, drawn)
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)
    return Trajectories(states, actions)


@cache
def _von_mises_quantiles(concentration: float, entries: int = 2049) -> np.ndarray:
    """Returns quantiles of the von Mises distribution around 0, at `entries` evenly spaced probabilities."""
    angle = np.linspace(-np.pi, np.pi, 20_001)
    density = np.exp(concentration * (np.cos(angle) - 1.0))
    mass = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.interp(np.linspace(0.0, 1.0, entries), mass / mass[-1], angle).astype(np.float32)


def von_mises(draws: Float[Array, "*n"], concentration: float) -> Float[Array, "*n"]:
    """Returns von Mises angles in rad for uniform numbers in [0, 1), by a table of the inverse distribution function."""
    table = jnp.asarray(_von_mises_quantiles(concentration))
    index = draws * (table.shape[0] - 1)
    below = jnp.clip(index.astype(jnp.int32), 0, table.shape[0] - 2)
    return table[below] + (index - below) * (table[below + 1] - table[below])


def normal_within_two(draws: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns standard normal numbers truncated to ±2 for uniform numbers in [0, 1), by the inverse error function."""
    return np.float32(np.sqrt(2.0)) * jax.scipy.special.erfinv((2.0 * draws - 1.0) * math.erf(np.sqrt(2.0)))
