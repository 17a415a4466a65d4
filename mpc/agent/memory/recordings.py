"""Recordings on their way into an agent: checked, and with observations and actions as its model sees them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.components import Components
from mpc.agent.perception import gym_spaces
from world_models import data
from world_models.data import Dataset, DatasetError, TrajectoryBuffer

Render = Callable[[jax.Array], jax.Array]
_AT_ONCE = 512  # rows that are rendered or encoded in one call


def for_model(dataset: Dataset, agent: Any) -> Dataset:
    """Return a dataset as an agent's model sees it: histories of observations, relative to its origin, and actions as the
    replay buffer stores them.

    Args:
        dataset: Recorded in the agent's environment, of observations, or of states if it has a `render`.
        agent: An `Agent`.

    Raises:
        DatasetError: If it was recorded in another environment, or its observations or actions have another shape.
    """
    made, render = agent.components, agent.render
    shape = made.history.observation
    if render is not None:
        stored = jax.ShapeDtypeStruct(dataset.observations.shape[1:], dataset.observations.dtype)
        shown = jax.eval_shape(render, stored).shape
        if shown != shape:
            raise DatasetError(f"render makes observations of shape {shown}, and {shape} was wanted")
    dataset.require(environment=agent.env_id)
    if render is None and dataset.observations.shape[1:] != shape:
        dataset = replace(dataset, observations=_shaped(dataset.observations, agent.observation_space, shape))
    actions, origin = None, agent.learner.origin
    if origin is not None:
        dataset = replace(dataset, observations=gym_spaces.centred(dataset.observations, origin))
    if dataset.actions is not None:
        dataset.require(action=agent.action_space.shape)
        actions = _recorded(made, dataset.actions)
    if made.history.steps == 1:
        return replace(dataset, actions=actions)
    if actions is None:
        raise DatasetError(f"a history of {made.history.steps} steps holds actions, and the dataset has none")
    return replace(dataset, actions=actions, observations=made.history.dataset(dataset, np.nan_to_num(actions)))


def _shaped(observations: np.ndarray, space: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Observations of another shape as the model's, flattened by the space's rule where they are as it has them."""
    part = gym_spaces.leaves(space)[0][1]
    if observations.shape[1:] == part.shape:  # as the environment returns it
        observations = gym_spaces.flat(part, observations, batched=True)
    if int(np.prod(observations.shape[1:])) != int(np.prod(shape)):
        raise DatasetError(f"the dataset's observations have shape {list(observations.shape[1:])}, {list(shape)} was wanted")
    return observations.reshape(-1, *shape)


def _recorded(made: Components, actions: np.ndarray) -> np.ndarray:
    """Actions `[rows, ...]` of the environment as the replay buffer stores them, `[rows, A]`; NaN stays NaN."""
    finite = np.isfinite(np.asarray(actions, np.float64).reshape(len(actions), -1))
    missing = np.asarray(~finite.all(axis=1))
    convert = jax.jit(jax.vmap(made.spaces.recorded))
    filled = np.where(missing.reshape(-1, *(1,) * (actions.ndim - 1)), np.zeros_like(actions[:1]), actions)
    parts = [np.asarray(convert(jnp.asarray(part))) for part in np.array_split(filled, -(-len(filled) // 100_000))]
    return np.where(missing[:, None], np.nan, np.concatenate(parts)).astype(np.float32)


def fill(buffer: TrajectoryBuffer, dataset: Dataset, render: Render | None) -> TrajectoryBuffer:
    """Return the replay buffer with the last episodes of a dataset in it, as many as it has room for.

    Args:
        buffer: Given up; the episodes go to its first environment.
        dataset: As the model sees it (`for_model`), with actions.
        render: What makes observations of its rows, or None.
    """
    capacity = buffer.follows.shape[1]
    ends = dataset.first + dataset.lengths + 1
    begin = int(dataset.first[np.searchsorted(ends, max(ends[-1] - capacity, 0))])
    if ends[-1] - begin > capacity:  # one episode longer than the buffer: its end
        begin = int(ends[-1]) - capacity
    rows = np.arange(begin, int(ends[-1]))
    follows = ~np.isin(rows, dataset.first)
    follows[0] = False
    seen = dataset.observations[rows]
    if render is not None:
        parts = [np.asarray(render(jnp.asarray(seen[i : i + _AT_ONCE]))) for i in range(0, len(seen), _AT_ONCE)]
        seen = np.concatenate(parts)
    assert dataset.actions is not None
    fields = {"observations": seen, "actions": np.nan_to_num(dataset.actions[rows]), "rewards": dataset.rewards[rows]}
    fields |= {"terminated": dataset.terminated[rows], "follows": follows}
    filled = {name: getattr(buffer, name).at[0, : len(rows)].set(jnp.asarray(value)) for name, value in fields.items()}
    counts = {"head": buffer.head.at[0].set(len(rows) % capacity), "filled": buffer.filled.at[0].set(len(rows))}
    return buffer._replace(**filled, **counts)


def from_buffer(buffer: TrajectoryBuffer, environment: str) -> Dataset:
    """Return what a replay buffer holds as a dataset, episode by episode.

    Args:
        buffer: Experience.
        environment: Id of the environment, for the dataset to note.

    Raises:
        DatasetError: If there is no transition.
    """
    arrays = {name: np.asarray(getattr(buffer, name)) for name in ("observations", "actions", "rewards", "terminated")}
    follows, head, filled = (np.asarray(x) for x in (buffer.follows, buffer.head, buffer.filled))
    capacity, picked, lengths = follows.shape[1], [], []
    for e in range(len(filled)):
        rows = (head[e] - filled[e] + np.arange(filled[e])) % capacity
        linked = follows[e, rows]
        starts = np.flatnonzero(~linked)
        for start, end in zip(starts, np.append(starts[1:], len(rows)), strict=True):
            if end - start > 1:
                picked.append((e, rows[start:end]))
                lengths.append(end - start - 1)
    if not picked:
        raise DatasetError("the replay buffer holds no transition yet")
    joined = {name: np.concatenate([array[e, rows] for e, rows in picked]) for name, array in arrays.items()}
    return Dataset(**joined, lengths=np.array(lengths), about=data.About(environment))


def sample_rows(dataset: Dataset, count: int, most_bytes: int) -> np.ndarray:
    """Return rows spread evenly over a dataset, as it stores them.

    Args:
        dataset: To pick from.
        count: Rows, at most.
        most_bytes: That they may take up.
    """
    rows: Any = dataset.observations
    picked = max(min(count, len(rows), most_bytes // max(rows[0].nbytes, 1)), 1)
    return np.asarray(rows[np.linspace(0, len(rows) - 1, picked).astype(int)])
