"""Success rate of an exported planner on a robot: `python -m benchmarks.trials cartpole.craik --trials 20`.

Each trial has its own start state and pushes. The robot has some seconds to achieve the task (such as a swing-up) and must
then maintain it until the end without interruption. With `--pace wall`, MuJoCo simulates the robot in a separate process on
the wall clock, so late plans have consequences. With `--pace simulated`, time stops during planning, which measures the
planner independently of the machine. The command writes `benchmarks/results/trials-<name>.json`, `.csv`, `.png`, `.mp4`
and a plot of the first trial's timing. It exits with 1 if a trial failed.

Planners come from `craik export --mjx craik/CartPoleRobot-v0 --planner ilqr --delay 3 --out cartpole.craik`, from the
same command with `--planner mppi`, or from `craik export --period 0.02` of an agent from `craik learn
craik/CartPoleRobot-v0`.
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
    """Options of the benchmark."""

    artefact: tyro.conf.Positional[Path]
    """File from `craik export` for a MuJoCo robot."""
    name: str | None = None
    """Name of the results; default: the name of the file."""
    trials: int = 20
    """Number of trials."""
    seconds: float = 30.0
    """Seconds for which the task must be maintained."""
    until: float = 5.0
    """Seconds within which the task must be achieved."""
    push: float = 0.5
    """Push force in N, 0.1 s long, every 2 to 4 s."""
    delay: float = 0.02
    """Seconds from sending an action until it takes effect."""
    pace: Literal["wall", "simulated"] = "wall"
    """Time during planning: wall clock, or stopped."""
    film: bool = True
    """Film the first trial; takes about 15 s without graphics hardware."""
    core: int | None = None
    """Core of this process; the simulation process is not pinned."""
    out: Path = Path(__file__).parent / "results"
    """Folder of the results."""


class SimulatedTime:
    """A robot whose time stops during planning.

    Args:
        body: Simulation of the robot.
        period: Seconds between two actions; default: the robot's period.
    """

    def __init__(self, body: Body, period: float | None = None):
        self._body, self._period, self._tick = body, period or body.robot.period, 0

    def clock(self) -> float:
        """Returns seconds since the start."""
        return self._tick * self._period

    def newest(self) -> tuple[np.ndarray, float]:
        """Returns the current observation and time."""
        return self._body.observation(), self.clock()

    def send(self, action: np.ndarray) -> None:
        """Applies an action and advances time by one period."""
        self._body.receive(self.clock(), np.asarray(action, float))
        self._tick += 1
        self._body.advance(self.clock())


def paced(artefact: Artefact, body: robots.Robot) -> float:
    """Returns the seconds between two actions."""
    return artefact.period or artefact.manifest["about"].get("repeat", 1) * body.period


def trial(artefact: Artefact, body: robots.Robot, options: Options, seed: int) -> tuple[Health, Trace]:
    """Runs one trial and returns the loop's health and the robot's trajectory."""
    seconds, given = options.until + options.seconds, {"delay": options.delay, "push": options.push, "seed": seed}
    period = paced(artefact, body)
    if options.pace == "wall":
        health, plant = drive(artefact, partial(Plant, body, **given), seconds, period=period, latency=options.delay)
        return health, plant.trace
    real = Body(body, **given)
    simulated = SimulatedTime(real, period)
    safe = np.clip(np.zeros(artefact.action.shape), artefact.action.low, artefact.action.high)
    timing: dict[str, Any] = {"period": period, "latency": options.delay, "clock": simulated.clock}
    with RealTime(artefact, safe=safe, worker=Inline, **timing) as loop:
        for _ in range(round(seconds / period)):
            simulated.send(loop.tick(*simulated.newest()))
    return loop.health, real.trace()


def evaluate(env: str, health: Health, trace: Trace, until: float) -> dict[str, Any]:
    """Returns the results of a trial: success, times at which the task was achieved, and timing of the loop.

    Args:
        env: Gymnasium id of the robot.
        health: Health of the loop.
        trace: Trajectory of the robot.
        until: Seconds within which the task must be achieved.
    """
    achieved, times = good(env, trace), trace.times
    bad = times[~achieved]
    last = float(bad[-1]) if len(bad) else 0.0
    summary = health.summary()
    return {
        "success": bool(achieved.any() and last <= until),
        "good_from": round(last, 2),
        "first_good": round(float(times[achieved][0]), 2) if achieved.any() else None,
        "pushes": int((np.diff(np.abs(trace.pushes)) > 0).sum()),
        "ticks": summary["ticks"],
        "late_ticks": summary["faults"].get("late tick", 0),
        "sources": summary["sources"],
        "plan_ms_p50": 1e3 * summary["plan_seconds"]["p50"] if "plan_seconds" in summary else None,
        "plan_ms_p99": 1e3 * summary["plan_seconds"]["p99"] if "plan_seconds" in summary else None,
    }


def draw(traces: list[Trace], until: float, path: Path) -> None:
    """Draws the positions of every trial, one panel per joint."""
    from matplotlib.figure import Figure

    joints = traces[0].states.shape[1] // 2
    figure = Figure(figsize=(9, 1.8 * joints + 1), layout="constrained")
    for joint in range(joints):
        axis = figure.add_subplot(joints, 1, joint + 1)
        for trace in traces:
            axis.plot(trace.times, trace.states[:, joint], linewidth=0.6, alpha=0.6)
        axis.axvline(until, color="black", linestyle=":")
        axis.set_ylabel(f"joint {joint}")
    axis.set_xlabel("seconds; the task must be maintained after the dotted line")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs all trials and writes results."""
    options = tyro.cli(Options, description=__doc__)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    artefact = runtime.load(options.artefact)
    env = artefact.manifest["about"].get("env")
    if env not in ROBOT_IDS:
        raise SystemExit(f"trials: {options.artefact} must be for one of {', '.join(ROBOT_IDS)}; it is for {env}")
    body = robots.named(ROBOT_IDS[env])
    stem = options.out / f"trials-{options.name or options.artefact.stem}"
    results, traces = [], []
    for seed in range(options.trials):
        health, trace = trial(artefact, body, options, seed)
        results.append({"seed": seed} | evaluate(env, health, trace, options.until))
        traces.append(trace)
        print(json.dumps(results[-1]), flush=True)
        if seed == 0:
            figures.timing(health.rows(), paced(artefact, body), Path(f"{stem}-timing.png"))
            if options.film:
                film(env, trace, Path(f"{stem}.mp4"))
        write(stem, options, artefact, results)
        draw(traces, options.until, Path(f"{stem}.png"))  # after each trial, so that partial results are complete
    raise SystemExit(0 if all(result["success"] for result in results) else 1)


def write(stem: Path, options: Options, artefact: Artefact, results: list[dict[str, Any]]) -> None:
    """Writes the results so far."""
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
