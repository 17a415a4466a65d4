"""An ensemble of predictors, whose members disagree where they have seen little.

    (Δz_m, r̂_m, ℓ̂_m) = MLP_m(z_m, a),        ẑ_m' = z_m + Δz_m,        m = 1..M

The last layer of each member holds the change of the latent, the reward and the log-odds of termination, so that a step of
all members costs one batched matrix product a layer.

Source: Lakshminarayanan, Pritzel, Blundell (2017), Deep ensembles, arXiv:1612.01474; Sekar et al. (2020), Plan2Explore,
arXiv:2005.05960, for disagreement.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.heads import Step
from world_models.networks.mlp import MLP


class EnsemblePredictor(nnx.Module):
    """M residual perceptrons with reward and termination heads in their last layer; it has no carry.

    Disagreement is measured between members: fewer than two raise a ValueError.
    """

    def __init__(
        self, latent: int, action: int, *, members: int = 5, hidden: tuple[int, ...] = (64, 64), rngs: nnx.Rngs
    ) -> None:
        if members < 2:
            raise ValueError(f"disagreement is measured between at least two members; got members={members}")
        self.latent, self.members = latent, members
        self.network = MLP((latent + action, *hidden, latent + 2), members=members, last_scale=0.1, rngs=rngs)

    def begin(self, latent: Float[Array, "*batch latent"]) -> tuple[()]:
        """No carry."""
        return ()

    def step(
        self, carry: tuple[()], latent: Float[Array, "_ *batch latent"], action: Float[Array, "_ *batch action"]
    ) -> tuple[tuple[()], Step]:
        """One step of every member, `[M, *batch, ...]`; a leading axis of 1 is shared by all members."""
        batch = latent.shape[1:-1]
        inputs = (jnp.broadcast_to(x, (self.members, *x.shape[1:])) for x in (latent, action))
        latents, actions = (x.reshape(self.members, math.prod(batch), x.shape[-1]) for x in inputs)
        out = self.network(jnp.concatenate([latents, actions], axis=-1))
        following = latents + out[..., : self.latent]
        reward, log_odds = (out[..., self.latent + i].reshape(self.members, *batch) for i in range(2))
        return (), Step(following.reshape(self.members, *batch, -1), reward, log_odds)


def disagreement(step: Step, rewarded: bool) -> jax.Array:
    """Root mean square, over members and numbers, of the members' `[M, *batch, ...]` deviations from their mean.

        sqrt( (mean_m |ẑ_m - mean ẑ|² + Var_m r̂_m) / (D + 1) )

    It is in units of latents and rewards, and does not grow with the size D of a latent. Rewards count if they are learnt.
    """
    spread = jnp.square(step.latent - step.latent.mean(axis=0)).sum(axis=-1).mean(axis=0)
    if rewarded:
        assert step.reward is not None
        spread = spread + step.reward.var(axis=0)
    return jnp.sqrt((spread + 1e-6) / (step.latent.shape[-1] + rewarded))  # the root has no slope at 0
