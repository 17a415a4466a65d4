"""A known model as a world model, so that planners use it like a learnt one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from world_models.base import LatentState, Metrics, PyTree, WorldModel, initial_state
from world_models.data import Window


def no_loss(params: PyTree, windows: Window) -> tuple[jax.Array, Metrics]:
    """Zero, of a model that has nothing to learn."""
    return jnp.zeros(()), {}


def analytic(
    dynamics: Callable[[PyTree, jax.Array, jax.Array], jax.Array],
    reward: Callable[[PyTree, jax.Array, jax.Array], jax.Array] | None,
    state_of: Callable[[jax.Array], jax.Array] | None,
    params: PyTree,
    *,
    observation_of: Callable[[jax.Array], jax.Array] | None = None,
    discount: float = 0.99,
) -> WorldModel:
    """Wrap known dynamics and a known reward in the verbs of a world model; nothing is learnt, and nothing disagrees.

    Actions are in the environment's units, in planning as in `dynamics` and `reward`.

    Args:
        dynamics: `(params, state, action) -> next state`.
        reward: `(params, state, action) -> scalar`, of the step from that state; None without a reward.
        state_of: `observation -> state`; None where observations are states.
        params: Of the dynamics and the reward.
        observation_of: `state -> observation`, for costs on observations; not needed where observations are states.
        discount: Per step, in what is predicted; used with a reward.

    Raises:
        ValueError: If the discount lies outside `(0, 1]`.
    """
    if not 0 < discount <= 1:
        raise ValueError(f"discount must lie in (0, 1]; got {discount}")

    def init(key: jax.Array) -> PyTree:
        return {"network": {}, "physics": params}

    def encode(params: PyTree, observation: jax.Array) -> LatentState:
        return initial_state(jnp.asarray(observation) if state_of is None else state_of(observation))

    def predict(params: PyTree, state: LatentState, action: jax.Array) -> LatentState:
        following = dynamics(params["physics"], state.latent, action)
        none = jnp.zeros(())
        if reward is None:
            return state._replace(latent=following, reward=none)
        gained = state.discount * reward(params["physics"], state.latent, action)
        return LatentState(following, (), gained, discount * state.discount, none)

    def decode(params: PyTree, state: LatentState) -> jax.Array:
        return state.latent if observation_of is None else observation_of(state.latent)

    return WorldModel(
        init,
        encode,
        predict,
        lambda params, moments: params,
        no_loss,
        optax.identity(),
        members=1,
        decode=decode if state_of is None or observation_of is not None else None,
        has_reward=reward is not None,
        normalised_actions=False,
    )
