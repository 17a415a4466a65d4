"""Tasks: what an agent is to do, made in code or read from TOML, with every problem reported at once.

goal = [1.0, 0.0, nan]     # an observation, nan where it may be anything; or "goal.png", "goal.npy" beside the file
horizon = 20               # steps of the model that are imagined ahead
risk = 0.25                # minimise the mean cost of the worst quarter of futures; 1: of all, 0: the worst alone

[weights]                  # of the cost's terms, by name
goal = 1.0
effort = 0.01

[limits]                   # upper bounds, by name
speed = 0.5

[budget]
iterations = 20            # of the planner per decision, at most
starts = 8                 # plans that are improved side by side
milliseconds = 50.0        # that a decision may take
"""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import numpy as np
from numpy.typing import ArrayLike

from mpc.agent.config import plain

Place = tuple[str, ...]


class TaskError(ValueError):
    """A task that cannot be followed; `problems` has every reason, one a line of the message."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__(f"{source} cannot be followed:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


class TaskSchema(NamedTuple):
    """Names that tasks may use.

    `terms`: default weight of every cost term. `limits`: names. `shape`: of a goal. `goals`: terms that need a goal.
    `uncertain`: whether the model has a latent variable, and so a risk to choose.
    """

    terms: Mapping[str, float]
    limits: tuple[str, ...]
    shape: tuple[int, ...]
    goals: tuple[str, ...]
    uncertain: bool


@dataclass(frozen=True, eq=False)
class Task:
    """A task: a goal to reach, or, without one, reward to collect; with weights, limits and compute. None stands for the
    agent's own setting.

    Example:
        >>> agent.configure(Task(goal=image, limits={"x": 0.8}, risk=0.25))  # doctest: +SKIP
    """

    goal: ArrayLike | str | Path | None = None
    """An observation to reach, or the file that holds it; NaN where it may be anything."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of cost terms, see `mpc.agent.cost.terms`."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Upper bounds of the agent's named limits."""
    horizon: int | None = None
    """Steps of the model that are imagined ahead."""
    risk: float | None = None
    """Share of the worst futures whose mean cost is minimised."""
    iterations: int | None = None
    """Iterations of the planner per decision."""
    starts: int | None = None
    """Plans that are improved side by side."""
    milliseconds: float | None = None
    """Time that a decision may take."""

    def __post_init__(self) -> None:
        for name in ("weights", "limits", "horizon", "risk", "iterations", "starts", "milliseconds"):
            object.__setattr__(self, name, plain(getattr(self, name)))


_BUDGET = ("iterations", "starts", "milliseconds")
_NAMES = ("goal", "horizon", "risk", "weights", "limits", "budget")


def read(path: str | os.PathLike[str], schema: TaskSchema) -> Task:
    """Read a task from a TOML file; a TaskError has every problem and its line."""
    path = Path(path).expanduser()
    text = path.read_text(encoding="utf-8")
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(str(path), [f"it is not TOML: {error}"]) from error
    places = lines(text)

    def said(place: Place, what: str) -> str:
        line = next((places[place[:n]] for n in range(len(place), 0, -1) if place[:n] in places), None)
        return what if line is None else f"line {line}: {what}"

    task, problems = parse(given, schema, path.parent)
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


def parse(given: Mapping[str, Any], schema: TaskSchema, folder: Path = Path()) -> tuple[Task, list[tuple[Place, str]]]:
    """A task of what a TOML file holds, with defaults where something is wrong, and what is wrong with it, by place.

    Paths of goals are relative to `folder`.
    """
    check = _Check(given)
    for name in given:
        if name not in _NAMES:
            check.complain((name,), f"is unknown; a task may have {', '.join(_NAMES)}")
    kept: dict[str, Any] = {}
    if "horizon" in given:
        kept["horizon"] = check.number(("horizon",), given["horizon"], 1, whole=True)
    if "risk" in given:
        kept["risk"] = check.number(("risk",), given["risk"], 0.0, 1.0)
        if kept["risk"] is not None and kept["risk"] < 1.0 and not schema.uncertain:
            check.complain(("risk",), "is less than 1, and this model knows one future only")
    for name, value in check.table("budget", _BUDGET).items():
        least = 0.001 if name == "milliseconds" else 1
        kept[name] = check.number(("budget", name), value, least, whole=name != "milliseconds")
    weights = check.table("weights", tuple(schema.terms))
    kept["weights"] = {name: check.number(("weights", name), value, 0.0) for name, value in weights.items()}
    limits = check.table("limits", schema.limits)
    kept["limits"] = {name: check.number(("limits", name), value, -math.inf) for name, value in limits.items()}
    if "goal" in given:
        goal = given["goal"]
        try:
            kept["goal"] = read_goal(folder / Path(goal).expanduser() if isinstance(goal, str) else goal, schema.shape)
        except ValueError as error:
            check.complain(("goal",), str(error))
    _check_purpose(check, schema, kept["weights"])
    return Task(**{name: value for name, value in kept.items() if value is not None}), check.problems


@dataclass
class _Check:
    """Reads tables and numbers of what was given, and keeps a list of what is wrong, by place."""

    given: Mapping[str, Any]
    problems: list[tuple[Place, str]] = field(default_factory=list)

    def complain(self, place: Place, what: str) -> None:
        self.problems.append((place, f"{'.'.join(place)} {what}"))

    def table(self, name: str, known: tuple[str, ...]) -> dict[str, Any]:
        """Return the known entries of a table."""
        inside = self.given.get(name, {})
        if not isinstance(inside, Mapping):
            self.complain((name,), f"must be a table, [{name}]; got {inside!r}")
            return {}
        for key in inside:
            if key not in known:
                self.complain((name, key), f"is unknown; {name} may have {', '.join(known) or 'none'}")
        return {key: value for key, value in inside.items() if key in known}

    def number(self, place: Place, value: Any, low: float, high: float = math.inf, *, whole: bool = False) -> Any:
        """Return a number within bounds, or None and a complaint."""
        fine = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if fine and low <= value <= high and math.isfinite(value):
            return value
        kind, top = "a whole number" if whole else "a number", "" if math.isinf(high) else f" and at most {high:g}"
        least = "finite" if math.isinf(low) else f"at least {low:g}"
        self.complain(place, f"must be {kind}, {least}{top}; got {value!r}")
        return None


def _check_purpose(check: _Check, schema: TaskSchema, weights: Mapping[str, float | None]) -> None:
    """Complain where nothing is minimised, or a goal and the weights of its terms contradict each other."""
    whole = {name: weight for name, weight in (dict(schema.terms) | dict(weights)).items() if weight is not None}
    if not any(whole.values()) and len(whole) == len(schema.terms):
        check.complain(("weights",), "are all 0: there is nothing to minimise")
    wanting = [name for name in schema.goals if weights.get(name)]
    if wanting and "goal" not in check.given:
        check.complain(("weights", wanting[0]), "asks for a goal, and the task has none")
    aimless = all(whole.get(name, 1.0) == 0.0 for name in schema.goals)  # one that makes no sense is told of already
    if "goal" in check.given and schema.goals and aimless:
        check.complain(("goal",), f"is given, and the weights of {', '.join(schema.goals)} are 0: nothing would go there")


def validate(task: Task, schema: TaskSchema) -> list[str]:
    """Return everything that is wrong with a task, made in code or read from a file."""
    given: dict[str, Any] = {"weights": dict(task.weights), "limits": dict(task.limits)}
    given["budget"] = {name: value for name in _BUDGET if (value := getattr(task, name)) is not None}
    given |= {name: value for name in ("horizon", "risk", "goal") if (value := getattr(task, name)) is not None}
    return [problem for _, problem in parse(given, schema)[1]]


def read_goal(given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return a goal, an observation of a shape, from an array, or from the path of a `.npy` file or an image.

    A number of a vector is NaN where it may be anything.

    Raises:
        ValueError: If it cannot be read, or is no such observation, with what arrived and what was wanted.
    """
    try:
        goal = _from_file(Path(given).expanduser()) if isinstance(given, str | Path) else np.asarray(given, np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    goal = goal[..., None] if goal.ndim == len(shape) - 1 else goal
    if goal.shape != shape:
        raise ValueError(f"has shape {goal.shape}, and observations have {shape}")
    if np.isinf(goal).any() or (len(shape) != 1 and np.isnan(goal).any()) or np.isnan(goal).all():
        raise ValueError(
            "must be finite, but for numbers of a vector that may be anything, nan, which cannot be all of them"
        )
    return goal


def _from_file(path: Path) -> np.ndarray:
    array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(imageio.imread(path))
    return 255 * array.astype(np.uint8) if array.dtype == np.bool_ else array
