"""The latent world model: one builder for vectors, histories, frames, ensembles, carries, blocks and heads.

    z[t] = encoder(o[t]),      ẑ[t+1] = predictor(z[t], a[t]),      ẑ[t+k] = predictor(ẑ[t+k-1], a[t+k-1])

Predictions are made and compared in the latent space, over several chained steps, and not in the space of observations. An
objective keeps the encoder from mapping everything to one point. Networks and objective are given as classes and functions,
with settings by `functools.partial`:

    model = latent_world_model((65, 65, 2), 2, block=4, encoder=partial(PatchEncoder, fit="crop"), reward=True,
                               objective=partial(anticollapse.vicreg, variance_weight=4.0, slowness_weight=1.0))

`recipes` names the combinations whose results were measured.

Source: LeCun (2022), A path towards autonomous machine intelligence, section 4; Sobal et al. (2025), PLDM, arXiv:2502.14819.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from world_models.assembly import Assembly, Batch, chained, flat, from_start, mean_error, summed_error
from world_models.base import Metrics, PyTree, WorldModel
from world_models.ensemble import EnsemblePredictor
from world_models.heads import RewardHead, Step, decoding_error, reward_errors, termination_errors
from world_models.losses import anticollapse
from world_models.losses.terms import inverse_dynamics, straightness
from world_models.networks import MLP, MLPPredictor, PatchEncoder

TARGETS = ("online", "stop_gradient", "average")
STARTS = ("every", "first")


@dataclass(frozen=True)
class LatentSettings:
    """Settings of `latent_world_model`.

    Raises:
        ValueError: If a number is out of range, a choice unknown, or two settings contradict each other.
    """

    latent: int = 64
    """Size D of a latent."""
    encoder: Callable[..., Any] = PatchEncoder
    """`(shape, latent, *, rngs) -> encoder`, see `world_models.networks`; the shape is `(K, O)` for a history."""
    predictor: Callable[..., Any] = MLPPredictor
    """`(latent, action, *, rngs) -> predictor`: one of `world_models.networks`, or `EnsemblePredictor`."""
    history: int = 1
    """Steps K in an observation of the model, which is then `[K * O]`, the newest first; vectors only."""
    block: int = 1
    """Actions of the environment in a step of the model; the model's action is `[block, A]` or `[block * A]`."""
    reward: bool = False
    """True learns reward and termination heads. The reward of a block is the sum over its actions."""
    decoder: Callable[..., Any] | None = None
    """`(shape, latent, *, rngs) -> decoder` for a decoder head, which changes nothing else; None for none."""
    discount: float = 0.99
    """Per step of the model, in what is predicted; used with `reward`."""
    objective: anticollapse.Objective = anticollapse.vicreg
    """Keeps the encoder from collapsing, see `world_models.losses.anticollapse`."""
    targets: str = "online"
    """The targets of predictions: `"online"`, the encoder's latents, which learn to be predictable;
    `"stop_gradient"`, the same without a gradient; `"average"`, those of the moving average of the network."""
    starts: str = "every"
    """`"every"` chains predictions from every observation of a window, and averages errors over dimensions, steps and
    members; `"first"` chains them from the first to the end of the window, and sums errors."""
    steps: int | None = 1
    """Predictions chained in the loss, at most the steps of a window; None for all. More make long plans more accurate, at
    the cost of a predictor's pass each."""
    decay: float = 0.9
    """Factor on the weight of each further chained step; lower values favour one-step accuracy."""
    prediction_weight: float = 1.0
    """Of the prediction error of latents."""
    reward_weight: float = 1.0
    """Of the error of normalised rewards."""
    reward_threshold: float | None = 1.0
    """Error of a normalised reward from which on its loss grows linearly (Huber 1964), so that a few rewards far from all
    others, such as that of a crash, do not drown the rest; None for the squared error."""
    termination_weight: float = 1.0
    """Of the cross-entropy of terminations."""
    inverse_weight: float | None = None
    """Of inferring actions from latents. 0 leaves the inverse model untrained, None leaves it out. If it is positive,
    actions that were not recorded, NaN (see `data.mixed`), are inferred too."""
    straightness_weight: float | None = None
    """Of the bending of latent trajectories, which windows of two steps or more show; 0 measures it, None does not."""
    inferred: bool = False
    """True infers actions instead of reading recorded ones, `tanh(read(z[t], z[t+1]))`, of size `action`: a small one, or it
    carries the whole next frame. `predict` then takes such an inferred action."""
    scale_actions: bool = True
    """True standardises actions by the data's moments; False for actions as networks see them, in [-1, 1]."""
    hidden: int = 128
    """Units of the hidden layer of the inverse model and of the reward head."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    encoder_rate: float = 1.0
    """Factor on it for the encoder; 0 keeps the encoder as it is."""

    def __post_init__(self) -> None:
        if self.targets not in TARGETS or self.starts not in STARTS:
            raise ValueError(
                f"targets must be one of {', '.join(TARGETS)}, starts one of {', '.join(STARTS)}; "
                f"got targets={self.targets!r}, starts={self.starts!r}"
            )
        if min(self.latent, self.history, self.block, self.hidden, 1 if self.steps is None else self.steps) < 1:
            raise ValueError(
                "latent, history, block, hidden and steps must be at least 1; got "
                f"latent={self.latent}, history={self.history}, block={self.block}, hidden={self.hidden}, steps={self.steps}"
            )
        if self.starts == "first" and self.steps is not None:
            raise ValueError(f"starts='first' chains to the end of a window: steps must be None; got steps={self.steps}")
        if self.reward_threshold is not None and not self.reward_threshold > 0:
            raise ValueError(f"reward_threshold must be positive, or None; got {self.reward_threshold}")
        if not 0 < self.decay <= 1 or not 0 < self.discount <= 1 or not self.encoder_rate >= 0:
            raise ValueError(
                "decay and discount must lie in (0, 1], encoder_rate be at least 0; "
                f"got decay={self.decay}, discount={self.discount}, encoder_rate={self.encoder_rate}"
            )
        if self.inferred and self.inverse_weight:
            raise ValueError(
                "inferred actions need inverse_weight=0, since no action was recorded to compare them with; "
                f"got inverse_weight={self.inverse_weight}"
            )


class Networks(nnx.Module):
    """Encoder, predictor, inverse model, reward head and decoder, as far as settings ask for them.

    `action` is the size of all actions of a block together, `latents` that of the predictor's latent variable.
    """

    def __init__(
        self, shape: tuple[int, ...], action: int, settings: LatentSettings, latents: int = 0, *, rngs: nnx.Rngs
    ) -> None:
        s = settings
        shape = (s.history, *shape) if s.history > 1 else shape
        self.encoder = s.encoder(shape, s.latent, rngs=rngs)
        self.predictor = s.predictor(s.latent, action + latents, rngs=rngs)
        ensemble = isinstance(self.predictor, EnsemblePredictor)
        asked = s.inverse_weight is not None or s.inferred
        self.inverse = MLP((2 * s.latent, s.hidden, action), rngs=rngs) if asked else None
        apart = s.reward and not ensemble
        self.head = RewardHead(s.latent, action + latents, s.hidden, rngs=rngs) if apart else None
        self.decoder = s.decoder(shape, s.latent, rngs=rngs) if s.decoder is not None else None

    def read(
        self, latent: Float[Array, "*batch latent"], following: Float[Array, "*batch latent"]
    ) -> Float[Array, "*batch action"]:
        """The action, scaled, that seems to have led from one latent to the following one."""
        assert self.inverse is not None
        return self.inverse(jnp.concatenate([latent, following - latent], axis=-1))

    def step(self, carry: PyTree, latent: jax.Array, action: jax.Array) -> tuple[PyTree, Step]:
        """One step from latents `[*batch, D]`; that of an ensemble has its members `[M, *batch, ...]` first."""
        if isinstance(self.predictor, EnsemblePredictor):
            return self.predictor.step((), latent[None], action[None])
        return self._headed(latent, action, self.predictor.step(carry, latent, action))

    def advance(self, carry: PyTree, latents: jax.Array, actions: jax.Array) -> tuple[PyTree, Step]:
        """One step from every latent `[M, B, starts, D]` by `[W, B, starts, A]`, in a loss."""
        if isinstance(self.predictor, EnsemblePredictor):
            return self.predictor.step((), latents, actions)
        carry, latents, actions = jax.tree.map(lambda x: x[0], (carry, latents, actions))
        return jax.tree.map(lambda x: x[None], self.step(carry, latents, actions))

    def follow(self, latents: jax.Array, actions: jax.Array) -> tuple[PyTree, Step]:
        """Every step of real trajectories `[W, B, n, ...]`, with the carry of all steps before it."""
        if isinstance(self.predictor, EnsemblePredictor):
            return self.predictor.step((), latents, actions)
        followed = self._headed(latents[0], actions[0], self.predictor.follow(latents[0], actions[0]))
        return jax.tree.map(lambda x: x[None], followed)

    def _headed(self, latent: jax.Array, action: jax.Array, after: tuple[PyTree, jax.Array]) -> tuple[PyTree, Step]:
        carry, following = after
        return carry, Step(following, *(() if self.head is None else self.head(latent, action, following)))


def side_terms(batch: Batch, every: list[Step], s: LatentSettings) -> tuple[jax.Array, Metrics]:
    """The weighted sum of the errors of rewards, terminations and actions, and of straightness, and each term.

    Those that settings do not ask for are left out. `every` are the chained predictions.
    """
    terms, latents, reached = {}, flat(batch.latents), flat(batch.reached)
    if s.reward:
        rewards, ends = [], []
        for k, step in enumerate(every):
            assert step.reward is not None and step.log_odds is not None
            rewards.append(reward_errors(step.reward, from_start(batch.rewards, k, step.reward), s.reward_threshold))
            ends.append(termination_errors(step.log_odds, from_start(batch.terminated, k, step.log_odds)))
        reduced = mean_error if s.starts == "every" else summed_error
        terms["reward"], terms["termination"] = (reduced(errors, batch.reached, s.decay) for errors in (rewards, ends))
    if s.inverse_weight and batch.actions.shape[-1]:
        terms["inverse"] = inverse_dynamics(batch.net.read, latents, flat(batch.actions), flat(batch.recorded))
    if s.straightness_weight and latents.shape[1] < 3:
        raise ValueError("windows of one step bend nowhere: straightness_weight needs windows of at least two")
    if s.straightness_weight is not None and latents.shape[1] > 2:
        terms["straightness"] = straightness(latents, reached)
    return sum((getattr(s, f"{name}_weight") * term for name, term in terms.items()), start=jnp.zeros(())), terms


def jepa_loss(s: LatentSettings, batch: Batch) -> tuple[jax.Array, Metrics]:
    """The loss of `latent_world_model`, and its terms before weighting."""
    own = batch.latents
    held = batch.average() if s.targets == "average" else own
    held = jax.lax.stop_gradient(held) if s.targets == "stop_gradient" else held
    if s.inferred:
        batch = batch._replace(actions=jnp.tanh(batch.net.read(own[:, :, :-1], own[:, :, 1:])))
    each = s.starts == "every"
    every = chained(batch, s.steps, each)
    errors = [jnp.square(step.latent - from_start(held, k, step.latent)) for k, step in enumerate(every, 1)]
    errors = [error.mean(axis=-1) if each else error.sum(axis=-1) for error in errors]
    error = (mean_error if each else summed_error)(errors, batch.reached, s.decay)
    first = every[0].latent if each else jnp.concatenate([step.latent for step in every], axis=2)
    if len(first) != len(own):  # members that share their windows
        first = first.mean(axis=0, keepdims=True)
    kept, parts = s.objective(flat(own), flat(first), flat(batch.reached), targets=flat(held), key=batch.key)
    beside, terms = side_terms(batch, every, s)
    total = s.prediction_weight * error + kept + beside
    if batch.net.decoder is not None:
        terms["decoder"] = decoding_error(batch.net.decoder, flat(own), flat(batch.frames), flat(batch.reached))
        total += terms["decoder"]
    return total, terms | parts | {"latent": error, "loss": total}


def latent_world_model(shape: tuple[int, ...], action: int, **settings: Any) -> WorldModel:
    """Build a latent world model.

    Its loss over windows of L steps, a mean over windows, times and dimensions, is

        prediction_weight Σ_k decay^(k-1) |ẑ[t+k] - target[t+k]|² / Σ_k decay^(k-1)  +  objective(z, ẑ)
        + the same sums of reward_weight Huber(r̂ - r) + termination_weight BCE(ℓ̂, terminated)
        + inverse_weight |read(z[t], z[t+1]) - a[t]|² + straightness_weight (1 - cos(Δz[t], Δz[t+1]))

    Args:
        shape: Of an observation: `(H, W, C)`, bytes or numbers from 0 to 1, or `(O,)`.
        action: Size A of an action of the environment; 0 for recordings without actions.
        **settings: Of `LatentSettings`.

    Raises:
        ValueError: If a size is impossible, a factor lies outside its range, or observations don't fit the encoder.
        TypeError: If a setting is unknown.
    """
    s = LatentSettings(**settings)
    return assembled(partial(jepa_loss, s), shape, action, s)


def assembled(
    loss: Callable[[Batch], tuple[jax.Array, Metrics]], shape: tuple[int, ...], action: int, s: LatentSettings
) -> WorldModel:
    """Build the world model of `Networks` that learns by a loss.

    Raises:
        ValueError: If sizes are impossible or do not fit the settings.
    """
    shape = tuple(shape)
    if min(shape, default=0) < 1 or action < 0:
        raise ValueError(f"observations need a shape of positive sizes, and action >= 0; got shape={shape}, action={action}")
    if s.history > 1 and len(shape) != 1:
        raise ValueError(f"a history is of vectors: stack frames as channels instead; got {shape=}, history={s.history}")
    if s.inferred and action < 1:
        raise ValueError(f"inferred actions need action >= 1; got action={action}")

    def build(rngs: nnx.Rngs) -> Networks:
        return Networks(shape, action * s.block, s, rngs=rngs)

    return Assembly(build, loss, shape, action, s).model()
