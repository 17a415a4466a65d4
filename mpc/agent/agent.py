"""The agent: learns a world model from its own experience and plans in it by gradient."""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc import controller as loops
from mpc.agent import careful, gym_spaces, objective
from mpc.agent.interrupting import bar, interruptible
from mpc.agent.memory import Ongoing, flat, recall
from mpc.agent.objective import Cost, as_seen
from mpc.agent.probe import Probe, probe
from mpc.agent.settings import Settings
from mpc.planners.multistart import propose, side_by_side
from world_models import checkpoint, data, jepa, trainer
from world_models.base import Imagined, WorldModel, perceived
from world_models.diagnostics import effective_rank

PyTree = Any


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
        settings: How to explore, learn and plan.
        seed: Of everything random, the environment's first reset included.
        cost: A known differentiable stage cost `(params, imagined, action, t) -> scalar` to plan for instead of the learnt
            reward; doubt is added to it.
        model: A world model to use instead of the default JEPA, for example `world_models.analytic` physics.
        observation_space: Of one observation, where there is no `env`.
        action_space: Of one action, where there is no `env`.

    Raises:
        ValueError: If a space is not supported, with what to wrap the environment in.

    Example:
        >>> agent = mpc.Agent("Pendulum-v1", seed=0)  # doctest: +SKIP
        >>> agent.learn(400)  # doctest: +SKIP
        >>> action, state = agent.predict(observation)  # doctest: +SKIP
    """

    def __init__(
        self,
        env: str | gymnasium.Env | gymnasium.vector.VectorEnv | None,
        *,
        settings: Settings | None = None,
        seed: int = 0,
        cost: Cost | None = None,
        model: WorldModel | None = None,
        observation_space: gymnasium.Space | None = None,
        action_space: gymnasium.Space | None = None,
    ):
        self.settings = settings = Settings() if settings is None else settings
        self.env = None if env is None else gym_spaces.vectorise(env)
        if self.env is not None:
            observation_space, action_space = self.env.single_observation_space, self.env.single_action_space
        if observation_space is None or action_space is None:
            raise ValueError("an agent needs an env, or else an observation_space and an action_space")
        self.observation_space, self.action_space, self.seed, self.cost = observation_space, action_space, seed, cost
        self.space = gym_spaces.planner_space(action_space)
        size = gym_spaces.observation_size(observation_space) * settings.memory
        shown = self.space.size
        if model is None:
            model = jepa(size, shown, hidden=settings.hidden, members=settings.members, discount=settings.discount)
        self.model = model
        self._trainer = trainer(self.model, batch=settings.batch, length=settings.window, updates=settings.updates)
        environments = 1 if self.env is None else self.env.num_envs
        rows = max(settings.capacity // environments, 2)
        self.buffer = data.create(rows, environments, (size,), (shown,))
        self._minds = objective.actor_and_critic(self.model, size, self.space, settings, cost)
        training_key, practice_key, self._key = jax.random.split(jax.random.key(seed), 3)
        self.training, self.practice = self._trainer.init(training_key), self._minds.init(practice_key)
        self.num_timesteps = 0
        self.trained = False
        self._practised_since = 0
        self._error = 1.0  # of the last good training
        self.env_id: str | None = None if self.env is None else gym_spaces.identify(self.env)
        self.planner = objective.planner(self.model, self.space, settings, self._minds, cost)
        self.policy = self._policy()
        self._compile()

    def _policy(self) -> mpc.Policy:
        s, plan, model = self.settings, self.planner, self.model
        wide = objective.planner(model, self.space, replace(s, starts=s.first_starts), self._minds, self.cost)

        def begin(params: PyTree, state: Imagined, key: jax.Array) -> loops.Loop:
            # an episode's first decision searches widely for the basin that later ones stay in
            found = mpc.solve(wide, params, state, key, s.first_iterations)
            return loops.begin(plan, params, state, key, found.actions)

        def decide(params: PyTree, state: Imagined, loop: loops.Loop):
            reaction = objective.react(plan.problem, self._minds, params, state)
            loop = loop._replace(planner=propose(loop.planner, reaction))
            return loops.decide(plan, params, state, loop, s.iterations)

        def advance(params: PyTree, state: Imagined, action: jax.Array) -> Imagined:
            # what is lost or doubted before the plan begins is none of its doing
            return perceived(plan.problem.dynamics(params, state, self.space.embed(action)).latent)

        return mpc.Policy(plan, lambda params, seen: model.encode(params["model"], seen), begin, decide, advance)

    def _compile(self) -> None:
        plan, model, decisions = self.planner, self.model, self.policy

        def first(params: PyTree, observation: jax.Array, key: jax.Array) -> loops.Loop:
            return decisions.begin(params, decisions.observe(params, observation), key)

        def next_(params: PyTree, observation: jax.Array, loop: loops.Loop):
            loop, made, action = decisions.decide(params, decisions.observe(params, observation), loop)
            return loop, made.status, action

        def imagined(params: PyTree, observation: jax.Array, actions: jax.Array):
            start = model.encode(params["model"], observation)
            return jax.vmap(lambda a: mpc.rollout(plan.problem, params, start, a).states)(actions)

        def rank(params: PyTree, observations: jax.Array) -> jax.Array:
            return effective_rank(jax.vmap(lambda o: model.encode(params, o).latent)(observations))

        self._rank = jax.jit(rank)
        self._imagined = jax.jit(imagined)
        self._first = jax.jit(jax.vmap(first, in_axes=(None, 0, 0)))
        self._next = jax.jit(jax.vmap(next_, in_axes=(None, 0, 0)))
        self._choose = jax.jit(lambda mask, a, b: jax.tree.map(partial(_where, mask), a, b))
        self._perturb = jax.jit(self._noisy)
        self._embed = jax.jit(jax.vmap(lambda a: as_seen(self.space, self.space.embed(a))))

    @property
    def params(self) -> PyTree:
        """Everything planning depends on: the model's weights, and the cost's."""
        return {
            "model": self.training.params,
            "cost": {"doubt": np.float32(self.settings.doubt)},
            "actor": self.practice.steady,
            "critic": self.practice.target,
        }

    def _noisy(self, actions: jax.Array, key: jax.Array) -> jax.Array:
        variables, noise = jax.vmap(self.space.encode)(actions), self.settings.noise
        if self.space.exact:
            variables += noise * jax.random.normal(key, variables.shape)
        else:  # no small change turns one choice into another
            draw, whether = jax.random.split(key)
            other = jax.random.uniform(draw, variables.shape, minval=-1.0)
            variables = jnp.where(jax.random.bernoulli(whether, noise, (len(actions), 1)), other, variables)
        return jax.vmap(self.space.decide)(self.space.project(variables))

    def _draw(self, count: int) -> jax.Array:
        self._key, *keys = jax.random.split(self._key, count + 1)
        return jnp.stack(keys)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Decide on actions for one observation or a batch of them.

        Args:
            observation: One observation, or a batch with a leading axis. One that is not finite gets the next action of the
                last plan that could be trusted.
            state: What the last call returned beside the actions: the plans to begin with, and what was seen before. None
                plans from scratch.
            episode_start: `[B]`, where to plan from scratch because an episode begins.
            deterministic: Without exploration noise.

        Returns:
            Actions of the action space, and the state to give to the next call.

        Raises:
            ValueError: If the observation has the wrong shape.
        """
        batched = gym_spaces.is_batched(self.observation_space, observation)
        rows = gym_spaces.flatten(self.observation_space, observation, batched)
        starts = None if episode_start is None else np.asarray(episode_start, bool).reshape(-1)
        loop, before = (None, None) if state is None else state
        seen = recall(before, rows, starts, self.settings.memory)
        actions, loop = self._decide(flat(seen), loop, starts, deterministic)
        return (actions if batched else actions[0]), Ongoing(loop, seen)

    def _decide(
        self, rows: np.ndarray, loop: loops.Loop | None, starts: np.ndarray | None, deterministic: bool
    ) -> tuple[np.ndarray, loops.Loop]:
        params = self.params
        if loop is None or (starts is not None and starts.any()):
            # keys that depend on the seed alone: the same call gives the same actions
            fresh = self._first(params, rows, jax.random.split(jax.random.key(self.seed), len(rows)))
            loop = fresh if loop is None else self._choose(starts, fresh, loop)
        loop, _, actions = self._next(params, rows, loop)
        if not deterministic:
            actions = self._perturb(actions, self._draw(1)[0])
        return np.asarray(actions).astype(self.action_space.dtype), loop  # type: ignore[arg-type]

    def futures(self, observation: Any, state: Any) -> Imagined:
        """What every start of the plan under way would lead to from one observation, `[S, H+1, ...]`.

        Args:
            observation: One observation, or a batch of one.
            state: As `predict` returned it for the step before.
        """
        batched = gym_spaces.is_batched(self.observation_space, observation)
        rows = gym_spaces.flatten(self.observation_space, observation, batched)
        row = flat(recall(state.seen[:1], rows[:1], None, self.settings.memory))[0]
        first = jax.tree.map(lambda x: x[0], state.loop.planner)
        return self._imagined(self.params, row, self.space.relax(side_by_side(first).variables))

    def imagine(self, observation: np.ndarray, actions: np.ndarray) -> Imagined:
        """What a sequence of actions of the environment would lead to from one observation, `[H+1, ...]`.

        Args:
            observation: `[O]`, flat, or `[K, O]`, what was seen before it behind it; as if nothing had moved, else.
            actions: `[H, ...]` as the environment takes them.
        """
        seen = np.broadcast_to(observation, (self.settings.memory, np.shape(observation)[-1]))
        every = self._imagined(self.params, jnp.asarray(flat(seen[None])[0]), self.space.embed(jnp.asarray(actions))[None])
        return jax.tree.map(lambda x: x[0], every)

    def probe(self) -> Probe:
        """Fit what reads latents back as observations, to everything remembered."""
        seen = self.buffer.observations[0, : max(int(self.buffer.filled[0]), 1)]
        latents = jax.vmap(lambda o: self.model.encode(self.params["model"], o).latent)(seen)
        newest = np.asarray(seen)[:, : seen.shape[1] // self.settings.memory]
        return probe(np.asarray(latents), newest)

    def effective_rank(self, newest: int = 512) -> float:
        """How many dimensions the latents of the newest observations really use; 1 is a collapse."""
        filled = max(int(self.buffer.filled[0]), 1)
        rows = (int(self.buffer.head[0]) - 1 - np.arange(newest) % filled) % self.buffer.follows.shape[1]
        return float(self._rank(self.params["model"], self.buffer.observations[0, rows]))

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[["Agent", Progress], bool | None] | None = None,
        progress_bar: bool = True,
        checkpoint_path: str | os.PathLike | None = None,
    ) -> "Agent":
        """Act, remember and learn for a number of environment steps, random ones included.

        Args:
            total_timesteps: Steps to take in this call, over all environments.
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
                for progress in self._steps(total_timesteps):
                    advance(self.env.num_envs)
                    if callback is not None and callback(self, progress) is False:
                        break
                    check()
            finally:
                if checkpoint_path is not None:
                    with careful.room_for(checkpoint_path):
                        self.save(checkpoint_path)
        return self

    def _steps(self, total: int) -> Iterator[Progress]:
        assert self.env is not None
        env, end = self.env, self.num_timesteps + total
        recorder = data.Recorder(env.metadata.get("autoreset_mode", gymnasium.vector.AutoresetMode.NEXT_STEP))
        seed = self.seed + self.num_timesteps
        watch = careful.Watch(env.num_envs)
        with careful.blamed("reset", self.num_timesteps):
            raw, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        seen = self._seen(None, raw)
        self._append(recorder.reset(flat(seen)))
        loop, started = None, np.ones(env.num_envs, bool)
        returns, over = np.zeros(env.num_envs), np.zeros(env.num_envs, bool)
        while self.num_timesteps < end:
            if self.num_timesteps < self.settings.random_steps:
                actions = env.action_space.sample()
            else:
                if not self.trained:
                    self._train(self.settings.first_trainings)
                actions, loop = self._decide(flat(seen), loop, started, deterministic=False)
            with careful.blamed("step", self.num_timesteps):
                raw, rewards, terminated, truncated, infos = env.step(actions)
            real, done = ~over, (terminated | truncated) & ~over
            started = done if recorder.mode != "NextStep" else over
            before, seen = seen, self._seen(seen, raw, started if recorder.mode != "Disabled" else None)
            reached = flat(seen)
            if "final_obs" in infos:
                final = flat(recall(before, self._final(infos), None, self.settings.memory))
                reached, infos = np.where(infos["_final_obs"][:, None], final, reached), infos | {"final_obs": final}
            watch.look(reached, np.asarray(rewards), real, self.num_timesteps)
            shown = np.asarray(self._embed(actions))
            self._append(recorder.step(shown, flat(seen), rewards, terminated, truncated, infos))
            returns += np.where(over, 0.0, rewards)
            earlier, self.num_timesteps = self.num_timesteps, self.num_timesteps + int(real.sum())
            finished = returns[done].tolist()
            returns[done] = 0.0
            over = done if recorder.mode == "NextStep" else np.zeros_like(done)
            if recorder.mode == "Disabled" and done.any():
                with careful.blamed("reset", self.num_timesteps):
                    raw, _ = env.reset(options={"reset_mask": done})
                seen = np.where(done[:, None, None], self._seen(None, raw), seen)
                self._append(recorder.reset(flat(seen), done))
            metrics = {}
            due = earlier // self.settings.train_every < self.num_timesteps // self.settings.train_every
            if due and self.num_timesteps >= self.settings.random_steps:
                metrics = self._train(1 if self.trained else self.settings.first_trainings)
            yield Progress(self.num_timesteps, finished, metrics)

    def _seen(self, before: np.ndarray | None, raw: Any, fresh: np.ndarray | None = None) -> np.ndarray:
        rows = gym_spaces.flatten(self.observation_space, raw, batched=True)
        return recall(before, rows, fresh, self.settings.memory)

    def _final(self, infos: dict[str, Any]) -> np.ndarray:
        there = infos["_final_obs"]
        rows = np.zeros((len(there), gym_spaces.observation_size(self.observation_space)), np.float32)
        for index in np.flatnonzero(there):
            rows[index] = gym_spaces.flatten(self.observation_space, infos["final_obs"][index], batched=False)
        return rows

    def _append(self, writes: list[tuple[data.Rows, np.ndarray]]) -> None:
        for rows, write in writes:
            self.buffer = data.append(self.buffer, rows, write)

    def _train(self, times: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for _ in range(times):
            limit = careful.EXPLODED * max(self._error, 1.0)
            given = (self._trainer.fit, self.training, self.buffer)
            self.training, found, astray = careful.attempt(*given, limit=limit)
            self._tell_of("the world model", astray)
            if astray is None:
                metrics, self._error = found, careful.error_of(found)
        # what was learnt in the dreams of a poor model is hard to unlearn (Nikishin et al. 2022): begin again now and then
        again = self.num_timesteps >= self.settings.restart_growth * self._practised_since
        if again:
            self.practice = self._minds.init(self._draw(1)[0])
            self._practised_since = self.num_timesteps
        practices = self.settings.restart_practices if again else times
        for _ in range(practices if self.settings.practice else 0):
            self.practice, practised, astray = careful.attempt(self._minds.fit, self.practice, self.params, self.buffer)
            self._tell_of("the actor or the critic", astray)
            metrics |= practised
        self.trained = True
        return metrics

    def _tell_of(self, what: str, astray: str | None) -> None:
        if astray is not None:
            warnings.warn(
                f"after {self.num_timesteps} steps, {what} diverged in training ({astray}): its last good weights are kept",
                RuntimeWarning,
                stacklevel=2,
            )

    def save(self, path: str | os.PathLike) -> Path:
        """Write a checkpoint from which `load` predicts, and learns on, as this agent would.

        Args:
            path: The folder of checkpoints.
        """
        tree = {"training": self.training, "practice": self.practice, "buffer": self.buffer, "key": self._key}
        return checkpoint.save(path, tree, self._signature() | {"state": self._counters()}, step=self.num_timesteps)

    def _counters(self) -> dict[str, Any]:
        return {
            "timesteps": self.num_timesteps,
            "trained": self.trained,
            "practised_since": self._practised_since,
            "seed": self.seed,
        }

    def _signature(self) -> dict[str, Any]:
        return {
            "env": self.env_id,
            "observation_space": gym_spaces.describe(self.observation_space),
            "action_space": gym_spaces.describe(self.action_space),
            "environments": self.buffer.follows.shape[0],
            "settings": self.settings.asdict(),
        }

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        env: str | gymnasium.Env | gymnasium.vector.VectorEnv | None = None,
        *,
        cost: Cost | None = None,
    ) -> "Agent":
        """Read a checkpoint written by `save`.

        Args:
            path: The folder of checkpoints, or one of them.
            env: To learn on in; None for an agent that only predicts.
            cost: The known cost, if the agent was made with one.

        Raises:
            CheckpointError: If the checkpoint is foreign, damaged, of another format, or of another environment.
        """
        kept = checkpoint.describe(path)["metadata"]
        if not {"observation_space", "action_space", "settings", "state", "environments"} <= set(kept):
            raise checkpoint.CheckpointError(f"{path} is a checkpoint, but not of an agent")
        spaces: dict[str, Any] = {n: gym_spaces.rebuild(kept[n]) for n in ("observation_space", "action_space")}
        vector = None if env is None else gym_spaces.vectorise(env)
        if vector is not None:
            for name, got in (
                ("observation_space", vector.single_observation_space),
                ("action_space", vector.single_action_space),
            ):
                if gym_spaces.describe(got) != kept[name]:
                    raise checkpoint.CheckpointError(
                        f"{path} is of another environment: it was learnt with {name} {spaces[name]}, this one has {got}"
                    )
            if vector.num_envs != kept["environments"]:
                raise checkpoint.CheckpointError(
                    f"{path} was learnt in {kept['environments']} environments at once; this vector has {vector.num_envs}"
                )
        agent = cls(vector, settings=Settings(**kept["settings"]), seed=kept["state"]["seed"], cost=cost, **spaces)
        agent.buffer = data.create(
            agent.buffer.follows.shape[1] if vector else max(agent.settings.capacity // kept["environments"], 2),
            kept["environments"],
            agent.buffer.observations.shape[2:],
            agent.buffer.actions.shape[2:],
        )
        like = {"training": agent.training, "practice": agent.practice, "buffer": agent.buffer, "key": agent._key}
        tree, _ = checkpoint.load(path, like)
        agent.training, agent.practice, agent.buffer, agent._key = (tree[name] for name in like)
        agent.env_id = agent.env_id or kept["env"]
        agent.num_timesteps, agent.trained = kept["state"]["timesteps"], kept["state"]["trained"]
        agent._practised_since = kept["state"]["practised_since"]
        return agent


def _where(mask: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)
