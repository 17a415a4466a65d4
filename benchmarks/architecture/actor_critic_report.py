"""Report of the actor-critic benchmark: tables and an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.statistics import bootstrap_interval

Rows = list[dict[str, Any]]


def tables(results: dict[str, Rows], cold: int) -> list[str]:
    """Returns the lines of the tables.

    Args:
        results: Rows of `"actor"`, `"critic"` and `"history"`.
        cold: Iterations of the reference plans from noise.
    """
    text = [
        "# Actor, critic, observation history",
        "",
        "Brackets are 95% bootstrap intervals of the mean over seeds. Relative scores are 0 for random actions and 1 for "
        "the reference.",
    ]
    if results["actor"]:
        text += _table(
            "Mode 1 and Mode 2; the reference is planning. Imagined: the actor after actor-critic updates in imagination; "
            "in Two Rooms an untrained actor that follows the gradient of the distance. Distilled: after `distil`. Scores "
            "are returns; in Two Rooms they are percentages of goals reached. Times are medians of single decisions. "
            "Iterations: the number after which a plan from the actor's proposal costs no more than a plan from noise after "
            f"{cold}; median over observations of the replay buffer.",
            "task | seeds | planned | imagined | relative | distilled | relative | ms planned | ms distilled | ratio | "
            "iterations",
            [[task, len(rows), *_modes(rows)] for (task,), rows in groups(results["actor"], "task").items()],
        )
    if results["critic"]:
        some = groups(results["critic"], "task", "horizon", "critic").items()
        text += _table(
            "Terminal value of the horizon. In Two Rooms the critic is the learnt temporal distance; without a critic, the "
            "plain distance between latents is used. There, a step of the horizon is four steps of the environment.",
            "task | horizon | critic | seeds | mean score",
            [[task, steps, "yes" if critic else "no", len(r), mean_of(r, "mean")] for (task, steps, critic), r in some],
        )
    if results["history"]:
        some = groups(results["history"], "task", "observed")
        text += _table(
            "Input of the model; the reference is the agent that observes the full state.",
            "task | input | seeds | mean return | random | relative",
            [
                [task, name, len(r), mean_of(r, "mean", 2), mean_of(r, "random", 2), _share(r, some[task, "full state"])]
                for (task, name), r in some.items()
                if (task, "full state") in some
            ],
        )
    commands = dict.fromkeys(row["command"] for rows in results.values() for row in rows)
    return [*text, "", "Measured by " + ", ".join(f"`{command}`" for command in commands) + "."]


def _modes(rows: Rows) -> list[str]:
    ratio = np.mean([row["plan_ms"] / row["react_ms"] for row in rows])
    digits = {"plan": 1, "imagined": 1, "imagined_share": 3, "react": 1, "react_share": 3, "plan_ms": 2, "react_ms": 3}
    cells = [mean_of(rows, column, count) for column, count in digits.items()]
    return [*cells, f"{ratio:.0f} ×", mean_of(rows, "iterations")]


def _share(rows: Rows, reference: Rows) -> str:
    low, best = (np.mean([row[column] for row in reference]) for column in ("random", "mean"))
    return f"{(np.mean([row['mean'] for row in rows]) - low) / (best - low):.3f}"


def _table(words: str, columns: str, rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [" | ".join(map(str, row)) for row in rows]
    return ["", words, "", f"| {columns} |", "|---" * (columns.count("|") + 1) + "|", *(f"| {line} |" for line in lines)]


def mean_of(rows: Rows, column: str, digits: int = 1) -> str:
    """Returns the mean of a column as text, with its interval if there are several rows."""
    values = np.array([row[column] for row in rows], float)
    text = f"{values.mean():.{digits}f}"
    if len(values) < 2:
        return text
    low, high = bootstrap_interval(values)
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def groups(rows: Rows, *columns: str) -> dict[tuple[Any, ...], Rows]:
    """Groups rows by the values of columns."""
    result: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        result.setdefault(tuple(row[column] for column in columns), []).append(row)
    return result


def picture(results: dict[str, Rows]) -> Figure:
    """Draws the scores of every variant: one point per seed, one panel per table and task."""
    panels: dict[str, dict[str, list[float]]] = {}
    for (task,), rows in groups(results["actor"], "task").items():
        panels[f"{task}: policy"] = {name: [row[name] for row in rows] for name in ("plan", "imagined", "react")}
    for (task, horizon, critic), rows in groups(results["critic"], "task", "horizon", "critic").items():
        name = f"{horizon} {'with' if critic else 'without'}"
        panels.setdefault(f"{task}: horizon, critic", {})[name] = [row["mean"] for row in rows]
    for (task, observed), rows in groups(results["history"], "task", "observed").items():
        panels.setdefault(f"{task}: input", {})[observed] = [row["mean"] for row in rows]
    figure = Figure(figsize=(3.2 * max(len(panels), 1), 3.6), layout="constrained")
    for index, (title, scores) in enumerate(panels.items()):
        axis = figure.add_subplot(1, len(panels), index + 1)
        for place, each in enumerate(scores.values()):
            axis.plot([place] * len(each), each, "o", color="#d1495b", alpha=0.6)
            axis.plot([place - 0.25, place + 0.25], [np.mean(each)] * 2, color="#1b1b1b")
        axis.set_xticks(range(len(scores)), list(scores), rotation=20, fontsize=8)
        axis.set_title(title, fontsize=9)
    return figure
