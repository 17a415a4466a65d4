"""Functions shared by Two Rooms, Wall and Teleport: a dot moves in a square that a wall with a door divides in two rooms.

Coordinates are those of a 65 x 65 image: x along its columns, y down its rows, pixel centres at whole numbers. The square
lies between the border lines at 4 and 60. The wall is vertical with its centre at x; the centre of the door is at y.

Sources: PLDM (Sobal et al. 2025, https://arxiv.org/abs/2502.14819), EB-JEPA (https://github.com/facebookresearch/eb_jepa).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import walls as w
from envs.exploring import Trajectories, normal_within_two, von_mises, walk
from envs.task import Bounds, Task, bounds, choice

SIZE = 65
"""Pixels."""
LOW, HIGH = 4.0, 60.0
"""Coordinates of the border lines."""
OPENING = 4.0
"""Half the height of the door."""
ACTION = 2.45
"""Largest move along each axis."""
SUCCESS = 4.5
"""Distance below which the goal is reached."""
MARGIN = 2.6
"""Smallest distance of starts and goals from every wall."""
PARAMS = {"rebound": 0.5, "clearance": 0.3}
"""Standard deviation and minimum of the distance between a stopped dot and the wall."""
VECTOR = bounds([LOW] * 4 + [20.0, 10.0], [HIGH] * 4 + [44.0, 54.0])
"""Bounds of `vector`."""
VIEW = d.view((-0.5, -0.5), (64.5, 64.5), 325, up=False)
"""Camera of the renders for people."""
SEEK_PERIOD = 91
"""Steps after which an explorer decides again whether it seeks the door."""
_REACH = 200.0  # extension of the wall beyond the border, so that no dot passes its ends


class State(NamedTuple):
    """State of one dot."""

    position: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]
    layout: Float[Array, "*b 2"]
    """`(x of the wall, y of the door)`."""


OPTIONS: dict[str, Bounds] = {
    "start": bounds([LOW, LOW], [HIGH, HIGH]),
    "goal": bounds([LOW, LOW], [HIGH, HIGH]),
    "layout": bounds([20.0, 10.0], [44.0, 54.0]),
}
"""Options of `reset` and their bounds."""


def walls(layout: Float[Array, "2"], width: float) -> w.Walls:
    """Returns the walls: the border, and the parts of the wall above and below the door."""
    x, y, reach = layout[0], layout[1], jnp.float32(_REACH)
    low = jnp.stack([jnp.stack([x - width / 2, -reach]), jnp.stack([x - width / 2, y + OPENING])])
    high = jnp.stack([jnp.stack([x + width / 2, y - OPENING]), jnp.stack([x + width / 2, reach])])
    return w.Walls(jnp.array([[LOW, LOW], [HIGH, HIGH]]), low, high)


def random_layout(draws: Float[Array, "2"]) -> Float[Array, "2"]:
    """Returns a layout with integer x in 20 … 44 and integer y in 10 … 54, from two uniform numbers in [0, 1)."""
    low, high = OPTIONS["layout"]
    return jnp.minimum(jnp.floor(low + draws * (high - low + 1.0)), high)


def opposite(
    draws: Float[Array, "5"], layout: Float[Array, "2"], width: float
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Returns a start and a goal in different rooms, in either order with equal probability, 2.6 away from every wall.

    Args:
        draws: Uniform numbers in [0, 1).
        layout: `(x of the wall, y of the door)`.
        width: Width of the wall.
    """
    near, far = LOW + MARGIN, HIGH - MARGIN
    left, right = layout[0] - width / 2 - MARGIN - near, far - layout[0] - width / 2 - MARGIN
    first, second = draws[1:3], draws[3:5]
    in_left = jnp.stack([near + left * first[0], near + (far - near) * first[1]])
    in_right = jnp.stack([far - right * second[0], near + (far - near) * second[1]])
    swap = draws[0] < 0.5
    return jnp.where(swap, in_right, in_left), jnp.where(swap, in_left, in_right)


def begin(
    key: PRNGKeyArray,
    width: float,
    start: Float[Array, "2"] | None,
    goal: Float[Array, "2"] | None,
    layout: Float[Array, "2"] | None,
) -> State:
    """Returns a start state; start and goal in different rooms and the layout are random where they are None."""
    draws = jax.random.uniform(key, (7,))
    layout = random_layout(draws[:2]) if layout is None else layout
    drawn = opposite(draws[2:], layout, width)
    return State(drawn[0] if start is None else start, drawn[1] if goal is None else goal, layout)


def move(
    params: Any, state: Any, displacement: Float[Array, "2"], key: PRNGKeyArray, width: float
) -> tuple[Float[Array, "2"], w.Contact, Float[Array, ""]]:
    """Moves a dot until a wall stops it.

    Args:
        params: As `PARAMS`.
        state: State with `position` and `layout`.
        displacement: Move from the position.
        key: Consumed.
        width: Width of the wall.

    Returns:
        End position, first contact, and the distance from a wall at which a stopped dot ends.
    """
    off = jnp.maximum(params["rebound"] * jnp.abs(jax.random.normal(key)), params["clearance"])
    position, touch = w.stop(walls(state.layout, width), state.position, displacement, off, params["clearance"])
    return position, touch, off


def distance(state: Any) -> Float[Array, ""]:
    """Returns the straight distance to the goal, regardless of walls."""
    return jnp.linalg.norm(state.position - state.goal)


def success(state: Any) -> Bool[Array, ""]:
    """Returns True if the dot is at the goal."""
    return distance(state) < SUCCESS


def reached(params: Any, state: Any, action: Array, following: Any) -> Float[Array, ""]:
    """Returns 1 for a step that ends at the goal, else 0."""
    return success(following).astype(jnp.float32)


def report(state: Any) -> dict[str, Array]:
    """Returns position, goal, layout and the straight distance to the goal."""
    return {"distance": distance(state), "position": state.position, "goal": state.goal, "layout": state.layout}


def vector(state: Any) -> Float[Array, "6"]:
    """Returns `(position, goal, layout)`, the observation for `observation="state"`."""
    return jnp.concatenate([state.position, state.goal, state.layout])


def goal_vector(state: Any) -> Float[Array, "6"]:
    """Returns the observation of `vector` with the dot at the goal."""
    return vector(state._replace(position=state.goal))


def possible(state: Any, width: float) -> dict[str, Bool[Array, ""]]:
    """Returns True for the start and for the goal if it is outside all walls."""
    solid = walls(state.layout, width)
    return {"start": w.free(solid, state.position), "goal": w.free(solid, state.goal)}


def path_length(
    layout: Float[Array, "2"], start: Float[Array, "2"], end: Float[Array, "2"], width: float
) -> Float[Array, ""]:
    """Returns the length of the shortest path between two free points.

    The shortest path is straight, or bends at one or two of the door's four corners. The function computes all these paths,
    discards those that cross the wall, and returns the shortest of the rest.

    Args:
        layout: `(x of the wall, y of the door)`.
        start: First point.
        end: Second point.
        width: Width of the wall.
    """
    faces = jnp.stack([layout[0] - width / 2, layout[0] + width / 2])
    low, high = layout[1] - OPENING, layout[1] + OPENING
    swap = start[0] > end[0]
    a, b = jnp.where(swap, end, start), jnp.where(swap, start, end)

    def length(first: Array, second: Array) -> Array:
        path = jnp.stack([a, first, second, b])
        begins, segments = path[:-1], path[1:] - path[:-1]
        # where each leg crosses each face of the wall; a face outside the leg cannot block it
        share = (faces - begins[:, :1]) / jnp.maximum(segments[:, :1], 1e-9)
        y = begins[:, 1:] + share * segments[:, 1:]
        passes = (share <= 0.0) | (share >= 1.0) | ((y >= low - 1e-4) & (y <= high + 1e-4))
        return jnp.where(passes.all() & (segments[:, 0] >= 0.0).all(), jnp.sqrt((segments**2).sum(axis=1)).sum(), jnp.inf)

    # paths with fewer than two corners repeat an end point
    corners = jnp.stack([jnp.stack([x, y]) for x in faces for y in (low, high)])
    firsts = jnp.stack([a, *corners, *corners[jnp.array([0, 0, 1, 1])]])
    seconds = jnp.stack([b, *(b,) * 4, *corners[jnp.array([2, 3, 2, 3])]])
    return jax.vmap(length)(firsts, seconds).min()


def dot(position: Float[Array, "2"], sigma: float, size: int = SIZE) -> Float[Array, "h w"]:
    """Returns `exp(-r² / 2σ²)` at the centres of `size` x `size` pixels over the 65 x 65 image, as an outer product."""
    centres = (jnp.arange(size) + 0.5) * (SIZE / size) - 0.5
    x, y = (jnp.exp(-((centres - position[i]) ** 2) / (2.0 * sigma**2)) for i in range(2))
    return y[:, None] * x[None, :]


def plan(layout: Float[Array, "2"], width: float, size: int = SIZE) -> Float[Array, "h w"]:
    """Returns a map: 1 where a pixel's centre lies on the border or in the wall (including the door's faces), else 0."""
    centres = (jnp.arange(size) + 0.5) * (SIZE / size) - 0.5
    within = (centres > LOW - 0.5) & (centres < HIGH + 0.5)
    line = within & ((centres < LOW + 0.5) | (centres > HIGH - 0.5))
    column = jnp.abs(centres - layout[0]) <= width / 2
    shut = jnp.abs(centres - layout[1]) >= OPENING
    wall = column[None, :] & shut[:, None]
    border = line[None, :] | line[:, None]
    return ((wall | border) & within[None, :] & within[:, None]).astype(jnp.float32)


def draw(state: Any, width: float) -> UInt8[Array, "325 325 3"]:
    """Returns an image for people: the dot in red, the goal as a ring with the success radius."""
    return d.picture(with_dot(VIEW, scene(VIEW, state, width), state))


def scene(camera: d.View, state: Any, width: float) -> Float[Array, "h w 3"]:
    """Draws the room and the goal."""
    room = d.between(camera, jnp.array([LOW, LOW]), jnp.array([HIGH, HIGH]))
    canvas = d.paint(d.blank(camera, d.PAPER), room, d.FLOOR)
    canvas = d.paint(canvas, room * d.disc(camera, state.goal, SUCCESS), d.MIST)
    canvas = d.paint(canvas, room * d.ring(camera, state.goal, SUCCESS, 0.6), d.TEAL)
    canvas = d.paint(canvas, d.disc(camera, state.goal, 0.9), d.TEAL)
    solid = walls(state.layout, width)
    middle = jnp.array([(LOW + HIGH) / 2] * 2)
    ink = d.box(camera, middle, (29.2, 29.2), rounding=1.2) * (1.0 - room)
    ink = ink + room * (d.between(camera, solid.low[0], solid.high[0]) + d.between(camera, solid.low[1], solid.high[1]))
    return d.paint(canvas, jnp.minimum(ink, 1.0), d.INK)


def with_dot(camera: d.View, canvas: Float[Array, "h w 3"], state: Any) -> Float[Array, "h w 3"]:
    """Draws the dot and its shadow."""
    canvas = d.paint(canvas, 0.25 * d.disc(camera, state.position + jnp.array([0.5, 0.8]), 1.6, blur=1.6), d.INK)
    return d.paint(canvas, d.disc(camera, state.position, 1.8), d.CORAL)


def task(
    name: str,
    observation: str,
    *,
    reset: Callable[..., Any],
    step: Callable[[Any, Any, Array, Array], Any],
    picture: Callable[[Array, Array], Array],
    image: Bounds,
    width: float,
    reach: float,
    horizon: int,
    render: Callable[[Any], Array] | None = None,
    report: Callable[[Any], dict[str, Array]] = report,
) -> Task:
    """Returns a task with the goal in the other room.

    Args:
        name: Name of the module that calls this function.
        observation: `"pixels"` or `"state"`.
        reset: As in `Task`.
        step: As in `Task`.
        picture: `(position, layout) -> image`, the image observation.
        image: Bounds of the image observation.
        width: Width of the wall.
        reach: Largest action along each axis.
        horizon: Steps of an episode.
        render: As in `Task`; `draw` if None.
        report: As in `Task`.

    Raises:
        ValueError: If `observation` has another value.
    """
    choice("observation", observation, ("pixels", "state"))
    pixel = observation == "pixels"
    return Task(
        name=name,
        params=PARAMS,
        reset=reset,
        step=step,
        observe=(lambda state: picture(state.position, state.layout)) if pixel else vector,
        reward=reached,
        render=partial(draw, width=width) if render is None else render,
        actions=bounds([-reach] * 2, [reach] * 2),
        observations=image if pixel else VECTOR,
        horizon=horizon,
        fps=20,
        success=success,
        report=report,
        goal=(lambda state: picture(state.goal, state.layout)) if pixel else goal_vector,
        options=OPTIONS,
        possible=partial(possible, width=width),
    )


def wander(
    params: Any,
    step: Callable[[Any, Any, Array, Array], Any],
    state: Any,
    heading: Array,
    drawn: tuple[Array, Array, Array],
    seeks: Bool[Array, " periods"],
    width: float,
    scale: float,
) -> Trajectories:
    """Returns one exploring trajectory: states `[L+1, ...]` and actions `[L, 2]`.

    A dot that seeks the door turns by half the angle to it in each step, in addition to the random turn, until it is in the
    other room. A new period begins every 91 steps, from the current room, so that long recordings cover both rooms.

    Args:
        params: Parameters of `step`.
        step: As in `Task`.
        state: Start state.
        heading: Initial heading in rad.
        drawn: Random turns, lengths and keys of the L steps.
        seeks: True for each period in which the dot seeks the door.
        width: Width of the wall.
        scale: Length of the move for an action of length 1.
    """

    def advance(carry: tuple[Any, Array, Array], drawn: tuple[Array, ...]) -> tuple[Any, tuple[Any, Array]]:
        (state, heading, left), (turn, stride, step_key, seeking, new_period) = carry, drawn
        wall, door = state.layout[0], state.layout[1]
        left = jnp.where(new_period, state.position[0] < wall, left)
        ahead = jnp.where(left, 1.0, -1.0) * (width / 2 + 2.0)
        before = jnp.where(left, state.position[0] < wall - width / 2 - 0.5, state.position[0] > wall + width / 2 + 0.5)
        target = jnp.stack([wall + jnp.where(before, -0.4, 1.0) * ahead, door])
        towards = jnp.arctan2(target[1] - state.position[1], target[0] - state.position[0])
        unfinished = seeking & (left == (state.position[0] < wall + 0.5 * ahead))
        gap = jnp.mod(towards - heading + jnp.pi, 2.0 * jnp.pi) - jnp.pi
        heading = heading + jnp.where(unfinished, 0.5 * gap, 0.0) + turn
        action = stride / scale * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
        following = step(params, state, action, step_key)
        return (following, heading, left), (following, action)

    time = jnp.arange(len(drawn[0]))
    periods = seeks[time // SEEK_PERIOD], time % SEEK_PERIOD == 0
    return walk(advance, (state, heading, jnp.asarray(True)), state, (*drawn, *periods))


def explore(
    key: PRNGKeyArray,
    params: Any,
    step: Callable[[Any, Any, Array, Array], Any],
    reset: Callable[[Array], Any],
    batch: int,
    length: int,
    share: float,
    rates: tuple[float, float],
    width: float,
    scale: float,
) -> Trajectories:
    """Returns B exploring trajectories, of which about a given share pass the door within 91 steps.

    The length of a step is normal(1, 0.4²) within [0.2, 1.8]. The heading is a random walk with von Mises turns, κ = 5
    (`wander`).

    Args:
        key: Consumed.
        params: Parameters of `step`.
        step: As in `Task`.
        reset: `key -> state`, the start state.
        batch: Trajectories B.
        length: Steps L.
        share: Wanted share of trajectories that pass the door within 91 steps.
        rates: Measured shares that pass it without and with seeking it; they determine how many trajectories seek it.
        width: Width of the wall.
        scale: Length of the move for an action of length 1.
    """
    seekers = float(np.clip((share - rates[0]) / (rates[1] - rates[0]), 0.0, 1.0))

    start_key, draw_key, step_key, seek_key = jax.random.split(key, 4)
    states = jax.vmap(reset)(jax.random.split(start_key, batch))
    draws = jax.random.uniform(draw_key, (batch, length + 1, 2))
    seeks = jax.random.bernoulli(seek_key, seekers, (batch, -(-length // SEEK_PERIOD)))
    headings = 2.0 * jnp.pi * draws[:, 0, 1]
    turns, strides = von_mises(draws[:, 1:, 0], 5.0), 1.0 + 0.4 * normal_within_two(draws[:, 1:, 1])

    def one(state: Any, heading: Array, drawn: tuple[Array, Array, Array], seeks: Array) -> Trajectories:
        return wander(params, step, state, heading, drawn, seeks, width, scale)

    return jax.vmap(one)(states, headings, (turns, strides, jax.random.split(step_key, (batch, length))), seeks)
