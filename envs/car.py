"""Car: drive between round obstacles and stop at the far end.

State: (x m, y m, θ rad, v m/s). Observation: (x, y, cos θ, sin θ, v). Action: (acceleration a m/s², steering angle δ rad),
within ±4 and ±0.6. A kinematic bicycle with a wheelbase of 2.5 m, by Runge-Kutta steps of 0.1 s:

    ẋ = v cos θ,  ẏ = v sin θ,  θ̇ = v tan δ / L,  v̇ = a

    reward = -(0.005 |p - goal|² + 0.1 θ² + 0.02 a² + 0.5 δ²), before the step is taken,
             - 20 max(0, v / 8 - 1, (-1 - v) / 8) for a speed outside [-1, 8] after it, - 200 for a crash

A crash is a place inside one of the circles, which have the car's half width added to them, or outside [-10, 30] x [-15,
15]; it ends the episode. Success: within 1 m of the goal (20, 0) and slower than 0.5 m/s; it ends it too. An episode has
100 steps (10 s). Starts lie around (0, 0, 0, 3). The same physics, stage cost and obstacles as the reference problem that
the planners are measured on.
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
"""m/s allowed."""
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
"""The obstacles (x, y, r)."""
START = (0.0, 0.0, 0.0, 3.0)
"""Rolling towards the obstacles."""
SPREAD = (0.3, 0.3, 0.1, 0.5)
"""How far starts lie from it at most, in each coordinate."""
FIELD = ((-10.0, -15.0), (30.0, 15.0))
"""Corners of where a car may be."""
OPTIONS: dict[str, Bounds] = {"state": bounds([*FIELD[0], -10.0, -20.0], [*FIELD[1], 10.0, 20.0])}
"""What a start can be given."""


def _clipped(action: Float[Array, "2"]) -> Float[Array, "2"]:
    limit = np.array([MAX_ACCELERATION, MAX_STEERING], np.float32)
    return jnp.clip(action, -limit, limit)


def dynamics(params: Any, state: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, "4"]:
    """The next (x, y, θ, v).

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
    """The cost of being in a state and acting."""
    action = _clipped(action)
    away = (state[0] - GOAL[0]) ** 2 + (state[1] - GOAL[1]) ** 2
    return 0.005 * away + 0.1 * state[2] ** 2 + 0.02 * action[0] ** 2 + 0.5 * action[1] ** 2


def limits(state: Float[Array, "4"]) -> Float[Array, "8"]:
    """What must not be positive: depth in each circle, then the speed's excess over 8 and under -1, over 8."""
    speed = jnp.stack([(state[3] - FASTEST) / FASTEST, (SLOWEST - state[3]) / FASTEST])
    return jnp.concatenate([physics.depth(CIRCLES, state[:2]), speed])


def crashed(state: Float[Array, "4"]) -> Bool[Array, ""]:
    """Whether it is in an obstacle, or off the field."""
    low, high = np.array(FIELD)
    off = ((state[:2] < low) | (state[:2] > high)).any()
    return off | physics.crashed(CIRCLES, state[:2])


def success(state: Float[Array, "4"]) -> Bool[Array, ""]:
    """Whether it has stopped at the goal."""
    return (jnp.hypot(state[0] - GOAL[0], state[1] - GOAL[1]) < 1.0) & (jnp.abs(state[3]) < 0.5)


def reward(
    params: Any, state: Float[Array, "4"], action: Float[Array, "2"], following: Float[Array, "4"]
) -> Float[Array, ""]:
    """Minus the stage cost, the excess of speed, and the crash."""
    excess = jnp.maximum(limits(following)[-2:].max(), 0.0)
    return -stage(state, action) - 20.0 * excess - 200.0 * crashed(following)


def observe(state: Float[Array, "4"]) -> Float[Array, "5"]:
    """`(x, y, cos θ, sin θ, v)`."""
    return jnp.stack([state[0], state[1], jnp.cos(state[2]), jnp.sin(state[2]), state[3]])


def reset(key: PRNGKeyArray, state: Float[Array, "4"] | None = None, spread: float = 1.0) -> Float[Array, "4"]:
    """At the near end, rolling; or as given."""
    return physics.around(key, START, tuple(spread * width for width in SPREAD), state)


def report(state: Float[Array, "4"]) -> dict[str, Array]:
    """Distance to the goal, the largest of the limits (positive if one is broken), and whether it crashed."""
    away = jnp.hypot(state[0] - GOAL[0], state[1] - GOAL[1])
    return {"distance": away, "violation": limits(state).max(), "crashed": crashed(state)}


def draw_car(
    seen: d.View,
    canvas: Float[Array, "h w 3"],
    place: Float[Array, "2"],
    angle: Any,
    half: tuple[float, float],
    colour: d.Colour | Array,
) -> Float[Array, "h w 3"]:
    """A car from above: its shadow, its body, its window."""
    ahead = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    rounding = 0.45 * half[1]
    shadow = d.box(seen, place + jnp.array([0.08, -0.12]), half, angle, rounding)
    canvas = d.paint(d.paint(canvas, 0.25 * shadow, d.INK), d.box(seen, place, half, angle, rounding), colour)
    window = d.box(seen, place + 0.25 * half[0] * ahead, (0.2 * half[0], 0.72 * half[1]), angle, 0.2 * half[1])
    return d.paint(canvas, 0.85 * window, d.PAPER)


VIEW = d.view((-2.0, -6.0), (22.0, 6.0), 400)
"""Of the renders."""


@d.still
def field() -> Array:
    """The obstacles, solid where they are and pale where the middle of the car must not be, and the goal."""
    seen, canvas = VIEW, d.blank(VIEW, d.FLOOR)
    goal = jnp.array(GOAL)
    canvas = d.paint(d.paint(canvas, d.disc(seen, goal, 1.0), d.MIST), d.ring(seen, goal, 1.0, 0.09), d.TEAL)
    for x, y, radius in CIRCLES:
        canvas = d.paint(canvas, 0.12 * d.disc(seen, jnp.array([x, y]), radius), d.INK)
    for x, y, radius in CIRCLES:
        canvas = d.paint(canvas, 0.25 * d.disc(seen, jnp.array([x + 0.1, y - 0.15]), radius - 0.5, blur=0.2), d.INK)
        canvas = d.paint(canvas, d.disc(seen, jnp.array([x, y]), radius - 0.5), d.LEAF)
    return canvas


def render(state: Float[Array, "4"]) -> UInt8[Array, "200 400 3"]:
    """The field and the car from above."""
    return d.picture(draw_car(VIEW, jnp.asarray(field()), state[:2], state[2], (1.0, 0.5), d.CORAL))


@cache
def task(spread: float = 1.0) -> Task:
    """The task.

    Args:
        spread: 1 draws starts around `START`, 0 always begins there.

    Raises:
        ValueError: If it is not between the two.
    """

    return Task(
        name="car",
        params=PARAMS,
        reset=partial(reset, spread=physics.spread(spread)),
        step=physics.certain(dynamics),
        observe=observe,
        reward=reward,
        render=render,
        actions=bounds([-MAX_ACCELERATION, -MAX_STEERING], [MAX_ACCELERATION, MAX_STEERING]),
        observations=bounds([*FIELD[0], -1.0, -1.0, -20.0], [*FIELD[1], 1.0, 1.0, 20.0]),
        horizon=100,
        fps=10,
        success=success,
        terminated=lambda state: crashed(state) | success(state),
        report=report,
        options=OPTIONS,
        possible=lambda state: {"state": ~crashed(state)},
    )
