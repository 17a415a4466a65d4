"""Mode 2 distilled into Mode 1: what plans come to, the actor learns to do at once.

    minimise over w    mean over plans p and steps k < K of    |a_w(z_p[k]) - a_p[k]|²

where plan p begins at a remembered observation, `z_p[k]` are the latents it is imagined to pass through, and `a_p[k]` its
actions: every step of a good plan is a lesson, the early ones better ones, for less of the future is cut off behind them.

Source: the amortised inference of actions of LeCun (2022), A Path Towards Autonomous Machine Intelligence, section 3.1.3.
"""

from collections.abc import Callable
from typing import Any

import jax

import mpc
from mpc.agent import objective
from mpc.agent.actor import ActorCritic
from mpc.agent.objective import as_seen

PyTree = Any
Lessons = tuple[jax.Array, jax.Array]
STEPS = 10
"""Of every plan that are learnt from, K, at most."""


def teacher(policy: mpc.Policy, minds: ActorCritic, iterations: int) -> Callable[[PyTree, jax.Array, jax.Array], Lessons]:
    """Make what plans at observations, from what the actor would do and from noise.

    Args:
        policy: Whose planner plans.
        minds: Whose actor proposes.
        iterations: Improvements of each plan.

    Returns:
        `(params, rows [B, O], keys [B]) -> latents [B, K, D], actions as networks see them [B, K, A]`, compiled.
    """
    problem = policy.planner.problem
    space: Any = problem.action_space

    def plan(params: PyTree, observation: jax.Array, key: jax.Array) -> Lessons:
        state = policy.observe(params, observation)
        guess = space.decide(objective.react(problem, minds, params, state))
        made = mpc.solve(policy.planner, params, state, key, iterations, guess=guess)
        return made.states.latent[:-1][:STEPS], jax.vmap(lambda a: as_seen(space, space.embed(a)))(made.actions[:STEPS])

    return jax.jit(jax.vmap(plan, in_axes=(None, 0, 0)))
