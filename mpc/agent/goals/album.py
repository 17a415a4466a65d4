"""Recorded rows that are kept, or embedded all at once, whatever they store."""

from collections.abc import Callable

import jax
import numpy as np

from world_models.datasets import Dataset

PICTURES, BYTES = 512, 2**24
"""What an album holds at most."""
_ROWS = 512  # embedded at a time


def choose(dataset: Dataset) -> np.ndarray:
    """Rows spread evenly over a dataset, as it stores them."""
    rows = dataset.observations
    count = max(min(PICTURES, len(rows), BYTES // max(rows[0].nbytes, 1)), 1)
    return np.asarray(rows[np.linspace(0, len(rows) - 1, count).astype(int)])


def nearest(known: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Indices `[N]` of the known latents `[K, D]` that latents `[N, D]` are nearest to."""
    return ((latents[:, None] - known[None]) ** 2).sum(axis=-1).argmin(axis=1)


def embed(
    dataset: Dataset, block: int, episodes: int, encode: Callable[[np.ndarray], jax.Array]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents of whole trajectories, a step of the model apart.

    A trajectory gives up to `block` sequences, one for each place to begin at.

    Args:
        dataset: What is embedded.
        block: Transitions in a step of the model.
        episodes: At most; spread evenly over the dataset.
        encode: `rows [N, ...] -> latents [N, D]`.

    Returns:
        Latents `[rows, D]`; `first` `[sequences]`, the first row of each sequence; and `lengths` `[sequences]`, its steps.
    """
    order, lengths = [], []
    count = min(episodes, len(dataset.lengths))
    chosen = np.linspace(0, len(dataset.lengths) - 1, count).astype(int)
    for start, length in zip(dataset.first[chosen], dataset.lengths[chosen], strict=True):
        for offset in range(min(block, int(length))):
            rows = np.arange(start + offset, start + length + 1, block)
            if len(rows) > 1:
                order.append(rows)
                lengths.append(len(rows) - 1)
    every = np.concatenate(order)
    padded = np.pad(every, (0, -len(every) % _ROWS), mode="edge")  # one program serves all
    chunks = (np.asarray(encode(dataset.observations[rows])) for rows in padded.reshape(-1, _ROWS))
    steps = np.array(lengths)
    return np.concatenate(list(chunks))[: len(every)], np.cumsum(steps + 1) - (steps + 1), steps
