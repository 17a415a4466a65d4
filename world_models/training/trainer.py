"""Fit a world model to a trajectory buffer or a dataset: many minibatch steps as one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from world_models import data
from world_models.base import WorldModel
from world_models.data import Moments
from world_models.losses.anticollapse import moving_average
from world_models.networks.patches import unit
from world_models.training.diagnostics import collapse_report

PyTree = Any
Source = data.TrajectoryBuffer | data.Resident

_FRAMES = 1024  # of how many frames moments are taken


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
    """Three functions, all compiled; the metrics of a call are those of its last quarter, and how its last batch is
    embedded.

    `init(key) -> Training`. `fit(training, source) -> (training, metrics)`: a fixed number of gradient steps on windows
    drawn from a buffer or dataset on the device. `fit_windows(training, windows) -> (training, metrics)`: one gradient step
    for each of U batches that were drawn elsewhere, `[U, members, B, ...]`, with the scales that the parameters already
    have. Both reuse the memory of the `training` they are given.
    """

    init: Callable[[PRNGKeyArray], Training]
    fit: Callable[[Training, Source], tuple[Training, dict[str, Array]]]
    fit_windows: Callable[[Training, data.Window], tuple[Training, dict[str, Array]]]


def moments(source: Source) -> Moments:
    """Scales of everything in a buffer or dataset, floored so that what never varied is not blown up.

    Args:
        source: With at least one transition.
    """
    if isinstance(source, data.Resident):
        return source.moments
    buffer = source
    frames = buffer.observations.ndim > 3
    mean, std = _channel_moments(buffer) if frames else data.observation_moments(buffer)
    follows = jnp.roll(buffer.follows, -1, axis=1)  # a reward belongs to a row that the next one follows
    count = jnp.maximum(follows.sum(), 1)
    reward_mean = jnp.sum(buffer.rewards, where=follows) / count
    reward_std = jnp.sqrt(jnp.sum((buffer.rewards - reward_mean) ** 2, where=follows) / count)
    best = jnp.max(buffer.rewards, where=follows, initial=-jnp.inf)
    taken = follows.reshape(*follows.shape, *(1,) * (buffer.actions.ndim - 2))
    actions = buffer.actions.astype(jnp.float32)
    action_mean = jnp.sum(actions, axis=(0, 1), where=taken) / count
    action_std = jnp.sqrt(jnp.sum((actions - action_mean) ** 2, axis=(0, 1), where=taken) / count)
    ends = buffer.terminated.any()
    return Moments(mean, std, reward_mean, reward_std, best, action_mean, action_std, ends).floored()


def _channel_moments(buffer: data.TrajectoryBuffer) -> tuple[Array, Array]:
    """Mean and standard deviation of every channel, over frames spread evenly over all that were written."""
    environments = buffer.follows.shape[0]
    each = -(-_FRAMES // environments)
    rows = jnp.arange(each) * buffer.filled[:, None] // each
    return data.channel_moments(unit(buffer.observations[jnp.arange(environments)[:, None], rows]))


def trainer(
    model: WorldModel,
    *,
    optimizer: optax.GradientTransformation | None = None,
    batch: int = 64,
    length: int = 4,
    updates: int = 200,
    averaging: float = 0.995,
    block: int = 1,
    render: Callable[[Array], Array] | None = None,
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
        block: Actions of the environment in a step of a window, as the model takes them.
        render: `states [..., S] -> frames [..., H, W, C]`, applied to the observations of drawn windows, for a model that
            sees frames where states are stored; None for a model that sees what is stored.

    Raises:
        ValueError: If a number is less than 1, or averaging lies outside `[0, 1)`.
    """
    if min(batch, length, updates, block) < 1:
        raise ValueError(f"batch, length, updates and block must be at least 1; got {batch}, {length}, {updates}, {block}")
    if not 0 <= averaging < 1:
        raise ValueError(f"averaging must lie in [0, 1); got {averaging}")
    optimizer = model.optimizer if optimizer is None else optimizer

    def init(key: PRNGKeyArray) -> Training:
        key, draw = jax.random.split(key)
        params = model.init(draw)
        network = jax.tree.map(jnp.copy, params["network"])  # `fit` gives up the memory of both
        return Training(params, network, optimizer.init(network), key, jnp.zeros((), jnp.int32))

    def windows(source: Source, key: PRNGKeyArray) -> data.Window:
        asked = (key, model.members * batch, length, block)
        drawn = data.draw(source, *asked) if isinstance(source, data.Resident) else data.sample(source, *asked)
        return jax.tree.map(lambda x: x.reshape(model.members, batch, *x.shape[1:]), drawn)

    def seen(windows: data.Window) -> data.Window:
        return windows if render is None else windows._replace(observations=render(windows.observations))

    def learn(training: Training, params: PyTree, count: int, drawn: Callable[[PRNGKeyArray, Any], data.Window], each: Any):
        """Gradient steps on the windows `drawn(key, part)`, with a key and a part of `each`, if there are any, per step."""
        fixed = {name: part for name, part in params.items() if name != "network"}

        def update(carry: tuple[PyTree, PyTree, PyTree], step: tuple[PRNGKeyArray, Any]):
            average, network, state = carry
            key, given = step
            passing = {"average": average, "key": jax.random.fold_in(key, 1)}
            slopes, metrics = jax.grad(
                lambda n: model.loss(fixed | passing | {"network": n}, seen(drawn(key, given))), has_aux=True
            )(network)
            steps, state = optimizer.update(slopes, state, network)
            network = optax.apply_updates(network, steps)
            return (moving_average(average, network, averaging), network, state), metrics

        key, draw = jax.random.split(training.key)
        keys = jax.random.split(draw, count)
        begun = (params["network"], training.network, training.optimizer)
        (average, network, state), metrics = jax.lax.scan(update, begun, (keys, each))
        metrics = jax.tree.map(lambda m: m[-max(count // 4, 1) :].mean(), metrics)  # the last quarter: where it stands
        last = seen(drawn(keys[-1], jax.tree.map(lambda x: x[-1], each)))
        metrics |= collapse(fixed | {"network": network}, last)
        return Training(fixed | {"network": average}, network, state, key, training.updates + count), metrics

    def collapse(params: PyTree, windows: data.Window) -> dict[str, Array]:
        """How the network being learnt, not its average, embeds a batch: a collapse shows there first."""
        mask = windows.mask.astype(jnp.float32)
        reached = jnp.concatenate([mask[..., :1], mask], axis=-1)
        encode = jax.vmap(lambda o: model.encode(params, o).latent)
        rows = windows.observations.reshape(-1, *windows.observations.shape[3:])
        return collapse_report(encode(rows), reached.reshape(-1))

    def fit(training: Training, source: Source) -> tuple[Training, dict[str, Array]]:
        params = model.normalise(training.params, moments(source))
        return learn(training, params, updates, lambda key, _: windows(source, key), None)

    def fit_windows(training: Training, windows: data.Window) -> tuple[Training, dict[str, Array]]:
        return learn(training, training.params, len(windows.mask), lambda _, given: given, windows)

    return Trainer(jax.jit(init), jax.jit(fit, donate_argnums=0), jax.jit(fit_windows, donate_argnums=0))
