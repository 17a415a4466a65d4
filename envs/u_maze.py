"""U-Maze: a heavy ball rolls round a U-shaped corridor, and has to be steered by forces.

State: position, velocity, goal (`State`), in m and m/s. Observation: `[64, 64, 3]` bytes, the maze from above with the
ball, in which velocities do not show; or, with `observation="state"`, `(x, y, vx, vy, goal x, goal y)`. The goal is an
image of its own, `Task.goal`. Action: force along each axis, in units of 100 N, within ±1.

    v' = (clip(v, ±5) + 100 a dt / m) / (1 + c dt / m),   x' = x + v' dt,   dt = 0.01 s,  m = 4.19 kg,  c = 1 kg/s

A wall takes the speed towards it away; the ball goes on along it. The middle of the ball keeps to [0.5, 3.1]² without the
slab x < 2.5, 1.1 < y < 2.5. The fastest it gets along an axis is 5.23 m/s. Reward: 1 for a step that ends at the goal, else
0. Success: nearer than 0.5 m to the goal, which is in the other arm of the U; nothing ends early, an episode has 300 steps
(3 s).

Sources: `maze2d-umaze` of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219), whose numbers these are, with contacts
made rigid; DINO-WM (Zhou et al. 2024, https://arxiv.org/abs/2411.04983) plans in it.
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
"""Where the middle of the ball can be: the square, and the slab's three faces."""
RADIUS = 0.2
"""Of the ball."""
MAX_SPEED = 5.0
"""m/s along an axis, before the step's force."""
SUCCESS = 0.5
"""m."""
IMAGE = 64
"""Pixels of an observation."""
_CLEARANCE = 1e-3
OPTIONS: dict[str, Bounds] = {
    "start": bounds([LOW] * 2, [HIGH] * 2),
    "goal": bounds([LOW] * 2, [HIGH] * 2),
    "velocity": bounds([-MAX_SPEED] * 2, [MAX_SPEED] * 2),
}
"""What a start can be given."""


class State(NamedTuple):
    """One ball in the maze."""

    position: Float[Array, "*b 2"]
    velocity: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]


def walls() -> w.Walls:
    """The maze, for the middle of the ball."""
    inside = jnp.array([[LOW, LOW], [HIGH, HIGH]])
    return w.Walls(inside, jnp.array([[-100.0, FLOOR]]), jnp.array([[EDGE, CEILING]]))


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """One hundredth of a second under a force; nothing is random."""
    dt, mass = params["dt"], params["mass"]
    pushed = jnp.clip(state.velocity, -MAX_SPEED, MAX_SPEED) + params["force"] * jnp.clip(action, -1.0, 1.0) * dt / mass
    velocity = pushed / (1.0 + params["damping"] * dt / mass)
    position, unblocked = w.slide(walls(), state.position, velocity * dt, _CLEARANCE)
    return state._replace(position=position, velocity=velocity * unblocked)


def in_arm(draws: Float[Array, "2"], upper: Bool[Array, ""]) -> Float[Array, "2"]:
    """A position uniform in one of the two arms, 0.05 m away from every wall; from two uniform numbers in [0, 1)."""
    low = jnp.stack([jnp.float32(LOW), jnp.where(upper, CEILING, LOW)]) + 0.05
    high = jnp.stack([jnp.float32(HIGH), jnp.where(upper, HIGH, FLOOR)]) - 0.05
    return low + draws * (high - low)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    velocity: Float[Array, "2"] | None = None,
) -> State:
    """At rest in one arm, the goal in the other; what is given is not drawn."""
    draws = jax.random.uniform(key, (5,))
    upper = draws[0] < 0.5
    return State(
        in_arm(draws[1:3], upper) if start is None else start,
        jnp.zeros(2) if velocity is None else velocity,
        in_arm(draws[3:], ~upper) if goal is None else goal,
    )


def distance(state: State) -> Float[Array, ""]:
    """Straight to the goal, through the slab if need be."""
    return jnp.linalg.norm(state.position - state.goal)


def success(state: State) -> Bool[Array, ""]:
    """Whether the ball is at the goal."""
    return distance(state) < SUCCESS


def reward(params: Any, state: State, action: Array, following: State) -> Float[Array, ""]:
    """1 for every step that ends at the goal, else 0."""
    return success(following).astype(jnp.float32)


def report(state: State) -> dict[str, Array]:
    """Where ball and goal are, how fast it is, and how far apart they are."""
    where = {"position": state.position, "velocity": state.velocity, "goal": state.goal}
    return {"distance": distance(state)} | where


def possible(state: State) -> dict[str, Bool[Array, ""]]:
    """Whether start and goal are free."""
    return {"start": w.free(walls(), state.position), "goal": w.free(walls(), state.goal)}


def maze(seen: d.View) -> Float[Array, "h w 3"]:
    """The corridor, with walls as thick as they look from a ball of 0.2 m."""
    floor = d.between(seen, jnp.array([LOW, LOW]) - RADIUS, jnp.array([HIGH, HIGH]) + RADIUS)
    slab = d.between(seen, jnp.array([-1.0, FLOOR + RADIUS]), jnp.array([EDGE - RADIUS, CEILING - RADIUS]))
    middle, half = jnp.array([(LOW + HIGH) / 2] * 2), (HIGH - LOW) / 2 + RADIUS
    frame = d.box(seen, middle, (half + 0.07, half + 0.07), rounding=0.06)
    return d.paint(d.paint(d.paint(d.blank(seen, d.PAPER), frame, d.INK), floor, d.FLOOR), slab * frame, d.INK)


def with_ball(seen: d.View, canvas: Float[Array, "h w 3"], position: Float[Array, "2"]) -> Float[Array, "h w 3"]:
    """The ball."""
    return d.paint(canvas, d.disc(seen, position, RADIUS), d.CORAL)


def picture(position: Float[Array, "2"]) -> UInt8[Array, "64 64 3"]:
    """The maze with the ball somewhere in it."""
    seen = d.view((0.15, 0.15), (3.45, 3.45), IMAGE)
    return d.picture(with_ball(seen, maze(seen), position))


def vector(state: State) -> Float[Array, "6"]:
    """`(position, velocity, goal)`."""
    return jnp.concatenate(state)


def render(state: State) -> UInt8[Array, "320 320 3"]:
    """The maze for people: the goal as a disc of the radius that counts as reached, the velocity as a line."""
    seen = d.view((0.15, 0.15), (3.45, 3.45), 320)
    canvas = maze(seen)
    inside = d.between(seen, *(jnp.array([[LOW - RADIUS] * 2, [HIGH + RADIUS] * 2])))
    slab = d.between(seen, jnp.array([-1.0, FLOOR + RADIUS]), jnp.array([EDGE - RADIUS, CEILING - RADIUS]))
    inside = inside * (1.0 - slab)
    canvas = d.paint(canvas, inside * d.disc(seen, state.goal, SUCCESS), d.MIST)
    canvas = d.paint(canvas, inside * d.ring(seen, state.goal, SUCCESS, 0.03), d.TEAL)
    canvas = d.paint(canvas, d.disc(seen, state.goal, 0.045), d.TEAL)
    shadow = d.disc(seen, state.position + jnp.array([0.03, -0.04]), RADIUS * 0.95, blur=0.06)
    canvas = with_ball(seen, d.paint(canvas, 0.25 * inside * shadow, d.INK), state.position)
    return d.picture(d.paint(canvas, d.line(seen, state.position, state.position + 0.1 * state.velocity, 0.04), d.PAPER))


def explore(key: PRNGKeyArray, batch: int, length: int = 91) -> Trajectories:
    """Exploring trajectories to learn from: they begin anywhere in the maze, at any speed.

    The force is normal(0.7, 0.3²) within [0.1, 1], its heading a random walk of von Mises turns, κ = 50 (0.14 rad a step),
    slow enough that the ball crosses the corridor before it turns.

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
        residual = jnp.stack([EDGE + (HIGH - EDGE) * place[1], FLOOR + (CEILING - FLOOR) * place[2]])
        # the two arms and the bend between them, by their areas
        share = (HIGH - EDGE) * (CEILING - FLOOR) / (2 * (HIGH - LOW) * (FLOOR - LOW) + (HIGH - EDGE) * (CEILING - FLOOR))
        position = jnp.where(place[0] < share, residual, state.position)
        state = state._replace(position=position, velocity=1.5 * normal_within_two(place[3:5]))
        drawn = von_mises(draws[:, 0], 50.0), jnp.clip(0.7 + 0.3 * normal_within_two(draws[:, 1]), 0.0, 1.0)
        return walk(advance, (state, 2.0 * jnp.pi * place[5]), state, drawn)

    starting, placing, drawing = jax.random.split(key, 3)
    states = jax.vmap(reset)(jax.random.split(starting, batch))
    places = jax.random.uniform(placing, (batch, 6))
    return jax.vmap(one)(states, places, jax.random.uniform(drawing, (batch, length, 2)))


@cache
def task(observation: str = "pixels") -> Task:
    """The task.

    Args:
        observation: `"pixels"` or `"state"`.

    Raises:
        ValueError: If it is neither.
    """
    choice("observation", observation, ("pixels", "state"))
    seen = observation == "pixels"
    fastest = 5.3
    ends = [LOW] * 2 + [-fastest] * 2 + [LOW] * 2, [HIGH] * 2 + [fastest] * 2 + [HIGH] * 2
    return Task(
        name="u_maze",
        params=PARAMS,
        reset=reset,
        step=step,
        observe=(lambda state: picture(state.position)) if seen else vector,
        reward=reward,
        render=render,
        actions=bounds([-1.0] * 2, [1.0] * 2),
        observations=pixels(IMAGE, IMAGE, 3) if seen else bounds(*ends),
        horizon=300,
        fps=50,
        success=success,
        report=report,
        goal=(lambda state: picture(state.goal)) if seen else (lambda state: vector(state._replace(position=state.goal))),
        options=OPTIONS,
        possible=possible,
    )
