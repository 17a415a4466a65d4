"""Construction of datasets from episodes, with validation."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from world_models.data.dataset import About, Dataset, DatasetError


def gather(episodes: Iterable[Mapping[str, Any]], about: About, *, actions: bool = True, bad: str = "refuse") -> Dataset:
    """Returns a dataset of episodes.

    Args:
        episodes: Mappings with `observations` `[T+1, ...]`, `actions` `[T, ...]`, and optionally `rewards` `[T]` (default 0)
            and `terminated` `[T]` (default False).
        about: Source of the episodes.
        actions: If True, actions are required; if False, they are dropped.
        bad: Treatment of invalid episodes: those with missing keys, inconsistent lengths, a shape or dtype other than the
            first valid episode's, or non-finite numbers. `"refuse"` raises an error, `"skip"` drops them with a warning.

    Raises:
        DatasetError: If there are invalid episodes and `bad` is `"refuse"`, or there is no valid episode.
    """
    if bad not in ("refuse", "skip"):
        raise DatasetError(f"bad must be 'refuse' or 'skip'; got {bad!r}")
    good: list[dict[str, np.ndarray]] = []
    problems = []
    for index, arrays in enumerate(episodes):
        episode, problem = _episode(arrays, good[0] if good else None, actions)
        if episode is None:
            problems.append(f"episode {index}: {problem}")
        else:
            good.append(episode)
    if problems and bad == "refuse":
        raise DatasetError(_listed("the dataset has bad episodes (bad='skip' drops them)", problems))
    if not good:
        raise DatasetError(_listed("the dataset has no good episodes", problems))
    if problems:
        warnings.warn(_listed(f"skipped {len(problems)} of {len(problems) + len(good)} episodes", problems), stacklevel=2)
    joined = {name: np.concatenate([episode[name] for episode in good]) for name in good[0]}
    lengths = np.array([len(episode["rewards"]) - 1 for episode in good])
    return Dataset(actions=joined.pop("actions", None), lengths=lengths, about=about, **joined)


def mixed(labelled: Dataset, unlabelled: Dataset) -> Dataset:
    """Returns the trajectories of two datasets, with actions in the first only; NaN marks an unknown action.

    Args:
        labelled: Dataset with actions.
        unlabelled: Dataset of the same environment; its actions are dropped.

    Raises:
        DatasetError: If `labelled` has no floating-point actions, or environment, shape or dtype of the observations differ.
    """
    if labelled.actions is None or labelled.actions.dtype.kind != "f":
        raise DatasetError("the first dataset must have actions, as floating-point numbers")
    unlabelled.require(environment=labelled.about.environment, observation=labelled.observations.shape[1:])
    if unlabelled.observations.dtype != labelled.observations.dtype:
        dtypes = labelled.observations.dtype, unlabelled.observations.dtype
        raise DatasetError(f"observations have dtype {dtypes[0]} in one dataset and {dtypes[1]} in the other")
    unknown = np.full((len(unlabelled.rewards), *labelled.actions.shape[1:]), np.nan, labelled.actions.dtype)
    unknown[unlabelled.first + unlabelled.lengths] = 0.0
    names = ("observations", "rewards", "terminated", "lengths")
    joined = {name: np.concatenate([getattr(labelled, name), getattr(unlabelled, name)]) for name in names}
    return Dataset(actions=np.concatenate([labelled.actions, unknown]), about=labelled.about, **joined)


def _listed(head: str, problems: list[str], limit: int = 8) -> str:
    more = [f"and {len(problems) - limit} more"] if len(problems) > limit else []
    return f"{head}: " + "; ".join([*problems[:limit], *more]) if problems else head


def _episode(
    given: Mapping[str, Any], like: dict[str, np.ndarray] | None, actions: bool
) -> tuple[dict[str, np.ndarray] | None, str]:
    """Returns the rows of an episode, or None and the problem."""
    wanted = ("observations", "actions") if actions else ("observations",)
    missing = [name for name in wanted if name not in given]
    if missing:
        return None, f"lacks {' and '.join(missing)}; it has {', '.join(sorted(given)) or 'nothing'}"
    try:
        arrays = {name: np.asarray(given[name]) for name in wanted}
        steps = len(arrays["observations"]) - 1
        arrays["rewards"] = np.asarray(given.get("rewards", np.zeros(steps)), np.float32)
        arrays["terminated"] = np.asarray(given.get("terminated", np.zeros(steps)), bool)
    except (TypeError, ValueError) as error:
        return None, f"has a value that is not an array ({error})"
    if any(array.dtype.kind not in "fiub" for array in arrays.values()):
        return None, "has an array that is not numeric, or rows of different lengths"
    if steps < 1:
        return None, f"has {steps + 1} observations, but a transition needs 2"
    for name, array in arrays.items():
        if name != "observations" and (array.ndim < 1 or len(array) != steps):
            return None, f"has {steps + 1} observations and {len(array) if array.ndim else 'no'} {name}, {steps} are needed"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return None, f"{name} are not finite from step {np.argwhere(~np.isfinite(array))[0, 0]} on"
        if like is not None and (array.shape[1:], array.dtype) != (like[name].shape[1:], like[name].dtype):
            return None, (
                f"{name} are {array.dtype}{list(array.shape[1:])}, those of the first episode "
                f"{like[name].dtype}{list(like[name].shape[1:])}"
            )
    rows = {name: array if name == "observations" else _last_row(array) for name, array in arrays.items()}
    return rows, ""


def _last_row(array: np.ndarray) -> np.ndarray:
    """Appends the zero row that belongs to an episode's last observation."""
    return np.concatenate([array, np.zeros_like(array[:1])])
