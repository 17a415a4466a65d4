"""T-maze: what is seen at the beginning of a long corridor says which way to turn at its end.

State: (x, y, cue): steps along the corridor, the part of an arm that is behind one, and which arm pays, ±1. Observation:
(x / 50, y, cue where x = 0, else 0), or, where it is `visible`, the cue everywhere. Action: how fast to go sideways, ±1.

    x' = min(x + 1, 50),        y' = clip(y + u / 4, ±1) at the junction, x = 50;  0 in the corridor, which leaves no room

Whoever is on the way is carried along it: nothing but memory is asked for, and nothing but memory can hold the cue, for all
corridors look alike. An episode has 60 steps at most, and ends at the end of an arm.

    reward = cue (y' - y):        1 in sum at the end of the arm that pays, -1 at the end of the other

Success: the end of the arm that pays. Without memory, that is one half of all episodes in which a way is chosen at all.

Source: Bakker (2001), Reinforcement Learning with Long Short-Term Memory; the corridor that only goes ahead, which keeps the
assignment of credit out of it, is that of Ni et al. (2023), When Do Transformers Shine in RL?
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import drawing as d
from envs import physics
from envs.task import Bounds, Task, bounds

PARAMS = {"step": 0.25}
"""Part of an arm that a full step goes."""
LENGTH = 50.0
"""Steps from the cue to the junction."""
OPTIONS: dict[str, Bounds] = {"cue": bounds([-1.0], [1.0])}
"""What a start can be given: the arm that pays, by its sign."""


def dynamics(params: Any, state: Float[Array, "3"], action: Float[Array, "1"]) -> Float[Array, "3"]:
    """The next (x, y, cue).

    Args:
        params: As `PARAMS`.
        state: `(x, y, cue)`.
        action: How fast to go sideways; clipped to ±1.
    """
    x, y, cue = state
    aside = jnp.clip(y + params["step"] * jnp.clip(action[0], -1.0, 1.0), -1.0, 1.0)
    return jnp.stack([jnp.minimum(x + 1.0, LENGTH), jnp.where(x < LENGTH, 0.0, aside), cue])


def reset(key: PRNGKeyArray, cue: Float[Array, "1"] | None = None) -> Float[Array, "3"]:
    """At the cue, which shows either arm equally often; or the one that is given."""
    drawn = jax.random.uniform(key, (), minval=-1.0) if cue is None else cue[0]
    return jnp.stack([jnp.zeros(()), jnp.zeros(()), jnp.where(drawn < 0.0, -1.0, 1.0)])


def observe(state: Float[Array, "3"], visible: bool = False) -> Float[Array, "3"]:
    """`(x / 50, y, cue)`, the cue only where it hangs, unless it is visible everywhere."""
    x, y, cue = state
    return jnp.stack([x / LENGTH, y, cue if visible else jnp.where(x == 0.0, cue, 0.0)])


def terminated(state: Float[Array, "3"]) -> Bool[Array, ""]:
    """Whether an arm's end is reached."""
    return jnp.abs(state[1]) >= 1.0


def success(state: Float[Array, "3"]) -> Bool[Array, ""]:
    """Whether it is the end of the arm that pays."""
    return terminated(state) & (state[1] * state[2] > 0.0)


def reward(state: Float[Array, "3"], following: Float[Array, "3"]) -> Float[Array, ""]:
    """What the last step brought towards the end of the arm that pays."""
    return state[2] * (following[1] - state[1])


def render(state: Float[Array, "3"]) -> UInt8[Array, "225 480 3"]:
    """The maze from above."""
    seen = d.view((-5.0, -15.0), (59.0, 15.0), 480)
    x, y, cue = state
    floor = jnp.maximum(
        d.between(seen, jnp.array([-2.5, -2.5]), jnp.array([LENGTH + 2.5, 2.5])),
        d.between(seen, jnp.array([LENGTH - 2.5, -10.5]), jnp.array([LENGTH + 2.5, 10.5])),
    )
    canvas = d.paint(d.blank(seen, d.STONE), floor, d.FLOOR)
    canvas = d.paint(canvas, d.disc(seen, jnp.stack([jnp.float32(LENGTH), 8.0 * cue]), 1.6), d.TEAL)
    canvas = d.paint(canvas, d.line(seen, jnp.array([0.0, 0.0]), jnp.stack([jnp.float32(0.0), 2.0 * cue]), 0.8), d.TEAL)
    return d.picture(d.paint(canvas, d.disc(seen, jnp.stack([x, 8.0 * y]), 1.2), d.CORAL))


@cache
def task(visible: bool = False) -> Task:
    """The task.

    Args:
        visible: Whether the cue is seen everywhere, so that nothing has to be remembered.
    """
    return Task(
        name="t_maze",
        params=PARAMS,
        reset=reset,
        step=physics.certain(dynamics),
        observe=partial(observe, visible=visible),
        reward=lambda params, state, action, following: reward(state, following),
        render=render,
        actions=bounds([-1.0], [1.0]),
        observations=bounds([0.0, -1.0, -1.0], [1.0, 1.0, 1.0]),
        horizon=60,
        fps=20,
        success=success,
        terminated=terminated,
        report=lambda state: {"cue": state[2]},
        options=OPTIONS,
    )
