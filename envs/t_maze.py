"""T-maze: a cue at the start of a long corridor tells which way to turn at its end, 50 steps later.

State: (x, y, cue): steps along the corridor, signed fraction of the arm covered, and the rewarded arm, ±1. Observation:
(x / 50, y, cue if x = 0 else 0); with `visible`, the cue is always observed. Action: sideways speed, within ±1.

    x' = min(x + 1, 50),        y' = clip(y + u / 4, ±1) at the junction (x = 50), 0 in the corridor

The agent moves along the corridor whatever its action, so the task tests memory and nothing else. An episode has at most 60
steps and ends at the end of an arm.

    reward = cue (y' - y):        the return is 1 at the end of the rewarded arm, -1 at the end of the other arm

Success: the end of the rewarded arm. An agent without memory succeeds in at most half of the episodes.

Sources: Bakker (2001), Reinforcement Learning with Long Short-Term Memory. The corridor without a choice of speed, which
separates memory from credit assignment, is from Ni et al. (2023), When Do Transformers Shine in RL?
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
"""Fraction of an arm covered by a step of full speed."""
LENGTH = 50.0
"""Steps from the cue to the junction."""
OPTIONS: dict[str, Bounds] = {"cue": bounds([-1.0], [1.0])}
"""Options of `reset` and their bounds; the sign of the cue is the rewarded arm."""


def dynamics(params: Any, state: Float[Array, "3"], action: Float[Array, "1"]) -> Float[Array, "3"]:
    """Returns the next state `(x, y, cue)`.

    Args:
        params: As `PARAMS`.
        state: `(x, y, cue)`.
        action: Sideways speed; clipped to ±1.
    """
    x, y, cue = state
    arm = jnp.clip(y + params["step"] * jnp.clip(action[0], -1.0, 1.0), -1.0, 1.0)
    return jnp.stack([jnp.minimum(x + 1.0, LENGTH), jnp.where(x < LENGTH, 0.0, arm), cue])


def reset(key: PRNGKeyArray, cue: Float[Array, "1"] | None = None) -> Float[Array, "3"]:
    """Returns a start at the cue; the rewarded arm is random with equal probabilities unless `cue` is given."""
    drawn = jax.random.uniform(key, (), minval=-1.0) if cue is None else cue[0]
    return jnp.stack([jnp.zeros(()), jnp.zeros(()), jnp.where(drawn < 0.0, -1.0, 1.0)])


def observe(state: Float[Array, "3"], visible: bool = False) -> Float[Array, "3"]:
    """Returns the observation `(x / 50, y, cue)`; the cue is 0 beyond x = 0 unless `visible`."""
    x, y, cue = state
    return jnp.stack([x / LENGTH, y, cue if visible else jnp.where(x == 0.0, cue, 0.0)])


def terminated(state: Float[Array, "3"]) -> Bool[Array, ""]:
    """Returns True at the end of an arm."""
    return jnp.abs(state[1]) >= 1.0


def success(state: Float[Array, "3"]) -> Bool[Array, ""]:
    """Returns True at the end of the rewarded arm."""
    return terminated(state) & (state[1] * state[2] > 0.0)


def reward(state: Float[Array, "3"], following: Float[Array, "3"]) -> Float[Array, ""]:
    """Returns the progress of the last step towards the end of the rewarded arm."""
    return state[2] * (following[1] - state[1])


def render(state: Float[Array, "3"]) -> UInt8[Array, "225 480 3"]:
    """Returns an image of the maze from above."""
    camera = d.view((-5.0, -15.0), (59.0, 15.0), 480)
    x, y, cue = state
    floor = jnp.maximum(
        d.between(camera, jnp.array([-2.5, -2.5]), jnp.array([LENGTH + 2.5, 2.5])),
        d.between(camera, jnp.array([LENGTH - 2.5, -10.5]), jnp.array([LENGTH + 2.5, 10.5])),
    )
    canvas = d.paint(d.blank(camera, d.STONE), floor, d.FLOOR)
    canvas = d.paint(canvas, d.disc(camera, jnp.stack([jnp.float32(LENGTH), 8.0 * cue]), 1.6), d.TEAL)
    canvas = d.paint(canvas, d.line(camera, jnp.array([0.0, 0.0]), jnp.stack([jnp.float32(0.0), 2.0 * cue]), 0.8), d.TEAL)
    return d.picture(d.paint(canvas, d.disc(camera, jnp.stack([x, 8.0 * y]), 1.2), d.CORAL))


@cache
def task(visible: bool = False) -> Task:
    """Returns the task.

    Args:
        visible: If True, the cue is always observed, and the task needs no memory.
    """
    return Task(
        name="t_maze",
        params=PARAMS,
        reset=reset,
        step=physics.deterministic(dynamics),
        observe=partial(observe, visible=visible),
        reward=lambda params, state, action, following: reward(state, following),
        render=render,
        actions=bounds([-1.0], [1.0]),
        observations=bounds([0.0, -1.0, -1.0], [1.0, 1.0, 1.0]),
        observation_names=("x / 50", "y", "cue"),
        horizon=60,
        fps=20,
        success=success,
        terminated=terminated,
        report=lambda state: {"cue": state[2]},
        options=OPTIONS,
    )
