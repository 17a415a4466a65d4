"""Provenance of a results file: command, machine and package versions."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from typing import Any


def invoked(name: str) -> str:
    """Returns the command line of this process.

    Args:
        name: Module after `python -m`.
    """
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def provenance(command: str, packages: Iterable[str]) -> dict[str, Any]:
    """Returns the header of a results file.

    Args:
        command: Command line.
        packages: Packages whose versions are recorded.
    """
    from world_models.io.checkpoint import versions

    return {
        "command": command,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions(packages),
    }
