"""Dataset files of this library: written atomically, and verified when they are read."""

import json
import os
import shutil
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from mpc.deploy.untrusted import read_array, refusing, require_stored
from world_models.data.dataset import About, Dataset, DatasetError
from world_models.io.atomic import changed, fingerprint, flush, sealed, whole

FORMAT = "craik trajectories"
FORMAT_VERSION = 1

METADATA_OFFSET = 128
"""Bytes of the header of a short NumPy file in front of its numbers."""
_ARRAYS = ("observations", "actions", "rewards", "terminated", "lengths")


def save(path: str | os.PathLike[str], dataset: Dataset) -> Path:
    """Writes a dataset atomically.

    Args:
        path: File name that ends in `.npz`, or name of a new folder.
        dataset: Dataset to write.

    Raises:
        DatasetError: If the path exists, or JSON cannot represent `about`.
        OSError: If the disk is full or not writable.
    """
    target = Path(path).expanduser().absolute()
    if target.exists():
        raise DatasetError(f"{target} exists already")
    arrays = {name: getattr(dataset, name) for name in _ARRAYS if getattr(dataset, name) is not None}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "about": asdict(dataset.about),
        "arrays": {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()},
    }
    _seal(header)  # raises before anything is written
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".npz":
        _save_file(target, header, arrays)
        return target
    shutil.rmtree(target.with_name(f".{target.name}.tmp"), ignore_errors=True)  # left by a killed writer
    with whole(target) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        prints = {file.name: fingerprint(file) for file in folder.iterdir()}
        (folder / "metadata.json").write_text(_seal({**header, "files": prints}), encoding="utf-8")
    return target


def _save_file(target: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            contents: dict[str, Any] = {"metadata": np.frombuffer(_seal(header).encode(), np.uint8), **arrays}
            np.savez(stream, **contents)
        flush(temporary)
        temporary.rename(target)
        flush(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _seal(header: dict[str, Any]) -> str:
    try:
        return sealed(header)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"the description of a dataset must be representable in JSON: {error}") from error


def load(path: str | os.PathLike[str], *, environment: str | None = None, verify: bool = True) -> Dataset:
    """Reads a dataset; the arrays of a folder are memory-mapped.

    Args:
        path: Path given to `save`.
        environment: Required id of the environment; None accepts any.
        verify: If True, the checksum of every file in a folder is verified; file sizes are always verified.

    Raises:
        DatasetError: If there is no dataset, or it is damaged, in another format or from another environment.
    """
    source = Path(path).expanduser().absolute()
    if not source.exists():
        raise DatasetError(f"there is no dataset at {source}: nothing exists there")
    with refusing(DatasetError, f"the dataset {source} is damaged, or not one"):
        header, arrays = _load_folder(source, verify) if source.is_dir() else _load_file(source)
        contents = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
        if contents != header["arrays"]:
            raise DatasetError(f"the dataset {source} is damaged: it holds {contents}, and {header['arrays']} was written")
        names = {f.name for f in fields(About)}
        about = About(**{name: value for name, value in header["about"].items() if name in names})
        loaded: dict[str, Any] = {name: arrays.get(name) for name in _ARRAYS}
        try:
            dataset = Dataset(about=about, **loaded)
        except DatasetError as error:
            raise DatasetError(f"the dataset {source} is damaged: {error}") from error
    return dataset.require(environment=environment)


def _load_folder(folder: Path, verify: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        text = (folder / "metadata.json").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder} is not a dataset: its metadata.json cannot be read ({error})") from error
    header = _header(folder, text)
    reason = changed(folder, header["files"], contents=verify)
    if reason is not None:
        raise DatasetError(f"the dataset {folder} is damaged: {reason}")
    names = [Path(name).stem for name in header["files"]]
    return header, {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


def _load_file(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the header and the arrays, whose sizes are compared with the header before memory is taken for them."""
    with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        require_stored(archive, file.stat().st_size)
        names = [Path(name).stem for name in archive.namelist()]
        if "metadata" not in names:
            raise DatasetError(
                f"{file} is not a dataset of {FORMAT}: it holds {', '.join(names) or 'nothing'} and no metadata"
            )
        size = archive.getinfo("metadata.npy").file_size - METADATA_OFFSET
        header = _header(file, read_array(archive, "metadata", [size], "uint8").tobytes().decode("utf-8", "replace"))
        return header, {name: read_array(archive, name, *described) for name, described in header["arrays"].items()}


def _header(source: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"the dataset {source} is damaged: its metadata is not JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DatasetError(f"{source} is not a dataset of {FORMAT}: its metadata was written by something else")
    if header.get("format_version") != FORMAT_VERSION:
        raise DatasetError(f"{source} is in format {header.get('format_version')}, and this version reads {FORMAT_VERSION}")
    header.pop("sha256", None)
    if sealed(header) != text:
        raise DatasetError(f"the dataset {source} is damaged: its metadata is not as it was written")
    return header
