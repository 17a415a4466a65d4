"""Fuzzing of checkpoints: damaged ones with checksums repaired must load, or raise `CheckpointError`, and nothing else.

`python -m benchmarks.fuzzing_checkpoints` damages the header or the files of a small checkpoint, seals it as a forger would,
and reads it in a separate process. It writes `benchmarks/results/fuzzing_checkpoints.json`, and exits with 1 if a process
died, hung, raised another error or took too much memory.
"""

import io
import json
import random
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.fuzzing_artefacts import Target, change, flipped, run
from world_models.io import atomic, checkpoint

KINDS, WEIGHTS = ("header", "files"), (60, 40)


@dataclass
class Options:
    """Options of the benchmark."""

    cases: int = 100_000
    """Number of damaged checkpoints."""
    seed: int = 0
    """Seed of the damage."""
    seconds: float = float("inf")
    """Time after which no further case is begun."""
    out: Path = Path(__file__).parent / "results" / "fuzzing_checkpoints.json"
    """File of the results."""


def tree() -> dict[str, Any]:
    """Returns a tree with a leaf of every kind."""
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.ones(3, jnp.bfloat16), "none": np.zeros((0, 2))}
    return {"arrays": arrays, "count": 3, "list": [np.arange(3), jnp.ones(2)], "key": jax.random.key(0)}


def small() -> bytes:
    """Returns a checkpoint as an archive of its files."""
    folder = Path(tempfile.mkdtemp())
    try:
        written = checkpoint.save(folder, tree(), {"name": "small", "numbers": [1, 2.0]}, step=1)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(written, written.name)
        return buffer.getvalue()
    finally:
        shutil.rmtree(folder)


def damaged(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Returns the kind of damage, and a damaged checkpoint whose checksums are right.

    Args:
        rng: Random number generator.
        data: A checkpoint as `small` returns it.
    """
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {info.name: archive.extractfile(info) for info in archive.getmembers() if info.isfile()}
        contents = {name: stream.read() for name, stream in found.items() if stream is not None}
    (sealed,) = (name for name in contents if name.endswith("metadata.json"))
    header = json.loads(contents.pop(sealed))
    kind = rng.choices(KINDS, WEIGHTS)[0]
    if kind == "files":
        name = rng.choice([name for name in contents if contents[name]])
        contents[name] = flipped(rng, contents[name])
        header["files"] = {name.split("/", 1)[1]: _print(content) for name, content in contents.items()}
    else:
        change(rng, header)
    header.pop("sha256", None)
    try:
        contents[sealed] = atomic.sealed(header).encode()
    except (ValueError, TypeError):  # numbers that JSON does not have
        contents[sealed] = json.dumps(header).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return kind, buffer.getvalue()


def _print(content: bytes) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return atomic.fingerprint(Path(file.name))


def use(data: bytes) -> None:
    """Reads a checkpoint, with its tree and without."""
    folder = Path(tempfile.mkdtemp())
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
        checkpoint.load(folder)
        checkpoint.load(folder, tree())
    finally:
        shutil.rmtree(folder)


CHECKPOINTS = Target(damaged, use, checkpoint.CheckpointError)


def main() -> None:
    """Runs the benchmark and writes results."""
    run("benchmarks.fuzzing_checkpoints", CHECKPOINTS, small, tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    main()
