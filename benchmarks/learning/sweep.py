"""Every task, method and seed, side by side on the cores there are; what is there already is not done again."""

import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.learning.methods import fits
from benchmarks.learning.run import Run, write
from benchmarks.learning.tasks import Task

Tell = Callable[[str], None]
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A run gets one core, so that CPU seconds of different libraries can be compared."""
_ROOT = Path(__file__).parents[2]


def planned(tasks: Iterable[Task], methods: Iterable[str], seeds: int, episodes: int, folder: Path, tell: Tell) -> list[Run]:
    """All runs; methods that cannot play a task are left out, and that is told.

    Raises:
        ValueError: If there is no such method.
        ImportError: If the library of a method is not installed.
    """
    runs = []
    for task in tasks:
        for method in methods:
            if not fits(method, task):
                tell(f"{method} cannot play {task.name}: left out")
                continue
            place = folder / task.name.replace("/", "-") / method
            given = {"task": task.name, "at": task.at, "goal": task.goal, "method": method, "episodes": episodes}
            runs += [Run(**given, seed=seed, file=place / f"{seed}.json") for seed in range(seeds)]
    return runs


def read(run: Run) -> dict[str, Any] | None:
    """Raw figures of a run that came to its end, as it is asked for; None where there are none."""
    try:
        found = json.loads(run.file.read_text())
    except (OSError, ValueError):
        return None
    same = {name: found.get(name) for name in run.header()} == run.header()
    return found if same and not found.get("unfinished") else None


def found(runs: list[Run]) -> list[dict[str, Any]]:
    """Raw figures of all runs there are of the same tasks and methods, seeds that were not asked for this time included."""
    places = {run.file.parent: run for run in runs}
    there = [
        replace(run, seed=int(file.stem), file=file)
        for place, run in places.items()
        for file in sorted(place.glob("*.json"))
        if file.stem.isdigit()
    ]
    return [figures for run in there if (figures := read(run)) is not None]


def sweep(runs: list[Run], *, cores: int, limit: float, retry: bool, tell: Tell) -> list[dict[str, Any]]:
    """Do all runs that are missing.

    Args:
        runs: As `planned` gives them.
        cores: Runs at the same time, each bound to a core of its own.
        limit: Seconds after which a run is given up as hanging.
        retry: Do again what failed before.
        tell: What to do with a line for people.

    Returns:
        Raw figures of every run.
    """
    free: queue.Queue[int] = queue.Queue()
    for core in _cores(cores):
        free.put(core)
    missing = [run for run in runs if (done := read(run)) is None or (retry and done["failed"])]
    tell(f"{len(runs)} runs, {len(missing)} of them to do, {free.qsize()} at a time")

    def one(run: Run) -> None:
        core = free.get()
        try:
            _perform(run, core, limit)
        finally:
            free.put(core)
        tell(_line(run))

    with ThreadPoolExecutor(free.qsize()) as pool:
        for _ in pool.map(one, missing):
            pass
    return [found for run in runs if (found := read(run)) is not None]


def _cores(count: int) -> list[int]:
    """So many cores of those this process may run on; -1, any core, where that cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return [-1] * count
    here = sorted(os.sched_getaffinity(0))
    if count > len(here):
        raise ValueError(f"{count} runs at a time need as many cores; this process may use {len(here)}")
    return here[:count]


def _perform(run: Run, core: int, limit: float) -> None:
    """Do a run in a process of its own, and record how it failed if it does not say so itself."""
    write(run, {"rows": [], "unfinished": True})  # nothing of an earlier request is mixed in
    given = json.dumps(run.asdict() | {"file": str(run.file.absolute())})
    command = [sys.executable, "-m", "benchmarks.learning.run", given, str(core)]
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.run(
                command,
                cwd=_ROOT,
                env=os.environ | ALONE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _fail(run, f"gave no answer within {limit:.0f} s")
        if process.returncode and ((found := read(run)) is None or not found["failed"]):
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no reason given"])[-1]
            _fail(run, f"ended with code {process.returncode}: {last}")


def _fail(run: Run, reason: str) -> None:
    """Record a failure beside the scores there are."""
    write(run, {"rows": json.loads(run.file.read_text())["rows"], "failed": reason})


def _line(run: Run) -> str:
    found = read(run)
    name = f"{run.method:>16} {run.task:<26} seed {run.seed}"
    if found is None or found["failed"]:
        return f"{name} failed: {found and found['failed']}"
    last = found["rows"][-1]
    mean = sum(last["returns"]) / len(last["returns"])
    return f"{name} {mean:9.1f} after {last['steps']} steps, {last['cpu_seconds']:.0f} CPU s"
