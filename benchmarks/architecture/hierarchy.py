"""The table of the hierarchy: goals far away and near, reached with one level and with two, and what a plan costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from benchmarks.architecture import mazes
from benchmarks.architecture.mazes import FLAT, RANDOM, TWO
from benchmarks.architecture.report import write
from benchmarks.pixels import episodes
from benchmarks.pixels.drawing import draw_path
from benchmarks.pixels.episodes import Outcome
from benchmarks.pixels.worlds import World, world
from benchmarks.statistics import bootstrap_interval
from envs import maze

DISTANCES = ("far", "near")
DRAWN = 5
"""Episodes in the picture."""
FILMED = 3
"""In the film."""


@dataclass
class Hierarchy:
    """Maze: learn two levels, plan with one and with both.

    Example: python -m benchmarks.architecture hierarchy --seeds 1 --episodes 50
    """

    seeds: int = 3
    """Seeds 0 … n-1."""
    updates: int = mazes.RECIPE.settings.updates
    """Gradient steps of encoder and predictor."""
    finetune_updates: int = mazes.RECIPE.settings.finetune_updates
    """Gradient steps of the distance, and of long predictions."""
    episodes: int = 100
    """Goals of either distance, the same for everybody."""
    at_once: int = 20
    """Episodes in one call of a compiled program."""
    out: Path = Path(__file__).parents[1] / "results"
    """Where the figures go."""
    runs: Path = Path("runs/architecture")
    """Where what was learnt is kept, and found again."""


def run(options: Hierarchy, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Learn, go to goals, write down, and film.

    Returns:
        A row for each planner, distance and seed.
    """
    place, rows, models = world("maze"), [], []
    stem = options.out / "architecture-hierarchy"
    settings = replace(mazes.RECIPE.settings, updates=options.updates, finetune_updates=options.finetune_updates)
    recipe = replace(mazes.RECIPE, settings=settings)
    goals = [mazes.starts(distance, options.episodes) for distance in DISTANCES]
    both: maze.State = jax.tree.map(lambda *x: np.concatenate(x), *goals)
    shown: dict[str, Outcome] = {}
    for seed in range(options.seeds):
        folder = options.runs / f"maze-{options.updates}-{options.finetune_updates}-{seed}"
        levels = mazes.learnt(place, recipe, seed, folder, tell)
        agent = levels.agent
        reader, seen = mazes.sight(place, agent)
        models.append(
            {"seed": seed, "seconds": levels.seconds} | seen | {f"upper_{n}": x for n, x in levels.metrics.items()}
        )
        tell(f"  {models[-1]}")
        every = mazes.policies(place, agent)
        for name, policy in every.items():
            outcome = episodes.play(place, agent.agent, policy, both, recipe.budget, seed=seed, at_once=options.at_once)
            for distance, success in zip(DISTANCES, np.split(outcome.success, len(DISTANCES)), strict=True):
                rows.append(judged(name, distance, seed, success))
                tell(f"  {rows[-1] | {'each': None}}")
            if seed == 0 and name in (TWO, FLAT):
                shown[name] = outcome
        plans = {name: policy for name, policy in every.items() if name != RANDOM}
        times = episodes.replan_times(place, agent.agent, plans, both)
        for row in rows[-len(every) * len(DISTANCES) :]:
            row.update({f"ms_{mark}": ms for mark, ms in times.get(row["planner"], {}).items()})
        figures = {"rows": rows, "models": models}
        write(stem, tables(rows, models), figures, picture(place, both, shown, rows))
        if seed == 0:
            few = jax.tree.map(lambda x: x[:FILMED], both)
            mazes.film(place, agent, reader, few, stem.with_suffix(".mp4"))
    return rows


def judged(name: str, distance: str, seed: int, success: np.ndarray) -> dict[str, Any]:
    """A row: of episodes `[N, T+1]`, how many are at the goal at the end, and how many were ever."""
    return {
        "planner": name,
        "distance": distance,
        "seed": seed,
        "success": round(float(success[:, -1].mean()), 4),
        "ever": round(float(success.any(axis=1).mean()), 4),
        "each": success[:, -1].astype(int).tolist(),
    }


def share(rows: list[dict[str, Any]], name: str, distance: str) -> str:
    """Success over all seeds, with its interval."""
    found = [row["each"] for row in rows if (row["planner"], row["distance"]) == (name, distance)]
    if not found:
        return ""
    each = np.concatenate(found)
    low, high = bootstrap_interval(each)
    return f"{100 * each.mean():.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {len(each)}"


def tables(rows: list[dict[str, Any]], models: list[dict[str, Any]]) -> list[str]:
    """The figures for people, line by line."""
    text = [
        "# Maze: planning on two levels",
        "",
        "At the goal after 300 steps, judged by the environment; brackets are 95% bootstrap intervals over episodes of all "
        "seeds. Far goals are nine cells of way away or more, near ones three to five. A plan is made every "
        f"{mazes.RECIPE.settings.block} steps; times are means over plans in turns in one process, of which the upper level "
        f"makes every {mazes.LEVELS.strides[0]}th.",
        "",
        "| planner | far | near | ms per plan | the first |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["planner"] for row in rows):
        some = [row for row in rows if row["planner"] == name]
        times = [
            f"{np.mean([row[mark] for row in some]):.1f}" if mark in some[0] else "" for mark in ("ms_mean", "ms_first")
        ]
        text.append(
            f"| {name} | {' | '.join(share(rows, name, distance) for distance in DISTANCES)} | {' | '.join(times)} |"
        )
    text += [
        "",
        "What representations tell in mazes not learnt from: mean error in pixels of a linear map to positions, share of "
        "doors told right by one, rank correlation of the distance with cells of way.",
        "",
        "| seed | training | position | doors | rank correlation |",
        "|---|---|---|---|---|",
    ]
    for model in models:
        text.append(
            f"| {model['seed']} | {model['seconds'] / 60:.1f} min | {model['position_error']:.2f} px | "
            f"{100 * model['doors_right']:.1f}% | {model['rank_correlation']:.3f} |"
        )
    return text


def picture(place: World, goals: maze.State, shown: dict[str, Outcome], rows: list[dict[str, Any]]) -> Figure:
    """Ways of the same episodes with one level and with two, and success against what a plan costs."""
    figure = Figure(figsize=(2.6 * DRAWN + 4, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.6 * DRAWN, 4), squeeze=False).ravel()
    axes = left.subplots(len(shown) or 1, DRAWN, squeeze=False)
    for line, (name, outcome) in zip(axes, shown.items(), strict=False):
        for index, axis in enumerate(line[: len(outcome.success)]):
            draw_path(place, axis, outcome, goals, index)
        line[0].set_ylabel(name)
    axis = right.subplots()
    for distance, marker in zip(DISTANCES, "os", strict=True):
        for row in rows:
            if row["distance"] == distance and "ms_mean" in row:
                axis.plot(
                    row["ms_mean"], 100 * row["success"], marker, color="#d1495b" if row["planner"] == TWO else "#1b1b1b"
                )
    axis.set(xlabel="ms per plan", ylabel="at the goal, % (circles: far, squares: near; red: two levels)", ylim=(-2, 102))
    return figure
