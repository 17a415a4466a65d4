"""What the node does, without ROS: joint states in, commands out, at every tick of a timer."""

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
"""What an observation may hold of a joint."""


class Pilot:
    """A real-time loop around an artefact that understands joint states.

    Args:
        artefact: Of `mpc.runtime.load`.
        observed: What its observation is made of, in order, each a reading and a joint: `"position slider"`, `"cos pole"`.
        safe: The action that can always be sent.
        clock: Seconds, the same clock that joint states are stamped by.
        **settings: Of `mpc.realtime.RealTime`.

    Raises:
        ValueError: If the artefact observes another number of readings, or there is no such reading.
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
        """Take a joint state; one that lacks what is observed gives no observation, which the loop counts.

        Args:
            names: Of the joints.
            positions: rad or m, one for each; or none at all.
            velocities: rad/s or m/s, one for each; or none at all.
            stamp: When it was measured, in seconds.
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
        """The command to send now; never raises."""
        return np.ravel(self.loop.tick(self._seen, self._stamp)).astype(float).tolist()

    def close(self) -> list[float]:
        """Stop planning; the last command to send, on the way to the safe one."""
        self.loop.close()
        return self.tick()


def _reading(text: str) -> tuple[str, str]:
    reading, _, joint = text.partition(" ")
    if reading not in READINGS or not joint:
        raise ValueError(f"a reading is one of {', '.join(READINGS)} and a joint's name, such as 'cos pole'; got {text!r}")
    return reading, joint
