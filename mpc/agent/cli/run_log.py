"""A run's folder: its metrics, its configuration, and how to write into it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mpc.agent.agent import Agent, Progress
from mpc.agent.cli import trackers

NEWEST = 512
"""Observations whose latents tell the effective rank."""


class RunLog:
    """Writes what an `Agent` learns: `config.json`, and metrics by trackers; an existing folder is continued.

    It is the callback of `Agent.learn` and of `Agent.learn_from`.

    Args:
        folder: Made when missing.
        config: Content of `config.json`.
        prefix: Of the names of metrics, which tells steps of environments from gradient steps.
        at: `timesteps` and `updates` from which the agent goes on.
        log: Names of trackers (`trackers.TRACKERS`).
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        prefix: str = "",
        at: Mapping[str, float] | None = None,
        log: tuple[str, ...] = trackers.USUAL,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        opening = trackers.Opening(folder, config, prefix, at or {})
        self._trackers = [trackers.TRACKERS[name](opening) for name in log]
        self.returns: list[float] = []
        self.metrics: dict[str, float] = {}
        """The newest of each."""

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: Any) -> None:
        for tracker in self._trackers:
            tracker.close()

    def __call__(self, agent: Agent, progress: Progress) -> None:
        """Write the outcome of a step."""
        at = {"timesteps": agent.num_timesteps, "updates": agent.learner.updates}
        self.returns += progress.episode_returns
        rows: list[dict[str, float]] = [{"episode_return": value} for value in progress.episode_returns]
        if progress.metrics:
            rank = {} if "effective_rank" in progress.metrics else {"effective_rank": effective_rank(agent)}
            rows.append(progress.metrics | rank)
            self.metrics |= progress.metrics
        for row in rows:
            for tracker in self._trackers:
                tracker.log(at, row)


def effective_rank(agent: Agent) -> float:
    """Return how many dimensions the latents of the newest observations use; 1 is a collapse."""
    buffer = agent.buffer
    filled = max(int(buffer.filled[0]), 1)
    rows = (int(buffer.head[0]) - 1 - np.arange(NEWEST) % filled) % buffer.follows.shape[1]
    return float(agent.components.rank(agent.learner.training.params, buffer.observations[0, rows]))
