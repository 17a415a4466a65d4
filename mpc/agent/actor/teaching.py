"""Distillation: teaches an agent's actor (Mode 1) what its planner (Mode 2) comes to."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.actor import distillation
from mpc.agent.actor.distillation import ActorAdapter
from mpc.agent.actor.goal_actor import hindsight
from mpc.agent.memory import recordings, trajectory_latents
from mpc.agent.world_model import residual_correction
from world_models.data import Dataset

PyTree = Any
ENCODE_BATCH = 1024
"""Observations that are encoded at once."""
RECORDINGS = 400
"""Trajectories, at most, that an actor for goals is taught from."""


def distil(agent: Any, dataset: Dataset | None, rounds: int, plans: int) -> dict[str, float]:
    """Teach an agent's actor; see `Agent.distil`."""
    if agent.components.actor_critic is not None:
        return _for_rewards(agent, rounds, plans)
    if agent.components.goal_actor is None:
        raise ValueError(
            "this agent has no actor to teach: actors are for rewards (actor_critic_updates above 0), or for goals of "
            "agents with a distance and continuous actions"
        )
    return _for_goals(agent, dataset, max(rounds // 4, 1))


def _for_rewards(agent: Any, rounds: int, plans: int) -> dict[str, float]:
    made, learner, buffer = agent.components, agent.learner, agent.buffer
    environments, capacity = buffer.follows.shape
    acted = np.roll(np.asarray(buffer.follows), -1, axis=1)  # an action belongs to a row that the next one follows
    late = np.arange(capacity) >= agent.config.learning.random_steps // environments
    planned = acted & (late | (np.asarray(buffer.filled) == capacity)[:, None])
    if not planned.any():
        raise ValueError("there is nothing to distil: no action has been planned yet while learning")
    model, weights = made.model, learner.training.params
    encode = jax.jit(partial(jax.lax.map, lambda o: model.encode(weights, o).latent, batch_size=ENCODE_BATCH))
    experienced = encode(buffer.observations[acted])
    latents, actions = encode(buffer.observations[planned]), buffer.actions[planned]
    learner.actor_critic_state, metrics = made.actor_critic.imitate(learner.actor_critic_state, latents, actions)
    iterations = 5 * agent.config.actor.iterations
    ask = distillation.expert(agent.program.planner, reward_adapter(agent), iterations=iterations)
    for key in jax.random.split(agent.draw(), rounds):
        more = ask(agent.params, experienced, key, plans)
        latents, actions = jnp.concatenate([latents, more.seen]), jnp.concatenate([actions, more.shown])
        learner.actor_critic_state, metrics = made.actor_critic.imitate(learner.actor_critic_state, latents, actions)
        metrics |= {"gain": more.gain}
    return {name: float(value) for name, value in metrics.items()}


def reward_adapter(agent: Any) -> ActorAdapter:
    """Return how a latent, which is what an actor for rewards sees, is a state to plan from."""
    made = agent.components
    act, blank = made.actor_critic.act, _blank(made)
    return ActorAdapter(
        lambda params, latent: (params, blank(params)._replace(latent=latent)),
        lambda params, state: state.latent,
        lambda params, latent: act(params["actor"], latent),
    )


def goal_adapter(agent: Any) -> ActorAdapter:
    """Return how what an actor for goals sees is a state to plan from, with no prediction errors yet."""
    made, memory = agent.components, agent.config.memory.correction_memory
    size, blank = made.latent, _blank(made)

    def begin(params: PyTree, seen: jax.Array) -> tuple[PyTree, PyTree]:
        given = params | {"cost": params["cost"] | {"goal": seen[size : 2 * size]}}
        if memory:
            given |= {"corrections": residual_correction.nothing(memory, size, made.spaces.block.size)}
        return given, blank(params)._replace(latent=seen[:size])

    return ActorAdapter(begin, made.goal_features, lambda params, seen: made.goal_actor.act(params["actor"], seen))


def _blank(made: Any) -> Any:
    example = jnp.zeros(made.history.shape, made.observation_dtype)
    return lambda params: made.model.encode(params["model"], example)


def _for_goals(agent: Any, dataset: Dataset | None, passes: int) -> dict[str, float]:
    made, learner, config = agent.components, agent.learner, agent.config
    block = config.world_model.block
    if dataset is None:
        seen, encode = recordings.from_buffer(agent.buffer, agent.env_id or ""), learner.encode_observations
    else:
        seen = recordings.for_model(dataset, agent)
        encode = learner.encode_rows
    recorded = trajectory_latents.embed(seen, block, RECORDINGS, encode)
    taken = trajectory_latents.blocks(seen, recorded, block)
    measure = partial(made.distance.measure, learner.distance)
    pairs, rows = hindsight(measure, recorded, taken, agent.seed, config.actor.horizon)
    # recordings hold actions as the model sees them; within narrower limits, variables differ
    variables = jax.vmap(lambda block: made.spaces.block.encode(made.spaces.whole.relax(block)))(jnp.asarray(taken[rows]))
    shown = jnp.clip(variables, -1.0, 1.0)
    adapter = goal_adapter(agent)

    @jax.jit
    def features(params: PyTree, pairs: jax.Array) -> jax.Array:
        return jax.lax.map(lambda pair: adapter.see(*adapter.begin(params, pair)), pairs, batch_size=500)

    inputs = features(agent.params, jnp.asarray(pairs))
    begin, *keys = jax.random.split(jax.random.fold_in(agent.seed_key(), learner.updates), passes + 1)
    weights, metrics = made.goal_actor.init(begin), {}
    for key in keys:
        weights, metrics = made.goal_actor.imitate(weights, key, inputs, shown)
    learner.goal_actor = weights
    return {name: float(value) for name, value in metrics.items()}
