"""`craik doctor`: reports what is installed, where it was found, and on what it runs."""

import importlib
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc.agent.cli.options import Common, say
from world_models.io.checkpoint import versions

PACKAGES = ("craik", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy", "orbax-checkpoint", "mujoco", "mujoco-mjx")
OURS = ("mpc", "world_models", "envs")
ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds all of our packages."""


@dataclass
class Doctor(Common):
    """Report what is installed, where it was found, and on what it runs.

    Example: craik doctor --json
    """


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


def examine() -> dict[str, Any]:
    """Return everything that a bug report should say."""
    import jax

    import mpc

    places = {name: found_at(name) for name in OURS}
    problems = [
        f"{name} is shadowed: found at {where or 'not found'}, expected beside {ROOT / 'mpc'}"
        for name, where in places.items()
        if where is None or not is_ours(where)
    ]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(PACKAGES),
        "devices": [str(d) for d in jax.devices()],
        "small loops hoisted": mpc.loops_hoisted,
        "packages found at": {name: where or "not found" for name, where in places.items()},
        "problems": problems,
    }


def doctor(options: Doctor) -> dict[str, Any]:
    """Examine the installation and return the report."""
    found, tell = examine(), say(options)
    for name, value in found.items():
        if isinstance(value, dict):
            tell(f"{name}:")
            for part, text in value.items():
                tell(f"  {part:<20} {text}")
        else:
            tell(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return found
