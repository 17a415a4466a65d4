"""The table of latent variables: what is inferred, what is drawn, and who arrives."""

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
from world_models.io import checkpoint

PyTree = Any
CAUTION = 0.5
"""Share of the worst futures that count, of those drivers who are neither indifferent nor look at the worst alone."""
MEASURES = {"mean": mpc.risk.mean, "cvar": mpc.risk.cvar(CAUTION), "worst": mpc.risk.worst_case, "zero": None}
"""What drivers make of the futures that they draw; `zero` draws none, and takes the latent variable to be zero."""


@dataclass
class Latents:
    """Crossing: learn, infer, drive.

    Example: python -m benchmarks.architecture latents --seeds 3 --episodes 300
    """

    seeds: int = 3
    """Seeds 0 … n-1."""
    recordings: int = 6000
    """To learn from."""
    updates: int = 8000
    """Gradient steps."""
    episodes: int = 300
    """That everybody drives, the same for all."""
    kinds: tuple[str, ...] = ("discrete", "unrestricted", "none")
    """Limits to learn with, of `crossing.KINDS`; `none` is the deterministic twin."""
    drivers: tuple[str, ...] = (
        "discrete:mean",
        "discrete:cvar",
        "discrete:worst",
        "discrete:zero",
        "unrestricted:cvar",
        "none:zero",
    )
    """Who drives: what was learnt with a limit, and a measure of risk."""
    reference: int = 300
    """Episodes of those who know the true dynamics; 0 for none."""
    out: Path = Path(__file__).parents[1] / "results"
    """Where the figures go."""
    runs: Path = Path("runs/architecture")
    """Where what was learnt and how everybody drove is kept, and found again."""


def parameters(options: Latents, name: str, seed: int, tell: Callable[[str], None]) -> PyTree:
    """What was learnt, now or in an earlier run with as many updates."""
    kind = KINDS[name]
    folder = options.runs / f"crossing-{name.replace(' ', '-')}-{options.updates}-{seed}"
    like = crossing.model(kind).init(jax.random.key(seed))
    if folder.exists():
        return checkpoint.load(folder, like)[0]
    tell(f"learning, limit {name}, seed {seed}")
    data = crossing.recordings(options.recordings, seed)
    params = crossing.learnt(kind, data, options.updates, seed, tell)
    checkpoint.save(folder, params, {"kind": name, "seed": seed}, step=options.updates)
    return params


def drivers(options: Latents, learnt: dict[str, PyTree]) -> list[Driver]:
    """Who is to be compared, by what was learnt."""
    found = []
    for name in options.drivers:
        limit, _, measure = name.partition(":")
        found.append(crossing.by_model(name, KINDS[limit], learnt[limit], MEASURES[measure]))
    return found


def kept(options: Latents, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row that was made in an earlier run, or is made now and kept."""
    file = options.runs / "rows" / f"{name.replace(' ', '-').replace(':', '-')}.json"
    if not file.exists():
        row = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row) + "\n")
    return json.loads(file.read_text())


def driven(driver: Driver, seed: int, episodes: int) -> dict[str, Any]:
    """How somebody drove."""
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


def inferred(options: Latents, name: str, seed: int, params: PyTree) -> dict[str, Any]:
    """What the latent variable tells of drivers that were not learnt from."""
    fresh = crossing.recordings(1000, 1000 + seed)
    return {"limit": name, "seed": seed} | crossing.energies(KINDS[name], params, fresh)


def refuse(options: Latents) -> None:
    """Refuse names that are not there before anything is learnt.

    Raises:
        ValueError: With what there is.
    """
    for name in options.kinds:
        if name not in KINDS:
            raise ValueError(f"no limit is called {name!r}; there are {', '.join(KINDS)}")
    for name in options.drivers:
        limit, _, measure = name.partition(":")
        if limit not in options.kinds or measure not in MEASURES:
            raise ValueError(
                f"{name!r} is no driver: give LIMIT:MEASURE, of {', '.join(options.kinds)} and {', '.join(MEASURES)}"
            )


def run(options: Latents, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Learn, infer, drive, and write down.

    Returns:
        A row for each driver and seed.
    """
    refuse(options)
    rows: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []

    def judge(driver: Driver, seed: int, episodes: int) -> None:
        name = f"{driver.name}-{options.updates}-{seed}-{episodes}"
        row = kept(options, name, lambda: driven(driver, seed, episodes))
        rows.append(row)
        tell(f"  {driver.name}: {100 * row['crashed']:.1f}% crashed, {row['seconds']} s")
        save()

    def save() -> None:
        write(options.out / "architecture-latents", tables(rows, told), {"rows": rows, "told": told}, picture(rows, told))

    if options.reference:
        judge(crossing.by_truth("true dynamics:cvar", MEASURES["cvar"]), 0, options.reference)
        judge(crossing.careful(), 0, options.reference)
    for seed in range(options.seeds):
        learnt = {name: parameters(options, name, seed, tell) for name in options.kinds}
        for name, params in learnt.items():
            given = partial(inferred, options, name, seed, params)
            told.append(kept(options, f"{name}-{options.updates}-{seed}", given))
            tell(f"  {told[-1]}")
            save()
        for driver in drivers(options, learnt):
            judge(driver, seed, options.episodes)
    return rows


def tables(rows: list[dict[str, Any]], told: list[dict[str, Any]]) -> list[str]:
    """The figures for people, line by line."""
    text = ["# Crossing: futures that are not determined", ""]
    if rows:
        text += [
            "Who drives, judged by the environment. Brackets are 95% bootstrap intervals over episodes of all seeds; "
            "seconds are those of the episodes that arrived. cvar: the mean of the worst "
            f"{CAUTION:g} of {crossing.DRAWS} futures counts; zero: the latent variable is taken to be zero. None "
            "crashed of N leaves room for 3/N.",
            "",
            "| driver | seeds | episodes | crashed | seconds |",
            "|---|---|---|---|---|",
        ]
    for name in dict.fromkeys(row["driver"] for row in rows):
        some = [row for row in rows if row["driver"] == name]
        each = np.concatenate([row["each"] for row in some])
        low, high = bootstrap_interval(each)
        seconds = [row["seconds"] for row in some if row["seconds"] is not None]
        shown = f"{np.mean(seconds):.1f}" if seconds else ""
        crashed = f"{100 * each.mean():.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
        text.append(f"| {name} | {len(some)} | {len(each)} | {crashed} | {shown} |")
    if told:
        text += [
            "",
            "Squared errors of transitions in which somebody made up their mind: under the latent variable that was "
            "inferred, under zero, under drawn ones; of a false future under the one inferred for it; and how often the "
            "true future has the lower error.",
            "",
            "| limit | seed | inferred | zero | inferred / zero | drawn | false | told apart |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for row in told:
        share = row["inferred"] / row["zero"]
        figures = " | ".join(f"{x:.4g}" for x in (row["inferred"], row["zero"], share, row["drawn"], row["false"]))
        text.append(f"| {row['limit']} | {row['seed']} | {figures} | {100 * row['told_apart']:.1f}% |")
    return text


def picture(rows: list[dict[str, Any]], told: list[dict[str, Any]]) -> Figure:
    """Crashes against seconds for every driver, and errors for every limit."""
    figure = Figure(figsize=(11 if rows else 5.5, 4.4), layout="constrained")
    *left, right = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    for axis in left:
        for name in dict.fromkeys(row["driver"] for row in rows):
            some = [row for row in rows if row["driver"] == name and row["seconds"] is not None]
            axis.plot([r["seconds"] for r in some], [100 * r["crashed"] for r in some], "o", label=name)
        axis.axhline(1.0, color="black", lw=0.8, ls="--")
        axis.set(xlabel="seconds until arrival", ylabel="crashed, %", yscale="symlog", ylim=(-0.2, 110))
        axis.legend(fontsize=7)
    names = list(dict.fromkeys(row["limit"] for row in told))
    for index, part in enumerate(("inferred", "zero", "drawn", "false")):
        heights = [np.mean([row[part] for row in told if row["limit"] == name]) for name in names]
        right.bar(np.arange(len(names)) + 0.2 * (index - 1.5), heights, 0.18, label=part)
    right.set(xticks=np.arange(len(names)), xticklabels=names, ylabel="squared error", yscale="log")
    right.legend(
        fontsize=7, title="latent variable", title_fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return figure
