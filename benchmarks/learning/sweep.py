"""Parallel execution of all runs; finished runs are skipped."""

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

Log = Callable[[str], None]
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment of a run: one thread, so that CPU seconds of different libraries are comparable."""
_ROOT = Path(__file__).parents[2]


def planned(tasks: Iterable[Task], methods: Iterable[str], seeds: int, episodes: int, folder: Path, log: Log) -> list[Run]:
    """Returns all runs; methods skip tasks that they cannot play, with a log message.

    Raises:
        ValueError: If a method is unknown.
        ImportError: If the library of a method is not installed.
    """
    runs = []
    for task in tasks:
        for method in methods:
            if not fits(method, task):
                log(f"{method} cannot play {task.name}: skipped")
                continue
            directory = folder / task.name.replace("/", "-") / method
            fields = {"task": task.name, "at": task.at, "goal": task.goal, "method": method, "episodes": episodes}
            runs += [Run(**fields, seed=seed, file=directory / f"{seed}.json") for seed in range(seeds)]
    return runs


def read(run: Run) -> dict[str, Any] | None:
    """Returns the raw data of a finished run with the same description; None if there is none."""
    try:
        data = json.loads(run.file.read_text())
    except (OSError, ValueError):
        return None
    same = {name: data.get(name) for name in run.header()} == run.header()
    return data if same and not data.get("unfinished") else None


def load_all(runs: list[Run]) -> list[dict[str, Any]]:
    """Returns the raw data of all finished runs of the same tasks and methods, including other seeds."""
    directories = {run.file.parent: run for run in runs}
    existing = [
        replace(run, seed=int(file.stem), file=file)
        for directory, run in directories.items()
        for file in sorted(directory.glob("*.json"))
        if file.stem.isdigit()
    ]
    return [data for run in existing if (data := read(run)) is not None]


def sweep(runs: list[Run], *, cores: int, limit: float, retry: bool, log: Log) -> list[dict[str, Any]]:
    """Executes all missing runs.

    Args:
        runs: Result of `planned`.
        cores: Number of parallel runs, each bound to its own core.
        limit: Time limit of a run in seconds.
        retry: If True, failed runs are repeated.
        log: Callback for progress messages.

    Returns:
        Raw data of every run.
    """
    free: queue.Queue[int] = queue.Queue()
    for core in _cores(cores):
        free.put(core)
    missing = [run for run in runs if (data := read(run)) is None or (retry and data["failed"])]
    log(f"{len(runs)} runs, {len(missing)} to execute, {free.qsize()} in parallel")

    def one(run: Run) -> None:
        core = free.get()
        try:
            _perform(run, core, limit)
        finally:
            free.put(core)
        log(_line(run))

    with ThreadPoolExecutor(free.qsize()) as pool:
        for _ in pool.map(one, missing):
            pass
    return [data for run in runs if (data := read(run)) is not None]


def _cores(count: int) -> list[int]:
    """Returns `count` of the cores available to this process; -1 (any core) where affinity is not supported."""
    if not hasattr(os, "sched_getaffinity"):
        return [-1] * count
    here = sorted(os.sched_getaffinity(0))
    if count > len(here):
        raise ValueError(f"{count} parallel runs need {count} cores; this process has {len(here)}")
    return here[:count]


def _perform(run: Run, core: int, limit: float) -> None:
    """Executes a run in its own process, and records a failure that the process did not record itself."""
    write(run, {"rows": [], "unfinished": True})  # removes data of an earlier request
    description = json.dumps(run.asdict() | {"file": str(run.file.absolute())})
    command = [sys.executable, "-m", "benchmarks.learning.run", description, str(core)]
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.run(
                command,
                cwd=_ROOT,
                env=os.environ | SINGLE_THREAD,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _fail(run, f"exceeded the time limit of {limit:.0f} s")
        if process.returncode and ((data := read(run)) is None or not data["failed"]):
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no error message"])[-1]
            _fail(run, f"ended with code {process.returncode}: {last}")


def _fail(run: Run, reason: str) -> None:
    """Records a failure and keeps existing scores."""
    write(run, {"rows": json.loads(run.file.read_text())["rows"], "failed": reason})


def _line(run: Run) -> str:
    data = read(run)
    name = f"{run.method:>16} {run.task:<26} seed {run.seed}"
    if data is None or data["failed"]:
        return f"{name} failed: {data and data['failed']}"
    last = data["rows"][-1]
    mean = sum(last["returns"]) / len(last["returns"])
    return f"{name} {mean:9.1f} after {last['steps']} steps, {last['cpu_seconds']:.0f} CPU s"
