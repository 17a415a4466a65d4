"""Signals, observations and actions, with their names, units and bounds; and the actions that are in flight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

MISSING, FOREIGN, SHAPE, NOT_FINITE, RANGE = "missing", "not numbers", "wrong shape", "not finite", "out of range"


class InFlight(NamedTuple):
    """Actions that were sent and that the observation may not show yet.

    `actions`: `[D+1, ...]`, the actions sent last, newest last; NaN, or the lowest choice, where none was sent. `count`:
    int32, how many of the newest ones, at most D, the observation does not show yet.
    """

    actions: Any
    count: Any


@dataclass(frozen=True, eq=False)
class Signal:
    """One input or output array, coordinate by coordinate.

    Args:
        shape: Of the array.
        dtype: Of its numbers.
        names: Of the coordinates, in row-major order; their indices unless given.
        units: Of the coordinates, or one for all; "" where nothing is known.
        low: Smallest values that make sense; `-inf` where any does.
        high: Largest ones.

    Raises:
        ValueError: If there are more or fewer names, units or bounds than coordinates, or a bound is NaN.
    """

    shape: tuple[int, ...]
    dtype: Any = np.float32
    names: Sequence[str] = ()
    units: Sequence[str] | str = ""
    low: ArrayLike = -np.inf
    high: ArrayLike = np.inf

    def __post_init__(self) -> None:
        size = int(np.prod(self.shape))
        names = list(self.names) or [str(index) for index in range(size)]
        units = [self.units] * size if isinstance(self.units, str) else list(self.units)
        for what, given in (("names", names), ("units", units)):
            if len(given) != size or not all(isinstance(text, str) for text in given):
                raise ValueError(f"{what} must be {size} texts, one per coordinate of shape {list(self.shape)}; got {given}")
        bounds = {}
        for name in ("low", "high"):
            try:
                bounds[name] = np.broadcast_to(np.asarray(getattr(self, name), np.float64), self.shape)
            except ValueError:
                raise ValueError(f"{name} must fit the shape {list(self.shape)}; got {getattr(self, name)}") from None
        if not (bounds["low"] <= bounds["high"]).all():
            raise ValueError(f"bounds must be numbers, low at most high; got {bounds['low']} and {bounds['high']}")
        changes = {"shape": tuple(self.shape), "dtype": np.dtype(self.dtype), "names": names, "units": units, **bounds}
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    def read(self, value: Any, *, gaps: bool = False) -> tuple[np.ndarray | None, str | None]:
        """Returns a value as an array of this signal, or None and the fault; raises nothing, whatever the value is.

        Args:
            value: Whatever came.
            gaps: Whether some numbers may be NaN, but not all.
        """
        if value is None:
            return None, MISSING
        try:
            array = np.asarray(value)
        except Exception:  # an object may raise anything when asked for its numbers
            return None, FOREIGN
        if array.dtype.kind not in "fiub":
            return None, FOREIGN
        if array.shape != self.shape:
            return None, SHAPE
        missing = np.isnan(array) if gaps and not np.isnan(array).all() else np.zeros(array.shape, bool)
        if not (np.isfinite(array) | missing).all():
            return None, NOT_FINITE
        if not ((array >= self.low) & (array <= self.high) | missing).all():
            return None, RANGE
        with np.errstate(over="ignore"):
            cast = array.astype(self.dtype)
        fine = (np.isfinite(cast) | missing).all()  # the type may hold less than was given
        return (cast, None) if fine else (None, NOT_FINITE)

    def clip(self, value: np.ndarray) -> np.ndarray:
        """Returns the nearest value within the bounds, which are rounded inwards so that rounding does not leave them."""
        kind = np.dtype(self.dtype)
        if kind.kind != "f":
            return np.clip(value, self.low, self.high).astype(kind)
        low, high = np.asarray(self.low), np.asarray(self.high)
        least, most = low.astype(kind), high.astype(kind)
        least = np.where(least < low, np.nextafter(least, kind.type(np.inf)), least)
        most = np.where(most > high, np.nextafter(most, kind.type(-np.inf)), most)
        return np.clip(np.asarray(value, kind), least, most)

    def described(self) -> dict[str, Any]:
        """Returns the signal as JSON holds it."""
        low, high = (np.asarray(bound).ravel().astype(str).tolist() for bound in (self.low, self.high))
        plain = {"shape": list(self.shape), "dtype": str(self.dtype), "names": self.names, "units": self.units}
        return {**plain, "low": low, "high": high}

    @classmethod
    def rebuilt(cls, description: Mapping[str, Any]) -> "Signal":
        """Returns the signal that `described` describes."""
        shape = tuple(description["shape"])
        low, high = (np.asarray(description[name], np.float64).reshape(shape) for name in ("low", "high"))
        dtype, names, units = (description[name] for name in ("dtype", "names", "units"))
        return cls(shape, np.dtype(dtype), names, units, low, high)
