"""Rendezvous: bring a spacecraft to the docking port of a station, on little fuel, from the right side.

State: motion relative to the station (x, y, z m, vx, vy, vz m/s), x outward from the Earth, y along the orbit, z across it;
and for how many steps the craft has been in the approach cone (`State`). Observation: (position / 100 m, velocity in m/s,
the least of these steps / 10 and 1), clipped to ±5 km and ±6 m/s. Action: thrust acceleration per axis in mm/s², within ±4,
held for 20 s.

The station is on a circular orbit of mean motion n = 0.00113 rad/s (Clohessy & Wiltshire 1960):

    ẍ = 3n²x + 2nẏ + u_x,   ÿ = -2nẋ + u_y,   z̈ = -n²z + u_z

which is linear, so that steps are exact (`transition`). With Δv the speed that a step's thrust gives, smoothed as in
`fuel`, and d the distance to the port:

    reward = -Δv + (d - d') / 100 m + 10 for docking - 10 for coming too near

Docking: within 0.5 m of the port (0, 45, 0) and slower than 0.05 m/s, after 10 steps or more in the cone of 20° whose tip
lies 2 m inside the port: success, which ends the episode. So does being nearer than 40 m to the middle of the station. An
episode has 60 steps (20 min). Starts lie around rest at (-100, -200, 60). The same physics, fuel, sphere and cone as the
reference problem that the planners are measured on, which has to dock at step 50.
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
"""m."""
KEEP_OUT = 40.0
"""m around the middle of the station."""
SLOPE, TIP = float(np.tan(np.radians(20.0))), 43.0
"""The cone: tangent of its half angle, and where on y its tip is."""
APPROACH = 10
"""Steps to be spent in the cone before docking."""
NEAR, SLOW = 0.5, 0.05
"""m and m/s that count as docked."""
SMOOTHING = 0.4
"""mm/s² under which thrust costs its square rather than its size."""
START = (-100.0, -200.0, 60.0, 0.0, 0.0, 0.0)
"""At rest below, behind and beside the station."""
SPREAD = (10.0, 10.0, 10.0, 0.02, 0.02, 0.02)
"""How far starts lie from it at most, in each coordinate."""
OPTIONS: dict[str, Bounds] = {"state": bounds([-5000.0] * 3 + [-6.0] * 3, [5000.0] * 3 + [6.0] * 3)}
"""What a start can be given: the motion."""


class State(NamedTuple):
    """One approach."""

    motion: Float[Array, "*b 6"]
    inside: Int[Array, "*b"]
    """Steps spent in the cone without a break, until now."""


def transition(n: Any, dt: Any) -> tuple[Float[Array, "6 6"], Float[Array, "6 3"]]:
    """The exact step `x' = A x + B u` of the motion, u in m/s² held for dt seconds, for a mean motion of n rad/s."""
    s, c, nt = jnp.sin(n * dt), jnp.cos(n * dt), n * dt
    rest = 2.0 * jnp.sin(0.5 * n * dt) ** 2  # 1 - cos, which single precision would cancel away
    lag = nt - s
    zero, one = jnp.zeros_like(nt * 1.0), jnp.ones_like(nt * 1.0)
    drift = [
        [4 - 3 * c, zero, zero, s / n, 2 * rest / n, zero],
        [-6 * lag, one, zero, -2 * rest / n, (4 * s - 3 * nt) / n, zero],
        [zero, zero, c, zero, zero, s / n],
        [3 * n * s, zero, zero, c, 2 * s, zero],
        [-6 * n * rest, zero, zero, -2 * s, 4 * c - 3, zero],
        [zero, zero, -n * s, zero, zero, c],
    ]
    push = [
        [rest / n**2, 2 * lag / n**2, zero],
        [-2 * lag / n**2, 4 * rest / n**2 - 1.5 * dt**2, zero],
        [zero, zero, rest / n**2],
        [s / n, 2 * rest / n, zero],
        [-2 * rest / n, 4 * s / n - 3 * dt, zero],
        [zero, zero, s / n],
    ]
    return jnp.stack([jnp.stack(row) for row in drift]), jnp.stack([jnp.stack(row) for row in push])


def dynamics(params: Any, motion: Float[Array, "6"], action: Float[Array, "3"]) -> Float[Array, "6"]:
    """The motion after one step.

    Args:
        params: As `PARAMS`.
        motion: `(x, y, z, vx, vy, vz)`.
        action: Thrust acceleration in mm/s²; clipped to its bounds.
    """
    drift, push = transition(jnp.asarray(params["mean_motion"]), jnp.asarray(params["dt"]))
    return drift @ motion + push @ (1e-3 * jnp.clip(action, -MAX_THRUST, MAX_THRUST))


def fuel(params: Any, action: Float[Array, "3"]) -> Float[Array, ""]:
    """Δv in m/s of one step, `Σ sqrt(u_i² + w²) - w` times the step's length: smooth where thrust vanishes."""
    size = jnp.sqrt(jnp.clip(action, -MAX_THRUST, MAX_THRUST) ** 2 + SMOOTHING**2) - SMOOTHING
    return 1e-3 * params["dt"] * size.sum()


def keep_out(motion: Float[Array, "6"]) -> Float[Array, ""]:
    """`1 - |r|²/40²`: positive when too near."""
    return 1.0 - (motion[:3] ** 2).sum() / KEEP_OUT**2


def cone(motion: Float[Array, "6"]) -> Float[Array, ""]:
    """`(sqrt(x² + z² + 0.1²) - tan 20° (y - 43)) / 100`: positive when outside the approach cone."""
    return (jnp.sqrt(motion[0] ** 2 + motion[2] ** 2 + 0.1**2) - SLOPE * (motion[1] - TIP)) / 100.0


def distance(motion: Float[Array, "6"]) -> Float[Array, ""]:
    """To the port, in m."""
    return jnp.sqrt(((motion[:3] - jnp.array(PORT)) ** 2).sum() + 1e-6)


def success(state: State) -> Bool[Array, ""]:
    """Whether it has docked."""
    slow = (state.motion[3:] ** 2).sum() < SLOW**2
    return (distance(state.motion) < NEAR) & slow & (state.inside >= APPROACH)


def collided(state: State) -> Bool[Array, ""]:
    """Whether it is too near."""
    return keep_out(state.motion) > physics.TOUCH


def step(params: Any, state: State, action: Float[Array, "3"], key: PRNGKeyArray) -> State:
    """Thrust for one step; nothing is random."""
    motion = dynamics(params, state.motion, action)
    return State(motion, jnp.where(cone(motion) <= physics.TOUCH, state.inside + 1, 0))


def reset(key: PRNGKeyArray, state: Float[Array, "6"] | None = None, spread: float = 1.0) -> State:
    """Nearly at rest, far from the port; or with the motion that is given."""
    motion = physics.around(key, START, tuple(spread * width for width in SPREAD), state)
    return State(motion, jnp.zeros((), jnp.int32))


def reward(params: Any, state: State, action: Float[Array, "3"], following: State) -> Float[Array, ""]:
    """Minus the fuel, plus what the port came nearer, and how it ended."""
    nearer = (distance(state.motion) - distance(following.motion)) / 100.0
    return nearer - fuel(params, action) + 10.0 * success(following) - 10.0 * collided(following)


def observe(state: State) -> Float[Array, "7"]:
    """`(position / 100 m, velocity, steps in the cone / 10)`."""
    steps = jnp.minimum(state.inside / APPROACH, 1.0)
    return jnp.concatenate([state.motion[:3] / 100.0, state.motion[3:], steps[None]])


def report(state: State) -> dict[str, Array]:
    """How far and how fast, and the two limits: positive if broken."""
    motion = state.motion
    speed = jnp.linalg.norm(motion[3:])
    return {"distance": distance(motion), "speed": speed, "keep_out": keep_out(motion), "cone": cone(motion)}


def _view(height: float) -> d.View:
    return d.view((-260.0, -height / 2), (180.0, height / 2), 400)


PLANE, ACROSS = _view(260.7), _view(178.2)
"""Views of the two halves of a render."""


@d.still
def _station(height: float) -> Array:
    """Stars, station, sphere and cone, in a view of some height."""
    seen = _view(height)
    canvas = d.blank(seen, d.NIGHT)
    number = np.arange(60)[:, None, None]
    x, y = -260.0 + (number * 0.618034 % 1.0) * 440.0, -150.0 + (number * 0.754878 % 1.0) * 300.0  # scattered
    stars = (0.25 + 0.5 * (number * 0.569840 % 1.0)) * d.soften(jnp.hypot(seen.x - x, seen.y - y) - 0.55, seen.pixel)
    canvas = d.paint(canvas, stars.max(axis=0), d.PAPER)
    middle = jnp.zeros(2)
    wedge = d.soften((jnp.abs(seen.y) - SLOPE * (seen.x - TIP)) * np.cos(np.radians(20.0)), seen.pixel)
    canvas = d.paint(canvas, 0.22 * wedge, d.TEAL)
    canvas = d.paint(canvas, 0.10 * d.disc(seen, middle, KEEP_OUT), d.CORAL)
    canvas = d.paint(canvas, 0.7 * d.ring(seen, middle, KEEP_OUT, 1.2), d.CORAL)
    for side in (-1.0, 1.0):
        canvas = d.paint(canvas, d.box(seen, jnp.array([-4.0, side * 17.0]), (7.0, 10.0), rounding=1.0), d.SKY)
        canvas = d.paint(canvas, d.line(seen, middle, jnp.array([-4.0, side * 27.0]), 1.6), d.STONE)
    canvas = d.paint(canvas, d.box(seen, jnp.array([-2.0, 0.0]), (18.0, 5.0), rounding=3.0), d.PAPER)
    canvas = d.paint(canvas, d.line(seen, jnp.array([16.0, 0.0]), jnp.array([PORT[1], 0.0]), 3.0), d.STONE)
    return d.paint(canvas, d.disc(seen, jnp.array([PORT[1], 0.0]), 3.0), d.SAND)


def _with_craft(seen: d.View, station: np.ndarray, place: Array, velocity: Array) -> Float[Array, "h w 3"]:
    """The craft, and where it would drift to within 100 s."""
    canvas = d.paint(jnp.asarray(station), 0.5 * d.line(seen, place, place + 100.0 * velocity, 1.2), d.CORAL)
    return d.paint(d.paint(canvas, d.disc(seen, place, 5.5), d.CORAL), d.disc(seen, place, 2.0), d.PAPER)


def render(state: State) -> UInt8[Array, "400 400 3"]:
    """Above, the orbital plane (y to the right, x upwards); underneath, the station seen from above (z upwards)."""
    along, out, across = state.motion.reshape(2, 3).T[jnp.array([1, 0, 2])]
    plane = _with_craft(PLANE, _station(260.7), *jnp.stack([along, out], axis=1))
    other = _with_craft(ACROSS, _station(178.2), *jnp.stack([along, across], axis=1))
    rule = jnp.broadcast_to(jnp.asarray(d.STONE), (1, 400, 3))
    return d.picture(jnp.concatenate([plane, rule, other]))


@cache
def task(spread: float = 1.0) -> Task:
    """The task.

    Args:
        spread: 1 draws starts around `START`, 0 always begins there.

    Raises:
        ValueError: If it is not between the two.
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
        horizon=60,
        fps=10,
        success=success,
        terminated=lambda state: success(state) | collided(state),
        report=report,
        options=OPTIONS,
        possible=lambda state: {"state": ~collided(state)},
    )
