"""Writing that is whole or absent, and reading that notices what has changed since: shared by checkpoints and datasets."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Lend a temporary folder beside the one to be; if all goes well it is flushed to the disk and gets its name.

    Args:
        folder: Must not exist yet.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for place in (*files(temporary), *folders(temporary)):
            flush(place)
        temporary.rename(folder)
        flush(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def files(folder: Path) -> Iterator[Path]:
    """Every file in a folder, at any depth."""
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def folders(folder: Path) -> list[Path]:
    """A folder and every folder in it."""
    return [folder, *(child for child in folder.rglob("*") if child.is_dir())]


def flush(place: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def changed(folder: Path, wanted: dict[str, dict[str, Any]], *, contents: bool = True) -> str | None:
    """What is not as it was written, or None.

    Args:
        folder: Where the files are.
        wanted: Their fingerprints by name.
        contents: Whether to read the files, and not only look at their sizes.
    """
    for name, print_ in wanted.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != print_["size"]:
            return f"{name} has {file.stat().st_size} bytes, {print_['size']} were written"
        if contents and fingerprint(file) != print_:
            return f"the contents of {name} have changed since they were written"
    return None


def sealed(document: dict[str, Any]) -> str:
    """A document as text, with the digest of the rest inside.

    Raises:
        TypeError, ValueError: If it is not what JSON can hold.
    """
    return as_json({**document, "sha256": hashlib.sha256(as_json(document).encode()).hexdigest()})


def as_json(document: dict[str, Any]) -> str:
    """A document as text, the same for the same document."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
