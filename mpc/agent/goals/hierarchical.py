"""A goal-reaching agent that plans on several levels: far ahead in macro-actions, and what comes next in actions.

    level n > 1:   minimise over macro-actions m    Σ_t d(z[t], g) / H + d(z[H], g) + hope_weight Σ_t ½ |m[t]|² / H
    level 1:       minimise over blocks u           what the agent minimises, to where level 2 expects to be in one step

All levels plan by gradient, in the agent's own latent space and distance, each at its own rate: a level anew when one of its
steps is over. Together they are one compiled program (`mpc.cascade`).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mpc
from mpc.agent.goals import pursuit
from mpc.agent.goals.agent import GoalAgent
from mpc.agent.goals.recent import nothing
from mpc.cascade import Cascade, Level, Standing
from world_models import hierarchy
from world_models.base import WorldModel
from world_models.datasets import Dataset
from world_models.pixels import Latent

PyTree = Any


@dataclass(frozen=True)
class HierarchySettings:
    """How levels above an agent's model learn and plan.

    Raises:
        ValueError: If a stride is no multiple of the one below, or a number is out of range.
    """

    strides: tuple[int, ...] = (4,)
    """Blocks of the agent in a step of each level above, the lowest first."""
    macro: int = 2
    """Size of a macro-action."""
    sigma: float = 0.1
    """Deviation of errors in what a level predicts that need no explanation, in units of a representation: with higher
    values macro-actions say less."""
    horizon: int = 6
    """Steps that each of them imagines ahead."""
    hope_weight: float = 0.1
    """Of how unlikely macro-actions are."""
    starts: int = 16
    """Plans that are improved side by side."""
    first_iterations: int = 60
    """Iterations of an episode's first plan."""
    iterations: int = 20
    """Iterations of every later plan."""
    updates: int = 4000
    """Gradient steps of each level."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of hidden layers."""

    def __post_init__(self):
        below = 1
        for stride in self.strides:
            if stride <= below or stride % below:
                raise ValueError(f"every stride must be a multiple of the one below, and longer; got {self.strides}")
            below = stride
        numbers = (self.macro, self.horizon, self.starts, self.first_iterations, self.iterations, self.updates)
        if not self.strides or min(numbers) < 1 or not (self.hope_weight >= 0 and self.sigma > 0):
            raise ValueError(
                f"a hierarchy needs a level above, positive numbers and a hope_weight of at least 0; got {self}"
            )


class Underway(NamedTuple):
    """What `predict` hands over from one call to the next."""

    goal: np.ndarray
    standings: tuple[Standing, ...]
    actions: np.ndarray
    """Of the block being carried out, `[block, A]`."""
    age: int


class HierarchicalAgent:
    """Levels above what a goal-reaching agent has learnt.

    Args:
        agent: Whose model, distance and planner are the lowest level, as they are when an action is asked for. What it
            remembers of recent mistakes (`recall`) is not used.
        settings: Of the levels above.
        seed: Of their weights and of plans.

    Raises:
        ValueError: If the settings don't fit the agent's: a step of the lowest level above must be imagined by the agent.
    """

    def __init__(self, agent: GoalAgent, *, settings: HierarchySettings | None = None, seed: int = 0):
        self.agent, self.seed = agent, seed
        self.settings = s = HierarchySettings() if settings is None else settings
        if s.strides[0] > agent.settings.horizon:
            raise ValueError(
                f"a step of {s.strides[0]} blocks is longer than the {agent.settings.horizon} blocks that the agent imagines"
            )
        size = jax.eval_shape(lambda p: agent.model.encode(p, self._blank()), agent.training.params).latent.shape[0]
        given = {"macro": s.macro, "hidden": s.hidden, "sigma": s.sigma}
        self.models = [hierarchy.slower(size, stride=k * agent.settings.block, **given) for k in s.strides]
        self.params = [m.init(jax.random.fold_in(jax.random.key(seed), i)) for i, m in enumerate(self.models)]
        self.cascade = self._cascade()
        self._first, self._next = jax.jit(self.cascade.first), jax.jit(self.cascade.next)
        self._encode = jax.jit(lambda params, o: agent.model.encode(params, o))

    def _blank(self) -> jax.Array:
        space = self.agent.observation_space
        return jnp.zeros(space.shape, space.dtype)

    def _cascade(self) -> Cascade:
        a, s = self.agent, self.settings
        space = pursuit.space(a.action_space.low, a.action_space.high, a.settings.block, a.settings.action_limit)
        task = pursuit.problem(a.model, a.distance, space, a.settings.horizon)
        lowest = Level(
            pursuit.planner(task, a.settings, a.settings.iterations), a.settings.iterations, a.settings.first_iterations, 1
        )
        levels, below = [lowest], 1
        for stride, model in zip(s.strides, self.models, strict=True):
            levels.append(upper(model, a.distance.measure, s, stride // below))
            below = stride
        return mpc.cascade.cascade(levels)

    def learn(self, dataset: Dataset) -> list[dict[str, float]]:
        """Learn every level above from what the agent learnt from, in its representations as they are now.

        Args:
            dataset: As for `GoalAgent.learn`.

        Returns:
            The metrics of each level.

        Raises:
            DatasetError: If its trajectories are too short for a level.
        """
        data = hierarchy.represented(dataset, self.agent._latents)
        told = []
        for index, (model, stride) in enumerate(zip(self.models, self.settings.strides, strict=True)):
            key = jax.random.fold_in(jax.random.key(self.seed), index)
            rows = stride * self.agent.settings.block
            self.params[index], metrics = hierarchy.learn(
                model, data, key, stride=rows, updates=self.settings.updates, window=2
            )
            told.append(metrics)
        return told

    def parameters(self, goal: Any) -> list[dict[str, Any]]:
        """What the cascade is given to go to a goal, an observation."""
        lowest = self.agent.parameters(goal)
        block = self.agent.action_space.low.size * self.agent.settings.block
        wanted = lowest.pop("goal")
        lowest["recent"] = nothing(0, wanted.shape[0], block)
        above = [{"model": params, "distance": lowest["distance"]} for params in self.params]
        above[-1] = above[-1] | {"goal": wanted}
        return [lowest, *above]

    def predict(self, observation: Any, goal: Any, state: Underway | None = None) -> tuple[np.ndarray, Underway]:
        """Decide on one action of the environment.

        Args:
            observation: What is seen now.
            goal: What shall be seen, an observation.
            state: What the last call returned beside the action; None at the beginning of an episode.

        Returns:
            An action of the action space, finite and in bounds, and the state to give to the next call.

        Raises:
            ValueError: If observation or goal have another shape or dtype than the environment's, or the goal is not finite.
        """
        a = self.agent
        seen, wanted = a._checked(observation, "observation"), a._goal(goal)
        fresh = state is None or not np.array_equal(state.goal, wanted)
        if state is None or fresh or state.age >= a.settings.block:
            params, here = self.parameters(wanted), self._encode(a.training.params, seen)
            if state is None or fresh:
                standings, action = self._first(params, here, jax.random.key(self.seed))
            else:
                standings, action = self._next(params, here, state.standings)
            state = Underway(wanted, standings, np.asarray(action).reshape(a.settings.block, -1), 0)
        action = state.actions[state.age].reshape(a.action_space.shape)
        bounded = np.clip(action, a.action_space.low, a.action_space.high).astype(a.action_space.dtype)
        return bounded, state._replace(age=state.age + 1)


def upper(model: WorldModel, measure: Any, settings: HierarchySettings, every: int) -> Level:
    """A level that plans macro-actions.

    Args:
        model: Of `world_models.hierarchy.slower`.
        measure: `(params of the distance, latent, goal) -> scalar`.
        settings: How to plan.
        every: Plans of the level below in one of its steps.
    """
    horizon, none = settings.horizon, jnp.zeros(0)
    reach = [mpc.risk.REACH] * settings.macro

    def far(params: PyTree, state: Latent, *_: Any) -> jax.Array:
        return measure(params["distance"], state.latent, params["goal"])

    def hope(params: PyTree, state: Latent, macro: jax.Array, t: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(macro**2)

    problem = mpc.Problem(
        lambda params, state, macro: model.predict(params["model"], state, none, macro),
        mpc.costs.total(way=(1.0 / horizon, far), hope=(settings.hope_weight / horizon, hope)),
        mpc.costs.total(end=(1.0, far)),
        horizon=horizon,
        action_space=mpc.Box([-r for r in reach], reach),
    )
    steps = optax.cosine_decay_schedule(0.1, settings.iterations, alpha=0.1)
    planner = mpc.gradient(problem, optimizer=optax.adam(steps), starts=settings.starts, spread=0.5)
    return Level(planner, settings.iterations, settings.first_iterations, every, lift, target)


def lift(params: PyTree, state: Any) -> Latent:
    """A level's state from that of the lowest: the same representation."""
    return Latent(state.latent, ())


def target(params: PyTree, states: Any, age: jax.Array) -> jax.Array:
    """Where a level expects to be after its next step, as a goal of the level below."""
    return states.latent[1]
