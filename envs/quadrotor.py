"""Quadrotor: a planar quadrotor flies between round obstacles and hovers at the far end.

State: (x m, z m, θ rad, vx m/s, vz m/s, ω rad/s). Observation: (x, z, cos θ, sin θ, vx, vz, ω), speeds clipped to ±15 m/s
and ±30 rad/s. Action: thrusts of the right and the left rotor in N, each within [0, 9.81]. The maximal total thrust is
twice the weight.

    v̇x = -(u_1 + u_2) sin θ / m,   v̇z = (u_1 + u_2) cos θ / m - g,   ω̇ = (u_1 - u_2) l / I

with m = 1 kg, l = 0.4 m, I = 0.16 kg m², g = 9.81 m/s², integrated by Runge-Kutta steps of 0.05 s.

`reward(s, u, s')` is the sum of
    -(0.02 |p - goal|² + 0.2 (1 - cos θ) + 0.01 (vx² + vz² + ω²) + 0.002 Σ (u_i - mg/2)²)     in s,
    -100                                                                                      in s': a crash.

A crash is a position inside a circle, |z| > 2 (floor and ceiling), or |x - 2.5| > 6. The radii of the circles include half
the size of the craft. Success is a position within 0.3 m of the goal (5, 0), upright within 0.2 rad, slower than 0.5 m/s
and 1 rad/s. Crash and success end the episode. An episode has at most 120 steps (6 s). Start states lie around rest at the
origin. The physics, the stage cost and the obstacles are those of the reference problem in `benchmarks/problems.py`.
"""

from functools import cache, partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import physics
from envs.task import Bounds, Task, bounds

PARAMS = {"mass": 1.0, "arm": 0.4, "inertia": 0.16, "gravity": 9.81, "dt": 0.05}
"""kg, m, kg m², m/s², s."""
MAX_THRUST, HOVER = 9.81, 4.905
"""Thrust of one rotor in N: the maximum, and the value at hover."""
GOAL = (5.0, 0.0)
"""m."""
CIRCLES: physics.Circles = ((1.4, 0.3, 0.6), (2.7, -0.9, 0.6), (2.9, 1.2, 0.6), (4.0, 0.1, 0.5))
"""Obstacles `(x, z, radius)`, m."""
CEILING = 2.0
"""Height of the ceiling over z = 0, and depth of the floor below it; m."""
START = (0.0,) * 6
"""Centre of the start states: rest at the origin."""
SPREAD = (0.1,) * 6
"""Half-width of the start distribution around `START`, per coordinate."""
OPTIONS: dict[str, Bounds] = {"state": bounds([-3.5, -2.0, -10.0, -15.0, -15.0, -30.0], [8.5, 2.0, 10.0, 15.0, 15.0, 30.0])}
"""Options of `reset` and their bounds."""


def dynamics(params: Any, state: Float[Array, "6"], action: Float[Array, "2"]) -> Float[Array, "6"]:
    """Returns the next state `(x, z, θ, vx, vz, ω)`.

    Args:
        params: As `PARAMS`.
        state: `(x, z, θ, vx, vz, ω)`.
        action: Thrusts of the right and the left rotor in N; clipped to their bounds.
    """

    def derivative(state: Array, thrusts: Array) -> Array:
        lift = (thrusts[0] + thrusts[1]) / params["mass"]
        turn = (thrusts[0] - thrusts[1]) * params["arm"] / params["inertia"]
        sideways, upwards = -lift * jnp.sin(state[2]), lift * jnp.cos(state[2]) - params["gravity"]
        return jnp.stack([state[3], state[4], state[5], sideways, upwards, turn])

    return physics.rk4(derivative, state, jnp.clip(action, 0.0, MAX_THRUST), params["dt"])


def stage(state: Float[Array, "6"], action: Float[Array, "2"]) -> Float[Array, ""]:
    """Returns the stage cost of a state and an action."""
    squared_distance = (state[0] - GOAL[0]) ** 2 + (state[1] - GOAL[1]) ** 2
    speed = state[3] ** 2 + state[4] ** 2 + state[5] ** 2
    effort = ((jnp.clip(action, 0.0, MAX_THRUST) - HOVER) ** 2).sum()
    return 0.02 * squared_distance + 0.2 * (1.0 - jnp.cos(state[2])) + 0.01 * speed + 0.002 * effort


def limits(state: Float[Array, "6"]) -> Float[Array, "6"]:
    """Returns the constraint values, feasible where <= 0: depth in each circle, then `z / 2 - 1` and `-z / 2 - 1`."""
    corridor = jnp.stack([(state[1] - CEILING) / CEILING, (-CEILING - state[1]) / CEILING])
    return jnp.concatenate([physics.depth(CIRCLES, state[:2]), corridor])


def crashed(state: Float[Array, "6"]) -> Bool[Array, ""]:
    """Returns True if the craft hit an obstacle, the floor or the ceiling, or left the field."""
    return (limits(state).max() > physics.TOUCH) | (jnp.abs(state[0] - 2.5) > 6.0)


def success(state: Float[Array, "6"]) -> Bool[Array, ""]:
    """Returns True if the craft hovers at the goal."""
    near = jnp.hypot(state[0] - GOAL[0], state[1] - GOAL[1]) < 0.3
    slow = (jnp.hypot(state[3], state[4]) < 0.5) & (jnp.abs(state[5]) < 1.0)
    return near & slow & (jnp.cos(state[2]) > jnp.cos(0.2))


def reward(
    params: Any, state: Float[Array, "6"], action: Float[Array, "2"], following: Float[Array, "6"]
) -> Float[Array, ""]:
    """Returns minus the stage cost and the penalty for a crash."""
    return -stage(state, action) - 100.0 * crashed(following)


def observe(state: Float[Array, "6"]) -> Float[Array, "7"]:
    """Returns the observation `(x, z, cos θ, sin θ, vx, vz, ω)`."""
    return jnp.concatenate([state[:2], jnp.stack([jnp.cos(state[2]), jnp.sin(state[2])]), state[3:]])


def reset(key: PRNGKeyArray, state: Float[Array, "6"] | None = None, spread: float = 1.0) -> Float[Array, "6"]:
    """Returns a start state around `START`, or `state` if it is given; `spread` scales the width of the distribution."""
    return physics.around(key, START, tuple(spread * width for width in SPREAD), state)


def report(state: Float[Array, "6"]) -> dict[str, Array]:
    """Returns the distance to the goal in m, the largest constraint value (> 0: violated) and the crash flag."""
    distance = jnp.hypot(state[0] - GOAL[0], state[1] - GOAL[1])
    return {"distance": distance, "violation": limits(state).max(), "crashed": crashed(state)}


VIEW = d.view((-0.9, -2.295), (5.9, 2.295), 400)
"""Camera of the renders."""


@d.still
def hall() -> Array:
    """Draws floor, ceiling, goal, obstacles, and a pale margin that the centre of the craft must not enter."""
    camera, canvas = VIEW, d.blank(VIEW, d.FLOOR)
    goal = jnp.array(GOAL)
    canvas = d.paint(d.paint(canvas, d.disc(camera, goal, 0.3), d.MIST), d.ring(camera, goal, 0.3, 0.03), d.TEAL)
    canvas = d.paint(canvas, d.soften(CEILING - jnp.abs(camera.y), camera.pixel) + 0.0 * camera.x, d.INK)
    for x, z, radius in CIRCLES:
        canvas = d.paint(canvas, 0.12 * d.disc(camera, jnp.array([x, z]), radius), d.INK)
    for x, z, radius in CIRCLES:
        canvas = d.paint(canvas, d.disc(camera, jnp.array([x, z]), radius - 0.25), d.STONE)
    return canvas


def render(state: Float[Array, "6"]) -> UInt8[Array, "270 400 3"]:
    """Returns an image of the hall and the craft from the side."""
    camera, canvas = VIEW, jnp.asarray(hall())
    position, along = state[:2], jnp.stack([jnp.cos(state[2]), jnp.sin(state[2])])
    above = jnp.stack([-along[1], along[0]])
    left, right = position - 0.28 * along, position + 0.28 * along
    canvas = d.paint(canvas, d.line(camera, left, right, 0.06), d.INK)
    for end in (left, right):
        hub = end + 0.08 * above
        canvas = d.paint(canvas, d.line(camera, end, hub, 0.035), d.INK)
        canvas = d.paint(canvas, d.line(camera, hub - 0.14 * along, hub + 0.14 * along, 0.025), d.STONE)
    return d.picture(d.paint(canvas, d.disc(camera, position, 0.1), d.CORAL))


@cache
def task(spread: float = 1.0) -> Task:
    """Returns the task.

    Args:
        spread: Scale of the start distribution in [0, 1]; 0 always starts at `START`.

    Raises:
        ValueError: If `spread` is outside [0, 1].
    """

    ends = [-3.5, -CEILING, -1.0, -1.0, -15.0, -15.0, -30.0], [8.5, CEILING, 1.0, 1.0, 15.0, 15.0, 30.0]
    return Task(
        name="quadrotor",
        params=PARAMS,
        reset=partial(reset, spread=physics.spread(spread)),
        step=physics.deterministic(dynamics),
        observe=observe,
        reward=reward,
        render=render,
        actions=bounds([0.0, 0.0], [MAX_THRUST, MAX_THRUST]),
        observations=bounds(*ends),
        observation_names=("x (m)", "z (m)", "cos θ", "sin θ", "vx (m/s)", "vz (m/s)", "ω (rad/s)"),
        horizon=120,
        fps=20,
        success=success,
        terminated=lambda state: crashed(state) | success(state),
        report=report,
        options=OPTIONS,
        possible=lambda state: {"state": ~crashed(state)},
    )
