"""Teleport: Two Rooms, but whoever touches the right border is moved to the left one.

Nothing in the picture tells: the image of a dot beside the right border looks as it does in Two Rooms, and only what
happens next differs. A model that learns dynamics plans through it where that is shorter; one that goes by looks does not.

State: position, goal, layout, jumps so far (`State`). Observation, action and reward are those of `two_rooms`, and so is
success.

    position' = position + action, stopped by walls; but when the segment touches the border's right side at height y,
    position' = (left border + |N(0, 0.5²)|, y), at least 0.3 off the border

Start and goal lie in different rooms. From the right room to the left one the shortest way is through the border more often
than through the door (`ways`); back it is always through the door.
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
"""Of the wall."""
_RATES = (0.0, 1.0)  # see rooms.explore: the share is that of those who seek the door


class State(NamedTuple):
    """One dot in one room, and how often it was teleported."""

    position: Float[Array, "*b 2"]
    goal: Float[Array, "*b 2"]
    layout: Float[Array, "*b 2"]
    jumps: Int[Array, "*b"]


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Move, and stop at what is in the way, or come out at the left."""
    move = jnp.clip(action, -rooms.ACTION, rooms.ACTION)
    position, touch, off = rooms.move(params, state, move, key, WIDTH)
    jumped = touch.outer & (touch.normal[0] < 0.0)
    out = jnp.stack([rooms.LOW + off, position[1]])
    return state._replace(position=jnp.where(jumped, out, position), jumps=state.jumps + jumped)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """A random layout, the start in one room, the goal in the other; what is given is not drawn."""
    return State(*two_rooms.reset(key, start, goal, layout), jnp.zeros((), jnp.int32))


def ways(state: State, heights: int = 225) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Lengths of the shortest ways to the goal that do not and that do use the teleport, once.

    Args:
        state: Of which position, goal and layout count.
        heights: At how many heights between the border's ends the teleport is tried: a quarter of a pixel apart, which
            makes the way found at most a few thousandths of a pixel longer than the shortest.
    """

    def through(y: Array) -> Array:
        into = rooms.path_length(state.layout, state.position, jnp.stack([jnp.float32(rooms.HIGH), y]), WIDTH)
        return into + rooms.path_length(state.layout, jnp.stack([jnp.float32(rooms.LOW), y]), state.goal, WIDTH)

    direct = rooms.path_length(state.layout, state.position, state.goal, WIDTH)
    return direct, jax.vmap(through)(jnp.linspace(rooms.LOW, rooms.HIGH, heights)).min()


def report(state: State) -> dict[str, Array]:
    """As in `rooms`, and how often the dot was teleported."""
    return rooms.report(state) | {"jumps": state.jumps}


def render(state: State) -> UInt8[Array, "325 325 3"]:
    """The room for people, the border's two sides in the colours of a door in and a door out."""
    seen = rooms.VIEW
    canvas = rooms.scene(seen, state, WIDTH)
    for x, colour in ((rooms.HIGH + 0.7, d.SAND), (rooms.LOW - 0.7, d.SKY)):
        canvas = d.paint(canvas, d.line(seen, jnp.array([x, rooms.LOW]), jnp.array([x, rooms.HIGH]), 1.4), colour)
    return d.picture(rooms.with_dot(seen, canvas, state))


def explore(key: PRNGKeyArray, batch: int, length: int = 91, share: float = 0.35) -> Trajectories:
    """Exploring trajectories to learn from, in random layouts; see `rooms.explore`.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.
        share: Of the trajectories that seek the door, about; of the others 4 in 10 change rooms, nearly all by the teleport.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    return rooms.explore(key, PARAMS, step, reset, batch, length, share, _RATES, WIDTH, 1.0)


@cache
def task(observation: str = "pixels") -> Task:
    """The task.

    Args:
        observation: `"pixels"` or `"state"`.

    Raises:
        ValueError: If it is neither.
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
