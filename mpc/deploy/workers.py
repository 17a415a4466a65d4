"""Planning beside the control loop: a thread that always works on the newest observation, and may die."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mpc.deploy.runtime import Artefact


class Job(NamedTuple):
    """What to plan for.

    `start`: when the plan's first action is to act, in seconds. `observation`: as the artefact wants it. `recent`,
    `flying`: as `Artefact.decide` takes them.
    """

    start: float
    observation: np.ndarray
    recent: np.ndarray
    flying: int


class Result(NamedTuple):
    """What came of a job: `actions` `[H, ...]`, or None and the reason; `seconds` it took."""

    start: float
    actions: np.ndarray | None
    reason: str
    seconds: float


class Planning:
    """The artefact's memory from one job to the next; forgotten whenever a job fails.

    Beginning anew may take a search as long as many decisions. Where it takes longer than a plan lasts, as on a machine that
    is busy, a plan that is used up is gone on with all the same, from neutral actions.

    Args:
        artefact: Plans.
        period: Seconds of one step.
        timer: Tells how long planning takes.
    """

    def __init__(self, artefact: Artefact, period: float, timer: Callable[[], float] = time.perf_counter):
        self._artefact, self._period, self._timer = artefact, period, timer
        self._memory: list[Any] | None = None
        self._last, self._beginning = 0.0, 0.0

    def plan(self, job: Job) -> Result:
        """Do a job; whatever goes wrong is a result."""
        begun = self._timer()
        try:
            actions, reason = self._plan(job)
        except Exception as error:  # on a robot's path nothing is raised
            self._memory = None
            actions, reason = None, f"planner error: {type(error).__name__}"
        return Result(job.start, actions, reason, self._timer() - begun)

    def _plan(self, job: Job) -> tuple[np.ndarray | None, str]:
        artefact, lasts = self._artefact, self._artefact.horizon * self._period
        memory, passed = self._memory, job.start - self._last
        gone = not 0 < passed < lasts  # nothing of the last plan is left
        if memory is None or (gone and self._beginning < lasts):  # or else no plan would ever come in time
            begun = self._timer()
            memory = jax.block_until_ready(artefact.begin(job.observation))
            self._beginning, passed, gone = self._timer() - begun, self._period, False
        elapsed = artefact.horizon if gone else max(round(passed / self._period), 1)
        made = artefact.decide(job.observation, memory, job.recent, job.flying, elapsed)
        fine = made.status != "NOT_FINITE" and bool(np.isfinite(made.actions).all())
        self._memory, self._last = (made.memory, job.start) if fine else (None, 0.0)
        return (made.actions, "") if fine else (None, "plan not finite")


class Worker:
    """A thread that plans. Jobs are not queued: a new one replaces one that was not begun.

    Args:
        plan: Does a job, for example `Planning(...).plan`.
    """

    def __init__(self, plan: Callable[[Job], Result]):
        self._plan = plan
        self._changed = threading.Condition()
        self._job: Job | None = None
        self._done: deque[Result] = deque(maxlen=4)
        self._closed = False
        self._since: float | None = None  # when the job under way was begun
        self._thread = threading.Thread(target=self._run, name="craik planner", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> bool:
        """Hand over a job; whether it replaced one that nobody had begun."""
        with self._changed:
            replaced, self._job = self._job is not None, job
            self._changed.notify_all()
        return replaced

    def collect(self, timeout: float = 0.0) -> list[Result]:
        """The results since last time, after waiting for one for so many seconds at most."""
        with self._changed:
            if timeout > 0 and not self._done:
                self._changed.wait_for(lambda: self._done, timeout)
            found = list(self._done)
            self._done.clear()
        return found

    def busy(self) -> float:
        """Seconds spent on the job under way."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def discount(self) -> bool:
        """Whether jobs are still done."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop after the job under way; results of it are lost."""
        with self._changed:
            self._closed, self._job = True, None
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._job is not None)
                if self._closed:
                    return
                job, self._job, self._since = self._job, None, time.monotonic()
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

    def __init__(self, plan: Callable[[Job], Result]):
        self._plan = plan
        self._done: list[Result] = []

    def submit(self, job: Job) -> bool:
        """Do it."""
        self._done.append(self._plan(job))
        return False

    def collect(self, timeout: float = 0.0) -> list[Result]:
        """The results since last time."""
        found, self._done = self._done, []
        return found

    def busy(self) -> float:
        """Never."""
        return 0.0

    def discount(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing is left to stop."""
