"""The node's logic without ROS: joint states in, one command out per tick of a timer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc.deploy.realtime import RealTime
from mpc.deploy.runtime import Artefact

READINGS: dict[str, Callable[[float, float], float]] = {
    "position": lambda position, velocity: position,
    "velocity": lambda position, velocity: velocity,
    "cos": lambda position, velocity: math.cos(position),
    "sin": lambda position, velocity: math.sin(position),
}
"""Readings of a joint that an observation can contain."""


class Pilot:
    """A real-time loop of an exported planner with joint states as input.

    Args:
        artefact: Result of `mpc.runtime.load`.
        observed: Elements of the observation in order, each a reading and a joint: `"position slider"`, `"cos pole"`.
        safe: A safe action.
        clock: Returns seconds of the clock of the joint states' time stamps.
        **settings: Settings of `mpc.realtime.RealTime`.

    Raises:
        ValueError: If the number of readings differs from the size of the observation, or a reading is unknown.
    """

    def __init__(
        self, artefact: Artefact, observed: Sequence[str], *, safe: Any, clock: Callable[[], float], **settings: Any
    ):
        self._readings = [_reading(text) for text in observed]
        wanted = int(np.prod(artefact.observation.shape))
        if len(self._readings) != wanted:
            raise ValueError(
                f"the artefact observes {wanted} numbers ({', '.join(artefact.observation.names)}); "
                f"got {len(self._readings)} readings: {', '.join(observed)}"
            )
        self._shape = artefact.observation.shape
        self._seen: Any = None
        self._stamp: float | None = None
        self.loop = RealTime(artefact, safe=safe, clock=clock, **settings)

    def hear(self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float], stamp: float) -> None:
        """Receives a joint state; without the observed joints it counts as a missing observation.

        Args:
            names: Names of the joints.
            positions: rad or m, one per joint; or empty.
            velocities: rad/s or m/s, one per joint; or empty.
            stamp: Time of the measurement in seconds.
        """
        nothing = [math.nan] * len(names)
        joints = dict(zip(names, zip(positions or nothing, velocities or nothing, strict=False), strict=False))
        try:
            seen = [READINGS[reading](*joints[joint]) for reading, joint in self._readings]
        except (KeyError, ValueError):  # a joint is missing; infinity has no cosine
            self._seen = None
        else:
            self._seen = np.reshape(seen, self._shape)
        self._stamp = stamp

    def tick(self) -> list[float]:
        """Returns the command to send now; never raises."""
        return np.ravel(self.loop.tick(self._seen, self._stamp)).astype(float).tolist()

    def close(self) -> list[float]:
        """Stops planning and returns the last command, towards the safe action."""
        self.loop.close()
        return self.tick()


def _reading(text: str) -> tuple[str, str]:
    reading, _, joint = text.partition(" ")
    if reading not in READINGS or not joint:
        raise ValueError(f"a reading is one of {', '.join(READINGS)} and a joint's name, such as 'cos pole'; got {text!r}")
    return reading, joint
