"""Latent world models whose results were measured: an ensemble that learns rewards, and a model of frames and blocks.

| recipe | for | encoder | predictor |
|---|---|---|---|
| `ensemble_jepa` | learning from own experience with rewards | vector, history or frames | ensemble with heads |
| `jepa` | reaching goals, learnt from recordings | patches, or any | perceptron, or any |
"""

from functools import partial
from typing import Any

from world_models.base import WorldModel
from world_models.ensemble import EnsemblePredictor
from world_models.latent import latent_world_model
from world_models.losses import anticollapse
from world_models.networks.encoders import ResidualEncoder, StandardisedPatchEncoder

ENSEMBLE: dict[str, Any] = dict(reward=True, targets="stop_gradient", starts="first", steps=None, scale_actions=False)
"""Settings of every `ensemble_jepa`."""

IMAGE_LATENT = 32
"""Size of the latent of an image, by default."""


def ensemble_jepa(
    observation: int | tuple[int, ...],
    action: int,
    *,
    latent: int | None = None,
    history: int = 1,
    hidden: int = 64,
    members: int = 5,
    variance_weight: float = 1.0,
    covariance_weight: float = 0.04,
    encoder_rate: float = 0.1,
    **settings: Any,
) -> WorldModel:
    """Build a JEPA that learns rewards and terminations with an ensemble, for vectors, histories or images.

        (Δz, r̂, ℓ̂) = predictor_m(ẑ[t], a[t]),        ẑ[t+1] = ẑ[t] + Δz,        m = 1..M

    Its loss over windows of L steps, summed over members, averaged over windows, is

        Σ_k decay^k ( |ẑ[k+1] - z[k+1]|² + Huber(r̂[k] - r[k]) + BCE(ℓ̂[k], terminated[k]) ) + variance-covariance(z)

    where targets carry no gradient.

    Args:
        observation: Size O of a vector, or `(H, W, C)` of an image, bytes or numbers from 0 to 1.
        action: Size A of an action in `[-1, 1]`.
        latent: Size D of a latent; by default the larger of 8 and the encoder's input for vectors, 32 for images.
        history: Steps K in an observation of the model; 1 for images.
        hidden: Units of every hidden layer.
        members: Of the ensemble, at least 2.
        variance_weight: Of the hinge that keeps every latent dimension varying.
        covariance_weight: Of the squared correlations between latent dimensions.
        encoder_rate: Factor on the learning rate for the encoder of vectors: with few data, a representation that moves
            under the predictors costs more than it brings.
        **settings: Others of `LatentSettings`.

    Raises:
        ValueError: If a size is impossible, or a factor lies outside its range.
    """
    shape = (observation,) if isinstance(observation, int) else tuple(observation)
    image = len(shape) == 3
    known = 1 if image else ResidualEncoder.inputs(shape[0], history)
    latent = (IMAGE_LATENT if image else max(known, 8)) if latent is None else latent
    if min(*shape, action, hidden, history) < 1 or latent < known:
        raise ValueError(
            f"an ensemble needs observation, action, hidden, history >= 1, latent >= {known}; got observation="
            f"{observation}, action={action}, hidden={hidden}, history={history}, latent={latent}"
        )
    weights = {"variance_weight": variance_weight, "covariance_weight": covariance_weight}
    chosen: dict[str, Any] = {
        "latent": latent,
        "history": history,
        "encoder": partial(StandardisedPatchEncoder if image else ResidualEncoder, hidden=hidden),
        "predictor": partial(EnsemblePredictor, members=members, hidden=(hidden, hidden)),
        "objective": partial(anticollapse.decorrelation, **weights),
        "encoder_rate": 1.0 if image else encoder_rate,
    }
    return latent_world_model(shape, action, **(ENSEMBLE | chosen | settings))


def jepa(shape: tuple[int, ...], action: int, **settings: Any) -> WorldModel:
    """Build a JEPA with an inverse model, for frames (or, with a `VectorEncoder`, vectors) and blocks of actions.

    It takes the arguments of `latent_world_model`, and raises as it does; by default actions are inferred with a weight of 1
    and straightness is measured.
    """
    return latent_world_model(shape, action, **({"inverse_weight": 1.0, "straightness_weight": 0.0} | settings))
