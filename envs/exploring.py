"""Trajectories to learn from: what every exploring policy returns and draws its turns from."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Trajectories(NamedTuple):
    """What was done and what came of it, for B trajectories of L steps; frames are a task's `observe`, mapped over them."""

    states: Any
    """`[B, L+1, ...]`."""
    actions: Float[Array, "*b L A"]
    """`[B, L, A]`."""


def walk(advance: Callable[[Any, Any], tuple[Any, tuple[Any, Array]]], carry: Any, state: Any, drawn: Any) -> Trajectories:
    """One trajectory, `[L+1, ...]` and `[L, A]`.

    Args:
        advance: `(carry, what was drawn for a step) -> (carry, (next state, action))`.
        carry: What the policy remembers, the state included.
        state: Where it begins.
        drawn: `[L, ...]`: all that is random, drawn at once, which is much faster than in every step.
    """
    _, (states, actions) = jax.lax.scan(advance, carry, drawn)
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)
    return Trajectories(states, actions)


@cache
def _turns(concentration: float, entries: int = 2049) -> np.ndarray:
    """Quantiles of the von Mises distribution around 0, at `entries` evenly spaced probabilities."""
    angle = np.linspace(-np.pi, np.pi, 20_001)
    density = np.exp(concentration * (np.cos(angle) - 1.0))
    mass = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.interp(np.linspace(0.0, 1.0, entries), mass / mass[-1], angle).astype(np.float32)


def von_mises(draws: Float[Array, "*n"], concentration: float) -> Float[Array, "*n"]:
    """Angles around 0 in rad, from uniform numbers in [0, 1), by inverting the distribution function from a table."""
    table = jnp.asarray(_turns(concentration))
    place = draws * (table.shape[0] - 1)
    below = jnp.clip(place.astype(jnp.int32), 0, table.shape[0] - 2)
    return table[below] + (place - below) * (table[below + 1] - table[below])


def normal_within_two(draws: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Standard normal numbers cut off at ±2, from uniform numbers in [0, 1), by the inverse error function."""
    return np.float32(np.sqrt(2.0)) * jax.scipy.special.erfinv((2.0 * draws - 1.0) * math.erf(np.sqrt(2.0)))
