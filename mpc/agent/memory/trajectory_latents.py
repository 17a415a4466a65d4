"""Latents of whole recorded trajectories."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from world_models.data import Dataset, DatasetError, encoded


class Sequences(NamedTuple):
    """Trajectories as the model sees them: `latents` `[rows, D]`, and the dataset's `row` `[rows]` that each is of; `first`
    `[sequences]`, where each sequence begins, `lengths` `[sequences]`, its steps, and `of` `[sequences]`, its trajectory."""

    latents: np.ndarray
    row: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    of: np.ndarray

    def starts(self, steps: int) -> np.ndarray:
        """Rows that so many more of the same sequence follow."""
        spans = zip(self.first, np.maximum(self.lengths - steps + 1, 0), strict=True)
        return np.concatenate([np.arange(first, first + count) for first, count in spans])

    def dense(self) -> "Sequences":
        """The same rows as the dataset has them, each trajectory one sequence."""
        order, rows = np.argsort(self.row), np.bincount(self.of, self.lengths + 1).astype(int)
        chosen = np.flatnonzero(rows)
        ends = np.cumsum(rows[chosen])
        return Sequences(self.latents[order], self.row[order], ends - rows[chosen], rows[chosen] - 1, chosen)


def with_actions(starts: np.ndarray, taken: np.ndarray, steps: int) -> np.ndarray:
    """Those of the rows to start at from which every block of the next steps was told.

    Args:
        starts: Rows that so many more follow.
        taken: Blocks of actions `[rows, block * A]`, NaN where nobody told.
        steps: Blocks.
    """
    silent = np.append(0, np.cumsum(~np.isfinite(taken).all(axis=1)))
    return starts[silent[starts + steps] == silent[starts]]


def embed(
    dataset: Dataset, block: int, sequences: int, encode: Callable[[np.ndarray], jax.Array], whole: bool = False
) -> Sequences:
    """Latents of whole trajectories, a step of the model apart.

    A trajectory holds up to `block` sequences, one for each row to begin at.

    Args:
        dataset: What is embedded.
        block: Transitions in a step of the model.
        sequences: At most; spread evenly over the dataset.
        encode: `rows [N, ...] -> latents [N, D]`.
        whole: Whether a trajectory is embedded in all of its rows or not at all, so that fewer are.

    Raises:
        DatasetError: If none is long enough to be embedded whole.
    """
    offsets = np.arange(block)
    first = (dataset.first[:, None] + offsets).ravel()
    lengths = ((dataset.lengths[:, None] - offsets) // block).ravel()
    long = np.flatnonzero(np.repeat(dataset.lengths >= 2 * block - 1, block) if whole else lengths > 0)
    if whole and not len(long):
        raise DatasetError(f"no trajectory has at least {2 * block - 1} steps, to be embedded in all of its rows")
    together = block if whole else 1
    groups = long.reshape(-1, together)
    chosen = groups[np.linspace(0, len(groups) - 1, min(-(-sequences // together), len(groups))).astype(int)].ravel()
    steps = lengths[chosen]
    every = np.concatenate([start + block * np.arange(n + 1) for start, n in zip(first[chosen], steps, strict=True)])
    return Sequences(encoded(dataset, every, encode), every, np.cumsum(steps + 1) - (steps + 1), steps, chosen // block)


def blocks(dataset: Dataset, seen: Sequences, block: int) -> np.ndarray:
    """The block of actions `[rows, block * A]` that follows each row of sequences; NaN where nobody told.

    Args:
        dataset: That the sequences are of.
        seen: As `embed` gives them.
        block: Actions in a step of the model.
    """
    if dataset.actions is None:
        return np.zeros((len(seen.row), 0), np.float32)
    rows = np.minimum(seen.row[:, None] + np.arange(block), len(dataset.actions) - 1)
    return np.asarray(dataset.actions, np.float32)[rows].reshape(len(rows), -1)
