"""`Task`: a value made of pure functions, used by Gymnasium environments, planners and world models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


class Bounds(NamedTuple):
    """Smallest and largest value of each coordinate of an array, with the shape and dtype of the array."""

    low: np.ndarray
    high: np.ndarray


def bounds(low: Any, high: Any) -> Bounds:
    """Returns float32 bounds."""
    return Bounds(np.asarray(low, np.float32), np.asarray(high, np.float32))


def pixels(*shape: int) -> Bounds:
    """Returns the bounds of an image of bytes."""
    return Bounds(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8))


def _never(state: PyTree) -> jax.Array:
    return jnp.zeros((), bool)


def _nothing(state: PyTree) -> dict[str, jax.Array]:
    return {}


@dataclass(frozen=True, eq=False)
class Task:
    """A Markov decision process as pure functions of one state; batching is the caller's `vmap`.

    Actions are in the units of the task; `step` and `reward` clip them to their bounds. A state is a pytree with everything
    that changes within or between episodes, including the goal and the layout of a maze.
    """

    name: str
    """Name of its module."""
    params: PyTree
    """Physical parameters; they are arguments of the functions below, so that changing one does not recompile."""
    reset: Callable[..., PyTree]
    """`(key, **given) -> state`: a random start state, with the values `given` for names of `options`."""
    step: Callable[[PyTree, PyTree, jax.Array, jax.Array], PyTree]
    """`(params, state, action, key) -> next state`."""
    observe: Callable[[PyTree], jax.Array]
    """`state -> observation`."""
    reward: Callable[[PyTree, PyTree, jax.Array, PyTree], jax.Array]
    """`(params, state, action, next state) -> scalar`."""
    render: Callable[[PyTree], jax.Array]
    """`state -> [h, w, 3]` bytes: an image for people."""
    actions: Bounds
    observations: Bounds
    horizon: int
    """Steps after which an episode is truncated."""
    fps: int
    """Steps per second of a video."""
    observation_names: tuple[str, ...] = ()
    """Of the numbers of an observation, with their units, for pictures; empty where nobody named them, and for images."""
    success: Callable[[PyTree], jax.Array] = _never
    """`state -> bool`."""
    terminated: Callable[[PyTree], jax.Array] = _never
    """`state -> bool`: the episode has ended."""
    report: Callable[[PyTree], dict[str, jax.Array]] = _nothing
    """`state -> {name: array}`: further entries of Gymnasium's `info`."""
    goal: Callable[[PyTree], jax.Array] | None = None
    """`state -> observation` at the goal; None if the task has no goal observation."""
    options: Mapping[str, Bounds] = field(default_factory=dict)
    """Names of the parts of a start state that `reset` accepts, with their bounds."""
    possible: Callable[[PyTree], dict[str, jax.Array]] = _nothing
    """`state -> {option: bool}`: False for a value that is within its bounds but impossible, such as a start in a wall."""


def choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Checks that a setting is one of its choices.

    Raises:
        ValueError: If it is not.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
