"""The generative baseline a JEPA is compared with: the same encoder and predictor, made to reconstruct every frame.

    z[t] = encoder(o[t]),      ẑ[t+k] = predictor(ẑ[t+k-1], a[t+k-1]),      ô[t+k] = decoder(ẑ[t+k])

What it learns must say everything about a frame, what cannot be predicted or does not matter included. Nothing else keeps it
from collapsing, and nothing else is needed.

Source: the deterministic part of Hafner et al. (2019), PlaNet, arXiv:1811.04551.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from world_models.base import WorldModel
from world_models.losses import anticollapse
from world_models.networks import MLPPredictor, PatchDecoder, PatchEncoder
from world_models.pixels import Batch, Networks, chained, discounted, latent_world


class Autoencoder(Networks):
    """The networks of a JEPA, and a decoder.

    Args:
        shape: Of an observation.
        action: Size of an action, all of a block together.
        latent: Size of a latent.
        encoder: `(shape, latent, *, rngs) -> encoder`.
        predictor: `(latent, action, *, rngs) -> predictor`.
        decoder: `(shape, latent, *, rngs) -> decoder`.
        hidden: Units of the hidden layer that actions are read by.
        rngs: Source of the initial weights.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        action: int,
        latent: int,
        encoder: Callable[..., Any],
        predictor: Callable[..., Any],
        decoder: Callable[..., Any],
        hidden: int,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(shape, action, latent, encoder, predictor, hidden, rngs=rngs)
        self.decoder = decoder(shape, latent, rngs=rngs)


def reconstruction(
    shape: tuple[int, ...],
    action: int,
    *,
    block: int = 1,
    latent: int = 64,
    encoder: Callable[..., Any] = PatchEncoder,
    predictor: Callable[..., Any] = MLPPredictor,
    decoder: Callable[..., Any] = PatchDecoder,
    steps: int = 1,
    decay: float = 0.9,
    prediction_weight: float = 1.0,
    latent_weight: float = 0.0,
    inverse_weight: float = 0.0,
    hidden: int = 128,
    learning_rate: float = 1e-3,
    encoder_rate: float = 1.0,
) -> WorldModel:
    """Build a world model that reconstructs frames, with the verbs of `pixel_jepa`.

    Its loss over windows of L steps, a mean over windows, times and (normalised) pixels, is

        |decoder(z[t]) - o[t]|² + prediction_weight Σ_k decay^(k-1) |decoder(ẑ[t+k]) - o[t+k]|² / Σ_k decay^(k-1)
        + latent_weight |ẑ[t+1] - z[t+1]|² + inverse_weight |read(z[t], z[t+1]) - a[t]|²

    Args:
        shape: As for `pixel_jepa`.
        action: As for `pixel_jepa`.
        block: As for `pixel_jepa`.
        latent: As for `pixel_jepa`.
        encoder: As for `pixel_jepa`.
        predictor: As for `pixel_jepa`.
        decoder: `(shape, latent, *, rngs) -> decoder`, with the encoder's levels and fit.
        steps: Predictions chained in the loss; every one is decoded, which costs as much as encoding.
        decay: How much less each further chained step counts.
        prediction_weight: Of reconstructing predicted frames.
        latent_weight: Of predicted latents' error, without a gradient to the targets: latents that planners compare.
        inverse_weight: Of reading actions off latents.
        hidden: Units of the hidden layer that actions are read by.
        learning_rate: Of AdamW.
        encoder_rate: Factor on it for the encoder.

    Raises:
        ValueError: As `pixel_jepa` raises.
    """
    inverse_weight = inverse_weight if action else 0.0

    def build(rngs: nnx.Rngs) -> Autoencoder:
        return Autoencoder(tuple(shape), action * block, latent, encoder, predictor, decoder, hidden, rngs=rngs)

    def loss(batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        net, frames = batch.net, batch.frames

        def missed(latents: jax.Array, wanted: jax.Array) -> jax.Array:
            error = (net.decoder(latents) - wanted) ** 2
            return error.reshape(*error.shape[:2], -1).mean(axis=-1)

        every = chained(batch, min(steps, batch.actions.shape[1]))
        errors = [missed(guess, frames[:, k:]) for k, guess in enumerate(every, 1)]
        terms = {
            "reconstruction": anticollapse.mean(missed(batch.latents, frames), batch.reached),
            "prediction": discounted(errors, batch.reached, decay),
        }
        gap = jnp.mean((every[0] - jax.lax.stop_gradient(batch.latents[:, 1:])) ** 2, axis=-1)
        terms["latent"] = anticollapse.mean(gap, batch.reached[:, 1:])
        total = terms["reconstruction"] + prediction_weight * terms["prediction"] + latent_weight * terms["latent"]
        if inverse_weight:
            terms["inverse"] = anticollapse.inverse_dynamics(net.read, batch.latents, batch.actions, batch.told)
            total += inverse_weight * terms["inverse"]
        return total, terms | {"loss": total}

    return latent_world(
        build,
        loss,
        shape,
        action,
        block=block,
        steps=steps,
        decay=decay,
        inferred=False,
        readable=inverse_weight > 0,
        learning_rate=learning_rate,
        encoder_rate=encoder_rate,
    )
