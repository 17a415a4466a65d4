"""The agent: learns a world model from its own experience and plans in it by gradient."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent import checkpointing
from mpc.agent.actor import distillation
from mpc.agent.actor.time_budget import Budget, Mode
from mpc.agent.components import components
from mpc.agent.config import Settings
from mpc.agent.cost import exploration
from mpc.agent.cost.reward import Cost
from mpc.agent.interrupts import bar, interruptible
from mpc.agent.learner import Learner
from mpc.agent.memory import safeguards
from mpc.agent.memory.collector import Experience
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.history import Memory, PredictState
from mpc.agent.viz import images
from mpc.agent.viz.probe import Probe, probe
from mpc.planners.multistart import side_by_side
from world_models import data
from world_models.base import Imagined, WorldModel, initial_state

PyTree = Any
ENCODE_BATCH = 1024  # observations that are embedded at once
PROBED = 512  # images that are read back as well as a probe can


class Progress(NamedTuple):
    """What a callback is told after every step of the environments."""

    timesteps: int
    episode_returns: list[float]
    """Returns of the episodes that ended in this step."""
    metrics: dict[str, float]
    """Of the training that followed this step; empty when there was none."""


class Agent:
    """Learns a latent world model of an environment and plans in it, in the conventions of stable-baselines3.

    Args:
        env: A Gymnasium environment, its id, or a vector environment; None for an agent that only predicts.
        settings: How to explore, learn and plan; or what is to be otherwise than in the defaults for such observations.
        seed: Of everything random, the environment's first reset included.
        cost: A known differentiable stage cost `(params, imagined, action, t) -> scalar` to plan for instead of the learnt
            reward; doubt is added to it.
        model: A world model to use instead of the default JEPA, for example `world_models.analytic` physics.
        observation_space: Of one observation, where there is no `env`.
        action_space: Of one action, where there is no `env`.

    Raises:
        ValueError: If a space is not supported, with what to wrap the environment in; or a setting is not.

    Example:
        >>> agent = mpc.Agent("Pendulum-v1", seed=0)  # doctest: +SKIP
        >>> agent.learn(300)  # doctest: +SKIP
        >>> action, state = agent.predict(observation)  # doctest: +SKIP
    """

    def __init__(
        self,
        env: str | gymnasium.Env | gymnasium.vector.VectorEnv | None,
        *,
        settings: Settings | Mapping[str, Any] | None = None,
        seed: int = 0,
        cost: Cost | None = None,
        model: WorldModel | None = None,
        observation_space: gymnasium.Space | None = None,
        action_space: gymnasium.Space | None = None,
    ):
        given = settings.asdict() if isinstance(settings, Settings) else dict(settings or {})
        self.env = None if env is None else gym_spaces.vectorise(env, given.get("repeat", 1))
        if self.env is not None:
            observation_space, action_space = self.env.single_observation_space, self.env.single_action_space
        if observation_space is None or action_space is None:
            raise ValueError("an agent needs an env, or else an observation_space and an action_space")
        self.observation_space, self.action_space, self.seed, self.cost = observation_space, action_space, seed, cost
        self.image = gym_spaces.is_image(observation_space)
        self.settings = settings = Settings.fitting(self.image, **given)
        if self.image and settings.memory > 1:
            raise ValueError(
                f"images are remembered one by one, so memory must be 1; got memory={settings.memory}: wrap the environment "
                "in gymnasium.wrappers.FrameStackObservation"
            )
        seen = gym_spaces.observation_shape(observation_space)
        self.memory = Memory(settings.memory, seen, gym_spaces.planner_space(action_space).size)
        made = components(self.memory, action_space, settings, cost, model)
        self.space, self.model, self.policy = made.space, made.model, made.policy
        self._decider, self._rank, self._budget = made.decider, made.rank, Budget()
        self.buffer = self.room(1 if self.env is None else self.env.num_envs)
        training_key, practice_key, self.key = jax.random.split(jax.random.key(seed), 3)
        self.learner = Learner(made.trainer, made.actor_critic, settings, training_key, practice_key)
        self.num_timesteps = 0
        self.env_id: str | None = None if self.env is None else gym_spaces.identify(self.env)

    def room(self, environments: int) -> data.TrajectoryBuffer:
        """An empty memory for so many environments."""
        shape, kind = self.memory.shape, np.dtype(np.uint8 if self.image else np.float32)
        rows = self.settings.remembered(math.prod(shape) * kind.itemsize, environments)
        return data.create(rows, environments, shape, (self.space.size,), observation_dtype=kind)

    @property
    def params(self) -> PyTree:
        """Everything planning depends on: the model's weights, and the cost's."""
        return self.learner.learnt | {
            "cost": {"disagreement": np.float32(self.settings.disagreement), "reward": np.float32(1.0)}
        }

    def _draw(self) -> jax.Array:
        self.key, drawn = jax.random.split(self.key)
        return drawn

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        mode: Mode = "plan",
    ) -> tuple[np.ndarray, Any]:
        """Decide on actions for one observation or a batch of them.

        Args:
            observation: One observation, or a batch with a leading axis. One that is not finite gets the next action of the
                last plan that could be trusted.
            state: What the last call returned beside the actions: the plans to begin with, what was seen before, and actions
                that are still held. None plans from scratch.
            episode_start: `[B]`, where to plan from scratch because an episode begins.
            deterministic: Without exploration noise.
            mode: `"plan"`; `"react"`, the actor by itself, which takes a small part of the time; or milliseconds that a
                decision may take: plans as long as they have been taking no longer than that lately, and else reacts.

        Returns:
            Actions of the action space, and the state to give to the next call.

        Raises:
            ValueError: If the observation has the wrong shape, or there is no such mode.
        """
        batched = gym_spaces.is_batched(self.observation_space, observation)
        rows = gym_spaces.rows(self.observation_space, observation, batched)
        starts = None if episode_start is None else np.asarray(episode_start, bool).reshape(-1)
        going: PredictState | None = state
        left = np.zeros(len(rows), int) if going is None else going.left
        due = (left == 0) | (starts if starts is not None else False)
        if going is None or due.any():
            going = self._decided(rows, going, starts, due, deterministic, mode)
        going = going._replace(left=np.where(due, self.settings.repeat, left) - 1)
        return (going.held if batched else going.held[0]), going

    def _decided(
        self,
        rows: np.ndarray,
        before: PredictState | None,
        starts: np.ndarray | None,
        due: np.ndarray,
        deterministic: bool,
        mode: Mode,
    ) -> PredictState:
        seen = self._remembered(rows, before, starts)
        shown = self.memory.shown(seen)
        loop, behind = (None, np.zeros_like(due, int)) if before is None else (before.loop, before.behind)
        if self._budget.plans(mode, len(rows)):
            begun = time.perf_counter()
            how = {"behind": behind, "widely": mode == "plan"}
            held, loop = self._decide(self.params, shown, loop, starts, deterministic, **how)
            self._budget.spent(len(rows), 1e3 * (time.perf_counter() - begun))
            behind = np.where(due, 0, behind)
            if before is not None and before.loop is not None and not due.all():
                loop = self._decider.choose(due, loop, before.loop)
        else:
            held = self._settled(self._decider.react(self.learner.learnt, shown), deterministic)
            behind = behind + due if starts is None else np.where(starts, self.settings.horizon, behind + due)
        if before is not None and not due.all():
            seen, held = (
                np.where(due.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
                for new, old in ((seen, before.seen), (held, before.held))
            )
        return PredictState(loop, seen, held, np.zeros_like(due, int), behind)

    def _remembered(self, rows: np.ndarray, before: PredictState | None, starts: np.ndarray | None) -> np.ndarray:
        if before is None:
            return self.memory.begun(rows)
        done = self._decider.shown(before.held) if self.memory.steps > 1 else None
        return self.memory.recall(before.seen, rows, done, starts)

    def _decide(
        self, params: PyTree, rows: np.ndarray, loop: Any, starts: np.ndarray | None, deterministic: bool, **how: Any
    ) -> tuple[np.ndarray, Any]:
        actions, loop = self._decider.decide(params, rows, loop, starts, self.seed, **how)
        return self._settled(actions, deterministic), loop

    def _settled(self, actions: jax.Array, deterministic: bool) -> np.ndarray:
        """Actions as the environment takes them."""
        if not deterministic:
            actions = self._decider.perturbed(actions, self._draw())
        return np.asarray(actions).astype(self.action_space.dtype)  # type: ignore[arg-type]

    def futures(self, observation: Any, state: Any) -> Imagined:
        """What every start of the plan under way would lead to from one observation, `[S, H+1, ...]`.

        Args:
            observation: One observation, or a batch of one.
            state: As `predict` returned it for the step before.

        Raises:
            ValueError: If nothing has been planned yet, only reacted.
        """
        if state.loop is None:
            raise ValueError("there are no plans whose futures could be seen: until now, the agent has only reacted")
        batched = gym_spaces.is_batched(self.observation_space, observation)
        rows = gym_spaces.rows(self.observation_space, observation, batched)
        one = state._replace(seen=state.seen[:1], held=state.held[:1])
        row = self.memory.shown(self._remembered(rows[:1], one, None))[0]
        first = jax.tree.map(lambda x: x[0], state.loop.planner)
        return self._decider.imagined(self.params, row, self.space.relax(side_by_side(first).variables))

    def imagine(self, observation: np.ndarray, actions: np.ndarray) -> Imagined:
        """What a sequence of actions of the environment would lead to from one observation, `[H+1, ...]`.

        Args:
            observation: `[O]`, flat, or an image `[H, W, C]`, as if nothing had moved before; or what is remembered,
                `[K, ...]`, of the `seen` of a state of `predict`.
            actions: `[H, ...]` as the environment takes them.
        """
        given = np.asarray(observation, np.uint8 if self.image else np.float32)[None]
        alone = given.ndim == 1 + len(self.memory.observation)
        row = self.memory.shown(self.memory.begun(given) if alone else given)[0]
        every = self._decider.imagined(self.params, jnp.asarray(row), self.space.embed(jnp.asarray(actions))[None])
        return jax.tree.map(lambda x: x[0], every)

    def probe(self) -> Probe:
        """Fit what reads latents back as observations, images as they are drawn, to what is remembered."""
        filled = max(int(self.buffer.filled[0]), 1)
        picked = np.unique(np.linspace(0, filled - 1, PROBED).astype(int)) if self.image else np.arange(filled)
        seen = self.buffer.observations[0, picked]
        latents = jax.vmap(lambda o: self.model.encode(self.learner.training.params, o).latent)(seen)
        if self.image:
            newest = images.drawn(np.asarray(seen), self.observation_space).reshape(len(seen), -1)
        else:
            newest = np.asarray(seen)[:, : self.memory.observation[0]]
        return probe(np.asarray(latents), newest)

    def effective_rank(self, newest: int = 512) -> float:
        """How many dimensions the latents of the newest observations really use; 1 is a collapse."""
        filled = max(int(self.buffer.filled[0]), 1)
        rows = (int(self.buffer.head[0]) - 1 - np.arange(newest) % filled) % self.buffer.follows.shape[1]
        return float(self._rank(self.learner.training.params, self.buffer.observations[0, rows]))

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[["Agent", Progress], bool | None] | None = None,
        progress_bar: bool = True,
        checkpoint_path: str | os.PathLike | None = None,
    ) -> "Agent":
        """Act, remember and learn for a number of environment steps, random ones included.

        Args:
            total_timesteps: Steps to take in this call, over all environments; a few more where the last ones come together.
            callback: Called with the agent and a `Progress` after every step; returning False ends learning.
            progress_bar: Whether to show one.
            checkpoint_path: Where to save when done, or when interrupted by Ctrl-C or SIGTERM (raised again afterwards).

        Returns:
            The agent.

        Raises:
            ValueError: If the agent has no environment, or total_timesteps is negative.
            EnvironmentFailure: If the environment raises, or returns nothing finite for many steps.
            OSError: If the checkpoint cannot be written; the agent still holds what it learnt.
        """
        if self.env is None:
            raise ValueError("this agent has no environment to learn from: give one to Agent or to Agent.load")
        if total_timesteps < 0:
            raise ValueError(f"total_timesteps must be at least 0; got {total_timesteps}")
        with interruptible() as check, bar(total_timesteps, progress_bar) as advance:
            try:
                before = self.num_timesteps
                for progress in self._steps(total_timesteps):
                    advance(progress.timesteps - before)
                    before = progress.timesteps
                    if callback is not None and callback(self, progress) is False:
                        break
                    check()
            finally:
                if checkpoint_path is not None:
                    with safeguards.explain_save_error(checkpoint_path):
                        self.save(checkpoint_path)
        return self

    def _steps(self, total: int) -> Iterator[Progress]:
        assert self.env is not None
        s, begun = self.settings, self.num_timesteps
        life = Experience(self.env, self.memory, seed=self.seed + begun, timesteps=begun)
        self._remember(life.begun)
        loop, params = None, self._learning_params() if self.learner.trained else None
        while self.num_timesteps < begun + total:
            if self.num_timesteps < s.random_steps:
                actions = self.env.action_space.sample()
            else:
                if params is None:
                    self._train()
                    params = self._learning_params()
                actions, loop = self._decide(params, life.rows, loop, life.started, deterministic=False)
            happened = life.step(actions, self._decider.shown(actions))
            self._remember(happened.writes)
            earlier, self.num_timesteps = self.num_timesteps, life.timesteps
            metrics = {}
            if s.trainings(earlier) < s.trainings(self.num_timesteps) and self.num_timesteps >= s.random_steps:
                metrics, params = self._train(), self._learning_params()
            yield Progress(self.num_timesteps, happened.returns, metrics)

    def _learning_params(self) -> PyTree:
        """What to plan with while learning, see `curiosity`."""
        s = self.settings
        return self.params | {
            "cost": exploration.exploring(
                self.buffer, s.exploration_bonus, s.intrinsic_only_until_informative and self.cost is None
            )
        }

    def _remember(self, writes: list[tuple[data.Rows, np.ndarray]]) -> None:
        for rows, write in writes:
            self.buffer = data.append(self.buffer, rows, write)

    def _train(self) -> dict[str, float]:
        times, params = 1 if self.learner.trained else self.settings.first_trainings, self.params
        return self.learner.train(self.buffer, times, cost=params["cost"], timesteps=self.num_timesteps, draw=self._draw)

    def distil(self, rounds: int = 4, plans: int = 128) -> dict[str, float]:
        """Teach the actor what planning comes to: Mode 2 distilled into Mode 1, see `mpc.agent.actor.distillation`.

        It begins with what was planned while learning, as far as it is remembered. Then it is planned in imagination, where
        the actor would go.

        Args:
            rounds: How often that is done; 0 for what is remembered alone.
            plans: Made in every round.

        Returns:
            `imitation`: how far the actor is from them in the end, a mean square (see `reacting.imitation`); with rounds,
            `gain`: what the last plans cost less than what the actor would have done, the mean.

        Raises:
            ValueError: If nothing has been planned yet.
        """
        kept, actor_critic, learnt = self.buffer, self.learner.actor_critic, self.learner.learnt
        environments, capacity = kept.follows.shape
        acted = np.roll(np.asarray(kept.follows), -1, axis=1)  # an action belongs to a row that the next one follows
        late = np.arange(capacity) >= self.settings.random_steps // environments
        planned = acted & (late | (np.asarray(kept.filled) == capacity)[:, None])
        if not planned.any():
            raise ValueError("there is nothing to distil: no action has been planned yet while learning")

        encode = jax.jit(
            partial(jax.lax.map, lambda o: self.model.encode(learnt["model"], o).latent, batch_size=ENCODE_BATCH)
        )
        remembered = encode(kept.observations[acted])
        seen, shown = encode(kept.observations[planned]), kept.actions[planned]
        self.learner.practice, metrics = actor_critic.imitate(self.learner.practice, seen, shown)
        ask = distillation.expert(self.policy.planner, self.actor_adapter, iterations=5 * self.settings.iterations)
        for key in jax.random.split(self._draw(), rounds):
            more = ask(self.params, remembered, key, plans)
            seen, shown = jnp.concatenate([seen, more.seen]), jnp.concatenate([shown, more.shown])
            self.learner.practice, metrics = actor_critic.imitate(self.learner.practice, seen, shown)
            metrics |= {"gain": more.gain}
        return {name: float(value) for name, value in metrics.items()}

    @property
    def actor_adapter(self) -> distillation.ActorAdapter:
        """How what the actor sees, a latent, is what is planned from."""
        act = self.learner.actor_critic.act
        return distillation.ActorAdapter(
            lambda params, latent: (params, initial_state(latent)),
            lambda params, state: state.latent,
            lambda params, latent: act(params["actor"], latent),
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Write a checkpoint from which `load` predicts, and learns on, as this agent would.

        Args:
            path: The folder of checkpoints.
        """
        return checkpointing.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        env: str | gymnasium.Env | gymnasium.vector.VectorEnv | None = None,
        *,
        cost: Cost | None = None,
        settings: dict[str, Any] | None = None,
    ) -> "Agent":
        """Read a checkpoint written by `save`.

        Args:
            path: The folder of checkpoints, or one of them.
            env: To learn on in; None for an agent that only predicts.
            cost: The known cost, if the agent was made with one.
            settings: What to change of the settings that do not shape what was learnt, such as the planner's.

        Raises:
            CheckpointError: If the checkpoint is foreign, damaged, of another format, or of another environment.
        """
        return checkpointing.load(cls, path, env, changes=settings or {}, cost=cost)
