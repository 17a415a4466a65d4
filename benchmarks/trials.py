"""Whether a robot does what it should, trial after trial: `python -m benchmarks.trials cartpole.craik --trials 20`.

Each trial begins somewhere else and is pushed at other times. The robot has some seconds to get there (to swing up) and has
to hold it for the rest, without a moment's exception. By the wall clock, MuJoCo steps the robot in a process of its own, and
plans that come late are late; `--pace simulated` lets time stand still while plans are made, which says what the planner is
worth on a machine that is quick enough. Writes `benchmarks/results/trials-<name>.json`, `.csv`, `.png`, `.mp4` and a plot of
the first trial's timing; exits with 1 if a trial failed.

Artefacts come from `craik export --mjx craik/CartPoleRobot-v0 --planner gradient --delay 3 --out cartpole.craik`, from the
same with `--planner sampling`, or from `craik export --period 0.02` of an agent that `craik learn craik/CartPoleRobot-v0`
made.
"""

import csv
import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.provenance import invoked, provenance
from envs import ROBOT_IDS, robots
from envs.robots.plant import Body, Plant, Trace
from mpc.agent.cli.simulate import drive, film, good
from mpc.agent.viz import figures
from mpc.deploy import runtime
from mpc.deploy.realtime import RealTime
from mpc.deploy.runtime import Artefact
from mpc.deploy.telemetry import Health
from mpc.deploy.workers import Inline


@dataclass
class Options:
    """How often, for how long, and how hard."""

    artefact: tyro.conf.Positional[Path]
    """What `craik export` wrote for a robot of MuJoCo's."""
    name: str | None = None
    """Of the results; the artefact's file name unless told."""
    trials: int = 20
    """How many."""
    seconds: float = 30.0
    """For which it has to be held."""
    until: float = 5.0
    """Seconds it has to get there."""
    push: float = 0.5
    """N, for a tenth of a second, every 2 to 4 seconds."""
    delay: float = 0.02
    """Seconds from sending an action until it acts."""
    pace: Literal["wall", "simulated"] = "wall"
    """Time goes on while plans are made, or stands still."""
    film: bool = True
    """Film the first trial; some 15 s of work for a processor without graphics."""
    compiled: Path | None = None
    """A folder to keep machine code in, so that the next run need not compile."""
    core: int | None = None
    """To keep this process on; the robot's own goes where the system puts it."""
    out: Path = Path(__file__).parent / "results"
    """Where the figures go."""


class LevelState:
    """A robot whose time stands still while its controller thinks.

    Args:
        body: The robot.
        period: Seconds between two actions; the robot's own unless told.
    """

    def __init__(self, body: Body, period: float | None = None):
        self._body, self._period, self._tick = body, period or body.robot.period, 0

    def clock(self) -> float:
        """Seconds since the beginning."""
        return self._tick * self._period

    def newest(self) -> tuple[np.ndarray, float]:
        """What is seen now."""
        return self._body.observation(), self.clock()

    def send(self, action: np.ndarray) -> None:
        """Act, and let a period pass."""
        self._body.receive(self.clock(), np.asarray(action, float))
        self._tick += 1
        self._body.advance(self.clock())


def paced(artefact: Artefact, body: robots.Robot) -> float:
    """Seconds between two actions."""
    return artefact.period or artefact.manifest["about"].get("repeat", 1) * body.period


def trial(artefact: Artefact, body: robots.Robot, options: Options, seed: int) -> tuple[Health, Trace]:
    """One trial: the loop's health, and what happened to the robot."""
    seconds, given = options.until + options.seconds, {"delay": options.delay, "push": options.push, "seed": seed}
    period = paced(artefact, body)
    if options.pace == "wall":
        health, plant = drive(artefact, partial(Plant, body, **given), seconds, period=period, latency=options.delay)
        return health, plant.trace
    real = Body(body, **given)
    standing = LevelState(real, period)
    safe = np.clip(np.zeros(artefact.action.shape), artefact.action.low, artefact.action.high)
    timing: dict[str, Any] = {"period": period, "latency": options.delay, "clock": standing.clock}
    with RealTime(artefact, safe=safe, worker=Inline, **timing) as loop:
        for _ in range(round(seconds / period)):
            standing.send(loop.tick(*standing.newest()))
    return loop.health, real.trace()


def judged(env: str, health: Health, trace: Trace, until: float) -> dict[str, Any]:
    """What came of a trial: when it was first good, whether it then held, and how punctual it was.

    Args:
        env: Gymnasium id of the robot.
        health: Of the loop.
        trace: Of the robot.
        until: Seconds it had to get there.
    """
    fine, times = good(env, trace), trace.times
    bad = times[~fine]
    last = float(bad[-1]) if len(bad) else 0.0
    summary = health.summary()
    return {
        "success": bool(fine.any() and last <= until),
        "good_from": round(last, 2),
        "first_good": round(float(times[fine][0]), 2) if fine.any() else None,
        "pushes": int((np.diff(np.abs(trace.pushes)) > 0).sum()),
        "ticks": summary["ticks"],
        "late_ticks": summary["faults"].get("late tick", 0),
        "sources": summary["sources"],
        "plan_ms_p50": summary.get("plan_seconds", {}).get("p50"),
        "plan_ms_p99": summary.get("plan_seconds", {}).get("p99"),
    }


def drawn(traces: list[Trace], until: float, path: Path) -> None:
    """Every trial's positions, one panel a joint."""
    from matplotlib.figure import Figure

    joints = traces[0].states.shape[1] // 2
    figure = Figure(figsize=(9, 1.8 * joints + 1), layout="constrained")
    for joint in range(joints):
        axis = figure.add_subplot(joints, 1, joint + 1)
        for trace in traces:
            axis.plot(trace.times, trace.states[:, joint], linewidth=0.6, alpha=0.6)
        axis.axvline(until, color="black", linestyle=":")
        axis.set_ylabel(f"joint {joint}")
    axis.set_xlabel("seconds; it has to hold from the dotted line on")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Try, judge, write down."""
    options = tyro.cli(Options, description=__doc__)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    artefact = runtime.load(options.artefact, compiled=options.compiled)
    env = artefact.manifest["about"].get("env")
    if env not in ROBOT_IDS:
        raise SystemExit(f"trials: {options.artefact} is of {env}, which is no robot of MuJoCo's: {', '.join(ROBOT_IDS)}")
    body = robots.named(ROBOT_IDS[env])
    stem = options.out / f"trials-{options.name or options.artefact.stem}"
    results, traces = [], []
    for seed in range(options.trials):
        health, trace = trial(artefact, body, options, seed)
        results.append({"seed": seed} | judged(env, health, trace, options.until))
        traces.append(trace)
        print(json.dumps(results[-1]), flush=True)
        if seed == 0:
            figures.timing(health.rows(), paced(artefact, body), Path(f"{stem}-timing.png"))
            if options.film:
                film(env, trace, Path(f"{stem}.mp4"))
        write(stem, options, artefact, results)
        drawn(traces, options.until, Path(f"{stem}.png"))  # whole at any time, however long the rest takes
    raise SystemExit(0 if all(result["success"] for result in results) else 1)


def write(stem: Path, options: Options, artefact: Artefact, results: list[dict[str, Any]]) -> None:
    """The figures so far."""
    header = provenance(invoked("benchmarks.trials"), ("craik", "jax", "numpy", "mujoco", "mujoco-mjx")) | {
        "artefact": {
            "about": artefact.manifest["about"],
            "sha256": hashlib.sha256(options.artefact.read_bytes()).hexdigest(),
        },
        "pace": options.pace,
        "load_average": os.getloadavg()[0],
        "successes": sum(result["success"] for result in results),
        "trials": len(results),
    }
    Path(f"{stem}.json").write_text(json.dumps(header | {"results": results}, indent=1) + "\n")
    with open(f"{stem}.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [name for name in results[0] if name != "sources"], extrasaction="ignore")
        table.writeheader()
        table.writerows(results)


if __name__ == "__main__":
    main()
