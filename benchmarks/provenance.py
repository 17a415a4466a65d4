"""What every results file says of itself: how, on what and with what it was made."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from typing import Any


def invoked(name: str) -> str:
    """The command that runs this process.

    Args:
        name: The module behind `python -m`.
    """
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def provenance(command: str, packages: Iterable[str]) -> dict[str, Any]:
    """The head of a results file.

    Args:
        command: Exactly as it was given.
        packages: Whose versions matter.
    """
    from world_models.io.checkpoint import versions

    return {
        "command": command,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions(packages),
    }
