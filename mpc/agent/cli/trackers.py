"""Trackers of a run, which write the numbers of learning: one interface, and one table of names."""

import csv
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

PROJECT = "craik"
"""Name of the project at Weights & Biases, and of the experiment in MLflow."""
OFFLINE = "offline/"
"""Before the names of metrics whose steps are gradient steps rather than steps of environments."""


@dataclass(frozen=True)
class Opening:
    """The run that a tracker is opened for.

    Args:
        folder: Of the run; it exists.
        config: Settings of the run.
        prefix: Of the names of metrics: `OFFLINE` where the step is `updates`, empty where it is `timesteps`.
        at: `timesteps` and `updates` from which the run goes on.
    """

    folder: Path
    config: Mapping[str, Any]
    prefix: str = ""
    at: Mapping[str, float] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """Name of the count that is the step of the metrics."""
        return "updates" if self.prefix else "timesteps"

    def named(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return values by name with the prefix."""
        return {self.prefix + name: float(value) for name, value in values.items()}


class Tracker(Protocol):
    """Receives the numbers of a run."""

    def log(self, counts: Mapping[str, int], values: Mapping[str, float]) -> None:
        """Write values by name, without the prefix; the counts are `timesteps` and `updates` so far."""
        ...

    def close(self) -> None:
        """Write all that is left to write."""
        ...


def names_of(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, each of which can be opened.

    Raises:
        ValueError: If a tracker is unknown.
        ImportError: If a tracker's library is missing; the message names the extra that has it.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"--log takes {', '.join(TRACKERS)}, separated by commas; got {name!r}")
        if name in EXTRAS:
            _library(name)
    return names


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"--log {name} needs a library ({error}): pip install 'craik[{name}]'") from error


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


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


class CSV:
    """`metrics.csv` in the run's folder: a row for each call, under names without the prefix."""

    def __init__(self, opening: Opening) -> None:
        self._table = Table(opening.folder / "metrics.csv", ("timesteps", "updates", "episode_return"), opening.at)

    def log(self, counts: Mapping[str, int], values: Mapping[str, float]) -> None:
        """Append a row."""
        self._table.write({**counts, **values})

    def close(self) -> None:
        """Do nothing: every row is in the file."""


class TensorBoard:
    """Events in `tensorboard/` of the run's folder; those after `at` are hidden, as a killed run wrote them."""

    def __init__(self, opening: Opening) -> None:
        from tensorboardX import SummaryWriter

        step = int(opening.at.get(opening.step, 0))
        self._board = SummaryWriter(str(opening.folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._opening = opening

    def log(self, counts: Mapping[str, int], values: Mapping[str, float]) -> None:
        """Write one event for each value."""
        for name, value in self._opening.named(values).items():
            self._board.add_scalar(name, value, counts[self._opening.step])

    def close(self) -> None:
        """Write the last events."""
        self._board.close()


class WandB:
    """A run at Weights & Biases, under the name of the run's folder; `wandb.id` there lets `--resume` go on with it.

    Raises:
        ValueError: If the run cannot be opened, as without a key.
    """

    def __init__(self, opening: Opening) -> None:
        wandb, self._opening = _library("wandb"), opening
        known = opening.folder / "wandb.id"
        settings = {"name": opening.folder.name, "dir": str(opening.folder), "config": dict(opening.config)}
        try:
            self._run = wandb.init(project=PROJECT, id=_read(known), resume="allow", **settings)
        except wandb.Error as error:
            raise ValueError(f"--log wandb: {error} (WANDB_MODE=offline needs no account)") from error
        known.write_text(f"{self._run.id}\n")
        self._run.define_metric("*", step_metric="timesteps")
        self._run.define_metric(f"{OFFLINE}*", step_metric="updates")

    def log(self, counts: Mapping[str, int], values: Mapping[str, float]) -> None:
        """Send values together with the counts, which are the axes of the curves."""
        self._run.log({**counts, **self._opening.named(values)})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class MLflow:
    """A run of MLflow, under the name of the run's folder; `mlflow.id` there lets `--resume` go on with it.

    Raises:
        ValueError: If the run cannot be opened, as where no server answers.
    """

    def __init__(self, opening: Opening) -> None:
        self._mlflow, self._opening = _library("mlflow"), opening
        known = opening.folder / "mlflow.id"
        identity = _read(known)
        name = None if identity else opening.folder.name
        try:
            self._mlflow.set_experiment(PROJECT)
            run = self._mlflow.start_run(run_id=identity, run_name=name)
            self._mlflow.log_dict(dict(opening.config), "config.json")
        except self._mlflow.MlflowException as error:
            raise ValueError(f"--log mlflow: {error}") from error
        known.write_text(f"{run.info.run_id}\n")

    def log(self, counts: Mapping[str, int], values: Mapping[str, float]) -> None:
        """Send values at their step."""
        self._mlflow.log_metrics(self._opening.named(values), step=counts[self._opening.step])

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[[Opening], Tracker]] = {
    "csv": CSV,
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}
"""By name, as `--log` takes them."""
EXTRAS = ("wandb", "mlflow")
"""Trackers whose library an extra of the same name brings."""
USUAL = ("csv", "tensorboard")
"""Trackers unless told otherwise."""
