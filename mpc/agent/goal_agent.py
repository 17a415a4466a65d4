"""The goal-reaching agent: learns a world model from recorded trajectories, and plans in it to a goal observation."""

import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mpc.agent.actor import goal_policy
from mpc.agent.actor.distillation import ActorAdapter
from mpc.agent.actor.goal_actor import goal_actor, hindsight
from mpc.agent.actor.goal_policy import GoalPolicyState
from mpc.agent.actor.time_budget import Budget, Mode
from mpc.agent.goal_config import GoalSettings
from mpc.agent.interrupts import bar, interruptible
from mpc.agent.memory import trajectory_latents
from mpc.agent.perception import gym_spaces
from mpc.agent.world_model import build
from mpc.agent.world_model.residual_correction import nothing
from world_models import data, trainer
from world_models.base import WorldModel
from world_models.data import Dataset
from world_models.distances.temporal import Distance
from world_models.io import checkpoint
from world_models.training.diagnostics import CollapseMonitor
from world_models.training.finetune import finetune
from world_models.training.trainer import Trainer

PyTree = Any
Render = Callable[[jax.Array], jax.Array]
CHUNK = 100
"""Updates between two looks at whether to stop."""
LEAST_RATE = 0.03
"""Share of the learning rate that is left at the end of a training, and beyond it."""
RECORDINGS = 400
"""Trajectories, at most, that an actor is taught from."""
RESIDENT = 2**30
"""Bytes of observations that are put on the device; larger datasets are read from the disk as they are drawn."""


class Progress(NamedTuple):
    """What a callback is told now and then."""

    updates: int
    metrics: dict[str, float]
    """Of the updates since the last time."""


class GoalPredictState(NamedTuple):
    """What `predict` hands over from one call to the next."""

    goal: np.ndarray
    policy_state: GoalPolicyState
    age: int
    """Actions of the plan that have been taken."""


class GoalAgent:
    """Learns offline, and then goes where an observation tells it to.

    Args:
        env: A Gymnasium environment or its id, of which only the spaces and the id are looked at; None where they are given.
        settings: How to learn and plan.
        seed: Of weights, of what is drawn, of plans.
        render: `rows [..., S] -> observations [..., *shape]`, for datasets that store states instead of what is observed.
        model: A world model to use instead of the one that the settings describe; its actions are blocks `[block * A]`.
        distance: A distance to use instead of the one that the settings name.
        observation_space: Of one observation, where there is no `env`.
        action_space: Of one action, where there is no `env`.

    Raises:
        ValueError: If a space is not supported, or the settings don't fit it.

    Example:
        >>> agent = GoalAgent("craik/TwoRooms-v0", render=frames)  # doctest: +SKIP
        >>> agent.learn(datasets.load("walks"))  # doctest: +SKIP
        >>> action, state = agent.predict(observation, goal)  # doctest: +SKIP
        >>> action, state = agent.predict(observation, goal, state)  # doctest: +SKIP
    """

    def __init__(
        self,
        env: str | gymnasium.Env | None,
        *,
        settings: GoalSettings | None = None,
        seed: int = 0,
        render: Render | None = None,
        model: WorldModel | None = None,
        distance: Distance | None = None,
        observation_space: gymnasium.Space | None = None,
        action_space: gymnasium.Space | None = None,
    ):
        self.settings = settings = GoalSettings() if settings is None else settings
        self.env_id: str | None = None
        if env is not None:
            made = gym_spaces.make(env) if isinstance(env, str) else env
            observation_space, action_space = made.observation_space, made.action_space
            self.env_id = None if made.spec is None else made.spec.id
            if isinstance(env, str):
                made.close()
        self.observation_space, self.action_space = _boxes(observation_space, action_space)
        self.seed, self.render, self._random = seed, render, np.random.default_rng(seed)
        shape, size = self.observation_space.shape, int(np.prod(self.action_space.shape))
        self.model = build.world_model(settings, shape, size) if model is None else model
        self.distance = build.distance(settings) if distance is None else distance
        low, high = self.action_space.low, self.action_space.high
        self.blocks = goal_policy.space(low, high, settings.block, settings.action_limit)
        self._trainer = lru_cache(self._make_trainer)
        training_key, distance_key = jax.random.split(jax.random.key(seed))
        self.training = self._trainer(CHUNK).init(training_key)
        self.distance_params = self.distance.init(distance_key)
        like = jax.ShapeDtypeStruct(shape, self.observation_space.dtype)
        self.latent: int = jax.eval_shape(self.model.encode, self.training.params, like).latent.shape[0]
        """Size of a latent."""
        self.goal_actor = goal_actor(self.latent, self.blocks)
        self.actor: PyTree | None = None
        """Weights of the actor; None before `distil`."""
        self.pursuer = goal_policy.pursuer(self.model, self.distance, self.blocks, settings, self.goal_actor)
        self._budget = Budget()
        self._aim: tuple[Any, np.ndarray, jax.Array] | None = None  # what was learnt then, the last goal, and its latent
        self.album: np.ndarray | None = None
        """Rows of the dataset, in which plans are shown to people; None before learning."""
        self._shown: tuple[int, np.ndarray] | None = None
        self.measured_at = -1
        """Updates after which the distance was learnt last; -1 for never."""
        self.alarm = CollapseMonitor(share=0.4 if settings.objective in build.DECORRELATED else 0.1)
        self._compile()

    def _make_trainer(self, updates: int) -> Trainer:
        s = self.settings
        fall = optax.cosine_decay_schedule(1.0, s.updates, alpha=LEAST_RATE)
        return trainer(
            self.model,
            optimizer=optax.chain(self.model.optimizer, optax.scale_by_schedule(fall)),
            batch=s.batch,
            length=s.window,
            updates=updates,
            averaging=s.averaging,
            block=s.block,
            render=self.render,
        )

    def _compile(self) -> None:
        model, going = self.model, self.pursuer
        self.encode = jax.jit(lambda params, o: model.encode(params, o))
        self._first, self._next, self._imagine = jax.jit(going.first), jax.jit(going.next), jax.jit(going.imagine)
        self._start, self._react = jax.jit(going.start), jax.jit(going.react)
        self._measure = jax.jit(going.measure)
        like = jnp.zeros(self.observation_space.shape, self.observation_space.dtype)
        # shapes that do not fit, and settings that do not, are told now
        goal = jax.eval_shape(lambda p: model.encode(p, like), self.training.params).latent
        jax.eval_shape(going.first, self._parameters(jnp.zeros(goal.shape, goal.dtype)), like, jax.random.key(0))

    @property
    def updates(self) -> int:
        """Gradient steps taken so far."""
        return int(self.training.updates)

    def parameters(self, goal: Any) -> dict[str, Any]:
        """Everything that plans to a goal depend on, as the functions of `pursuer` take it.

        Args:
            goal: An observation.

        Raises:
            ValueError: If it is none of the environment's, or not finite.
        """
        wanted, aim = self._goal(goal), self._aim
        if aim is None or aim[0] is not self.training or not np.array_equal(aim[1], wanted):
            self._aim = aim = self.training, wanted, self.encode(self.training.params, wanted).latent
        return self._parameters(aim[2])

    def _parameters(self, latent: Any) -> dict[str, Any]:
        return goal_policy.parameters(self.settings, self.training.params, self.distance_params, latent, self.actor)

    # Acting

    def predict(
        self,
        observation: Any,
        goal: Any,
        state: GoalPredictState | None = None,
        deterministic: bool = True,
        mode: Mode = "plan",
    ) -> tuple[np.ndarray, GoalPredictState]:
        """Decide on one action of the environment.

        A plan is carried out for `settings.every` steps, and then improved from where it stands. With another goal than
        before it is made from scratch. So is a reaction carried out, and planning goes on after it.

        Args:
            observation: What is seen now. Where it is not finite, what the model expected is gone by instead.
            goal: What shall be seen, an observation.
            state: What the last call returned beside the action; None at the beginning of an episode.
            deterministic: Without noise.
            mode: `"plan"`; `"react"`, the actor by itself, which takes a small part of the time; or milliseconds that a
                plan may take: plans as long as plans have been taking no longer than that lately, and else reacts.

        Returns:
            An action of the action space, finite and in bounds, and the state to give to the next call.

        Raises:
            ValueError: If observation or goal have another shape or dtype than the environment's, the goal is not finite,
                there is no such mode, or there is no actor yet to react with.
        """
        seen, wanted = self._checked(observation, "observation"), self._goal(goal)
        if mode != "plan" and self.actor is None:
            raise ValueError(f"mode={mode!r} needs an actor, and this agent has none yet: distil makes one")
        if state is None or not np.array_equal(state.goal, wanted):
            state = GoalPredictState(wanted, self._decided(wanted, seen, None, mode), 0)
        elif state.age >= self.settings.every:
            state = GoalPredictState(wanted, self._decided(wanted, seen, state.policy_state, mode), 0)
        action = np.asarray(state.policy_state.actions[state.age])
        if not deterministic:
            half = 0.5 * (self.action_space.high - self.action_space.low).ravel()
            action = action + self.settings.noise * half * self._random.standard_normal(action.shape)
        bounded = np.clip(action.reshape(self.action_space.shape), self.action_space.low, self.action_space.high)
        return bounded.astype(self.action_space.dtype), state._replace(age=state.age + 1)

    def _decided(self, wanted: np.ndarray, seen: np.ndarray, before: GoalPolicyState | None, mode: Mode) -> GoalPolicyState:
        kind = int(before is not None)  # an episode's first plan takes longer
        plans = self._budget.plans(mode, kind)
        if before is None:
            # a key that depends on the seed alone: the same call gives the same action
            decide, given = self._first if plans else self._start, jax.random.key(self.seed)
        else:
            decide, given = self._next if plans else self._react, before
        begun = time.perf_counter()
        made = jax.block_until_ready(decide(self.parameters(wanted), seen, given))
        if plans:
            self._budget.spent(kind, 1e3 * (time.perf_counter() - begun))
        return made

    def imagine(self, state: GoalPredictState) -> PyTree:
        """What the plan under way was expected to lead to when it was made, states `[H+1, ...]`, a block apart.

        Args:
            state: As `predict` returned it.
        """
        return self._imagine(self.parameters(state.goal), state.policy_state)

    def far(self, observation: Any, goal: Any) -> float:
        """How far an observation is from a goal, in the distance that plans minimise.

        Args:
            observation: One.
            goal: Another.
        """
        seen = self.encode(self.training.params, self._checked(observation, "observation"))
        return float(self._measure(self.parameters(goal), seen))

    def _goal(self, goal: Any) -> np.ndarray:
        wanted = self._checked(goal, "goal")
        if not np.isfinite(wanted).all():
            raise ValueError("the goal must be finite, and it has numbers that are not")
        return wanted

    def _checked(self, observation: Any, what: str) -> np.ndarray:
        space = self.observation_space
        try:
            given = np.asarray(observation)
        except ValueError as error:
            raise ValueError(f"the {what} must be an array of shape {space.shape}: {error}") from error
        if given.shape != space.shape:
            raise ValueError(f"the {what} has shape {given.shape}, and the environment's observations have {space.shape}")
        fine = given.dtype == space.dtype if space.dtype == np.uint8 else given.dtype.kind in "fiu"
        if not fine:
            raise ValueError(f"the {what} is of {given.dtype}, and the environment's observations are of {space.dtype}")
        return given.astype(space.dtype)

    # Learning

    def learn(
        self,
        dataset: Dataset,
        *,
        updates: int | None = None,
        callback: Callable[["GoalAgent", Progress], bool | None] | None = None,
        progress_bar: bool = True,
        checkpoint_path: str | os.PathLike | None = None,
    ) -> "GoalAgent":
        """Learn the world model, then the distance in its latent space.

        Args:
            dataset: Recorded in the agent's environment, of observations, or of states where the agent has a `render`.
            updates: Gradient steps to take in this call; what is missing of `settings.updates` if None.
            callback: Called with the agent and a `Progress` every so often; returning False ends the learning of the world
                model.
            progress_bar: Whether to show one.
            checkpoint_path: Where to save when done, or when interrupted by Ctrl-C or SIGTERM (raised again afterwards).

        Returns:
            The agent.

        Raises:
            DatasetError: If the dataset was recorded in another environment, its observations or actions have another shape,
                or its episodes are too short.
            ValueError: If updates is negative.
        """
        if updates is not None and updates < 0:
            raise ValueError(f"updates must be at least 0; got {updates}")
        left = max(self.settings.updates - self.updates, 0) if updates is None else updates
        self._fitting(dataset)
        if left:
            self.actor = None  # it knows the latents of the encoder as it was
        with interruptible() as check, bar(left, progress_bar) as advance:
            try:
                fit, end = self._source(dataset), self.updates + left
                while self.updates < end:
                    count = min(CHUNK, end - self.updates)
                    metrics = fit(count)
                    advance(count)
                    self.alarm(metrics, self.updates)
                    if callback is not None and callback(self, Progress(self.updates, metrics)) is False:
                        break
                    check()
                self._settle(dataset)
                self.album = trajectory_latents.choose(dataset)
            finally:
                if checkpoint_path is not None:
                    self.save(checkpoint_path)
        return self

    def _fitting(self, dataset: Dataset) -> None:
        """Refuse a dataset of something else."""
        shape = self.observation_space.shape
        if self.render is not None:
            stored = jax.ShapeDtypeStruct(dataset.observations.shape[1:], dataset.observations.dtype)
            shown = jax.eval_shape(self.render, stored).shape
            if shown != shape:
                raise data.DatasetError(f"render makes observations of shape {shown}, and {shape} was wanted")
        dataset.require(
            environment=self.env_id,
            observation=None if self.render is not None else shape,
            action=self.action_space.shape,
        )

    def _source(self, dataset: Dataset) -> Callable[[int], dict[str, float]]:
        """What takes a number of gradient steps on a dataset, and returns their metrics."""
        s = self.settings
        if dataset.observations.nbytes <= RESIDENT:
            source = data.resident(dataset, s.window * s.block, self.render)

            def fit(count: int) -> dict[str, float]:
                self.training, metrics = self._trainer(count).fit(self.training, source)
                return {name: float(value) for name, value in metrics.items()}

            return fit
        params = self.model.normalise(self.training.params, data.moments(dataset, self.render))
        self.training = self.training._replace(params=params)
        shape = {"batch": s.batch, "length": s.window, "block": s.block, "updates": CHUNK, "members": self.model.members}
        drawn = data.batches(dataset, seed=self.seed + self.updates, **shape)

        def fit_drawn(count: int) -> dict[str, float]:
            windows = jax.tree.map(lambda x: x[:count], next(drawn))
            self.training, metrics = self._trainer(CHUNK).fit_windows(self.training, windows)
            return {name: float(value) for name, value in metrics.items()}

        return fit_drawn

    def _settle(self, dataset: Dataset) -> None:
        """Once the encoder stands still: learn the distance and long predictions on the latents of whole trajectories."""
        if self.measured_at == self.updates:
            return
        s = self.settings
        seen = trajectory_latents.embed(dataset, s.block, s.finetune_sequences, self._latents, self.distance.dense)
        measuring, refining = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), self.updates))
        if self.distance.fit is not None:
            shown = seen.dense() if self.distance.dense else seen
            self.distance_params, _ = self.distance.fit(
                self.distance_params, measuring, shown.latents, shown.first, shown.lengths
            )
        like = jnp.zeros(self.observation_space.shape, self.observation_space.dtype)
        # what remembers is shown some of the way first: one observation alone tells no velocity
        blank = jax.eval_shape(self.model.encode, self.training.params, like)
        known = s.window if jax.tree.leaves(getattr(blank, "memory", ())) else 1
        steps = min(s.finetune_steps + known - 1, int(seen.lengths.max()))
        taken = trajectory_latents.blocks(dataset, seen, s.block)
        params, _ = finetune(
            self.model,
            self.training.params,
            refining,
            like,
            seen.latents,
            taken,
            trajectory_latents.told(seen.starts(steps), taken, steps),
            steps=steps,
            known=min(known, steps),
            updates=s.finetune_updates,
            latent_metric=partial(self.distance.measure, self.distance_params),
        )
        self.training = self.training._replace(params=params, network=jax.tree.map(jnp.copy, params["network"]))
        self.measured_at = self.updates

    def distil(self, dataset: Dataset, passes: int = 1) -> dict[str, float]:
        """Teach an actor to do at once what leads to goals, see `mpc.agent.actor.goal_actor`.

        From then on it can react, and plans begin with what it would do, too. To `learn` on undoes it.

        Args:
            dataset: As for `learn`.
            passes: Of `reacting.imitation` over the lessons; more of them fit tighter and may generalise less; without any,
                the actor goes downhill.

        Returns:
            `imitation`: how far the actor is from its lessons in the end, a mean square.

        Raises:
            DatasetError: As by `learn`.
            ValueError: If the dataset tells no actions.
        """
        self._fitting(dataset)
        s, actor_adapter = self.settings, self.actor_adapter
        recorded = trajectory_latents.embed(dataset, s.block, RECORDINGS, self._latents)
        taken = trajectory_latents.blocks(dataset, recorded, s.block)
        measure = partial(self.distance.measure, self.distance_params)
        pairs, rows = hindsight(measure, recorded, taken, self.seed, s.horizon)
        shown = self.blocks.encode(jnp.asarray(taken[rows]))

        @jax.jit
        def look(params: PyTree, pairs: jax.Array) -> jax.Array:
            return jax.lax.map(lambda pair: actor_adapter.see(*actor_adapter.begin(params, pair)), pairs, batch_size=500)

        seen = look(self._parameters(jnp.zeros(self.latent)), jnp.asarray(pairs))
        begin, *keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), self.updates), passes + 1)
        self.actor, metrics = self.goal_actor.init(begin), {}
        for key in keys:
            self.actor, metrics = self.goal_actor.imitate(self.actor, key, seen, shown)
        return {name: float(value) for name, value in metrics.items()}

    @property
    def actor_adapter(self) -> ActorAdapter:
        """How what the actor sees is what is planned from, with nothing tried before."""
        size, model, space = self.latent, self.model, self.observation_space

        def begin(params: PyTree, seen: jax.Array) -> tuple[PyTree, PyTree]:
            state = model.encode(params["model"], jnp.zeros(space.shape, space.dtype))._replace(latent=seen[:size])
            return params | {
                "goal": seen[size : 2 * size],
                "recent": nothing(self.settings.correction_memory, size, self.blocks.size),
            }, state

        return ActorAdapter(begin, self.pursuer.see, lambda params, seen: self.goal_actor.act(params["actor"], seen))

    def _latents(self, rows: np.ndarray) -> jax.Array:
        return self._rows(self.training.params, rows)

    @property
    def _rows(self) -> Callable[[PyTree, Any], jax.Array]:
        return _encoder(self.model, self.render)

    def look_up(self, latents: Any) -> np.ndarray:
        """The album's observations that latents `[N, D]` are nearest to: what imagined futures look like, for eyes only.

        Raises:
            ValueError: If the agent has learnt nothing yet.
        """
        if self.album is None:
            raise ValueError("an agent that has seen nothing knows nothing to show")
        if self._shown is None or self._shown[0] != self.updates:
            self._shown = self.updates, np.asarray(self._latents(self.album))
        nearest = trajectory_latents.nearest(self._shown[1], np.asarray(latents))
        rows = self.album[nearest]
        return np.asarray(rows if self.render is None else self.render(jnp.asarray(rows)))

    # Keeping

    def save(self, path: str | os.PathLike) -> Path:
        """Write a checkpoint from which `load` predicts, and learns on, as this agent would.

        Args:
            path: The folder of checkpoints.
        """
        shown = np.zeros((0,)) if self.album is None else self.album
        tree = {"training": self.training, "distance": self.distance_params, "album": shown}
        tree |= {} if self.actor is None else {"actor": self.actor}
        kept = {
            "kind": "goals",
            "env": self.env_id,
            "observation_space": gym_spaces.describe(self.observation_space),
            "action_space": gym_spaces.describe(self.action_space),
            "settings": self.settings.asdict(),
            "state": {
                "seed": self.seed,
                "measured_at": self.measured_at,
                "album": [list(shown.shape), str(shown.dtype)],
                "actor": self.actor is not None,
            },
        }
        return checkpoint.save(path, tree, kept, step=self.updates)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        render: Render | None = None,
        model: WorldModel | None = None,
        distance: Distance | None = None,
        settings: dict[str, Any] | None = None,
    ) -> "GoalAgent":
        """Read a checkpoint written by `save`.

        Args:
            path: The folder of checkpoints, or one of them.
            render: As for the agent.
            model: The world model, if the agent was made with one.
            distance: The distance, if the agent was made with one.
            settings: What to change of the settings that do not shape what was learnt: the planner's, weights, updates.

        Raises:
            CheckpointError: If the checkpoint is foreign, damaged, of another format, or not of a goal-reaching agent.
        """
        kept = checkpoint.describe(path)["metadata"]
        if kept.get("kind") != "goals":
            raise checkpoint.CheckpointError(f"{path} is a checkpoint, but not of a goal-reaching agent")
        spaces: dict[str, Any] = {n: gym_spaces.rebuild(kept[n]) for n in ("observation_space", "action_space")}
        chosen = GoalSettings(**(kept["settings"] | (settings or {})))
        seed = kept["state"]["seed"]
        agent = cls(None, settings=chosen, seed=seed, render=render, model=model, distance=distance, **spaces)
        shape, dtype = kept["state"]["album"]
        like = {
            "training": agent.training,
            "distance": agent.distance_params,
            "album": np.zeros(shape, np.dtype(dtype)),
        } | ({"actor": agent.goal_actor.init(jax.random.key(0))} if kept["state"].get("actor") else {})
        tree, _ = checkpoint.load(path, like)
        agent.training, agent.distance_params = tree["training"], tree["distance"]
        agent.album, agent.actor = tree["album"] if shape != [0] else None, tree.get("actor")
        agent.env_id, agent.measured_at = kept["env"], kept["state"]["measured_at"]
        return agent


@lru_cache
def _encoder(model: WorldModel, render: Render | None) -> Callable[[PyTree, Any], jax.Array]:
    def encode(params: PyTree, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda o: model.encode(params, o).latent)(rows if render is None else render(rows))

    return jax.jit(encode)


def _boxes(observation: Any, action: Any) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Both spaces, if the agent can see in one and act in the other."""
    if observation is None or action is None:
        raise ValueError("an agent needs an env, or else an observation_space and an action_space")
    if not isinstance(observation, gymnasium.spaces.Box) or len(observation.shape) not in (1, 3):
        raise ValueError(f"a goal is a vector or an image [h, w, c]; the observation space is {observation}")
    if not isinstance(action, gymnasium.spaces.Box):
        raise ValueError(f"a goal-reaching agent needs continuous actions (Box); the action space is {action}")
    gym_spaces.planner_space(action)
    return observation, action
