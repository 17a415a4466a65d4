"""Fit a world model to a trajectory buffer: many minibatch steps as one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from world_models import data
from world_models.base import Moments, WorldModel

PyTree = Any


class Training(NamedTuple):
    """Where training stands: everything a checkpoint needs to go on as if never interrupted."""

    params: PyTree
    """What to plan with: `params["network"]` is a running average of the weights being learnt."""
    network: PyTree
    """The weights being learnt."""
    optimizer: PyTree
    key: PRNGKeyArray
    updates: Int[Array, ""]
    """Gradient steps taken so far."""


class Trainer(NamedTuple):
    """`init(key) -> Training` and `fit(training, buffer) -> (training, metrics)`, a fixed number of gradient steps."""

    init: Callable[[PRNGKeyArray], Training]
    fit: Callable[[Training, data.TrajectoryBuffer], tuple[Training, dict[str, Array]]]


def moments(buffer: data.TrajectoryBuffer) -> Moments:
    """Scales of everything in the buffer, floored so that what never varied is not blown up.

    Args:
        buffer: With at least one transition.
    """
    mean, std = data.observation_moments(buffer)
    follows = jnp.roll(buffer.follows, -1, axis=1)  # a reward belongs to a row that the next one follows
    count = jnp.maximum(follows.sum(), 1)
    reward_mean = jnp.sum(buffer.rewards, where=follows) / count
    reward_std = jnp.sqrt(jnp.sum((buffer.rewards - reward_mean) ** 2, where=follows) / count)
    # a reward that hardly varies is measured by its size, or else it would drown every other cost
    floor = jnp.maximum(0.5 * jnp.abs(reward_mean), 1e-3)
    best = jnp.max(buffer.rewards, where=follows, initial=-jnp.inf)
    return Moments(mean, jnp.maximum(std, 1e-3), reward_mean, jnp.maximum(reward_std, floor), best)


def trainer(
    model: WorldModel,
    *,
    optimizer: optax.GradientTransformation | None = None,
    batch: int = 64,
    length: int = 4,
    updates: int = 200,
    averaging: float = 0.995,
) -> Trainer:
    """Make the training of a world model.

    Each member of the ensemble sees windows of its own. One `fit` is one compiled `lax.scan` over minibatches that reuses
    the memory of the parameters it is given.

    Args:
        model: What to train; `params["network"]` learns, the rest of `params` follows the data.
        optimizer: Any optax optimiser; the model's own unless told.
        batch: Windows per member and step.
        length: Steps per window, over which predictions are chained.
        updates: Gradient steps per `fit`.
        averaging: Share of the running average kept at each step (Polyak & Juditsky 1992); higher values smooth out more of
            the noise of minibatches, which plans would otherwise chase, and follow new data later.

    Raises:
        ValueError: If a number is less than 1, or averaging lies outside `[0, 1)`.
    """
    if min(batch, length, updates) < 1:
        raise ValueError(f"batch, length and updates must be at least 1; got {batch}, {length}, {updates}")
    if not 0 <= averaging < 1:
        raise ValueError(f"averaging must lie in [0, 1); got {averaging}")
    optimizer = model.optimizer if optimizer is None else optimizer

    def init(key: PRNGKeyArray) -> Training:
        key, draw = jax.random.split(key)
        params = model.init(draw)
        network = jax.tree.map(jnp.copy, params["network"])  # `fit` gives up the memory of both
        return Training(params, network, optimizer.init(network), key, jnp.zeros((), jnp.int32))

    def windows(buffer: data.TrajectoryBuffer, key: PRNGKeyArray) -> data.Window:
        drawn = data.sample(buffer, key, model.members * batch, length)
        return jax.tree.map(lambda x: x.reshape(model.members, batch, *x.shape[1:]), drawn)

    def fit(training: Training, buffer: data.TrajectoryBuffer) -> tuple[Training, dict[str, Array]]:
        params = model.normalise(training.params, moments(buffer))
        fixed = {name: part for name, part in params.items() if name != "network"}

        def update(carry: tuple[PyTree, PyTree, PyTree], key: PRNGKeyArray):
            average, network, state = carry
            slopes, metrics = jax.grad(lambda n: model.loss(fixed | {"network": n}, windows(buffer, key)), has_aux=True)(
                network
            )
            steps, state = optimizer.update(slopes, state, network)
            network = optax.apply_updates(network, steps)
            return (optax.incremental_update(network, average, 1 - averaging), network, state), metrics

        key, draw = jax.random.split(training.key)
        begun = (params["network"], training.network, training.optimizer)
        (average, network, state), metrics = jax.lax.scan(update, begun, jax.random.split(draw, updates))
        params = fixed | {"network": average}
        metrics = jax.tree.map(lambda m: m[-max(updates // 4, 1) :].mean(), metrics)  # the last quarter: where it stands
        return Training(params, network, state, key, training.updates + updates), metrics

    return Trainer(jax.jit(init), jax.jit(fit, donate_argnums=0))
