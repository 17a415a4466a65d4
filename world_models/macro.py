"""H-JEPA: slower levels above a world model, each predicting its representations many steps ahead under macro-actions.

    level 1:   z[t+1] = f(z[t], a[t])          level n:   z[t+k] = f^n(z[t], m[t]),     m[t] inferred from z[t+k]

What happens in k steps is told to a level by a macro-action m of few numbers, whose information is limited: it cannot spell
out the steps, only say what they come to. It is the latent variable of `latent_variables`, all of whose change it tells, and
is inferred as such. Which of them are likely depends on where one is, and where one comes from: a wall leaves some out. So
a level learns that, too, and planners choose the noise that a macro-action is drawn by: what no recording shows is not
among what they can choose. The levels of a hierarchy differ in their stride k alone, and any number is the same code.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.6; latent actions from what is only watched:
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
    """A level that predicts the representations of the lowest so many of its rows ahead.

    Its `predict(params, state, nothing, macro-action)` takes an action of size 0.

    Args:
        size: Of a representation.
        stride: Rows of what is represented in one of its steps, k.
        macro: Size of a macro-action.
        limit: On what it tells, of `world_models.losses.bottleneck`; `noise()` unless told.
        hidden: Units of the hidden layers of predictor, explainer and prior.
        steps: Predictions chained in the loss.
        sigma: Deviation of errors that need no explanation, in units of a representation.
        **settings: Others of `latent_variable_model`.
    """
    return latent_variable_model(
        size,
        0,
        latents=macro,
        limit=limit,
        block=stride,
        normalised=False,
        predictor=partial(VelocityPredictor, hidden=hidden),
        explainer=partial(MLPPosterior, hidden=hidden),
        prior=partial(QuantilePrior, hidden=hidden),
        steps=steps,
        sigma=sigma,
        **settings,
    )


def encode_dataset(dataset: Dataset, encode: Callable[[np.ndarray], jax.Array], apart: int = 1) -> Dataset:
    """The same trajectories as representations, without actions.

    Args:
        dataset: What is represented.
        encode: `rows [N, ...] -> representations [N, D]`.
        apart: Rows from one that is represented to the next.
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
    """Fit a level to represented trajectories.

    Args:
        model: Of `macro_model`.
        data: Of `encode_dataset`.
        key: Consumed.
        stride: The level's.
        updates: Gradient steps.
        window: Steps of the level in a window.
        batch: Windows in each.
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
