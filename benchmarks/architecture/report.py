"""Writing of a result table as JSON, CSV, Markdown and image."""

import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.provenance import invoked, provenance

PACKAGES = ("craik", "jax", "flax", "optax", "numpy")


def write(stem: Path, text: list[str], figures: dict[str, list[dict[str, Any]]], picture: Figure) -> None:
    """Writes `.json`, `.csv`, `.md` and `.png`.

    Args:
        stem: Path of the files without suffix.
        text: Lines of the Markdown file, the heading first.
        figures: Lists of rows; the first non-empty one becomes the `.csv`, without columns that are lists.
        picture: Image to save.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    head = provenance(invoked("benchmarks.architecture"), PACKAGES)
    stem.with_suffix(".json").write_text(json.dumps(head | figures, indent=1) + "\n")
    rows = next(rows for rows in figures.values() if rows)
    columns = [name for name in rows[0] if not isinstance(rows[0][name], list)]
    with open(stem.with_suffix(".csv"), "w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    versions = ", ".join(f"{name} {version}" for name, version in head["packages"].items())
    made = f"`{head['command']}`, {head['cores']} cores of {head['machine']}, {versions}"
    stem.with_suffix(".md").write_text("\n".join([text[0], "", made, *text[1:]]) + "\n")
    picture.savefig(stem.with_suffix(".png"), dpi=110)
