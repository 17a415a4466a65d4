"""What every command of the command line understands."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Common:
    """What every command understands."""

    seed: int = 0
    """Of everything random."""
    quiet: bool = False
    """No progress bars and no report; only errors."""
    json: bool = False
    """The report as one JSON object on standard output."""


def say(options: Common) -> Callable[[str], None]:
    """Print for people, unless told to be quiet or to speak to machines."""
    return (lambda _: None) if options.quiet or options.json else lambda text: print(text, flush=True)


def mapping(text: str, what: str) -> dict[str, Any]:
    """A JSON object given on the command line.

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
