"""Pendulum: Gymnasium's `Pendulum-v1` as pure functions of its angle and speed.

    ω' = clip(ω + (3 g / 2 l sin θ + 3 / m l² u) dt, ±8),        θ' = θ + ω' dt,        θ = 0 upright
    reward = -(wrap(θ)² + 0.1 ω² + 0.001 u²),                    |u| <= 2

State: (θ rad, ω rad/s). Observation: (cos θ, sin θ, ω). Action: torque in Nm. An episode has 200 steps and never
terminates. Success: within 0.2 rad of upright and slower than 0.5 rad/s; Gymnasium does not report success.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from envs import drawing as d
from envs import physics
from envs.task import Bounds, Task, bounds

PARAMS = {"gravity": 10.0, "mass": 1.0, "length": 1.0, "dt": 0.05}
"""m/s², kg, m, s."""
MAX_SPEED, MAX_TORQUE = 8.0, 2.0
"""rad/s, Nm."""
OPTIONS: dict[str, Bounds] = {"state": bounds([-np.pi, -MAX_SPEED], [np.pi, MAX_SPEED])}
"""Options of `reset` and their bounds."""


def dynamics(params: Any, state: Float[Array, "2"], action: Float[Array, "1"]) -> Float[Array, "2"]:
    """Returns the next state `(θ, ω)`.

    Args:
        params: As `PARAMS`.
        state: `(θ, ω)`.
        action: Torque in Nm; clipped to ±`MAX_TORQUE`.
    """
    torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
    pull = 1.5 * params["gravity"] / params["length"] * jnp.sin(state[0])
    push = 3.0 / (params["mass"] * params["length"] ** 2) * torque
    speed = jnp.clip(state[1] + (pull + push) * params["dt"], -MAX_SPEED, MAX_SPEED)
    return jnp.stack([state[0] + speed * params["dt"], speed])


def reward(params: Any, state: Float[Array, "2"], action: Float[Array, "1"]) -> Float[Array, ""]:
    """Returns `-(wrap(θ)² + 0.1 ω² + 0.001 u²)` of the state before the step."""
    torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
    angle = jnp.mod(state[0] + jnp.pi, 2 * jnp.pi) - jnp.pi
    return -(angle**2 + 0.1 * state[1] ** 2 + 0.001 * torque**2)


def reset(key: jax.Array, state: Float[Array, "2"] | None = None) -> Float[Array, "2"]:
    """Returns a start with an angle uniform in ±π rad and a speed uniform in ±1 rad/s, or `state` if it is given."""
    if state is not None:
        return state
    return jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0])


def observe(state: Float[Array, "2"]) -> Float[Array, "3"]:
    """Returns the observation `(cos θ, sin θ, ω)`."""
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


def state_of(observation: Float[Array, "3"]) -> Float[Array, "2"]:
    """Returns the state of an observation, with the angle in ±π."""
    return jnp.stack([jnp.arctan2(observation[1], observation[0]), observation[2]])


def success(state: Float[Array, "2"]) -> Bool[Array, ""]:
    """Returns True if the pendulum is upright and nearly at rest."""
    return (jnp.cos(state[0]) > jnp.cos(0.2)) & (jnp.abs(state[1]) < 0.5)


def render(state: Float[Array, "2"]) -> UInt8[Array, "300 300 3"]:
    """Returns an image of the rod, its hinge and the upright position."""
    camera = d.view((-1.3, -1.3), (1.3, 1.3), 300)
    canvas = d.paint(d.blank(camera, d.PAPER), d.disc(camera, jnp.zeros(2), 1.12), d.FLOOR)
    canvas = d.paint(canvas, d.ring(camera, jnp.zeros(2), 1.12, 0.015), d.MIST)
    canvas = d.paint(canvas, d.disc(camera, jnp.array([0.0, 1.12]), 0.04), d.TEAL)
    tip = jnp.stack([-jnp.sin(state[0]), jnp.cos(state[0])])  # positive angles lean to the left
    canvas = d.paint(canvas, 0.2 * d.line(camera, jnp.array([0.03, -0.04]), tip + jnp.array([0.03, -0.04]), 0.16), d.INK)
    canvas = d.paint(canvas, d.line(camera, jnp.zeros(2), tip, 0.16), d.CORAL)
    return d.picture(d.paint(canvas, d.disc(camera, jnp.zeros(2), 0.045), d.INK))


@cache
def task() -> Task:
    """Returns the task; it has no settings."""

    return Task(
        name="pendulum",
        params=PARAMS,
        reset=reset,
        step=physics.deterministic(dynamics),
        observe=observe,
        reward=lambda params, state, action, following: reward(params, state, action),
        render=render,
        actions=bounds([-MAX_TORQUE], [MAX_TORQUE]),
        observations=bounds([-1.0, -1.0, -MAX_SPEED], [1.0, 1.0, MAX_SPEED]),
        observation_names=("cos θ", "sin θ", "ω (rad/s)"),
        horizon=200,
        fps=20,
        success=success,
        report=lambda state: {"angle": state[0], "speed": state[1]},
        options=OPTIONS,
    )
