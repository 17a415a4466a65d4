"""Rendezvous: a spacecraft docks at a station, with little fuel, through an approach cone.

State (`State`): motion relative to the station (x, y, z m, vx, vy, vz m/s), x outward from the Earth, y along the orbit, z
normal to it; and the number k of consecutive steps in the approach cone. Observation: (position / 100 m, velocity in m/s,
min(k / 10, 1)), clipped to ±5 km and ±6 m/s. Action: thrust acceleration per axis in mm/s², within ±4, held for 20 s.

The station is on a circular orbit with mean motion n = 0.00113 rad/s (Clohessy & Wiltshire 1960):

    ẍ = 3n²x + 2nẏ + u_x,   ÿ = -2nẋ + u_y,   z̈ = -n²z + u_z

The equations are linear, so steps are exact (`transition`). Δv is the smoothed velocity change of a step (`fuel`), d is the
distance to the port:

    reward = -Δv + (d - d') / 100 m + 10 for docking - 10 for a collision

Docking is success: within 0.5 m of the port (0, 45, 0), slower than 0.05 m/s, after at least 10 steps in the cone. The cone
has a half angle of 20° and its tip 2 m inside the port. A collision is a position within 40 m of the station's centre. Both
end the episode. An episode has at most 60 steps (20 min). Start states lie around rest at (-100, -200, 60). Physics, fuel,
sphere and cone are those of the reference problem in `benchmarks/problems.py`, which has to dock at step 50.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import physics
from envs.task import Bounds, Task, bounds

PARAMS = {"mean_motion": 0.00113, "dt": 20.0}
"""rad/s, s."""
MAX_THRUST = 4.0
"""mm/s² per axis."""
PORT = (0.0, 45.0, 0.0)
"""Position of the docking port, m."""
KEEP_OUT = 40.0
"""Radius of the keep-out sphere around the station's centre, m."""
SLOPE, TIP = float(np.tan(np.radians(20.0))), 43.0
"""Approach cone: tangent of its half angle, and y of its tip in m."""
APPROACH = 10
"""Consecutive steps in the cone that docking requires."""
NEAR, SLOW = 0.5, 0.05
"""Largest distance (m) and speed (m/s) at docking."""
SMOOTHING = 0.4
"""mm/s²; the fuel cost is quadratic below this thrust and linear above."""
START = (-100.0, -200.0, 60.0, 0.0, 0.0, 0.0)
"""Centre of the start states: at rest below, behind and beside the station."""
SPREAD = (10.0, 10.0, 10.0, 0.02, 0.02, 0.02)
"""Half-width of the start distribution around `START`, per coordinate."""
OPTIONS: dict[str, Bounds] = {"state": bounds([-5000.0] * 3 + [-6.0] * 3, [5000.0] * 3 + [6.0] * 3)}
"""Options of `reset` and their bounds: the motion."""


class State(NamedTuple):
    """State of one approach."""

    motion: Float[Array, "*b 6"]
    inside: Int[Array, "*b"]
    """Number of consecutive steps in the cone up to now."""


def transition(n: Any, dt: Any) -> tuple[Float[Array, "6 6"], Float[Array, "6 3"]]:
    """Returns A and B of the exact step `x' = A x + B u`, for u in m/s² held for dt seconds and mean motion n in rad/s."""
    s, c, nt = jnp.sin(n * dt), jnp.cos(n * dt), n * dt
    versine = 2.0 * jnp.sin(0.5 * n * dt) ** 2  # 1 - cos(n dt) without cancellation in single precision
    lag = nt - s
    zero, one = jnp.zeros_like(nt * 1.0), jnp.ones_like(nt * 1.0)
    drift = [
        [4 - 3 * c, zero, zero, s / n, 2 * versine / n, zero],
        [-6 * lag, one, zero, -2 * versine / n, (4 * s - 3 * nt) / n, zero],
        [zero, zero, c, zero, zero, s / n],
        [3 * n * s, zero, zero, c, 2 * s, zero],
        [-6 * n * versine, zero, zero, -2 * s, 4 * c - 3, zero],
        [zero, zero, -n * s, zero, zero, c],
    ]
    push = [
        [versine / n**2, 2 * lag / n**2, zero],
        [-2 * lag / n**2, 4 * versine / n**2 - 1.5 * dt**2, zero],
        [zero, zero, versine / n**2],
        [s / n, 2 * versine / n, zero],
        [-2 * versine / n, 4 * s / n - 3 * dt, zero],
        [zero, zero, s / n],
    ]
    return jnp.stack([jnp.stack(row) for row in drift]), jnp.stack([jnp.stack(row) for row in push])


def dynamics(params: Any, motion: Float[Array, "6"], action: Float[Array, "3"]) -> Float[Array, "6"]:
    """Returns the motion after one step.

    Args:
        params: As `PARAMS`.
        motion: `(x, y, z, vx, vy, vz)`.
        action: Thrust acceleration in mm/s²; clipped to its bounds.
    """
    drift, push = transition(jnp.asarray(params["mean_motion"]), jnp.asarray(params["dt"]))
    return drift @ motion + push @ (1e-3 * jnp.clip(action, -MAX_THRUST, MAX_THRUST))


def fuel(params: Any, action: Float[Array, "3"]) -> Float[Array, ""]:
    """Returns Δv in m/s of one step, `dt Σ (sqrt(u_i² + w²) - w)`; it is smooth at zero thrust."""
    size = jnp.sqrt(jnp.clip(action, -MAX_THRUST, MAX_THRUST) ** 2 + SMOOTHING**2) - SMOOTHING
    return 1e-3 * params["dt"] * size.sum()


def keep_out(motion: Float[Array, "6"]) -> Float[Array, ""]:
    """Returns `1 - |r|²/40²`; it is positive inside the keep-out sphere."""
    return 1.0 - (motion[:3] ** 2).sum() / KEEP_OUT**2


def cone(motion: Float[Array, "6"]) -> Float[Array, ""]:
    """Returns `(sqrt(x² + z² + 0.1²) - tan 20° (y - 43)) / 100`; it is positive outside the approach cone."""
    return (jnp.sqrt(motion[0] ** 2 + motion[2] ** 2 + 0.1**2) - SLOPE * (motion[1] - TIP)) / 100.0


def distance(motion: Float[Array, "6"]) -> Float[Array, ""]:
    """Returns the distance to the port in m."""
    return jnp.sqrt(((motion[:3] - jnp.array(PORT)) ** 2).sum() + 1e-6)


def success(state: State) -> Bool[Array, ""]:
    """Returns True if the craft has docked."""
    slow = (state.motion[3:] ** 2).sum() < SLOW**2
    return (distance(state.motion) < NEAR) & slow & (state.inside >= APPROACH)


def collided(state: State) -> Bool[Array, ""]:
    """Returns True if the craft is inside the keep-out sphere."""
    return keep_out(state.motion) > physics.TOUCH


def step(params: Any, state: State, action: Float[Array, "3"], key: PRNGKeyArray) -> State:
    """Returns the state after one step of thrust; the step is deterministic."""
    motion = dynamics(params, state.motion, action)
    return State(motion, jnp.where(cone(motion) <= physics.TOUCH, state.inside + 1, 0))


def reset(key: PRNGKeyArray, state: Float[Array, "6"] | None = None, spread: float = 1.0) -> State:
    """Returns a start state around `START`, or one with the motion `state`; `spread` scales the start distribution."""
    motion = physics.around(key, START, tuple(spread * width for width in SPREAD), state)
    return State(motion, jnp.zeros((), jnp.int32))


def reward(params: Any, state: State, action: Float[Array, "3"], following: State) -> Float[Array, ""]:
    """Returns progress towards the port minus fuel, plus 10 for docking, minus 10 for a collision."""
    progress = (distance(state.motion) - distance(following.motion)) / 100.0
    return progress - fuel(params, action) + 10.0 * success(following) - 10.0 * collided(following)


def observe(state: State) -> Float[Array, "7"]:
    """Returns the observation `(position / 100 m, velocity, min(steps in the cone / 10, 1))`."""
    steps = jnp.minimum(state.inside / APPROACH, 1.0)
    return jnp.concatenate([state.motion[:3] / 100.0, state.motion[3:], steps[None]])


def report(state: State) -> dict[str, Array]:
    """Returns distance, speed and the two constraint values (> 0: violated)."""
    motion = state.motion
    speed = jnp.linalg.norm(motion[3:])
    return {"distance": distance(motion), "speed": speed, "keep_out": keep_out(motion), "cone": cone(motion)}


def _view(height: float) -> d.View:
    return d.view((-260.0, -height / 2), (180.0, height / 2), 400)


PLANE, ACROSS = _view(260.7), _view(178.2)
"""Cameras of the two halves of a render."""


@d.still
def _station(height: float) -> Array:
    """Draws stars, station, sphere and cone, in a view of a given height in m."""
    camera = _view(height)
    canvas = d.blank(camera, d.NIGHT)
    number = np.arange(60)[:, None, None]
    x, y = -260.0 + (number * 0.618034 % 1.0) * 440.0, -150.0 + (number * 0.754878 % 1.0) * 300.0  # scattered
    stars = (0.25 + 0.5 * (number * 0.569840 % 1.0)) * d.soften(jnp.hypot(camera.x - x, camera.y - y) - 0.55, camera.pixel)
    canvas = d.paint(canvas, stars.max(axis=0), d.PAPER)
    middle = jnp.zeros(2)
    wedge = d.soften((jnp.abs(camera.y) - SLOPE * (camera.x - TIP)) * np.cos(np.radians(20.0)), camera.pixel)
    canvas = d.paint(canvas, 0.22 * wedge, d.TEAL)
    canvas = d.paint(canvas, 0.10 * d.disc(camera, middle, KEEP_OUT), d.CORAL)
    canvas = d.paint(canvas, 0.7 * d.ring(camera, middle, KEEP_OUT, 1.2), d.CORAL)
    for side in (-1.0, 1.0):
        canvas = d.paint(canvas, d.box(camera, jnp.array([-4.0, side * 17.0]), (7.0, 10.0), rounding=1.0), d.SKY)
        canvas = d.paint(canvas, d.line(camera, middle, jnp.array([-4.0, side * 27.0]), 1.6), d.STONE)
    canvas = d.paint(canvas, d.box(camera, jnp.array([-2.0, 0.0]), (18.0, 5.0), rounding=3.0), d.PAPER)
    canvas = d.paint(canvas, d.line(camera, jnp.array([16.0, 0.0]), jnp.array([PORT[1], 0.0]), 3.0), d.STONE)
    return d.paint(canvas, d.disc(camera, jnp.array([PORT[1], 0.0]), 3.0), d.SAND)


def _with_craft(camera: d.View, station: np.ndarray, position: Array, velocity: Array) -> Float[Array, "h w 3"]:
    """Draws the craft and a line along its motion over the next 100 s."""
    canvas = d.paint(jnp.asarray(station), 0.5 * d.line(camera, position, position + 100.0 * velocity, 1.2), d.CORAL)
    return d.paint(d.paint(canvas, d.disc(camera, position, 5.5), d.CORAL), d.disc(camera, position, 2.0), d.PAPER)


def render(state: State) -> UInt8[Array, "400 400 3"]:
    """Returns an image of two views: the orbital plane (y right, x up), and below it the y-z plane (y right, z up)."""
    along, out, across = state.motion.reshape(2, 3).T[jnp.array([1, 0, 2])]
    plane = _with_craft(PLANE, _station(260.7), *jnp.stack([along, out], axis=1))
    other = _with_craft(ACROSS, _station(178.2), *jnp.stack([along, across], axis=1))
    rule = jnp.broadcast_to(jnp.asarray(d.STONE), (1, 400, 3))
    return d.picture(jnp.concatenate([plane, rule, other]))


@cache
def task(spread: float = 1.0) -> Task:
    """Returns the task.

    Args:
        spread: Scale of the start distribution in [0, 1]; 0 always starts at `START`.

    Raises:
        ValueError: If `spread` is outside [0, 1].
    """
    return Task(
        name="rendezvous",
        params=PARAMS,
        reset=partial(reset, spread=physics.spread(spread)),
        step=step,
        observe=observe,
        reward=reward,
        render=render,
        actions=bounds([-MAX_THRUST] * 3, [MAX_THRUST] * 3),
        observations=bounds([-50.0] * 3 + [-6.0] * 3 + [0.0], [50.0] * 3 + [6.0] * 3 + [1.0]),
        observation_names=("x (100 m)", "y (100 m)", "z (100 m)", "vx (m/s)", "vy (m/s)", "vz (m/s)", "in the cone"),
        horizon=60,
        fps=10,
        success=success,
        terminated=lambda state: success(state) | collided(state),
        report=report,
        options=OPTIONS,
        possible=lambda state: {"state": ~collided(state)},
    )
