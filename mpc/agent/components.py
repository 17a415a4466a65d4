"""What agents of one kind share: functions that are compiled when they are first called, and none of what is learnt.

Agents are of one kind where their spaces, settings, cost and model are the same, as one that is loaded is of the kind of the
one that was saved. The second of them in a process need not be compiled anew.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium
import jax

import mpc
from mpc.agent.actor.actor_critic import ActorCritic
from mpc.agent.actor.reward_policy import Decider, policy
from mpc.agent.config import Settings
from mpc.agent.cost import reward
from mpc.agent.cost.reward import Cost
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.history import Memory
from mpc.spaces import Space
from world_models import Trainer, jepa, trainer
from world_models.base import WorldModel
from world_models.training.diagnostics import effective_rank

KINDS = 2
"""That are kept, the last used ones: a kind holds on to its compiled programs, some 2,600 mappings of memory, and a process
may have 65,530 on Linux."""


class Components(NamedTuple):
    """Of one kind of agent."""

    space: Space
    model: WorldModel
    actor_critic: ActorCritic
    trainer: Trainer
    policy: mpc.Policy
    decider: Decider
    rank: Callable[[Any, jax.Array], jax.Array]
    """`(params, rows [N, ...]) -> how many dimensions their latents use`."""


def components(
    memory: Memory, action_space: gymnasium.Space, settings: Settings, cost: Cost | None, model: WorldModel | None
) -> Components:
    """What an agent works with, made now or taken from an earlier one of its kind.

    Args:
        memory: What a model is shown.
        action_space: As the environment has it.
        settings: How to learn and plan.
        cost: Known stage cost, or None for the learnt reward.
        model: A known model, or None for a JEPA to be learnt.

    Raises:
        ValueError: If there is no such planner.
    """
    return _made(memory, json.dumps(gym_spaces.describe(action_space)), settings, cost, model)


@lru_cache(maxsize=KINDS)
def _made(memory: Memory, action: str, settings: Settings, cost: Cost | None, model: WorldModel | None) -> Components:
    s, space = settings, gym_spaces.planner_space(gym_spaces.rebuild(json.loads(action)))
    if model is None:
        sizes = {"hidden": s.hidden, "members": s.members, "discount": s.discount}
        model = jepa(memory.token, space.size, steps=s.memory, **sizes)
    actor_critic = reward.actor_and_critic(model, memory.shape, space, s, cost)
    training = trainer(model, batch=s.batch, length=s.window, updates=s.spent(s.updates))
    acts = policy(model, space, s, actor_critic, cost)

    def rank(params: Any, seen: jax.Array) -> jax.Array:
        return effective_rank(jax.vmap(lambda o: model.encode(params, o).latent)(seen))

    return Components(space, model, actor_critic, training, acts, Decider(acts, s.noise), jax.jit(rank))
