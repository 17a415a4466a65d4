"""The form of a checkpoint's header, checked before anything is made of it."""

import math
from pathlib import PurePosixPath
from typing import Any

import jax.numpy as jnp

KINDS = ("jax", "numpy", "key", "python")
WORDS = 16
"""Of a PRNG key at most."""


def malformed(header: dict[str, Any]) -> str | None:
    """Returns what of a header no writer of this library has written, or None."""
    if type(header.get("step")) is not int or not isinstance(header.get("versions"), dict) or "metadata" not in header:
        return "metadata.json lacks its step, versions or metadata"
    leaves, files = header.get("leaves"), header.get("files")
    if not isinstance(leaves, list) or not all(isinstance(leaf, dict) and _is_leaf(leaf) for leaf in leaves):
        return "metadata.json lists leaves that are none"
    if len({tuple(leaf["keys"]) for leaf in leaves}) != len(leaves):
        return "metadata.json lists a leaf twice"
    if not isinstance(files, dict) or not all(_is_inside(name) and _is_print(value) for name, value in files.items()):
        return "metadata.json lists files that are none"
    return None


def _is_leaf(leaf: dict[str, Any]) -> bool:
    keys, kind = leaf.get("keys"), leaf.get("kind")
    spec: Any = leaf.get("spec")
    stored: Any = leaf.get("stored")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or kind not in KINDS:
        return False
    if not _is_array(stored) or not _is_array(spec, number=kind != "key" and kind != "python"):
        return False
    if kind == "python":
        return spec[0] == [] and stored[0] == []
    if kind == "key":
        least = math.prod(spec[0])
        return isinstance(leaf.get("implementation"), str) and least <= math.prod(stored[0]) <= WORDS * least
    return stored == spec


def _is_array(value: Any, *, number: bool = True) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], list) or not isinstance(value[1], str):
        return False
    return all(type(n) is int and n >= 0 for n in value[0]) and (not number or _is_number(value[1]))


def _is_number(dtype: str) -> bool:
    try:
        return jnp.dtype(dtype).kind in "biufcV"  # bfloat16 and its like are of kind V
    except TypeError:
        return False


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _is_print(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("size")) is int and isinstance(value.get("sha256"), str)
