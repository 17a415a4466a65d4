"""Continuous actions between bounds."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mpc.spaces.base import Separable, snapped, tamed, within

Array = jax.Array


@dataclass(frozen=True, eq=False)
class Box(Separable):
    """Continuous actions between two bounds, per coordinate: `low <= action <= high`.

    Variables map linearly, `action = centre + half_width * variable`; an unbounded coordinate keeps its unit.

    Args:
        low: Lower bounds, any shape that broadcasts with `high`; `-inf` where there is none.
        high: Upper bounds.
        shape: Of one action, to which the bounds are broadcast; theirs unless given, `(1,)` where they are numbers.

    Raises:
        ValueError: If a bound is NaN, a lower bound lies above its upper bound, or the bounds do not fit the shape.
    """

    low: Any
    high: Any

    def __init__(self, low: ArrayLike, high: ArrayLike, shape: tuple[int, ...] | None = None) -> None:
        bounds = np.asarray(low, np.float64), np.asarray(high, np.float64)
        shape = np.atleast_1d(*np.broadcast_arrays(*bounds))[0].shape if shape is None else shape
        low_, high_ = (np.array(np.broadcast_to(bound, shape)) for bound in bounds)
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
        """True where every coordinate has two finite bounds."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        finite = np.isfinite(self.low) & np.isfinite(self.high)
        low, high = np.where(finite, self.low, -1.0), np.where(finite, self.high, 1.0)
        return 0.5 * (low + high), 0.5 * (high - low)

    def _clip(self, action: Array) -> Array:
        return self._snapped(within(action, self.low.astype(action.dtype), self.high.astype(action.dtype)))

    def _snapped(self, action: Array) -> Array:
        """Move an action that rounding took across a bound inside; a derivative of 0 there would hold it for ever."""
        dtype = np.dtype(action.dtype)
        return snapped(action, inward(self.low, dtype, np.inf), inward(self.high, dtype, -np.inf))

    def project(self, variables: Array) -> Array:
        """Clip `[..., size]` variables to the box they stand for."""
        centre, half = (x.reshape(-1) for x in self._affine())
        scale = np.where(half > 0, half, 1.0)
        dtype = np.dtype(variables.dtype)
        low = ((self.low.reshape(-1) - centre) / scale).astype(dtype)
        high = ((self.high.reshape(-1) - centre) / scale).astype(dtype)
        return within(variables, low, high)

    def relax(self, variables: Array) -> Array:
        """`[..., size]` variables to `[..., *shape]` actions, differentiably and within the bounds."""
        centre, half = self._affine()
        largest = float(np.sqrt(np.finfo(variables.dtype).max))
        variables = self.project(tamed(variables, largest)).reshape(variables.shape[:-1] + self.shape)
        return self._snapped(variables * half.astype(variables.dtype) + centre.astype(variables.dtype))

    def decide(self, variables: Array) -> Array:
        """The action executed; the same as `relax`."""
        return self.relax(variables)

    def embed(self, action: Array) -> Array:
        """The model sees the action itself."""
        return self._clip(jnp.asarray(action).astype(float))

    def permit(self, actions: Array) -> Array:
        """The nearest actions within the bounds."""
        return self.embed(actions)

    def encode(self, action: Array) -> Array:
        """Actions `[..., *shape]` to variables `[..., size]`."""
        centre, half = self._affine()
        action = self._clip(jnp.asarray(action).astype(float))
        variables = (action - centre.astype(action.dtype)) / np.where(half > 0, half, 1.0).astype(action.dtype)
        return self.project(variables.reshape((*variables.shape[: variables.ndim - len(self.shape)], self.size)))


def inward(bound: np.ndarray, dtype: np.dtype, towards: float) -> np.ndarray:
    """Round a float64 bound to `dtype` without ever leaving the box it bounds."""
    rounded = bound.astype(dtype)
    outside = rounded < bound if towards > 0 else rounded > bound
    rounded = np.where(outside, np.nextafter(rounded, dtype.type(towards)), rounded)
    # XLA flushes subnormal numbers to zero, which may lie outside: the next number it can hold is the smallest normal one
    tiny = np.copysign(np.finfo(dtype).tiny, towards)
    subnormal = (rounded != 0) & (np.abs(rounded) < np.abs(tiny))
    return np.where(subnormal, np.where(np.sign(rounded) == np.sign(towards), tiny, 0.0), rounded).astype(dtype)
