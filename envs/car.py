"""Car: a vehicle drives between round obstacles and stops at the far end.

State: (x m, y m, θ rad, v m/s). Observation: (x, y, cos θ, sin θ, v). Action: (acceleration a m/s², steering angle δ rad),
within ±4 and ±0.6. The model is a kinematic bicycle with a wheelbase of 2.5 m, integrated by Runge-Kutta steps of 0.1 s:

    ẋ = v cos θ,  ẏ = v sin θ,  θ̇ = v tan δ / L,  v̇ = a

`reward(s, u, s')` is the sum of
    -(0.005 |p - goal|² + 0.1 θ² + 0.02 a² + 0.5 δ²)       in s,
    -20 max(0, v / 8 - 1, (-1 - v) / 8)                    in s': the speed is outside [-1, 8],
    -200                                                   in s': a crash.

A crash is a position inside a circle or outside [-10, 30] x [-15, 15]. The radii of the circles include half the width of
the car. Success is a position within 1 m of the goal (20, 0) at less than 0.5 m/s. Crash and success end the episode. An
episode has at most 100 steps (10 s). Start states lie around (0, 0, 0, 3). The physics, the stage cost and the obstacles
are those of the reference problem in `benchmarks/problems.py`.
"""

from functools import cache, partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import physics
from envs.task import Bounds, Task, bounds

PARAMS = {"wheelbase": 2.5, "dt": 0.1}
"""m, s."""
MAX_ACCELERATION, MAX_STEERING = 4.0, 0.6
"""m/s², rad."""
SLOWEST, FASTEST = -1.0, 8.0
"""Speed limits, m/s."""
GOAL = (20.0, 0.0)
"""m."""
CIRCLES: physics.Circles = (
    (5.0, -0.3, 1.3),
    (8.5, 2.6, 1.3),
    (9.5, -2.2, 1.5),
    (13.0, 0.4, 1.4),
    (16.5, -2.0, 1.2),
    (16.5, 2.8, 1.3),
)
"""Obstacles `(x, y, radius)`, m."""
START = (0.0, 0.0, 0.0, 3.0)
"""Centre of the start states: the car moves towards the obstacles."""
SPREAD = (0.3, 0.3, 0.1, 0.5)
"""Half-width of the start distribution around `START`, per coordinate."""
FIELD = ((-10.0, -15.0), (30.0, 15.0))
"""Lower and upper corner of the allowed positions, m."""
OPTIONS: dict[str, Bounds] = {"state": bounds([*FIELD[0], -10.0, -20.0], [*FIELD[1], 10.0, 20.0])}
"""Options of `reset` and their bounds."""


def _clipped(action: Float[Array, "2"]) -> Float[Array, "2"]:
    limit = np.array([MAX_ACCELERATION, MAX_STEERING], np.float32)
    return jnp.clip(action, -limit, limit)


def dynamics(params: Any, state: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, "4"]:
    """Returns the next state `(x, y, θ, v)`.

    Args:
        params: As `PARAMS`.
        state: `(x, y, θ, v)`.
        action: `(a, δ)`; clipped to their bounds.
    """

    def derivative(state: Array, action: Array) -> Array:
        turn = state[3] * jnp.tan(action[1]) / params["wheelbase"]
        return jnp.stack([state[3] * jnp.cos(state[2]), state[3] * jnp.sin(state[2]), turn, action[0]])

    return physics.rk4(derivative, state, _clipped(action), params["dt"])


def stage(state: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, ""]:
    """Returns the stage cost of a state and an action."""
    action = _clipped(action)
    squared_distance = (state[0] - GOAL[0]) ** 2 + (state[1] - GOAL[1]) ** 2
    return 0.005 * squared_distance + 0.1 * state[2] ** 2 + 0.02 * action[0] ** 2 + 0.5 * action[1] ** 2


def limits(state: Float[Array, "4"]) -> Float[Array, "8"]:
    """Returns the constraint values, feasible where <= 0: depth in each circle, then `v / 8 - 1` and `(-1 - v) / 8`."""
    speed = jnp.stack([(state[3] - FASTEST) / FASTEST, (SLOWEST - state[3]) / FASTEST])
    return jnp.concatenate([physics.depth(CIRCLES, state[:2]), speed])


def crashed(state: Float[Array, "4"]) -> Bool[Array, ""]:
    """Returns True if the car is in an obstacle or outside `FIELD`."""
    low, high = np.array(FIELD)
    outside = ((state[:2] < low) | (state[:2] > high)).any()
    return outside | physics.crashed(CIRCLES, state[:2])


def success(state: Float[Array, "4"]) -> Bool[Array, ""]:
    """Returns True if the car has stopped at the goal."""
    return (jnp.hypot(state[0] - GOAL[0], state[1] - GOAL[1]) < 1.0) & (jnp.abs(state[3]) < 0.5)


def reward(
    params: Any, state: Float[Array, "4"], action: Float[Array, "2"], following: Float[Array, "4"]
) -> Float[Array, ""]:
    """Returns minus the stage cost and the penalties for speeding and for a crash."""
    excess = jnp.maximum(limits(following)[-2:].max(), 0.0)
    return -stage(state, action) - 20.0 * excess - 200.0 * crashed(following)


def observe(state: Float[Array, "4"]) -> Float[Array, "5"]:
    """Returns the observation `(x, y, cos θ, sin θ, v)`."""
    return jnp.stack([state[0], state[1], jnp.cos(state[2]), jnp.sin(state[2]), state[3]])


def reset(key: PRNGKeyArray, state: Float[Array, "4"] | None = None, spread: float = 1.0) -> Float[Array, "4"]:
    """Returns a start state around `START`, or `state` if it is given; `spread` scales the width of the distribution."""
    return physics.around(key, START, tuple(spread * width for width in SPREAD), state)


def report(state: Float[Array, "4"]) -> dict[str, Array]:
    """Returns the distance to the goal in m, the largest constraint value (> 0: violated) and the crash flag."""
    distance = jnp.hypot(state[0] - GOAL[0], state[1] - GOAL[1])
    return {"distance": distance, "violation": limits(state).max(), "crashed": crashed(state)}


def draw_car(
    camera: d.View,
    canvas: Float[Array, "h w 3"],
    position: Float[Array, "2"],
    angle: Any,
    half: tuple[float, float],
    colour: d.Colour | Array,
) -> Float[Array, "h w 3"]:
    """Draws a car from above: its shadow, its body and its window."""
    ahead = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    rounding = 0.45 * half[1]
    shadow = d.box(camera, position + jnp.array([0.08, -0.12]), half, angle, rounding)
    canvas = d.paint(d.paint(canvas, 0.25 * shadow, d.INK), d.box(camera, position, half, angle, rounding), colour)
    window = d.box(camera, position + 0.25 * half[0] * ahead, (0.2 * half[0], 0.72 * half[1]), angle, 0.2 * half[1])
    return d.paint(canvas, 0.85 * window, d.PAPER)


VIEW = d.view((-2.0, -6.0), (22.0, 6.0), 400)
"""Camera of the renders."""


@d.still
def field() -> Array:
    """Draws the obstacles, a pale margin that the centre of the car must not enter, and the goal."""
    camera, canvas = VIEW, d.blank(VIEW, d.FLOOR)
    goal = jnp.array(GOAL)
    canvas = d.paint(d.paint(canvas, d.disc(camera, goal, 1.0), d.MIST), d.ring(camera, goal, 1.0, 0.09), d.TEAL)
    for x, y, radius in CIRCLES:
        canvas = d.paint(canvas, 0.12 * d.disc(camera, jnp.array([x, y]), radius), d.INK)
    for x, y, radius in CIRCLES:
        canvas = d.paint(canvas, 0.25 * d.disc(camera, jnp.array([x + 0.1, y - 0.15]), radius - 0.5, blur=0.2), d.INK)
        canvas = d.paint(canvas, d.disc(camera, jnp.array([x, y]), radius - 0.5), d.LEAF)
    return canvas


def render(state: Float[Array, "4"]) -> UInt8[Array, "200 400 3"]:
    """Returns an image of the field and the car from above."""
    return d.picture(draw_car(VIEW, jnp.asarray(field()), state[:2], state[2], (1.0, 0.5), d.CORAL))


@cache
def task(spread: float = 1.0) -> Task:
    """Returns the task.

    Args:
        spread: Scale of the start distribution in [0, 1]; 0 always starts at `START`.

    Raises:
        ValueError: If `spread` is outside [0, 1].
    """

    return Task(
        name="car",
        params=PARAMS,
        reset=partial(reset, spread=physics.spread(spread)),
        step=physics.deterministic(dynamics),
        observe=observe,
        reward=reward,
        render=render,
        actions=bounds([-MAX_ACCELERATION, -MAX_STEERING], [MAX_ACCELERATION, MAX_STEERING]),
        observations=bounds([*FIELD[0], -1.0, -1.0, -20.0], [*FIELD[1], 1.0, 1.0, 20.0]),
        observation_names=("x (m)", "y (m)", "cos θ", "sin θ", "v (m/s)"),
        horizon=100,
        fps=10,
        success=success,
        terminated=lambda state: crashed(state) | success(state),
        report=report,
        options=OPTIONS,
        possible=lambda state: {"state": ~crashed(state)},
    )
