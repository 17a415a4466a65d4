"""What raw figures of many runs come to."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.tasks import Task
from benchmarks.statistics import interquartile_mean, probability_of_improvement, stratified_interval

Raw = dict[str, Any]
OURS = "craik"


class Score(NamedTuple):
    """One method on one task after so many environment steps."""

    task: str
    method: str
    asked: int
    steps: int
    """Really taken, in the middle run: where experience comes in batches it may be more than asked for."""
    iqm: float
    """Interquartile mean over runs of their mean returns."""
    low: float
    high: float
    """95% bootstrap interval of it."""
    worst: float
    """The worst run's mean return."""
    cpu_seconds: float
    """Of learning so far, in the middle run."""
    seeds: int


class Reached(NamedTuple):
    """When one method's runs reached the goal of a task."""

    task: str
    method: str
    goal: float
    runs: int
    """All there are."""
    reached: int
    """Those that did, at any score."""
    steps: float
    """In the middle run; infinite where that did not get there."""
    cpu_seconds: float


def means(runs: Iterable[Raw], asked: int) -> np.ndarray:
    """Every run's mean return after so many steps, `[runs]`, without those that failed before."""
    return np.array([np.mean(row["returns"]) for run in runs for row in run["rows"] if row["asked"] == asked])


def of(raw: list[Raw], task: str, method: str) -> list[Raw]:
    """The runs of a method on a task."""
    return [run for run in raw if (run["task"], run["method"]) == (task, method)]


def methods(raw: list[Raw]) -> list[str]:
    """All methods there are runs of."""
    return list(dict.fromkeys(run["method"] for run in raw))


def scores(raw: list[Raw], tasks: list[Task]) -> list[Score]:
    """A line for every task, method and number of steps that a run was scored at."""
    lines = []
    for task in tasks:
        for method in methods(raw):
            runs = of(raw, task.name, method)
            for asked in task.at:
                rows = [row for run in runs for row in run["rows"] if row["asked"] == asked]
                if not rows:
                    continue
                found = means(runs, asked)
                interval = stratified_interval([found], lambda groups: interquartile_mean(groups[0]))
                middle = [float(np.median([row[name] for row in rows])) for name in ("steps", "cpu_seconds")]
                line = (task.name, method, asked, int(middle[0]), interquartile_mean(found), *interval, float(found.min()))
                lines.append(Score(*line, middle[1], len(rows)))
    return lines


def reached(raw: list[Raw], tasks: list[Task]) -> list[Reached]:
    """When runs first scored as much as the goal of their task, for methods that learn."""
    lines = []
    for task in tasks:
        for method in methods(raw):
            runs = of(raw, task.name, method)
            if task.goal is None or not runs or all(row["steps"] == 0 for run in runs for row in run["rows"]):
                continue
            first = [next((r for r in run["rows"] if np.mean(r["returns"]) >= task.goal), None) for run in runs]
            steps = [np.inf if row is None else row["steps"] for row in first]
            seconds = [np.inf if row is None else row["cpu_seconds"] for row in first]
            there = sum(row is not None for row in first)
            # the middle run itself: halfway between a number and never lies nothing
            middle = [float(np.quantile(values, 0.5, method="higher")) for values in (steps, seconds)]
            lines.append(Reached(task.name, method, task.goal, len(runs), there, *middle))
    return lines


def normalised(raw: list[Raw], tasks: list[Task]) -> dict[str, dict[str, np.ndarray]]:
    """Last scores of every method's runs on every task, 0 being random actions and 1 the goal: `{method: {task: [runs]}}`.

    Tasks that nobody set a goal for, or where random actions were not scored, are left out.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for task in tasks:
        random = means(of(raw, task.name, "random"), task.at[-1])
        if task.goal is None or random.size == 0:
            continue
        floor = random.mean()
        for method in methods(raw):
            last = means(of(raw, task.name, method), task.at[-1])
            if last.size:
                found.setdefault(method, {})[task.name] = (last - floor) / (task.goal - floor)
    return found


def aggregate(relative: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple[float, float, float, int]]:
    """Interquartile mean of each method over all its tasks and runs, its 95% interval, and how many tasks it played."""

    def iqm(groups: list[np.ndarray]) -> float:
        return interquartile_mean(np.concatenate(groups))

    groups = {method: list(each.values()) for method, each in relative.items()}
    return {method: (iqm(some), *stratified_interval(some, iqm), len(some)) for method, some in groups.items()}


def improvement(relative: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple[float, float, float, int]]:
    """Probability that a run of ours ends with more than one of each other method, mean over the tasks both played."""
    found = {}
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
        found[method] = (probability(groups), *stratified_interval(groups, probability), len(both))
    return found
