"""Learning from recordings of which most have no actions, and a few do.

1. *Action-free training.* A model that infers actions instead of being given them,
   `jepa(shape, U, inferred=True, inverse_weight=0.0)` with a small U, or that needs none, `jepa(shape, 0)`, learns an
   encoder and what tends to happen from trajectories alone.
2. *Fit.* `adopt` gives its encoder to a model with actions, which learns its predictor and its inverse model from the few
   trajectories that have them, with `encoder_rate` small or 0.
3. *Label.* That inverse model infers the actions of all others (`label`), and the model learns on from everything.

Sources: Baker et al. (2022), Video PreTraining, arXiv:2206.11795, for labels by an inverse model; Schmidt and Jiang (2024),
LAPO, arXiv:2312.10812, for inferred actions.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from world_models.base import LatentState, PyTree, WorldModel
from world_models.data import Dataset, DatasetError
from world_models.training.trainer import Training


def adopt(training: Training, donor: PyTree, parts: tuple[str, ...] = ("encoder",)) -> Training:
    """Begin training with parts of another model's network.

    Args:
        training: Of the model to be trained, as `Trainer.init` made it.
        donor: The parameters of the other model.
        parts: Of the network, to take: `"encoder"`, and `"predictor"` where both take actions of the same size.

    Returns:
        The training with copies of these parts, and of the scales of observations.

    Raises:
        ValueError: If a part is missing in either model, or of another shape.
    """
    network = dict(training.network)
    for part in parts:
        theirs, own = donor["network"].get(part), network.get(part)
        if theirs is None or own is None:
            raise ValueError(f"there is no {part!r} in both of {sorted(network)} and {sorted(donor['network'])}")
        if jax.tree.map(jnp.shape, own) != jax.tree.map(jnp.shape, theirs):
            raise ValueError(f"the adopted {part} has other shapes than this model's: were the settings the same?")
        network[part] = theirs
    seen = {name: getattr(donor["scales"], name) for name in ("observation_mean", "observation_std")}
    scales = jax.tree.map(jnp.copy, training.params["scales"]._replace(**seen))
    # two copies: training gives up the RAM of both
    network, average = (jax.tree.map(jnp.copy, network) for _ in range(2))
    return training._replace(params=training.params | {"network": average, "scales": scales}, network=network)


def label(
    model: WorldModel,
    params: PyTree,
    dataset: Dataset,
    *,
    block: int = 1,
    render: Callable[[jax.Array], jax.Array] | None = None,
    batch: int = 256,
) -> Dataset:
    """Label trajectories without actions by the inverse model.

    The action between two observations is part of up to `block` blocks, and is the mean of what is inferred for each.

    Args:
        model: Trained with actions, with `inverse_weight` above 0.
        dataset: Trajectories; actions in it are ignored.
        block: Actions in a step of the model.
        render: As for `training.trainer`.
        batch: Observations encoded at a time.

    Returns:
        The same trajectories with actions, in the units of those that the model learnt from.

    Raises:
        DatasetError: If an episode is shorter than a block.
        ValueError: If the model cannot infer actions.
    """
    infer_action = model.infer_action
    if infer_action is None:
        raise ValueError("this model learnt no actions to infer: train it with some, and inverse_weight above 0")
    if dataset.lengths.min() < block:
        raise DatasetError(f"an episode has {dataset.lengths.min()} transitions, and a block of actions spans {block}")

    @jax.jit
    def encode(params: PyTree, observations: jax.Array) -> LatentState:
        frames = observations if render is None else render(observations)
        return jax.vmap(lambda o: model.encode(params, o))(frames)

    read = jax.jit(jax.vmap(infer_action, in_axes=(None, 0, 0)))
    actions = None
    for start, length in zip(dataset.first, dataset.lengths, strict=True):
        states = _encoded(partial(encode, params), dataset.observations, int(start), int(length), batch)
        before, after = (jax.tree.map(lambda x, c=cut: x[c], states) for cut in (slice(-block), slice(block, None)))
        found = np.asarray(read(params, before, after))
        if actions is None:
            actions = np.zeros((len(dataset.rewards), found.shape[-1]), found.dtype)
        actions[start : start + length] = mean_over_blocks(found, int(length))
    return replace(dataset, actions=actions)


def _encoded(encode: Callable[[Any], LatentState], observations: Any, start: int, length: int, batch: int) -> LatentState:
    """States of the `length + 1` rows of an episode, in chunks of one size, so that one program serves all episodes."""
    rows = np.arange(start, start + length + 1)
    chunks = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    padded = (np.pad(chunk, (0, batch - len(chunk)), mode="edge") for chunk in chunks)
    parts = [encode(observations[each]) for each in padded]
    return jax.tree.map(lambda *each: jnp.concatenate(each)[: len(rows)], *parts)


def mean_over_blocks(found: np.ndarray, length: int) -> np.ndarray:
    """The actions `[length, A]` of an episode, each the mean over the inferred blocks that it is part of.

    Args:
        found: Inferred blocks, `[length + 1 - block, block, A]`.
        length: Transitions of the episode.
    """
    total, count = np.zeros((length, found.shape[-1])), np.zeros((length, 1))
    for offset in range(found.shape[1]):
        covered = slice(offset, offset + len(found))
        total[covered] += found[:, offset]
        count[covered] += 1
    return total / count
