"""The networks world models are made of: encoders, decoders and predictors, in matrix products alone.

| | signature |
|---|---|
| encoders | `Encoder(shape, latent, *, rngs, ...)`, called on observations `[*batch, *shape]`, gives `[*batch, latent]` |
| predictors | `Predictor(latent, action, *, rngs, ...)`, with `begin`, `step` and `follow`; see `predictors.py` |
| memory | `HistoryAttention(token, steps, size, *, rngs, ...)`, called on `[*batch, steps, token]`, gives `[*batch, size]` |
| explainers | `Explainer(latent, action, size, numbers, *, rngs, ...)`: what led there; see `explainers.py` |
| priors | `Prior(context, size, *, rngs, ...)`: which latent variables are likely where; see `priors.py` |
| `functional(build)` | `(init, network)`: any of these as functions of their weights |
"""

from world_models.networks.encoders import Identity, PatchDecoder, PatchEncoder, VectorEncoder, ViTEncoder
from world_models.networks.functional import functional
from world_models.networks.history_attention import HistoryAttention
from world_models.networks.mlp import MLP
from world_models.networks.objects import ObjectPosterior, ObjectPredictor
from world_models.networks.posteriors import MLPPosterior
from world_models.networks.predictors import CausalPredictor, MLPPredictor, RecurrentPredictor, VelocityPredictor
from world_models.networks.priors import QuantilePrior

__all__ = [
    "MLP",
    "CausalPredictor",
    "HistoryAttention",
    "Identity",
    "MLPPosterior",
    "MLPPredictor",
    "ObjectPosterior",
    "ObjectPredictor",
    "PatchDecoder",
    "PatchEncoder",
    "QuantilePrior",
    "RecurrentPredictor",
    "VectorEncoder",
    "VelocityPredictor",
    "ViTEncoder",
    "functional",
]
