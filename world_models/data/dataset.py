"""The type of a dataset: the rows of its episodes, and a description of their source."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class DatasetError(ValueError):
    """Raised for a dataset that cannot be written or used; the message gives the reason."""


@dataclass(frozen=True)
class About:
    """Description of the source of trajectories, compared before a model trains on them.

    Args:
        environment: Id of the environment.
        observation_space: Text of the space, for people.
        action_space: Text of the space, for people.
        action_meaning: Meaning and units of the coordinates of an action.
        notes: Further information that JSON can represent.
    """

    environment: str
    observation_space: str = ""
    action_space: str = ""
    action_meaning: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories, in memory or memory-mapped; the package docstring defines a row.

    Args:
        observations: `[rows, ...]`.
        actions: `[rows, ...]`, or None for a dataset without actions.
        rewards: `[rows]`.
        terminated: `[rows]`.
        lengths: `[episodes]`, transitions of each episode, one less than its rows.
        about: Source of the trajectories.

    Raises:
        DatasetError: If the lengths of the arrays are inconsistent.
    """

    observations: np.ndarray
    actions: np.ndarray | None
    rewards: np.ndarray
    terminated: np.ndarray
    lengths: np.ndarray
    about: About

    def __post_init__(self) -> None:
        if self.lengths.ndim != 1 or len(self.lengths) == 0 or self.lengths.min() < 1:
            raise DatasetError("a dataset needs episodes of at least one transition each")
        rows = int(np.sum(self.lengths + 1))
        for name in ("observations", "actions", "rewards", "terminated"):
            array = getattr(self, name)
            if array is not None and len(array) != rows:
                raise DatasetError(f"{name} has {len(array)} rows, but the episode lengths add up to {rows}")

    @property
    def first(self) -> np.ndarray:
        """`[episodes]`, first row of each episode."""
        return np.cumsum(self.lengths + 1) - (self.lengths + 1)

    @property
    def transitions(self) -> int:
        """Number of transitions in all episodes."""
        return int(self.lengths.sum())

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Returns the arrays of one episode of T transitions: T + 1 observations, and T rows of the others."""
        start, length = int(self.first[index]), int(self.lengths[index])
        steps = slice(start, start + length)
        arrays = {
            "observations": self.observations[start : start + length + 1],
            "rewards": self.rewards[steps],
            "terminated": self.terminated[steps],
        }
        return arrays if self.actions is None else arrays | {"actions": self.actions[steps]}

    def require(
        self,
        *,
        environment: str | None = None,
        observation: tuple[int, ...] | None = None,
        action: tuple[int, ...] | None = None,
    ) -> "Dataset":
        """Returns the dataset after checking its environment and shapes; None skips a check.

        Args:
            environment: Required id of the environment.
            observation: Required shape of an observation.
            action: Required shape of an action.

        Raises:
            DatasetError: If a requirement is not met.
        """
        if environment is not None and environment != self.about.environment:
            raise DatasetError(f"the dataset was recorded in {self.about.environment!r}, and {environment!r} was wanted")
        if observation is not None and self.observations.shape[1:] != tuple(observation):
            raise DatasetError(
                f"the dataset's observations have shape {list(self.observations.shape[1:])}, {list(observation)} was wanted"
            )
        if action is not None and self.actions is None:
            raise DatasetError(f"the dataset has no actions, and actions of shape {list(action)} were wanted")
        if action is not None and self.actions is not None and self.actions.shape[1:] != tuple(action):
            raise DatasetError(f"the dataset's actions have shape {list(self.actions.shape[1:])}, {list(action)} was wanted")
        return self
