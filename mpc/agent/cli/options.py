"""Options that several commands of the command line share."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Common:
    """Options of every command."""

    seed: int = 0
    """Of everything random."""
    quiet: bool = False
    """No progress bars and no report; only errors."""
    json: bool = False
    """The report as one JSON object on standard output."""


@dataclass
class TaskOptions(Common):
    """Options of commands that give an agent a task."""

    goal: Path | None = None
    """An image or .npy file of the observation to reach."""
    task: Path | None = None
    """A TOML file that describes the task: goal, weights, limits, horizon, risk, budget."""


def say(options: Common) -> Callable[[str], None]:
    """Return a function that prints for people, unless told to be quiet or to print JSON."""
    return (lambda _: None) if options.quiet or options.json else lambda text: print(text, flush=True)


def mapping(text: str, what: str) -> dict[str, Any]:
    """Return a JSON object given on the command line.

    Args:
        text: As it was given.
        what: Name of the option.

    Raises:
        ValueError: If it is none.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{what} must be a JSON object; got {text!r} ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be a JSON object; got {text!r}")
    return found
