"""Short-term memory of where the model was wrong: what was just tried, and did not come about, is not planned again.

A plan that leads through a wall beside the door is made again at every look, for the model believes in it as before. So what
the last K blocks of actions led to is kept beside what they were predicted to lead to, and predictions nearby are corrected:

    ẑ[t+1] = predict(z[t], u[t]) + Σ_k w_k e_k / max(1, Σ_k w_k)
    w_k = exp(-½ (|z[t] - z_k|² / |ẑ_k - z_k|² + |u[t] - u_k|² / |u_k|²)),      e_k = (seen after block k) - ẑ_k

A correction reaches as far as the step that it corrects was expected to go, so that no width has to be chosen. Where the
model is right, e_k = 0, it changes nothing. It is locally weighted regression of the residual with a prior of zero: Atkeson,
Moore & Schaal (1997), Locally weighted learning for control.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

LatentVector = Float[Array, " D"]
Block = Float[Array, " block"]
_FLOOR = 1e-6  # squared length of an action, in planner variables, below which its correction reaches nowhere


class Corrections(NamedTuple):
    """The last K blocks, newest first: where they began, what was done, how long a step was expected, what was wrong."""

    latents: Float[Array, "K D"]
    actions: Float[Array, "K block"]
    reach: Float[Array, " K"]
    """Squared length `|ẑ_k - z_k|²`; 0 for what has not happened."""
    errors: Float[Array, "K D"]


def nothing(count: int, latent: int, action: int) -> Corrections:
    """The memory of so many blocks before anything was tried."""
    return Corrections(jnp.zeros((count, latent)), jnp.zeros((count, action)), jnp.zeros(count), jnp.zeros((count, latent)))


def remember(
    corrections: Corrections, began: LatentVector, action: Block, expected: LatentVector, seen: LatentVector
) -> Corrections:
    """The memory with one more block in it, and without the oldest.

    The block, in planner variables, began from a latent, was expected by the model alone to lead to another, and led to
    `seen`.
    """
    if len(corrections.reach) == 0:
        return corrections
    newest = Corrections(began, action, jnp.sum((expected - began) ** 2), seen - expected)
    return Corrections(*(jnp.roll(old, 1, axis=0).at[0].set(new) for old, new in zip(corrections, newest, strict=True)))


def correct(corrections: Corrections, latent: LatentVector, action: Block, predicted: LatentVector) -> LatentVector:
    """Return the model's prediction of a step, corrected by recent prediction errors nearby."""
    reach = jnp.where(corrections.reach > 0, corrections.reach, 1.0)  # in units of the model's states, whatever they are
    place = jnp.sum((latent - corrections.latents) ** 2, axis=-1) / reach
    manner = jnp.sum((action - corrections.actions) ** 2, axis=-1) / (jnp.sum(corrections.actions**2, axis=-1) + _FLOOR)
    weights = jnp.where(corrections.reach > 0, jnp.exp(-0.5 * (place + manner)), 0.0)
    return predicted + weights @ corrections.errors / jnp.maximum(1.0, weights.sum())
