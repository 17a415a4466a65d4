"""Learning by watching: most trajectories tell no actions, a few do.

1. *Watch.* A model that infers actions instead of being told them, `pixel_jepa(shape, U, inferred=True, inverse_weight=0)`
   with a small U, or that needs none, `pixel_jepa(shape, 0)`, learns an encoder and what tends to happen from trajectories
   alone.
2. *Fit.* `adopt` gives its encoder to a model that is told actions, which learns its predictor and its inverse model from
   the few trajectories that tell them, with `encoder_rate` small or 0.
3. *Label.* That inverse model tells what was done in all the others (`label`), and the model learns on from everything.

Sources: Baker et al. (2022), Video PreTraining, arXiv:2206.11795, for labels by an inverse model; Schmidt and Jiang (2024),
LAPO, arXiv:2312.10812, for inferred actions.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from world_models.base import WorldModel
from world_models.data import Dataset, DatasetError
from world_models.training.trainer import Training

PyTree = Any


def adopt(training: Training, watched: PyTree, parts: tuple[str, ...] = ("encoder",)) -> Training:
    """Begin training with what another model has learnt.

    Args:
        training: Of the model to be trained, as `Trainer.init` made it.
        watched: The parameters of the other model.
        parts: Of the network, which to take: `"encoder"`, and `"predictor"` where both take actions of the same size.

    Returns:
        The training with copies of these parts, and of the scales of observations.

    Raises:
        ValueError: If a part is missing in either model, or of another shape.
    """
    network = dict(training.network)
    for part in parts:
        theirs, own = watched["network"].get(part), network.get(part)
        if theirs is None or own is None:
            both = f"{sorted(network)} and {sorted(watched['network'])}"
            raise ValueError(f"there is no {part!r} in both models; they have {both}")
        if jax.tree.map(jnp.shape, own) != jax.tree.map(jnp.shape, theirs):
            raise ValueError(
                f"the {part} learnt by watching has other shapes than this model's: were the settings the same?"
            )
        network[part] = theirs
    seen = {name: watched["scales"][name] for name in ("mean", "std")}
    scales = jax.tree.map(jnp.copy, training.params["scales"] | seen)
    # two copies: training gives up the memory of both
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
    """Tell what was done in trajectories that don't say, by the inverse model.

    The action between two observations is part of up to `block` blocks, and is the mean of what is read off each.

    Args:
        model: That was told actions, with `inverse_weight` above 0.
        params: Its parameters.
        dataset: Trajectories; actions that it tells are not looked at.
        block: Actions in a step of the model.
        render: As for `training.trainer`.
        batch: Observations encoded at a time.

    Returns:
        The same trajectories with actions, in the unit of those that the model learnt from.

    Raises:
        DatasetError: If an episode is shorter than a block.
        ValueError: If the model cannot infer actions.
    """
    infer_action = model.infer_action
    if infer_action is None:
        raise ValueError("this model learnt no actions to infer: it needs to be told some, with inverse_weight above 0")
    if dataset.lengths.min() < block:
        raise DatasetError(f"an episode has {dataset.lengths.min()} transitions, and a block of actions spans {block}")

    @jax.jit
    def encode(params: PyTree, observations: jax.Array) -> Any:
        frames = observations if render is None else render(observations)
        return jax.vmap(lambda o: model.encode(params, o))(frames)

    @jax.jit
    def read(params: PyTree, before: Any, after: Any) -> jax.Array:
        return jax.vmap(lambda a, b: infer_action(params, a, b))(before, after)

    def blocks(start: int, length: int) -> np.ndarray:
        """`[length + 1 - block, block, A]`, what is read off every block of an episode."""
        rows = np.arange(start, start + length + 1)
        chunks = [rows[i : i + batch] for i in range(0, len(rows), batch)]
        # chunks of one size, so that one program serves all episodes
        wide = (np.pad(chunk, (0, batch - len(chunk)), mode="edge") for chunk in chunks)
        parts = [encode(params, dataset.observations[each]) for each in wide]
        states = jax.tree.map(lambda *each: jnp.concatenate(each)[: len(rows)], *parts)
        before = jax.tree.map(lambda x: x[: length + 1 - block], states)
        return np.asarray(read(params, before, jax.tree.map(lambda x: x[block:], states)))

    actions = None
    for start, length in zip(dataset.first, dataset.lengths, strict=True):
        found = blocks(int(start), int(length))
        if actions is None:
            actions = np.zeros((len(dataset.rewards), found.shape[-1]), found.dtype)
        total, count = np.zeros((length, found.shape[-1])), np.zeros((length, 1))
        for offset in range(block):
            covered = slice(offset, offset + len(found))
            total[covered] += found[:, offset]
            count[covered] += 1
        actions[start : start + length] = total / count
    return replace(dataset, actions=actions)
