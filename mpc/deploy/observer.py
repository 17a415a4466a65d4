"""Observer of a robot's state in a control loop, from observations that come late, in part, or not at all."""

from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mpc.deploy.host import on_host
from mpc.deploy.specs import Signal

REMEMBERED = 64
"""Actions remembered, and most steps predicted without an observation before it begins anew."""


class Observer:
    """An estimator beside a robot, `RealTime(…, observer=Observer(…))`.

    It predicts from observation to observation by the actions that acted in between, whatever the time between sending and
    acting. Numbers of an observation that are NaN are missing.

    Args:
        estimator: Of `mpc.estimation`.
        params: Parameters of its problem.
        mean: The state expected before the first observation.
        deviation: Its standard deviation, one number or one for each number of the state.
        sensors: What observations look like, for their checks.
        period: Seconds of a step of the model.
        observe: `(params, state) -> observation` as the artefact takes it; None where it takes the state itself.
    """

    @on_host
    def __init__(
        self,
        estimator: Any,
        params: Any,
        mean: Any,
        deviation: Any,
        *,
        sensors: Signal,
        period: float,
        observe: Callable[[Any, Any], Any] | None = None,
    ):
        if not period > 0:
            raise ValueError(f"period must be positive; got {period}")
        self.sensors, self.period, self._params = sensors, period, params
        self._predict, self._update = jax.jit(estimator.predict), jax.jit(estimator.update)
        self._observe = jax.jit(observe or (lambda params, state: state))
        self._first = jax.tree.map(jax.numpy.asarray, estimator.init(params, mean, deviation))
        self.estimate, self.time = self._first, -np.inf
        self._sent: deque[tuple[float, np.ndarray]] = deque(maxlen=REMEMBERED)

    def prepare(self, action: np.ndarray) -> None:
        """Compiles everything, and takes this action as sent before all others."""
        self.sent(action, -np.inf)
        self.advance(0.0)
        self.advance(self.period, np.full(self.sensors.shape, np.nan, self.sensors.dtype))
        self.forget()

    def forget(self) -> None:
        """Begins anew with the next observation; actions stay known."""
        self.estimate, self.time = self._first, -np.inf

    def sent(self, action: np.ndarray, acts: float) -> None:
        """Notes an action that acts from this time on."""
        self._sent.append((acts, np.array(action)))

    @on_host
    def advance(self, stamp: float, observation: np.ndarray | None = None) -> np.ndarray:
        """Returns the observation of the artefact at a time, from all that is known.

        Args:
            stamp: Seconds, by the clock of the loop. Times before that of the estimate are taken for that one.
            observation: Made at that time; None where there is none.
        """
        steps = round((stamp - self.time) / self.period) if np.isfinite(self.time) else 0
        if steps > REMEMBERED:
            self.forget()
            steps = 0
        for step in range(steps):
            action = self._acting(self.time + (step + 0.5) * self.period)
            self.estimate = self._predict(self._params, self.estimate, action)
        if observation is not None:
            self.estimate = self._update(self._params, self.estimate, observation)
        if steps > 0 or not np.isfinite(self.time):
            self.time = stamp
        return np.asarray(self._observe(self._params, self.estimate.mean))

    def _acting(self, time: float) -> np.ndarray:
        """Returns the action that acts at a time; the oldest known where it is not known."""
        acting = [action for acts, action in self._sent if acts <= time + 1e-6 * self.period]
        return acting[-1] if acting else self._sent[0][1]
