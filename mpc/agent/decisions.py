"""Deciding: tasks, plans, reactions, and imagined futures."""

import math
import os
import time
import warnings
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.agent.actor.policy import PolicyState
from mpc.agent.actor.programs import Program
from mpc.agent.actor.time_budget import Mode, TimeBudget
from mpc.agent.components import Components, Given
from mpc.agent.config import AgentConfig
from mpc.agent.configurator import configurator
from mpc.agent.configurator.task import Task, read
from mpc.agent.learner import Learner
from mpc.agent.perception import gym_spaces
from mpc.deploy.host import on_host
from world_models import WorldModel

PyTree = Any


class PredictState(NamedTuple):
    """The state that `predict` hands to its next call.

    `policy`: the state of every plan, `[B, ...]`. `held`: the actions being executed. `left`: agent steps that they are
    still held for (action repeat). `task`: number of the task that the plans are for.
    """

    policy: PolicyState
    held: np.ndarray
    left: np.ndarray
    task: int

    def released(self) -> "PredictState":
        """Return the state with no action held any longer: the next call decides."""
        return self._replace(left=np.zeros_like(self.left))


class NothingLearnt(UserWarning):
    """An agent is asked to decide before it has learnt, or has not taken enough steps to learn from."""


class SaveInstead:
    """A part that cannot be pickled, and says so for the agent that holds it; copies of the agent share it."""

    def __reduce__(self) -> Any:
        raise TypeError(
            "an agent cannot be pickled, for it holds compiled functions: use agent.save(path), Agent.load(path)"
        )

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class DecidingAgent:
    """The part of an agent that decides; `Agent` sets what it decides with."""

    config: AgentConfig
    components: Components
    learner: Learner
    given: Given
    render: Any
    observation_space: Any
    action_space: Any
    seed: int
    samples: np.ndarray | None
    """Rows of the recordings learnt from, in which imagined futures are shown; None before."""
    key: jax.Array

    def __init__(self) -> None:
        self._pickling, self._warned = SaveInstead(), False
        self._budget, self._tasks = TimeBudget(), 0
        self._goal: tuple[Any, jax.Array] | None = None
        self._familiarity: tuple[int, configurator.Familiarity] | None = None

    def warn_if_nothing_is_learnt(self, doing: str) -> None:
        """Warn, once, of a model to be learnt whose weights are still random.

        Args:
            doing: What is done with it.
        """
        untrained = not self.learner.trained and jax.tree.leaves(self.learner.training.params["network"])
        if untrained and not self._warned:
            self._warned = True
            warnings.warn(
                f"nothing is learnt yet, {doing}: a model is first trained after random_steps="
                f"{self.config.learning.random_steps} environment steps of learn, or by learn_from",
                NothingLearnt,
                stacklevel=3,
            )

    def rows(self, observations: Any, batched: bool) -> np.ndarray:
        """Return observations as the model takes them, `[B, *shape]`, relative to the origin.

        Args:
            observations: One, or a batch with a leading axis in every part.
            batched: Which of the two.
        """
        return gym_spaces.rows(self.observation_space, observations, batched, self.learner.origin)

    def locate(self, first: np.ndarray) -> None:
        """Make the first observation that is learnt from the origin of all, where float32 might not tell them apart.

        Args:
            first: `[O]`, in the precision of the environment.
        """
        learner, known = self.learner, self.given.model is not None or self.render is not None
        if learner.located or known or first.size != math.prod(self.components.history.observation):
            return
        learner.origin, learner.located = gym_spaces.origin(self.observation_space, first), True
        if learner.origin is not None:
            self.configure(self.task)  # its goal is relative to the origin, too

    def warn_of_rounding(self) -> None:
        """Warn where float32, in which exported policies take observations, rounds away what they tell."""
        origin, scales = self.learner.origin, self.learner.training.params.get("scales")
        if origin is None or scales is None:
            return
        varies = np.asarray(scales.observation_std)[: len(origin)]
        lost = np.abs(origin) * np.finfo(np.float32).eps > 0.05 * varies
        if lost.any():
            warnings.warn(
                f"exported policies take observations in float32, which rounds numbers {np.flatnonzero(lost).tolist()} by "
                "much of what they vary: have the environment return them relative to a value nearby",
                stacklevel=3,
            )

    def seed_key(self) -> jax.Array:
        """Return the key of the agent's seed, of the implementation that the agent was made with."""
        return jax.random.key(self.seed, impl=jax.random.key_impl(self.key))

    def draw(self) -> jax.Array:
        """Return a fresh key."""
        self.key, drawn = jax.random.split(self.key)
        return drawn

    @property
    def params(self) -> PyTree:
        """Everything that plans depend on: what was learnt, and the task."""
        return self.learner.params | configurator.cost_params(self.setup, self.components, self._goal_latent())

    @property
    def program(self) -> Program:
        """The compiled policy for the present task."""
        return self.components.program(self.setup.shape, self.learner.goal_actor is not None)

    @property
    def policy(self) -> mpc.Policy:
        """The policy for the present task, for controllers, exporters and servers; its parameters are `params`."""
        return self.program.policy

    @property
    def model(self) -> WorldModel:
        """The world model."""
        return self.components.model

    def configure(self, task: Task | str | os.PathLike[str]) -> Self:
        """Set what to do from now on; nothing is trained, and nothing compiled for a shape of task that was seen before.

        Args:
            task: A task, or the path of a TOML file that describes one.

        Raises:
            TaskError: With everything that is wrong with it.
            ValueError: If the planner's settings do not fit.

        Warns:
            OutOfDistributionGoal: If the goal is unlike what the agent has learnt from.
        """
        if not isinstance(task, Task):
            task = read(task, configurator.schema(self.components))
        task = configurator.with_goal(task, self.components)
        self.setup, self.task = configurator.set_up(task, self.components, self.learner.origin), task
        self._tasks, self._goal = self._tasks + 1, None
        _ = self.program  # so that a planner that does not fit is told of now, not at the first decision
        if self.setup.measures_goal and self.samples is not None:
            self.familiarity().check(np.asarray(self._goal_latent()))
        return self

    def familiarity(self) -> configurator.Familiarity:
        """Return what tells goals that are unlike the recordings learnt from; without any, it raises a ValueError."""
        if self.samples is None:
            raise ValueError("nothing was learnt from recordings yet, to compare a goal with")
        if self._familiarity is None or self._familiarity[0] != self.learner.updates:
            latents = np.asarray(self.learner.encode_rows(self.samples))
            self._familiarity = self.learner.updates, configurator.Familiarity(latents)
        return self._familiarity[1]

    def _latent(self, observation: np.ndarray) -> jax.Array:
        """The latent `[D]` of an observation, as if an episode began with it."""
        seen = self.components.history.model_input(self.components.history.begin(observation, np), np)
        return self.components.encode(self.learner.training.params, seen).latent

    def _goal_latent(self) -> jax.Array:
        """The latent of the goal, kept for as long as the model stays the same; 0 where no distance to it is measured."""
        if not self.setup.measures_goal:
            return jnp.zeros(self.components.latent)
        if self._goal is None or self._goal[0] is not self.learner.training:
            latent = self._latent(self.setup.observation.astype(self.components.observation_dtype))
            self._goal = self.learner.training, latent
        return self._goal[1]

    # Predicting

    @on_host
    def predict(
        self,
        observation: Any,
        state: PredictState | None = None,
        episode_start: Any = None,
        deterministic: bool = True,
        mode: Mode = "plan",
    ) -> tuple[np.ndarray, PredictState]:
        """Decide on actions for one observation or a batch of them.

        Args:
            observation: One observation, or a batch with a leading axis. Where one is not finite, the model's expectation
                takes its place.
            state: As the last call returned it; None where an episode begins. Plans of another task are begun anew.
            episode_start: `[B]`, where episodes begin.
            deterministic: Without exploration noise.
            mode: `"plan"`; `"react"`, the actor alone, at a small part of the compute; or milliseconds per decision: plans
                as long as plans have been taking no longer, and reacts otherwise. Where the task allows so many
                milliseconds, an agent that plans does so, too, or, without an actor, spends fewer iterations.

        Returns:
            Actions of the action space, finite and in bounds, and the state for the next call.

        Raises:
            ValueError: If the observation has the wrong shape, the state is of another number of them, there is no such
                mode, or no actor to react with.
        """
        self.warn_if_nothing_is_learnt("so that predict decides by random weights")
        batched = gym_spaces.is_batched(self.observation_space, observation)
        rows = self.rows(observation, batched)
        starts = np.zeros(len(rows), bool) if episode_start is None else np.asarray(episode_start, bool).reshape(-1)
        if len(starts) != len(rows):
            raise ValueError(f"episode_start is of {len(starts)} observations, and {len(rows)} arrived")
        if state is not None and state.task != self._tasks:
            state = None
        if state is not None and len(state.left) != len(rows):
            raise ValueError(
                f"the state is of {len(state.left)} observations, and {len(rows)} arrived: pass state=None instead"
            )
        due = starts | (np.ones(len(rows), bool) if state is None else state.left == 0)
        if due.any():
            before = None if state is None else state.policy
            params, mode = self._in_time(len(rows), mode)
            policy, held = self._decide(params, rows, before, starts, due, deterministic, mode)
            left = np.zeros(len(rows), int) if state is None else state.left
            state = PredictState(policy, held, left, self._tasks)
        assert state is not None
        repeat = self.config.perception.action_repeat
        state = state._replace(left=np.where(due, repeat, state.left) - 1)
        return (state.held if batched else state.held[0]).copy(), state  # environments may write into actions

    def _in_time(self, decisions: int, mode: Mode) -> tuple[PyTree, Mode]:
        """The parameters and the mode to decide in the milliseconds that the task allows."""
        params, limit = self.params, self.setup.milliseconds
        if mode != "plan" or limit is None:
            return params, mode
        if self.program.react is not None:
            return params, limit
        spent = self._budget.iterations((self.setup.shape, decisions), int(self.setup.iterations), limit)
        return params | {"iterations": np.int32(spent)}, mode

    def _decide(
        self,
        params: PyTree,
        rows: np.ndarray,
        state: PolicyState | None,
        starts: np.ndarray,
        due: np.ndarray,
        deterministic: bool,
        mode: Mode = "plan",
    ) -> tuple[PolicyState, np.ndarray]:
        """The policy's state after a decision, and the actions as the environment takes them."""
        program = self.program
        if mode != "plan" and program.react is None:
            raise ValueError(f"mode={mode!r} needs an actor, and this agent has none yet: distil makes one")
        kind = self.setup.shape, len(rows)
        plans = self._budget.plans(mode, kind)
        if state is None or starts.any():
            init = program.init if mode == "plan" else program.init_briefly
            fresh = init(params, rows, jax.random.split(self.seed_key(), len(rows)))
            state = fresh if state is None else program.choose(starts, fresh, state)
        assert state is not None
        again = program.due(state) & due
        later = state
        if again.any():
            decide, begun = program.decide if plans else program.react, time.perf_counter()
            assert decide is not None
            decided = jax.block_until_ready(decide(params, rows, state))
            later = decided if again.all() else program.choose(again, decided, state)
            if plans:
                self._budget.spent(kind, 1e3 * (time.perf_counter() - begun), int(params["iterations"]))
        holding = due & ~again
        if holding.any():
            later = program.choose(holding, program.hold(params, rows, state), later)
        actions = program.actions(later)
        if not deterministic:
            noisy = np.asarray(program.perturb(actions, self.draw()))
            actions = np.where(due.reshape(-1, *(1,) * (actions.ndim - 1)), noisy, actions)  # held ones stay as they are
            later = program.executed(later, actions)
        return later, actions.astype(self.action_space.dtype)  # type: ignore[arg-type]

    def imagine(self, state: PredictState) -> PyTree:
        """Return the states `[H+1, ...]` that the plan under way (of a batch, the first) was expected to lead to."""
        return jax.tree.map(lambda x: x[0], state.policy.plan.states)

    def distance(self, observation: Any, goal: Any = None) -> float:
        """Return how far an observation is from another, or from the task's goal, in the distance that plans minimise."""
        if self.components.distance is None:
            raise ValueError('this agent measures no distance to goals: set distance="temporal", or give it a goal task')
        ends = [self.encode(observation), self.params["cost"]["goal"] if goal is None else self.encode(goal)]
        return float(self.components.distance.measure(self.learner.distance, *ends))

    def encode(self, observation: Any) -> jax.Array:
        """Return the latent `[D]` of one observation, as if an episode began with it."""
        return self._latent(self.rows(observation, batched=False)[0])
