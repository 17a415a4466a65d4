"""Action spaces: planner variables, the action a model is shown, the action an environment executes.

A planner searches over *variables*, one vector of `space.size` numbers per time step, every one of them in `[-1, 1]`.
The space turns them into actions, and is the one place where bounds are guaranteed:

| method | gives | for |
|---|---|---|
| `project(variables)` | the nearest allowed variables | after every planner update |
| `relax(variables)` | a differentiable action | what the model sees while the planner searches |
| `decide(variables)` | an action of the space, exactly | what is executed |
| `embed(action)` | the model's view of an executed action | learning, and scoring what is really executed |
| `encode(action)` | variables that decide on that action | warm starts from actions |

For a `Box`, `relax` and `decide` agree. For the discrete spaces `relax` is a point on a simplex (a softmax of scores) and
`decide` picks its largest coordinate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

Array = jax.Array


class Space(Protocol):
    """What a planner asks of an action space; see the module's table.

    `size`: planner variables per step. `shape`: of one executed action. `exact`: the model sees just what is executed.
    `bounded`: every coordinate has two finite bounds.
    """

    @property
    def size(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def exact(self) -> bool: ...
    @property
    def bounded(self) -> bool: ...

    def project(self, variables: Array) -> Array: ...
    def relax(self, variables: Array) -> Array: ...
    def decide(self, variables: Array) -> Array: ...
    def embed(self, action: Array) -> Array: ...
    def encode(self, action: Array) -> Array: ...


def _inward(bound: np.ndarray, dtype: np.dtype, towards: float) -> np.ndarray:
    """Round a float64 bound to `dtype` without ever leaving the box it bounds."""
    rounded = bound.astype(dtype)
    outside = rounded < bound if towards > 0 else rounded > bound
    rounded = np.where(outside, np.nextafter(rounded, dtype.type(towards)), rounded)
    # XLA flushes subnormal numbers to zero, which may lie outside: the next number it can hold is the smallest normal one
    tiny = np.copysign(np.finfo(dtype).tiny, towards)
    subnormal = (rounded != 0) & (np.abs(rounded) < np.abs(tiny))
    return np.where(subnormal, np.where(np.sign(rounded) == np.sign(towards), tiny, 0.0), rounded).astype(dtype)


@dataclass(frozen=True, eq=False)
class Box:
    """Continuous actions between two bounds, per coordinate: `low <= action <= high`.

    Variables map linearly, `action = centre + half_width * variable`; an unbounded coordinate keeps its unit.

    Args:
        low: Lower bounds, any shape that broadcasts with `high`; `-inf` where there is none.
        high: Upper bounds.

    Raises:
        ValueError: If a bound is NaN, or a lower bound lies above its upper bound.
    """

    low: Any
    high: Any

    def __init__(self, low: ArrayLike, high: ArrayLike):
        low_, high_ = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        low_, high_ = np.atleast_1d(low_).copy(), np.atleast_1d(high_).copy()
        if np.isnan(low_).any() or np.isnan(high_).any():
            raise ValueError(f"Box bounds must be numbers; got low={low_}, high={high_}")
        if (low_ > high_).any():
            where = tuple(int(i) for i in np.argwhere(low_ > high_)[0])
            raise ValueError(f"Box bounds are reversed at {where}: low={low_[where]} is above high={high_[where]}")
        object.__setattr__(self, "low", low_)
        object.__setattr__(self, "high", high_)

    exact = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return self.low.shape

    @property
    def size(self) -> int:
        """Number of planner variables per step."""
        return int(self.low.size)

    @property
    def bounded(self) -> bool:
        """Whether every coordinate has two finite bounds."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        finite = np.isfinite(self.low) & np.isfinite(self.high)
        low, high = np.where(finite, self.low, -1.0), np.where(finite, self.high, 1.0)
        return 0.5 * (low + high), 0.5 * (high - low)

    def _clip(self, action: Array) -> Array:
        dtype = np.dtype(action.dtype)
        return jnp.clip(action, _inward(self.low, dtype, np.inf), _inward(self.high, dtype, -np.inf))

    def project(self, variables: Array) -> Array:
        """Clip `[..., size]` variables to the box they stand for."""
        centre, half = (x.reshape(-1) for x in self._affine())
        scale = np.where(half > 0, half, 1.0)
        dtype = np.dtype(variables.dtype)
        low = ((self.low.reshape(-1) - centre) / scale).astype(dtype)
        high = ((self.high.reshape(-1) - centre) / scale).astype(dtype)
        return jnp.clip(variables, low, high)

    def relax(self, variables: Array) -> Array:
        """`[..., size]` variables to `[..., *shape]` actions, differentiably and within the bounds."""
        centre, half = self._affine()
        variables = variables.reshape(variables.shape[:-1] + self.shape)
        return self._clip(variables * half.astype(variables.dtype) + centre.astype(variables.dtype))

    def decide(self, variables: Array) -> Array:
        """The action executed; the same as `relax`."""
        return self.relax(variables)

    def embed(self, action: Array) -> Array:
        """The model sees the action itself."""
        return self._clip(jnp.asarray(action).astype(float))

    def encode(self, action: Array) -> Array:
        """Actions `[..., *shape]` to variables `[..., size]`."""
        centre, half = self._affine()
        action = self._clip(jnp.asarray(action).astype(float))
        variables = (action - centre.astype(action.dtype)) / np.where(half > 0, half, 1.0).astype(action.dtype)
        return variables.reshape((*variables.shape[: variables.ndim - len(self.shape)], self.size))


@dataclass(frozen=True, eq=False)
class MultiDiscrete:
    """Several choices per step, the i-th among `choices[i]` alternatives numbered from `start[i]`.

    The relaxation is a softmax per choice whose sharpness lets a corner of `[-1, 1]^n` come within about 0.1% of a
    certain choice, so a planner may settle on one without leaving its variables' range.

    Args:
        choices: Number of alternatives of each choice, every one >= 1.
        start: Number of the first alternative of each choice.

    Raises:
        ValueError: If there is no choice, or one has no alternative.
    """

    choices: tuple[int, ...]
    start: tuple[int, ...]

    def __init__(self, choices: Sequence[int], start: Sequence[int] | int = 0):
        choices = tuple(int(n) for n in np.ravel(np.asarray(choices)))
        if not choices or min(choices) < 1:
            raise ValueError(f"every choice needs at least one alternative; got choices={choices}")
        first = np.broadcast_to(np.asarray(start, int), (len(choices),))
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "start", tuple(int(s) for s in first))

    exact = False
    bounded = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one executed action."""
        return (len(self.choices),)

    @property
    def size(self) -> int:
        """Number of planner variables per step: one score for every alternative."""
        return sum(self.choices)

    def _split(self, values: Array) -> list[Array]:
        return jnp.split(values, list(np.cumsum(self.choices)[:-1]), axis=-1)

    def project(self, variables: Array) -> Array:
        """Clip scores to `[-1, 1]`."""
        return jnp.clip(variables, -1.0, 1.0)

    def relax(self, variables: Array) -> Array:
        """Scores `[..., size]` to points on the simplices, `[..., size]`."""
        parts = [jax.nn.softmax((3.5 + 0.5 * np.log(s.shape[-1])) * s, axis=-1) for s in self._split(variables)]
        return jnp.concatenate(parts, axis=-1)

    def decide(self, variables: Array) -> Array:
        """The best-scored alternative of every choice, `[..., choices]` integers."""
        picks = [jnp.argmax(s, axis=-1) + first for s, first in zip(self._split(variables), self.start, strict=True)]
        return jnp.stack(picks, axis=-1)

    def embed(self, action: Array) -> Array:
        """Executed actions as one-hot vectors side by side, `[..., size]`."""
        offset = jnp.asarray(action) - np.asarray(self.start)
        return jnp.concatenate([jax.nn.one_hot(offset[..., i], n) for i, n in enumerate(self.choices)], axis=-1)

    def encode(self, action: Array) -> Array:
        """Scores of 1 for what was chosen and -1 for the rest."""
        return 2.0 * self.embed(action) - 1.0


class Discrete(MultiDiscrete):
    """One choice per step among `n` alternatives numbered from `start`; actions are scalars.

    Args:
        n: Number of alternatives.
        start: Number of the first.
    """

    def __init__(self, n: int, start: int = 0):
        super().__init__((n,), (start,))

    @property
    def shape(self) -> tuple[int, ...]:
        """Executed actions are scalars."""
        return ()

    def decide(self, variables: Array) -> Array:
        """The best-scored alternative, an integer."""
        return super().decide(variables)[..., 0]

    def embed(self, action: Array) -> Array:
        """A one-hot vector."""
        return super().embed(jnp.asarray(action)[..., None])


class MultiBinary(MultiDiscrete):
    """`n` switches per step, each 0 or 1.

    Args:
        n: Number of switches.
    """

    def __init__(self, n: int):
        super().__init__((2,) * n)
