"""What a dataset is: the rows of all its episodes, and where they come from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class DatasetError(ValueError):
    """A dataset that cannot be written or used, and why."""


@dataclass(frozen=True)
class About:
    """Where trajectories come from: what has to agree before they may teach a model of something else.

    Args:
        environment: Its id.
        observation_space: As it describes itself, for people.
        action_space: As it describes itself, for people.
        action_meaning: What the coordinates of an action are, and their units.
        notes: Whatever else JSON can hold.
    """

    environment: str
    observation_space: str = ""
    action_space: str = ""
    action_meaning: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories, in memory or on the disk; see the package for what a row is.

    Args:
        observations: `[rows, ...]`.
        actions: `[rows, ...]`, or None where nobody told.
        rewards: `[rows]`.
        terminated: `[rows]`.
        lengths: `[episodes]`, transitions of each, one less than its rows.
        about: Where they come from.

    Raises:
        DatasetError: If the arrays don't belong together.
    """

    observations: np.ndarray
    actions: np.ndarray | None
    rewards: np.ndarray
    terminated: np.ndarray
    lengths: np.ndarray
    about: About

    def __post_init__(self):
        if self.lengths.ndim != 1 or len(self.lengths) == 0 or self.lengths.min() < 1:
            raise DatasetError("a dataset needs episodes of at least one transition each")
        rows = int(np.sum(self.lengths + 1))
        for name in ("observations", "actions", "rewards", "terminated"):
            array = getattr(self, name)
            if array is not None and len(array) != rows:
                raise DatasetError(f"{name} has {len(array)} rows, and the lengths of the episodes add up to {rows}")

    @property
    def first(self) -> np.ndarray:
        """`[episodes]`, the first row of each."""
        return np.cumsum(self.lengths + 1) - (self.lengths + 1)

    @property
    def transitions(self) -> int:
        """How many there are in all episodes."""
        return int(self.lengths.sum())

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one episode of T transitions: T + 1 observations, and T of the others."""
        start, length = int(self.first[index]), int(self.lengths[index])
        steps = slice(start, start + length)
        found = {
            "observations": self.observations[start : start + length + 1],
            "rewards": self.rewards[steps],
            "terminated": self.terminated[steps],
        }
        return found if self.actions is None else found | {"actions": self.actions[steps]}

    def require(
        self,
        *,
        environment: str | None = None,
        observation: tuple[int, ...] | None = None,
        action: tuple[int, ...] | None = None,
    ) -> "Dataset":
        """Return the dataset if it is what is asked for.

        Args:
            environment: The id of the environment it must have been recorded in.
            observation: The shape that observations must have.
            action: The shape that actions must have.

        Raises:
            DatasetError: If it is not, with what it is.
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
