"""Settings made into the functions they name: the world model, a distance in its latent space, slower levels."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mpc.agent.config import AgentConfig
from world_models import WorldModel, ensemble_jepa, jepa, networks, reconstruction
from world_models.distances.shortest_path import shortest_path_distance
from world_models.distances.temporal import Distance, latent_distance, temporal_distance
from world_models.losses import anticollapse
from world_models.macro import macro_model
from world_models.networks.encoders import LEVELS

ENCODERS = {
    "patch": networks.PatchEncoder,
    "vit": networks.ViTEncoder,
    "vector": networks.VectorEncoder,
    "residual": networks.ResidualEncoder,
}
PREDICTORS = {"mlp": networks.MLPPredictor, "recurrent": networks.RecurrentPredictor, "causal": networks.CausalPredictor}
OBJECTIVES = ("vicreg", "barlow_twins", "sigreg", "infonce", "byol", "reconstruction", "variance_covariance")
DECORRELATED = ("vicreg", "sigreg")
"""Objectives that ask for decorrelation, and are known to have collapsed where few directions are left."""


def world_model(config: AgentConfig, shape: tuple[int, ...], action: int, history: int) -> WorldModel:
    """Return the world model that settings describe, for observations of a shape and `history` of them at once.

    Raises:
        ValueError: If a name is none of the choices, a network takes no such option, or observations don't fit.
    """
    model = config.world_model
    if model.objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {model.objective!r}")
    try:
        if model.predictor == "ensemble":
            return _ensemble(config, shape, action, history)
        return _single(config, shape, action, history)
    except TypeError as error:  # of a keyword that a network does not have
        raise ValueError(f"the settings don't fit: {error}") from error


def _ensemble(config: AgentConfig, shape: tuple[int, ...], action: int, history: int) -> WorldModel:
    model = config.world_model
    given: dict[str, Any] = {"latent": model.latent, "history": history, "hidden": model.hidden, "members": model.members}
    given |= {"block": model.block, "discount": model.discount, "learning_rate": model.learning_rate}
    given |= {"reward": model.reward_heads, "decoder": _decoder(config, shape), "targets": model.targets}
    if model.inverse_weight:
        given["inverse_weight"] = model.inverse_weight
    if model.encoder not in ("auto", "residual"):
        given["encoder"] = _encoder(config, shape)
    if model.objective == "variance_covariance":
        given |= _plain(model.objective_options)
    else:
        given["objective"] = _objective(config)
    return ensemble_jepa(shape if len(shape) == 3 else shape[0], action, **given)


def _single(config: AgentConfig, shape: tuple[int, ...], action: int, history: int) -> WorldModel:
    model = config.world_model
    common = _common(config, shape) | {"prediction_weight": model.prediction_weight, "inverse_weight": model.inverse_weight}
    if model.objective == "reconstruction":
        decoder = partial(networks.PatchDecoder, **_patches(config, shape))
        return reconstruction(shape, action, decoder=decoder, **common, **_plain(model.objective_options))
    return jepa(
        shape,
        action,
        history=history,
        objective=_objective(config),
        targets=model.targets,
        straightness_weight=model.straightness_weight,
        reward=model.reward_heads,
        discount=model.discount,
        decoder=_decoder(config, shape),
        **common,
    )


def watching_model(config: AgentConfig, shape: tuple[int, ...], actions: int) -> WorldModel:
    """Return a twin of the world model that infers what was done, for recordings that tell no actions.

    Inferred actions are of a small size, or they would carry the whole next observation. An ensemble, which has an encoder
    of its own kind, raises a ValueError.
    """
    model = config.world_model
    if model.predictor == "ensemble":
        raise ValueError(
            "recordings without actions are learnt from by one predictor, not an ensemble: set predictor to "
            f"{', '.join(PREDICTORS)}"
        )
    twin = config.changed({"inverse_weight": 0.0, "reward_heads": False, "decoder": False, "objective_options": {}})
    common = _common(twin, shape) | {"objective": _objective(config), "targets": model.targets}
    return jepa(shape, actions, inferred=True, inverse_weight=0.0, **common)


def _common(config: AgentConfig, shape: tuple[int, ...]) -> dict[str, Any]:
    """Settings of every world model with a single predictor."""
    model = config.world_model
    return {
        "block": model.block,
        "latent": 64 if model.latent is None else model.latent,
        "encoder": _encoder(config, shape),
        "predictor": partial(PREDICTORS[model.predictor], **_plain(model.predictor_options)),
        "steps": model.chained_steps,
        "learning_rate": model.learning_rate,
    }


def distance(config: AgentConfig, latent: int) -> Distance | None:
    """Return the distance that settings name, or None; an option that it does not take raises a ValueError."""
    name, learning = config.cost.distance, config.learning
    if name in ("none", "latent"):
        return latent_distance() if name == "latent" else None
    learnt: Callable[..., Distance] = temporal_distance
    if name == "shortest_path":
        learnt = partial(shortest_path_distance, block=config.world_model.block)
    given: dict[str, Any] = {"updates": max(learning.finetune_updates, 1)} | dict(_plain(config.cost.distance_options))
    try:
        return learnt(latent=latent, **given)
    except TypeError as error:  # of a keyword that it does not have, or that another setting gives
        raise ValueError(f"distance_options don't fit: {error}") from error


def macro_models(config: AgentConfig, latent: int) -> tuple[WorldModel, ...]:
    """Return the models of slower levels, the lowest first."""
    macro = config.macro_levels
    given: dict[str, Any] = {"macro": macro.macro, "hidden": macro.macro_hidden, "sigma": macro.macro_sigma}
    return tuple(macro_model(latent, stride=stride, **given) for stride in macro.strides)


def _encoder(config: AgentConfig, shape: tuple[int, ...]) -> Any:
    model, history = config.world_model, config.perception.history
    vector = "residual" if history > 1 else "vector"
    kind = model.encoder if model.encoder != "auto" else vector if len(shape) == 1 else "patch"
    options = _patches(config, shape) if kind == "patch" else dict(_plain(model.encoder_options))
    if kind == "residual":
        options = {"hidden": model.hidden, **options}
    return partial(ENCODERS[kind], **options)


def _patches(config: AgentConfig, shape: tuple[int, ...]) -> dict[str, Any]:
    """Options of a patch encoder or decoder; nothing of an image is cropped unless asked for."""
    given = dict(_plain(config.world_model.encoder_options))
    whole = math.prod(side for side, _ in given.get("levels", LEVELS))
    if "fit" not in given and len(shape) == 3:
        given["fit"] = "pad" if any(side % whole for side in shape[:2]) else None
    return given


def _objective(config: AgentConfig) -> Any:
    options = dict(_plain(config.world_model.objective_options))
    name = config.world_model.objective
    return partial(getattr(anticollapse, "decorrelation" if name == "variance_covariance" else name), **options)


def _decoder(config: AgentConfig, shape: tuple[int, ...]) -> Any:
    """A decoder head for vectors; images are decoded by their nearest neighbours instead, see `agent.viz`."""
    if not config.world_model.decoder:
        return None
    if len(shape) == 3:
        raise ValueError("images are not decoded by a head; learn from recordings of states, which a readout decodes")
    return partial(networks.VectorDecoder, hidden=(config.world_model.hidden,))


def _plain(options: Any) -> Any:
    """Options with tuples where JSON made lists of them."""
    if isinstance(options, list | tuple):
        return tuple(_plain(part) for part in options)
    return {name: _plain(part) for name, part in options.items()} if isinstance(options, Mapping) else options
