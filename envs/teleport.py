"""Teleport: Two Rooms, with a right border that moves the dot to the left border.

The image does not show the teleport: a dot beside the right border looks as in Two Rooms, and only its next position
differs. A model that learns dynamics plans through the teleport where that is shorter. A model that only compares images
does not.

State (`State`): position, goal, layout, number of jumps. Observation, action, reward and success are those of `two_rooms`.

    position' = position + action, stopped by walls; but when the segment touches the border's right side at height y,
    position' = (left border + |N(0, 0.5²)|, y), at least 0.3 off the border

Start and goal lie in different rooms. From the right room to the left room the shortest path leads through the border more
often than through the door (`path_lengths`). From left to right it always leads through the door.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import rooms, two_rooms
from envs.exploring import Trajectories
from envs.rooms import PARAMS
from envs.task import Task, pixels

WIDTH = two_rooms.WIDTH
"""Width of the wall."""
_RATES = (0.0, 1.0)  # see rooms.explore: the share of the trajectories that seek the door


class State(NamedTuple):
    """State of one dot, with the number of times it was teleported."""

    position: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]
    layout: Float[Array, "*b 2"]
    jumps: Int[Array, "*b"]


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Returns the state after a move that walls stop and the right border teleports."""
    move = jnp.clip(action, -rooms.ACTION, rooms.ACTION)
    position, touch, off = rooms.move(params, state, move, key, WIDTH)
    jumped = touch.outer & (touch.normal[0] < 0.0)
    exit_position = jnp.stack([rooms.LOW + off, position[1]])
    return state._replace(position=jnp.where(jumped, exit_position, position), jumps=state.jumps + jumped)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """Returns a start state; start and goal in different rooms and the layout are random where they are None."""
    return State(*two_rooms.reset(key, start, goal, layout), jnp.zeros((), jnp.int32))


def path_lengths(state: State, heights: int = 225) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the lengths of the shortest paths to the goal without the teleport and with one use of it.

    Args:
        state: State with position, goal and layout.
        heights: Number of heights at which the teleport is tried. The default is one per quarter of a pixel, which makes
            the result at most a few thousandths of a pixel too long.
    """

    def through(y: Array) -> Array:
        before = rooms.path_length(state.layout, state.position, jnp.stack([jnp.float32(rooms.HIGH), y]), WIDTH)
        return before + rooms.path_length(state.layout, jnp.stack([jnp.float32(rooms.LOW), y]), state.goal, WIDTH)

    direct = rooms.path_length(state.layout, state.position, state.goal, WIDTH)
    return direct, jax.vmap(through)(jnp.linspace(rooms.LOW, rooms.HIGH, heights)).min()


def report(state: State) -> dict[str, Array]:
    """Returns the report of `rooms` and the number of jumps."""
    return rooms.report(state) | {"jumps": state.jumps}


def render(state: State) -> UInt8[Array, "325 325 3"]:
    """Returns an image for people, with the teleport's entry and exit in colour."""
    camera = rooms.VIEW
    canvas = rooms.scene(camera, state, WIDTH)
    for x, colour in ((rooms.HIGH + 0.7, d.SAND), (rooms.LOW - 0.7, d.SKY)):
        canvas = d.paint(canvas, d.line(camera, jnp.array([x, rooms.LOW]), jnp.array([x, rooms.HIGH]), 1.4), colour)
    return d.picture(rooms.with_dot(camera, canvas, state))


def explore(key: PRNGKeyArray, batch: int, length: int = 91, share: float = 0.35) -> Trajectories:
    """Returns exploring trajectories in random layouts; see `rooms.explore`.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.
        share: Share of trajectories that seek the door; of the others 4 in 10 change rooms, nearly all by the teleport.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    return rooms.explore(key, PARAMS, step, reset, batch, length, share, _RATES, WIDTH, 1.0)


@cache
def task(observation: str = "pixels") -> Task:
    """Returns the task.

    Args:
        observation: `"pixels"` or `"state"`.

    Raises:
        ValueError: If `observation` has another value.
    """
    return rooms.task(
        "teleport",
        observation,
        reset=reset,
        step=step,
        picture=two_rooms.picture,
        image=pixels(rooms.SIZE, rooms.SIZE, 2),
        width=WIDTH,
        reach=rooms.ACTION,
        horizon=200,
        render=render,
        report=report,
    )
