"""Planning through MuJoCo's own equations: a robot's task as a policy that can be exported, with nothing learnt."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mpc
from mpc.agent.perception.packages import ours
from world_models.mjx import mjx_dynamics


class Recipe(NamedTuple):
    """A planner's configuration, the share of a robot's horizon it looks ahead, and the seconds for which the state there
    counts.

    What is unstable amplifies noise along the horizon, so that samples tell less the longer it is.
    """

    config: mpc.PlannerConfig
    share: float
    end: float


SHARE, END = 1.0, 0.4
"""Of planners that follow gradients; the robot benchmarks use it with iterative LQR."""
SAMPLING_SHARE, SAMPLING_END = 0.72, 0.6
"""Of planners that sample; the robot benchmarks use it with MPPI."""
SAMPLING = ("cem", "icem", "mppi", "predictive_sampling")
# second derivatives of MJX are too dear
ILQR = mpc.PlannerConfig("ilqr", precision="float32", options={"second_order": 0.0})
MPPI = mpc.PlannerConfig("mppi", samples=160, spread=0.3)
DEFAULTS: dict[str, mpc.PlannerConfig] = {
    "ilqr": ILQR,
    "mppi": MPPI,
    "cem": mpc.PlannerConfig("cem", samples=160, elites=16),
    "icem": mpc.PlannerConfig("icem", samples=160, elites=16),
    "chain": mpc.PlannerConfig("chain", options={"stages": (MPPI, ILQR), "switch_after": 1}),
}
"""Settings that differ from a planner's own defaults, by its name."""


def recipe(planner: str | mpc.PlannerConfig) -> Recipe:
    """Return how to plan for a robot with a planner, given its name or its whole configuration."""
    config = planner if isinstance(planner, mpc.PlannerConfig) else DEFAULTS.get(planner, mpc.PlannerConfig(planner))
    if config.name in SAMPLING:
        return Recipe(config, SAMPLING_SHARE, SAMPLING_END)
    return Recipe(config, SHARE, END)


def mjx_policy(env: str, planner: str | mpc.PlannerConfig = "ilqr") -> tuple[mpc.Policy, Any]:
    """Plan for a robot through MJX.

        minimise over u   Σ_t period · cost(s[t], u[t]) + T · end(s[H]),     s[t+1] = MJX(s[t], u[t])

    with H and T of the planner's `recipe`.

    The states planned from are observations, cosines and sines of angles: an angle jumps at a half turn, and iterative LQR,
    whose feedback keeps to the states of the last plan, would jump along.

    Args:
        env: Gymnasium id of the robot, of `envs.ROBOT_IDS`.
        planner: Name or configuration: `"ilqr"` goes through MJX's derivatives, `"mppi"` needs none.

    Returns:
        The policy, whose parameters are None, and the robot.

    Raises:
        ImportError: If MuJoCo or MJX is missing.
        ValueError: If there is no such robot or planner.
    """
    ids = ours("envs").ROBOT_IDS
    if env not in ids:
        raise ValueError(f"{env} is no robot with equations in MuJoCo's format; these are: {', '.join(ids)}")
    robots = ours("envs").robots
    robot = robots.named(ids[env])
    model = robots.built(robot)
    physics, chosen = mjx_dynamics(model, robot.period, steps=1), recipe(planner)

    def dynamics(params: Any, seen: jax.Array, action: jax.Array) -> jax.Array:
        q, speed = jnp.split(physics(params, robot.state_of(seen), action), [model.nq])
        return robot.observe(q, speed, jnp)

    def cost(params: Any, seen: jax.Array, action: jax.Array, t: jax.Array) -> jax.Array:
        return robot.period * robot.cost(robot.state_of(seen), action)

    def end(params: Any, seen: jax.Array) -> jax.Array:
        return chosen.end * robot.end(robot.state_of(seen))

    low, high = jnp.asarray(model.actuator_ctrlrange, jnp.float32).T
    space = mpc.Box(low, high)
    problem = mpc.Problem(dynamics, cost, end, horizon=round(chosen.share * robot.horizon), action_space=space)
    return mpc.policy(mpc.make_planner(problem, chosen.config), iterations=1), robot
