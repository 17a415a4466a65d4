"""What is installed, where it was found, and on what it runs."""

import importlib
import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("craik", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy", "orbax-checkpoint", "mujoco")
OURS = ("mpc", "world_models", "envs")


def ours(name: str) -> Any:
    """Import one of our packages, and make sure it is ours.

    Raises:
        ImportError: If another package or folder of that name was found first, with where it lies.
    """
    module = importlib.import_module(name)
    if getattr(module, "DISTRIBUTION", None) != "craik":
        found = module.__file__ or next(iter(getattr(module, "__path__", ["nowhere"])))
        raise ImportError(
            f"craik needs its own package {name!r}, but Python finds another one first, at {found}: rename that file or "
            "folder, or start Python elsewhere"
        )
    return module


def examine() -> dict[str, Any]:
    """Everything a bug report should say."""
    import jax

    import mpc

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    places, problems = {}, []
    root = Path(mpc.__file__).parent.parent
    for name in OURS:
        spec = importlib.util.find_spec(name)
        where = None if spec is None else spec.origin or (next(iter(spec.submodule_search_locations or [""])))
        places[name] = where or "not found"
        if where is None or Path(where).resolve().parent.parent != root.resolve():
            problems.append(f"{name} is shadowed: found at {places[name]}, expected beside {root / 'mpc'}")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": [str(d) for d in jax.devices()],
        "small loops hoisted": mpc.loops_hoisted,
        "packages found at": places,
        "problems": problems,
    }
