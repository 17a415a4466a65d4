"""What every task is: a value made of pure functions, which the Gymnasium face, a planner and a world model can all use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


class Bounds(NamedTuple):
    """The least and the largest value of every coordinate of an array; its shape and dtype are theirs."""

    low: np.ndarray
    high: np.ndarray


def bounds(low: Any, high: Any) -> Bounds:
    """Bounds in float32, of numbers or sequences of them."""
    return Bounds(np.asarray(low, np.float32), np.asarray(high, np.float32))


def pixels(*shape: int) -> Bounds:
    """Bounds of an image in bytes."""
    return Bounds(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8))


def _never(state: PyTree) -> jax.Array:
    return jnp.zeros((), bool)


def _nothing(state: PyTree) -> dict[str, jax.Array]:
    return {}


@dataclass(frozen=True, eq=False)
class Task:
    """A Markov decision process as pure functions of one state; batching is the caller's `vmap`.

    Actions are in the task's own units, and clipped to their bounds by `step` and `reward`. A state is a pytree: whatever
    changes within an episode or between episodes, the layout of a maze and the goal included, and nothing else.
    """

    name: str
    """Of the module that makes it."""
    params: PyTree
    """Physical parameters; an argument of the functions below, so that changing one never recompiles anything."""
    reset: Callable[..., PyTree]
    """`(key, **given) -> state`: a start, in which what is `given` under a name of `options` is not drawn but used."""
    step: Callable[[PyTree, PyTree, jax.Array, jax.Array], PyTree]
    """`(params, state, action, key) -> next state`."""
    observe: Callable[[PyTree], jax.Array]
    """`state -> observation`."""
    reward: Callable[[PyTree, PyTree, jax.Array, PyTree], jax.Array]
    """`(params, state, action, next state) -> scalar`."""
    render: Callable[[PyTree], jax.Array]
    """`state -> [h, w, 3]` bytes, for people."""
    actions: Bounds
    observations: Bounds
    horizon: int
    """Steps after which an episode is cut off (truncated)."""
    fps: int
    """Steps per second when shown."""
    success: Callable[[PyTree], jax.Array] = _never
    """`state -> bool`."""
    terminated: Callable[[PyTree], jax.Array] = _never
    """`state -> bool`: nothing comes after."""
    report: Callable[[PyTree], dict[str, jax.Array]] = _nothing
    """`state -> {name: array}`: what else `info` says."""
    goal: Callable[[PyTree], jax.Array] | None = None
    """`state -> observation` as it would be at the goal; None where there is no goal to be seen."""
    options: Mapping[str, Bounds] = field(default_factory=dict)
    """What a start can be given, and between which bounds."""
    possible: Callable[[PyTree], dict[str, jax.Array]] = _nothing
    """`state -> {option: bool}`: whether what was given can be, beyond its bounds: a start inside a wall cannot."""


def choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse a setting that is none of the choices.

    Raises:
        ValueError: With what arrived and what was wanted.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
