"""Cart-pole swing-up: a cart swings its hanging pole up and balances it.

State: (p m, θ rad, v m/s, ω rad/s), θ = 0 upright. Observation: (p, cos θ, sin θ, v, ω), clipped to ±20 m, ±25 m/s and ±50
rad/s. Action: force on the cart in N, within ±10. Equations of motion:

    a = (u + m_p l ω² sin θ - m_p g sin θ cos θ) / (m_c + m_p sin² θ),   α = (g sin θ - a cos θ) / l

with m_c = 1 kg, m_p = 0.1 kg (a point mass), l = 0.5 m, g = 9.81 m/s², integrated by Runge-Kutta steps of 0.05 s.

    reward(s, u) = -(0.1 p² + (1 - cos θ) + 0.01 v² + 0.01 ω² + 0.001 u²)      of the state before the step

Success: the pole is within 0.2 rad of upright and slower than 1 rad/s, and |p| < 0.5 m. Episodes never terminate; they have
200 steps (10 s). Start states lie around (0, π, 0, 0). The physics and the stage cost are those of the reference problem
in `benchmarks/problems.py`.
"""

from functools import cache, partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import physics
from envs.task import Bounds, Task, bounds

PARAMS = {"cart": 1.0, "pole": 0.1, "length": 0.5, "gravity": 9.81, "dt": 0.05}
"""kg, kg, m, m/s², s."""
MAX_FORCE = 10.0
"""N."""
START = (0.0, float(np.pi), 0.0, 0.0)
"""Centre of the start states: the pole hangs at rest, the cart is in the middle."""
SPREAD = (0.1, 0.1, 0.1, 0.1)
"""Half-width of the start distribution around `START`, per coordinate."""
OPTIONS: dict[str, Bounds] = {"state": bounds([-20.0, -10.0, -25.0, -50.0], [20.0, 10.0, 25.0, 50.0])}
"""Options of `reset` and their bounds."""


def dynamics(params: Any, state: Float[Array, "4"], action: Float[Array, "1"]) -> Float[Array, "4"]:
    """Returns the next state `(p, θ, v, ω)`.

    Args:
        params: As `PARAMS`.
        state: `(p, θ, v, ω)`.
        action: Force in N; clipped to ±`MAX_FORCE`.
    """
    cart, pole, length, gravity = (params[name] for name in ("cart", "pole", "length", "gravity"))

    def derivative(state: Array, force: Array) -> Array:
        sin, cos = jnp.sin(state[1]), jnp.cos(state[1])
        push = force + pole * length * state[3] ** 2 * sin - pole * gravity * sin * cos
        acceleration = push / (cart + pole * sin**2)
        return jnp.stack([state[2], state[3], acceleration, (gravity * sin - acceleration * cos) / length])

    return physics.rk4(derivative, state, jnp.clip(action[0], -MAX_FORCE, MAX_FORCE), params["dt"])


def reward(params: Any, state: Float[Array, "4"], action: Float[Array, "1"]) -> Float[Array, ""]:
    """Returns minus the stage cost of a state and a force."""
    force = jnp.clip(action[0], -MAX_FORCE, MAX_FORCE)
    speed_cost = 0.01 * state[2] ** 2 + 0.01 * state[3] ** 2
    return -(0.1 * state[0] ** 2 + 1.0 - jnp.cos(state[1]) + speed_cost + 0.001 * force**2)


def observe(state: Float[Array, "4"]) -> Float[Array, "5"]:
    """Returns the observation `(p, cos θ, sin θ, v, ω)`."""
    return jnp.stack([state[0], jnp.cos(state[1]), jnp.sin(state[1]), state[2], state[3]])


def state_of(observation: Float[Array, "5"]) -> Float[Array, "4"]:
    """Returns the state of an observation, with the angle in ±π."""
    angle = jnp.arctan2(observation[2], observation[1])
    return jnp.stack([observation[0], angle, observation[3], observation[4]])


def reset(key: PRNGKeyArray, state: Float[Array, "4"] | None = None, spread: float = 1.0) -> Float[Array, "4"]:
    """Returns a start state around `START`, or `state` if it is given; `spread` scales the width of the distribution."""
    return physics.around(key, START, tuple(spread * width for width in SPREAD), state)


def success(state: Float[Array, "4"]) -> Bool[Array, ""]:
    """Returns True if the pole is upright and the cart is in the middle."""
    upright = (jnp.cos(state[1]) > jnp.cos(0.2)) & (jnp.abs(state[3]) < 1.0)
    return upright & (jnp.abs(state[0]) < 0.5)


def render(state: Float[Array, "4"]) -> UInt8[Array, "320 400 3"]:
    """Returns an image of the cart on its rail; beyond 1.2 m the camera follows. Ticks are half a metre apart."""
    camera = d.moved(d.view((-1.75, -1.2), (1.75, 1.6), 400), jnp.stack([state[0] - jnp.clip(state[0], -1.2, 1.2), 0.0]))
    rail = d.soften(jnp.abs(camera.y + 0.02) - 0.012, camera.pixel) + 0.0 * camera.x
    below = d.soften(jnp.abs(camera.y + 0.05) - 0.04, camera.pixel)
    ticks = below * d.soften(jnp.abs(jnp.mod(camera.x + 0.25, 0.5) - 0.25) - 0.008, camera.pixel)
    middle = below * d.soften(jnp.abs(camera.x) - 0.03, camera.pixel)
    canvas = d.paint(d.paint(d.blank(camera, d.PAPER), ticks, d.STONE), rail, d.STONE)
    canvas = d.paint(canvas, middle, d.TEAL)
    cart, off = jnp.stack([state[0], 0.0]), jnp.array([0.03, -0.04])
    # the pole is drawn at twice its length
    tip = cart + 2.0 * PARAMS["length"] * jnp.stack([-jnp.sin(state[1]), jnp.cos(state[1])])
    canvas = d.paint(canvas, 0.2 * d.box(camera, cart + off, (0.28, 0.14), rounding=0.05), d.INK)
    canvas = d.paint(canvas, d.box(camera, cart, (0.28, 0.14), rounding=0.05), d.INK)
    canvas = d.paint(canvas, 0.2 * d.line(camera, cart + off, tip + off, 0.07), d.INK)
    canvas = d.paint(canvas, d.line(camera, cart, tip, 0.07), d.CORAL)
    canvas = d.paint(canvas, d.disc(camera, tip, 0.1), d.CORAL)
    return d.picture(d.paint(canvas, d.disc(camera, cart, 0.035), d.PAPER))


@cache
def task(spread: float = 1.0) -> Task:
    """Returns the task.

    Args:
        spread: Scale of the start distribution in [0, 1]; 0 always starts at `START`.

    Raises:
        ValueError: If `spread` is outside [0, 1].
    """

    return Task(
        name="cartpole_swingup",
        params=PARAMS,
        reset=partial(reset, spread=physics.spread(spread)),
        step=physics.deterministic(dynamics),
        observe=observe,
        reward=lambda params, state, action, following: reward(params, state, action),
        render=render,
        actions=bounds([-MAX_FORCE], [MAX_FORCE]),
        observations=bounds([-20.0, -1.0, -1.0, -25.0, -50.0], [20.0, 1.0, 1.0, 25.0, 50.0]),
        observation_names=("p (m)", "cos θ", "sin θ", "v (m/s)", "ω (rad/s)"),
        horizon=200,
        fps=20,
        success=success,
        report=lambda state: {"position": state[0], "angle": state[1]},
        options=OPTIONS,
    )
