"""Checks of what a solve is given, when it is called or traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.problem import Problem

PyTree = Any


def check_settings(iterations: Any, tolerance: Any, guess: Any, memory: Any) -> None:
    """Refuse settings that no solve can follow.

    Raises:
        ValueError: If iterations are no whole number of at least 0, a tolerance is no number, or there are both a
            guess and a memory.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int | np.integer) or iterations < 0:
        raise ValueError(f"iterations must be a whole number, at least 0; got {iterations!r}")
    if isinstance(tolerance, str) or (isinstance(tolerance, int | float | np.number) and np.isnan(tolerance)):
        raise ValueError(f"tolerance must be a number, or None; got {tolerance!r}")
    if guess is not None and memory is not None:
        raise ValueError(
            "a solve begins with a guess or goes on from a memory, not both: give planner.inject(memory, guess)"
        )


def checked_guess(problem: Problem, guess: Any) -> Any:
    """A guess, whose numbers that are not finite are those of the neutral action.

    Raises:
        ValueError: If it is not one action of the space for each step of the horizon.
    """
    actions, *rest = guess if isinstance(guess, tuple) else (guess,)
    space, actions = problem.action_space, jnp.asarray(actions)
    wanted = (problem.horizon, *space.shape)
    if actions.shape != wanted:
        raise ValueError(f"a guess must be actions of shape {list(wanted)}; got {list(actions.shape)}")
    if jnp.issubdtype(actions.dtype, jnp.floating):
        neutral = space.decide(jnp.zeros((problem.horizon, space.size)))
        actions = jnp.where(jnp.isfinite(actions), actions, neutral.astype(actions.dtype))
    return (actions, *rest) if rest else actions


def check_memory(memory: PyTree, like: PyTree) -> None:
    """Hold a memory against the state that the planner begins with.

    Raises:
        ValueError: If it is of another planner, or of a problem of other sizes.
    """
    if jax.tree.structure(memory) != jax.tree.structure(like):
        raise ValueError(
            f"a memory must be that of a plan by the same planner, a {type(like).__name__}; got {type(memory).__name__}, of "
            "another planner or with other settings"
        )
    for (path, kept), new in zip(jax.tree.leaves_with_path(memory), jax.tree.leaves(like), strict=True):
        if jnp.shape(kept) != new.shape:
            raise ValueError(
                "a memory must be of a problem of the same sizes, and not of several at once; its "
                f"{jax.tree_util.keystr(path)} has shape {list(jnp.shape(kept))}, {list(new.shape)} was wanted"
            )
