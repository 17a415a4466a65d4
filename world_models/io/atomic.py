"""Atomic writing of folders and verification of files, shared by checkpoints and datasets."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Context manager that yields a temporary folder; on success it is flushed to disk and renamed to `folder`.

    Args:
        folder: Target; it must not exist.
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


@contextmanager
def locked(place: Path, *, wait: bool = True) -> Iterator[bool]:
    """Context manager that holds a lock that the system gives back when the process ends, however it ends.

    Args:
        place: A folder, or the file of the lock, which is made if missing, and left.
        wait: Whether to wait for whoever has it.

    Yields:
        Whether it is held; systems and disks without locks always say so.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError:  # a disk elsewhere, without locks
            pass
        yield held
    finally:
        os.close(descriptor)


def files(folder: Path) -> Iterator[Path]:
    """Returns every file in a folder, at any depth."""
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def folders(folder: Path) -> list[Path]:
    """Returns a folder and every folder in it."""
    return [folder, *(child for child in folder.rglob("*") if child.is_dir())]


def flush(place: Path) -> None:
    """Waits until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(file: Path) -> dict[str, Any]:
    """Returns size and SHA-256 of a file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def changed(folder: Path, wanted: dict[str, dict[str, Any]], *, contents: bool = True) -> str | None:
    """Returns a description of the first file that differs from its fingerprint, or None.

    Args:
        folder: Folder of the files.
        wanted: Fingerprints by file name.
        contents: If True, checksums are compared; otherwise only sizes.
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
    """Returns a document as JSON text that includes the digest of the rest of the document.

    Raises:
        TypeError, ValueError: If JSON cannot represent it.
    """
    return as_json({**document, "sha256": hashlib.sha256(as_json(document).encode()).hexdigest()})


def as_json(document: dict[str, Any]) -> str:
    """Returns a document as JSON text; equal documents give equal text."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
