"""A joint-embedding predictive architecture for frames, to be planned in by gradient.

    z[t] = encoder(o[t]),      ẑ[t+1] = predictor(z[t], a[t]),      ẑ[t+k] = predictor(ẑ[t+k-1], a[t+k-1])

Each frame of a window is encoded once, and predictions start from every one of them: encoding is what costs. An action of
the model is a block of k actions of the environment, so that a step is large enough to be told from noise, and a plan short.

An encoder, a predictor and an anti-collapse objective are chosen by giving the class or function, with settings by
`functools.partial`:

    model = pixel_jepa((65, 65, 2), 2, block=4, encoder=partial(PatchEncoder, fit="crop"),
                       objective=partial(anticollapse.vicreg, variance_weight=4.0, slowness_weight=1.0))

Source: LeCun (2022), A path towards autonomous machine intelligence, section 4; Sobal et al. (2025), PLDM, arXiv:2502.14819.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from world_models.base import WorldModel
from world_models.data import Moments
from world_models.data.replay_buffer import Window
from world_models.losses import anticollapse
from world_models.networks import MLP, MLPPredictor, PatchEncoder, functional
from world_models.networks.patches import unit

PyTree = Any
Metrics = dict[str, jax.Array]


class Latent(NamedTuple):
    """The state a planner rolls forward.

    An observation on the way is taken in by `state._replace(latent=encode(params, observation).latent)`, which keeps what
    the predictor remembers.
    """

    latent: Float[Array, " latent"]
    memory: PyTree
    """Of the predictor; `()` where it needs none."""


class Networks(nnx.Module):
    """Encoder, predictor, and what reads an action off the latents before and after it.

    Args:
        shape: Of an observation.
        action: Size of an action, all of a block together.
        latent: Size of a latent.
        encoder: `(shape, latent, *, rngs) -> encoder`.
        predictor: `(latent, action, *, rngs) -> predictor`.
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
        hidden: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.encoder = encoder(shape, latent, rngs=rngs)
        self.predictor = predictor(latent, action, rngs=rngs)
        self.inverse = MLP((2 * latent, hidden, action), rngs=rngs)

    def read(
        self, latent: Float[Array, "*batch latent"], following: Float[Array, "*batch latent"]
    ) -> Float[Array, "*batch action"]:
        """The action, scaled, that seems to have led from one latent to the following one."""
        return self.inverse(jnp.concatenate([latent, following - latent], axis=-1))


class Batch(NamedTuple):
    """A window as losses see it: everything embedded and scaled, B windows of L steps."""

    net: Any
    frames: Float[Array, "B L+1 ..."]
    """Normalised observations."""
    latents: Float[Array, "B L+1 latent"]
    actions: Float[Array, "B L action"]
    """Told, or else read off the latents before and after."""
    told: Float[Array, "B L"]
    """1 where an action was told, else 0."""
    reached: Float[Array, "B L+1"]
    """1 where an observation was really reached from the first of its window, else 0."""
    average: Callable[[], Float[Array, "B L+1 latent"]]
    """The latents that the running average of the network gives."""
    key: Any


def chained(batch: Batch, steps: int) -> list[Float[Array, "B starts latent"]]:
    """Predict from every observation of a window, over one, two, … steps.

    Args:
        batch: Windows of L steps.
        steps: How many predictions are chained, at most L.

    Returns:
        For k = 1, 2, …: `[B, L + 1 - k, D]`, entry t being the prediction of `latents[:, t + k]` from `latents[:, t]`.
    """
    net, actions = batch.net, batch.actions
    memory, latent = net.predictor.follow(batch.latents[:, :-1], actions)
    every = [latent]
    for k in range(1, steps):
        memory, latent = net.predictor.step(jax.tree.map(lambda m: m[:, :-1], memory), latent[:, :-1], actions[:, k:])
        every.append(latent)
    return every


def discounted(errors: list[Float[Array, "B _"]], reached: Float[Array, "B times"], decay: float) -> Float[Array, ""]:
    """The mean error over windows and starts, and over steps k = 1, 2, … with weights `decay^(k-1)`."""
    weights = [decay**k for k in range(len(errors))]
    means = [anticollapse.mean(error, reached[:, -error.shape[1] :]) for error in errors]
    return sum((w * m for w, m in zip(weights, means, strict=True)), start=jnp.zeros(())) / sum(weights)


def pixel_jepa(
    shape: tuple[int, ...],
    action: int,
    *,
    block: int = 1,
    latent: int = 64,
    encoder: Callable[..., Any] = PatchEncoder,
    predictor: Callable[..., Any] = MLPPredictor,
    objective: anticollapse.Objective = anticollapse.vicreg,
    targets: str = "own",
    steps: int = 1,
    decay: float = 0.9,
    prediction_weight: float = 1.0,
    inverse_weight: float = 1.0,
    straightness_weight: float = 0.0,
    inferred: bool = False,
    hidden: int = 128,
    learning_rate: float = 1e-3,
    encoder_rate: float = 1.0,
) -> WorldModel:
    """Build a JEPA for frames (or, with a `VectorEncoder`, vectors) and blocks of actions.

    Its loss over windows of L steps, a mean over windows, times and dimensions, is

        prediction_weight Σ_k decay^(k-1) |ẑ[t+k] - target[t+k]|² / Σ_k decay^(k-1)
        + objective(z, ẑ) + inverse_weight |read(z[t], z[t+1]) - a[t]|² + straightness_weight (1 - cos(Δz[t], Δz[t+1]))

    Args:
        shape: Of an observation: `(H, W, C)`, bytes or numbers, or `(O,)`.
        action: Size A of an action of the environment; 0 for a world that is only watched.
        block: Actions of the environment in a step of the model; the model's action is `[block, A]` or `[block * A]`.
        latent: Size D of a latent.
        encoder: `(shape, latent, *, rngs) -> encoder`, see `world_models.networks`.
        predictor: `(latent, action, *, rngs) -> predictor`, see `world_models.networks`.
        objective: What keeps the encoder from collapsing, see `world_models.losses.anticollapse`.
        targets: What predictions are held against: `"own"`, the encoder's latents, which learn to be predictable; `"still"`,
            the same without a gradient; `"average"`, those of the running average of the network, as `byol` needs.
        steps: Predictions chained in the loss, at most the steps of a window; more make long plans truer, at the cost of a
            predictor's pass each.
        decay: How much less each further chained step counts.
        prediction_weight: Of the prediction error.
        inverse_weight: Of reading actions off latents; 0 leaves what reads them untrained, and `infer_action` out. Where
            it is not
            0, actions that nobody told, NaN (see `datasets.mixed`), are read off latents, too.
        straightness_weight: Of latent trajectories' bending, which windows of at least two steps show.
        inferred: Whether actions are not told but inferred, `tanh(read(z[t], z[t+1]))`, of size `action`: a small one, or it
            carries the whole next frame. `predict` then takes such an inferred action.
        hidden: Units of the hidden layer that actions are read by.
        learning_rate: Of AdamW.
        encoder_rate: Factor on it for the encoder; 0 leaves it as it is.

    Raises:
        ValueError: If a size is impossible, a factor lies outside its range, or observations don't fit the encoder.
    """
    if targets not in ("own", "still", "average"):
        raise ValueError(f"targets must be 'own', 'still' or 'average'; got {targets!r}")
    if inferred and (inverse_weight or action < 1):
        raise ValueError(
            "inferred actions need action >= 1, and inverse_weight=0, for there is nothing to compare them with; "
            f"got action={action}, inverse_weight={inverse_weight}"
        )
    inverse_weight = inverse_weight if action else 0.0

    def build(rngs: nnx.Rngs) -> Networks:
        return Networks(tuple(shape), action * block, latent, encoder, predictor, hidden, rngs=rngs)

    def loss(batch: Batch) -> tuple[jax.Array, Metrics]:
        own = batch.latents
        held = {"own": lambda: own, "still": lambda: jax.lax.stop_gradient(own), "average": batch.average}[targets]()
        if inferred:
            batch = batch._replace(actions=jnp.tanh(batch.net.read(own[:, :-1], own[:, 1:])))
        every = chained(batch, min(steps, batch.actions.shape[1]))
        errors = [jnp.mean((guess - held[:, k:]) ** 2, axis=-1) for k, guess in enumerate(every, 1)]
        terms = {"latent": discounted(errors, batch.reached, decay)}
        kept, parts = objective(own, every[0], batch.reached, targets=held, key=batch.key)
        total = prediction_weight * terms["latent"] + kept
        if inverse_weight:
            terms["inverse"] = anticollapse.inverse_dynamics(batch.net.read, own, batch.actions, batch.told)
            total += inverse_weight * terms["inverse"]
        if straightness_weight and own.shape[1] < 3:
            raise ValueError("windows of one step bend nowhere: straightness_weight needs windows of at least two")
        if own.shape[1] > 2:
            terms["straightness"] = anticollapse.straightness(own, batch.reached)
            total += straightness_weight * terms["straightness"]
        return total, terms | parts | {"loss": total}

    return latent_world(
        build,
        loss,
        shape,
        action,
        block=block,
        steps=steps,
        decay=decay,
        inferred=inferred,
        readable=inverse_weight > 0,
        learning_rate=learning_rate,
        encoder_rate=encoder_rate,
    )


def latent_world(
    build: Callable[[nnx.Rngs], Any],
    loss_of: Callable[[Batch], tuple[jax.Array, Metrics]],
    shape: tuple[int, ...],
    action: int,
    *,
    block: int,
    steps: int,
    decay: float,
    inferred: bool,
    readable: bool,
    learning_rate: float,
    encoder_rate: float,
    latents: int = 0,
    shape_latent: Callable[[Any, Latent, jax.Array, jax.Array], jax.Array] = lambda net, state, action, latent: latent,
) -> WorldModel:
    """The verbs that every world model with an encoder and a predictor for frames shares, whatever it learns from.

    Args:
        build: `rngs -> networks` with `encoder`, `predictor` and `read`.
        loss_of: `batch -> (scalar, metrics)`.
        shape: Of an observation.
        action: Size of an action of the environment, or of an inferred one.
        block: Actions in a step of the model.
        steps: Predictions chained.
        decay: In `(0, 1]`.
        inferred: Whether actions are inferred rather than told, and then not scaled.
        readable: Whether the networks learn to read actions off latents, in which case the model can `infer_action` them.
        learning_rate: Of AdamW.
        encoder_rate: Factor on it for the encoder.
        latents: Size of the latent variable that the predictor takes beside an action, 0 for none.
        shape_latent: `(networks, state, scaled action, latent) -> latent`: a standard normal latent variable, as the
            predictor is shown it there.

    Raises:
        ValueError: If a number is out of range.
    """
    if action < 0 or min(block, steps) < 1:
        raise ValueError(f"a model needs action >= 0, block >= 1, steps >= 1; got {action}, {block}, {steps}")
    if not 0 < decay <= 1 or not encoder_rate >= 0:
        raise ValueError(f"decay must lie in (0, 1], encoder_rate be >= 0; got decay={decay}, encoder_rate={encoder_rate}")
    shape, size = tuple(shape), action * block
    begin, network = functional(build)

    def init(key: jax.Array) -> PyTree:
        scales = {
            "mean": jnp.zeros(shape[-1]),
            "std": jnp.ones(shape[-1]),
            "action_mean": jnp.zeros(action),
            "action_std": jnp.ones(action),
        }
        return {"network": begin(key), "scales": scales}

    def normalise(params: PyTree, moments: Moments) -> PyTree:
        std = moments.observation_std
        if len(shape) == 3:  # one unit for all channels: a small bright dot must not drown a wall in another channel
            std = jnp.broadcast_to(jnp.sqrt(jnp.mean(std**2)), std.shape)
        scales = params["scales"] | {"mean": moments.observation_mean, "std": std}
        if action and not inferred and moments.action_mean is not None and moments.action_std is not None:
            scales |= {
                "action_mean": moments.action_mean.reshape(action),
                "action_std": moments.action_std.reshape(action),
            }
        return params | {"scales": scales}

    def normal(params: PyTree, observations: jax.Array) -> jax.Array:
        if observations.shape[-len(shape) :] != shape:
            raise ValueError(
                f"this model was made for observations of shape {list(shape)}; got {list(observations.shape[-len(shape) :])}"
            )
        return (unit(observations) - params["scales"]["mean"]) / params["scales"]["std"]

    def scaled(params: PyTree, actions: jax.Array) -> jax.Array:
        """`[..., block, A]` to `[..., block * A]`."""
        if inferred:
            return actions.reshape(*actions.shape[:-2], size)
        scales = params["scales"]
        return ((actions - scales["action_mean"]) / scales["action_std"]).reshape(*actions.shape[:-2], size)

    def encode(params: PyTree, observation: jax.Array) -> Latent:
        net = network(params["network"])
        latent = net.encoder(normal(params, jnp.asarray(observation)))
        return Latent(latent, net.predictor.begin(latent))

    def predict(params: PyTree, state: Latent, action_block: jax.Array, latent: jax.Array | None = None) -> Latent:
        if (0 if latent is None else latent.size) != latents:
            given = "none" if latent is None else f"shape {list(latent.shape)}"
            raise ValueError(f"this model's predictor takes a latent variable of size {latents}; got {given}")
        if action_block.size != size:
            raise ValueError(
                f"an action of this model is a block of {block} of size {action}; got shape {list(action_block.shape)}"
            )
        net = network(params["network"])
        given = scaled(params, action_block.reshape(block, action))
        if latent is not None:
            given = jnp.concatenate([given, shape_latent(net, state, given, latent)])
        memory, following = net.predictor.step(state.memory, state.latent, given)
        return Latent(following, memory)

    def infer_action(params: PyTree, state: Latent, following: Latent) -> jax.Array:
        net, scales = network(params["network"]), params["scales"]
        read = net.read(state.latent, following.latent).reshape(*state.latent.shape[:-1], block, action)
        return read * scales["action_std"] + scales["action_mean"]

    def loss(params: PyTree, windows: Window) -> tuple[jax.Array, Metrics]:
        # members see the same network
        windows = jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), windows)
        net = network(params["network"])
        frames, mask = normal(params, windows.observations), windows.mask.astype(jnp.float32)
        reached = jnp.concatenate([mask[:, :1], mask], axis=1)
        # the rows beyond an episode's end may hold anything
        frames = jnp.where(reached.reshape(*reached.shape, *(1 for _ in shape)) > 0, frames, 0.0)
        if inferred or not action:
            actions = jnp.zeros((*mask.shape, size))
        else:
            actions = windows.actions.reshape(*mask.shape, -1)
            if actions.shape[-1] != size:
                raise ValueError(
                    f"an action of this model is a block of {block} of size {action}; the windows have actions of shape "
                    f"{list(windows.actions.shape[2:])}"
                )
            actions = scaled(params, actions.reshape(*mask.shape, block, action).astype(jnp.float32))
        told = jnp.isfinite(actions).all(axis=-1).astype(jnp.float32) * mask
        actions = jnp.where(told[..., None] > 0, actions, 0.0)

        def average() -> jax.Array:
            slow = network(params.get("average", params["network"]))
            return jax.lax.stop_gradient(slow.encoder(frames))

        latents = net.encoder(frames)
        if readable:
            # what nobody told is read off what came of it; a gradient would make it a message from the future instead
            guessed = jax.lax.stop_gradient(net.read(latents[:, :-1], latents[:, 1:]))
            actions = jnp.where(told[..., None] > 0, actions, guessed)
        return loss_of(Batch(net, frames, latents, actions, told, reached, average, params.get("key")))

    def slow(network: PyTree) -> PyTree:
        return jax.tree.map_with_path(lambda path, _: path[0].key == "encoder", network)

    optimizer = optax.chain(optax.adamw(learning_rate), optax.masked(optax.scale(encoder_rate), slow))
    told = infer_action if readable else None
    return WorldModel(init, encode, predict, normalise, loss, optimizer, 1, told, latents or None)
