"""Tasks as text: what a configurator is to bring about, read from TOML, and everything that is wrong with it at once.

goal = [1.0, 0.0, nan]     # an observation, nan where it may be anything; or "goal.png", "goal.npy" beside the file
horizon = 20               # steps of the model that are imagined ahead
risk = 0.25                # what counts is the mean of the worst quarter of futures; 1: of all, 0: the worst alone

[weights]                  # of the cost's terms, by name
goal = 1.0
effort = 0.01

[limits]                   # of what must not be exceeded, by name
speed = 0.5

[budget]
iterations = 20            # of the planner per decision, at most
starts = 8                 # plans that are improved side by side
milliseconds = 50.0        # that a decision may take
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import numpy as np

Place = tuple[str, ...]


class TaskError(ValueError):
    """A task description that cannot be followed; `problems` has every reason, one a line of the message."""

    def __init__(self, source: str, problems: list[str]):
        super().__init__(f"{source} cannot be followed:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


class TaskSchema(NamedTuple):
    """What tasks may speak of.

    `terms`: default weight of every cost term. `limits`: names. `shape`: of a goal. `goals`: terms that need one.
    `uncertain`: whether there are several futures, and so a risk to choose.
    """

    terms: Mapping[str, float]
    limits: tuple[str, ...]
    shape: tuple[int, ...]
    goals: tuple[str, ...]
    uncertain: bool


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be brought about, and how carefully; `Configurator.read` makes one of a file."""

    goal: np.ndarray | None = None
    """An observation; NaN where it may be anything."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of cost terms; the configurator's own where none is given."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Of what must not be exceeded."""
    horizon: int = 20
    """Steps of the model that are imagined ahead."""
    risk: float = 1.0
    """Share of the worst futures whose mean counts."""
    iterations: int = 20
    """Of the planner per decision, at most."""
    starts: int = 8
    """Plans that are improved side by side."""
    milliseconds: float | None = None
    """That a decision may take; None for as many as the iterations take."""


_TABLES: dict[str, tuple[str, ...]] = {"budget": ("iterations", "starts", "milliseconds")}
_NAMES = ("goal", "horizon", "risk", "weights", "limits", "budget")


def read(path: str | Path, vocabulary: TaskSchema) -> Task:
    """Read a task from a TOML file.

    Args:
        path: Of the file.
        vocabulary: What it may speak of.

    Raises:
        TaskError: With every problem and its line.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(str(path), [f"it is not TOML: {error}"]) from error
    places = lines(text)

    def said(place: Place, what: str) -> str:
        line = next((places[place[:n]] for n in range(len(place), 0, -1) if place[:n] in places), None)
        return what if line is None else f"line {line}: {what}"

    task, problems = understood(given, vocabulary, path.parent)
    if problems:
        problems.sort(key=lambda problem: places.get(problem[0], places.get(problem[0][:1], 0)))
        raise TaskError(str(path), [said(*problem) for problem in problems])
    return task


def lines(text: str) -> dict[Place, int]:
    """The line, counted from 1, on which each key and table of a TOML text stands; keys in quotes are left out."""
    found: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
        key = re.match(r"\s*([\w.-]+)\s*=", line)
        if header is not None:
            table = tuple(header[1].split("."))
            found.setdefault(table, number)
        elif key is not None:
            found.setdefault((*table, *key[1].split(".")), number)
    return found


def understood(
    given: Mapping[str, Any], vocabulary: TaskSchema, folder: Path = Path()
) -> tuple[Task, list[tuple[Place, str]]]:
    """A task of what was given, and what is wrong with it, by place; where something is wrong the task holds the default.

    Args:
        given: As a TOML file holds it.
        vocabulary: What it may speak of.
        folder: That paths of goals are relative to.
    """
    problems: list[tuple[Place, str]] = []

    def complain(place: Place, what: str) -> None:
        problems.append((place, f"{'.'.join(place)} {what}"))

    def table(name: str, known: tuple[str, ...]) -> dict[str, Any]:
        inside = given.get(name, {})
        if not isinstance(inside, Mapping):
            complain((name,), f"must be a table, [{name}]; got {inside!r}")
            return {}
        for key in inside:
            if key not in known:
                complain((name, key), f"is unknown; {name} may have {', '.join(known) or 'none'}")
        return {key: value for key, value in inside.items() if key in known}

    def number(place: Place, value: Any, low: float, high: float = math.inf, *, whole: bool = False) -> Any:
        fine = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if fine and low <= value <= high and math.isfinite(value):
            return value
        kind, top = "a whole number" if whole else "a number", "" if math.isinf(high) else f" and at most {high:g}"
        least = "finite" if math.isinf(low) else f"at least {low:g}"
        complain(place, f"must be {kind}, {least}{top}; got {value!r}")
        return None

    for name in given:
        if name not in _NAMES:
            complain((name,), f"is unknown; a task may have {', '.join(_NAMES)}")
    kept: dict[str, Any] = {}
    if "horizon" in given:
        kept["horizon"] = number(("horizon",), given["horizon"], 1, whole=True)
    if "risk" in given:
        kept["risk"] = number(("risk",), given["risk"], 0.0, 1.0)
        if kept["risk"] is not None and kept["risk"] < 1.0 and not vocabulary.uncertain:
            complain(("risk",), "is less than 1, and this model knows one future only")
    for name, value in table("budget", _TABLES["budget"]).items():
        least = 0.001 if name == "milliseconds" else 1
        kept[name] = number(("budget", name), value, least, whole=name != "milliseconds")
    weights = table("weights", tuple(vocabulary.terms))
    kept["weights"] = {name: number(("weights", name), value, 0.0) for name, value in weights.items()}
    limits = table("limits", vocabulary.limits)
    kept["limits"] = {name: number(("limits", name), value, -math.inf) for name, value in limits.items()}
    if "goal" in given:
        kept["goal"] = _goal(given["goal"], vocabulary.shape, folder, lambda what: complain(("goal",), what))
    whole = {name: weight for name, weight in (dict(vocabulary.terms) | kept["weights"]).items() if weight is not None}
    if not any(whole.values()) and len(whole) == len(vocabulary.terms):
        complain(("weights",), "are all 0: there is nothing to minimise")
    wanting = [name for name in vocabulary.goals if kept["weights"].get(name)]
    if wanting and "goal" not in given:
        complain(("weights", wanting[0]), "asks for a goal, and the task has none")
    aimless = all(whole.get(name, 1.0) == 0.0 for name in vocabulary.goals)  # one that makes no sense is told of already
    if "goal" in given and vocabulary.goals and aimless:
        complain(("goal",), f"is given, and the weights of {', '.join(vocabulary.goals)} are 0: nothing would go there")
    return Task(**{name: value for name, value in kept.items() if value is not None}), problems


def _goal(given: Any, shape: tuple[int, ...], folder: Path, complain: Any) -> np.ndarray | None:
    """The goal as an array, or None and a complaint."""
    try:
        if isinstance(given, str):
            file = folder / given
            goal = np.load(file, allow_pickle=False) if file.suffix == ".npy" else np.asarray(imageio.imread(file))
            goal = goal[..., None] if goal.ndim == len(shape) - 1 else goal
        else:
            goal = np.asarray(given, np.float32)
    except (OSError, ValueError, TypeError) as error:
        complain(f"cannot be read: {error}")
        return None
    if goal.shape != shape:
        complain(f"has shape {goal.shape}, and observations have {shape}")
        return None
    if np.isinf(goal).any() or (len(shape) != 1 and np.isnan(goal).any()) or np.isnan(goal).all():
        complain("must be finite, but for numbers of a vector that may be anything, nan, which cannot be all of them")
        return None
    return goal
