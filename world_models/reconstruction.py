"""The generative baseline a JEPA is compared with: the same encoder and predictor, trained to reconstruct every frame.

    z[t] = encoder(o[t]),      ẑ[t+k] = predictor(ẑ[t+k-1], a[t+k-1]),      ô[t+k] = decoder(ẑ[t+k])

Its latents must hold everything about a frame, including what cannot be predicted or does not matter. Nothing else keeps the
encoder from collapsing, and nothing else is needed.

Source: the deterministic part of Hafner et al. (2019), PlaNet, arXiv:1811.04551.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from world_models.assembly import Batch, chained, flat, from_start, mean_error
from world_models.base import Metrics, WorldModel
from world_models.latent import LatentSettings, assembled, side_terms
from world_models.losses.terms import mean
from world_models.networks import PatchDecoder


def reconstruction_loss(s: LatentSettings, latent_weight: float, batch: Batch) -> tuple[jax.Array, Metrics]:
    """The loss of `reconstruction`, and its terms before weighting."""
    net, frames = batch.net, batch.frames

    def missed(latents: jax.Array, wanted: jax.Array) -> jax.Array:
        error = (net.decoder(flat(latents)) - flat(wanted)) ** 2
        return error.reshape(*latents.shape[:3], -1).mean(axis=-1)

    every = chained(batch, s.steps)
    errors = [missed(step.latent, from_start(frames, k, step.latent)) for k, step in enumerate(every, 1)]
    gap = jnp.mean((every[0].latent - jax.lax.stop_gradient(batch.latents[:, :, 1:])) ** 2, axis=-1)
    terms = {
        "reconstruction": mean(missed(batch.latents, frames), batch.reached),
        "prediction": mean_error(errors, batch.reached, s.decay),
        "latent": mean_error([gap], batch.reached, s.decay),
    }
    total = terms["reconstruction"] + s.prediction_weight * terms["prediction"] + latent_weight * terms["latent"]
    beside, more = side_terms(batch, every, s)
    return total + beside, terms | more | {"loss": total + beside}


def reconstruction(
    shape: tuple[int, ...],
    action: int,
    *,
    decoder: Callable[..., Any] = PatchDecoder,
    latent_weight: float = 0.0,
    **settings: Any,
) -> WorldModel:
    """Build a world model that reconstructs frames, with the verbs of `latent_world_model`.

    Its loss over windows of L steps, a mean over windows, times and (normalised) pixels, is

        |decoder(z[t]) - o[t]|² + prediction_weight Σ_k decay^(k-1) |decoder(ẑ[t+k]) - o[t+k]|² / Σ_k decay^(k-1)
        + latent_weight |ẑ[t+1] - z[t+1]|² + inverse_weight |read(z[t], z[t+1]) - a[t]|² + reward and termination

    Args:
        shape: Of an observation, as for `latent_world_model`.
        action: Size of an action, as for `latent_world_model`.
        decoder: `(shape, latent, *, rngs) -> decoder`, with the encoder's levels and fit. Every chained prediction is
            decoded, which costs as much as encoding.
        latent_weight: Of predicted latents' error, without a gradient to the targets: latents that planners compare.
        **settings: Others of `LatentSettings`; objective, targets and starts are not used.

    Raises:
        ValueError: As `latent_world_model` raises, or if the predictor is an ensemble.
    """
    s = LatentSettings(**({"inverse_weight": 0.0, "decoder": decoder} | settings))
    if s.starts != "every" or s.inferred:
        raise ValueError(f"reconstruction needs starts='every', inferred=False; got {s.starts!r}, {s.inferred}")
    return assembled(partial(reconstruction_loss, s, latent_weight), shape, action, s)
