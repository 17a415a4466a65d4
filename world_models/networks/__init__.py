"""The networks world models are made of: encoders, decoders and predictors, in matrix products alone.

| | signature |
|---|---|
| encoders | `Encoder(shape, latent, *, rngs, ...)`, called on observations `[*batch, *shape]`, gives `[*batch, latent]` |
| predictors | `Predictor(latent, action, *, rngs, ...)`, with `begin`, `step` and `follow`; see `predictors.py` |
| memory | `Recollection(token, steps, size, *, rngs, ...)`, called on `[*batch, steps, token]`, gives `[*batch, size]` |
| explainers | `Explainer(latent, action, size, numbers, *, rngs, ...)`: what led there; see `explainers.py` |
| priors | `Prior(context, size, *, rngs, ...)`: which latent variables are likely where; see `priors.py` |
| `functional(build)` | `(init, network)`: any of these as functions of their weights |
"""

from world_models.networks.encoders import Identity, PatchDecoder, PatchEncoder, VectorEncoder, ViTEncoder
from world_models.networks.explainers import MLPExplainer
from world_models.networks.functional import functional
from world_models.networks.mlp import MLP
from world_models.networks.objects import ObjectExplainer, ObjectPredictor
from world_models.networks.predictors import CausalPredictor, HeadingPredictor, MLPPredictor, RecurrentPredictor
from world_models.networks.priors import QuantilePrior
from world_models.networks.recollection import Recollection

__all__ = [
    "MLP",
    "CausalPredictor",
    "HeadingPredictor",
    "Identity",
    "MLPExplainer",
    "MLPPredictor",
    "ObjectExplainer",
    "ObjectPredictor",
    "PatchDecoder",
    "PatchEncoder",
    "QuantilePrior",
    "Recollection",
    "RecurrentPredictor",
    "VectorEncoder",
    "ViTEncoder",
    "functional",
]
