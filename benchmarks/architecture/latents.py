"""The table of latent variables: what is inferred, what is drawn, and who arrives."""

import time
from collections.abc import Callable
from dataclasses import dataclass
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
from world_models import checkpoint

PyTree = Any
CAUTION = 0.5
"""Share of the worst futures that count, of those drivers who are neither indifferent nor look at the worst alone."""


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
    """Limits to learn with, the first of which drives with every measure of risk; all: those of `crossing.KINDS`."""
    reference: int = 300
    """Episodes of those who plan with the true dynamics; 0 for none."""
    out: Path = Path(__file__).parents[1] / "results"
    """Where the figures go."""
    runs: Path = Path("runs/architecture")
    """Where what was learnt is kept, and found again."""


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
    first, measures = options.kinds[0], {"mean": mpc.risk.mean, f"CVaR {CAUTION}": mpc.risk.cvar(CAUTION)}
    measures |= {"worst case": mpc.risk.worst_case}
    found = [crossing.by_model(f"{first}, {m}", KINDS[first], learnt[first], f) for m, f in measures.items()]
    found += [crossing.by_model(f"{first}, latent zero", KINDS[first], learnt[first], None)]
    for name in options.kinds[1:]:
        measure = None if name == "none" else mpc.risk.cvar(CAUTION)
        label = "deterministic twin" if name == "none" else f"{name}, CVaR {CAUTION}"
        found.append(crossing.by_model(label, KINDS[name], learnt[name], measure))
    return found


def run(options: Latents, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Learn, infer, drive, and write down.

    Returns:
        A row for each driver and seed.
    """
    for name in options.kinds:
        if name not in KINDS:
            raise ValueError(f"no limit is called {name!r}; there are {', '.join(KINDS)}")
    rows: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []

    def judge(driver: Driver, seed: int, episodes: int) -> None:
        begun = time.process_time()
        outcome = crossing.drive(driver, episodes, seed)
        arrived = outcome.seconds[outcome.arrived]
        row = {
            "driver": driver.name,
            "seed": seed,
            "episodes": episodes,
            "crashed": round(float(outcome.crashed.mean()), 4),
            "arrived": round(float(outcome.arrived.mean()), 4),
            "seconds": round(float(arrived.mean()), 2) if len(arrived) else None,
            "cpu_seconds": round(time.process_time() - begun, 1),
            "each": outcome.crashed.astype(int).tolist(),
        }
        rows.append(row)
        tell(f"  {driver.name}: {100 * row['crashed']:.1f}% crashed, {row['seconds']} s")
        write(options.out / "architecture-latents", tables(rows, told), {"rows": rows, "told": told}, picture(rows, told))

    if options.reference:
        judge(crossing.by_truth(f"true dynamics, CVaR {CAUTION}", mpc.risk.cvar(CAUTION)), 0, options.reference)
        judge(crossing.careful(), 0, options.reference)
    for seed in range(options.seeds):
        learnt = {name: parameters(options, name, seed, tell) for name in options.kinds}
        fresh = crossing.recordings(1000, 1000 + seed)
        for name, params in learnt.items():
            told.append({"limit": name, "seed": seed} | crossing.energies(KINDS[name], params, fresh))
            tell(f"  {told[-1]}")
        for driver in drivers(options, learnt):
            judge(driver, seed, options.episodes)
    return rows


def tables(rows: list[dict[str, Any]], told: list[dict[str, Any]]) -> list[str]:
    """The figures for people, line by line."""
    text = ["# Crossing: futures that are not determined", ""]
    text += [
        "Who drives, judged by the environment. Brackets are 95% bootstrap intervals over episodes of all seeds; seconds "
        "are those of the episodes that arrived.",
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
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in dict.fromkeys(row["driver"] for row in rows):
        some = [row for row in rows if row["driver"] == name and row["seconds"] is not None]
        left.plot([r["seconds"] for r in some], [100 * r["crashed"] for r in some], "o", label=name)
    left.axhline(1.0, color="black", lw=0.8, ls="--")
    left.set(xlabel="seconds until arrival", ylabel="crashed, %", yscale="symlog", ylim=(-0.2, 110))
    left.legend(fontsize=7)
    names = list(dict.fromkeys(row["limit"] for row in told))
    for index, part in enumerate(("inferred", "zero", "drawn", "false")):
        heights = [np.mean([row[part] for row in told if row["limit"] == name]) for name in names]
        right.bar(np.arange(len(names)) + 0.2 * (index - 1.5), heights, 0.18, label=part)
    right.set(xticks=np.arange(len(names)), xticklabels=names, ylabel="squared error", yscale="log")
    right.legend(fontsize=7, title="latent variable")
    return figure
