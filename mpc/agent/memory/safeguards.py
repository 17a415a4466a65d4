"""Safeguards of learning: diverging weights are reverted, and broken environments end learning with a reason."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any

EXPLODED = 1e3
"""Times the error of the last good training, or times 1, which is about what predicting nothing costs."""
PATIENCE = 20
"""Steps in a row without a finite observation and reward: a sensor may come back, broken physics do not."""


class EnvironmentFailure(RuntimeError):
    """An environment that raised, or went on returning what is not finite."""


@jax.jit
def _finite(tree: PyTree) -> jax.Array:
    numbers = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in numbers]))


def error_of(metrics: Mapping[str, float]) -> float:
    """Return the prediction error among the metrics of a world model's training; 0 where there is none."""
    return sum(metrics.get(name, 0.0) for name in ("latent", "reward"))


def fit_or_revert(
    fit: Callable[..., tuple[Any, dict[str, jax.Array]]],
    before: Any,
    *given: Any,
    limit: float = math.inf,
) -> tuple[Any, dict[str, float], str | None]:
    """Train, unless that leads astray: then everything is as it was, but for the key, so that other windows are drawn next.

    Args:
        fit: `(state, *given) -> (state, metrics)`, which may give up the memory of the state; a state has a `key`.
        before: State to begin with.
        *given: What else to train with.
        limit: Of the error of predictions.

    Returns:
        The state, its metrics, and why it stepped back, or None.
    """
    kept = jax.tree.map(jnp.copy, before)
    after, metrics = fit(before, *given)
    numbers = {name: float(value) for name, value in metrics.items()}
    astray = [f"{name} {value:.3g}" for name, value in numbers.items() if not math.isfinite(value)]
    if not astray and error_of(numbers) > limit:
        astray = [f"an error of predictions of {error_of(numbers):.3g}"]
    if not astray and not _finite(after._replace(key=jnp.zeros(()))):
        astray = ["weights that are not finite"]
    if not astray:
        return after, numbers, None
    return kept._replace(key=jax.random.fold_in(kept.key, 1)), {}, ", ".join(astray)


@contextmanager
def as_environment_failure(doing: str, steps: int) -> Iterator[None]:
    """Say of an exception from inside an environment that it came from there.

    Args:
        doing: What the environment was asked to do.
        steps: How many steps were taken before.

    Raises:
        EnvironmentFailure: From whatever was raised.
    """
    try:
        yield
    except Exception as error:
        raise EnvironmentFailure(
            f"the environment raised {type(error).__name__} at {doing} after {steps} steps: {error}; what was learnt until "
            "then can be saved, and was where learn was given a checkpoint_path"
        ) from error


class NonFiniteMonitor:
    """Notices environments that stay broken.

    Args:
        environments: How many there are.
    """

    def __init__(self, environments: int) -> None:
        self._broken = np.zeros(environments, int)

    def look(self, observations: np.ndarray, rewards: np.ndarray, real: np.ndarray, steps: int) -> None:
        """Look at what a step led to.

        Args:
            observations: `[E, ...]`, of episodes that ended the last ones.
            rewards: `[E]`.
            real: `[E]`, where it was a step, and not the beginning of another episode.
            steps: Taken before.

        Raises:
            EnvironmentFailure: If an environment has not returned anything finite for a while.
        """
        fine = np.isfinite(observations).all(axis=tuple(range(1, observations.ndim))) & np.isfinite(rewards)
        self._broken = np.where(real, np.where(fine, 0, self._broken + 1), self._broken)
        if self._broken.max() >= PATIENCE:
            index = int(self._broken.argmax())
            raise EnvironmentFailure(
                f"environment {index} led to {observations[index].tolist()} with reward {rewards[index]} after {steps} "
                f"steps, the {PATIENCE}th in a row that are not finite: none of them was learnt from, and learning "
                "ends; what was learnt until then can be saved, and was where learn was given a checkpoint_path"
            )


@contextmanager
def explain_save_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of a checkpoint that cannot be written what is lost: nothing yet.

    Raises:
        OSError: From the one that was raised.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"no checkpoint could be written to {os.fspath(path)} ({error}); those that were there are as they were, and "
            "the agent still holds what it learnt: make room and save it again, or save it elsewhere",
        ) from error
