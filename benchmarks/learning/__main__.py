"""Command line; see the package docstring."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

import benchmarks.learning
from benchmarks.learning import report, sweep, tasks
from benchmarks.learning.summary import OURS

RESULTS = Path(__file__).parents[1] / "results" / "learning"


@dataclass
class Options:
    """Options of the benchmark."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ("Pendulum-v1",)
    """Ids of Gymnasium environments."""
    suite: bool = False
    """Run the whole suite instead."""
    against: tuple[str, ...] = ()
    """Methods to compare with, separated by spaces or commas; random actions and the true model are always included."""
    seeds: int = 5
    """Number of seeds, 0 … n-1; existing results of other seeds are reported as well."""
    at: tuple[int, ...] = ()
    """Environment steps at which to evaluate; default: those of the task."""
    goal: float | None = None
    """Return at which a task counts as solved; default: that of the task."""
    episodes: int = 20
    """Episodes per evaluation, with the seeds 0 … n-1."""
    cores: int = 1
    """Number of parallel runs, each on its own core."""
    limit: float = 7200.0
    """Time limit of a run in seconds."""
    retry: bool = False
    """Repeat runs that failed before."""
    out: Path = RESULTS
    """Folder of raw data and report; runs with existing raw data are skipped."""


def main(arguments: list[str] | None = None) -> int:
    """Executes the missing runs and writes the report; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(Options, description=benchmarks.learning.__doc__, args=arguments)
    tasks.register()
    names = tuple(tasks.SUITE) if options.suite else options.tasks
    baselines = [name for text in options.against for name in text.split(",") if name]
    try:
        selected = [tasks.task(name, options.at, options.goal) for name in names]
        methods = dict.fromkeys([OURS, *baselines, "random", "truth"])
        runs = sweep.planned(selected, methods, options.seeds, options.episodes, options.out / "raw", _log)
        sweep.sweep(runs, cores=options.cores, limit=options.limit, retry=options.retry, log=_log)
    except (ValueError, ImportError) as error:
        print(f"benchmarks.learning: {error}", file=sys.stderr)
        return 2
    raw = sweep.load_all(runs)
    written = report.write(options.out, raw, selected, shlex.join(["python", "-m", "benchmarks.learning", *arguments]))
    _log(f"report: {written[0]}")
    return 1 if any(run["failed"] for run in raw) else 0


def _log(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
