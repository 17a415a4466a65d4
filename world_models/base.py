"""The world model as everything else sees it: one state, and a few verbs over parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from world_models.data import Moments, Window

PyTree = Any
Metrics = dict[str, jax.Array]


class LatentState(NamedTuple):
    """The state of every world model, which planners roll forward.

    It holds the by-products of the step that led here, so that a step evaluates every network once and costs only read them.
    An observation received on the way is taken in by `state._replace(latent=encode(params, observation).latent)`, which
    keeps the predictor's carry.
    """

    latent: Float[Array, " latent"]
    carry: PyTree
    """Of the predictor; `()` where it needs none."""
    reward: Float[Array, ""]
    """Reward of the step that led here, in standard deviations of the rewards seen, discounted; 0 without a reward head."""
    discount: Float[Array, ""]
    """Probability that the episode has not terminated, times the discount so far; 1 at the start."""
    disagreement: Float[Array, ""]
    """Disagreement of the ensemble's members about that step, in units of latents and rewards, discounted; 0 without an
    ensemble."""


def initial_state(latent: jax.Array, carry: PyTree = ()) -> LatentState:
    """The state at which planning begins: no reward and no disagreement yet, and a discount of 1.

    Args:
        latent: `[*batch, D]`.
        carry: Of the predictor.
    """
    one = jnp.ones(latent.shape[:-1])
    return LatentState(latent, carry, 0 * one, one, 0 * one)


class WorldModel(NamedTuple):
    """A world model as a value: pure functions over one pytree of parameters.

    | verb | what it does |
    |---|---|
    | `init(key) -> params` | draws parameters |
    | `encode(params, observation) -> state` | the state at an observation |
    | `predict(params, state, action) -> state` | the state after an action; `predict(params, state, action, latent)` where the model has latent variables |
    | `normalise(params, moments) -> params` | takes the scales of the data |
    | `loss(params, windows) -> (scalar, metrics)` | the loss over windows `[M, B, L, ...]` |
    | `infer_action(params, state, following) -> action` | the action between two states; None where the model has no inverse model |
    | `infer_latent(params, state, action, following) -> latent` | the latent variable that explains a transition; None where there is none |
    | `decode(params, state) -> observation` | in the units of observations, frames as numbers from 0 to 1; None without a decoder |

    Windows have a leading axis of `members` M: each member of an ensemble has windows of its own, or all share those of one.
    Only `params["network"]` is learnt, by `optimizer`. During training, `params["average"]` is a moving average of the
    network, and `params["key"]` a new key at every step.

    A latent variable has size `latents` and is standard normal before anything is known of it.
    """  # noqa: E501

    init: Callable[[jax.Array], PyTree]
    encode: Callable[[PyTree, jax.Array], LatentState]
    predict: Callable[..., LatentState]
    normalise: Callable[[PyTree, Moments], PyTree]
    loss: Callable[[PyTree, Window], tuple[jax.Array, Metrics]]
    optimizer: optax.GradientTransformation
    members: int
    infer_action: Callable[[PyTree, LatentState, LatentState], jax.Array] | None = None
    latents: int | None = None
    infer_latent: Callable[[PyTree, LatentState, jax.Array, LatentState], jax.Array] | None = None
    decode: Callable[[PyTree, LatentState], jax.Array] | None = None
    has_reward: bool = False
    """True if `predict` predicts reward and discount."""
    normalised_actions: bool = True
    """True if `predict` takes actions as networks see them, `space.encode(action)` in [-1, 1]; False for actions in the
    environment's units, as known models take them. Learnt models take actions in the units of their training windows."""
