"""Robots simulated by MuJoCo: their models, observations and costs.

The state of a robot is (q, q̇), MuJoCo's positions and velocities. Its observation has the cosine and sine of each angle. The
MJCF files are in this folder. MuJoCo is imported when a robot is first built; everything else works without it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

State = Float[Array, " S"]
Action = Float[Array, " A"]


class Robot(NamedTuple):
    """A robot and its task; S = 2Q for Q joints.

    `name`: name of the MJCF file, without its suffix. `names`, `units`: of the O observed quantities.
    `observe(q, q̇, xp=numpy) -> [O]`; `state_of(observation) -> [S]`: its inverse in JAX, with angles in ±π.
    `cost(state, action) -> scalar`: cost per second. `end(state) -> scalar`: terminal cost of a plan.
    `good(state) -> bool`: True while the task is achieved. `start`: initial q, at rest. `spread`: half-width `[Q]` of the
    start distribution. `anywhere`: half-width `[S]` of the wide start distribution for learning. `arena`: largest |q| per
    joint, infinite if unlimited. `period`: seconds between two actions. `horizon`: recommended planning horizon in steps.
    `pushed`: name of the body that disturbance forces act on.
    """

    name: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    observe: Callable[..., Any]
    state_of: Callable[[Array], State]
    cost: Callable[[State, Action], Float[Array, ""]]
    end: Callable[[State], Float[Array, ""]]
    good: Callable[[State], Bool[Array, ""]]
    start: tuple[float, ...]
    spread: tuple[float, ...]
    anywhere: tuple[float, ...]
    arena: tuple[float, ...]
    period: float
    horizon: int
    pushed: str

    @property
    def path(self) -> Path:
        """Path of the MJCF file."""
        return Path(__file__).parent / f"{self.name}.xml"


def _angles(kinds: str) -> tuple[Callable[..., Any], Callable[[Array], State]]:
    """Returns `observe` and `state_of` for slide (`s`) and hinge (`t`) joints.

    The observation is: positions of slides, cosines and sines of hinges, velocities of all joints.
    """
    turns = np.array([kind == "t" for kind in kinds])

    def observe(q: Any, speed: Any, xp: Any = np) -> Any:
        return xp.concatenate([q[~turns], xp.cos(q[turns]), xp.sin(q[turns]), speed]).astype(np.float32)

    def state_of(observation: Array) -> State:
        slides, angles = int((~turns).sum()), int(turns.sum())
        cosine, sine = observation[slides : slides + angles], observation[slides + angles : slides + 2 * angles]
        q = jnp.zeros(len(kinds)).at[np.flatnonzero(~turns)].set(observation[:slides])
        q = q.at[np.flatnonzero(turns)].set(jnp.arctan2(sine, cosine))
        return jnp.concatenate([q, observation[slides + 2 * angles :]])

    return observe, state_of


def _cartpole() -> Robot:
    def bad(x: State) -> Float[Array, ""]:
        return 1.0 - jnp.cos(x[1]) + 0.1 * x[0] ** 2 + 0.01 * x[2] ** 2 + 0.01 * x[3] ** 2

    observe, state_of = _angles("st")
    return Robot(
        "cartpole",
        ("position", "cos angle", "sin angle", "speed", "angular speed"),
        ("m", "", "", "m/s", "rad/s"),
        observe,
        state_of,
        cost=lambda x, u: bad(x) + 0.001 * u[0] ** 2,
        end=bad,
        good=lambda x: (jnp.cos(x[1]) > np.cos(0.4)) & (jnp.abs(x[0]) < 2.0),
        start=(0.0, np.pi),
        spread=(0.1, 0.1),
        anywhere=(1.0, np.pi, 1.0, 5.0),
        arena=(3.0, np.inf),
        period=0.02,
        horizon=50,
        pushed="pole",
    )


def _double_pendulum() -> Robot:
    def bad(x: State) -> Float[Array, ""]:
        upright = 2.0 - jnp.cos(x[1]) - jnp.cos(x[1] + x[2])
        return 3.0 * upright + 0.1 * x[0] ** 2 + 0.01 * (x[3:] ** 2).sum()

    observe, state_of = _angles("stt")
    return Robot(
        "double_pendulum",
        ("position", "cos lower", "cos upper", "sin lower", "sin upper", "speed", "lower's speed", "upper's speed"),
        ("m", "", "", "", "", "m/s", "rad/s", "rad/s"),
        observe,
        state_of,
        cost=lambda x, u: bad(x) + 0.0005 * u[0] ** 2,
        end=bad,
        good=lambda x: (jnp.cos(x[1]) > np.cos(0.4)) & (jnp.cos(x[1] + x[2]) > np.cos(0.4)) & (jnp.abs(x[0]) < 2.0),
        start=(0.0, 0.0, 0.0),
        spread=(0.1, 0.05, 0.05),
        anywhere=(1.0, 0.3, 0.3, 1.0, 1.0, 1.0),
        arena=(3.0, np.inf, np.inf),
        period=0.02,
        horizon=40,
        pushed="upper",
    )


def _reacher() -> Robot:
    def apart(x: State) -> Float[Array, ""]:
        hand = 0.25 * jnp.stack([jnp.cos(x[0]) + jnp.cos(x[0] + x[1]), jnp.sin(x[0]) + jnp.sin(x[0] + x[1])])
        return ((hand - x[2:4]) ** 2).sum()

    observe, state_of = _angles("ttss")
    joints = ("shoulder", "elbow", "target x", "target y")
    return Robot(
        "reacher",
        (
            "target x",
            "target y",
            "cos shoulder",
            "cos elbow",
            "sin shoulder",
            "sin elbow",
            *(f"{j}'s speed" for j in joints),
        ),
        ("m", "m", "", "", "", "", "rad/s", "rad/s", "m/s", "m/s"),
        observe,
        state_of,
        cost=lambda x, u: 10.0 * apart(x) + 0.02 * (x[4:6] ** 2).sum() + 0.03 * (u**2).sum(),
        end=lambda x: 10.0 * apart(x) + 0.02 * (x[4:6] ** 2).sum(),
        good=lambda x: apart(x) < 0.05**2,
        start=(0.0, 1.0, 0.2, 0.1),
        spread=(np.pi, 1.0, 0.15, 0.15),
        anywhere=(np.pi, 1.0, 0.15, 0.15, 2.0, 2.0, 0.0, 0.0),
        arena=(np.inf, np.inf, np.inf, np.inf),
        period=0.02,
        horizon=25,
        pushed="forearm",
    )


def _quadrotor() -> Robot:
    def bad(x: State) -> Float[Array, ""]:
        return x[0] ** 2 + x[1] ** 2 + 0.5 * (1.0 - jnp.cos(x[2])) + 0.2 * (x[3] ** 2 + x[4] ** 2) + 0.05 * x[5] ** 2

    observe, state_of = _angles("sst")
    weight = 0.54 * 9.81
    return Robot(
        "quadrotor",
        ("x", "z", "cos pitch", "sin pitch", "x's speed", "z's speed", "pitch's speed"),
        ("m", "m", "", "", "m/s", "m/s", "rad/s"),
        observe,
        state_of,
        # thrust turns the frame within one step: with a lower weight, plans jump between bounds and cannot be tracked
        cost=lambda x, u: bad(x) + 0.1 * ((u - weight / 2) ** 2).sum(),
        end=bad,
        good=lambda x: x[0] ** 2 + x[1] ** 2 < 0.3**2,
        start=(0.0, 0.0, 0.0),
        spread=(1.2, 1.0, 0.5),
        anywhere=(1.2, 1.0, 1.0, 1.0, 1.0, 2.0),
        arena=(3.0, 3.0, np.inf),
        period=0.02,
        horizon=40,
        pushed="frame",
    )


ROBOTS: dict[str, Robot] = {robot.name: robot for robot in (_cartpole(), _double_pendulum(), _reacher(), _quadrotor())}
"""Robots by name."""


def named(name: str) -> Robot:
    """Returns the robot of a name.

    Raises:
        ValueError: If the name is not in `ROBOTS`.
    """
    if name not in ROBOTS:
        raise ValueError(f"robot must be one of {', '.join(ROBOTS)}; got {name!r}")
    return ROBOTS[name]


def mujoco() -> Any:
    """Imports and returns MuJoCo.

    Raises:
        ImportError: If it is not installed.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # render off screen
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(f"robots are simulated by MuJoCo ({error}): pip install 'craik[mujoco]'") from error
    return mujoco


def built(robot: Robot) -> Any:
    """Returns the robot as MuJoCo's `MjModel`."""
    return mujoco().MjModel.from_xml_path(str(robot.path))
