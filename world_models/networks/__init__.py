"""Networks of world models: encoders, decoders, predictors, posteriors and priors, built from matrix products.

| | signature |
|---|---|
| encoders | `Encoder(shape, latent, *, rngs, ...)`; maps observations `[*batch, *shape]` to `[*batch, latent]` |
| decoders | `Decoder(shape, latent, *, rngs, ...)`; maps latents to observations |
| predictors | `Predictor(latent, action, *, rngs, ...)` with `begin`, `step` and `follow`; see `predictors.py` |
| history | `HistoryAttention(token, steps, size, *, rngs, ...)`; maps `[*batch, steps, token]` to `[*batch, size]` |
| posteriors | `Posterior(latent, action, size, params_per_dim, *, rngs, ...)`; see `posteriors.py` |
| priors | `Prior(context, size, *, rngs, ...)`; see `priors.py` |
| `functional(build)` | `(init, network)`: any network as functions of its weights |

Arguments that many networks take, and that their own docstrings leave out:

- `shape`: of an observation: `(O,)` of a vector, `(K, O)` of a history, the newest step first, `(H, W, C)` of a frame;
- `latent`, `action`, `size`: sizes of a latent, of all actions of a block together, and of the latent variable;
- `hidden`: units of the hidden layers;
- `rngs`: source of the initial weights.
"""

from world_models.networks.encoders import (
    Identity,
    PatchDecoder,
    PatchEncoder,
    ResidualEncoder,
    StandardisedPatchEncoder,
    VectorDecoder,
    VectorEncoder,
    ViTEncoder,
)
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
    "ResidualEncoder",
    "StandardisedPatchEncoder",
    "VectorDecoder",
    "VectorEncoder",
    "VelocityPredictor",
    "ViTEncoder",
    "functional",
]
