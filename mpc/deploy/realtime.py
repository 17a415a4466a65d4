"""A control loop that is never late: planning in a thread of its own while the last plan is executed.

    loop = RealTime(runtime.load("planner.craik"), safe=[0.0])
    while running:                                            # at the period of the model's steps
        actuator.send(loop.tick(sensor.newest(), sensor.time()))

Every tick returns an action that is finite, within bounds, rate and jerk: of a fresh plan if there is one, else the next of
the last plan, else the actor's, else the safe one. It never raises; every fault is counted in `loop.health`. Threads
that tick the same loop do so one after the other.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mpc.deploy.host import on_host
from mpc.deploy.limiter import Limits
from mpc.deploy.observer import Observer
from mpc.deploy.runtime import Artefact
from mpc.deploy.specs import InFlight
from mpc.deploy.telemetry import Health
from mpc.deploy.workers import Job, Planning, Result, Worker

PATIENCE = 3  # planner threads that may hang before no further one is started


class Seen(NamedTuple):
    """An observation that can be trusted, and when it was made, in seconds."""

    value: np.ndarray
    stamp: float


class Reaction(NamedTuple):
    """The newest state that the artefact's actor can react from, and the time of the decision it is the state after."""

    state: Any
    time: float


class RealTime:
    """A control loop at a fixed period around an artefact; everything is compiled before the constructor returns.

    With a deadline, a tick waits that long for the plan from its own observation. Without one it never waits: the plan from
    this tick's observation acts at the next tick, from the state predicted for that time, which needs an artefact exported
    with a `delay` of at least one step.

    Args:
        artefact: Of `mpc.runtime.load`, for one observation at a time.
        safe: The action that can always be sent.
        period: Seconds between two ticks; that of the artefact unless told.
        deadline: Seconds a tick may wait for its plan, less than a period.
        latency: Seconds from a tick until its action acts, in the actuator.
        stale: Seconds after which an observation says nothing any more; three periods unless told.
        trust: Steps of a plan to execute without a new one; all of it unless told.
        actor: `observation -> action`, quick, for when there is no plan to go on with; the artefact's own `react` unless
            told, where it has one.
        rate: Largest change of an action per tick, in its units.
        jerk: Largest change of that change per tick.
        start: The action before the first tick; the safe one unless told.
        observer: Estimates the observations of the artefact from what the sensors show, so that positions are enough and
            some may be missing: of `mpc.estimation`.
        guard: `(observation, in_flight, action) -> (action, changed, safe)`, the last stage: `mpc.safety.Guard`. It changes
            actions as fast as it must, so that rate and jerk belong into its problem.
        clock: Seconds, the same clock that observations are stamped by.
        worker: Makes the planning worker, of a function that does a job: `mpc.deploy.workers.Worker`, a thread, unless told.
        capacity: Ticks that `health` keeps in full.

    Raises:
        ValueError: If a setting is impossible, with what was wanted.
    """

    @on_host
    def __init__(
        self,
        artefact: Artefact,
        *,
        safe: ArrayLike,
        period: float | None = None,
        deadline: float = 0.0,
        latency: float = 0.0,
        stale: float | None = None,
        trust: int | None = None,
        actor: Callable[[np.ndarray], ArrayLike] | None = None,
        rate: ArrayLike | None = None,
        jerk: ArrayLike | None = None,
        start: ArrayLike | None = None,
        observer: Observer | None = None,
        guard: Callable[[np.ndarray, InFlight, np.ndarray], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        worker: Callable[..., Any] = Worker,
        capacity: int = 1 << 16,
    ) -> None:
        period = artefact.period if period is None else period
        if artefact.batch is not None:
            raise ValueError(f"a control loop takes one observation at a time; the artefact has a batch of {artefact.batch}")
        if period is None or not period > 0:
            raise ValueError(f"period must be positive, and the artefact does not say it; got {period}")
        if not 0 <= deadline < period or not latency >= 0:
            raise ValueError(f"deadline must lie in [0, period) and latency not be negative; got {deadline}, {latency}")
        if deadline == 0 and artefact.delay < 1:
            raise ValueError(
                "without a deadline plans act one step after what they were made from, and the artefact cannot predict that "
                "step: export it with delay=1 or more, or give a deadline"
            )
        if guard is not None and not (rate is None and jerk is None):
            raise ValueError("rate and jerk may keep actions from being made safe: with a guard, limit them in its problem")
        self.artefact, self.period, self.deadline, self.latency = artefact, period, deadline, latency
        self.stale = 3 * period if stale is None else stale
        self.trust = artefact.horizon if trust is None else min(trust, artefact.horizon)
        self.health = Health(capacity)
        known, fault = artefact.action.read(safe)
        if known is None:
            raise ValueError(f"the safe action is {fault}: got {safe}")
        self._safe, self._actor, self._clock, self._make = known, actor, clock, worker
        self._observer, self._guard, self._known = observer, guard, None
        self._limits = Limits(artefact.action, rate, jerk, known if start is None else start)
        self._recent = deque(artefact.nothing_sent().actions, maxlen=artefact.delay + 1)
        self._sent, self._now, self._stamp = 0, -np.inf, -np.inf
        self._lag = 0.0  # seconds from observing until the observation arrives, as it was last
        self._plans: deque[Result] = deque(maxlen=2)
        self._closed, self._hung, self._plan_seconds = False, 0, np.nan
        self._lock = threading.RLock()  # an actor may close its own loop
        artefact.prepare()
        if observer is not None:
            observer.prepare(self._limits.before.astype(known.dtype))
        if guard is not None:
            guard(artefact.example(), artefact.nothing_sent(), known)
        self._unplanned = None if artefact.react is None else Reaction(artefact.init(artefact.example()), -np.inf)
        self._reaction = self._unplanned
        self._worker = self._begun()

    def __enter__(self) -> "RealTime":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stops planning; ticks continue to return the safe action."""
        with self._lock:
            self._closed = True
            self._plans.clear()
            self._worker.close()

    def _begun(self) -> Any:
        return self._make(Planning(self.artefact, self.period).plan)

    def tick(self, observation: Any = None, stamp: float | None = None) -> np.ndarray:
        """Returns the action to send now.

        Args:
            observation: The newest, or None where none came.
            stamp: When it was made, by the loop's clock; now unless told.

        Returns:
            Finite, within bounds, rate and jerk, whatever happened. Never raises: in a forked process, which has none of the
            threads that plan, plans are missing and the fallback is sent.
        """
        with self._lock:
            return self._tick(observation, stamp)

    def _tick(self, observation: Any, stamp: float | None) -> np.ndarray:
        begun, before = time.perf_counter(), self.health.faults.total()
        now, period = self._time()
        seen = self._attempt(None, self._look, observation, stamp, now)
        self._attempt(None, self._plan, seen, now)
        source, wanted = self._attempt(("safe", self._safe), self._choose, seen, now)
        if not np.isfinite(wanted).all():
            self.health.count("plan not finite")
            source, wanted = "safe", self._safe
        action, limited = self._limits.apply(self._attempt(wanted, self._guarded, wanted, seen, now))
        if limited:
            self.health.count("limited")
        self._recent.append(action)
        if self._observer is not None:
            self._observer.sent(action, now + self.latency)
        self._sent += 1
        if seen is not None and self.deadline == 0:
            self._attempt(None, self._submit, seen, now + self.period)
        age = np.nan if seen is None else now - seen.stamp
        taken = time.perf_counter() - begun
        self.health.record(
            source,
            time=now,
            period=period,
            plan_seconds=self._plan_seconds,
            age=age,
            tick_seconds=taken,
            faults=min(self.health.faults.total() - before, 0xFFFF),
        )
        self._plan_seconds = np.nan
        return action

    def _attempt(self, otherwise: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function; where it raises, counts the fault and returns something else."""
        try:
            return function(*args)
        except Exception as error:
            self.health.count(f"internal: {type(error).__name__}")
            return otherwise

    def _time(self) -> tuple[float, float]:
        """Returns the time and how long ago the last tick was; a clock that jumps discards everything known until then."""
        now, before = self._attempt(np.nan, lambda: float(self._clock())), self._now
        passed = now - before
        if not np.isfinite(now):
            self.health.count("clock")
            now = before + self.period if np.isfinite(before) else 0.0
        elif np.isfinite(before) and not 0 <= passed <= self.trust * self.period:
            self.health.count("clock")
            self._plans.clear()
            self._stamp, self._reaction, self._known = -np.inf, self._unplanned, None
            if self._observer is not None:
                self._observer.forget()
        elif np.isfinite(before) and passed > 1.5 * self.period:
            self.health.count("late tick")
        self._now = now
        return now, passed if np.isfinite(passed) else np.nan

    def _look(self, observation: Any, stamp: float | None, now: float) -> Seen | None:
        """Returns the observation if it can be trusted, and counts what is wrong with it if not."""
        if self._closed:
            return None
        if self._observer is None:
            value, fault = self.artefact.observation.read(observation)
        else:
            value, fault = self._observer.sensors.read(observation, gaps=True)
        made = now if stamp is None else stamp
        if value is not None:
            try:
                made = float(made)
            except (TypeError, ValueError):
                made = np.nan
            if not np.isfinite(made) or made > now + self.period:
                fault = "time stamp"
            elif now - made > self.stale:
                fault = "stale"
            elif made <= self._stamp:
                fault = "repeated"
        if value is None or fault is not None:
            self.health.count(f"observation {fault}")
            return None if self._observer is None else self._estimated(self._observer, None, now - self._lag, now)
        self._stamp, self._lag = made, now - made
        return Seen(value, made) if self._observer is None else self._estimated(self._observer, value, made, now)

    def _estimated(self, observer: Observer, value: np.ndarray | None, made: float, now: float) -> Seen | None:
        """Returns what the artefact would observe at a time, unless the last observation is too old."""
        if now - self._stamp > self.stale:
            return None
        estimated, fault = self.artefact.observation.read(observer.advance(made, value))
        if estimated is None:
            self.health.count(f"estimate {fault}")
            return None
        return Seen(estimated, observer.time)

    def _plan(self, seen: Seen | None, now: float) -> None:
        """Collects the plans made; with a deadline, waits for the plan from the observation of this tick."""
        if self._closed:
            return
        self._watch()
        self._take(self._worker.collect())
        if seen is not None and self.deadline > 0:
            self._submit(seen, now)
            end = time.perf_counter() + self.deadline
            left, results = self.deadline, []
            while left > 0 and not any(result.start == now for result in results):
                left = end - time.perf_counter()  # a plan that is there by now is taken even if no time is left to wait
                results = self._take(self._worker.collect(max(left, 0.0)))

    def _choose(self, seen: Seen | None, now: float) -> tuple[str, np.ndarray]:
        """Returns the action and its source: fresh plan, last plan, actor, or safe action."""
        for plan in reversed(self._plans):  # the newest that is to act by now
            step = round((now - plan.start) / self.period)
            if plan.actions is not None and 0 <= step < self.trust:
                return ("fresh" if step == 0 else "shifted"), plan.actions[step]
        self.health.count("no plan")
        if seen is not None and (self._actor is not None or self._reaction is not None):
            reacted = self._react(seen, now) if self._actor is None else self._actor(seen.value)
            action, fault = self.artefact.action.read(reacted)
            if action is not None:
                return "actor", action
            self.health.count(f"actor {fault}")
        return "safe", self._safe

    def _react(self, seen: Seen, now: float) -> np.ndarray:
        """Returns the action of the artefact's actor, from the newest state there is; NaN where it failed."""
        react, reaction = self.artefact.react, self._reaction
        assert react is not None and reaction is not None
        passed = (now - reaction.time) / self.period if np.isfinite(reaction.time) else 1.0
        elapsed = min(max(round(passed), 1), self.artefact.horizon)
        decision = react(seen.value, reaction.state, self._in_flight(seen, now), elapsed)
        if decision.status == "NOT_FINITE":
            return np.full(self.artefact.action.shape, np.nan)
        self._reaction = Reaction(decision.state, now)
        return decision.action

    def _guarded(self, wanted: np.ndarray, seen: Seen | None, now: float) -> np.ndarray:
        """Returns the action that the guard makes of another, and counts what it did."""
        if self._guard is None:
            return wanted
        self._known = seen or self._known
        if self._known is None or self._steps(self._known, now) > self.artefact.delay:
            self.health.count("not guarded")
            return wanted
        action, changed, safe = self._guard(self._known.value, self._in_flight(self._known, now), wanted)
        if not np.isfinite(action).all():
            self.health.count("not guarded")
            return wanted
        for count, name in ((changed, "changed by the guard"), (not safe, "no safe action known")):
            if count:
                self.health.count(name)
        return action

    def _submit(self, seen: Seen, start: float) -> None:
        if self._worker.submit(Job(start, seen.value, self._in_flight(seen, start))):
            self.health.count("planner behind")

    def _in_flight(self, seen: Seen, start: float) -> InFlight:
        """Returns the actions sent that an observation does not show, for a decision that acts at `start`."""
        count = self._steps(seen, start)
        if count > self.artefact.delay:
            self.health.count("longer delay than planned for")
        return InFlight(np.stack(self._recent), min(max(count, 0), self.artefact.delay, self._sent))

    def _steps(self, seen: Seen, start: float) -> int:
        """Returns how many steps after an observation an action acts that is sent at `start`."""
        # an action that half acts counts as acting: to be early is to damp, to be late is to stir
        return int((start + self.latency - seen.stamp) / self.period + 0.5 + 1e-6)

    def _take(self, results: list[Result]) -> list[Result]:
        """Keeps the plans that were made."""
        for result in results:
            self._plan_seconds = result.seconds
            if result.actions is None:
                self.health.count(result.reason)
                continue
            self._plans.append(result)
            if self._reaction is not None and result.start >= self._reaction.time:
                self._reaction = Reaction(result.state, result.start)
        return results

    def _watch(self) -> None:
        """Replaces a planner that died, or that has hung for longer than its plans could matter."""
        running = self._worker.running()
        hangs = self._hung < PATIENCE and self._worker.busy() > self.trust * self.period
        if running and not hangs:
            return
        self.health.count("planner hung" if running else "planner died")
        self._hung += running
        self._worker.close()
        self._worker = self._begun()
