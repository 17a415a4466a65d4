"""A square room cut in two by a wall with a door, and a dot that moves in it: what Two Rooms, Wall and Teleport share.

Coordinates are those of a 65 x 65 image, x along its columns and y down its rows, the centres of pixels at whole numbers.
The room lies between the border's lines at 4 and 60; the wall stands upright with its middle at x, the door's middle at y.

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
"""The border's lines."""
OPENING = 4.0
"""Half of the door's height."""
ACTION = 2.45
"""The longest move along each axis."""
SUCCESS = 4.5
"""A dot nearer to the goal than this has reached it."""
MARGIN = 2.6
"""From every wall, of starts and goals."""
PARAMS = {"rebound": 0.5, "clearance": 0.3}
"""Standard deviation of how far a stopped dot ends off the wall; the least that it does."""
VECTOR = bounds([LOW] * 4 + [20.0, 10.0], [HIGH] * 4 + [44.0, 54.0])
"""Bounds of `vector`."""
VIEW = d.view((-0.5, -0.5), (64.5, 64.5), 325, up=False)
"""Of the renders for people."""
ERRAND = 91
"""Steps after which an explorer may set out for the door anew."""
_REACH = 200.0  # how far beyond the border the wall's two parts go on, so that nobody slips out over their ends


class State(NamedTuple):
    """One dot in one room."""

    position: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]
    layout: Float[Array, "*b 2"]
    """`(x of the wall, y of the door)`."""


OPTIONS: dict[str, Bounds] = {
    "start": bounds([LOW, LOW], [HIGH, HIGH]),
    "goal": bounds([LOW, LOW], [HIGH, HIGH]),
    "layout": bounds([20.0, 10.0], [44.0, 54.0]),
}
"""What a start can be given: positions, and the layout."""


def walls(layout: Float[Array, "2"], width: float) -> w.Walls:
    """The room with its wall in two parts, above and below the door."""
    x, y, reach = layout[0], layout[1], jnp.float32(_REACH)
    low = jnp.stack([jnp.stack([x - width / 2, -reach]), jnp.stack([x - width / 2, y + OPENING])])
    high = jnp.stack([jnp.stack([x + width / 2, y - OPENING]), jnp.stack([x + width / 2, reach])])
    return w.Walls(jnp.array([[LOW, LOW], [HIGH, HIGH]]), low, high)


def random_layout(draws: Float[Array, "2"]) -> Float[Array, "2"]:
    """The wall at a whole x in 20 … 44, the door at a whole y in 10 … 54; from two uniform numbers in [0, 1)."""
    low, high = OPTIONS["layout"]
    return jnp.minimum(jnp.floor(low + draws * (high - low + 1.0)), high)


def opposite(
    draws: Float[Array, "5"], layout: Float[Array, "2"], width: float
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """A start and a goal to evaluate on: in different rooms, either way round with equal odds, 2.6 away from every wall.

    Args:
        draws: Uniform numbers in [0, 1).
        layout: `(x of the wall, y of the door)`.
        width: Of the wall.
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
    """A state in a random layout with start and goal in different rooms, but for what is given."""
    draws = jax.random.uniform(key, (7,))
    layout = random_layout(draws[:2]) if layout is None else layout
    drawn = opposite(draws[2:], layout, width)
    return State(drawn[0] if start is None else start, drawn[1] if goal is None else goal, layout)


def move(
    params: Any, state: Any, displacement: Float[Array, "2"], key: PRNGKeyArray, width: float
) -> tuple[Float[Array, "2"], w.Contact, Float[Array, ""]]:
    """Move, and stop at what is in the way.

    Args:
        params: As `PARAMS`.
        state: Of which position and layout count.
        displacement: Where to, from the position.
        key: Consumed.
        width: Of the wall.

    Returns:
        Where the move ends, what it touched, and how far off a wall it ends if it touches one.
    """
    off = jnp.maximum(params["rebound"] * jnp.abs(jax.random.normal(key)), params["clearance"])
    position, touch = w.stop(walls(state.layout, width), state.position, displacement, off, params["clearance"])
    return position, touch, off


def distance(state: Any) -> Float[Array, ""]:
    """Straight to the goal, through the wall if need be."""
    return jnp.linalg.norm(state.position - state.goal)


def success(state: Any) -> Bool[Array, ""]:
    """Whether the dot is at the goal."""
    return distance(state) < SUCCESS


def reached(params: Any, state: Any, action: Array, following: Any) -> Float[Array, ""]:
    """1 for every step that ends at the goal, else 0."""
    return success(following).astype(jnp.float32)


def report(state: Any) -> dict[str, Array]:
    """Where the dot and the goal are, in which layout, and how far apart."""
    return {"distance": distance(state), "position": state.position, "goal": state.goal, "layout": state.layout}


def vector(state: Any) -> Float[Array, "6"]:
    """`(position, goal, layout)`: the observation of those who need not look."""
    return jnp.concatenate([state.position, state.goal, state.layout])


def goal_vector(state: Any) -> Float[Array, "6"]:
    """What is observed so when the dot is at the goal."""
    return vector(state._replace(position=state.goal))


def possible(state: Any, width: float) -> dict[str, Bool[Array, ""]]:
    """Whether start and goal are free."""
    solid = walls(state.layout, width)
    return {"start": w.free(solid, state.position), "goal": w.free(solid, state.goal)}


def path_length(
    layout: Float[Array, "2"], start: Float[Array, "2"], end: Float[Array, "2"], width: float
) -> Float[Array, ""]:
    """Length of the shortest way between two free points.

    A taut string through the door: straight where it can be, else around one or two of the door's four corners. Every way
    through the corners is tried, those that would cut through the wall are left out, and the shortest of the rest is taken.

    Args:
        layout: `(x of the wall, y of the door)`.
        start: One end.
        end: The other.
        width: Of the wall.
    """
    slits = jnp.stack([layout[0] - width / 2, layout[0] + width / 2])
    low, high = layout[1] - OPENING, layout[1] + OPENING
    swap = start[0] > end[0]
    a, b = jnp.where(swap, end, start), jnp.where(swap, start, end)

    def length(first: Array, second: Array) -> Array:
        path = jnp.stack([a, first, second, b])
        begins, legs = path[:-1], path[1:] - path[:-1]
        # where each leg crosses each slit; one that a leg does not reach, or begins or ends at, cannot stop it
        share = (slits - begins[:, :1]) / jnp.maximum(legs[:, :1], 1e-9)
        y = begins[:, 1:] + share * legs[:, 1:]
        passes = (share <= 0.0) | (share >= 1.0) | ((y >= low - 1e-4) & (y <= high + 1e-4))
        return jnp.where(passes.all() & (legs[:, 0] >= 0.0).all(), jnp.sqrt((legs**2).sum(axis=1)).sum(), jnp.inf)

    # a corner that is not gone round is replaced by the end before or after it
    corners = jnp.stack([jnp.stack([x, y]) for x in slits for y in (low, high)])
    firsts = jnp.stack([a, *corners, *corners[jnp.array([0, 0, 1, 1])]])
    seconds = jnp.stack([b, *(b,) * 4, *corners[jnp.array([2, 3, 2, 3])]])
    return jax.vmap(length)(firsts, seconds).min()


def dot(position: Float[Array, "2"], sigma: float, size: int = SIZE) -> Float[Array, "h w"]:
    """`exp(-r² / 2σ²)` at the centres of `size` x `size` pixels over the 65 x 65 image: an outer product of two vectors."""
    centres = (jnp.arange(size) + 0.5) * (SIZE / size) - 0.5
    x, y = (jnp.exp(-((centres - position[i]) ** 2) / (2.0 * sigma**2)) for i in range(2))
    return y[:, None] * x[None, :]


def plan(layout: Float[Array, "2"], width: float, size: int = SIZE) -> Float[Array, "h w"]:
    """1 where a pixel's centre lies on the border's lines or in the wall, the faces of the door included, else 0."""
    centres = (jnp.arange(size) + 0.5) * (SIZE / size) - 0.5
    within = (centres > LOW - 0.5) & (centres < HIGH + 0.5)
    line = within & ((centres < LOW + 0.5) | (centres > HIGH - 0.5))
    column = jnp.abs(centres - layout[0]) <= width / 2
    shut = jnp.abs(centres - layout[1]) >= OPENING
    wall = column[None, :] & shut[:, None]
    border = line[None, :] | line[:, None]
    return ((wall | border) & within[None, :] & within[:, None]).astype(jnp.float32)


def draw(state: Any, width: float) -> UInt8[Array, "325 325 3"]:
    """The room for people: the dot in red, the goal as a ring of the radius that counts as reached."""
    return d.picture(with_dot(VIEW, scene(VIEW, state, width), state))


def scene(seen: d.View, state: Any, width: float) -> Float[Array, "h w 3"]:
    """The room and the goal."""
    room = d.between(seen, jnp.array([LOW, LOW]), jnp.array([HIGH, HIGH]))
    canvas = d.paint(d.blank(seen, d.PAPER), room, d.FLOOR)
    canvas = d.paint(canvas, room * d.disc(seen, state.goal, SUCCESS), d.MIST)
    canvas = d.paint(canvas, room * d.ring(seen, state.goal, SUCCESS, 0.6), d.TEAL)
    canvas = d.paint(canvas, d.disc(seen, state.goal, 0.9), d.TEAL)
    solid = walls(state.layout, width)
    middle = jnp.array([(LOW + HIGH) / 2] * 2)
    ink = d.box(seen, middle, (29.2, 29.2), rounding=1.2) * (1.0 - room)
    ink = ink + room * (d.between(seen, solid.low[0], solid.high[0]) + d.between(seen, solid.low[1], solid.high[1]))
    return d.paint(canvas, jnp.minimum(ink, 1.0), d.INK)


def with_dot(seen: d.View, canvas: Float[Array, "h w 3"], state: Any) -> Float[Array, "h w 3"]:
    """The dot, and its shadow."""
    canvas = d.paint(canvas, 0.25 * d.disc(seen, state.position + jnp.array([0.5, 0.8]), 1.6, blur=1.6), d.INK)
    return d.paint(canvas, d.disc(seen, state.position, 1.8), d.CORAL)


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
    """A task of going to the other room.

    Args:
        name: Of the module that makes it.
        observation: `"pixels"` or `"state"`.
        reset: As in `Task`.
        step: As in `Task`.
        picture: `(position, layout) -> image`: what is observed with the dot there.
        image: Bounds of images.
        width: Of the wall.
        reach: The largest action along each axis.
        horizon: Steps of an episode.
        render: As in `Task`; `draw` if None.
        report: As in `Task`.

    Raises:
        ValueError: If the observation is neither.
    """
    choice("observation", observation, ("pixels", "state"))
    seen = observation == "pixels"
    return Task(
        name=name,
        params=PARAMS,
        reset=reset,
        step=step,
        observe=(lambda state: picture(state.position, state.layout)) if seen else vector,
        reward=reached,
        render=partial(draw, width=width) if render is None else render,
        actions=bounds([-reach] * 2, [reach] * 2),
        observations=image if seen else VECTOR,
        horizon=horizon,
        fps=20,
        success=success,
        report=report,
        goal=(lambda state: picture(state.goal, state.layout)) if seen else goal_vector,
        options=OPTIONS,
        possible=partial(possible, width=width),
    )


def wander(
    params: Any,
    step: Callable[[Any, Any, Array, Array], Any],
    state: Any,
    heading: Array,
    drawn: tuple[Array, Array, Array],
    seeks: Bool[Array, " errands"],
    width: float,
    scale: float,
) -> Trajectories:
    """One exploring trajectory, `[L+1, ...]` and `[L, 2]`.

    A dot that seeks the door turns by half of the angle to it besides what is drawn, until it is in the other room. Every
    91 steps is another errand, from the room that it is in by then: long recordings see both rooms again and again.

    Args:
        params: Of the step.
        step: As in `Task`.
        state: Where it begins.
        heading: In rad, at the beginning.
        drawn: Turns, lengths and keys of the L steps.
        seeks: Whether it seeks the door, in each errand.
        width: Of the wall.
        scale: Length of the move that an action of length 1 makes.
    """

    def advance(carry: tuple[Any, Array, Array], drawn: tuple[Array, ...]) -> tuple[Any, tuple[Any, Array]]:
        (state, heading, left), (turn, stride, moving, seeking, anew) = carry, drawn
        wall, door = state.layout[0], state.layout[1]
        left = jnp.where(anew, state.position[0] < wall, left)
        ahead = jnp.where(left, 1.0, -1.0) * (width / 2 + 2.0)
        before = jnp.where(left, state.position[0] < wall - width / 2 - 0.5, state.position[0] > wall + width / 2 + 0.5)
        there = jnp.stack([wall + jnp.where(before, -0.4, 1.0) * ahead, door])
        towards = jnp.arctan2(there[1] - state.position[1], there[0] - state.position[0])
        unfinished = seeking & (left == (state.position[0] < wall + 0.5 * ahead))
        gap = jnp.mod(towards - heading + jnp.pi, 2.0 * jnp.pi) - jnp.pi
        heading = heading + jnp.where(unfinished, 0.5 * gap, 0.0) + turn
        action = stride / scale * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
        following = step(params, state, action, moving)
        return (following, heading, left), (following, action)

    time = jnp.arange(len(drawn[0]))
    errands = seeks[time // ERRAND], time % ERRAND == 0
    return walk(advance, (state, heading, jnp.asarray(True)), state, (*drawn, *errands))


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
    """B exploring trajectories, of which about a given share pass the door within 91 steps.

    The length of a step is normal(1, 0.4²) within [0.2, 1.8], its heading a random walk of von Mises turns, κ = 5
    (`wander`).

    Args:
        key: Consumed.
        params: Of the step.
        step: As in `Task`.
        reset: `key -> state`: where they begin, and in which layout.
        batch: Trajectories B.
        length: Steps L.
        share: Wanted; the dots that do not seek the door find it now and then all the same, and those that do may be late.
        rates: The measured shares of these two kinds that pass it within 91 steps, from which follows how many must seek it.
        width: Of the wall.
        scale: Length of the move that an action of length 1 makes.
    """
    seekers = float(np.clip((share - rates[0]) / (rates[1] - rates[0]), 0.0, 1.0))

    starting, drawing, moving, choosing = jax.random.split(key, 4)
    states = jax.vmap(reset)(jax.random.split(starting, batch))
    draws = jax.random.uniform(drawing, (batch, length + 1, 2))
    seeks = jax.random.bernoulli(choosing, seekers, (batch, -(-length // ERRAND)))
    headings = 2.0 * jnp.pi * draws[:, 0, 1]
    turns, strides = von_mises(draws[:, 1:, 0], 5.0), 1.0 + 0.4 * normal_within_two(draws[:, 1:, 1])

    def one(state: Any, heading: Array, drawn: tuple[Array, Array, Array], seeks: Array) -> Trajectories:
        return wander(params, step, state, heading, drawn, seeks, width, scale)

    return jax.vmap(one)(states, headings, (turns, strides, jax.random.split(moving, (batch, length))), seeks)
