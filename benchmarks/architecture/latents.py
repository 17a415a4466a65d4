"""Benchmark of latent variables: prediction errors, and driving with each model."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import mpc
from benchmarks.architecture import crossing
from benchmarks.architecture.crossing import KINDS, Driver
from benchmarks.architecture.report import write
from benchmarks.statistics import bootstrap_interval
from mpc.agent.viz.figures import legend_beside
from world_models.io import checkpoint

PyTree = Any
CAUTION = 0.5
"""Share of the worst futures in the cvar measure."""
MEASURES = {"mean": mpc.risk.mean, "cvar": mpc.risk.cvar(CAUTION), "worst": mpc.risk.worst_case, "zero": None}
"""Risk measures over sampled futures; `zero` samples none and sets the latent variable to zero."""


@dataclass
class Latents:
    """Crossing: train, infer, drive.

    Example: python -m benchmarks.architecture latents --seeds 3 --episodes 300
    """

    seeds: int = 3
    """Number of seeds, 0 … n-1."""
    recordings: int = 6000
    """Number of training recordings."""
    updates: int = 8000
    """Gradient steps."""
    episodes: int = 300
    """Episodes per driver, the same for all."""
    kinds: tuple[str, ...] = ("discrete", "unrestricted", "none")
    """Regularizers to train with, of `crossing.KINDS`; `none` is the deterministic model."""
    drivers: tuple[str, ...] = (
        "discrete:mean",
        "discrete:cvar",
        "discrete:worst",
        "discrete:zero",
        "unrestricted:cvar",
        "none:zero",
    )
    """Drivers REGULARIZER:MEASURE, a trained model with a risk measure."""
    reference: int = 300
    """Episodes of the references with the true dynamics; 0 for none."""
    out: Path = Path(__file__).parents[1] / "results"
    """Folder of the results."""
    runs: Path = Path("runs/architecture")
    """Folder of trained models and rows, which are reused."""


def parameters(options: Latents, name: str, seed: int, log: Callable[[str], None]) -> PyTree:
    """Returns trained parameters; trains unless a checkpoint with the same number of updates exists."""
    kind = KINDS[name]
    folder = options.runs / f"crossing-{name.replace(' ', '-')}-{options.updates}-{seed}"
    like = crossing.model(kind).init(jax.random.key(seed))
    if folder.exists():
        return checkpoint.load(folder, like)[0]
    log(f"training, regularizer {name}, seed {seed}")
    data = crossing.recordings(options.recordings, seed)
    params = crossing.train(kind, data, options.updates, seed, log)
    checkpoint.save(folder, params, {"kind": name, "seed": seed}, step=options.updates)
    return params


def drivers(options: Latents, learnt: dict[str, PyTree]) -> list[Driver]:
    """Returns the drivers of the options for trained parameters."""
    result = []
    for name in options.drivers:
        kind, _, measure = name.partition(":")
        result.append(crossing.by_model(name, KINDS[kind], learnt[kind], MEASURES[measure]))
    return result


def cached(options: Latents, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns a row from an earlier run, or makes and stores it."""
    file = options.runs / "rows" / f"{name.replace(' ', '-').replace(':', '-')}.json"
    if not file.exists():
        row = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row) + "\n")
    return json.loads(file.read_text())


def driver_row(driver: Driver, seed: int, episodes: int) -> dict[str, Any]:
    """Runs a driver and returns a row of results."""
    begun = time.process_time()
    outcome = crossing.drive(driver, episodes, seed)
    arrived = outcome.seconds[outcome.arrived]
    return {
        "driver": driver.name,
        "seed": seed,
        "episodes": episodes,
        "crashed": round(float(outcome.crashed.mean()), 4),
        "arrived": round(float(outcome.arrived.mean()), 4),
        "seconds": round(float(arrived.mean()), 2) if len(arrived) else None,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "each": outcome.crashed.astype(int).tolist(),
    }


def inference_row(options: Latents, name: str, seed: int, params: PyTree) -> dict[str, Any]:
    """Returns a row of prediction errors on test recordings."""
    fresh = crossing.recordings(1000, 1000 + seed)
    return {"regularizer": name, "seed": seed} | crossing.energies(KINDS[name], params, fresh)


def check_names(options: Latents) -> None:
    """Checks the names in the options before training starts.

    Raises:
        ValueError: If a name is unknown.
    """
    for name in options.kinds:
        if name not in KINDS:
            raise ValueError(f"kinds must be of {', '.join(KINDS)}; got {name!r}")
    for name in options.drivers:
        kind, _, measure = name.partition(":")
        if kind not in options.kinds or measure not in MEASURES:
            raise ValueError(
                f"drivers must be REGULARIZER:MEASURE, of {', '.join(options.kinds)} and {', '.join(MEASURES)}; got {name!r}"
            )


def run(options: Latents, log: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Trains, infers, drives, and writes results.

    Returns:
        A row for each driver and seed.
    """
    check_names(options)
    rows: list[dict[str, Any]] = []
    inference: list[dict[str, Any]] = []

    def judge(driver: Driver, seed: int, episodes: int) -> None:
        name = f"{driver.name}-{options.updates}-{seed}-{episodes}"
        row = cached(options, name, lambda: driver_row(driver, seed, episodes))
        rows.append(row)
        log(f"  {driver.name}: {100 * row['crashed']:.1f}% crashed, {row['seconds']} s")
        save()

    def save() -> None:
        write(
            options.out / "architecture-latents",
            tables(rows, inference),
            {"rows": rows, "inference": inference},
            picture(rows, inference),
        )

    if options.reference:
        judge(crossing.by_truth("true dynamics:cvar", MEASURES["cvar"]), 0, options.reference)
        judge(crossing.careful(), 0, options.reference)
    for seed in range(options.seeds):
        learnt = {name: parameters(options, name, seed, log) for name in options.kinds}
        for name, params in learnt.items():
            given = partial(inference_row, options, name, seed, params)
            inference.append(cached(options, f"{name}-{options.updates}-{seed}", given))
            log(f"  {inference[-1]}")
            save()
        for driver in drivers(options, learnt):
            judge(driver, seed, options.episodes)
    return rows


def tables(rows: list[dict[str, Any]], inference: list[dict[str, Any]]) -> list[str]:
    """Returns the lines of the report."""
    text = ["# Crossing: latent variables for unpredictable futures", ""]
    if rows:
        text += [
            "Results of drivers, evaluated by the environment. Brackets are 95% bootstrap intervals over episodes of all "
            "seeds. Seconds are means over successful episodes. cvar: the plan minimises the mean over the worst "
            f"{CAUTION:g} of {crossing.DRAWS} sampled futures; zero: the latent variable is zero. With no crash in N "
            "episodes, the 95% upper bound is 3/N.",
            "",
            "| driver | seeds | episodes | crashed | seconds |",
            "|---|---|---|---|---|",
        ]
    for name in dict.fromkeys(row["driver"] for row in rows):
        some = [row for row in rows if row["driver"] == name]
        each = np.concatenate([row["each"] for row in some])
        low, high = bootstrap_interval(each)
        seconds = [row["seconds"] for row in some if row["seconds"] is not None]
        duration = f"{np.mean(seconds):.1f}" if seconds else ""
        crashed = f"{100 * each.mean():.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
        text.append(f"| {name} | {len(some)} | {len(each)} | {crashed} | {duration} |")
    if inference:
        text += [
            "",
            "Squared prediction errors over transitions in which an agent decides: with the inferred latent variable, with "
            "zero, with random ones; error of a false future with the latent variable inferred from it; and the fraction of "
            "transitions whose true future has the lower error.",
            "",
            "| regularizer | seed | inferred | zero | inferred / zero | random | false | discriminated |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for row in inference:
        share = row["inferred"] / row["zero"]
        figures = " | ".join(f"{x:.4g}" for x in (row["inferred"], row["zero"], share, row["drawn"], row["false"]))
        text.append(f"| {row['regularizer']} | {row['seed']} | {figures} | {100 * row['discriminated']:.1f}% |")
    return text


def picture(rows: list[dict[str, Any]], inference: list[dict[str, Any]]) -> Figure:
    """Draws crashes over seconds for every driver, and prediction errors for every regularizer."""
    figure = Figure(figsize=(11 if rows else 5.5, 4.4), layout="constrained")
    *left, right = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    for axis in left:
        for name in dict.fromkeys(row["driver"] for row in rows):
            some = [row for row in rows if row["driver"] == name and row["seconds"] is not None]
            axis.plot([r["seconds"] for r in some], [100 * r["crashed"] for r in some], "o", label=name)
        axis.axhline(1.0, color="black", lw=0.8, ls="--")
        axis.set(xlabel="seconds until arrival", ylabel="crashed, %", yscale="symlog", ylim=(-0.2, 110))
        legend_beside(axis)
    names = list(dict.fromkeys(row["regularizer"] for row in inference))
    for index, part in enumerate(("inferred", "zero", "drawn", "false")):
        heights = [np.mean([row[part] for row in inference if row["regularizer"] == name]) for name in names]
        right.bar(np.arange(len(names)) + 0.2 * (index - 1.5), heights, 0.18, label=part)
    right.set(xticks=np.arange(len(names)), xticklabels=names, ylabel="squared error", yscale="log")
    right.legend(
        fontsize=7, title="latent variable", title_fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return figure
