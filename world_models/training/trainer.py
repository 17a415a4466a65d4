"""Fit a world model to a trajectory buffer or a dataset: many minibatch steps as one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from world_models import data
from world_models.base import Metrics, PyTree, WorldModel
from world_models.data import Moments
from world_models.losses.anticollapse import moving_average
from world_models.networks.patches import unit
from world_models.training.diagnostics import collapse_report

Source = data.TrajectoryBuffer | data.Resident

_FRAMES = 1024  # frames that moments are taken over


class Training(NamedTuple):
    """The state of training: everything a checkpoint needs to continue it as if never interrupted."""

    params: PyTree
    """To plan with: `params["network"]` is a moving average of the weights being learnt."""
    network: PyTree
    """The weights being learnt."""
    optimizer: PyTree
    key: PRNGKeyArray
    updates: Int[Array, ""]
    """Gradient steps taken so far."""


class Trainer(NamedTuple):
    """Three compiled functions.

    | function | what it does |
    |---|---|
    | `init(key) -> Training` | begins training |
    | `fit(training, source) -> (training, metrics)` | a fixed number of gradient steps on windows drawn from a buffer or dataset on the device |
    | `fit_windows(training, windows) -> (training, metrics)` | one gradient step for each of U batches drawn elsewhere, `[U, members, B, ...]`, with the scales that the parameters already have |

    Metrics are means over the last quarter of a call, and `collapse_report` of its last batch. `fit` and `fit_windows` reuse
    the RAM of the `training` they are given.
    """  # noqa: E501

    init: Callable[[PRNGKeyArray], Training]
    fit: Callable[[Training, Source], tuple[Training, Metrics]]
    fit_windows: Callable[[Training, data.Window], tuple[Training, Metrics]]


class Rules(NamedTuple):
    """The rules of a gradient step."""

    model: WorldModel
    optimizer: optax.GradientTransformation
    averaging: float
    render: Callable[[Array], Array] | None

    def rendered(self, windows: data.Window) -> data.Window:
        """Windows with frames where states are stored."""
        return windows if self.render is None else windows._replace(observations=self.render(windows.observations))


def moments(source: Source) -> Moments:
    """Moments of everything in a buffer or dataset that is not empty, with the scales of rewards and actions."""
    if isinstance(source, data.Resident):
        return source.moments
    found = data.buffer_moments(source)
    if source.observations.ndim > 3:
        mean, std = _channel_moments(source)
        found = found._replace(observation_mean=mean, observation_std=std)
    return found.scaled()


def _channel_moments(buffer: data.TrajectoryBuffer) -> tuple[Array, Array]:
    """Mean and standard deviation of every channel, over frames spread evenly over all that were written."""
    environments = buffer.follows.shape[0]
    each = -(-_FRAMES // environments)
    rows = jnp.arange(each) * buffer.filled[:, None] // each
    return data.channel_moments(unit(buffer.observations[jnp.arange(environments)[:, None], rows]))


def draw_windows(source: Source, key: PRNGKeyArray, members: int, batch: int, length: int, block: int) -> data.Window:
    """Windows `[members, batch, length, ...]` of blocks of actions, from a buffer or a dataset on the device."""
    asked = (key, members * batch, length, block)
    drawn = data.draw(source, *asked) if isinstance(source, data.Resident) else data.sample(source, *asked)
    return jax.tree.map(lambda x: x.reshape(members, batch, *x.shape[1:]), drawn)


def learn(
    rules: Rules,
    training: Training,
    params: PyTree,
    count: int,
    drawn: Callable[[PRNGKeyArray, Any], data.Window],
    each: Any,
) -> tuple[Training, Metrics]:
    """Take `count` gradient steps.

    Args:
        params: Those of `training`, with the scales to use.
        drawn: `(key, part) -> windows` of one step.
        each: Parts, one per step along the leading axis; None for none.
    """
    model = rules.model
    fixed = {name: part for name, part in params.items() if name != "network"}

    def update(carry: tuple[PyTree, PyTree, PyTree], step: tuple[PRNGKeyArray, Any]):
        average, network, state = carry
        key, given = step
        passing = {"average": average, "key": jax.random.fold_in(key, 1)}
        slopes, metrics = jax.grad(
            lambda n: model.loss(fixed | passing | {"network": n}, rules.rendered(drawn(key, given))), has_aux=True
        )(network)
        steps, state = rules.optimizer.update(slopes, state, network)
        network = optax.apply_updates(network, steps)
        return (moving_average(average, network, rules.averaging), network, state), metrics

    key, draw = jax.random.split(training.key)
    keys = jax.random.split(draw, count)
    begun = (params["network"], training.network, training.optimizer)
    (average, network, state), metrics = jax.lax.scan(update, begun, (keys, each))
    metrics = jax.tree.map(lambda m: m[-max(count // 4, 1) :].mean(), metrics)
    last = rules.rendered(drawn(keys[-1], jax.tree.map(lambda x: x[-1], each)))
    # of the network being learnt, not of its average: a collapse shows there first
    metrics |= embedding_report(model, fixed | {"network": network}, last)
    return Training(fixed | {"network": average}, network, state, key, training.updates + count), metrics


def embedding_report(model: WorldModel, params: PyTree, windows: data.Window) -> Metrics:
    """The `collapse_report` of the latents of windows `[M, B, L, ...]`."""
    mask = windows.mask.astype(jnp.float32)
    reached = jnp.concatenate([mask[..., :1], mask], axis=-1)
    encode = jax.vmap(lambda o: model.encode(params, o).latent)
    rows = windows.observations.reshape(-1, *windows.observations.shape[3:])
    return collapse_report(encode(rows), reached.reshape(-1))


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
    """Make the training of a world model; one `fit` is one compiled `lax.scan` over minibatches.

    Args:
        model: To train; `params["network"]` is learnt, the rest of `params` follows the data.
        optimizer: Any optax optimiser; the model's own by default.
        batch: Windows per member and step; members of an ensemble draw windows of their own.
        length: Steps per window, over which predictions are chained.
        updates: Gradient steps per `fit`.
        averaging: Share of the moving average kept at each step (Polyak & Juditsky 1992); higher values smooth out more of
            the noise of minibatches, which plans would otherwise exploit, and follow new data later.
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
    rules = Rules(model, model.optimizer if optimizer is None else optimizer, averaging, render)

    def init(key: PRNGKeyArray) -> Training:
        key, draw = jax.random.split(key)
        params = model.init(draw)
        network = jax.tree.map(jnp.copy, params["network"])  # `fit` gives up the RAM of both
        return Training(params, network, rules.optimizer.init(network), key, jnp.zeros((), jnp.int32))

    def fit(training: Training, source: Source) -> tuple[Training, Metrics]:
        def drawn(key: PRNGKeyArray, _: None) -> data.Window:
            return draw_windows(source, key, model.members, batch, length, block)

        return learn(rules, training, model.normalise(training.params, moments(source)), updates, drawn, None)

    def fit_windows(training: Training, windows: data.Window) -> tuple[Training, Metrics]:
        return learn(rules, training, training.params, len(windows.mask), lambda _, given: given, windows)

    return Trainer(jax.jit(init), jax.jit(fit, donate_argnums=0), jax.jit(fit_windows, donate_argnums=0))
