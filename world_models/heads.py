"""Reward, termination and decoder heads, for any predictor.

| head | reads | learns |
|---|---|---|
| reward | `(z[t], a[t], ẑ[t+1])` | `(r[t] - mean) / std`, by squared error up to a threshold, linear error beyond |
| termination | the same | the log-odds that the step terminated the episode, by cross-entropy |
| decoder | `z[t]` without its gradient | the normalised observation, by squared error; nothing else changes |

An ensemble has the first two in its members' last layer (`ensemble.EnsemblePredictor`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from world_models.data import Moments
from world_models.losses.terms import mean
from world_models.networks.mlp import MLP
from world_models.networks.predictors import Actions, Latents

Numbers = Float[Array, "*batch"]


class Step(NamedTuple):
    """The outputs of a predictor and its heads for a step, with the same leading axes."""

    latent: jax.Array
    reward: jax.Array | None = None
    """Normalised: `(reward - mean) / std`."""
    log_odds: jax.Array | None = None
    """Of termination."""


class RewardHead(nnx.Module):
    """A perceptron with one layer of `hidden` units that reads reward and log-odds of termination off a step."""

    def __init__(self, latent: int, action: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.network = MLP((2 * latent + action, hidden, 2), last_scale=0.1, rngs=rngs)

    def __call__(self, latent: Latents, action: Actions, following: Latents) -> tuple[Numbers, Numbers]:
        """Normalised reward, and log-odds of termination."""
        out = self.network(jnp.concatenate([latent, action, following - latent], axis=-1))
        return out[..., 0], out[..., 1]


def expected_reward(reward: jax.Array, scales: Moments) -> jax.Array:
    """The mean of the members' normalised rewards, in standard deviations of the rewards seen.

    Networks extrapolate: without a ceiling at the best reward seen, plans and critics chase rewards that do not exist.
    """
    return jnp.minimum(reward.mean() + scales.reward_mean / scales.reward_std, scales.reward_best / scales.reward_std)


def continuation(log_odds: jax.Array, scales: Moments) -> jax.Array:
    """The probability that a step does not terminate the episode; 1 while no termination has been seen.

    A head that has only learnt "no" may say anything elsewhere, and plans would flee into such terminations.
    """
    return jnp.where(scales.terminates, jax.nn.sigmoid(-log_odds.mean()), 1.0)


def reward_errors(reward: jax.Array, paid: jax.Array, threshold: float | None) -> jax.Array:
    """Twice the Huber losses of normalised rewards: squared up to a threshold, linear beyond; squared where that is None."""
    if threshold is None:
        return jnp.square(reward - paid)
    error = jnp.abs(reward - paid)
    within = jnp.minimum(error, threshold)
    return jnp.square(within) + 2 * threshold * (error - within)


def termination_errors(log_odds: jax.Array, terminated: jax.Array) -> jax.Array:
    """Binary cross-entropies of terminations, in nats."""
    log_odds, seen = jnp.broadcast_arrays(log_odds, terminated.astype(log_odds.dtype))
    return optax.sigmoid_binary_cross_entropy(log_odds, seen)


def decoding_error(
    decoder: Callable[[jax.Array], jax.Array], latents: jax.Array, frames: jax.Array, weights: jax.Array
) -> jax.Array:
    """The mean squared error of decoded latents `[N, T, D]`, with a gradient to the decoder alone.

    Args:
        decoder: `latents [N, T, D] -> observations [N, T, ...]`.
        frames: Normalised observations, `[N, T, ...]`.
        weights: `[N, T]`, how many times each counts.
    """
    error = jnp.square(decoder(jax.lax.stop_gradient(latents)) - frames)
    return mean(error.reshape(*error.shape[:2], -1).mean(axis=-1), weights)
