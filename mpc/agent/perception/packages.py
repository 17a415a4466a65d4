"""Our own packages, told from others of the same name that Python may find first."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds all of our packages."""


def found_at(name: str) -> str | None:
    """Return where Python finds a package, which may not be ours; None where it finds none."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)


def is_ours(where: str) -> bool:
    """Return whether a package found there lies beside this one: ours are always installed together."""
    return Path(where).resolve().parent.parent == ROOT


def ours(name: str) -> Any:
    """Import one of our packages, and make sure it is ours.

    Raises:
        ImportError: If another package or folder of that name was found first, with where it lies.
    """
    where = found_at(name)
    if where is not None and not is_ours(where):
        raise ImportError(
            f"craik needs its own package {name!r}, but Python finds another one first, at {where}: rename that file or "
            "folder, or start Python elsewhere"
        )
    return importlib.import_module(name)
