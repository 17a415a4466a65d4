"""Checkpoints: atomic writes, verified reads, and errors that name the reason.

    run/checkpoint/                         the path for `save` and `load`
        checkpoint-000007-step-400/         an older checkpoint, kept as a backup
        checkpoint-000008-step-450/         the newest: the highest number, regardless of its step
            arrays/                         the leaves of the tree, written by Orbax
            metadata.json                   description of the leaves, library versions, size and SHA-256 of every file
        .checkpoint-000009-step-500.tmp     an unfinished write; never read

A checkpoint is written under a temporary name, flushed to disk and then renamed. The rename is atomic: if the writer dies at
any time, earlier checkpoints still load. Processes that save to the same path wait for each other.

Leaves are stored as plain arrays, so a checkpoint written on an accelerator loads on any machine.
"""

import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.deploy.untrusted import refusing
from world_models.io.arrays import read_arrays, write_arrays
from world_models.io.atomic import changed, files, fingerprint, locked, sealed, whole
from world_models.io.header import malformed

FORMAT = "craik"
FORMAT_VERSION = 1

_PACKAGES = ("craik", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "gymnasium")
_FOLDER = re.compile(r"checkpoint-(\d+)-step-\d+")
_TEMPORARY = ".checkpoint-*.tmp"


class CheckpointError(ValueError):
    """Raised for a checkpoint that cannot be written or used; the message gives the reason."""


def save(path: str | os.PathLike[str], tree: Any, metadata: dict[str, Any], *, step: int, keep: int = 2) -> Path:
    """Writes a checkpoint atomically and deletes the oldest ones beyond `keep`.

    Args:
        path: Folder of checkpoints; created if missing.
        tree: Pytree of arrays, PRNG keys and Python numbers.
        metadata: Additional data for `load`, representable in JSON.
        step: Training step; part of the folder's name.
        keep: Number of checkpoints to keep, including this one.

    Returns:
        Folder of this checkpoint.

    Raises:
        CheckpointError: If a leaf or the metadata cannot be stored, or the path is a file.
        OSError: If the disk is full or not writable; earlier checkpoints are unchanged.
    """
    if keep < 1:
        raise CheckpointError(f"keep must be at least 1; got keep={keep}")
    root = Path(path).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise CheckpointError(f"cannot save into {root}: it is a file, and checkpoints are folders")
    stored = [_store(keys, leaf) for keys, leaf in _leaves(tree)]
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": step,
        "versions": versions(_PACKAGES),
        "metadata": metadata,
        "leaves": [record for record, _ in stored],
    }
    _seal(header)  # raises before anything is written
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        for leftover in root.glob(_TEMPORARY):
            _remove(leftover)
        number = max((_number(child) for child in root.iterdir() if _FOLDER.fullmatch(child.name)), default=0) + 1
        folder = root / f"checkpoint-{number:06d}-step-{step}"
        _write(folder, header, [array for _, array in stored])
        ours = [old for old in _checkpoints(root) if not old.is_symlink()]  # links are their makers'
        for old in ours[:-keep]:
            shutil.rmtree(old.rename(_temporary(old)))
    return folder


def load(path: str | os.PathLike[str], like: Any = None) -> tuple[Any, dict[str, Any]]:
    """Verifies a checkpoint and reads it.

    Args:
        path: Folder of checkpoints, of which the newest is read, or folder of one checkpoint.
        like: Tree of arrays or `jax.ShapeDtypeStruct` with the expected structure, shapes and dtypes. JAX arrays may have
            been saved with another setting of `jax_enable_x64`, and PRNG keys be of another implementation, which they keep.
            Without it, the result is nested dictionaries, whose keys are the names of fields, and `"0"`, `"1"`, … for items
            of sequences.

    Returns:
        The saved tree and metadata. JAX arrays, NumPy arrays, PRNG keys and Python numbers keep their types.

    Raises:
        CheckpointError: If there is no checkpoint, or it is damaged, in another format, or different from `like`, or holds
            numbers that 32 bits do not.
    """
    folder = _newest(path)
    header = _read_header(folder)
    with refusing(CheckpointError, f"the checkpoint {folder} is damaged"):
        if like is not None:
            _check_leaves(folder, header["leaves"], like)
        _check_files(folder, header["files"])
        try:
            arrays = read_arrays(folder / "arrays", [record["stored"] for record in header["leaves"]])
        except Exception as error:
            raise _damaged(folder, f"its arrays cannot be read ({error})") from error
        wanted = {keys: _spec(leaf)[1] for keys, leaf in _leaves(like)}
        pairs = [(tuple(record["keys"]), record, array) for record, array in zip(header["leaves"], arrays, strict=True)]
        named = {keys: _restore(record, array, wanted.get(keys)) for keys, record, array in pairs}
        return _nest(named) if like is None else _fill(named, like), header["metadata"]


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the description of a checkpoint without its arrays.

    Args:
        path: As for `load`.

    Returns:
        `step`, `metadata`, `versions` of the libraries that wrote it, and its `leaves` and `files`.

    Raises:
        CheckpointError: If there is no checkpoint, its description is damaged, or it is in another format.
    """
    return _read_header(_newest(path))


# Finding checkpoints


def _checkpoints(root: Path) -> list[Path]:
    """Returns the checkpoints in a folder, oldest first."""
    found = (child for child in root.iterdir() if _FOLDER.fullmatch(child.name) and child.is_dir())
    return sorted(found, key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _newest(path: str | os.PathLike[str]) -> Path:
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise CheckpointError(f"there is no checkpoint at {root}: nothing exists there")
    if not root.is_dir():
        raise CheckpointError(f"{root} is not a checkpoint: it is a file, and checkpoints are folders")
    found = [root] if _FOLDER.fullmatch(root.name) else _checkpoints(root)
    if not found and not (root / "metadata.json").exists():  # a checkpoint may have been copied under another name
        raise CheckpointError(f"{root} is not a checkpoint, and holds no folder checkpoint-NUMBER-step-STEP")
    return found[-1] if found else root


# Writing checkpoints


def _write(folder: Path, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Writes everything under a temporary name, flushes it, and then renames it."""
    with whole(folder) as temporary:
        write_arrays(temporary / "arrays", arrays)
        prints = {file.relative_to(temporary).as_posix(): fingerprint(file) for file in files(temporary)}
        (temporary / "metadata.json").write_text(_seal({**header, "files": prints}), encoding="utf-8")


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover)
    else:
        leftover.unlink()


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of packages by name; `"not installed"` for missing ones."""
    result = {}
    for package in packages:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            result[package] = "not installed"
    return result


# The header, which has checksums of every file and of itself


def _seal(header: dict[str, Any]) -> str:
    """Returns a header as the text of `metadata.json`, including its own digest."""
    try:
        return sealed(header)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the metadata must be representable in JSON: {error}") from error


def _read_header(folder: Path) -> dict[str, Any]:
    file = folder / "metadata.json"
    try:
        text = file.read_text(encoding="utf-8")
        header = json.loads(text)
    except FileNotFoundError as error:
        raise _damaged(folder, "metadata.json is missing") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"metadata.json is not JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{folder} is not a checkpoint of {FORMAT}: its metadata.json was written by something else")
    _check_version(folder, header)
    header.pop("sha256", None)
    if _seal(header) != text:
        raise _damaged(folder, "metadata.json is not as it was written")
    if reason := malformed(header):
        raise _damaged(folder, reason)
    return header


def _check_version(folder: Path, header: dict[str, Any]) -> None:
    version = header.get("format_version")
    if version == FORMAT_VERSION and type(version) is int:
        return
    age = "an older" if isinstance(version, int) and version < FORMAT_VERSION else "a newer"
    versions = header.get("versions")
    writer = versions.get(FORMAT, "unknown") if isinstance(versions, dict) else "unknown"
    raise CheckpointError(
        f"{folder} is in {age} format, {version}, and this version of {FORMAT} reads format {FORMAT_VERSION}:"
        f" load it with {FORMAT} {writer}, which wrote it, or train again"
    )


def _check_files(folder: Path, wanted: dict[str, dict[str, Any]]) -> None:
    reason = changed(folder, wanted)
    if reason is not None:
        raise _damaged(folder, reason)


def _damaged(folder: Path, reason: str) -> CheckpointError:
    """Returns an error that names the damage and an earlier checkpoint, if there is one."""
    message = f"the checkpoint {folder} is damaged: {reason}"
    if _FOLDER.fullmatch(folder.name):
        earlier = [other for other in _checkpoints(folder.parent) if _number(other) < _number(folder)]
        message += f"; an earlier one is {earlier[-1]}" if earlier else ""
    return CheckpointError(message)


# Leaves


def _name(keys: Any) -> str:
    return ".".join(keys) or "(the tree itself)"


def _leaves(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Returns the leaves of a tree with their paths of field names, keys and positions."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in keys), leaf) for keys, leaf in leaves]


def _kind(leaf: Any) -> str:
    if type(leaf) in (bool, int, float):
        return "python"
    if not isinstance(leaf, jax.Array):
        return "numpy"
    return "key" if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else "jax"


def _spec(leaf: Any) -> tuple[list[int], str]:
    """Returns shape and dtype of an array, or the type of a Python number."""
    return ([], f"Python {type(leaf).__name__}") if _kind(leaf) == "python" else (list(leaf.shape), str(leaf.dtype))


def _store(keys: tuple[str, ...], leaf: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Converts a leaf to a plain array and a record from which `_restore` reverses the conversion."""
    kind = _kind(leaf)
    array = np.asarray(jax.random.key_data(leaf) if kind == "key" else leaf)
    if array.dtype.kind in "OSU":
        raise CheckpointError(f"a checkpoint holds numbers, not {leaf!r}, at {_name(keys)}; put text into the metadata")
    record = {"keys": keys, "kind": kind, "spec": _spec(leaf), "stored": (array.shape, str(array.dtype))}
    return {**record, "implementation": str(jax.random.key_impl(leaf))} if kind == "key" else record, array


def _restore(record: dict[str, Any], array: np.ndarray, wanted: str | None) -> Any:
    """Converts a plain array back to a leaf; numbers of JAX arrays to the wanted dtype, by default that of this process."""
    match record["kind"]:
        case "key":
            return jax.random.wrap_key_data(jnp.array(array), impl=record["implementation"])
        case "jax":
            return jnp.array(_of_dtype(record, array, jnp.result_type(array) if wanted is None else jnp.dtype(wanted)))
        case "python":
            return array.item()
        case _:
            return array


def _of_dtype(record: dict[str, Any], array: np.ndarray, dtype: Any) -> np.ndarray:
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    whole = array.dtype.kind in "iu"
    if not (converted == array if whole else np.isfinite(converted) == np.isfinite(array)).all():
        raise CheckpointError(
            f"{_name(record['keys'])} holds {array.dtype} numbers that {dtype} does not: set jax_enable_x64, as when it was "
            "saved"
        )
    return converted


_HALF = {"float64": "float32", "int64": "int32", "uint64": "uint32", "complex128": "complex64"}


def _kept(spec: Any, kind: str) -> Any:
    """Returns what of a leaf has to be as it was saved; options of JAX's may differ."""
    if spec is None or kind not in ("jax", "key"):
        return spec
    shape, dtype = spec
    return [shape, "key" if dtype.startswith("key<") else _HALF.get(dtype, dtype)]


def _check_leaves(folder: Path, records: list[dict[str, Any]], like: Any) -> None:
    """Raises an error if the leaves of a checkpoint differ from those of `like`; it names the first difference."""
    kinds = {tuple(record["keys"]): record["kind"] for record in records}
    stored = {tuple(record["keys"]): record["spec"] for record in records}
    wanted = {keys: list(_spec(leaf)) for keys, leaf in _leaves(like)}
    for keys in (*wanted, *stored):
        kind = kinds.get(keys, "")
        if _kept(stored.get(keys), kind) != _kept(wanted.get(keys), kind):
            raise CheckpointError(
                f"the checkpoint {folder} holds a different tree: {_name(keys)} is"
                f" {_phrase(stored.get(keys))} in it, and {_phrase(wanted.get(keys))} was wanted"
            )


def _phrase(spec: Any) -> str:
    if spec is None:
        return "absent"
    return f"{spec[1]}{list(spec[0])}" if not spec[1].startswith("Python") else spec[1]


def _fill(named: dict[tuple[str, ...], Any], like: Any) -> Any:
    return jax.tree.unflatten(jax.tree.structure(like), [named[keys] for keys, _ in _leaves(like)])


def _nest(named: dict[tuple[str, ...], Any]) -> Any:
    """Returns the leaves in nested dictionaries, one level per key."""
    if () in named:
        return named[()]
    tree: dict[str, Any] = {}
    for keys, leaf in named.items():
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = leaf
    return tree
