"""Report of the throughput benchmark: JSON, CSV, Markdown and an image."""

import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mpc.agent.viz.figures import legend_beside


def flatten(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns one result as rows of a table: part, what, value."""
    rows: list[dict[str, Any]] = []

    def add(part: str, what: str, unit: str, value: float) -> None:
        where = {"device": result["device"], "cores": result["cores"]}
        rows.append(where | {"part": part, "what": what, "unit": unit, "value": value})

    if found := result.get("models"):
        add("models", f"GEMM peak ({found['peak_is']})", "GFLOP/s", found["peak_gflop_per_s"])
        for row in found["rows"]:
            label = f"{row['model']} {row['kind']}, {row['who']}"
            add("models", label, "ms", row["ms"])
            add("models", label, "share of the peak", row["share"])
    for row in result.get("scaling", ()):
        add("scaling", f"B gradient, {row['starts']} starts x {row['horizon']} steps", "ms", row["ms"])
    for name, row in result.get("batch", {}).items():
        if isinstance(row, dict):
            add("batch", f"{name}, vmapped against calls", "ratio", row["throughput_ratio"])
    for row in result.get("long", ()):
        label = f"latent 512, 64 starts, {row['horizon']} steps{', remat' if row['remat'] else ''}"
        add("long", label, "ms", row["ms"])
        add("long", label, "GiB reserved", row["reserved_gib"])
        add("long", label, "GiB peak of the process", row["process_peak_gib"])
    for row in result.get("depth", ()):
        add("depth", f"{row['planner']}, {row['horizon']} steps", "operations in a chain", row["chain"])
        add("depth", f"{row['planner']}, {row['horizon']} steps", "the same, by the shortest way", row["shortest"])
    return rows


def draw(path: Path, results: list[dict[str, Any]], steps: int, starts: int) -> None:
    """Draws time against starts and horizon, and chains against the horizon.

    Args:
        path: Path of the image.
        results: Results of every number of cores.
        steps: Horizon of the curve against starts.
        starts: Number of starts of the curve against the horizon.
    """
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for result in results:
        label = f"{result['cores']} cores" if result["cores"] else result["device"]
        rows = result.get("scaling", [])
        for axis, key, fixed in ((left, "starts", "horizon"), (middle, "horizon", "starts")):
            points = [(r[key], r["ms"]) for r in rows if r[fixed] == {"horizon": steps, "starts": starts}[fixed]]
            if points:
                axis.plot(*zip(*sorted(points), strict=True), "o-", label=label)
        chains = result.get("depth", [])
        for name in dict.fromkeys(r["planner"] for r in chains):
            points = [(r["horizon"], r["chain"]) for r in chains if r["planner"] == name]
            (line,) = right.plot(*zip(*points, strict=True), "o-", label=name)
            points = [(r["horizon"], r["shortest"]) for r in chains if r["planner"] == name]
            right.plot(*zip(*points, strict=True), "--", color=line.get_color())
    for axis, x, y in ((left, "starts", "ms"), (middle, "horizon", "ms"), (right, "horizon", "longest chain of operations")):
        axis.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        if axis.lines:
            legend_beside(axis)
    left.set_title(f"a gradient step through B, {steps} steps")
    middle.set_title(f"the same, {starts} starts")
    figure.savefig(path, dpi=110)


def write(out: Path, header: dict[str, Any], results: list[dict[str, Any]], steps: int, starts: int) -> None:
    """Writes `throughput.json`, `.csv`, `.md` and `.png`; arguments as for `draw`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "throughput.json").write_text(json.dumps(header | {"results": results}, indent=1) + "\n")
    rows = [row for result in results for row in flatten(result)]
    with open(out / "throughput.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["device", "cores", "part", "what", "unit", "value"])
        writer.writeheader()
        writer.writerows(rows)
    columns = [f"{r['cores']} cores" if r["cores"] else r["device"] for r in results]
    lines = ["# Planning throughput", "", f"`{header['command']}`, {header['processor']}.", ""]
    lines += ["| part | what | unit | " + " | ".join(columns) + " |", "|" + "---|" * (3 + len(columns))]
    values = {(r["part"], r["what"].split(" (")[0], r["unit"], r["cores"]): r["value"] for r in rows}
    for part, what, unit in dict.fromkeys(key[:3] for key in values):
        cells = [values.get((part, what, unit, r["cores"])) for r in results]
        text = ["" if v is None else f"{v:.0%}" if unit.startswith("share") else f"{v:.4g}" for v in cells]
        lines.append(f"| {part} | {what} | {unit} | " + " | ".join(text) + " |")
    (out / "throughput.md").write_text("\n".join(lines) + "\n")
    draw(out / "throughput.png", results, steps, starts)
