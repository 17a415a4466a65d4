"""Benchmark of the hierarchy: success at far and near goals with one and with two levels, and planning time."""

from collections.abc import Callable
from dataclasses import dataclass
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
"""Episodes in the image."""
FILMED = 3
"""Episodes in the film."""


@dataclass
class Hierarchy:
    """Maze: train two levels, plan with one level and with both.

    Example: python -m benchmarks.architecture hierarchy --seeds 1 --episodes 50
    """

    seeds: int = 3
    """Number of seeds, 0 … n-1."""
    updates: int = mazes.RECIPE.config.learning.offline_updates
    """Gradient steps of encoder and predictor."""
    finetune_updates: int = mazes.RECIPE.config.learning.finetune_updates
    """Gradient steps of the distance and of multi-step predictions."""
    episodes: int = 100
    """Episodes per distance, with the same goals for all planners."""
    at_once: int = 20
    """Episodes per call of a compiled program."""
    out: Path = Path(__file__).parents[1] / "results"
    """Folder of the results."""
    runs: Path = Path("runs/architecture")
    """Folder of trained agents, which are reused."""


def run(options: Hierarchy, log: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Trains, evaluates, writes results, and draws a film.

    Returns:
        A row for each planner, distance and seed.
    """
    place, rows, models = world("maze"), [], []
    stem = options.out / "architecture-hierarchy"
    changes = {"offline_updates": options.updates, "finetune_updates": options.finetune_updates}
    recipe = mazes.RECIPE.changed(changes)
    goals = [mazes.starts(distance, options.episodes) for distance in DISTANCES]
    both: maze.State = jax.tree.map(lambda *x: np.concatenate(x), *goals)
    outcomes: dict[str, Outcome] = {}
    for seed in range(options.seeds):
        folder = options.runs / f"maze-{options.updates}-{options.finetune_updates}-{seed}"
        levels = mazes.trained(place, recipe, seed, folder, log)
        agent = levels.agent
        reader, seen = mazes.probe_latents(place, agent)
        models.append(
            {"seed": seed, "seconds": levels.seconds} | seen | {f"upper_{n}": x for n, x in levels.metrics.items()}
        )
        log(f"  {models[-1]}")
        every = mazes.policies(place, agent)
        for name, policy in every.items():
            outcome = episodes.play(place, agent, policy, both, recipe.budget, seed=seed, at_once=options.at_once)
            for distance, success in zip(DISTANCES, np.split(outcome.success, len(DISTANCES)), strict=True):
                rows.append(result_row(name, distance, seed, success))
                log(f"  {rows[-1] | {'each': None}}")
            if seed == 0 and name in (TWO, FLAT):
                outcomes[name] = outcome
        plans = {name: policy for name, policy in every.items() if name != RANDOM}
        times = episodes.replan_times(place, agent, plans, both)
        for row in rows[-len(every) * len(DISTANCES) :]:
            row.update({f"ms_{mark}": ms for mark, ms in times.get(row["planner"], {}).items()})
        figures = {"rows": rows, "models": models}
        write(stem, tables(rows, models), figures, picture(place, both, outcomes, rows))
        if seed == 0:
            few = jax.tree.map(lambda x: x[:FILMED], both)
            mazes.film(place, agent, reader, few, stem.with_suffix(".mp4"))
    return rows


def result_row(name: str, distance: str, seed: int, success: np.ndarray) -> dict[str, Any]:
    """Returns a row with the fraction of episodes `[N, T+1]` at the goal at the end, and at any time."""
    return {
        "planner": name,
        "distance": distance,
        "seed": seed,
        "success": round(float(success[:, -1].mean()), 4),
        "ever": round(float(success.any(axis=1).mean()), 4),
        "each": success[:, -1].astype(int).tolist(),
    }


def share(rows: list[dict[str, Any]], name: str, distance: str) -> str:
    """Returns the success over all seeds as text, with its interval."""
    successes = [row["each"] for row in rows if (row["planner"], row["distance"]) == (name, distance)]
    if not successes:
        return ""
    each = np.concatenate(successes)
    low, high = bootstrap_interval(each)
    return f"{100 * each.mean():.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {len(each)}"


def tables(rows: list[dict[str, Any]], models: list[dict[str, Any]]) -> list[str]:
    """Returns the lines of the report."""
    text = [
        "# Maze: planning on two levels",
        "",
        "Success is evaluated by the environment after 300 steps. Brackets are 95% bootstrap intervals over episodes of all "
        "seeds. The shortest path to a far goal is nine cells or more, to a near goal three to five. A plan is made every "
        f"{mazes.RECIPE.settings['block']} steps, and the upper level replans at every {mazes.LEVELS['strides'][0]}th of "
        "them. Times are means in one process; planners take turns.",
        "",
        "| planner | far | near | ms per plan | ms of the first plan |",
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
        "Probes of latents in test mazes: mean position error of a linear probe in pixels, accuracy of a linear probe for "
        "doors, rank correlation of the distance with the shortest path in cells.",
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


def picture(place: World, goals: maze.State, outcomes: dict[str, Outcome], rows: list[dict[str, Any]]) -> Figure:
    """Draws paths of the same episodes with one level and with two, and success over planning time."""
    figure = Figure(figsize=(2.6 * DRAWN + 4, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.6 * DRAWN, 4), squeeze=False).ravel()
    axes = left.subplots(len(outcomes) or 1, DRAWN, squeeze=False)
    for line, (name, outcome) in zip(axes, outcomes.items(), strict=False):
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
