"""Options that several commands of the command line share."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

LEAST: dict[str, int] = dict.fromkeys(("seed", "steps", "episodes", "updates", "deadline", "delay", "push"), 0)
LEAST |= dict.fromkeys(("length", "rounds", "seeds", "cores", "at"), 1)
"""Least numbers of options by name; all others are to be positive."""


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


def prepare(options: Common) -> None:
    """Expand `~` in paths, and check numbers, before anything is done.

    Raises:
        ValueError: If a number is out of range, with the option's name.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if isinstance(value, Path):
            setattr(options, option.name, value.expanduser())
        for number in value if isinstance(value, tuple) else (value,):
            _check_number(option.name, number)


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if not math.isfinite(value) or value < LEAST.get(name, 0) or (value == 0 and name not in LEAST):
        least = f"at least {LEAST[name]}" if name in LEAST else "positive"
        raise ValueError(f"--{name.replace('_', '-')} must be {least}; got {value}")


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
