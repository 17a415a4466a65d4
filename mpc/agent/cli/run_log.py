"""A run's folder: metrics as CSV and TensorBoard, its configuration, and how to write into it."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpc.agent.agent import Agent, Progress

COLUMNS: tuple[str, ...] = (
    "timesteps",
    "episode_return",
    "latent",
    "reward",
    "termination",
    "variance",
    "covariance",
    "effective_rank",
)


class Log:
    """Writes `config.json`, `metrics.csv` and TensorBoard events; an existing folder is continued, not overwritten.

    Args:
        folder: Made when missing.
        config: What `config.json` says.
        columns: Of `metrics.csv`, the first one counting; if None, those of the file that is continued, or of the first row.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], columns: tuple[str, ...] | None = None):
        from tensorboardX import SummaryWriter

        self.folder, self.columns = folder, columns
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        path = folder / "metrics.csv"
        continued = path.exists() and path.stat().st_size > 0
        if continued and columns is None:
            with open(path, newline="") as file:
                self.columns = tuple(next(csv.reader(file)))
        self._fresh = not continued
        self._file = open(path, "a", newline="")  # noqa: SIM115  (closed in __exit__)
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._board.close()

    def write(self, at: int, row: Mapping[str, float]) -> None:
        """Write a row of metrics down.

        Args:
            at: What the first column counts.
            row: Metrics by name; TensorBoard gets all of them, the CSV file those that it has columns for.
        """
        if self.columns is None:
            self.columns = ("updates", *row)
        table: csv.DictWriter[str] = csv.DictWriter(self._file, self.columns, restval="", extrasaction="ignore")
        if self._fresh:
            table.writeheader()
            self._fresh = False
        table.writerow({self.columns[0]: at} | dict(row))
        for name, value in row.items():
            self._board.add_scalar(name, value, at)
        self._file.flush()


class Run(Log):
    """Writes down what an `Agent` learns: call it as the callback of `Agent.learn`.

    Args:
        folder: Made when missing.
        config: What `config.json` says.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        super().__init__(folder, config, COLUMNS)
        self.returns: list[float] = []

    def __call__(self, agent: Agent, progress: Progress) -> None:
        """Write down what a step brought."""
        self.returns += progress.episode_returns
        for reward in progress.episode_returns:
            self.write(progress.timesteps, {"episode_return": reward})
        if progress.metrics:
            self.write(progress.timesteps, progress.metrics | {"effective_rank": agent.effective_rank()})
