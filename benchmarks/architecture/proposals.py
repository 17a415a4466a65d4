"""Value of an actor's proposal to a planner: the number of iterations it saves."""

from typing import Any

import jax
import numpy as np

from mpc.agent.actor.distillation import ActorAdapter, react
from mpc.planners.base import Planner

PyTree = Any
COLD, MOST = 30, 60
"""Iterations of plans from noise, and the maximal number of iterations of plans from a proposal."""


def proposal_iterations(
    planner: Planner, actor_adapter: ActorAdapter, params: PyTree, inputs: jax.Array, seed: int
) -> dict[str, float]:
    """Returns the iterations after which a plan from the actor's proposal costs no more than one from noise after `COLD`.

    Args:
        planner: Planner to measure.
        actor_adapter: Adapter of the actor.
        params: Parameters of planner and actor.
        inputs: Inputs of the actor at the start of each plan, `[N, D]`.
        seed: Seed of the plans.

    Returns:
        `iterations`: the median, with plans that never get there counted as `MOST`; `never`: the fraction of such plans.
    """
    problem = planner.problem

    def curves(params: PyTree, inputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, state = actor_adapter.begin(params, inputs)
        own = react(problem, lambda p, s: actor_adapter.act(p, actor_adapter.see(p, s)), params, state)

        def costs(guess: jax.Array | None) -> jax.Array:
            def improve(planner_state: Any, _: None) -> tuple[Any, jax.Array]:
                planner_state = planner.step(params, state, planner_state)
                return planner_state, planner_state.cost

            return jax.lax.scan(improve, planner.init(params, state, key, guess), None, length=MOST)[1]

        return costs(None), costs(problem.action_space.decide(own))

    keys = jax.random.split(jax.random.key(seed), len(inputs))
    cold, warm = jax.device_get(jax.jit(jax.vmap(curves, in_axes=(None, 0, 0)))(params, inputs, keys))
    goal = cold[:, COLD - 1 : COLD]
    reached = warm <= goal + 1e-3 * np.abs(goal)
    needed = np.where(reached.any(axis=1), np.argmax(reached, axis=1) + 1, MOST)
    return {"iterations": float(np.median(needed)), "never": round(float(np.mean(~reached.any(axis=1))), 3)}
