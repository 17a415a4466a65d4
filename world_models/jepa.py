"""A joint-embedding predictive architecture of rewarding worlds, with an ensemble that knows what it has not seen.

    z[t]   = encoder(o[t]),        (Δz, r̂, ℓ̂) = predictor_m(ẑ[t], a[t]),        ẑ[t+1] = ẑ[t] + Δz,     m = 1..M

Predictions are made and compared in the latent space, over several chained steps, never in the space of observations
(LeCun 2022, section 4.4). The targets z carry no gradient; the variance and covariance terms keep the encoder from mapping
everything to one point. The encoder begins as the identity on normalised observations, with a network that bends it added,
and learns more slowly than the predictors: from a few hundred steps, a representation that moves under them costs more
than it brings.

Where one observation does not tell it all, the model is shown the last K steps instead. The encoder then sees the newest of
them beside what it recollects of all by attention, `(x[t], m(x[t], x[t-1], …, x[t-K+1]))`; latents hold both, so that what
is remembered is carried along in what is imagined.

Images are encoded by patches of patches, which begin anywhere and learn as fast as the predictors. As encoding is what
costs, all members learn from the same windows, and differ by where they began.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from world_models.base import Imagined, WorldModel, initial_state
from world_models.data import Moments
from world_models.data.replay_buffer import Window
from world_models.losses.anticollapse import variance_covariance
from world_models.networks import MLP, HistoryAttention, PatchEncoder, functional
from world_models.networks.encoders import levels_for
from world_models.networks.patches import unit

PyTree = Any


class Networks(nnx.Module):
    """Encoder and ensemble of predictors, whose last layer holds the reward and the termination head.

    Args:
        shape: Of an observation, `(O,)`, or `(H, W, C)` of an image.
        action: Size A of an action as the model sees it.
        latent: Size D of a latent; at least O, and what is recollected.
        hidden: Units of every hidden layer.
        members: Size M of the ensemble.
        steps: Shown, K.
        rngs: Source of the initial weights.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        action: int,
        latent: int,
        hidden: int,
        members: int,
        steps: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        self.latent = latent
        self.history_attention = HistoryAttention(shape[0], steps, READOUT, rngs=rngs) if steps > 1 else None
        if len(shape) == 1:
            self.residual = MLP((_known(shape[0], steps), hidden, latent), last_scale=0.0, rngs=rngs)
        else:
            self.image_encoder = PatchEncoder(shape, latent, levels=levels_for(shape), dense=(hidden,), fit="pad", rngs=rngs)
        self.predictor = MLP((latent + action, hidden, hidden, latent + 2), members=members, last_scale=0.1, rngs=rngs)

    def see(self, images: Float[Array, "*batch H W C"]) -> Float[Array, "*batch latent"]:
        """Normalised images to latents."""
        seen = self.image_encoder(images)
        apart = seen - seen.mean(axis=-1, keepdims=True)  # unlike vectors, images have no scale that latents could take over
        return apart / jnp.sqrt(jnp.square(apart).mean(axis=-1, keepdims=True) + 1e-6)

    def encode(self, steps: Float[Array, "*batch K observation"]) -> Float[Array, "*batch latent"]:
        """Normalised vectors, the newest first, to latents."""
        known = steps[..., 0, :]
        if self.history_attention is not None:
            known = jnp.concatenate([known, self.history_attention(steps)], axis=-1)
        straight = jnp.pad(known, [(0, 0)] * (known.ndim - 1) + [(0, self.latent - known.shape[-1])])
        return straight + self.residual(known)

    def predict(
        self, latent: Float[Array, "M B latent"], action: Float[Array, "M B action"]
    ) -> tuple[Float[Array, "M B latent"], Float[Array, "M B"], Float[Array, "M B"]]:
        """Every member's next latent, normalised reward, and log-odds of termination."""
        out = self.predictor(jnp.concatenate([latent, action], axis=-1))
        return latent + out[..., : self.latent], out[..., self.latent], out[..., self.latent + 1]


READOUT = 8
"""Numbers that memory is read out as."""


def _known(observation: int, steps: int) -> int:
    """Size of what the encoder bends."""
    return observation + READOUT * (steps > 1)


SEEN = 32
"""Size of an image's latent, unless told."""


def jepa(
    observation: int | tuple[int, ...],
    action: int,
    *,
    steps: int = 1,
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
    """Build a JEPA world model for observations that are vectors or images.

    Its loss over windows of L steps, averaged over members and windows, is

        Σ_k decay^k ( |ẑ[k+1] - z[k+1]|² + (r̂[k] - r[k])² + BCE(ℓ̂[k], terminated[k]) ) + variance–covariance(z)

    Args:
        observation: Size O of a vector, or `(H, W, C)` of an image, bytes or numbers from 0 to 1.
        action: Size A of an action as `space.embed` shows it.
        steps: Shown at once, K: what the model takes for an observation is then `[K * O]`, the newest first. Images are
            shown one by one: stack frames as channels where one does not tell it all.
        latent: Size D of the latent; unless told, the larger of 8 and of what the encoder sees: O, and 8 more for K > 1;
            32 of images.
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
    shape = (observation,) if isinstance(observation, int) else tuple(observation)
    image = len(shape) == 3
    known = 1 if image else _known(shape[0], steps)
    latent = (SEEN if image else max(known, 8)) if latent is None else latent
    if min(*shape, action, hidden, steps) < 1 or latent < known or members < 2 or (image and steps > 1):
        raise ValueError(
            f"a JEPA needs observation, action, hidden, steps >= 1 (= 1 of images), latent >= {known}, members >= 2; got "
            f"observation={observation}, action={action}, hidden={hidden}, steps={steps}, latent={latent}, members={members}"
        )
    if not 0 < discount <= 1 or not 0 < decay <= 1:
        raise ValueError(f"discount and decay must lie in (0, 1]; got discount={discount}, decay={decay}")

    def build(rngs: nnx.Rngs) -> Networks:
        return Networks(shape, action, latent, hidden, members, steps, rngs=rngs)

    begin, network = functional(build)

    def networks(params: PyTree) -> Networks:
        return network(params["network"])

    def init(key: jax.Array) -> PyTree:
        rewards = (jnp.zeros(()), jnp.ones(()), jnp.ones(()))
        scales = Moments(jnp.zeros(shape[-1]), jnp.ones(shape[-1]), *rewards, terminates=jnp.asarray(False))
        return {"network": begin(key), "scales": scales}

    def normalise(params: PyTree, moments: Moments) -> PyTree:
        means, stds = (m.reshape(steps, shape[-1]) for m in (moments.observation_mean, moments.observation_std))
        mean, std = means[0], stds[0]
        if image:  # one scale for all channels: what is rare in one must not drown the others
            std = jnp.broadcast_to(jnp.sqrt(jnp.square(std).mean()), std.shape)
        if steps > 1:  # one scale for all: what has only been seen long ago is to look the same when it is new
            mean = means.mean(axis=0)
            std = jnp.sqrt((jnp.square(stds) + jnp.square(means - mean)).mean(axis=0))
        scales = moments._replace(observation_mean=mean, observation_std=std, action_mean=None, action_std=None)
        return params | {"scales": scales}  # the space scales actions

    def embed(params: PyTree, observations: jax.Array) -> jax.Array:
        scales = params["scales"]
        if image:
            return networks(params).see((unit(observations) - scales.observation_mean) / scales.observation_std)
        tokens = observations.reshape(*observations.shape[:-1], steps, shape[0])
        return networks(params).encode((tokens - scales.observation_mean) / scales.observation_std)

    def encode(params: PyTree, observation: jax.Array) -> Imagined:
        return initial_state(embed(params, observation))

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
            reward=state.discount * reward,
            discount=state.discount * discount * going_on,
            disagreement=state.discount * jnp.sqrt(spread + 1e-6),  # the root has no slope at 0
        )

    def loss(params: PyTree, windows: Window) -> tuple[jax.Array, dict[str, jax.Array]]:
        net, scales = networks(params), params["scales"]
        latents = embed(params, windows.observations)
        targets = jax.lax.stop_gradient(latents)
        rewards = (windows.rewards - scales.reward_mean) / scales.reward_std
        mask = windows.mask.astype(latents.dtype)
        length, shared = mask.shape[-1], (members, *latents.shape[1:2])  # with windows of their own, or the same for all
        imagined = jnp.broadcast_to(latents[:, :, 0], (*shared, latent))
        terms = {"latent": jnp.zeros(()), "reward": jnp.zeros(()), "termination": jnp.zeros(())}
        for k in range(length):  # short and static: unrolled, the steps' products overlap
            imagined, reward, log_odds = net.predict(imagined, jnp.broadcast_to(windows.actions[:, :, k], (*shared, action)))
            weight = decay**k * mask[:, :, k] * len(mask) / jnp.maximum(mask[:, :, 0].sum(), 1.0)
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
        return jax.tree.map_with_path(lambda path, _: path[0].key == "residual", network)

    optimizer = optax.chain(optax.adamw(learning_rate), optax.masked(optax.scale(encoder_rate), slow))
    return WorldModel(init, encode, predict, normalise, loss, optimizer, 1 if image else members)
