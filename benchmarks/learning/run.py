"""One run (task, method, seed) in its own process: learns, evaluates at given steps, writes raw data.

    python -m benchmarks.learning.run '{"task": "Pendulum-v1", "at": [400], "goal": null, "method": "craik", "seed": 0,
                                        "episodes": 10, "file": "raw.json"}' 1

The last argument is the CPU core to use, -1 for any. `sweep` starts this module; it is not meant for direct use.
"""

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

DECISIONS = 200
"""Number of decisions timed at the end."""


@dataclass(frozen=True)
class Run:
    """Description of a run."""

    task: str
    at: tuple[int, ...]
    goal: float | None
    method: str
    seed: int
    episodes: int
    """Episodes per evaluation, with the seeds 0 … n-1."""
    file: Path
    """File of the raw data."""

    def asdict(self) -> dict[str, Any]:
        """Returns the fields in types that JSON can represent."""
        return asdict(self) | {"at": list(self.at), "file": str(self.file)}

    def header(self) -> dict[str, Any]:
        """Returns the fields that the raw data repeat."""
        return {name: value for name, value in self.asdict().items() if name not in ("file", "goal")}


def write(run: Run, content: dict[str, Any]) -> None:
    """Writes raw data atomically."""
    run.file.parent.mkdir(parents=True, exist_ok=True)
    temporary = run.file.with_name(f".{run.file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(run.header() | content) + "\n")
    temporary.replace(run.file)


class Stopwatch:
    """Clock of CPU and wall seconds that can be paused."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Returns CPU and wall seconds so far."""
        return time.process_time() - self._cpu, time.perf_counter() - self._wall

    def resume(self, read: tuple[float, float]) -> None:
        """Continues from a reading before a pause."""
        self._cpu, self._wall = time.process_time() - read[0], time.perf_counter() - read[1]


def perform(run: Run) -> None:
    """Learns and evaluates; evaluations before a failure are kept."""
    from benchmarks.learning import tasks
    from benchmarks.learning.methods import METHODS
    from mpc.agent.evaluation import decision_times, evaluate

    tasks.register()
    task, method, rows = tasks.task(run.task, run.at, run.goal), METHODS[run.method], []
    watch, remaining = Stopwatch(), list(run.at)
    learner = method.make(task, run.seed)

    def score(steps: int, asked: list[int]) -> None:
        read = watch.read()
        returns = evaluate(learner, run.task, range(run.episodes))
        if not np.isfinite(returns).all():
            raise FloatingPointError(f"a return after {steps} steps is {returns[~np.isfinite(returns)][0]}")
        row = {"steps": steps, "cpu_seconds": round(read[0], 2), "wall_seconds": round(read[1], 2)}
        rows.extend({"asked": mark} | row | {"returns": [round(float(r), 3) for r in returns]} for mark in asked)
        write(run, {"rows": rows, "unfinished": True})
        watch.resume(read)

    def on_step(steps: int) -> None:
        due = [mark for mark in remaining if mark <= steps]
        if due:
            score(steps, due)
            del remaining[: len(due)]

    try:
        if method.learns:
            learner.learn(run.at[-1], on_step)
        else:
            score(0, list(run.at))
        milliseconds, _ = decision_times(learner, run.task, run.seed, DECISIONS)
    except Exception as error:  # an environment or a library may raise anything; the other runs continue
        write(run, {"rows": rows, "failed": f"{type(error).__name__}: {error}"})
        raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write(run, {"rows": rows, "decision_ms": milliseconds, "peak_mib": round(peak), "failed": None})


if __name__ == "__main__":
    fields, core = json.loads(sys.argv[1]), int(sys.argv[2])
    if core >= 0:
        os.sched_setaffinity(0, {core})  # before libraries count the cores
    perform(Run(**(fields | {"at": tuple(fields["at"]), "file": Path(fields["file"])})))
