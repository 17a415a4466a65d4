"""The pendulum of Gymnasium's `Pendulum-v1`, as pure functions of its angle and speed.

ω' = clip(ω + (3 g / 2 l sin θ + 3 / m l² u) dt, ±8),        θ' = θ + ω' dt,        θ = 0 upright
reward = -(wrap(θ)² + 0.1 ω² + 0.001 u²),                    |u| <= 2
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PARAMS = {"gravity": 10.0, "mass": 1.0, "length": 1.0, "dt": 0.05}
"""Physical parameters: m/s², kg, m, s."""
MAX_SPEED, MAX_TORQUE = 8.0, 2.0
"""rad/s, Nm."""


def dynamics(params: Any, state: Float[Array, "2"], action: Float[Array, "1"]) -> Float[Array, "2"]:
    """The next (angle, speed), in rad and rad/s.

    Args:
        params: As `PARAMS`.
        state: `(θ, ω)`.
        action: Torque in Nm; clipped to the motor's limits.
    """
    torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
    pull = 1.5 * params["gravity"] / params["length"] * jnp.sin(state[0])
    push = 3.0 / (params["mass"] * params["length"] ** 2) * torque
    speed = jnp.clip(state[1] + (pull + push) * params["dt"], -MAX_SPEED, MAX_SPEED)
    return jnp.stack([state[0] + speed * params["dt"], speed])


def reward(params: Any, state: Float[Array, "2"], action: Float[Array, "1"]) -> Float[Array, ""]:
    """Minus the squared distance from rest upright and the squared torque, before the step is taken."""
    torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
    angle = jnp.mod(state[0] + jnp.pi, 2 * jnp.pi) - jnp.pi
    return -(angle**2 + 0.1 * state[1] ** 2 + 0.001 * torque**2)


def reset(key: jax.Array) -> Float[Array, "2"]:
    """A random start: angle uniform in ±π rad, speed uniform in ±1 rad/s."""
    return jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0])


def observe(state: Float[Array, "2"]) -> Float[Array, "3"]:
    """`(cos θ, sin θ, ω)`."""
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


def state_of(observation: Float[Array, "3"]) -> Float[Array, "2"]:
    """The inverse of `observe`, with the angle in ±π."""
    return jnp.stack([jnp.arctan2(observation[1], observation[0]), observation[2]])
