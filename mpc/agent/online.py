"""Learning online: act, remember, train, step by step."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mpc.agent.checkpointing import Saver
from mpc.agent.cost import exploration
from mpc.agent.interrupts import bar, interruptible
from mpc.agent.memory import recordings
from mpc.agent.memory.collector import Experience, Writes
from world_models import data
from world_models.data import DatasetError

PyTree = Any


def learn(agent: Any, total: int, callback: Any, progress_bar: bool, saver: Saver) -> None:
    """Take environment steps and learn from them; see `Agent.learn`.

    Args:
        agent: Learns.
        total: Environment steps to take.
        callback: Called after every step, or None.
        progress_bar: Whether to show one.
        saver: Saves the agent along the way.
    """
    with interruptible(saver.save) as check, bar(total, progress_bar) as advance:
        before = agent.num_timesteps
        for progress in steps(agent, total):
            advance(progress.timesteps - before)
            before = progress.timesteps
            if callback is not None and callback(agent, progress) is False:
                break
            check()
            saver.save_if_due()


def steps(agent: Any, total: int) -> Iterator[Any]:
    """Yield the progress after every step of the environments.

    Args:
        agent: Acts and learns.
        total: Environment steps to take.
    """
    from mpc.agent.agent import Progress

    begun, learning = agent.num_timesteps, agent.config.learning
    life = Experience(agent.env, agent.components.history, seed=agent.seed + begun, timesteps=begun, agent=agent)
    remember(agent, life.begun)
    state, params = None, learning_params(agent) if agent.learner.trained else None
    while agent.num_timesteps < begun + total:
        if agent.num_timesteps < learning.random_steps and not agent.learner.trained:
            actions = agent.env.action_space.sample()
        else:
            if params is None:
                train(agent)
                params = learning_params(agent)
            everywhere = np.ones(len(life.observations), bool)
            starts = life.started if state is not None else np.zeros_like(life.started)
            state, actions = agent._decide(params, life.observations, state, starts, everywhere, deterministic=False)
        happened = life.step(actions, np.asarray(agent.program.recorded(actions)))
        remember(agent, happened.writes)
        earlier, agent.num_timesteps = agent.num_timesteps, life.timesteps
        metrics: dict[str, float] = {}
        due = agent.config.trainings(earlier) < agent.config.trainings(agent.num_timesteps)
        if due and (agent.num_timesteps >= learning.random_steps or agent.learner.trained):
            metrics, params = train(agent), learning_params(agent)
        yield Progress(agent.num_timesteps, happened.returns, metrics)


def remember(agent: Any, writes: Writes) -> None:
    """Append rows to the agent's replay buffer."""
    for rows, write in writes:
        agent.buffer = data.append(agent.buffer, rows, write)


def learning_params(agent: Any) -> PyTree:
    """Return the parameters to plan with while learning: with the exploration bonus instead of the disagreement's cost."""
    params, cost = agent.params, agent.config.cost
    if agent.setup.has_goal or "disagreement" not in params["cost"]["weights"]:
        return params
    only = cost.intrinsic_only_until_informative and agent.given.cost is None
    steps = {"steps": agent.num_timesteps, "most_steps": cost.intrinsic_only_steps}
    changed = exploration.weights(agent.buffer, cost.exploration_bonus, only, **steps)
    known = {name: np.float32(weight) for name, weight in changed.items() if name in params["cost"]["weights"]}
    return params | {"cost": params["cost"] | {"weights": params["cost"]["weights"] | known}}


def train(agent: Any) -> dict[str, float]:
    """Train on the replay buffer, and, for goals, fit the distance anew as experience grows.

    Returns:
        The metrics of the training.
    """
    learner, learning = agent.learner, agent.config.learning
    times = 1 if learner.trained else learning.first_trainings
    given = {"cost": agent.params["cost"]}
    metrics = learner.train(agent.buffer, times, params=given, timesteps=agent.num_timesteps, draw=agent.draw)
    grown = agent.num_timesteps >= agent.config.actor.actor_critic_reset_growth * max(agent.finetuned_timesteps, 1)
    if learning.finetune_updates and grown:
        try:
            dataset = recordings.from_buffer(agent.buffer, agent.env_id or "")
            learner.finetune(dataset, agent.draw(), rendered=False)
            agent.finetuned_timesteps = agent.num_timesteps
        except DatasetError:
            pass  # no trajectory is long enough yet
    return metrics
