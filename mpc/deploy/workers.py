"""Workers that plan beside the control loop: a thread that always works on the newest job, and may die."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mpc.deploy.runtime import Artefact
from mpc.deploy.specs import InFlight


class Job(NamedTuple):
    """One plan to make.

    `start`: when the plan's first action is to act, in seconds. `observation`, `in_flight`: as `Artefact.step` takes them.
    """

    start: float
    observation: np.ndarray
    in_flight: InFlight


class Result(NamedTuple):
    """The outcome of a job.

    `actions`: `[H, ...]`, or None and the `reason`. `seconds` it took. `state`: the artefact's after it, None if it failed.
    """

    start: float
    actions: np.ndarray | None
    reason: str
    seconds: float
    state: Any = None


class Planning:
    """Plans jobs one after the other, each from the artefact's state after the last; a job that fails discards the state.

    An artefact's `init` may search for as long as many decisions take. Where it takes longer than a plan lasts, as on a busy
    machine, a plan that is used up is continued all the same, from neutral actions.

    Args:
        artefact: Plans.
        period: Seconds of one step.
        timer: Seconds, to measure how long planning takes.
    """

    def __init__(self, artefact: Artefact, period: float, timer: Callable[[], float] = time.perf_counter) -> None:
        self._artefact, self._period, self._timer = artefact, period, timer
        self._state: list[Any] | None = None
        self._last, self._init_seconds = 0.0, 0.0

    def plan(self, job: Job) -> Result:
        """Does a job; a failure is a result, too."""
        begun = self._timer()
        try:
            actions, reason = self._plan(job)
        except Exception as error:  # on a robot's path nothing is raised
            self._state = None
            actions, reason = None, f"planner error: {type(error).__name__}"
        return Result(job.start, actions, reason, self._timer() - begun, self._state)

    def _plan(self, job: Job) -> tuple[np.ndarray | None, str]:
        artefact, lasts = self._artefact, self._artefact.horizon * self._period
        state, passed = self._state, job.start - self._last
        gone = not 0 < passed < lasts  # nothing of the last plan is left
        if state is None or (gone and self._init_seconds < lasts):  # or else no plan would ever come in time
            begun = self._timer()
            state = jax.block_until_ready(artefact.init(job.observation))
            self._init_seconds, passed, gone = self._timer() - begun, self._period, False
        elapsed = artefact.horizon if gone else max(round(passed / self._period), 1)
        made = artefact.step(job.observation, state, job.in_flight, elapsed)
        fine = made.status != "NOT_FINITE" and bool(np.isfinite(made.actions).all())
        self._state, self._last = (made.state, job.start) if fine else (None, 0.0)
        return (made.actions, "") if fine else (None, "plan not finite")


class Worker:
    """A thread that plans. Jobs are not queued: a new one replaces one that was not begun.

    Args:
        plan: Does a job, for example `Planning(...).plan`.
        clock: Seconds, to measure how long a job has taken.
    """

    def __init__(self, plan: Callable[[Job], Result], clock: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._clock = plan, clock
        self._changed = threading.Condition()
        self._job: Job | None = None
        self._done: deque[Result] = deque(maxlen=4)
        self._closed = False
        self._since: float | None = None  # when the job under way was begun
        self._thread = threading.Thread(target=self._run, name="craik planner", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> bool:
        """Hands over a job; returns whether it replaced one that was not begun."""
        with self._changed:
            replaced, self._job = self._job is not None, job
            self._changed.notify_all()
        return replaced

    def collect(self, timeout: float = 0.0) -> list[Result]:
        """Returns the results since the last call, after waiting for one for at most `timeout` seconds."""
        with self._changed:
            if timeout > 0 and not self._done:
                self._changed.wait_for(lambda: self._done, timeout)
            found = list(self._done)
            self._done.clear()
        return found

    def busy(self) -> float:
        """Returns the seconds spent on the job under way."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    def running(self) -> bool:
        """Returns whether jobs are still done."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stops after the job under way, whose result is lost."""
        with self._changed:
            self._closed, self._job = True, None
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._job is not None)
                if self._closed:
                    return
                job, self._job, self._since = self._job, None, self._clock()
            assert job is not None
            result = self._plan(job)
            with self._changed:
                self._done.append(result)
                self._since = None
                self._changed.notify_all()


class Inline:
    """Plans within the call, for simulations, where time stands still meanwhile.

    Args:
        plan: Does a job.
    """

    def __init__(self, plan: Callable[[Job], Result]) -> None:
        self._plan = plan
        self._done: list[Result] = []

    def submit(self, job: Job) -> bool:
        """Does it."""
        self._done.append(self._plan(job))
        return False

    def collect(self, timeout: float = 0.0) -> list[Result]:
        """Returns the results since the last call."""
        found, self._done = self._done, []
        return found

    def busy(self) -> float:
        """Returns 0, as no job is ever under way."""
        return 0.0

    def running(self) -> bool:
        """Returns True."""
        return True

    def close(self) -> None:
        """Does nothing, as there is nothing to stop."""
