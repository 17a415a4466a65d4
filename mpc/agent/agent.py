"""The agent: perception, world model, cost, actor, memory and configurator, together.

    learn(steps)          from its own experience
    learn_from(dataset)   from recordings, with actions, with few, or with none
    configure(task)       what to do from now on: collect reward, or reach a goal, within limits
    predict(observation)  Mode 2 plans, Mode 1 reacts
    distil()              teaches Mode 1 what Mode 2 comes to
    export, save, load

Source: LeCun (2022), A path towards autonomous machine intelligence.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

import mpc
from mpc.agent import checkpointing, offline, online
from mpc.agent.actor import teaching
from mpc.agent.components import Given, components
from mpc.agent.config import AgentConfig, plain
from mpc.agent.configurator.task import Task
from mpc.agent.cost.terms import ObservationTerm, check_observation_terms
from mpc.agent.decisions import DecidingAgent
from mpc.agent.learner import Learner
from mpc.agent.memory.unusual import UnusualMonitor
from mpc.agent.perception import gym_spaces
from mpc.agent.world_model import build
from mpc.deploy.host import on_host
from world_models import WorldModel, data
from world_models.data import Dataset
from world_models.distances.temporal import Distance
from world_models.training.diagnostics import CollapseMonitor

PyTree = Any
Render = Callable[[jax.Array], jax.Array]


class Progress(NamedTuple):
    """Progress of learning, as callbacks are given it."""

    timesteps: int
    """Environment steps, or offline, gradient steps, so far."""
    episode_returns: list[float]
    """Returns of the episodes that ended in this step."""
    metrics: dict[str, float]
    """Of the training that followed; empty when there was none."""


class Agent(DecidingAgent):
    """Learns a latent world model and plans in it, in the conventions of stable-baselines3.

    Args:
        env: A Gymnasium environment, its id, or a vector environment; None for an agent that does not act in one.
        task: What to do; to collect reward if None. `configure` changes it at any time.
        config: Every setting, or those that differ from the defaults for such a task and such observations.
        seed: Of everything random, the environment's first reset included; drawn if None, and `agent.seed` in any case.
        cost: A known differentiable cost `(params, observation, action, t) -> scalar` that takes the place of the reward.
        limits: Functions like `cost` by name, which tasks may bound from above.
        model: A world model to use instead of a learnt one, such as `world_models.analytic`.
        distance: A distance between latents to use instead of the configured one.
        render: `rows [..., S] -> observations`, for recordings that store states instead of observations.
        observation_space: Of one observation, where there is no `env`.
        action_space: Of one action, where there is no `env`.

    Raises:
        ValueError: If a space is not supported, with how to wrap the environment; or a setting, cost or task does not fit.

    Example:
        >>> agent = mpc.Agent("Pendulum-v1", seed=0)  # doctest: +SKIP
        >>> agent.learn(300)  # doctest: +SKIP
        >>> action, state = agent.predict(observation)  # doctest: +SKIP
    """

    def __init__(
        self,
        env: str | gymnasium.Env | gymnasium.vector.VectorEnv | None,
        *,
        task: Task | None = None,
        config: AgentConfig | Mapping[str, Any] | None = None,
        seed: int | None = 0,
        cost: ObservationTerm | None = None,
        limits: Mapping[str, ObservationTerm] | None = None,
        model: WorldModel | None = None,
        distance: Distance | None = None,
        render: Render | None = None,
        observation_space: gymnasium.Space | None = None,
        action_space: gymnasium.Space | None = None,
    ) -> None:
        super().__init__()
        goals = distance is not None or (task is not None and task.goal is not None)
        repeat = AgentConfig.of(config, goals=goals).perception.action_repeat
        self.env = None if env is None else gym_spaces.vectorise(env, repeat)
        if self.env is not None:
            observation_space, action_space = self.env.single_observation_space, self.env.single_action_space
        if observation_space is None or action_space is None:
            raise ValueError("an agent needs an env, or else an observation_space and an action_space")
        self.observation_space, self.action_space, self.seed = observation_space, action_space, _seed(seed)
        self.image, self.render = gym_spaces.is_image(observation_space), render
        self.config = _fitting(config, goals, self.image, bool(cost or limits) and model is None)
        if self.image and self.config.perception.history > 1:
            raise ValueError(
                f"images are seen one by one, so history must be 1; got history={self.config.perception.history}: wrap the "
                "environment in gymnasium.wrappers.FrameStackObservation"
            )
        self.given = Given(cost, tuple((limits or {}).items()), model, distance)
        shape, dtype = gym_spaces.observation_shape(observation_space), gym_spaces.observation_dtype(observation_space)
        self.components = components(shape, dtype, action_space, self.config, self.given)
        key, self.key = jax.random.split(jax.random.key(self.seed))
        self.learner = Learner(self.components, self.config, key, render)
        self.learner.origin = None if model is not None or render is not None else gym_spaces.origin(observation_space)
        self.buffer = self.empty_buffer(1 if self.env is None else self.env.num_envs)
        self.num_timesteps = self.finetuned_timesteps = 0
        self.unusual = UnusualMonitor(self.env)
        self.env_id: str | None = None if self.env is None else gym_spaces.identify(self.env)
        self.samples = None
        decorrelated = self.config.world_model.objective in build.DECORRELATED
        self.collapse_monitor = CollapseMonitor(share=0.4 if decorrelated else 0.1)
        if self.components.parts.decodes:
            example = jax.ShapeDtypeStruct(shape, np.float32)
            check_observation_terms(self.components.parts, self.learner.params, example)
        self.configure(Task() if task is None else task)

    def empty_buffer(self, environments: int) -> data.TrajectoryBuffer:
        """Return an empty replay buffer for so many environments."""
        made = self.components
        rows = self.config.buffer_rows(math.prod(made.history.shape) * made.observation_dtype.itemsize, environments)
        size = (made.spaces.single.size,)
        return data.create(rows, environments, made.history.shape, size, observation_dtype=made.observation_dtype)

    # Learning

    @on_host
    def learn(
        self,
        total_timesteps: int,
        callback: Callable[["Agent", Progress], bool | None] | None = None,
        progress_bar: bool = True,
        checkpoint_path: str | os.PathLike[str] | None = None,
        checkpoint_minutes: float | None = 10.0,
        checkpoint_updates: int | None = None,
    ) -> "Agent":
        """Act, remember and learn for a number of environment steps, random ones included.

        Args:
            total_timesteps: Steps to take in this call, over all environments; a few more where the last ones come together.
            callback: Called with the agent and a `Progress` after every step; returning False ends learning.
            progress_bar: Whether to show one.
            checkpoint_path: Where to save when done, every so often, and when interrupted by Ctrl-C or SIGTERM (raised again
                afterwards, or the process ends). One process at a time learns into a folder.
            checkpoint_minutes: Between two checkpoints at most; None for any.
            checkpoint_updates: Gradient steps of the world model between two checkpoints at most; None for any.

        Warns:
            NothingLearnt: If these were not yet the `random_steps` after which training begins.
            UnusualExperience: Once, of rewards, observations or episodes that can hardly be learnt from, with the quantity.

        Raises:
            ValueError: If the agent has no environment, or total_timesteps is negative.
            EnvironmentFailure: If the environment raises, or returns nothing finite for many steps.
            OSError: If the checkpoint cannot be written; the agent still holds what it learnt.
        """
        if self.env is None:
            raise ValueError("this agent has no environment to learn in: give one to Agent or to Agent.load")
        if total_timesteps < 0:
            raise ValueError(f"total_timesteps must be at least 0; got {total_timesteps}")
        with checkpointing.saving(self, checkpoint_path, checkpoint_minutes, checkpoint_updates) as saver:
            online.learn(self, total_timesteps, callback, progress_bar, saver)
        self.warn_if_nothing_is_learnt(f"after {self.num_timesteps} random steps")
        return self

    @on_host
    def learn_from(
        self,
        dataset: Dataset,
        *,
        updates: int | None = None,
        callback: Callable[["Agent", Progress], bool | None] | None = None,
        progress_bar: bool = True,
        checkpoint_path: str | os.PathLike[str] | None = None,
        checkpoint_minutes: float | None = 10.0,
        checkpoint_updates: int | None = None,
    ) -> "Agent":
        """Learn from recordings: the world model first, then what needs its latents.

        Args:
            dataset: Recorded in the agent's environment, of observations, or of states where the agent has a `render`.
                Actions may be missing for some or all of its steps (NaN, or None for all).
            updates: Gradient steps to take in this call; what is missing of the configured number if None.
            callback: Called with the agent and a `Progress` every so often; returning False ends the world model's training.
            progress_bar: Whether to show one.
            checkpoint_path: Where to save when done, every so often, and when interrupted by Ctrl-C or SIGTERM (raised again
                afterwards, or the process ends). One process at a time learns into a folder.
            checkpoint_minutes: Between two checkpoints at most; None for any.
            checkpoint_updates: Gradient steps of the world model between two checkpoints at most; None for any.

        Raises:
            DatasetError: If the dataset was recorded in another environment, its observations or actions have another shape,
                or its episodes are too short.
            ValueError: If updates is negative, or recordings without actions don't fit the settings.
        """
        with checkpointing.saving(self, checkpoint_path, checkpoint_minutes, checkpoint_updates) as saver:
            offline.learn_from(self, dataset, updates, callback, progress_bar, saver)
        return self

    @on_host
    def distil(self, dataset: Dataset | None = None, *, rounds: int = 4, plans: int = 128) -> dict[str, float]:
        """Teach the actor what planning comes to: Mode 2 distilled into Mode 1.

        An actor for rewards imitates the plans made while learning, and then plans made in imagination where it would go. An
        actor for goals imitates what recordings show to lead to goals, in hindsight.

        Args:
            dataset: Recordings, for an actor for goals; the replay buffer's experience if None.
            rounds: Rounds of imitation.
            plans: Plans made in every round, for an actor for rewards.

        Returns:
            `imitation`: the actor's mean squared error in the end; for rewards `gain`: how much less the last plans cost
            than the actor's own futures.

        Raises:
            ValueError: If there is nothing to imitate yet.
        """
        return teaching.distil(self, dataset, rounds, plans)

    def export(self, path: str | os.PathLike[str] | None = None, **settings: Any) -> bytes:
        """Write the policy for the present task as one file that runs without the rest of craik (`mpc.export`).

        Images go in as numbers from 0 to 1. The manifest tells the environment, the action repeat and what was learnt from.

        Args:
            path: The file; None writes none.
            **settings: Of `mpc.export`.

        Returns:
            The artefact's bytes.
        """
        example = np.zeros(self.components.history.observation, np.float32)
        about = {"env": self.env_id, "repeat": self.config.perception.action_repeat, "seed": self.seed}
        about |= {"timesteps": self.num_timesteps, "updates": self.learner.updates}
        self.warn_of_rounding()
        known = {"observed": gym_spaces.bounds(self.observation_space), "about": about}
        described = {name: part | dict(settings.pop(name, None) or {}) for name, part in known.items()}
        path = None if path is None else Path(path).expanduser()
        return mpc.export(self.policy, self.params, example, path, **described, **settings)

    # Keeping

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a checkpoint from which `load` predicts, and learns on, as this agent would.

        Args:
            path: The folder of checkpoints.
        """
        return checkpointing.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: str | gymnasium.Env | gymnasium.vector.VectorEnv | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> "Agent":
        """Read a checkpoint written by `save`.

        Args:
            path: The folder of checkpoints, or one of them.
            env: To learn on in; None for an agent that only predicts.
            config: Settings to change that do not shape what was learnt, such as the planner's.
            **given: The `cost`, `limits`, `model`, `distance` and `render` that the agent was made with; a `task` that takes
                the place of the last one.

        Raises:
            CheckpointError: If the checkpoint is foreign, damaged, of another format, or of another environment.
        """
        return checkpointing.load(cls, path, env, changes=config or {}, given=given)


def _seed(seed: Any) -> int:
    """A seed as a plain number, drawn if None."""
    seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1) if seed is None else plain(seed)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"seed must be None or a whole number from 0 to {2**31 - 1}; got {seed!r}")
    return seed


def _fitting(config: AgentConfig | Mapping[str, Any] | None, goals: bool, image: bool, decodes: bool) -> AgentConfig:
    """The configuration for a kind of task and observations, with a decoder where observations are to be decoded."""
    chosen = AgentConfig.of(config, goals=goals, image=image)
    return chosen.changed({"decoder": True}) if decodes and not image else chosen
