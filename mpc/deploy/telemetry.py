"""Telemetry of a control loop, tick by tick, in memory that does not grow: readable at any time, and written as CSV."""

import csv
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

SOURCES: tuple[str, ...] = ("fresh", "shifted", "actor", "safe")
"""Sources of an action, in the order in which they are tried."""
MARKS = (50, 95, 99, 99.9)

ROW = np.dtype(
    [
        ("time", "f8"),
        ("period", "f4"),
        ("plan_seconds", "f4"),
        ("age", "f4"),
        ("tick_seconds", "f4"),
        ("source", "u1"),
        ("faults", "u2"),
    ]
)


class Health:
    """A record of the last ticks in full, and counts since the beginning.

    Args:
        capacity: Ticks kept in full.
    """

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._rows, self._lock = np.empty(capacity, ROW), threading.Lock()
        self._rows[:] = np.zeros((), ROW)  # every page is touched now, and none for the first time in a tick
        self.ticks, self.sources, self.faults = 0, Counter(dict.fromkeys(SOURCES, 0)), Counter()

    def count(self, fault: str) -> None:
        """Counts a fault."""
        with self._lock:
            self.faults[fault] += 1

    def record(self, source: str, **values: float) -> None:
        """Records a tick.

        Args:
            source: One of `SOURCES`.
            **values: `time`, `period`, `plan_seconds`, `age`, `tick_seconds`, all in seconds, and the number of `faults`.
        """
        with self._lock:
            row = self._rows[self.ticks % len(self._rows)]
            for name, value in values.items():
                row[name] = value
            row["source"] = SOURCES.index(source)
            self.ticks += 1
            self.sources[source] += 1

    def rows(self) -> np.ndarray:
        """Returns a copy of the ticks kept, oldest first."""
        with self._lock:
            size = len(self._rows)
            if self.ticks <= size:
                return self._rows[: self.ticks].copy()
            return np.roll(self._rows, -(self.ticks % size))

    def summary(self) -> dict[str, Any]:
        """Returns counts since the beginning, and percentiles in seconds over the ticks kept."""
        rows = self.rows()
        with self._lock:
            found: dict[str, Any] = {"ticks": self.ticks, "sources": dict(self.sources), "faults": dict(self.faults)}
        for name in ("period", "plan_seconds", "age", "tick_seconds"):
            known = rows[name][np.isfinite(rows[name])]
            if len(known):
                marks = {f"p{mark:g}": float(np.percentile(known, mark)) for mark in MARKS}
                found[name] = {what: round(value, 7) for what, value in (marks | {"max": float(known.max())}).items()}
        return found

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the ticks kept as CSV, one row each, times in seconds.

        Raises:
            OSError: If the file cannot be written.
        """
        with open(Path(path).expanduser(), "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(ROW.names or ())
            for row in self.rows():
                values = dict(zip(ROW.names or (), row.tolist(), strict=True))
                table.writerow((values | {"source": SOURCES[values["source"]]}).values())
