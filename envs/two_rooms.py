"""Two Rooms: a dot, a wall with a door in it, and a goal in the other room, seen from above.

State: position, goal, layout (`rooms.State`). Observation: `[65, 65, 2]` bytes, the dot `255 exp(-r²/2σ²)`, σ = 1.3, and
the walls; or, with `observation="state"`, `(x, y, goal x, goal y, wall x, door y)`. The goal is not in the image: it is an
image of its own, `Task.goal`. Action: the move `(dx, dy)` in pixels, each within ±2.45.

    position' = position + action

unless the segment touches a wall, the faces of the door included: then the dot stops there, pushed back along the wall's
normal by |N(0, 0.5²)|, at least 0.3. Reward: 1 for a step that ends at the goal, else 0. Success: nearer than 4.5 pixels to
the goal; nothing ends early, so that what counts is where the dot is at step 200.

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
"""Of the wall."""
SIGMA = 1.3
"""Of the dot."""
LAYOUT = (32.0, 10.0)
"""The fixed one."""
_RATES = (0.115, 1.0)  # see rooms.explore; measured in random layouts


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Move, and stop at what is in the way."""
    position, *_ = rooms.move(params, state, jnp.clip(action, -rooms.ACTION, rooms.ACTION), key, WIDTH)
    return state._replace(position=position)


def reset(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """A random layout, the start in one room, the goal in the other; what is given is not drawn."""
    return rooms.begin(key, WIDTH, start, goal, layout)


def fixed(
    key: PRNGKeyArray,
    start: Float[Array, "2"] | None = None,
    goal: Float[Array, "2"] | None = None,
    layout: Float[Array, "2"] | None = None,
) -> State:
    """`reset` with the wall at 32 and the door at 10, if no layout is given."""
    return rooms.begin(key, WIDTH, start, goal, jnp.array(LAYOUT) if layout is None else layout)


def picture(position: Float[Array, "2"], layout: Float[Array, "2"]) -> UInt8[Array, "65 65 2"]:
    """The dot somewhere in a layout, `[65, 65, 2]` bytes."""
    layers = jnp.stack([rooms.dot(position, SIGMA), rooms.plan(layout, WIDTH)], axis=-1)
    return jnp.round(255.0 * layers).astype(jnp.uint8)


def explore(
    key: PRNGKeyArray,
    batch: int,
    length: int = 91,
    share: float = 0.35,
    layout: Float[Array, "2"] | None = None,
) -> Trajectories:
    """Exploring trajectories to learn from, in random layouts or a given one; see `rooms.explore`.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.
        share: Of the trajectories that pass the door, about.
        layout: The same for all of them, if given.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    start = partial(reset, layout=layout)
    return rooms.explore(key, PARAMS, step, start, batch, length, share, _RATES, WIDTH, 1.0)


@cache
def task(observation: str = "pixels", layout: str = "random") -> Task:
    """The task.

    Args:
        observation: `"pixels"` or `"state"`.
        layout: `"random"` or `"fixed"`: the wall at 32, the door at 10.

    Raises:
        ValueError: If a setting is none of these.
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
