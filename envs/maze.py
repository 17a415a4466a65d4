"""Maze: a dot finds its way through sixteen connected cells to a distant goal.

Each episode has a new maze: a random spanning tree of 4 x 4 cells. Exactly one simple path joins any two cells. The straight
direction to the goal is usually wrong.

State: position, goal, doors (`State`). Observation: `[65, 65, 2]` bytes, the dot `255 exp(-r²/2σ²)`, σ = 1.3, and the walls;
or, with `observation="state"`, `(x, y, goal x, goal y, 24 doors)`. The goal is a separate image, `Task.goal`. Action: the
move `(dx, dy)` in pixels, each within ±2.45. Walls stop the dot as in Two Rooms and push it back by |N(0, 0.5²)|, at least
0.3. Reward: 1 for a step that ends at the goal, else 0. Success: nearer than 4.5 pixels to the goal. Episodes never
terminate.

`distance` sets the length of the shortest path to the goal: `"far"` is 9 cells or more, `"near"` 3 to 5, `"any"` 1 or more.
With `"far"`, mazes without such a path are drawn again.

Sources: dot and walls are those of Two Rooms; spanning trees: Kruskal (1956), Proceedings of the AMS 7, in random order.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import rooms
from envs import walls as w
from envs.exploring import Trajectories, normal_within_two, von_mises, walk
from envs.rooms import HIGH, LOW, PARAMS
from envs.task import Bounds, Task, bounds, choice, pixels

SIDE = 4
"""Cells along an edge of the maze."""
CELL = (HIGH - LOW) / SIDE
"""Pixels from wall to wall."""
WIDTH, OPENING = 3.0, 3.0
"""Width of the walls, and half the width of a door; pixels."""
SIGMA = 1.3
"""Standard deviation of the dot, pixels."""
ROOM = CELL / 2 - WIDTH / 2 - rooms.MARGIN
"""Largest distance of starts and goals from the centre of their cell, per axis; pixels."""
DISTANCES = {"far": (9, SIDE * SIDE), "near": (3, 5), "any": (1, SIDE * SIDE)}
"""Range of the shortest path from start to goal, in cells."""
DOORS = 2 * SIDE * (SIDE - 1)
"""Number of possible doors: first those in vertical walls, row by row of each wall, then those in horizontal walls."""
STRAYING, HEEDING = 0.03, 0.15
"""Probability per step that an explorer starts to ignore walls and go straight, and that it stops doing so."""
_TREES = 8  # spanning trees drawn per maze; one with a long enough path is kept
_INDEX = np.arange(SIDE * (SIDE - 1))
_VERTICAL = np.stack([_INDEX // SIDE + SIDE * (_INDEX % SIDE), _INDEX // SIDE + SIDE * (_INDEX % SIDE) + 1], axis=1)
_HORIZONTAL = np.stack([_INDEX, _INDEX + SIDE], axis=1)
PAIRS = np.concatenate([_VERTICAL, _HORIZONTAL])
"""`[DOORS, 2]`: the two cells that each door joins, as `row · 4 + column`."""
OPTIONS: dict[str, Bounds] = {
    "start": bounds([LOW] * 2, [HIGH] * 2),
    "goal": bounds([LOW] * 2, [HIGH] * 2),
    "layout": bounds([0.0] * DOORS, [1.0] * DOORS),
}
"""Options of `reset` and their bounds; `layout` is 1 where there is a door, else 0."""


class State(NamedTuple):
    """State of one dot in one maze."""

    position: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]
    layout: Float[Array, "*b D"]
    """1 where there is a door, else 0."""


def tree(key: PRNGKeyArray) -> Float[Array, " D"]:
    """Returns the doors of a random spanning tree: in random order, each door that joins two separate parts is opened."""
    order, pairs = jax.random.permutation(key, DOORS), jnp.asarray(PAIRS)

    def join(part: Int[Array, " cells"], door: Int[Array, ""]) -> tuple[Array, Array]:
        one, other = part[pairs[door, 0]], part[pairs[door, 1]]
        return jnp.where(part == other, one, part), one != other

    _, opened = jax.lax.scan(join, jnp.arange(SIDE * SIDE), order)
    return jnp.zeros(DOORS).at[order].set(opened.astype(jnp.float32))


def shortest_paths(layout: Float[Array, " D"]) -> Float[Array, "cells cells"]:
    """Returns the number of doors on the shortest path between each pair of cells (Floyd 1962); infinite if unconnected."""
    count = SIDE * SIDE
    steps = jnp.full((count, count), jnp.inf)
    pairs, lengths = jnp.asarray(PAIRS), jnp.where(layout > 0.5, 1.0, jnp.inf)
    steps = steps.at[pairs[:, 0], pairs[:, 1]].set(lengths).at[pairs[:, 1], pairs[:, 0]].set(lengths)
    steps = jnp.where(jnp.eye(count, dtype=bool), 0.0, steps)
    return jax.lax.fori_loop(0, count, lambda k, s: jnp.minimum(s, s[:, k, None] + s[None, k]), steps)


def cell(position: Float[Array, "2"]) -> Int[Array, "2"]:
    """Returns `(column, row)` of the cell of a position; a door is divided between its two cells."""
    return jnp.clip(jnp.floor((position - LOW) / CELL).astype(jnp.int32), 0, SIDE - 1)


def cells_to_goal(state: State) -> Float[Array, ""]:
    """Returns the length of the shortest path to the goal, in cells."""
    (column, row), (to_column, to_row) = cell(state.position), cell(state.goal)
    return shortest_paths(state.layout)[SIDE * row + column, SIDE * to_row + to_column]


def _centre(index: Int[Array, "*b"]) -> Float[Array, "*b 2"]:
    """Returns the centre of a cell."""
    return LOW + CELL * (jnp.stack([index % SIDE, index // SIDE], axis=-1) + 0.5)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, " D"] | None = None,
    *,
    distance: str = "any",
) -> State:
    """Returns a random maze with a start and a goal at a path length within the range of `distance`.

    If the maze has no path that long, its longest path is used.

    Args:
        key: Consumed.
        start: Position; random if None.
        goal: Position; random if None.
        layout: Doors; random if None.
        distance: One of `DISTANCES`.
    """
    low, high = DISTANCES[distance]
    tree_key, pair_key, offset_key = jax.random.split(key, 3)
    if layout is None:
        trees = jax.vmap(tree)(jax.random.split(tree_key, _TREES))
        longest = jax.vmap(shortest_paths)(trees).max(axis=(1, 2))
        layout = trees[jnp.argmax(longest >= jnp.minimum(low, longest.max()))]
    steps = shortest_paths(layout)
    steps = jnp.where(jnp.isfinite(steps), steps, 0.0)
    fits = (steps >= jnp.minimum(low, steps.max())) & (steps <= high)
    pair = jnp.argmax(jnp.where(fits, jax.random.uniform(pair_key, steps.shape), -1.0))
    offsets = ROOM * jax.random.uniform(offset_key, (2, 2), minval=-1.0)
    drawn = _centre(jnp.stack([pair // len(steps), pair % len(steps)])) + offsets
    return State(drawn[0] if start is None else start, drawn[1] if goal is None else goal, layout)


def walls(layout: Float[Array, " D"], position: Float[Array, "2"]) -> w.Walls:
    """Returns the walls of the cell of a position, each in two parts beside its door; no move reaches other cells' walls."""
    column, row = cell(position)
    here = jnp.stack([column, row])
    low_corner = LOW + CELL * here
    lows, highs = [], []
    for axis in range(2):  # 0: vertical walls, 1: horizontal walls
        for side in range(2):
            index = here[axis] - 1 + side  # of the wall, counted from the border
            inner = (index >= 0) & (index < SIDE - 1)
            number = axis * SIDE * (SIDE - 1) + jnp.clip(index, 0, SIDE - 2) * SIDE + here[1 - axis]
            gap = OPENING * (layout[number] > 0.5)
            # the border is handled by `Walls.inside`; its box is moved out of reach
            across = jnp.where(inner, low_corner[axis] + side * CELL, -100.0)
            begin, middle = low_corner[1 - axis], low_corner[1 - axis] + CELL / 2
            for low, high in (
                (begin - WIDTH / 2, middle - gap),
                (middle + gap, begin + CELL + WIDTH / 2),
            ):
                ends = [jnp.stack([across - WIDTH / 2, low]), jnp.stack([across + WIDTH / 2, high])]
                lows.append(ends[0] if axis == 0 else ends[0][::-1])
                highs.append(ends[1] if axis == 0 else ends[1][::-1])
    return w.Walls(jnp.array([[LOW, LOW], [HIGH, HIGH]]), jnp.stack(lows), jnp.stack(highs))


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Returns the state after a move that walls stop."""
    off = jnp.maximum(params["rebound"] * jnp.abs(jax.random.normal(key)), params["clearance"])
    move = jnp.clip(action, -rooms.ACTION, rooms.ACTION)
    position, _ = w.stop(walls(state.layout, state.position), state.position, move, off, params["clearance"])
    return state._replace(position=position)


def plan(layout: Float[Array, " D"], size: int = rooms.SIZE) -> Float[Array, "h w"]:
    """Returns a `[size, size]` map: 1 where a pixel's centre lies on the border or in a wall, else 0."""
    centres = (np.arange(size) + 0.5) * (rooms.SIZE / size) - 0.5
    within = (centres > LOW - 0.5) & (centres < HIGH + 0.5)
    line = within & ((centres < LOW + 0.5) | (centres > HIGH - 0.5))
    numbers = np.clip(np.floor((centres - LOW) / CELL).astype(int), 0, SIDE - 1)
    ajar = np.abs(centres - (LOW + CELL * (numbers + 0.5))) < OPENING  # pixels along a wall where its door is, if it has one
    image = jnp.asarray(line[None, :] | line[:, None])
    for axis in range(2):
        doors = layout[axis * SIDE * (SIDE - 1) :][: SIDE * (SIDE - 1)].reshape(SIDE - 1, SIDE)
        for index in range(SIDE - 1):
            column = np.abs(centres - (LOW + CELL * (index + 1))) <= WIDTH / 2
            shut = ~(ajar & (doors[index][numbers] > 0.5))
            wall = shut[:, None] & column[None, :]
            image = image | (wall if axis == 0 else wall.T)
    return (image & within[None, :] & within[:, None]).astype(jnp.float32)


def picture(position: Float[Array, "2"], layout: Float[Array, " D"]) -> UInt8[Array, "65 65 2"]:
    """Returns the image of a dot in a maze, `[65, 65, 2]` bytes."""
    layers = jnp.stack([rooms.dot(position, SIGMA), plan(layout)], axis=-1)
    return jnp.round(255.0 * layers).astype(jnp.uint8)


def render(state: State) -> UInt8[Array, "325 325 3"]:
    """Returns an image for people: the dot in red, the goal as a ring with the success radius."""
    camera = rooms.VIEW
    room = d.between(camera, jnp.array([LOW, LOW]), jnp.array([HIGH, HIGH]))
    canvas = d.paint(d.blank(camera, d.PAPER), room, d.FLOOR)
    canvas = d.paint(canvas, d.disc(camera, state.goal, rooms.SUCCESS), d.MIST)
    canvas = d.paint(canvas, d.ring(camera, state.goal, rooms.SUCCESS, 0.6), d.TEAL)
    canvas = d.paint(canvas, plan(state.layout, len(camera.y)), d.INK)
    return d.picture(rooms.with_dot(camera, canvas, state))


def possible(state: State) -> dict[str, Bool[Array, ""]]:
    """Returns True for the start and for the goal if it is outside all walls."""
    places = {"start": state.position, "goal": state.goal}
    return {name: w.free(walls(state.layout, place), place) for name, place in places.items()}


def vector(state: State) -> Float[Array, "28"]:
    """Returns `(position, goal, doors)`, the observation for `observation="state"`."""
    return jnp.concatenate([state.position, state.goal, state.layout])


def report(state: State) -> dict[str, Array]:
    """Returns position, goal, layout, straight distance, and the shortest path to the goal in cells."""
    return rooms.report(state) | {"cells": cells_to_goal(state)}


def explore(key: PRNGKeyArray, batch: int, length: int = 91) -> Trajectories:
    """Returns trajectories of dots that follow shortest paths to random target cells, one after another.

    Sometimes a dot ignores walls and goes straight for a while, so that the data shows what walls do.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    start_key, draw_key, step_key = jax.random.split(key, 3)
    states = jax.vmap(reset)(jax.random.split(start_key, batch))
    draws = jax.random.uniform(draw_key, (batch, length, 4))
    turns, strides = von_mises(draws[..., 0], 5.0), 1.6 + 0.5 * normal_within_two(draws[..., 1])
    neighbours = jnp.asarray(_neighbours())

    def one(state: State, turns: Array, strides: Array, choices: Array, keys: Array) -> Trajectories:
        steps = shortest_paths(state.layout)

        def advance(carry: tuple[State, Array, Array], drawn: tuple[Array, ...]) -> tuple[Any, tuple[State, Array]]:
            (state, target, straight), (turn, stride, choice, key) = carry, drawn
            column, row = cell(state.position)
            here = SIDE * row + column
            change = (here == target) & (choice[0] < 0.2)
            target = jnp.where(change, jnp.floor(SIDE * SIDE * choice[1]).astype(jnp.int32), target)
            # the neighbouring cell that is nearest to the target
            door, beyond = neighbours[here, :, 0], neighbours[here, :, 1]
            open_door = (door >= 0) & (state.layout[door] > 0.5)
            nearest = jnp.argmin(jnp.where(open_door, steps[beyond, target], jnp.inf))
            ahead = _centre(beyond[nearest]) - _centre(here)
            # first in front of the door, then through it
            aside = (state.position - _centre(here)) * (ahead == 0.0)
            centred = jnp.abs(aside).max() < OPENING - 1.0
            towards = jnp.where(centred, ahead / CELL, 0.0) - aside / jnp.where(centred, CELL, 2.0)
            free = jnp.stack([jnp.cos(2.0 * jnp.pi * choice[1]), jnp.sin(2.0 * jnp.pi * choice[1])])
            towards = jnp.where(here == target, free, towards)
            straight = jnp.where(choice[0] > 1.0 - STRAYING, free, jnp.where(choice[0] > 1.0 - HEEDING, 0.0, straight))
            towards = jnp.where(jnp.any(straight != 0.0), straight, towards)
            heading = jnp.arctan2(towards[1], towards[0]) + turn
            action = stride * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
            following = step(PARAMS, state, action, key)
            return (following, target, straight), (following, action)

        column, row = cell(state.goal)
        return walk(advance, (state, SIDE * row + column, jnp.zeros(2)), state, (turns, strides, choices, keys))

    return jax.vmap(one)(states, turns, strides, draws[..., 2:], jax.random.split(step_key, (batch, length)))


@cache
def _neighbours() -> np.ndarray:
    """Returns `[cells, 4, 2]`: door index and neighbour of each cell on four sides; -1 and the cell itself at the border."""
    neighbours = np.tile(np.stack([np.full(SIDE * SIDE, -1), np.arange(SIDE * SIDE)], axis=1)[:, None], (1, 4, 1))
    for number, (one, other) in enumerate(PAIRS):
        across = 0 if number < len(_INDEX) else 2
        neighbours[one, across], neighbours[other, across + 1] = (number, other), (number, one)
    return neighbours


@cache
def task(observation: str = "pixels", distance: str = "far") -> Task:
    """Returns the task.

    Args:
        observation: `"pixels"` or `"state"`.
        distance: Path length from start to goal: `"far"`, `"near"` or `"any"`.

    Raises:
        ValueError: If a setting has another value.
    """
    choice("observation", observation, ("pixels", "state"))
    choice("distance", distance, tuple(DISTANCES))
    pixel = observation == "pixels"
    return Task(
        name="maze",
        params=PARAMS,
        reset=partial(reset, distance=distance),
        step=step,
        observe=(lambda state: picture(state.position, state.layout)) if pixel else vector,
        reward=rooms.reached,
        render=render,
        actions=bounds([-rooms.ACTION] * 2, [rooms.ACTION] * 2),
        observations=pixels(rooms.SIZE, rooms.SIZE, 2)
        if pixel
        else bounds([LOW] * 4 + [0.0] * DOORS, [HIGH] * 4 + [1.0] * DOORS),
        horizon=300,
        fps=20,
        success=rooms.success,
        report=report,
        goal=(lambda state: picture(state.goal, state.layout))
        if pixel
        else (lambda state: vector(state._replace(position=state.goal))),
        options=OPTIONS,
        possible=possible,
    )
