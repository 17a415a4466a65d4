"""Maze: sixteen cells in a square, doors between some of them, and a goal that is many cells of way away.

The doors of a maze are drawn anew for every episode: a random spanning tree of the 4 x 4 cells, so that there is exactly one
way, without turning back, from any cell to any other. Straight towards the goal is usually wrong.

State: position, goal, doors (`State`). Observation: `[65, 65, 2]` bytes, the dot `255 exp(-r²/2σ²)`, σ = 1.3, and the walls;
or, with `observation="state"`, `(x, y, goal x, goal y, 24 doors)`. The goal is an image of its own, `Task.goal`. Action: the
move `(dx, dy)` in pixels, each within ±2.45. Walls stop a dot as in Two Rooms, pushed back by |N(0, 0.5²)|, at least 0.3.
Reward: 1 for a step that ends at the goal, else 0. Success: nearer than 4.5 pixels to the goal; nothing ends early.

`distance="far"`: goals are at least 9 cells of way away, in mazes that have such a way; `"near"`: 3 to 5 cells; `"any"`.

Sources: the dot and its walls are those of Two Rooms; trees: Kruskal (1956), Proceedings of the AMS 7, in random order.
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
"""Of walls; half of a door's."""
SIGMA = 1.3
"""Of the dot."""
ROOM = CELL / 2 - WIDTH / 2 - rooms.MARGIN
"""How far from the middle of a cell starts and goals lie at most, along each axis."""
DISTANCES = {"far": (9, SIDE * SIDE), "near": (3, 5), "any": (1, SIDE * SIDE)}
"""Cells of way from the start to the goal."""
DOORS = 2 * SIDE * (SIDE - 1)
"""Places where a door can be: first those in upright walls, row by row of each wall, then those in the others."""
STRAYING, HEEDING = 0.03, 0.15
"""Odds in a step that an explorer begins to go straight on, whatever is in the way; that either ends this."""
_TREES = 8  # drawn for every maze, of which one with a long way is kept
_ALONG = np.arange(SIDE * (SIDE - 1))
_UPRIGHT = np.stack([_ALONG // SIDE + SIDE * (_ALONG % SIDE), _ALONG // SIDE + SIDE * (_ALONG % SIDE) + 1], axis=1)
_LEVEL = np.stack([_ALONG, _ALONG + SIDE], axis=1)
PAIRS = np.concatenate([_UPRIGHT, _LEVEL])
"""`[DOORS, 2]`: the cells on either side of each, `row · 4 + column`."""
OPTIONS: dict[str, Bounds] = {
    "start": bounds([LOW] * 2, [HIGH] * 2),
    "goal": bounds([LOW] * 2, [HIGH] * 2),
    "layout": bounds([0.0] * DOORS, [1.0] * DOORS),
}
"""What a start can be given: positions, and 1 for every door, 0 for every wall without one."""


class State(NamedTuple):
    """One dot in one maze."""

    position: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]
    layout: Float[Array, "*b D"]
    """1 where there is a door, else 0."""


def tree(key: PRNGKeyArray) -> Float[Array, " D"]:
    """Doors of a random spanning tree: one by one, in random order, wherever they join what was apart."""
    order, pairs = jax.random.permutation(key, DOORS), jnp.asarray(PAIRS)

    def join(part: Int[Array, " cells"], door: Int[Array, ""]) -> tuple[Array, Array]:
        one, other = part[pairs[door, 0]], part[pairs[door, 1]]
        return jnp.where(part == other, one, part), one != other

    _, opened = jax.lax.scan(join, jnp.arange(SIDE * SIDE), order)
    return jnp.zeros(DOORS).at[order].set(opened.astype(jnp.float32))


def ways(layout: Float[Array, " D"]) -> Float[Array, "cells cells"]:
    """How many doors are passed from each cell to each (Floyd 1962); infinite where there is no way."""
    count = SIDE * SIDE
    steps = jnp.full((count, count), jnp.inf)
    pairs, lengths = jnp.asarray(PAIRS), jnp.where(layout > 0.5, 1.0, jnp.inf)
    steps = steps.at[pairs[:, 0], pairs[:, 1]].set(lengths).at[pairs[:, 1], pairs[:, 0]].set(lengths)
    steps = jnp.where(jnp.eye(count, dtype=bool), 0.0, steps)
    return jax.lax.fori_loop(0, count, lambda k, s: jnp.minimum(s, s[:, k, None] + s[None, k]), steps)


def cell(position: Float[Array, "2"]) -> Int[Array, "2"]:
    """`(column, row)` of the cell that a place is in; that of a place in a door goes by which half of it it is in."""
    return jnp.clip(jnp.floor((position - LOW) / CELL).astype(jnp.int32), 0, SIDE - 1)


def away(state: State) -> Float[Array, ""]:
    """Cells of way to the goal."""
    (column, row), (to_column, to_row) = cell(state.position), cell(state.goal)
    return ways(state.layout)[SIDE * row + column, SIDE * to_row + to_column]


def _middle(index: Int[Array, "*b"]) -> Float[Array, "*b 2"]:
    """Of a cell by its number."""
    return LOW + CELL * (jnp.stack([index % SIDE, index // SIDE], axis=-1) + 0.5)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, " D"] | None = None,
    *,
    distance: str = "any",
) -> State:
    """A random maze, and a start and a goal so many cells of way apart, or the farthest that there are below that.

    Args:
        key: Consumed.
        start: Not drawn if given.
        goal: Not drawn if given.
        layout: Not drawn if given.
        distance: One of `DISTANCES`.
    """
    low, high = DISTANCES[distance]
    growing, choosing, placing = jax.random.split(key, 3)
    if layout is None:
        trees = jax.vmap(tree)(jax.random.split(growing, _TREES))
        longest = jax.vmap(ways)(trees).max(axis=(1, 2))
        layout = trees[jnp.argmax(longest >= jnp.minimum(low, longest.max()))]
    steps = ways(layout)
    steps = jnp.where(jnp.isfinite(steps), steps, 0.0)
    fits = (steps >= jnp.minimum(low, steps.max())) & (steps <= high)
    pair = jnp.argmax(jnp.where(fits, jax.random.uniform(choosing, steps.shape), -1.0))
    offsets = ROOM * jax.random.uniform(placing, (2, 2), minval=-1.0)
    drawn = _middle(jnp.stack([pair // len(steps), pair % len(steps)])) + offsets
    return State(drawn[0] if start is None else start, drawn[1] if goal is None else goal, layout)


def walls(layout: Float[Array, " D"], position: Float[Array, "2"]) -> w.Walls:
    """The walls of the cell that a place is in, each in two parts beside its door; no move reaches those of other cells."""
    column, row = cell(position)
    here = jnp.stack([column, row])
    low_corner = LOW + CELL * here
    lows, highs = [], []
    for axis in range(2):  # across x: upright walls; across y: the others
        for side in range(2):
            index = here[axis] - 1 + side  # of the wall, counted from the border
            inner = (index >= 0) & (index < SIDE - 1)
            number = axis * SIDE * (SIDE - 1) + jnp.clip(index, 0, SIDE - 2) * SIDE + here[1 - axis]
            gap = OPENING * (layout[number] > 0.5)
            # the border is no box: what would be one is put where nobody comes
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
    """Move, and stop at what is in the way."""
    off = jnp.maximum(params["rebound"] * jnp.abs(jax.random.normal(key)), params["clearance"])
    move = jnp.clip(action, -rooms.ACTION, rooms.ACTION)
    position, _ = w.stop(walls(state.layout, state.position), state.position, move, off, params["clearance"])
    return state._replace(position=position)


def plan(layout: Float[Array, " D"], size: int = rooms.SIZE) -> Float[Array, "h w"]:
    """1 where a pixel's centre lies on the border's lines or in a wall, else 0, on `size` x `size` pixels."""
    centres = (np.arange(size) + 0.5) * (rooms.SIZE / size) - 0.5
    within = (centres > LOW - 0.5) & (centres < HIGH + 0.5)
    line = within & ((centres < LOW + 0.5) | (centres > HIGH - 0.5))
    numbers = np.clip(np.floor((centres - LOW) / CELL).astype(int), 0, SIDE - 1)
    ajar = np.abs(centres - (LOW + CELL * (numbers + 0.5))) < OPENING  # where along a wall its door is, if it has one
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
    """The dot somewhere in a maze, `[65, 65, 2]` bytes."""
    layers = jnp.stack([rooms.dot(position, SIGMA), plan(layout)], axis=-1)
    return jnp.round(255.0 * layers).astype(jnp.uint8)


def render(state: State) -> UInt8[Array, "325 325 3"]:
    """The maze for people: the dot in red, the goal as a ring of the radius that counts as reached."""
    seen = rooms.VIEW
    room = d.between(seen, jnp.array([LOW, LOW]), jnp.array([HIGH, HIGH]))
    canvas = d.paint(d.blank(seen, d.PAPER), room, d.FLOOR)
    canvas = d.paint(canvas, d.disc(seen, state.goal, rooms.SUCCESS), d.MIST)
    canvas = d.paint(canvas, d.ring(seen, state.goal, rooms.SUCCESS, 0.6), d.TEAL)
    canvas = d.paint(canvas, plan(state.layout, len(seen.y)), d.INK)
    return d.picture(rooms.with_dot(seen, canvas, state))


def possible(state: State) -> dict[str, Bool[Array, ""]]:
    """Whether start and goal are free."""
    places = {"start": state.position, "goal": state.goal}
    return {name: w.free(walls(state.layout, place), place) for name, place in places.items()}


def vector(state: State) -> Float[Array, "28"]:
    """`(position, goal, doors)`: the observation of those who need not look."""
    return jnp.concatenate([state.position, state.goal, state.layout])


def report(state: State) -> dict[str, Array]:
    """Where the dot and the goal are, in which maze, and how many cells of way apart."""
    return rooms.report(state) | {"cells": away(state)}


def explore(key: PRNGKeyArray, batch: int, length: int = 91) -> Trajectories:
    """Trajectories of dots that wander from cell to cell, towards one and then another, through whatever doors lead there.

    Now and then a dot goes straight on for a while, whatever is in the way: nothing else tells what walls do.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    starting, drawing, moving = jax.random.split(key, 3)
    states = jax.vmap(reset)(jax.random.split(starting, batch))
    draws = jax.random.uniform(drawing, (batch, length, 4))
    turns, strides = von_mises(draws[..., 0], 5.0), 1.6 + 0.5 * normal_within_two(draws[..., 1])
    beside = jnp.asarray(_doors_of())

    def one(state: State, turns: Array, strides: Array, minds: Array, keys: Array) -> Trajectories:
        steps = ways(state.layout)

        def advance(carry: tuple[State, Array, Array], drawn: tuple[Array, ...]) -> tuple[Any, tuple[State, Array]]:
            (state, target, blind), (turn, stride, mind, key) = carry, drawn
            column, row = cell(state.position)
            here = SIDE * row + column
            anew = (here == target) & (mind[0] < 0.2)
            target = jnp.where(anew, jnp.floor(SIDE * SIDE * mind[1]).astype(jnp.int32), target)
            # of the cells beyond a door, the one that is nearest to the target
            door, beyond = beside[here, :, 0], beside[here, :, 1]
            leads = (door >= 0) & (state.layout[door] > 0.5)
            nearest = jnp.argmin(jnp.where(leads, steps[beyond, target], jnp.inf))
            ahead = _middle(beyond[nearest]) - _middle(here)
            # first in front of the door, then through it
            aside = (state.position - _middle(here)) * (ahead == 0.0)
            centred = jnp.abs(aside).max() < OPENING - 1.0
            towards = jnp.where(centred, ahead / CELL, 0.0) - aside / jnp.where(centred, CELL, 2.0)
            free = jnp.stack([jnp.cos(2.0 * jnp.pi * mind[1]), jnp.sin(2.0 * jnp.pi * mind[1])])
            towards = jnp.where(here == target, free, towards)
            blind = jnp.where(mind[0] > 1.0 - STRAYING, free, jnp.where(mind[0] > 1.0 - HEEDING, 0.0, blind))
            towards = jnp.where(jnp.any(blind != 0.0), blind, towards)
            heading = jnp.arctan2(towards[1], towards[0]) + turn
            action = stride * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
            following = step(PARAMS, state, action, key)
            return (following, target, blind), (following, action)

        column, row = cell(state.goal)
        return walk(advance, (state, SIDE * row + column, jnp.zeros(2)), state, (turns, strides, minds, keys))

    return jax.vmap(one)(states, turns, strides, draws[..., 2:], jax.random.split(moving, (batch, length)))


@cache
def _doors_of() -> np.ndarray:
    """`[cells, 4, 2]`: places for doors of each cell, and the cells beyond; -1 and the cell itself where there is none."""
    found = np.tile(np.stack([np.full(SIDE * SIDE, -1), np.arange(SIDE * SIDE)], axis=1)[:, None], (1, 4, 1))
    for number, (one, other) in enumerate(PAIRS):
        across = 0 if number < len(_ALONG) else 2
        found[one, across], found[other, across + 1] = (number, other), (number, one)
    return found


@cache
def task(observation: str = "pixels", distance: str = "far") -> Task:
    """The task.

    Args:
        observation: `"pixels"` or `"state"`.
        distance: Of goals: `"far"`, `"near"` or `"any"`.

    Raises:
        ValueError: If a setting is none of these.
    """
    choice("observation", observation, ("pixels", "state"))
    choice("distance", distance, tuple(DISTANCES))
    seen = observation == "pixels"
    return Task(
        name="maze",
        params=PARAMS,
        reset=partial(reset, distance=distance),
        step=step,
        observe=(lambda state: picture(state.position, state.layout)) if seen else vector,
        reward=rooms.reached,
        render=render,
        actions=bounds([-rooms.ACTION] * 2, [rooms.ACTION] * 2),
        observations=pixels(rooms.SIZE, rooms.SIZE, 2)
        if seen
        else bounds([LOW] * 4 + [0.0] * DOORS, [HIGH] * 4 + [1.0] * DOORS),
        horizon=300,
        fps=20,
        success=rooms.success,
        report=report,
        goal=(lambda state: picture(state.goal, state.layout))
        if seen
        else (lambda state: vector(state._replace(position=state.goal))),
        options=OPTIONS,
        possible=possible,
    )
