"""Planning through MuJoCo's own equations: a robot's task as a policy that can be exported, with nothing learnt."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

import mpc
from mpc.agent.cli.doctor import ours
from world_models.mjx import mjx_dynamics


class Recipe(NamedTuple):
    """A planner, the share of a robot's horizon it looks ahead, and the seconds for which the state there counts.

    What is unstable amplifies noise along the horizon, so that samples tell less the longer it is.
    """

    planner: Callable[[mpc.Problem], mpc.Planner]
    share: float
    end: float


PLANNERS = {
    # second derivatives of MJX are too dear
    "gradient": Recipe(lambda problem: mpc.ilqr(problem, second_order=0.0), 1.0, 0.4),
    "sampling": Recipe(lambda problem: mpc.mppi(problem, samples=160, spread=0.3), 0.72, 0.6),
}


def mjx_policy(env: str, planner: Literal["gradient", "sampling"]) -> tuple[mpc.Policy, Any]:
    """Plan for a robot through MJX.

        minimise over u   Σ_t period · cost(s[t], u[t]) + T · end(s[H]),     s[t+1] = MJX(s[t], u[t])

    with H and T of the planner's `Recipe`.

    The states planned from are observations, cosines and sines of angles: an angle jumps at a half turn, and iterative LQR,
    whose feedback keeps to the states of the last plan, would jump along.

    Args:
        env: Gymnasium id of the robot, of `envs.ROBOT_IDS`.
        planner: `"gradient"`: iterative LQR, through MJX's derivatives; `"sampling"`: MPPI, which needs none.

    Returns:
        The policy, whose parameters are None, and the robot.

    Raises:
        ImportError: If MuJoCo or MJX is missing.
        ValueError: If there is no such robot.
    """
    ids = ours("envs").ROBOT_IDS
    if env not in ids:
        raise ValueError(f"{env} is no robot with equations in MuJoCo's format; these are: {', '.join(ids)}")
    robots = ours("envs").robots
    robot = robots.named(ids[env])
    model = robots.built(robot)
    physics, recipe = mjx_dynamics(model, robot.period), PLANNERS[planner]

    def dynamics(params: Any, seen: jax.Array, action: jax.Array) -> jax.Array:
        q, speed = jnp.split(physics(params, robot.state_of(seen), action), [model.nq])
        return robot.observe(q, speed, jnp)

    def cost(params: Any, seen: jax.Array, action: jax.Array, t: jax.Array) -> jax.Array:
        return robot.period * robot.cost(robot.state_of(seen), action)

    def end(params: Any, seen: jax.Array) -> jax.Array:
        return recipe.end * robot.end(robot.state_of(seen))

    space = mpc.Box(*(jnp.asarray(model.actuator_ctrlrange[:, side], jnp.float32) for side in (0, 1)))
    problem = mpc.Problem(dynamics, cost, end, horizon=round(recipe.share * robot.horizon), action_space=space)
    return mpc.policy(recipe.planner(problem), iterations=1), robot
