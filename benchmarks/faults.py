"""Fault injection: a million ticks with failures must cause no exception, no unsafe action and no growth of memory.

`python -m benchmarks.faults` drives a cart with `mpc.realtime.RealTime` in simulated time. Sensors, planner, clock and actor
fail several times per second. The command writes `benchmarks/results/faults.json` and exits with 1 if a requirement fails.
"""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

import mpc
from benchmarks.provenance import invoked, provenance
from mpc.deploy import runtime
from mpc.deploy.realtime import RealTime
from mpc.deploy.runtime import Artefact
from mpc.deploy.workers import Inline, Job

PERIOD, RATE, JERK, LOW, HIGH = 0.02, 0.3, 0.1, -1.0, 1.0
SENSOR = ("nan", "inf", "drop", "delay", "duplicate", "range", "shape", "text", "future")
PLANNER = ("killed", "raises", "diverges", "late")
FAULTS = (*SENSOR, *PLANNER, "clock forward", "clock back", "clock nan", "actor raises", "actor nan")
COUNTED = {
    "nan": "observation not finite",
    "inf": "observation not finite",
    "drop": "observation missing",
    "range": "observation out of range",
    "shape": "observation wrong shape",
    "text": "observation not numbers",
    "killed": "planner died",
}
"""Names of faults in the loop's health report, for faults that always appear there; others depend on further faults."""


@dataclass
class Options:
    """Options of the benchmark."""

    ticks: int = 1_000_000
    """Ticks of the loop."""
    share: float = 0.3
    """Share of ticks with a fault."""
    seed: int = 0
    """Seed of the faults."""
    out: Path = Path(__file__).parent / "results" / "faults.json"
    """File of the results."""


def cart() -> Artefact:
    """Returns a planner for a point mass on a line: position in m, velocity in m/s, acceleration within ±1 m/s²."""

    def dynamics(params: Any, state: Any, action: Any) -> Any:
        return state + PERIOD * jnp.stack([state[1], action[0]])

    def cost(params: Any, state: Any, action: Any, t: Any) -> Any:
        return state[0] ** 2 + 0.1 * state[1] ** 2 + 0.001 * action @ action

    problem = mpc.Problem(dynamics, cost, horizon=10, action_space=mpc.Box([LOW], [HIGH]))
    decisions = mpc.policy(mpc.gradient(problem, starts=1), iterations=2)
    seen = {"names": ["position", "velocity"], "units": ["m", "m/s"], "low": -10.0, "high": 10.0}
    data = mpc.export(decisions, None, np.zeros(2), observed=seen, period=PERIOD, delay=2, platforms=("cpu",))
    return runtime.loads(data)


class Failing(Inline):
    """A worker that fails on demand; `faults` are those of the current tick."""

    faults: frozenset[str] = frozenset()

    def __init__(self, plan: Any):
        super().__init__(plan)
        self.killed = False

    def submit(self, job: Job) -> bool:
        """Executes the job, or fails."""
        if "raises" in self.faults:
            raise RuntimeError("the planner raised")
        elif "diverges" in self.faults:
            job = job._replace(observation=np.full_like(job.observation, 1e38))
            self._done.append(self._plan(job))
        elif "late" not in self.faults:
            return super().submit(job)
        return True

    def running(self) -> bool:
        """Until it is killed."""
        return not self.killed


class World:
    """The cart, its sensor and its clock, with fault injection."""

    def __init__(self, seed: int, share: float):
        self.rng, self.share = np.random.default_rng(seed), share
        self.state, self.now, self.displayed_time = np.array([1.0, 0.0]), 0.0, 0.0
        self.last: tuple[Any, float] = (self.state.astype(np.float32), -1.0)
        self.faults: frozenset[str] = frozenset()
        self.injected: Counter[str] = Counter()

    def clock(self) -> float:
        """Returns the time as the loop reads it."""
        return self.displayed_time

    def actor(self, observation: np.ndarray) -> Any:
        """Returns a feedback action towards the origin, or a fault."""
        if "actor raises" in self.faults:
            raise ZeroDivisionError
        return [np.nan] if "actor nan" in self.faults else np.clip(-observation[:1] - observation[1:], LOW, HIGH)

    def advance(self, action: np.ndarray) -> None:
        """Advances the cart by one step; a cart that leaves the rail is reset."""
        self.now += PERIOD
        self.state = self.state + PERIOD * np.array([self.state[1], float(action[0])])
        if np.abs(self.state).max() > 9.0:
            self.state = self.rng.uniform(-1.0, 1.0, 2)

    def observe(self) -> tuple[Any, float]:
        """Returns the sensor's observation and time stamp."""
        draw = self.rng.random() < self.share
        self.faults = frozenset(self.rng.choice(FAULTS, self.rng.integers(1, 4), replace=False)) if draw else frozenset()
        if "clock forward" in self.faults:
            self.now += self.rng.choice([0.5, 60.0, 1e6])
        if "clock back" in self.faults:
            self.now -= self.rng.choice([0.05, 1.0, 1e6])
        self.displayed_time = np.nan if "clock nan" in self.faults else self.now
        seen: Any = self.state.astype(np.float32)
        stamp, fault = self.now, next((f for f in SENSOR if f in self.faults), None)
        match fault:
            case "nan" | "inf":
                seen = seen.copy()
                seen[self.rng.integers(2)] = np.nan if fault == "nan" else np.inf
            case "drop":
                seen = None
            case "delay":
                stamp -= 1.0
            case "duplicate":
                seen, stamp = self.last
            case "range":
                seen = seen + np.float32(100.0)
            case "shape":
                seen = seen[:1]
            case "text":
                seen = "no numbers"
            case "future":
                stamp += 1.0
            case None:
                self.last = (seen, stamp)
        self.injected.update(self.faults - set(SENSOR))
        self.injected.update([fault] if fault else [])
        return seen, stamp


def resident() -> int:
    """Returns the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def campaign(artefact: Artefact, ticks: int, share: float, seed: int) -> dict[str, Any]:
    """Runs the loop and checks every action.

    Args:
        artefact: Exported planner of `cart`.
        ticks: Number of ticks.
        share: Share of ticks with a fault.
        seed: Seed of the faults.

    Returns:
        Numbers of exceptions and unsafe actions, memory growth in bytes after the first tenth, injected faults, and health.
    """
    world = World(seed, share)
    made: list[Failing] = []

    def worker(plan: Any) -> Failing:
        made[:] = [Failing(plan)]
        return made[0]

    loop = RealTime(
        artefact, safe=[0.0], rate=RATE, jerk=JERK, clock=world.clock, actor=world.actor, worker=worker, capacity=10_000
    )
    unsafe, exceptions, before, change, early = 0, 0, 0.0, 0.0, resident()
    begun = time.perf_counter()
    for tick in range(ticks):
        seen, stamp = world.observe()
        made[0].faults, made[0].killed = world.faults, "killed" in world.faults
        try:
            action = loop.tick(seen, stamp)
        except Exception:
            exceptions += 1
            continue
        now = float(action[0])
        step = now - before
        valid = action.shape == (1,) and action.dtype == np.float32 and LOW <= now <= HIGH  # False for NaN
        unsafe += not (valid and abs(step) <= RATE + 1e-6 and abs(step - change) <= JERK + 1e-6)
        before, change = now, step
        world.advance(action)
        if tick == ticks // 10:
            early = resident()
    growth = resident() - early
    report = {"ticks": ticks, "exceptions": exceptions, "unsafe": unsafe, "memory_growth": growth}
    report |= {"seconds": round(time.perf_counter() - begun, 1), "injected": dict(world.injected)}
    return report | {"health": loop.health.summary()}


def main() -> None:
    """Runs the campaign, writes results, and exits with 1 if a requirement fails."""
    options = tyro.cli(Options, description=__doc__)
    report = campaign(cart(), options.ticks, options.share, options.seed)
    header = provenance(invoked("benchmarks.faults"), ("craik", "jax", "numpy")) | {
        "seed": options.seed,
        "share": options.share,
    }
    options.out.write_text(json.dumps(header | report, indent=1) + "\n")
    print(json.dumps(report))
    met = report["exceptions"] == 0 and report["unsafe"] == 0 and report["memory_growth"] < 1 << 20
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
