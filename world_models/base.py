"""What a world model is to everyone else: a few verbs over parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from world_models.data import Moments, Window

PyTree = Any


class Imagined(NamedTuple):
    """The state a planner rolls forward: where the model believes to be, and what the last step brought.

    The by-products ride in the state so that a step evaluates every network once, and costs merely read them off.
    """

    latent: Float[Array, " latent"]
    reward: Float[Array, ""]
    """Reward of the step that led here, in standard deviations of the rewards seen, discounted."""
    discount: Float[Array, ""]
    """Probability that the episode has not terminated, times the discount so far."""
    disagreement: Float[Array, ""]
    """How far the ensemble's members disagreed about that step, in the units of latents and rewards, discounted."""


def initial_state(latent: jax.Array) -> Imagined:
    """The state planning begins from: nothing has been gained or doubted yet, and the episode goes on."""
    one = jnp.ones(())
    return Imagined(latent, 0 * one, one, 0 * one)


class WorldModel(NamedTuple):
    """A world model as a value: pure functions over one pytree of parameters.

    `init(key) -> params`. `encode(params, observation) -> state`. `predict(params, state, action) -> state`, the action as
    `space.embed` shows it. `normalise(params, moments) -> params`: scales of the data at hand.
    `loss(params, windows) -> (scalar, metrics)` over windows with a leading axis of M members, `[M, B, L, ...]`, each of
    which has windows of its own, or of 1, where all learn from the same; only
    `params["network"]` is learnt, by `optimizer`. In training, `params["average"]` is a running average of the network, and
    `params["key"]` another key at every step. `infer_action(params, state, following) -> action`, for models that can tell
    what was done from what came of it, else None.

    Where the future is not determined, `latents` is the size of a latent variable, standard normal before anything is known
    of it: `predict(params, state, action, latent) -> state`; and `infer_latent(params, state, action, following) -> latent`
    infers which one led to what came.

    A state is an `Imagined` for the agent, or any tree of floating-point arrays with a `latent` among them.
    """

    init: Callable[[jax.Array], PyTree]
    encode: Callable[[PyTree, jax.Array], Any]
    predict: Callable[..., Any]
    normalise: Callable[[PyTree, "Moments"], PyTree]
    loss: Callable[[PyTree, Window], tuple[jax.Array, dict[str, jax.Array]]]
    optimizer: optax.GradientTransformation
    members: int
    infer_action: Callable[[PyTree, Any, Any], jax.Array] | None = None
    latents: int | None = None
    infer_latent: Callable[[PyTree, Any, jax.Array, Any], jax.Array] | None = None
