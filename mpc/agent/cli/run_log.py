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
    """

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self.path, self.columns = path, columns
        if path.exists() and path.stat().st_size > 0:
            with open(path, newline="") as file:
                self.columns = tuple(next(csv.reader(file)))
        else:
            self._rewrite([])

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


class RunLog:
    """Writes what an `Agent` learns: `config.json`, `metrics.csv` and TensorBoard events; an existing folder is continued.

    It is the callback of `Agent.learn` and of `Agent.learn_from`.

    Args:
        folder: Made when missing.
        config: Content of `config.json`.
        prefix: Of the names in TensorBoard, which tells steps of environments from gradient steps.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], prefix: str = ""):
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        self._table = Table(folder / "metrics.csv", ("timesteps", "updates", "episode_return"))
        self._board, self._prefix = SummaryWriter(str(folder / "tensorboard")), prefix
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
