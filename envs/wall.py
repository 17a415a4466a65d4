"""Wall: a thick wall with a door, seen in colour, on a budget of 300 steps (or 30).

State: position, goal, layout (`rooms.State`). Observation: `[224, 224, 3]` bytes, the 65 x 65 room drawn larger: a dot of σ
= 1.7 pixels of the room, the wall and the border; or, with `observation="state"`, `(x, y, goal x, goal y, wall x, door y)`.
The goal is an image of its own, `Task.goal`. Action: `(ax, ay)`, each within ±1.

    position' = position + 2 action

unless the segment touches a wall, as in `two_rooms`. The wall is 6 pixels wide and stands at 32, its door at 30. Reward: 1
for a step that ends at the goal, else 0. Success: nearer than 4.5 pixels to the goal, which is in the other room; nothing
ends early. The budget of 30 steps is `gymnasium.make("craik/Wall-v0", max_episode_steps=30)`.

Source: DINO-WM (Zhou et al. 2024, https://arxiv.org/abs/2411.04983).
"""

from functools import cache
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import rooms
from envs.exploring import Trajectories
from envs.rooms import PARAMS, State
from envs.task import Task, pixels

WIDTH = 6.0
"""Of the wall."""
SIGMA = 1.7
"""Of the dot."""
LAYOUT = (32.0, 30.0)
"""Where the wall and its door are."""
SCALE = 2.0
"""Pixels that an action of 1 moves."""
IMAGE = 224
"""Pixels of an observation."""
_RATES = (0.115, 1.0)  # see rooms.explore; measured


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Move, and stop at what is in the way."""
    position, *_ = rooms.move(params, state, SCALE * jnp.clip(action, -1.0, 1.0), key, WIDTH)
    return state._replace(position=position)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """The start in one room, the goal in the other; what is given is not drawn."""
    return rooms.begin(key, WIDTH, start, goal, jnp.array(LAYOUT) if layout is None else layout)


def picture(position: Float[Array, "2"], layout: Float[Array, "2"]) -> UInt8[Array, "224 224 3"]:
    """The dot somewhere in a layout."""
    canvas = d.paint(jnp.broadcast_to(jnp.asarray(d.FLOOR), (IMAGE, IMAGE, 3)), rooms.plan(layout, WIDTH, IMAGE), d.INK)
    return d.picture(d.paint(canvas, rooms.dot(position, SIGMA, IMAGE), d.CORAL))


def explore(key: PRNGKeyArray, batch: int, length: int = 91, share: float = 0.35) -> Trajectories:
    """Exploring trajectories to learn from; see `rooms.explore`.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.
        share: Of the trajectories that pass the door, about.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    return rooms.explore(key, PARAMS, step, reset, batch, length, share, _RATES, WIDTH, SCALE)


@cache
def task(observation: str = "pixels") -> Task:
    """The task.

    Args:
        observation: `"pixels"` or `"state"`.

    Raises:
        ValueError: If it is neither.
    """
    return rooms.task(
        "wall",
        observation,
        reset=reset,
        step=step,
        picture=picture,
        image=pixels(IMAGE, IMAGE, 3),
        width=WIDTH,
        reach=1.0,
        horizon=300,
    )
