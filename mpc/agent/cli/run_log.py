"""A run's folder: metrics as CSV and TensorBoard, its configuration, and how to write into it."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mpc.agent.agent import Agent, Progress

NEWEST = 512
"""Observations whose latents tell the effective rank."""


class Table:
    """A CSV file that grows by rows, and by columns where a row has new ones; an existing file is continued.

    Args:
        path: Of the file.
        columns: The first ones.
        at: Greatest values by column; later rows of an existing file were written by a run that was killed after its last
            checkpoint, and are dropped, as is a row that it did not finish.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], at: Mapping[str, float] | None = None) -> None:
        self.path, self.columns = path, columns
        kept: list[dict[str, Any]] = []
        if path.exists() and path.stat().st_size > 0:
            with open(path, newline="") as file:
                whole = [line for line in file if line.endswith("\n")]
            table = csv.DictReader(whole)
            self.columns = tuple(table.fieldnames or columns)
            kept = [row for row in table if not any(_after(row.get(name), most) for name, most in (at or {}).items())]
        self._rewrite(kept)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, values by column."""
        new = tuple(name for name in row if name not in self.columns)
        if new:
            with open(self.path, newline="") as file:
                rows = list(csv.DictReader(file))
            self.columns += new
            self._rewrite(rows)
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        beside = self.path.with_suffix(".tmp")
        with open(beside, "w", newline="") as file:
            table = csv.DictWriter(file, self.columns, restval="")
            table.writeheader()
            table.writerows(rows)
        os.replace(beside, self.path)


def _after(value: str | None, most: float) -> bool:
    try:
        return float(value or "nan") > most
    except ValueError:
        return True


class RunLog:
    """Writes what an `Agent` learns: `config.json`, `metrics.csv` and TensorBoard events; an existing folder is continued.

    It is the callback of `Agent.learn` and of `Agent.learn_from`.

    Args:
        folder: Made when missing.
        config: Content of `config.json`.
        prefix: Of the names in TensorBoard, which tells steps of environments from gradient steps.
        at: `timesteps` and `updates` from which the agent goes on.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], prefix: str = "", at: Mapping[str, float] | None = None
    ) -> None:
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        self._table = Table(folder / "metrics.csv", ("timesteps", "updates", "episode_return"), at)
        step = int((at or {}).get("updates" if prefix else "timesteps", 0))
        self._board, self._prefix = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None), prefix
        self.returns: list[float] = []
        self.metrics: dict[str, float] = {}
        """The newest of each."""

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: Any) -> None:
        self._board.close()

    def __call__(self, agent: Agent, progress: Progress) -> None:
        """Write the outcome of a step."""
        at = {"timesteps": agent.num_timesteps, "updates": agent.learner.updates}
        self.returns += progress.episode_returns
        rows: list[dict[str, float]] = [{"episode_return": value} for value in progress.episode_returns]
        if progress.metrics:
            rank = {} if "effective_rank" in progress.metrics else {"effective_rank": effective_rank(agent)}
            rows.append(progress.metrics | rank)
            self.metrics |= progress.metrics
        for row in rows:
            self._table.write(at | row)
            for name, value in row.items():
                self._board.add_scalar(self._prefix + name, value, progress.timesteps)


def effective_rank(agent: Agent) -> float:
    """Return how many dimensions the latents of the newest observations use; 1 is a collapse."""
    buffer = agent.buffer
    filled = max(int(buffer.filled[0]), 1)
    rows = (int(buffer.head[0]) - 1 - np.arange(NEWEST) % filled) % buffer.follows.shape[1]
    return float(agent.components.rank(agent.learner.training.params, buffer.observations[0, rows]))
