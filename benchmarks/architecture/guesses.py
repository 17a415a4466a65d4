"""What an actor's proposal is worth to a planner: iterations saved."""

from typing import Any

import jax
import numpy as np

from mpc.agent.actor.distillation import ActorAdapter, react
from mpc.planners.base import Planner

PyTree = Any
COLD, MOST = 30, 60
"""Iterations of plans from noise, and the most that plans from a proposal are given to cost as little."""


def guessed(planner: Planner, actor_adapter: ActorAdapter, params: PyTree, seen: jax.Array, seed: int) -> dict[str, float]:
    """Iterations until a plan from the actor's proposal costs no more than one from noise after `COLD`.

    Args:
        planner: Plans.
        eyes: The actor's.
        params: Of both.
        seen: What is planned from, `[N, D]`.
        seed: Of plans.

    Returns:
        `iterations`, the median, those that never come to it counted as `MOST`; `never`, their share.
    """
    problem = planner.problem

    def curves(params: PyTree, seen: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, state = actor_adapter.begin(params, seen)
        own = react(problem, lambda p, s: actor_adapter.act(p, actor_adapter.see(p, s)), params, state)

        def costs(guess: jax.Array | None) -> jax.Array:
            def improve(memory: Any, _: None) -> tuple[Any, jax.Array]:
                memory = planner.step(params, state, memory)
                return memory, memory.cost

            return jax.lax.scan(improve, planner.init(params, state, key, guess), None, length=MOST)[1]

        return costs(None), costs(problem.action_space.decide(own))

    keys = jax.random.split(jax.random.key(seed), len(seen))
    cold, warm = jax.device_get(jax.jit(jax.vmap(curves, in_axes=(None, 0, 0)))(params, seen, keys))
    goal = cold[:, COLD - 1 : COLD]
    reached = warm <= goal + 1e-3 * np.abs(goal)
    needed = np.where(reached.any(axis=1), np.argmax(reached, axis=1) + 1, MOST)
    return {"iterations": float(np.median(needed)), "never": round(float(np.mean(~reached.any(axis=1))), 3)}
