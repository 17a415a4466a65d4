"""The command; see the package."""

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
    """What to run."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ("Pendulum-v1",)
    """Ids of Gymnasium environments."""
    suite: bool = False
    """The whole suite instead."""
    against: tuple[str, ...] = ()
    """Methods to compare with, with spaces or commas between; random actions and the true model are always there."""
    seeds: int = 5
    """Seeds 0 … n-1; others that are there already are reported as well."""
    at: tuple[int, ...] = ()
    """Environment steps at which to score; the task's own unless told."""
    goal: float | None = None
    """Return at which a task counts as done; the task's own unless told."""
    episodes: int = 20
    """Episodes per score, with the seeds 0 … n-1."""
    cores: int = 1
    """Runs at the same time, each on a core of its own."""
    limit: float = 7200.0
    """Seconds after which a run is given up as hanging."""
    retry: bool = False
    """Do again what failed before."""
    out: Path = RESULTS
    """Where raw figures and the report go; what is there already is not done again."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, and write the report over all that was asked for."""
    given = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(Options, description=benchmarks.learning.__doc__, args=given)
    tasks.register()
    names = tuple(tasks.SUITE) if options.suite else options.tasks
    rivals = [name for text in options.against for name in text.split(",") if name]
    try:
        chosen = [tasks.task(name, options.at, options.goal) for name in names]
        methods = dict.fromkeys([OURS, *rivals, "random", "truth"])
        runs = sweep.planned(chosen, methods, options.seeds, options.episodes, options.out / "raw", _tell)
        sweep.sweep(runs, cores=options.cores, limit=options.limit, retry=options.retry, tell=_tell)
    except (ValueError, ImportError) as error:
        print(f"benchmarks.learning: {error}", file=sys.stderr)
        return 2
    raw = sweep.found(runs)
    written = report.write(options.out, raw, chosen, shlex.join(["python", "-m", "benchmarks.learning", *given]))
    _tell(f"look at {written[0]}")
    return 1 if any(run["failed"] for run in raw) else 0


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
