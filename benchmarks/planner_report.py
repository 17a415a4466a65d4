"""Report of `benchmarks.planners`: tables as JSON, CSV and Markdown, and a figure of cost over time."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.formulas import FEASIBLE, optimum
from mpc.agent.viz.figures import legend_beside

COLOURS = colormaps["tab20"].colors  # type: ignore[attr-defined]  # one for each of up to twenty planners
CLOSE = 1e-4  # relative cost excess that counts as success
NEAR = 1e-3  # one that most uses do not tell from the optimum
ACROSS = 5  # panels of the figure side by side
COLUMNS = (
    ("planner", "planner", "{}"),
    ("compile s", "compile_s", "{:.2f}"),
    ("cold ms", "cold_cpu_ms", "{:.3g}"),
    ("÷ fatrop", "cold_ratio", "{:.3g}"),
    ("warm ms", "warm_cpu_ms", "{:.3g}"),
    ("÷ fatrop", "warm_ratio", "{:.3g}"),
    ("best cost", "cost_best", "{:.5g}"),
    ("median cost", "cost_median", "{:.5g}"),
    ("worst violation", "violation_max", "{:.0e}"),
    ("success", "success", "{:.0%}"),
    ("within 1e-3", "near", "{:.0%}"),
    ("local optimum or lower", "success_trap", "{:.0%}"),
    ("warm success", "warm_success", "{:.0%}"),
    ("seeds", "seeds", "{}"),
    ("statuses", "statuses", "{}"),
)


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Returns the results as Markdown tables, one per problem."""
    baseline = header.get("baseline", "fatrop")
    rows = [row if "skipped" in row else row | {"near": near(row)} for row in rows]
    columns = [column for column in COLUMNS if any(known(row.get(column[1])) for row in rows)]
    titles = [title.replace("fatrop", baseline) for title, _, _ in columns]
    lines = [
        "# Planners on problems with known optima",
        "",
        f"`{header['command']}`, {header['processor']}, one core. Times are CPU milliseconds without compilation, medians "
        f"over the seeds. ÷ {baseline}: median ratio to {baseline} on the same seed, solved right before. Success: cost at "
        f"most {CLOSE:g} (relative) above the best known cost and violation at most {FEASIBLE:g}, for the actions rolled "
        f"out in float64; within {NEAR:g}: the same with that excess.",
    ]
    for name in dict.fromkeys(row["problem"] for row in rows):
        present = [row for row in rows if row["problem"] == name]
        lines += ["", f"## {name}: best known {optimum(name).cost:.6g}", ""]
        lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(columns)]
        for row in present:
            if "skipped" in row:
                lines.append(f"| {row['planner']} | {row['skipped']} |" + " |" * (len(columns) - 2))
            else:
                cells = [form.format(row[key]) if known(row.get(key)) else "" for _, key, form in columns]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def reached(costs: np.ndarray, target: float, excess: float = CLOSE) -> np.ndarray:
    """Returns which costs are at most so much, relative to it, above a target."""
    return costs <= target + excess * abs(target)


def near(row: dict[str, Any]) -> float:
    """Returns the share of seeds that end within `NEAR` of the best known cost and keep every limit."""
    close = reached(np.asarray(row["costs"]), optimum(row["problem"]).cost, NEAR)
    return float(np.mean(close & (np.asarray(row["violations"]) <= FEASIBLE)))


def known(value: Any) -> bool:
    """Tells whether there is a value: neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draws cost over CPU time: planners as curves (seed 0), median cold solves as points."""
    names = list(dict.fromkeys(row["problem"] for row in rows))
    across, down = min(len(names), ACROSS), -(-len(names) // ACROSS)
    figure = Figure(figsize=(4.4 * across + 1.6, 4.2 * down), layout="constrained")
    axes = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axis in axes[len(names) :]:
        axis.remove()
    contestants = list(dict.fromkeys(row["planner"] for row in rows))
    for axis, name in zip(axes[: len(names)], names, strict=True):
        best = optimum(name).cost

        def excess(cost: Any, violation: Any, best: float = best) -> np.ndarray:
            gap = (np.asarray(cost) - best) / abs(best)
            return np.maximum(np.maximum(gap, np.asarray(violation)), 1e-8)

        for row in (row for row in rows if row["problem"] == name and "skipped" not in row):
            colour = COLOURS[contestants.index(row["planner"]) % len(COLOURS)]
            curve = row["curve"]
            if curve:
                gaps = excess([p["cost"] for p in curve], [p["violation"] for p in curve])
                axis.plot([p["cpu_ms"] for p in curve], gaps, color=colour, alpha=0.6)
            middle = np.median(excess(row["costs"], row["violations"]))
            axis.plot(row["cold_cpu_ms"], middle, "o" if curve else "s", color=colour, label=row["planner"])
        axis.axhline(CLOSE, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="CPU ms, one core", title=name)
    figure.supylabel("(cost - best known) / best known, or violation where larger")
    legend_beside(axes[across - 1])
    figure.savefig(path, dpi=110)


def write(out: Path, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes `planners.json`, `.csv`, `.md` and `.png`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "planners.json").write_text(json.dumps(header | {"rows": rows}, indent=1) + "\n")
    with open(out / "planners.csv", "w", newline="") as file:
        lists = ("costs", "violations", "curve")
        names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in lists]
        writer = csv.DictWriter(file, names, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    (out / "planners.md").write_text(markdown(header, rows))
    draw(out / "planners.png", rows)
