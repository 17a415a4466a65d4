"""H-JEPA: slower levels above a world model, which predict its latents many steps ahead under macro-actions.

    level 1:   z[t+1] = f(z[t], a[t])          level n:   z[t+k] = f^n(z[t], m[t]),     m[t] inferred from z[t+k]

A macro-action m summarises k steps by a few numbers of limited information: it cannot encode the steps, only their outcome.
It is the latent variable of `latent_variables`, and is inferred as such. Which macro-actions are likely depends on the state
and on the last change, since a wall excludes some. So a level learns a prior, and planners choose the noise from which a
macro-action is drawn: they cannot choose what no recording shows. The levels of a hierarchy differ in their stride k alone.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.6; latent actions from videos alone:
Schmidt, Jiang (2024), Learning to act without actions, arXiv:2312.10812; planning in the noise of a prior that depends on
the state: Singh et al. (2021), Parrot, arXiv:2011.10024.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from world_models import data
from world_models.base import WorldModel
from world_models.data import About, Dataset
from world_models.latent_variables import latent_variable_model
from world_models.losses.bottleneck import LatentRegularizer
from world_models.networks import MLPPosterior, QuantilePrior, VelocityPredictor
from world_models.training.trainer import trainer

PyTree = Any
_CHUNK = 200  # updates in one call


def macro_model(
    size: int,
    *,
    stride: int,
    macro: int = 2,
    limit: LatentRegularizer | None = None,
    hidden: tuple[int, ...] = (192, 192),
    steps: int = 3,
    sigma: float = 0.1,
    **settings: Any,
) -> WorldModel:
    """Build a level that predicts latents of the level below `stride` rows ahead.

    Its `predict(params, state, action, macro_action)` takes an action of size 0.

    Args:
        size: Of a latent of the level below.
        stride: Rows k in one of its steps.
        macro: Size of a macro-action.
        limit: On its information, of `world_models.losses.bottleneck`; `gaussian()` by default.
        hidden: Units of the hidden layers of predictor, posterior and prior.
        steps, sigma, **settings: Of `LatentVariableSettings`.
    """
    return latent_variable_model(
        size,
        0,
        latents=macro,
        limit=limit,
        block=stride,
        normalised=False,
        predictor=partial(VelocityPredictor, hidden=hidden),
        posterior=partial(MLPPosterior, hidden=hidden),
        prior=partial(QuantilePrior, hidden=hidden),
        steps=steps,
        sigma=sigma,
        **settings,
    )


def encode_dataset(dataset: Dataset, encode: Callable[[np.ndarray], jax.Array], apart: int = 1) -> Dataset:
    """Encode trajectories as latents, without actions.

    Args:
        encode: `observations [N, ...] -> latents [N, D]`.
        apart: Rows from one that is encoded to the next.
    """
    steps = dataset.lengths // apart
    rows = np.concatenate([begin + apart * np.arange(n + 1) for begin, n in zip(dataset.first, steps, strict=True)])
    return Dataset(
        observations=data.encoded(dataset, rows, encode),
        actions=None,
        rewards=dataset.rewards[rows],
        terminated=dataset.terminated[rows],
        lengths=steps,
        about=About(dataset.about.environment, notes={"rows": "representations"}),
    )


def learn(
    model: WorldModel,
    dataset: Dataset,
    key: jax.Array,
    *,
    stride: int,
    updates: int,
    window: int = 4,
    batch: int = 256,
    learning_rate: float = 3e-3,
) -> tuple[PyTree, dict[str, float]]:
    """Fit a level to encoded trajectories.

    Args:
        model: Of `macro_model`.
        dataset: Of `encode_dataset`.
        stride: The level's.
        updates, batch: Gradient steps, and windows in each.
        window: Steps of the level in a window.
        learning_rate: Of Adam, falling to a hundredth along a cosine.

    Returns:
        The parameters, and the metrics of the last updates.

    Raises:
        DatasetError: If no trajectory is `window * stride` rows long.
    """
    fall = optax.cosine_decay_schedule(learning_rate, updates, 0.01)
    model_trainer = trainer(
        model,
        optimizer=optax.chain(optax.clip_by_global_norm(5.0), optax.adam(fall)),
        batch=batch,
        length=window,
        updates=min(_CHUNK, updates),
        averaging=0.99,
        block=stride,
    )
    source = data.resident(dataset, window * stride)
    training, metrics = model_trainer.init(key), {}
    for _ in range(0, updates, _CHUNK):
        training, metrics = model_trainer.fit(training, source)
    return training.params, {name: float(value) for name, value in metrics.items()}
