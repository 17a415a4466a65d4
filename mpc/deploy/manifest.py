"""The manifest of an artefact, checked field by field before anything is made of it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.deploy.archive import ArtefactError
from mpc.deploy.specs import Signal
from mpc.deploy.untrusted import refusing

ENTRIES = ("init", "step", "react")
MOST = 2**31 - 1
"""Of any count: programs count in int32."""


def _count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= MOST


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _entries(value: Any) -> bool:
    return _texts(value) and value in ([*ENTRIES[:2]], [*ENTRIES])


def _period(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value is not True and math.isfinite(value) and value > 0)


def _batch(value: Any) -> bool:
    return value is None or _count(1)(value) or (isinstance(value, str) and bool(value))


def _key(value: Any) -> bool:
    if not isinstance(value, dict) or not _count(1)(value.get("words")):
        return False
    return value["words"] <= 16 and isinstance(value.get("implementation"), str)


def _arrays(named: bool, value: Any) -> bool:
    wanted = {"shape", "dtype"} | ({"name"} if named else set())
    return isinstance(value, list) and all(isinstance(part, dict) and set(part) == wanted and _array(part) for part in value)


def _array(part: dict[str, Any]) -> bool:
    shape = part["shape"]
    fine = isinstance(shape, list) and all(_count(0)(n) or isinstance(n, str) for n in shape)
    return fine and isinstance(part["dtype"], str) and isinstance(part.get("name", ""), str)


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "horizon": (_count(1), "a number of steps, at least 1"),
    "delay": (_count(0), "a number of steps, at least 0"),
    "period": (_period, "positive seconds, or null"),
    "batch": (_batch, "a number of observations, a name for any, or null"),
    "x64": (lambda value: isinstance(value, bool), "true or false"),
    "key": (_key, "the implementation and the words of a PRNG key"),
    "statuses": (lambda value: _texts(value) and bool(value), "names of statuses"),
    "entries": (_entries, "init, step and perhaps react"),
    "platforms": (lambda value: _texts(value) and bool(value), "names of platforms"),
    "parameters": (lambda value: _arrays(True, value), "names, shapes and dtypes"),
    "state": (lambda value: _arrays(False, value), "shapes and dtypes"),
    "versions": (lambda value: isinstance(value, dict), "versions by package"),
    "about": (lambda value: isinstance(value, dict), "what else is known"),
    "files": (lambda value: isinstance(value, dict), "sizes and SHA-256 by file"),
}
"""A check of each field, and what it has to be, for people."""
OPTIONAL = ("x64", "key", "about")


def check_manifest(manifest: dict[str, Any]) -> None:
    """Refuses a manifest that `mpc.export` did not write.

    Raises:
        ArtefactError: With the first field that is not what it has to be.
    """
    for name, (fits, wanted) in FIELDS.items():
        if name not in manifest and name in OPTIONAL:
            continue
        if name not in manifest or not fits(manifest[name]):
            found = repr(manifest.get(name))
            raise ArtefactError(f"the manifest's {name} must be {wanted}; got {found[:100]}")
    for name in ("observation", "action"):
        with refusing(ArtefactError, f"the manifest's {name} is no signal"):
            kind = np.dtype(Signal.rebuilt(manifest[name]).dtype)
            if kind.kind not in "fiub":
                raise ArtefactError(f"the manifest's {name} must be numbers; got {kind}")
