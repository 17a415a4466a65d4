"""The networks world models are made of: encoders, decoders and predictors, in matrix products alone.

| | signature |
|---|---|
| encoders | `Encoder(shape, latent, *, rngs, ...)`, called on observations `[*batch, *shape]`, gives `[*batch, latent]` |
| predictors | `Predictor(latent, action, *, rngs, ...)`, with `begin`, `step` and `follow`; see `predictors.py` |
| memory | `Recollection(token, steps, size, *, rngs, ...)`, called on `[*batch, steps, token]`, gives `[*batch, size]` |
| explainers | `Explainer(latent, action, size, numbers, *, rngs, ...)`: what led there; see `explainers.py` |
"""

from world_models.networks.encoders import Identity, PatchDecoder, PatchEncoder, VectorEncoder, ViTEncoder
from world_models.networks.explainers import MLPExplainer
from world_models.networks.mlp import MLP
from world_models.networks.objects import ObjectExplainer, ObjectPredictor
from world_models.networks.predictors import CausalPredictor, MLPPredictor, RecurrentPredictor
from world_models.networks.recollection import Recollection

__all__ = [
    "MLP",
    "CausalPredictor",
    "Identity",
    "MLPExplainer",
    "MLPPredictor",
    "ObjectExplainer",
    "ObjectPredictor",
    "PatchDecoder",
    "PatchEncoder",
    "Recollection",
    "RecurrentPredictor",
    "VectorEncoder",
    "ViTEncoder",
]
