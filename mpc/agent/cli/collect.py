"""`craik collect`: recordings to learn from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mpc.agent.cli.options import Common, say
from mpc.agent.memory import collect as collecting
from world_models import data
from world_models.data import DatasetError


@dataclass
class Collect(Common):
    """Record trajectories to learn from: exploring ones in craik/* tasks, smooth random actions elsewhere.

    Example: craik collect craik/TwoRooms-v0 --episodes 2000 --out data/rooms
    """

    env: tyro.conf.Positional[str] = "craik/TwoRooms-v0"
    """Id of a Gymnasium environment."""
    episodes: int = 1000
    """Number of them."""
    length: int | None = None
    """Steps of each; the explorer's, or the environment's, unless told."""
    out: Path | None = None
    """A folder to be, or a file NAME.npz; data/ENV unless told."""


def collect(options: Collect) -> dict[str, Any]:
    """Record a dataset and return the report on it."""
    target = options.out or Path("data") / options.env.replace("/", "-")
    if target.exists():
        raise DatasetError(f"{target} exists already")
    dataset = collecting.collect(options.env, options.episodes, length=options.length, seed=options.seed)
    data.save(target, dataset)
    rows = "states" if dataset.about.notes.get("rows") == "states" else "observations"
    say(options)(f"{options.episodes} episodes of {options.env}, {dataset.transitions:,} steps as {rows}, are in {target}")
    shape = list(dataset.observations.shape[1:])
    report = {"env": options.env, "episodes": len(dataset.lengths), "transitions": dataset.transitions}
    return report | {"rows": rows, "shape": shape, "out": str(target)}
