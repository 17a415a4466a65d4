"""Statistics that normalise a model's data, whatever its units: nothing in them is small or large by itself."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

MIN_STD = 1e-3  # scale of what does not vary, so that its first change is not taken for noise
ROUNDING = float(np.finfo(np.float32).eps)
"""Standard deviations, relative to the mean, up to which a number counts as constant."""
NOISE = 64 * float(np.finfo(np.float64).eps)
"""The same relative to the largest standard deviation among numbers that come together: rounding of a simulation."""
LEAST = float(np.finfo(np.float32).tiny)


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

    def scaled(self) -> "Moments":
        """Returns moments with the scales of rewards and actions in place of their standard deviations.

        The scale of rewards is at least half the mean's size: otherwise a nearly constant reward would dominate all other
        costs. Observations get their scales when a model has put together what shares one, see `scale`.
        """
        reward_std = jnp.maximum(self.reward_std, 0.5 * jnp.abs(self.reward_mean))
        action_std = None
        if self.action_mean is not None and self.action_std is not None:
            action_std = scale(self.action_mean, self.action_std)
        return self._replace(reward_std=jnp.where(reward_std > LEAST, reward_std, MIN_STD), action_std=action_std)


def scale(mean: Float[Array, "*numbers"], std: Float[Array, "*numbers"]) -> Float[Array, "*numbers"]:
    """Returns what numbers are divided by: their standard deviations, or, where they do not vary, 0.001.

    Numbers vary if they do so by more than they are rounded; where not, the scale is at least 1000 times the rounding.

    Args:
        mean: Of numbers that come together, such as the coordinates of an observation.
        std: Their standard deviations.
    """
    rounding = ROUNDING * jnp.abs(mean)
    varies = std > jnp.maximum(jnp.maximum(rounding, NOISE * jnp.max(std, initial=0.0)), LEAST)
    return jnp.where(varies, std, jnp.maximum(MIN_STD, 1e3 * rounding))


def masked_moments(
    values: Num[Array, "rows *numbers"], mask: Bool[Array, " rows"]
) -> tuple[Float[Array, "*numbers"], Float[Array, "*numbers"]]:
    """Returns mean and standard deviation over the rows that count; 0 if none does.

    Deviations from one of the rows are averaged, in units of the largest: neither a large mean nor very small or large
    numbers cost accuracy.

    Args:
        values: Rows; those that do not count may hold anything.
        mask: Rows that count.
    """
    values = values.astype(jnp.float32)
    counts = mask.reshape(-1, *(1,) * (values.ndim - 1))
    total = jnp.maximum(mask.sum(), 1)
    one = jnp.where(mask.any(), values[jnp.argmax(mask)], 0.0)
    apart = jnp.where(counts, values - one, 0.0)
    largest = jnp.max(jnp.abs(apart), axis=0)
    apart = apart / jnp.where(largest > 0, largest, 1.0)
    mean = jnp.sum(apart, axis=0) / total
    variance = jnp.sum(jnp.where(counts, apart - mean, 0.0) ** 2, axis=0) / total
    return one + largest * mean, largest * jnp.sqrt(variance)


def combined_moments(
    counts: Int[Array, " parts"], means: Float[Array, "parts *numbers"], stds: Float[Array, "parts *numbers"]
) -> tuple[Float[Array, "*numbers"], Float[Array, "*numbers"]]:
    """Returns mean and standard deviation of all rows of several parts, as accurately as `masked_moments`.

    Args:
        counts: Rows in each part; those of 0 rows do not count.
        means: Of every part.
        stds: The same.
    """
    counts = counts.reshape(-1, *(1,) * (means.ndim - 1))
    total = jnp.maximum(counts.sum(), 1)
    one = means[jnp.argmax(counts.ravel() > 0)]
    apart, stds = (jnp.where(counts > 0, x, 0.0) for x in (means - one, stds))
    largest = jnp.maximum(jnp.abs(apart), stds).max(axis=0)
    apart, stds = (x / jnp.where(largest > 0, largest, 1.0) for x in (apart, stds))
    mean = jnp.sum(counts * apart, axis=0) / total
    variance = jnp.sum(counts * (stds**2 + (apart - mean) ** 2), axis=0) / total
    return one + largest * mean, largest * jnp.sqrt(variance)
