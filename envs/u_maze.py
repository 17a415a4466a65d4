"""U-Maze: forces steer a heavy ball round a U-shaped corridor.

State: position, velocity, goal (`State`), in m and m/s. Observation: `[64, 64, 3]` bytes, the maze and the ball from above
(one image does not show the velocity); or, with `observation="state"`, `(x, y, vx, vy, goal x, goal y)`. The goal is a
separate image, `Task.goal`. Action: force along each axis, in units of 100 N, within ±1.

    v' = (clip(v, ±5) + 100 a dt / m) / (1 + c dt / m),   x' = x + v' dt,   dt = 0.01 s,  m = 4.19 kg,  c = 1 kg/s

A wall removes the velocity towards it; the ball slides along the wall. The centre of the ball stays in [0.5, 3.1]² without
the slab x < 2.5, 1.1 < y < 2.5. The highest speed along an axis is 5.23 m/s. Reward: 1 for a step that ends at the goal,
else 0. Success: nearer than 0.5 m to the goal, which is in the other arm of the U. Episodes never terminate; they have 300
steps (3 s).

Sources: the numbers are those of `maze2d-umaze` of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219), with rigid
contacts; DINO-WM (Zhou et al. 2024, https://arxiv.org/abs/2411.04983) plans in it.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import walls as w
from envs.exploring import Trajectories, normal_within_two, von_mises, walk
from envs.task import Bounds, Task, bounds, choice, pixels

PARAMS = {"force": 100.0, "mass": 4.18879, "damping": 1.0, "dt": 0.01}
"""N, kg, kg/s, s."""
LOW, HIGH, EDGE, FLOOR, CEILING = 0.5, 3.1, 2.5, 1.1, 2.5
"""Limits of the ball's centre: the square, and the three faces of the slab; m."""
RADIUS = 0.2
"""Radius of the ball, m."""
MAX_SPEED = 5.0
"""Limit of the speed along an axis before the force is applied, m/s."""
SUCCESS = 0.5
"""Distance below which the goal is reached, m."""
IMAGE = 64
"""Width and height of an image observation, pixels."""
_CLEARANCE = 1e-3
OPTIONS: dict[str, Bounds] = {
    "start": bounds([LOW] * 2, [HIGH] * 2),
    "goal": bounds([LOW] * 2, [HIGH] * 2),
    "velocity": bounds([-MAX_SPEED] * 2, [MAX_SPEED] * 2),
}
"""Options of `reset` and their bounds."""


class State(NamedTuple):
    """State of one ball."""

    position: Float[Array, "*b 2"]
    velocity: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]


def walls() -> w.Walls:
    """Returns the walls, for the centre of the ball."""
    inside = jnp.array([[LOW, LOW], [HIGH, HIGH]])
    return w.Walls(inside, jnp.array([[-100.0, FLOOR]]), jnp.array([[EDGE, CEILING]]))


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Returns the state after 0.01 s under a force; the step is deterministic."""
    dt, mass = params["dt"], params["mass"]
    pushed = jnp.clip(state.velocity, -MAX_SPEED, MAX_SPEED) + params["force"] * jnp.clip(action, -1.0, 1.0) * dt / mass
    velocity = pushed / (1.0 + params["damping"] * dt / mass)
    position, unblocked = w.slide(walls(), state.position, velocity * dt, _CLEARANCE)
    return state._replace(position=position, velocity=velocity * unblocked)


def in_arm(draws: Float[Array, "2"], upper: Bool[Array, ""]) -> Float[Array, "2"]:
    """Returns a uniform position in an arm, 0.05 m away from every wall, from two uniform numbers in [0, 1)."""
    low = jnp.stack([jnp.float32(LOW), jnp.where(upper, CEILING, LOW)]) + 0.05
    high = jnp.stack([jnp.float32(HIGH), jnp.where(upper, HIGH, FLOOR)]) - 0.05
    return low + draws * (high - low)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    velocity: Float[Array, "2"] | None = None,
) -> State:
    """Returns a start at rest in one arm with the goal in the other; given values replace the random ones."""
    draws = jax.random.uniform(key, (5,))
    upper = draws[0] < 0.5
    return State(
        in_arm(draws[1:3], upper) if start is None else start,
        jnp.zeros(2) if velocity is None else velocity,
        in_arm(draws[3:], ~upper) if goal is None else goal,
    )


def distance(state: State) -> Float[Array, ""]:
    """Returns the straight distance to the goal, regardless of walls."""
    return jnp.linalg.norm(state.position - state.goal)


def success(state: State) -> Bool[Array, ""]:
    """Returns True if the ball is at the goal."""
    return distance(state) < SUCCESS


def reward(params: Any, state: State, action: Array, following: State) -> Float[Array, ""]:
    """Returns 1 for a step that ends at the goal, else 0."""
    return success(following).astype(jnp.float32)


def report(state: State) -> dict[str, Array]:
    """Returns position, velocity, goal and the straight distance to the goal."""
    vectors = {"position": state.position, "velocity": state.velocity, "goal": state.goal}
    return {"distance": distance(state)} | vectors


def possible(state: State) -> dict[str, Bool[Array, ""]]:
    """Returns True for the start and for the goal if it is outside all walls."""
    return {"start": w.free(walls(), state.position), "goal": w.free(walls(), state.goal)}


def maze(camera: d.View) -> Float[Array, "h w 3"]:
    """Draws the corridor; its walls are drawn at the distance at which they stop a ball of 0.2 m."""
    floor = d.between(camera, jnp.array([LOW, LOW]) - RADIUS, jnp.array([HIGH, HIGH]) + RADIUS)
    slab = d.between(camera, jnp.array([-1.0, FLOOR + RADIUS]), jnp.array([EDGE - RADIUS, CEILING - RADIUS]))
    middle, half = jnp.array([(LOW + HIGH) / 2] * 2), (HIGH - LOW) / 2 + RADIUS
    frame = d.box(camera, middle, (half + 0.07, half + 0.07), rounding=0.06)
    return d.paint(d.paint(d.paint(d.blank(camera, d.PAPER), frame, d.INK), floor, d.FLOOR), slab * frame, d.INK)


def with_ball(camera: d.View, canvas: Float[Array, "h w 3"], position: Float[Array, "2"]) -> Float[Array, "h w 3"]:
    """Draws the ball."""
    return d.paint(canvas, d.disc(camera, position, RADIUS), d.CORAL)


def picture(position: Float[Array, "2"]) -> UInt8[Array, "64 64 3"]:
    """Returns the image of the maze with a ball."""
    camera = d.view((0.15, 0.15), (3.45, 3.45), IMAGE)
    return d.picture(with_ball(camera, maze(camera), position))


def vector(state: State) -> Float[Array, "6"]:
    """Returns `(position, velocity, goal)`, the observation for `observation="state"`."""
    return jnp.concatenate(state)


def render(state: State) -> UInt8[Array, "320 320 3"]:
    """Returns an image for people: the goal as a disc with the success radius, the velocity as a line."""
    camera = d.view((0.15, 0.15), (3.45, 3.45), 320)
    canvas = maze(camera)
    inside = d.between(camera, *(jnp.array([[LOW - RADIUS] * 2, [HIGH + RADIUS] * 2])))
    slab = d.between(camera, jnp.array([-1.0, FLOOR + RADIUS]), jnp.array([EDGE - RADIUS, CEILING - RADIUS]))
    inside = inside * (1.0 - slab)
    canvas = d.paint(canvas, inside * d.disc(camera, state.goal, SUCCESS), d.MIST)
    canvas = d.paint(canvas, inside * d.ring(camera, state.goal, SUCCESS, 0.03), d.TEAL)
    canvas = d.paint(canvas, d.disc(camera, state.goal, 0.045), d.TEAL)
    shadow = d.disc(camera, state.position + jnp.array([0.03, -0.04]), RADIUS * 0.95, blur=0.06)
    canvas = with_ball(camera, d.paint(canvas, 0.25 * inside * shadow, d.INK), state.position)
    return d.picture(d.paint(canvas, d.line(camera, state.position, state.position + 0.1 * state.velocity, 0.04), d.PAPER))


def explore(key: PRNGKeyArray, batch: int, length: int = 91) -> Trajectories:
    """Returns exploring trajectories that start anywhere in the maze at a random velocity.

    The force is normal(0.7, 0.3²) within [0.1, 1]. Its heading is a random walk with von Mises turns, κ = 50 (0.14 rad per
    step), slow enough that the ball crosses the corridor before it turns.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """

    def advance(carry: tuple[State, Array], drawn: tuple[Array, Array]) -> tuple[tuple[State, Array], tuple[State, Array]]:
        (state, heading), (turn, strength) = carry, drawn
        heading = heading + turn
        action = strength * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
        following = step(PARAMS, state, action, key)
        return (following, heading), (following, action)

    def one(state: State, place: Array, draws: Array) -> Trajectories:
        in_bend = jnp.stack([EDGE + (HIGH - EDGE) * place[1], FLOOR + (CEILING - FLOOR) * place[2]])
        # share of the bend in the area of the maze
        share = (HIGH - EDGE) * (CEILING - FLOOR) / (2 * (HIGH - LOW) * (FLOOR - LOW) + (HIGH - EDGE) * (CEILING - FLOOR))
        position = jnp.where(place[0] < share, in_bend, state.position)
        state = state._replace(position=position, velocity=1.5 * normal_within_two(place[3:5]))
        drawn = von_mises(draws[:, 0], 50.0), jnp.clip(0.7 + 0.3 * normal_within_two(draws[:, 1]), 0.0, 1.0)
        return walk(advance, (state, 2.0 * jnp.pi * place[5]), state, drawn)

    start_key, place_key, draw_key = jax.random.split(key, 3)
    states = jax.vmap(reset)(jax.random.split(start_key, batch))
    places = jax.random.uniform(place_key, (batch, 6))
    return jax.vmap(one)(states, places, jax.random.uniform(draw_key, (batch, length, 2)))


@cache
def task(observation: str = "pixels") -> Task:
    """Returns the task.

    Args:
        observation: `"pixels"` or `"state"`.

    Raises:
        ValueError: If `observation` has another value.
    """
    choice("observation", observation, ("pixels", "state"))
    pixel = observation == "pixels"
    fastest = 5.3
    ends = [LOW] * 2 + [-fastest] * 2 + [LOW] * 2, [HIGH] * 2 + [fastest] * 2 + [HIGH] * 2
    return Task(
        name="u_maze",
        params=PARAMS,
        reset=reset,
        step=step,
        observe=(lambda state: picture(state.position)) if pixel else vector,
        reward=reward,
        render=render,
        actions=bounds([-1.0] * 2, [1.0] * 2),
        observations=pixels(IMAGE, IMAGE, 3) if pixel else bounds(*ends),
        horizon=300,
        fps=50,
        success=success,
        report=report,
        goal=(lambda state: picture(state.goal)) if pixel else (lambda state: vector(state._replace(position=state.goal))),
        options=OPTIONS,
        possible=possible,
    )
