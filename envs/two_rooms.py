"""Two Rooms: a dot moves through the door of a wall to a goal in the other room.

State: position, goal, layout (`rooms.State`). Observation: `[65, 65, 2]` bytes, the dot `255 exp(-r²/2σ²)`, σ = 1.3, and
the walls; or, with `observation="state"`, `(x, y, goal x, goal y, wall x, door y)`. The goal is a separate image,
`Task.goal`. Action: the move `(dx, dy)` in pixels, each within ±2.45.

    position' = position + action

unless the segment touches a wall or a face of the door: then the dot stops there and is pushed back along the normal by
|N(0, 0.5²)|, at least 0.3. Reward: 1 for a step that ends at the goal, else 0. Success: nearer than 4.5 pixels to the goal.
Episodes never terminate, so the success of an episode is the success at step 200.

Sources: EB-JEPA (https://github.com/facebookresearch/eb_jepa), PLDM (Sobal et al. 2025, https://arxiv.org/abs/2502.14819).
"""

from functools import cache, partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from envs import rooms
from envs.exploring import Trajectories
from envs.rooms import PARAMS, State
from envs.task import Task, choice, pixels

WIDTH = 3.0
"""Width of the wall."""
SIGMA = 1.3
"""Standard deviation of the dot, pixels."""
LAYOUT = (32.0, 10.0)
"""The layout with `layout="fixed"`."""
_RATES = (0.115, 1.0)  # see rooms.explore; measured in random layouts


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Returns the state after a move that walls stop."""
    position, *_ = rooms.move(params, state, jnp.clip(action, -rooms.ACTION, rooms.ACTION), key, WIDTH)
    return state._replace(position=position)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """Returns a start state; start and goal in different rooms and the layout are random where they are None."""
    return rooms.begin(key, WIDTH, start, goal, layout)


def fixed(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """Returns a start state as `reset` does, with the layout `LAYOUT` unless another is given."""
    return rooms.begin(key, WIDTH, start, goal, jnp.array(LAYOUT) if layout is None else layout)


def picture(position: Float[Array, "2"], layout: Float[Array, "2"]) -> UInt8[Array, "65 65 2"]:
    """Returns the image of a dot in a layout, `[65, 65, 2]` bytes."""
    layers = jnp.stack([rooms.dot(position, SIGMA), rooms.plan(layout, WIDTH)], axis=-1)
    return jnp.round(255.0 * layers).astype(jnp.uint8)


def explore(
    key: PRNGKeyArray,
    batch: int,
    length: int = 91,
    share: float = 0.35,
    layout: Float[Array, "2"] | None = None,
) -> Trajectories:
    """Returns exploring trajectories in random layouts or in a given one; see `rooms.explore`.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.
        share: Approximate share of trajectories that pass the door.
        layout: Layout of all trajectories; random if None.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    start = partial(reset, layout=layout)
    return rooms.explore(key, PARAMS, step, start, batch, length, share, _RATES, WIDTH, 1.0)


@cache
def task(observation: str = "pixels", layout: str = "random") -> Task:
    """Returns the task.

    Args:
        observation: `"pixels"` or `"state"`.
        layout: `"random"` or `"fixed"`: the wall at 32, the door at 10.

    Raises:
        ValueError: If a setting has another value.
    """
    choice("layout", layout, ("random", "fixed"))
    return rooms.task(
        "two_rooms",
        observation,
        reset=reset if layout == "random" else fixed,
        step=step,
        picture=picture,
        image=pixels(rooms.SIZE, rooms.SIZE, 2),
        width=WIDTH,
        reach=rooms.ACTION,
        horizon=200,
    )
