"""Limits before the actuator: every action is finite, within its bounds, and changes no faster than it may."""

import numpy as np
from numpy.typing import ArrayLike

from mpc.deploy.specs import Signal


class Limits:
    """A limiter that keeps a sequence of actions within bounds, rate and jerk, all three at every tick.

        low ≤ u[k] ≤ high,     |v[k]| ≤ rate,     |v[k] - v[k-1]| ≤ jerk,     v[k] = u[k] - u[k-1]

    An action at distance d of a bound may approach it by `v ≤ max(min(d, jerk), sqrt(2 jerk d) - jerk / 2)` only. Braking
    by `jerk` a tick, `v, v - jerk, v - 2 jerk, …`, then still ends before the bound, so the three limits never contradict
    each other. In float64; rounding to the action's own type adds at most half a unit in the last place.

    Args:
        signal: Of the action.
        rate: Largest change per tick, in the action's units, one number or one per coordinate; None for any.
        jerk: Largest change of that change per tick; None for any.
        start: The action before the first one, at rest.

    Raises:
        ValueError: If a limit is not positive, or is given for actions that are choices, or `start` is not allowed.
    """

    def __init__(self, signal: Signal, rate: ArrayLike | None, jerk: ArrayLike | None, start: ArrayLike) -> None:
        for name, given in (("rate", rate), ("jerk", jerk)):
            if given is None:
                continue
            if np.dtype(signal.dtype).kind != "f":
                raise ValueError(f"{name} limits need continuous actions; these are {signal.dtype}")
            if not (np.asarray(given, float) > 0).all():
                raise ValueError(f"{name} must be positive; got {given}")
        first, fault = signal.read(start)
        if first is None:
            raise ValueError(f"the action to start from is {fault}: got {start} for bounds {signal.low} to {signal.high}")
        infinite = np.full(signal.shape, np.inf)
        self.rate, self.jerk = (infinite if x is None else np.broadcast_to(x, signal.shape) for x in (rate, jerk))
        self.signal, self.before, self.change = signal, first.astype(float), np.zeros(signal.shape)

    def apply(self, wanted: np.ndarray) -> tuple[np.ndarray, bool]:
        """Returns the allowed action nearest to a wanted one, and whether they differ; the former is stored as sent.

        Args:
            wanted: Finite.
        """
        bounded = np.clip(np.asarray(wanted, float), self.signal.low, self.signal.high)
        up, down = self._approach(self.signal.high - self.before), self._approach(self.before - self.signal.low)
        least = np.maximum(np.maximum(-self.rate, -down), self.change - self.jerk)
        most = np.minimum(np.minimum(self.rate, up), self.change + self.jerk)
        change = np.clip(bounded - self.before, least, np.maximum(least, most))
        action = self.signal.clip(self.before + change)
        sent = action.astype(float)
        self.change, self.before = sent - self.before, sent
        return action, bool((np.abs(sent - wanted) > 1e-6 * (1 + np.abs(sent))).any())

    def _approach(self, distance: np.ndarray) -> np.ndarray:
        """Returns the fastest change towards a bound at this distance from which braking still ends before it."""
        endless = np.isinf(self.jerk) | np.isinf(distance)
        jerk, room = np.where(endless, 1.0, self.jerk), np.where(endless, 0.0, np.maximum(distance, 0.0))
        braking = np.maximum(np.minimum(room, jerk), np.sqrt(2 * jerk * room) - jerk / 2)
        return np.where(endless, distance, braking)
