"""Learning offline: from recordings with actions, with few, or with none."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.checkpointing import Saver
from mpc.agent.config import AgentConfig
from mpc.agent.interrupts import bar, interruptible
from mpc.agent.learner import CHUNK
from mpc.agent.memory import recordings
from mpc.agent.world_model import build
from world_models import data
from world_models.data import Dataset
from world_models.training import action_labels
from world_models.training.trainer import trainer

PyTree = Any
SAMPLES, SAMPLE_BYTES = 512, 2**24
"""Rows of the recordings that are kept to show imagined futures in, and the bytes that they may take."""
INFERRED = 2
"""Size of the actions that are inferred where recordings tell none."""


def learn_from(agent: Any, dataset: Dataset, updates: int | None, callback: Any, progress_bar: bool, saver: Saver) -> None:
    """Learn from recordings; see `Agent.learn_from`.

    Args:
        agent: Learns.
        dataset: Recordings.
        updates: Gradient steps; what is missing of the configured number if None.
        callback: Called every so often, or None.
        progress_bar: Whether to show one.
        saver: Saves the agent along the way, but for what is learnt without actions, which it has at the end only.
    """
    if updates is not None and updates < 0:
        raise ValueError(f"updates must be at least 0; got {updates}")
    learner, config = agent.learner, agent.config
    left = max(config.learning.offline_updates - learner.updates, 0) if updates is None else updates
    agent.locate(np.asarray(dataset.observations[0]).ravel())
    seen = recordings.for_model(dataset, agent)
    if left:
        learner.goal_actor = None  # it knows the latents of the encoder as it was
    with interruptible(saver.save) as check, bar(left, progress_bar) as advance:
        if _has_no_actions(seen):
            _watch(agent, seen, left, advance, check)
        else:
            _fit(agent, seen, left, callback, advance, check, saver)
            learner.finetune(seen, jax.random.fold_in(agent.seed_key(), learner.updates))
            _remember(agent, seen)
    agent.samples = recordings.sample_rows(seen, SAMPLES, SAMPLE_BYTES)


def _has_no_actions(dataset: Dataset) -> bool:
    return dataset.actions is None or not np.isfinite(dataset.actions).any()


def _fit(agent: Any, dataset: Dataset, left: int, callback: Any, advance: Any, check: Any, saver: Saver) -> None:
    from mpc.agent.agent import Progress

    learner = agent.learner
    _require_readable(agent.config, dataset)
    fit, end = learner.offline(dataset), learner.updates + left
    while learner.updates < end:
        count = min(CHUNK, end - learner.updates)
        metrics = fit(count)
        advance(count)
        agent.collapse_monitor(metrics, learner.updates)
        if callback is not None and callback(agent, Progress(learner.updates, [], metrics)) is False:
            break
        check()
        saver.save_if_due()


def _require_readable(config: AgentConfig, dataset: Dataset) -> None:
    assert dataset.actions is not None
    missing = ~np.isfinite(dataset.actions).all(axis=1)
    if missing.any() and not config.world_model.inverse_weight:
        raise ValueError(
            f"{missing.mean():.0%} of these recordings' actions are missing: set inverse_weight above 0, so that the model "
            "learns to read actions off its latents"
        )


def _remember(agent: Any, dataset: Dataset) -> None:
    """Put the recordings into the replay buffer too, for actor and critic, and for learning on online."""
    rewarding = agent.learner.actor_critic_state is not None
    if agent.env is None and not rewarding:
        return
    if dataset.actions is None or not np.isfinite(dataset.actions).all():
        return
    if int(np.asarray(agent.buffer.filled).sum()):
        return  # its own experience comes first
    agent.buffer = recordings.fill(agent.buffer, dataset, agent.render)
    if rewarding:
        given = {"cost": agent.params["cost"]}
        rounds = agent.config.actor.actor_critic_reset_rounds
        agent.learner.train_actor_critic(agent.buffer, rounds, params=given, timesteps=agent.num_timesteps, draw=agent.draw)


def _watch(agent: Any, dataset: Dataset, left: int, advance: Any, check: Any) -> None:
    """Train the encoder on recordings without actions: a twin model infers what was done from what came of it."""
    learner, made, config = agent.learner, agent.components, agent.config
    twin = build.watching_model(config, made.history.token, INFERRED)
    learning = config.learning
    shape = {"batch": learning.batch, "length": learning.window, "block": config.world_model.block}
    silent = replace(dataset, actions=np.zeros((len(dataset.observations), INFERRED), np.float32))
    source = data.resident(silent, learning.window * config.world_model.block, agent.render)
    key = jax.random.fold_in(agent.seed_key(), 17)
    model_trainer = trainer(twin, updates=min(CHUNK, max(left, 1)), render=agent.render, **shape)
    training = model_trainer.init(key)
    while int(training.updates) < left:
        training, _ = model_trainer.fit(training, source)
        advance(min(CHUNK, left))
        check()
    learner.training = action_labels.adopt(learner.training, training.params)
    learner.training = jax.tree.map(jnp.asarray, learner.training)
