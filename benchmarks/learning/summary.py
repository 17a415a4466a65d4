"""Statistics over the raw data of many runs."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.tasks import Task
from benchmarks.statistics import interquartile_mean, probability_of_improvement, stratified_interval

Raw = dict[str, Any]
OURS = "craik"


class Score(NamedTuple):
    """Score of a method on a task after a number of environment steps."""

    task: str
    method: str
    asked: int
    steps: int
    """Steps taken in the median run; more than asked for if steps come in batches."""
    iqm: float
    """Interquartile mean over runs of the mean return."""
    low: float
    high: float
    """95% bootstrap interval of the interquartile mean."""
    worst: float
    """Lowest mean return of a run."""
    cpu_seconds: float
    """CPU seconds of learning so far, in the median run."""
    seeds: int


class Reached(NamedTuple):
    """Steps and time that the runs of a method took to the goal of a task."""

    task: str
    method: str
    goal: float
    runs: int
    """Number of runs."""
    reached: int
    """Number of runs that reached the goal in some evaluation."""
    steps: float
    """Steps of the median run; infinite if it did not reach the goal."""
    cpu_seconds: float


def means(runs: Iterable[Raw], asked: int) -> np.ndarray:
    """Returns the mean return of each run after `asked` steps, `[runs]`, without runs that failed earlier."""
    return np.array([np.mean(row["returns"]) for run in runs for row in run["rows"] if row["asked"] == asked])


def of(raw: list[Raw], task: str, method: str) -> list[Raw]:
    """Returns the runs of a method on a task."""
    return [run for run in raw if (run["task"], run["method"]) == (task, method)]


def methods(raw: list[Raw]) -> list[str]:
    """Returns all methods with runs."""
    return list(dict.fromkeys(run["method"] for run in raw))


def scores(raw: list[Raw], tasks: list[Task]) -> list[Score]:
    """Returns a score for every task, method and evaluation."""
    lines = []
    for task in tasks:
        for method in methods(raw):
            runs = of(raw, task.name, method)
            for asked in task.at:
                rows = [row for run in runs for row in run["rows"] if row["asked"] == asked]
                if not rows:
                    continue
                values = means(runs, asked)
                interval = stratified_interval([values], lambda groups: interquartile_mean(groups[0]))
                median = [float(np.median([row[name] for row in rows])) for name in ("steps", "cpu_seconds")]
                line = (task.name, method, asked, int(median[0]), interquartile_mean(values), *interval, float(values.min()))
                lines.append(Score(*line, median[1], len(rows)))
    return lines


def reached(raw: list[Raw], tasks: list[Task]) -> list[Reached]:
    """Returns when runs first scored at least the goal of their task, for methods that learn."""
    lines = []
    for task in tasks:
        for method in methods(raw):
            runs = of(raw, task.name, method)
            if task.goal is None or not runs or all(row["steps"] == 0 for run in runs for row in run["rows"]):
                continue
            first = [next((r for r in run["rows"] if np.mean(r["returns"]) >= task.goal), None) for run in runs]
            steps = [np.inf if row is None else row["steps"] for row in first]
            seconds = [np.inf if row is None else row["cpu_seconds"] for row in first]
            count = sum(row is not None for row in first)
            # the upper median, because a mean with infinity is meaningless
            median = [float(np.quantile(values, 0.5, method="higher")) for values in (steps, seconds)]
            lines.append(Reached(task.name, method, task.goal, len(runs), count, *median))
    return lines


def normalised(raw: list[Raw], tasks: list[Task]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the last scores, scaled to 0 for random actions and 1 for the goal: `{method: {task: [runs]}}`.

    Tasks without a goal or without runs of random actions are left out.
    """
    result: dict[str, dict[str, np.ndarray]] = {}
    for task in tasks:
        random = means(of(raw, task.name, "random"), task.at[-1])
        if task.goal is None or random.size == 0:
            continue
        floor = random.mean()
        for method in methods(raw):
            last = means(of(raw, task.name, method), task.at[-1])
            if last.size:
                result.setdefault(method, {})[task.name] = (last - floor) / (task.goal - floor)
    return result


def aggregate(relative: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple[float, float, float, int]]:
    """Returns for each method the interquartile mean over tasks and runs, its 95% interval, and its number of tasks."""

    def iqm(groups: list[np.ndarray]) -> float:
        return interquartile_mean(np.concatenate(groups))

    groups = {method: list(each.values()) for method, each in relative.items()}
    return {method: (iqm(some), *stratified_interval(some, iqm), len(some)) for method, some in groups.items()}


def improvement(relative: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple[float, float, float, int]]:
    """Returns the probability that a run of craik scores higher than one of another method, a mean over common tasks."""
    result = {}
    for method, theirs in relative.items():
        both = [task for task in relative.get(OURS, {}) if task in theirs]
        if method == OURS or not both:
            continue

        def probability(groups: list[np.ndarray]) -> float:
            half = len(groups) // 2
            return float(
                np.mean([probability_of_improvement(*pair) for pair in zip(groups[:half], groups[half:], strict=True)])
            )

        groups = [relative[OURS][task] for task in both] + [theirs[task] for task in both]
        result[method] = (probability(groups), *stratified_interval(groups, probability), len(both))
    return result
