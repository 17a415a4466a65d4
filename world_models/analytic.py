"""Known physics as a world model, to plan with the truth what others plan with what they learnt."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from world_models.base import Imagined, WorldModel, initial_state
from world_models.data import Moments
from world_models.data.replay_buffer import Window

PyTree = Any


def analytic(
    dynamics: Callable[[PyTree, jax.Array, jax.Array], jax.Array],
    reward: Callable[[PyTree, jax.Array, jax.Array], jax.Array],
    state_of: Callable[[jax.Array], jax.Array],
    params: PyTree,
    *,
    scale: float = 1.0,
    discount: float = 0.99,
) -> WorldModel:
    """Wrap pure physics in a world model's verbs; it has nothing to learn and doubts nothing.

    Args:
        dynamics: `(params, state, action) -> next state`.
        reward: `(params, state, action) -> scalar`, of the step from that state.
        state_of: `observation -> state`.
        params: Physical parameters.
        scale: Size of an action whose every coordinate is 1 to the planner, for actions arrive scaled to `[-1, 1]`.
        discount: Per step, in what is imagined.
    """

    def init(key: jax.Array) -> PyTree:
        return {"network": {}, "physics": params}

    def encode(params: PyTree, observation: jax.Array) -> Imagined:
        return initial_state(state_of(observation))

    def predict(params: PyTree, state: Imagined, action: jax.Array) -> Imagined:
        gained = reward(params["physics"], state.latent, scale * action)
        following = dynamics(params["physics"], state.latent, scale * action)
        return Imagined(following, state.discount * gained, state.discount * discount, jnp.zeros(()))

    def normalise(params: PyTree, moments: Moments) -> PyTree:
        return params

    def loss(params: PyTree, windows: Window) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.zeros(()), {}

    return WorldModel(init, encode, predict, normalise, loss, optax.identity(), 1)
