"""The arrays of a checkpoint, which Orbax reads and writes; it is slow to import, and rejects empty arrays."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np


@contextmanager
def _orbax() -> Iterator[Any]:
    """Context manager that yields an Orbax checkpointer with its logging silenced."""
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # errors are raised as well
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            yield checkpointer
    finally:
        logger.setLevel(level)


def write_arrays(folder: Path, arrays: Sequence[np.ndarray]) -> None:
    """Writes arrays into a new folder; none is made where all are empty.

    Raises:
        OSError: If they cannot be written.
    """
    contents = {str(index): array for index, array in enumerate(arrays) if array.size}
    if not contents:
        return
    try:
        with _orbax() as checkpointer:
            checkpointer.save(folder, contents)
    except ValueError as error:  # TensorStore wraps file-system errors in ValueError
        raise OSError(f"the arrays could not be written to {folder.parent}: {error}") from error


def read_arrays(folder: Path, described: Sequence[Sequence[Any]]) -> list[np.ndarray]:
    """Returns the arrays in a folder.

    Args:
        folder: As `write_arrays` made it.
        described: Shape and dtype of each, which are compared with the files before memory is taken.

    Raises:
        Exception: Of Orbax or TensorStore, or ValueError if an array is another than described.
    """
    stored = [(tuple(shape), jnp.dtype(dtype)) for shape, dtype in described]
    filled = {str(index): kept for index, kept in enumerate(stored) if math.prod(kept[0])}
    contents: dict[str, Any] = {}
    if filled:
        with _orbax() as checkpointer:
            _check_sizes(checkpointer.metadata(folder), filled)
            contents = checkpointer.restore(folder)
    return [np.asarray(contents[str(i)]) if str(i) in filled else np.zeros(*kept) for i, kept in enumerate(stored)]


def _check_sizes(metadata: Any, wanted: dict[str, tuple[tuple[int, ...], Any]]) -> None:
    """Compares what the arrays' files say of themselves with the header, before memory is taken for them.

    Raises:
        ValueError: If an array, or a chunk of one, is larger than the header says, or another.
    """
    found = getattr(metadata, "item_metadata", metadata)
    found = getattr(found, "tree", found)
    if set(found) != set(wanted):
        raise ValueError("they are others than metadata.json lists")
    for name, (shape, dtype) in wanted.items():
        array, chunk = found[name], getattr(found[name].storage, "chunk_shape", None)
        larger = chunk is not None and math.prod(chunk) > math.prod(shape)
        if tuple(array.shape) != shape or jnp.dtype(array.dtype) != dtype or larger:
            raise ValueError(f"array {name} is {array.dtype}{list(array.shape)}, and metadata.json has {dtype}{list(shape)}")
