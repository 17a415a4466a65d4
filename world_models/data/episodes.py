"""Datasets of episodes, each of which is checked on the way in."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from world_models.data.dataset import About, Dataset, DatasetError


def gather(episodes: Iterable[Mapping[str, Any]], about: About, *, actions: bool = True, bad: str = "refuse") -> Dataset:
    """Make a dataset of episodes.

    Args:
        episodes: Mappings with `observations` `[T+1, ...]`, `actions` `[T, ...]`, and, if they like, `rewards` `[T]` and
            `terminated` `[T]`, zero and False where missing.
        about: Where they come from.
        actions: Whether they must tell actions; if not, actions are left out even where told.
        bad: What happens to episodes with missing keys, lengths that don't fit, shapes or dtypes other than the first good
            one's, or numbers that are not finite: `"refuse"` all, or `"skip"` them with a warning that names each.

    Raises:
        DatasetError: If there are bad episodes and they are refused, or there are no good ones.
    """
    if bad not in ("refuse", "skip"):
        raise DatasetError(f"bad must be 'refuse' or 'skip'; got {bad!r}")
    good: list[dict[str, np.ndarray]] = []
    problems = []
    for index, given in enumerate(episodes):
        episode, problem = _episode(given, good[0] if good else None, actions)
        if episode is None:
            problems.append(f"episode {index}: {problem}")
        else:
            good.append(episode)
    if problems and bad == "refuse":
        raise DatasetError(_listed("the dataset has bad episodes (bad='skip' leaves them out)", problems))
    if not good:
        raise DatasetError(_listed("the dataset has no good episodes", problems))
    if problems:
        warnings.warn(_listed(f"skipped {len(problems)} of {len(problems) + len(good)} episodes", problems), stacklevel=2)
    joined = {name: np.concatenate([episode[name] for episode in good]) for name in good[0]}
    lengths = np.array([len(episode["rewards"]) - 1 for episode in good])
    return Dataset(actions=joined.pop("actions", None), lengths=lengths, about=about, **joined)


def mixed(told: Dataset, silent: Dataset) -> Dataset:
    """Trajectories that tell actions, then others of the same environment that don't; NaN stands for an action nobody told.

    Args:
        told: With actions.
        silent: Actions that it tells are forgotten.

    Raises:
        DatasetError: If `told` has no actions, or they are not floating-point numbers, or the two were not recorded alike.
    """
    if told.actions is None or told.actions.dtype.kind != "f":
        raise DatasetError("the first dataset must tell actions, as floating-point numbers")
    silent.require(environment=told.about.environment, observation=told.observations.shape[1:])
    if silent.observations.dtype != told.observations.dtype:
        raise DatasetError(f"observations are {told.observations.dtype} in one and {silent.observations.dtype} in the other")
    unknown = np.full((len(silent.rewards), *told.actions.shape[1:]), np.nan, told.actions.dtype)
    unknown[silent.first + silent.lengths] = 0.0
    names = ("observations", "rewards", "terminated", "lengths")
    joined = {name: np.concatenate([getattr(told, name), getattr(silent, name)]) for name in names}
    return Dataset(actions=np.concatenate([told.actions, unknown]), about=told.about, **joined)


def _listed(head: str, problems: list[str], shown: int = 8) -> str:
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    return f"{head}: " + "; ".join([*problems[:shown], *more]) if problems else head


def _episode(
    given: Mapping[str, Any], like: dict[str, np.ndarray] | None, actions: bool
) -> tuple[dict[str, np.ndarray] | None, str]:
    """The rows of an episode, or None and what is wrong with it."""
    wanted = ("observations", "actions") if actions else ("observations",)
    missing = [name for name in wanted if name not in given]
    if missing:
        return None, f"lacks {' and '.join(missing)}; it has {', '.join(sorted(given)) or 'nothing'}"
    try:
        found = {name: np.asarray(given[name]) for name in wanted}
        steps = len(found["observations"]) - 1
        found["rewards"] = np.asarray(given.get("rewards", np.zeros(steps)), np.float32)
        found["terminated"] = np.asarray(given.get("terminated", np.zeros(steps)), bool)
    except (TypeError, ValueError) as error:
        return None, f"holds what is no array ({error})"
    if any(array.dtype.kind not in "fiub" for array in found.values()):
        return None, "holds what is no number, or rows of different lengths"
    if steps < 1:
        return None, f"has {steps + 1} observations, and a transition needs 2"
    for name, array in found.items():
        if name != "observations" and (array.ndim < 1 or len(array) != steps):
            return None, f"has {steps + 1} observations and {len(array) if array.ndim else 'no'} {name}, {steps} are needed"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return None, f"{name} are not finite from step {np.argwhere(~np.isfinite(array))[0, 0]} on"
        if like is not None and (array.shape[1:], array.dtype) != (like[name].shape[1:], like[name].dtype):
            return None, (
                f"{name} are {array.dtype}{list(array.shape[1:])}, those of the first episode "
                f"{like[name].dtype}{list(like[name].shape[1:])}"
            )
    rows = {name: array if name == "observations" else _last_row(array) for name, array in found.items()}
    return rows, ""


def _last_row(array: np.ndarray) -> np.ndarray:
    """Add the row of an episode's last observation, of zeros."""
    return np.concatenate([array, np.zeros_like(array[:1])])
