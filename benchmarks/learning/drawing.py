"""Plots: scores over environment steps and CPU seconds, and performance profiles."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.learning.summary import Score
from benchmarks.learning.tasks import Task
from benchmarks.statistics import performance_profile
from mpc.agent.viz.figures import legend_beside

Published = list[dict]
COLOURS = ("#d1495b", "#2e4057", "#66a182", "#edae49", "#8d6a9f", "#00798c", "#8d99ae", "#b56576", "#4f772d", "#6d597a")
WIDE = 200.0
"""Ratio of axis limits above which only powers of ten are labelled."""


def curves(path: Path, task: Task, lines: list[Score], published: Published) -> None:
    """Draws the interquartile means of every method with their intervals over steps and over CPU seconds.

    Args:
        path: Path of the image.
        task: Task; its goal is drawn as a line.
        lines: Scores on this task.
        published: Published scores on this task.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for index, method in enumerate(dict.fromkeys(line.method for line in lines)):
        some, colour = [line for line in lines if line.method == method], COLOURS[index % len(COLOURS)]
        if all(line.steps == 0 for line in some):  # a method without learning has a constant score
            for axis in axes:
                axis.axhline(some[-1].iqm, color=colour, ls=":", label=method)
            continue
        middle, low, high = (np.array([getattr(line, name) for line in some]) for name in ("iqm", "low", "high"))
        for axis, name in zip(axes, ("steps", "cpu_seconds"), strict=True):
            along = [getattr(line, name) for line in some]
            axis.plot(along, middle, "o-", ms=3, color=colour, label=f"{method} ({some[-1].seeds})")
            axis.fill_between(along, low, high, color=colour, alpha=0.15, lw=0)
    for entry in published:
        axes[0].plot(entry["steps"], entry["score"], "x", color="black")
        axes[0].annotate(f"{entry['method']}, published", (entry["steps"], entry["score"]), fontsize=6, ha="right")
    for axis, name in zip(axes, ("environment steps", "CPU seconds of learning, one core"), strict=True):
        if task.goal is not None:
            axis.axhline(task.goal, color="black", lw=0.8, ls="--")
        axis.set(xlabel=name, xscale="log")
        first, last = axis.get_xlim()
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if last < WIDE * first else (1.0,)))
        axis.xaxis.set_major_formatter("{x:,.6g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    low = lowest(lines)
    if axes[0].get_ylim()[0] < low:
        best = max(line.high for line in lines)
        axes[0].set_ylim(low, best + 0.05 * (best - low))
    axes[0].set(ylabel="return: interquartile mean, 95% interval", title=f"{task.name} (dashed: goal; in brackets: seeds)")
    legend_beside(axes[1])
    figure.savefig(path, dpi=110)


def lowest(lines: list[Score]) -> float:
    """Returns the lower axis limit: as far below random actions as the best score is above, so outliers are cut off."""
    floor = min((line.iqm for line in lines if line.method == "random"), default=-np.inf)
    return 2 * floor - max(line.iqm for line in lines)


def profiles(path: Path, relative: dict[str, dict[str, np.ndarray]]) -> None:
    """Draws the fraction of runs whose last score exceeds each level, scaled to 0 for random actions and 1 for the goal."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis, levels = figure.add_subplot(), np.linspace(0.0, 1.1, 200)
    for index, (method, each) in enumerate(relative.items()):
        shares = np.mean([performance_profile(runs, levels) for runs in each.values()], axis=0)
        axis.plot(levels, shares, color=COLOURS[index % len(COLOURS)], label=f"{method} ({len(each)} tasks)")
    axis.set(xlabel="normalised return (0: random, 1: goal)", ylabel="fraction of runs above", title="performance profiles")
    legend_beside(axis)
    figure.savefig(path, dpi=110)
