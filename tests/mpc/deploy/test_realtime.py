"""A control loop whose sensors, planner, clock and actor fail: what it sends, and what it says about it."""

import csv
import threading

import numpy as np
import pytest

from benchmarks.faults import COUNTED, PERIOD, campaign, cart
from mpc.deploy.limiter import Limits
from mpc.deploy.realtime import RealTime
from mpc.deploy.runtime import Decision
from mpc.deploy.specs import Signal
from mpc.deploy.telemetry import Health
from mpc.deploy.workers import Inline, Job, Planning, Result, Worker


@pytest.fixture(scope="module")
def artefact():
    return cart()


class Clock:
    """A clock that shows what it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Delayed(Inline):
    """Results that come a number of ticks later."""

    lag = 1

    def __init__(self, plan):
        super().__init__(plan)
        self.calls, self.due = 0, []

    def submit(self, job: Job) -> bool:
        self.due.append((self.calls + self.lag, self._plan(job)))
        return False

    def collect(self, timeout: float = 0.0) -> list[Result]:
        self.calls += 1
        ready = [result for due, result in self.due if due < self.calls]
        self.due = [(due, result) for due, result in self.due if due >= self.calls]
        return ready


def loop_of(artefact, **settings):
    clock = Clock()
    return RealTime(artefact, **({"safe": [0.0], "clock": clock, "worker": Inline} | settings)), clock


def test_faults_by_the_thousand_are_survived_and_counted(artefact):
    report = campaign(artefact, 3000, 0.3, seed=1)
    assert report["exceptions"] == 0 and report["unsafe"] == 0
    health, injected = report["health"], report["injected"]
    for name in set(COUNTED.values()):
        assert health["faults"][name] == sum(injected[fault] for fault, counted in COUNTED.items() if counted == name), name
    for fault, least in (("delay", "observation stale"), ("diverges", "plan not finite"), ("actor nan", "actor not finite")):
        assert injected[fault] > 50 and health["faults"][least] > 0
    assert all(health["sources"][name] > 50 for name in ("fresh", "shifted", "actor", "safe"))
    assert sum(health["sources"].values()) == 3000


def test_the_plan_is_for_the_tick_at_which_it_acts_and_knows_what_acts_until_then(artefact):
    jobs: list[Job] = []

    class Watched(Inline):
        def submit(self, job: Job) -> bool:
            jobs.append(job)
            return super().submit(job)

    loop, clock = loop_of(artefact, safe=[0.7], worker=Watched)
    sent = [loop.tick([1.0, 0.0], clock.now)]  # nothing is planned yet
    clock.now += PERIOD
    sent.append(loop.tick([1.0, 0.0], clock.now - PERIOD / 2))  # half a period old
    in_flight = jobs[0].in_flight._replace(count=1)
    expected = artefact.step(jobs[0].observation, artefact.init(jobs[0].observation), in_flight).action
    np.testing.assert_array_equal(sent[1], expected)
    assert jobs[0].start == pytest.approx(100.0 + PERIOD) and jobs[0].in_flight.count == 1 and jobs[1].in_flight.count == 2
    np.testing.assert_array_equal(jobs[1].in_flight.actions[1:], sent)
    assert dict(loop.health.sources) == {"fresh": 1, "shifted": 0, "actor": 0, "safe": 1}
    for _ in range(20):  # half a period, give or take what rounding leaves
        clock.now += PERIOD
        loop.tick([1.0, 0.0], clock.now - PERIOD / 2)
    assert {job.in_flight.count for job in jobs[1:]} == {2}


def test_with_a_deadline_the_plan_is_of_the_same_tick(artefact):
    loop, _ = loop_of(artefact, deadline=0.01)
    state = np.array([0.5, 0.0], np.float32)
    expected = artefact.step(state, artefact.init(state)).action
    np.testing.assert_array_equal(loop.tick(state), expected)
    assert loop.health.sources["fresh"] == 1


def test_late_plans_are_executed_from_where_they_are_by_then(artefact):
    loop, clock = loop_of(artefact, worker=Delayed)
    loop.tick([0.5, 0.0])
    clock.now += PERIOD
    loop.tick(None)  # the plan made for this tick is not there yet
    clock.now += PERIOD
    action = loop.tick(None)
    plan = loop._plans[-1]
    assert plan.actions is not None and round((clock.now - plan.start) / PERIOD) == 1
    np.testing.assert_array_equal(action, plan.actions[1])
    assert dict(loop.health.sources) == {"fresh": 0, "shifted": 1, "actor": 0, "safe": 2}


def test_the_chain_of_fallbacks_goes_down_to_the_safe_action(artefact):
    loop, clock = loop_of(artefact, trust=3, actor=lambda seen: seen[:1] * 0 + 0.25)
    np.testing.assert_array_equal(loop.tick([0.5, 0.0]), [0.25])  # no plan yet
    for _ in range(3):
        clock.now += PERIOD
        loop.tick(None)
    clock.now += PERIOD
    np.testing.assert_array_equal(loop.tick(None), [0.0])
    assert dict(loop.health.sources) == {"fresh": 1, "shifted": 2, "actor": 1, "safe": 1}


@pytest.mark.parametrize(
    ("observation", "late", "reason"),
    [
        ([np.nan, 0.0], 0.0, "not finite"),
        ([99.0, 0.0], 0.0, "out of range"),
        ([0.0], 0.0, "wrong shape"),
        ("text", 0.0, "not numbers"),
        (None, 0.0, "missing"),
        ([0.0, 0.0], 0.5, "stale"),
        ([0.0, 0.0], -0.5, "time stamp"),
        ([0.0, 0.0], np.nan, "time stamp"),
    ],
)
def test_observations_that_say_nothing_are_named(artefact, observation, late, reason):
    loop, clock = loop_of(artefact)
    np.testing.assert_array_equal(loop.tick(observation, clock.now - late), [0.0])
    assert loop.health.faults[f"observation {reason}"] == 1
    assert loop.health.sources["safe"] == 1


def test_numbers_that_the_type_does_not_hold_are_not_finite(artefact, monkeypatch):
    """1e300 is a number in float64, within no bounds, and infinite in float32."""
    monkeypatch.setattr(artefact, "action", Signal((1,)))
    loop, clock = loop_of(artefact, actor=lambda seen: np.array([1e300]), trust=1)
    for _ in range(5):
        clock.now += 10 * PERIOD  # no plan lasts that long
        np.testing.assert_array_equal(loop.tick([0.1, 0.0]), [0.0])
    assert loop.health.faults["actor not finite"] == 5 and Signal((1,)).read([-1e39]) == (None, "not finite")
    assert Signal((1,), np.float64).read([1e300])[1] is None
    plan = Result(clock.now, np.full((10, 1), np.inf), "", 0.0)
    loop._plans.append(plan)
    np.testing.assert_array_equal(loop.tick(None), [0.0])
    assert loop.health.faults["plan not finite"] == 1


def test_threads_that_tick_the_same_loop_keep_to_its_rate(artefact, monkeypatch):
    """Two threads that want to go up and down, and that meet between the limit and its record where nothing stops them."""
    wanted, sent, meeting, clip = iter([[1.0], [-1.0]]), [], threading.Barrier(2), Signal.clip
    loop, _ = loop_of(artefact, actor=lambda seen: next(wanted), rate=0.3)

    def meet(signal, value):
        try:
            meeting.wait(0.5)
        except threading.BrokenBarrierError:  # nobody else came
            meeting.reset()
        sent.append(float(clip(signal, value)[0]))
        return clip(signal, value)

    monkeypatch.setattr(Signal, "clip", meet)
    threads = [threading.Thread(target=loop.tick, args=([0.1, 0.0], stamp)) for stamp in (100.0, 100.001)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(sent) == loop.health.ticks == 2 and np.abs(np.diff([0.0, *sent])).max() <= 0.3 + 1e-6


def test_repeated_observations_and_jumping_clocks_are_named(artefact):
    loop, clock = loop_of(artefact)
    loop.tick([0.1, 0.0], clock.now)
    clock.now += PERIOD
    loop.tick([0.1, 0.0], clock.now - PERIOD)
    assert loop.health.faults["observation repeated"] == 1
    clock.now -= 50.0
    loop.tick([0.1, 0.0], clock.now)  # time stamps begin anew
    assert loop.health.faults["clock"] == 1 and loop.health.faults["observation repeated"] == 1
    clock.now += 2 * PERIOD
    loop.tick([0.1, 0.0], clock.now)
    assert loop.health.faults["late tick"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_that_die_or_hang_are_replaced(artefact):
    """The first thread dies, the second hangs, the third plans; time is what the test says it is."""
    hold, hangs, plans, workers, clock = threading.Event(), threading.Event(), [], [], Clock()

    def worker(plan):
        def faulty(job):
            plans.append(job)
            if len(plans) == 1:
                raise SystemExit  # ends the thread, and nothing else
            if len(plans) == 2:
                hangs.set()
                hold.wait(60.0)
            return plan(job)

        workers.append(Worker(faulty, clock))
        return workers[-1]

    def tick():
        clock.now += PERIOD
        return loop.tick([0.5, 0.0])

    with RealTime(artefact, safe=[0.0], worker=worker, clock=clock) as loop:
        tick()
        workers[0]._thread.join(60.0)
        tick()
        assert loop.health.faults["planner died"] == 1 and hangs.wait(60.0)
        for _ in range(artefact.horizon):
            tick()
        assert len(workers) == 2 and loop.health.faults["planner hung"] == 0
        tick()
        assert len(workers) == 3 and loop.health.faults["planner hung"] == 1
        with workers[2]._changed:
            assert workers[2]._changed.wait_for(lambda: workers[2]._done, 60.0)
        tick()
        hold.set()
    assert dict(loop.health.sources) == {"fresh": 1, "shifted": 0, "actor": 0, "safe": artefact.horizon + 3}
    np.testing.assert_array_equal(loop.tick([0.5, 0.0]), [0.0])  # closed


def test_an_artefact_that_reacts_is_its_own_actor(artefact):
    """By a reaction that says how often it was made, and from what state."""

    class Reacting:
        def __init__(self):
            self.calls: list = []

        def __getattr__(self, name):
            return getattr(artefact, name)

        def init(self, observation, seed=0):
            return ["begun"]

        def prepare(self):
            pass

        def step(self, observation, state, in_flight, elapsed=1):
            after: list = ["planned"]
            return Decision(np.zeros(1), np.full((10, 1), 0.5), np.zeros(()), "ITERATIONS", after)

        def react(self, observation, state, in_flight, elapsed=1):
            self.calls.append((state, elapsed, int(in_flight.count)))
            status = "NOT_FINITE" if observation[0] > 0.9 else "ITERATIONS"
            after: list = [f"reacted {len(self.calls)}"]
            return Decision(np.array([0.25]), np.full((10, 1), 0.25), np.zeros(()), status, after)

    made = Reacting()
    loop, clock = loop_of(made, trust=2, worker=Delayed)
    np.testing.assert_array_equal(loop.tick([0.5, 0.0]), [0.25])  # no plan yet
    clock.now += PERIOD
    loop.tick(None)
    clock.now += PERIOD
    np.testing.assert_array_equal(loop.tick(None), [0.5])  # of the plan made at first
    clock.now += PERIOD
    np.testing.assert_array_equal(loop.tick([0.5, 0.0]), [0.25])
    assert made.calls == [(["begun"], 1, 0), (["planned"], 2, 0)]
    clock.now -= 50.0
    np.testing.assert_array_equal(loop.tick([1.0, 0.0]), [0.0])
    assert made.calls[2] == (["begun"], 1, 0) and loop.health.faults["actor not finite"] == 1
    with_another = RealTime(made, safe=[0.0], actor=lambda seen: [0.75], clock=clock, worker=Delayed)  # type: ignore[arg-type]
    np.testing.assert_array_equal(with_another.tick([0.5, 0.0]), [0.75])


def test_what_the_planner_raises_is_a_reason_and_its_state_begins_anew(artefact):
    class Broken:
        horizon, observation, action, delay = artefact.horizon, artefact.observation, artefact.action, artefact.delay

        def init(self, observation):
            return [0]

        def step(self, observation, state, *rest):
            if observation[0] > 0.5:
                raise OverflowError
            return Decision(np.zeros(1), np.full((10, 1), np.nan), np.zeros(()), "ITERATIONS", state)

    planning = Planning(Broken(), PERIOD)  # type: ignore[arg-type]
    job = Job(1.0, np.ones(2), artefact.nothing_sent())
    assert planning.plan(job)[1:3] == (None, "planner error: OverflowError")
    assert planning.plan(job._replace(observation=np.zeros(2)))[1:3] == (None, "plan not finite")


@pytest.mark.parametrize(("seconds", "begins", "elapsed"), [(0.01, 3, [1, 1, 1]), (5.0, 1, [1, 10, 3])])
def test_a_search_that_takes_longer_than_a_plan_lasts_is_not_begun_again(artefact, seconds, begins, elapsed):
    """Jobs 50 and 3 steps apart, where a plan has 10: the second finds nothing left of the first one's."""
    made: list = []

    class Slow:
        horizon, now = artefact.horizon, 0.0

        def init(self, observation):
            made.append("begun")
            self.now += seconds
            return [0]

        def step(self, observation, state, in_flight, elapsed):
            made.append(elapsed)
            return Decision(np.zeros(1), np.zeros((10, 1)), np.zeros(()), "ITERATIONS", state)

    slow = Slow()
    planning = Planning(slow, PERIOD, timer=lambda: slow.now)  # type: ignore[arg-type]
    starts = [1.0, 1.0 + 50 * PERIOD, 1.0 + 53 * PERIOD] if begins == 1 else [1.0, 1.0 + 50 * PERIOD, 1.0 + 100 * PERIOD]
    for start in starts:
        assert planning.plan(Job(start, np.zeros(2), artefact.nothing_sent())).actions is not None
    assert made.count("begun") == begins and [x for x in made if x != "begun"] == elapsed


@pytest.mark.parametrize("seed", range(3))
def test_limits_hold_all_three_at_every_tick(seed):
    drawn = np.random.default_rng(seed)
    low, high = np.array([-1.0, -0.2]), np.array([1.0, 3.0])
    rate, jerk = drawn.uniform(0.05, 1.0, 2), drawn.uniform(0.01, 0.5, 2)
    limits = Limits(Signal((2,), low=low, high=high), rate, jerk, [0.0, 0.0])
    sent = [np.zeros(2)]
    for wanted in drawn.uniform(-4.0, 4.0, (2000, 2)):
        if drawn.random() < 0.7:  # mostly towards a bound, as fast as can be
            wanted = np.sign(sent[-1] + 1e-9) * 9.0
        sent.append(limits.apply(wanted)[0].astype(float))
    actions = np.array(sent)
    change = np.diff(actions, axis=0)
    assert (actions >= low).all() and (actions <= high).all()
    assert (np.abs(change) <= rate + 1e-6).all() and (np.abs(np.diff(change, axis=0)) <= jerk + 1e-6).all()
    assert (np.isclose(actions, low, atol=1e-5) | np.isclose(actions, high, atol=1e-5)).any(axis=0).all()  # and are reached


def test_health_keeps_the_newest_ticks_and_writes_them(tmp_path):
    health = Health(capacity=4)
    for tick in range(6):
        health.record("shifted", time=float(tick), period=0.1, faults=tick)
    health.count("stale")
    health.write(tmp_path / "health.csv")
    with open(tmp_path / "health.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time"]) for row in rows] == [2.0, 3.0, 4.0, 5.0] and {row["source"] for row in rows} == {"shifted"}
    summary = health.summary()
    assert (
        summary["ticks"] == 6 and summary["faults"] == {"stale": 1} and summary["period"]["max"] == pytest.approx(0.1)
    )  # seconds


@pytest.mark.parametrize(
    "wrong",
    [
        {"safe": [2.0]},
        {"period": 0.0},
        {"deadline": 1.0},
        {"latency": -1.0},
        {"rate": 0.0},
        {"jerk": [-1.0]},
        {"start": [9.0]},
    ],
)
def test_impossible_settings_are_refused(artefact, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RealTime(artefact, **({"safe": [0.0], "worker": Inline} | wrong))


def test_plans_that_act_later_need_an_artefact_that_predicts(artefact, monkeypatch):
    monkeypatch.setattr(artefact, "delay", 0)
    with pytest.raises(ValueError, match="delay=1"):
        RealTime(artefact, safe=[0.0])
