"""Settings made into the functions they name: a world model, and a distance in its latent space."""

import math
from functools import partial
from typing import Any

from mpc.agent.goal_config import GoalSettings
from world_models import pixel_jepa, reconstruction
from world_models.base import WorldModel
from world_models.distances.shortest_path import shortest_path_distance
from world_models.distances.temporal import Distance, latent_distance, temporal_distance
from world_models.losses import anticollapse
from world_models.networks import (
    CausalPredictor,
    MLPPredictor,
    PatchDecoder,
    PatchEncoder,
    RecurrentPredictor,
    VectorEncoder,
    ViTEncoder,
)
from world_models.networks.encoders import LEVELS

ENCODERS = {"patch": PatchEncoder, "vit": ViTEncoder, "vector": VectorEncoder}
PREDICTORS = {"mlp": MLPPredictor, "recurrent": RecurrentPredictor, "causal": CausalPredictor}
OBJECTIVES = ("vicreg", "barlow_twins", "sigreg", "infonce", "byol", "reconstruction")
DECORRELATED = ("vicreg", "sigreg")
"""Objectives that ask for decorrelation, and are known to have collapsed where few directions are left."""


def distance(settings: GoalSettings) -> Distance:
    """The distance that settings name.

    Raises:
        ValueError: If it is not there, or its settings are unknown to it.
    """
    if settings.distance == "latent":
        return latent_distance()
    try:
        learnt = partial(shortest_path_distance, block=settings.block) if settings.distance == "ways" else temporal_distance
        given = {"updates": settings.finetune_updates} | _plain(settings.distance_settings)
        return learnt(latent=settings.latent, **given)
    except TypeError as error:  # of a keyword that it does not have, or that another setting gives
        raise ValueError(f"distance_settings don't fit: {error}") from error


def world_model(settings: GoalSettings, shape: tuple[int, ...], action: int) -> WorldModel:
    """The world model that settings describe.

    Args:
        settings: Sizes, networks, objective.
        shape: Of an observation.
        action: Size of one action of the environment.

    Raises:
        ValueError: If a name is none of the choices, a network takes no such setting, or observations don't fit.
    """
    kind = settings.encoder if settings.encoder != "auto" else "vector" if len(shape) == 1 else "patch"
    given = _plain(settings.encoder_settings)
    if kind == "patch" and "fit" not in given and len(shape) == 3:
        # nothing is cropped unless asked for
        given["fit"] = "pad" if any(side % _whole(given) for side in shape[:2]) else None
    common: dict[str, Any] = {
        "block": settings.block,
        "latent": settings.latent,
        "encoder": partial(_named("encoder", kind, ENCODERS), **given),
        "predictor": partial(_named("predictor", settings.predictor, PREDICTORS), **_plain(settings.predictor_settings)),
        "steps": settings.steps,
        "prediction_weight": settings.prediction_weight,
        "inverse_weight": settings.inverse_weight,
        "learning_rate": settings.learning_rate,
    }
    if settings.objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {settings.objective!r}")
    try:
        if settings.objective == "reconstruction":
            decoder = partial(PatchDecoder, **given)
            return reconstruction(shape, action, decoder=decoder, **common, **_plain(settings.objective_settings))
        objective = partial(getattr(anticollapse, settings.objective), **_plain(settings.objective_settings))
        return pixel_jepa(
            shape,
            action,
            objective=objective,
            targets=settings.targets,
            straightness_weight=settings.straightness_weight,
            **common,
        )
    except TypeError as error:  # of a keyword that a network does not have
        raise ValueError(f"the settings don't fit: {error}") from error


def _named(what: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}; got {name!r}")
    return choices[name]


def _whole(given: dict[str, Any]) -> int:
    """Side of the largest patch of patches, in pixels."""
    return math.prod(side for side, _ in given.get("levels", LEVELS))


def _plain(settings: Any) -> Any:
    """Settings with tuples where JSON made lists of them."""
    if isinstance(settings, list | tuple):
        return tuple(_plain(part) for part in settings)
    return {name: _plain(part) for name, part in settings.items()} if hasattr(settings, "items") else settings
