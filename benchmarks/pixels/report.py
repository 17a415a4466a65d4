"""The report of the pixel benchmark: JSON, CSV and Markdown."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.statistics import bootstrap_interval

COLUMNS = (
    "variant",
    "planner",
    "distance",
    "seed",
    "success",
    "ever",
    "episodes",
    "ms_first",
    "ms_p50",
    "ms_p95",
    "ms_p99",
    "used_where_shorter",
    "training_seconds",
    "updates",
    "alarm",
)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns for every variant, planner and distance the mean success over seeds and episodes with its 95% interval."""
    lines = []
    keys = dict.fromkeys((row["variant"], row["planner"], row["distance"]) for row in rows)
    for variant, planner, distance in keys:
        some = [row for row in rows if (row["variant"], row["planner"], row["distance"]) == (variant, planner, distance)]
        each = np.concatenate([row["each"] for row in some])
        low, high = bootstrap_interval(each)
        line = {
            "variant": variant,
            "planner": planner,
            "distance": distance,
            "seeds": len(some),
            "episodes": len(each),
            "success": float(each.mean()),
            "interval_95": [low, high],
            "worst_seed": min(row["success"] for row in some),
        }
        for name in ("ms_p50", "ms_p95", "ms_p99", "used_where_shorter"):
            values = [row[name] for row in some if name in row]
            if values:
                line[name] = round(float(np.mean(values)), 3)
        lines.append(line)
    return lines


def write(stem: Path, head: dict[str, Any], rows: list[dict[str, Any]], models: list[dict[str, Any]]) -> None:
    """Writes `.json`, `.csv` and `.md`.

    Args:
        stem: Path of the files without suffix.
        head: Provenance.
        rows: One row per variant, seed and planner.
        models: One entry per variant and seed, with probes and training data.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    lines = summary(rows)
    compact = [{name: value for name, value in row.items() if name != "each"} for row in rows]
    bits = {"/".join(map(str, _key(row))): "".join(map(str, row["each"])) for row in rows}
    whole = head | {"summary": lines, "rows": compact, "models": models, "each_episode": bits}
    stem.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    with open(stem.with_suffix(".csv"), "w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    stem.with_suffix(".md").write_text(table(head, lines, models))


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["variant"], row["planner"], row["distance"], row["seed"]


def table(head: dict[str, Any], lines: list[dict[str, Any]], models: list[dict[str, Any]]) -> str:
    """Returns the report as Markdown."""
    text = [
        f"# Image goals: {head['task']}",
        "",
        f"`{head['command']}`, {head['cores']} cores of {head['machine']}, "
        + ", ".join(f"{name} {version}" for name, version in head["packages"].items()),
        "",
        f"Success is evaluated by the environment after {head['budget']} steps. Brackets are 95% bootstrap intervals over "
        "episodes of all seeds. Milliseconds are per plan in a single episode.",
        "",
        "| variant | planner | distance | seeds | episodes | success | worst seed | p50 | p95 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        low, high = line["interval_95"]
        times = " | ".join(f"{line[name]:.1f} ms" if name in line else "" for name in ("ms_p50", "ms_p95", "ms_p99"))
        text.append(
            f"| {line['variant']} | {line['planner']} | {line['distance']} | {line['seeds']} | {line['episodes']} | "
            f"{100 * line['success']:.1f}% "
            f"[{100 * low:.1f}, {100 * high:.1f}] | {100 * line['worst_seed']:.1f}% | {times} |"
        )
    shortcuts = [line for line in lines if "used_where_shorter" in line]
    if shortcuts:
        text += ["", "Teleport used where it is shorter: " + ", ".join(
            f"{line['planner']} {100 * line['used_where_shorter']:.1f}%" for line in shortcuts
        ) + "."]  # fmt: skip
    text += ["", "| variant | seed | training | updates | linear probes (R²) | rank correlation of distances | alarm |"]
    text += ["|---|---|---|---|---|---|---|"]
    for model in models:
        probed = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in model["probes"]["r2"].items())
        true = ", ".join(f"{name} {value:.3f}" for name, value in model["truth"].items())
        text.append(
            f"| {model['variant']} | {model['seed']} | {model['training_seconds'] / 60:.1f} min | {model['updates']} | "
            f"{probed} | {true} | {model['alarm'] or ''} |"
        )
    return "\n".join(text) + "\n"
