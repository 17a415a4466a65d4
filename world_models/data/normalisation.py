"""Scales of the data that a model learns from."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LEAST = 1e-3  # standard deviation


class Moments(NamedTuple):
    """Mean and standard deviation of what was seen, the best reward, and whether any episode has terminated.

    Observations are `[O]`, rewards scalars.

    Of frames it is that of every channel, `[C]`, over all places. Those of actions are None where nobody needs them.
    """

    observation_mean: Float[Array, " observation"]
    observation_std: Float[Array, " observation"]
    reward_mean: Float[Array, ""]
    reward_std: Float[Array, ""]
    reward_best: Float[Array, ""]
    action_mean: Float[Array, "..."] | None = None
    action_std: Float[Array, "..."] | None = None
    terminates: Bool[Array, ""] | bool = True

    def floored(self) -> "Moments":
        """With standard deviations that blow nothing up: at least 0.001, and a reward's at least half of its size.

        A reward that hardly varies would else drown every other cost.
        """
        least = jnp.maximum(0.5 * jnp.abs(self.reward_mean), LEAST)
        return self._replace(
            observation_std=jnp.maximum(self.observation_std, LEAST),
            reward_std=jnp.maximum(self.reward_std, least),
            action_std=None if self.action_std is None else jnp.maximum(self.action_std, LEAST),
        )
