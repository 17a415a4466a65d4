"""Statistics that normalise a model's data."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MIN_STD = 1e-3  # smallest standard deviation, so that constant inputs are not amplified


class Moments(NamedTuple):
    """Means and standard deviations of observations, rewards and actions, the best reward, and a termination flag.

    Moments of vector observations are `[O]`, moments of rewards are scalars. Moments of frames are per channel, `[C]`, over
    all pixels. Moments of actions are None where they are not used. `terminates` is True if any episode has terminated.
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
        """Returns moments with standard deviations of at least 0.001, and for rewards of at least half the mean's size.

        Without the limit on rewards, a nearly constant reward would dominate all other costs.
        """
        reward_floor = jnp.maximum(0.5 * jnp.abs(self.reward_mean), MIN_STD)
        return self._replace(
            observation_std=jnp.maximum(self.observation_std, MIN_STD),
            reward_std=jnp.maximum(self.reward_std, reward_floor),
            action_std=None if self.action_std is None else jnp.maximum(self.action_std, MIN_STD),
        )
