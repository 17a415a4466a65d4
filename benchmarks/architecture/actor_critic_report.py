"""The figures of actor, critic and memory for people: tables, and a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.statistics import bootstrap_interval

Rows = list[dict[str, Any]]


def tables(found: dict[str, Rows], cold: int) -> list[str]:
    """The tables, line by line.

    Args:
        found: Rows of `"actor"`, `"critic"` and `"memory"`.
        cold: Iterations of the plans from noise that those from a proposal are held against.
    """
    text = [
        "# Actor, critic, memory",
        "",
        "Brackets are 95% bootstrap intervals of the mean over seeds. A share is that of the way from random actions to "
        "what a score is compared with.",
    ]
    if found["actor"]:
        text += _table(
            "Mode 1 beside Mode 2. Dreamt: the actor as practice in imagination left it, in Two Rooms one that has learnt "
            "nothing, and goes downhill; taught: after `distil`. Scores are returns, in Two Rooms percent of goals reached. "
            "Times are medians, of one decision at a time. Iterations: until a plan from the actor's proposal costs no more "
            f"than one from noise after {cold}, the median over observations that are remembered.",
            "task | seeds | planned | dreamt | its share | taught | its share | ms planned | ms taught | ratio | iterations",
            [[task, len(rows), *_modes(rows)] for (task,), rows in groups(found["actor"], "task").items()],
        )
    if found["critic"]:
        some = groups(found["critic"], "task", "horizon", "critic").items()
        text += _table(
            "What comes after the horizon. In Two Rooms, the critic is the learnt steps to go, and without it stands the "
            "plain distance between latents; a step of the horizon is four of the environment there.",
            "task | horizon | critic | seeds | mean score",
            [[task, steps, "yes" if critic else "no", len(r), mean_of(r, "mean")] for (task, steps, critic), r in some],
        )
    if found["memory"]:
        some = groups(found["memory"], "task", "shown")
        text += _table(
            "What the model is shown; shares are of the agent that is shown everything.",
            "task | shown | seeds | mean return | random | share",
            [
                [task, shown, len(r), mean_of(r, "mean", 2), mean_of(r, "random", 2), _share(r, some[task, "everything"])]
                for (task, shown), r in some.items()
                if (task, "everything") in some
            ],
        )
    commands = dict.fromkeys(row["command"] for rows in found.values() for row in rows)
    return [*text, "", "Measured by " + ", ".join(f"`{command}`" for command in commands) + "."]


def _modes(rows: Rows) -> list[str]:
    quicker = np.mean([row["plan_ms"] / row["react_ms"] for row in rows])
    digits = {"plan": 1, "dreamt": 1, "dreamt_share": 3, "react": 1, "react_share": 3, "plan_ms": 2, "react_ms": 3}
    cells = [mean_of(rows, column, count) for column, count in digits.items()]
    return [*cells, f"{quicker:.0f} ×", mean_of(rows, "iterations")]


def _share(rows: Rows, everything: Rows) -> str:
    low, best = (np.mean([row[column] for row in everything]) for column in ("random", "mean"))
    return f"{(np.mean([row['mean'] for row in rows]) - low) / (best - low):.3f}"


def _table(words: str, columns: str, rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [" | ".join(map(str, row)) for row in rows]
    return ["", words, "", f"| {columns} |", "|---" * (columns.count("|") + 1) + "|", *(f"| {line} |" for line in lines)]


def mean_of(rows: Rows, column: str, digits: int = 1) -> str:
    """Mean of a column, with its interval where there are several rows."""
    values = np.array([row[column] for row in rows], float)
    text = f"{values.mean():.{digits}f}"
    if len(values) < 2:
        return text
    low, high = bootstrap_interval(values)
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def groups(rows: Rows, *columns: str) -> dict[tuple[Any, ...], Rows]:
    """Rows that are alike in some columns, together."""
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def picture(found: dict[str, Rows]) -> Figure:
    """Scores of every variant, a point for a seed, a panel for each table and task."""
    panels: dict[str, dict[str, list[float]]] = {}
    for (task,), rows in groups(found["actor"], "task").items():
        panels[f"{task}: who acts"] = {who: [row[who] for row in rows] for who in ("plan", "dreamt", "react")}
    for (task, horizon, critic), rows in groups(found["critic"], "task", "horizon", "critic").items():
        name = f"{horizon} {'with' if critic else 'without'}"
        panels.setdefault(f"{task}: horizon, critic", {})[name] = [row["mean"] for row in rows]
    for (task, shown), rows in groups(found["memory"], "task", "shown").items():
        panels.setdefault(f"{task}: what is shown", {})[shown] = [row["mean"] for row in rows]
    figure = Figure(figsize=(3.2 * max(len(panels), 1), 3.6), layout="constrained")
    for index, (title, scores) in enumerate(panels.items()):
        axis = figure.add_subplot(1, len(panels), index + 1)
        for place, each in enumerate(scores.values()):
            axis.plot([place] * len(each), each, "o", color="#d1495b", alpha=0.6)
            axis.plot([place - 0.25, place + 0.25], [np.mean(each)] * 2, color="#1b1b1b")
        axis.set_xticks(range(len(scores)), list(scores), rotation=20, fontsize=8)
        axis.set_title(title, fontsize=9)
    return figure
