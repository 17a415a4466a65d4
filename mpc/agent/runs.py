"""A run's folder: metrics as CSV and TensorBoard, its configuration, and how to write into it."""

import csv
import json
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


class Run:
    """Writes `config.json`, `metrics.csv` and TensorBoard events while an agent learns.

    Call it as the callback of `Agent.learn`; an existing folder is continued, not overwritten.

    Args:
        folder: Made when missing.
        config: What `config.json` says.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        from tensorboardX import SummaryWriter

        self.folder, self.returns = folder, []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        fresh = not (folder / "metrics.csv").exists()
        self._file = open(folder / "metrics.csv", "a", newline="")  # noqa: SIM115  (closed in __exit__)
        self._csv: csv.DictWriter[str] = csv.DictWriter(self._file, COLUMNS, restval="")
        if fresh:
            self._csv.writeheader()
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._board.close()

    def __call__(self, agent: Agent, progress: Progress) -> None:
        """Write down what a step brought."""
        rows: list[dict[str, float]] = [{"episode_return": r} for r in progress.episode_returns]
        self.returns += progress.episode_returns
        if progress.metrics:
            rows.append(progress.metrics | {"effective_rank": agent.effective_rank()})
        for row in rows:
            self._csv.writerow({"timesteps": progress.timesteps} | {k: v for k, v in row.items() if k in COLUMNS})
            for name, value in row.items():
                self._board.add_scalar(name, value, progress.timesteps)
        if rows:
            self._file.flush()
