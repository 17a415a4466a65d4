"""Wall: a dot moves through the door of a thick wall, observed in colour, within 300 (or 30) steps.

State: position, goal, layout (`rooms.State`). Observation: `[224, 224, 3]` bytes, the 65 x 65 room at a higher resolution:
a dot of σ = 1.7, the wall and the border; or, with `observation="state"`, `(x, y, goal x, goal y, wall x, door y)`. The
goal is a separate image, `Task.goal`. Action: `(ax, ay)`, each within ±1.

    position' = position + 2 action

unless the segment touches a wall, as in `two_rooms`. The wall is 6 pixels wide, at x = 32, with its door at y = 30.
Reward: 1 for a step that ends at the goal, else 0. Success: nearer than 4.5 pixels to the goal, which is in the other room.
Episodes never terminate. The variant with 30 steps is `gymnasium.make("craik/Wall-v0", max_episode_steps=30)`.

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
"""Width of the wall."""
SIGMA = 1.7
"""Standard deviation of the dot, in pixels of the 65 x 65 room."""
LAYOUT = (32.0, 30.0)
"""x of the wall, y of its door."""
SCALE = 2.0
"""Length of the move for an action of length 1, pixels of the room."""
IMAGE = 224
"""Width and height of an image observation, pixels."""
_RATES = (0.115, 1.0)  # see rooms.explore; measured


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Returns the state after a move that walls stop."""
    position, *_ = rooms.move(params, state, SCALE * jnp.clip(action, -1.0, 1.0), key, WIDTH)
    return state._replace(position=position)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """Returns a start state; start and goal are in different rooms and random where they are None."""
    return rooms.begin(key, WIDTH, start, goal, jnp.array(LAYOUT) if layout is None else layout)


def picture(position: Float[Array, "2"], layout: Float[Array, "2"]) -> UInt8[Array, "224 224 3"]:
    """Returns the image of a dot in a layout."""
    canvas = d.paint(jnp.broadcast_to(jnp.asarray(d.FLOOR), (IMAGE, IMAGE, 3)), rooms.plan(layout, WIDTH, IMAGE), d.INK)
    return d.picture(d.paint(canvas, rooms.dot(position, SIGMA, IMAGE), d.CORAL))


def explore(key: PRNGKeyArray, batch: int, length: int = 91, share: float = 0.35) -> Trajectories:
    """Returns exploring trajectories; see `rooms.explore`.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.
        share: Approximate share of trajectories that pass the door.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    return rooms.explore(key, PARAMS, step, reset, batch, length, share, _RATES, WIDTH, SCALE)


@cache
def task(observation: str = "pixels") -> Task:
    """Returns the task.

    Args:
        observation: `"pixels"` or `"state"`.

    Raises:
        ValueError: If `observation` has another value.
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
