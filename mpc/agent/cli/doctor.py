"""`craik doctor`: reports what is installed, where it was found, and on what it runs."""

import platform
from dataclasses import dataclass
from typing import Any

from mpc.agent.cli.options import Common, say
from mpc.agent.perception.packages import ROOT, found_at, is_ours
from world_models.io.checkpoint import versions

PACKAGES = ("craik", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy", "orbax-checkpoint", "mujoco", "mujoco-mjx")
OURS = ("mpc", "world_models", "envs")


@dataclass
class Doctor(Common):
    """Report what is installed, where it was found, and on what it runs.

    Example: craik doctor --json
    """


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
        "compiled programs kept in": mpc.compiled_programs,
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
