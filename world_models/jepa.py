"""A joint-embedding predictive architecture for vector observations, with an ensemble that knows what it has not seen.

    z[t]   = encoder(o[t]),        (Δz, r̂, ℓ̂) = predictor_m(ẑ[t], a[t]),        ẑ[t+1] = ẑ[t] + Δz,     m = 1..M

Predictions are made and compared in the latent space, over several chained steps, never in the space of observations
(LeCun 2022, section 4.4). The targets z carry no gradient; the variance and covariance terms keep the encoder from mapping
everything to one point. The encoder begins as the identity on normalised observations, with a network that bends it added,
and learns more slowly than the predictors: from a few hundred steps, a representation that moves under them costs more
than it brings.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from world_models.anticollapse import variance_covariance
from world_models.base import Imagined, Moments, WorldModel, perceived
from world_models.data import Window
from world_models.networks import MLP

PyTree = Any


class Networks(nnx.Module):
    """Encoder and ensemble of predictors, whose last layer holds the reward and the termination head.

    Args:
        observation: Size O of an observation.
        action: Size A of an action as the model sees it.
        latent: Size D of a latent, at least O.
        hidden: Units of every hidden layer.
        members: Size M of the ensemble.
        rngs: Source of the initial weights.
    """

    def __init__(self, observation: int, action: int, latent: int, hidden: int, members: int, *, rngs: nnx.Rngs):
        self.observation, self.latent = observation, latent
        self.bend = MLP((observation, hidden, latent), last_scale=0.0, rngs=rngs)
        self.predictor = MLP((latent + action, hidden, hidden, latent + 2), members=members, last_scale=0.1, rngs=rngs)

    def encode(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch latent"]:
        """Normalised observations to latents."""
        straight = jnp.pad(observation, [(0, 0)] * (observation.ndim - 1) + [(0, self.latent - self.observation)])
        return straight + self.bend(observation)

    def predict(
        self, latent: Float[Array, "M B latent"], action: Float[Array, "M B action"]
    ) -> tuple[Float[Array, "M B latent"], Float[Array, "M B"], Float[Array, "M B"]]:
        """Every member's next latent, normalised reward, and log-odds of termination."""
        out = self.predictor(jnp.concatenate([latent, action], axis=-1))
        return latent + out[..., : self.latent], out[..., self.latent], out[..., self.latent + 1]


def jepa(
    observation: int,
    action: int,
    *,
    latent: int | None = None,
    hidden: int = 64,
    members: int = 5,
    discount: float = 0.99,
    variance_weight: float = 1.0,
    covariance_weight: float = 0.04,
    decay: float = 0.9,
    learning_rate: float = 1e-3,
    encoder_rate: float = 0.1,
) -> WorldModel:
    """Build a JEPA world model for vector observations.

    Its loss over windows of L steps, averaged over members and windows, is

        Σ_k decay^k ( |ẑ[k+1] - z[k+1]|² + (r̂[k] - r[k])² + BCE(ℓ̂[k], terminated[k]) ) + variance–covariance(z)

    Args:
        observation: Size O of an observation.
        action: Size A of an action as `space.embed` shows it.
        latent: Size D of the latent; `max(O, 8)` unless told.
        hidden: Units of every hidden layer.
        members: Size of the ensemble, at least 2, for disagreement is measured between members.
        discount: Per step, in what is imagined.
        variance_weight: Of the hinge that keeps every latent dimension varying.
        covariance_weight: Of the squared correlations between latent dimensions.
        decay: How much less each further chained step counts; lower values trust one-step accuracy more.
        learning_rate: Of AdamW.
        encoder_rate: Factor on it for the encoder.

    Raises:
        ValueError: If a size is impossible, or a factor lies outside `(0, 1]`.
    """
    latent = max(observation, 8) if latent is None else latent
    if min(observation, action, hidden) < 1 or latent < observation or members < 2:
        raise ValueError(
            "a JEPA needs observation, action, hidden >= 1, latent >= observation, members >= 2; got "
            f"observation={observation}, action={action}, hidden={hidden}, latent={latent}, members={members}"
        )
    if not 0 < discount <= 1 or not 0 < decay <= 1:
        raise ValueError(f"discount and decay must lie in (0, 1]; got discount={discount}, decay={decay}")

    def build(rngs: nnx.Rngs) -> Networks:
        return Networks(observation, action, latent, hidden, members, rngs=rngs)

    graph = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0]

    def networks(params: PyTree) -> Networks:
        return nnx.merge(graph, params["network"])

    def init(key: jax.Array) -> PyTree:
        weights = nnx.to_pure_dict(nnx.split(build(nnx.Rngs(params=key)))[1])
        rewards = (jnp.zeros(()), jnp.ones(()), jnp.ones(()))
        scales = Moments(jnp.zeros(observation), jnp.ones(observation), *rewards, terminates=jnp.asarray(False))
        return {"network": weights, "scales": scales}

    def normalise(params: PyTree, moments: Moments) -> PyTree:
        return params | {"scales": moments._replace(action_mean=None, action_std=None)}  # the space scales actions

    def embed(params: PyTree, observations: jax.Array) -> jax.Array:
        scales = params["scales"]
        return networks(params).encode((observations - scales.observation_mean) / scales.observation_std)

    def encode(params: PyTree, observation: jax.Array) -> Imagined:
        return perceived(embed(params, observation))

    def predict(params: PyTree, state: Imagined, action: jax.Array) -> Imagined:
        every = (jnp.broadcast_to(x, (members, 1, x.shape[-1])) for x in (state.latent, action))
        following, rewards, log_odds = (x[:, 0] for x in networks(params).predict(*every))
        mean, scales = following.mean(axis=0), params["scales"]
        # networks extrapolate: without a ceiling, plans and critics chase rewards that were never seen
        reward = jnp.minimum(rewards.mean() + scales.reward_mean / scales.reward_std, scales.reward_best / scales.reward_std)
        # nor may plans flee into an end where none was ever seen: a head told nothing but "no" says anything elsewhere
        going_on = jnp.where(scales.terminates, jax.nn.sigmoid(-log_odds.mean()), 1.0)
        spread = jnp.square(following - mean).sum(axis=-1).mean() + rewards.var()
        return Imagined(
            latent=mean,
            reward=state.alive * reward,
            alive=state.alive * discount * going_on,
            doubt=state.alive * jnp.sqrt(spread + 1e-6),  # the root has no slope at 0
        )

    def loss(params: PyTree, windows: Window) -> tuple[jax.Array, dict[str, jax.Array]]:
        net, scales = networks(params), params["scales"]
        latents = embed(params, windows.observations)
        targets = jax.lax.stop_gradient(latents)
        rewards = (windows.rewards - scales.reward_mean) / scales.reward_std
        mask = windows.mask.astype(latents.dtype)
        imagined, length = latents[:, :, 0], mask.shape[-1]
        terms = {"latent": jnp.zeros(()), "reward": jnp.zeros(()), "termination": jnp.zeros(())}
        for k in range(length):  # short and static: unrolled, the steps' products overlap
            imagined, reward, log_odds = net.predict(imagined, windows.actions[:, :, k])
            weight = decay**k * mask[:, :, k] * members / jnp.maximum(mask[:, :, 0].sum(), 1.0)
            terms["latent"] += jnp.sum(weight * jnp.square(imagined - targets[:, :, k + 1]).sum(axis=-1))
            terms["reward"] += jnp.sum(weight * jnp.square(reward - rewards[:, :, k]))
            bce = optax.sigmoid_binary_cross_entropy(log_odds, windows.terminated[:, :, k].astype(latents.dtype))
            terms["termination"] += jnp.sum(weight * bce)
        reached = jnp.concatenate([mask[..., :1], mask], axis=-1).reshape(-1)
        flat = latents.reshape(-1, latent)
        collapse, parts = variance_covariance(
            flat, reached, variance_weight=variance_weight, covariance_weight=covariance_weight
        )
        return sum(terms.values(), start=collapse), terms | parts

    def slow(network: PyTree) -> PyTree:
        return jax.tree.map_with_path(lambda path, _: path[0].key == "bend", network)

    optimizer = optax.chain(optax.adamw(learning_rate), optax.masked(optax.scale(encoder_rate), slow))
    return WorldModel(init, encode, predict, normalise, loss, optimizer, members)
