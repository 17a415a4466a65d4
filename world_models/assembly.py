"""The verbs of a latent world model, whatever networks it is made of and whatever loss it learns by.

A loss gets a `Batch`: windows of L steps, embedded and scaled, with two leading axes: W, of the windows that members of an
ensemble have of their own (1 where all share them), and B, of windows. `chained` predicts from a batch; `mean_error` and
`summed_error` are the two ways to reduce the errors of chained predictions to a scalar.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from world_models.base import LatentState, Metrics, PyTree, WorldModel, initial_state
from world_models.data import Moments, Window, scale
from world_models.ensemble import EnsemblePredictor, disagreement
from world_models.heads import Step, continuation, expected_reward
from world_models.losses import terms
from world_models.networks import Identity, functional
from world_models.networks.patches import unit

if TYPE_CHECKING:
    from world_models.latent import LatentSettings, Networks


class Batch(NamedTuple):
    """Windows of L steps as losses see them: everything embedded and scaled."""

    net: Any
    frames: Float[Array, "W B L+1 ..."]
    """Normalised observations; 0 where they were not reached."""
    latents: Float[Array, "W B L+1 latent"]
    actions: Float[Array, "W B L action"]
    """Recorded, or else inferred from the latents before and after."""
    recorded: Float[Array, "W B L"]
    """1 where an action was recorded, else 0."""
    reached: Float[Array, "W B L+1"]
    """1 where an observation was really reached from the first of its window, else 0."""
    rewards: Float[Array, "W B L"]
    """Normalised."""
    terminated: Bool[Array, "W B L"]
    average: Callable[[], Float[Array, "W B L+1 latent"]]
    """The latents that the moving average of the network gives."""
    key: Any


def flat(x: jax.Array) -> jax.Array:
    """Merge the leading axes `[W, B, ...]` to `[W * B, ...]`."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def chained(batch: Batch, steps: int | None, every_start: bool = True) -> list[Step]:
    """Predict over one, two, … steps (at most `steps`, all L if None) from every observation of a window, or the first only.

    Returns:
        For k = 1, 2, …: a step `[M, B, starts, ...]`, entry t being the prediction of `latents[:, :, t + k]` from
        `latents[:, :, t]`; there are L + 1 - k starts, or 1.
    """
    net, actions = batch.net, batch.actions
    length = actions.shape[2]
    count = length if every_start else 1
    carry, step = net.follow(batch.latents[:, :, :count], actions[:, :, :count])
    found = [step]
    for k in range(1, length if steps is None else min(steps, length)):  # short and static: unrolled, products overlap
        latents, taken = step.latent, actions[:, :, k : k + 1]
        if every_start:
            carry, latents = jax.tree.map(lambda x: x[:, :, :-1], (carry, latents))
            taken = actions[:, :, k:]
        carry, step = net.advance(carry, latents, taken)
        found.append(step)
    return found


def from_start(values: jax.Array, later: int, like: jax.Array) -> jax.Array:
    """The entries `[W, B, starts, ...]` that lie so many steps after the starts of predictions `like`."""
    return values[:, :, later : later + like.shape[2]]


def mean_error(errors: list[jax.Array], reached: jax.Array, decay: float) -> Float[Array, ""]:
    """The mean error over members, windows and starts, and over steps k = 1, 2, … with weights `decay^(k-1)`.

    Args:
        errors: For each k, `[M, B, starts]`.
        reached: `[W, B, L + 1]`, as in a `Batch`.
        decay: In `(0, 1]`.
    """
    weights = [decay**k for k in range(len(errors))]
    counts = [jnp.broadcast_to(from_start(reached, k, error), error.shape) for k, error in enumerate(errors, 1)]
    means = [terms.mean(error, count) for error, count in zip(errors, counts, strict=True)]
    return sum((w * m for w, m in zip(weights, means, strict=True)), start=jnp.zeros(())) / sum(weights)


def summed_error(errors: list[jax.Array], reached: jax.Array, decay: float) -> Float[Array, ""]:
    """`mean_error` with sums over members and over steps k with weights `decay^(k-1)`; a mean over windows and starts."""
    begun = jnp.maximum(from_start(reached, 1, errors[0]).sum(), 1.0)
    total = jnp.zeros(())
    for k, error in enumerate(errors, 1):
        count = from_start(reached, k, error)
        weight = decay ** (k - 1) * count * len(reached) / begun
        total += jnp.sum(weight * jnp.where(count > 0, error, 0.0))
    return total


class Assembly:
    """Makes a `WorldModel` of networks and a loss.

    Args:
        build: `rngs -> Networks`.
        loss_of: `batch -> (scalar, metrics)`.
        shape: Of one observation.
        action: Size A of an action of the environment, or of an inferred one.
        settings: Of the model.
        latents: Size of the latent variable that the predictor takes beside an action, 0 for none.
        shape_latent: `(networks, state, scaled action, latent) -> latent`: a standard normal latent variable as the
            predictor takes it; as it is when None.

    Raises:
        ValueError: If a network cannot be built with these sizes.
    """

    def __init__(
        self,
        build: Callable[[nnx.Rngs], "Networks"],
        loss_of: Callable[[Batch], tuple[jax.Array, Metrics]],
        shape: tuple[int, ...],
        action: int,
        settings: "LatentSettings",
        latents: int = 0,
        shape_latent: Callable[..., jax.Array] | None = None,
    ) -> None:
        self.settings, self.loss_of, self.shape_latent = settings, loss_of, shape_latent
        self.shape, self.action, self.latents = tuple(shape), action, latents
        self.size = action * settings.block
        """Of an action of the model."""
        self.standardises = settings.scale_actions and not settings.inferred
        """True if actions are standardised by the data's moments."""
        self.observation = (settings.history * shape[0],) if settings.history > 1 else self.shape
        probe: Any = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self.members = probe.predictor.members if isinstance(probe.predictor, EnsemblePredictor) else 1
        self.decodes = "identity" if isinstance(probe.encoder, Identity) else "decoder" if probe.decoder else None
        self.begin, self.network = functional(build)

    def model(self) -> WorldModel:
        """The world model."""
        s = self.settings
        optimizer = optax.chain(optax.adamw(s.learning_rate), optax.masked(optax.scale(s.encoder_rate), _encoder_weights))
        return WorldModel(
            self.init,
            self.encode,
            self.predict,
            self.normalise,
            self.loss,
            optimizer,
            # encoding frames is what costs: members share their windows, and differ by their initial weights
            members=1 if len(self.shape) == 3 else self.members,
            infer_action=self.infer_action if s.inverse_weight and self.action else None,
            latents=self.latents or None,
            decode=self.decode if self.decodes else None,
            has_reward=s.reward,
        )

    def init(self, key: jax.Array) -> PyTree:
        size, kind = self.shape[-1], jnp.float32  # as `data.masked_moments` returns them, with jax_enable_x64 too
        zeros, ones, one = jnp.zeros(size, kind), jnp.ones(size, kind), jnp.ones((), kind)
        moves = (jnp.zeros(self.action, kind), jnp.ones(self.action, kind)) if self.settings.scale_actions else (None, None)
        scales = Moments(zeros, ones, 0 * one, one, one, *moves, terminates=jnp.asarray(False))
        return {"network": self.begin(key), "scales": scales}

    def normalise(self, params: PyTree, moments: Moments) -> PyTree:
        steps, block = self.settings.history, self.settings.block
        means, stds = (m.reshape(steps, self.shape[-1]) for m in (moments.observation_mean, moments.observation_std))
        mean, std = means[0], stds[0]
        if len(self.shape) == 3:  # one unit for all channels: a small bright dot must not drown a wall in another channel
            std = jnp.broadcast_to(jnp.sqrt(jnp.mean(std**2)), std.shape)
        if steps > 1:  # one scale for all steps of a history: an observation looks the same however long ago it was made
            mean = means.mean(axis=0)
            std = jnp.sqrt((jnp.square(stds) + jnp.square(means - mean)).mean(axis=0))
        own = params["scales"]
        scales = moments._replace(
            observation_mean=mean,
            observation_std=scale(mean, std),
            # a step's reward is the sum over a block
            reward_mean=block * moments.reward_mean,
            reward_std=block * moments.reward_std,
            reward_best=block * moments.reward_best,
            action_mean=own.action_mean,
            action_std=own.action_std,
            terminates=jnp.asarray(moments.terminates),
        )
        action_mean, action_std = moments.action_mean, moments.action_std
        if self.standardises and self.action and action_mean is not None and action_std is not None:
            scales = scales._replace(action_mean=action_mean.reshape(-1), action_std=action_std.reshape(-1))
        return params | {"scales": scales}

    def normal(self, params: PyTree, observations: jax.Array) -> jax.Array:
        """Observations, normalised; those of a history apart, `[..., K, O]`."""
        shape = observations.shape[-len(self.observation) :]
        if shape != self.observation:
            raise ValueError(f"this model was made for observations of shape {list(self.observation)}; got {list(shape)}")
        seen = unit(observations)
        if self.settings.history > 1:
            seen = seen.reshape(*seen.shape[:-1], self.settings.history, -1)
        return (seen - params["scales"].observation_mean) / params["scales"].observation_std

    def scaled(self, params: PyTree, actions: jax.Array) -> jax.Array:
        """Actions `[..., block, A]` as the predictor takes them, `[..., block * A]`."""
        scales = params["scales"]
        if self.standardises:
            actions = (actions - scales.action_mean) / scales.action_std
        return actions.reshape(*actions.shape[:-2], self.size)

    def encode(self, params: PyTree, observation: jax.Array) -> LatentState:
        net = self.network(params["network"])
        # with jax_enable_x64, predictions are of that precision, which a state keeps from step to step
        latent = net.encoder(self.normal(params, jnp.asarray(observation))).astype(float)
        return initial_state(latent, net.predictor.begin(latent))

    def predict(
        self, params: PyTree, state: LatentState, action_block: jax.Array, latent: jax.Array | None = None
    ) -> LatentState:
        if (0 if latent is None else latent.size) != self.latents:
            given = "none" if latent is None else f"shape {list(latent.shape)}"
            raise ValueError(f"this model's predictor takes a latent variable of size {self.latents}; got {given}")
        if action_block.size != self.size:
            raise self.wrong_action(action_block.shape, "got")
        net = self.network(params["network"])
        given = self.scaled(params, action_block.reshape(self.settings.block, self.action))
        if latent is not None:
            shaped = latent if self.shape_latent is None else self.shape_latent(net, state, given, latent)
            given = jnp.concatenate([given, shaped])
        carry, step = net.step(state.carry, state.latent, given)
        return self._next(params["scales"], state, carry, step)

    def _next(self, scales: Moments, state: LatentState, carry: PyTree, step: Step) -> LatentState:
        rewarded, discount = self.settings.reward, state.discount
        reward = unsure = jnp.zeros_like(discount)
        if self.members > 1:
            unsure = discount * disagreement(step, rewarded)
            step = step._replace(latent=step.latent.mean(axis=0))
        if rewarded:
            assert step.reward is not None and step.log_odds is not None
            reward = discount * expected_reward(step.reward, scales)
            discount = discount * self.settings.discount * continuation(step.log_odds, scales)
        return LatentState(step.latent, carry, reward, discount, unsure)

    def infer_action(self, params: PyTree, state: LatentState, following: LatentState) -> jax.Array:
        net, scales = self.network(params["network"]), params["scales"]
        read = net.read(state.latent, following.latent)
        read = read.reshape(*state.latent.shape[:-1], self.settings.block, self.action)
        return read * scales.action_std + scales.action_mean if self.settings.scale_actions else read

    def decode(self, params: PyTree, state: LatentState) -> jax.Array:
        scales = params["scales"]
        decoder: Any = self.network(params["network"]).decoder
        seen = state.latent if self.decodes == "identity" else decoder(state.latent)
        seen = seen * scales.observation_std + scales.observation_mean
        return seen.reshape(*state.latent.shape[:-1], *self.observation)

    def loss(self, params: PyTree, windows: Window) -> tuple[jax.Array, Metrics]:
        return self.loss_of(self.batch(params, windows))

    def batch(self, params: PyTree, windows: Window) -> Batch:
        """Windows `[W, B, L, ...]`, embedded and scaled."""
        if self.members == 1:  # all see the same network
            windows = jax.tree.map(lambda x: flat(x)[None], windows)
        elif len(windows.mask) not in (1, self.members):
            raise ValueError(f"windows are of 1 or of {self.members} members; got {len(windows.mask)}")
        net, scales = self.network(params["network"]), params["scales"]
        mask = windows.mask.astype(jnp.float32)
        reached = jnp.concatenate([mask[..., :1], mask], axis=-1)
        frames = self.normal(params, windows.observations)
        # the rows beyond an episode's end may hold anything
        frames = jnp.where(reached.reshape(*reached.shape, *(1,) * (frames.ndim - 3)) > 0, frames, 0.0)
        actions = self._actions(params, windows)
        recorded = jnp.isfinite(actions).all(axis=-1).astype(jnp.float32) * mask
        actions = jnp.where(recorded[..., None] > 0, actions, 0.0)

        def embed(net: Any) -> jax.Array:
            return net.encoder(flat(frames)).reshape(*reached.shape, -1)

        def average() -> jax.Array:
            return jax.lax.stop_gradient(embed(self.network(params.get("average", params["network"]))))

        latents = embed(net)
        if self.settings.inverse_weight and self.action:
            # actions that were not recorded are inferred; with a gradient they would be messages from the future
            guessed = jax.lax.stop_gradient(net.read(latents[:, :, :-1], latents[:, :, 1:]))
            actions = jnp.where(recorded[..., None] > 0, actions, guessed)
        rewards = (windows.rewards - scales.reward_mean) / scales.reward_std
        key = params.get("key")
        return Batch(net, frames, latents, actions, recorded, reached, rewards, windows.terminated, average, key)

    def _actions(self, params: PyTree, windows: Window) -> jax.Array:
        leading = windows.mask.shape
        if self.settings.inferred or not self.action:
            return jnp.zeros((*leading, self.size))
        actions = windows.actions.reshape(*leading, -1)
        if actions.shape[-1] != self.size:
            raise self.wrong_action(windows.actions.shape[3:], "the windows have actions of")
        actions = actions.reshape(*leading, self.settings.block, self.action)
        return self.scaled(params, actions.astype(jnp.float32))

    def wrong_action(self, shape: tuple[int, ...], got: str) -> ValueError:
        """The error that says which action was wanted."""
        return ValueError(
            f"an action of this model is a block of {self.settings.block} of size {self.action}; {got} shape {list(shape)}"
        )


def _encoder_weights(network: PyTree) -> PyTree:
    """The weights that `encoder_rate` slows: the encoder's, but for attention over a history, which adds to what it sees."""

    def slow(path: Any, _: Any) -> bool:
        return path[0].key == "encoder" and path[1].key != "history_attention"

    return jax.tree.map_with_path(slow, network)
