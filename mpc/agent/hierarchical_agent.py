"""A goal-reaching agent that plans on several levels: far ahead in macro-actions, and what comes next in actions.

    level n > 1:   minimise over noise u            (Σ_t c(z[t]) + c(z[H]) + hope_weight Σ_t ½ |u[t]|²
                                                     + leap_weight Σ_t max(0, d(z[t-1], z[t]) / stride - 1.1)²) / H,
                                                    c(z) = 1 - exp(-d(z, g) / near)
    level 1:       minimise over blocks u           what the agent minimises, to where level 2 expects to be in one step,
                                                    or to the goal where that is nearer

All levels plan by gradient, in the agent's own latent space and distance, each at its own rate: a level anew when one of its
steps is over. Together they are one compiled program (`mpc.cascade`).

The noise u[t] stands for the macro-actions that recordings show from where the plan is by then, heading as it does
(`world_models.macro`). A distance learnt from recordings tells little about what is many steps away, so the upper levels
ask it whether a place is near the goal, and whether one of their steps is longer than the blocks in it, as through a wall,
and find the way by imagining it.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mpc
from mpc.agent.actor import goal_policy
from mpc.agent.goal_agent import GoalAgent
from mpc.agent.world_model.residual_correction import Corrections, nothing
from mpc.cascade import Cascade, Level, LevelState
from world_models import macro
from world_models.base import WorldModel
from world_models.data import Dataset
from world_models.io import checkpoint
from world_models.pixels import Latent

PyTree = Any
LONGEST = 1.1
"""Of a step of a level, in steps of the distance for each block in it."""
LOWEST, ABOVE = "lowest", "above"
"""Folders of a checkpoint: what the agent learnt, and the levels above it."""


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
    near: float = 1.5
    """Distance at which a place begins to count as near the goal."""
    prior_weight: float = 0.1
    """Of how unlikely macro-actions are."""
    reachability_weight: float = 0.0
    """Of steps that lead farther, by the distance, than the blocks in them can; for a distance whose unit is a block."""
    candidates: int = 64
    """Plans that an episode begins with, of which the best are improved."""
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
        if (
            not self.strides
            or min(numbers) < 1
            or not (min(self.prior_weight, self.reachability_weight) >= 0 < min(self.sigma, self.near))
        ):
            raise ValueError(f"a hierarchy needs a level above, positive numbers, and weights of at least 0; got {self}")
        if self.candidates < self.starts:
            raise ValueError(f"starts are the best of candidates, of which there must be as many or more; got {self}")


class CascadeState(NamedTuple):
    """Plans on all levels being carried out.

    `state`: what the model believed when they were made. `actions` `[block, A]`: of the environment, to be taken one after
    the other. `level_states`: of every level, the lowest first; their `states` are what it expects. `corrections`: what
    has gone otherwise than predicted.
    """

    state: PyTree
    actions: jax.Array
    level_states: tuple[LevelState, ...]
    corrections: Corrections


class GoalPredictState(NamedTuple):
    """What `predict` hands over from one call to the next."""

    goal: np.ndarray
    course: CascadeState
    age: int
    """Actions of the block that have been taken."""


class HierarchicalAgent:
    """Levels above what a goal-reaching agent has learnt.

    Args:
        agent: Whose model, distance and planner are the lowest level, as they are when an action is asked for.
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
        self._size = agent.latent
        given = {"macro": s.macro, "hidden": s.hidden, "sigma": s.sigma}
        self.models = [macro.macro_model(self._size, stride=k, **given) for k in s.strides]
        self.params = [m.init(jax.random.fold_in(jax.random.key(seed), i)) for i, m in enumerate(self.models)]
        self.blocks = agent.blocks
        self.cascade = self._cascade()
        self._first, self._next = jax.jit(self.first), jax.jit(self.next)

    def _cascade(self) -> Cascade:
        a, s = self.agent, self.settings
        task = goal_policy.problem(a.model, a.distance, self.blocks, a.settings.horizon)
        lowest = Level(
            goal_policy.planner(task, a.settings, a.settings.iterations),
            a.settings.iterations,
            a.settings.first_iterations,
            1,
        )
        levels, below = [lowest], 1
        for stride, model in zip(s.strides, self.models, strict=True):
            levels.append(upper(model, a.distance.measure, s, stride, stride // below))
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
        data = macro.encode_dataset(dataset, self.agent._latents, self.agent.settings.block)
        told = []
        for index, (model, stride) in enumerate(zip(self.models, self.settings.strides, strict=True)):
            key = jax.random.fold_in(jax.random.key(self.seed), index)
            self.params[index], metrics = macro.learn(model, data, key, stride=stride, updates=self.settings.updates)
            told.append(metrics)
        return told

    # Acting; the first three are pure, and over many episodes can be `vmap`ped

    def parameters(self, latent: Any) -> dict[str, Any]:
        """Everything that plans depend on, as `first` and `next` take it.

        Args:
            latent: Of the goal, `[D]`.
        """
        return self.agent._parameters(latent) | {"above": self.params}

    def first(self, params: PyTree, observation: jax.Array, key: jax.Array) -> CascadeState:
        """The plans at the beginning of an episode."""
        state = self.agent.model.encode(params["model"], observation)
        corrections = nothing(self.agent.settings.correction_memory, self._size, self.blocks.size)
        level_states, action = self.cascade.first(self._levels(params, corrections), state, key)
        return CascadeState(state, action.reshape(self.agent.settings.block, -1), level_states, corrections)

    def next(self, params: PyTree, observation: jax.Array, course: CascadeState) -> CascadeState:
        """The plans a block later."""
        a, taken = self.agent, course.actions.reshape(1, -1)
        state, corrections = goal_policy.perceive(
            a.model, self.blocks, params["model"], observation, course.state, taken, course.corrections
        )
        level_states, action = self.cascade.next(self._levels(params, corrections), state, course.level_states)
        return CascadeState(state, action.reshape(a.settings.block, -1), level_states, corrections)

    def _levels(self, params: PyTree, corrections: Corrections) -> list[dict[str, Any]]:
        """The parameters of each level's problem, the lowest first."""
        lowest = {name: part for name, part in params.items() if name not in ("above", "goal")} | {"recent": corrections}
        above = [
            {"model": part, "distance": params["distance"], "before": _before(corrections, stride)}
            for part, stride in zip(params["above"], self.settings.strides, strict=True)
        ]
        above[-1]["goal"] = params["goal"]
        return [lowest, *above]

    def predict(
        self, observation: Any, goal: Any, state: GoalPredictState | None = None
    ) -> tuple[np.ndarray, GoalPredictState]:
        """Decide on one action of the environment.

        Args:
            observation: What is seen now. Where it is not finite, what the model expected is gone by instead.
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
            params = self.parameters(a.encode(a.training.params, wanted).latent)
            if state is None or fresh:
                course = self._first(params, seen, jax.random.key(self.seed))
            else:
                course = self._next(params, seen, state.course)
            state = GoalPredictState(wanted, course, 0)
        action = np.asarray(state.course.actions[state.age]).reshape(a.action_space.shape)
        bounded = np.clip(action, a.action_space.low, a.action_space.high).astype(a.action_space.dtype)
        return bounded, state._replace(age=state.age + 1)

    # Keeping

    def save(self, path: str | os.PathLike) -> Path:
        """Write everything that was learnt on all levels; `load` makes an agent of it that predicts as this one does.

        Args:
            path: A folder; made when missing.
        """
        path = Path(path)
        self.agent.save(path / LOWEST)
        kept = {
            "kind": "hierarchy",
            "settings": asdict(self.settings),
            "seed": self.seed,
            "beneath": self.agent.updates,
        }
        checkpoint.save(path / ABOVE, self.params, kept, step=self.settings.updates)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike, *, above: dict[str, Any] | None = None, **lowest: Any) -> "HierarchicalAgent":
        """Read what `save` wrote.

        Args:
            path: The folder.
            above: What to change of the settings of the levels above that do not shape what was learnt: horizon, starts,
                iterations, weights.
            **lowest: As for `GoalAgent.load`.

        Raises:
            CheckpointError: If either part is foreign, damaged or of another format, or the levels above were learnt on
                other representations than those of the agent beside them.
        """
        path = Path(path)
        kept = checkpoint.describe(path / ABOVE)["metadata"]
        if kept.get("kind") != "hierarchy":
            raise checkpoint.CheckpointError(f"{path / ABOVE} is a checkpoint, but not of levels above an agent")
        agent = GoalAgent.load(path / LOWEST, **lowest)
        if kept["beneath"] != agent.updates:
            raise checkpoint.CheckpointError(
                f"{path}: the levels above were learnt on an agent of {kept['beneath']} updates, and the one beside them "
                f"has had {agent.updates}"
            )
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in kept["settings"].items()
        }
        made = cls(agent, settings=HierarchySettings(**given | (above or {})), seed=kept["seed"])
        made.params, _ = checkpoint.load(path / ABOVE, made.params)
        return made


def upper(model: WorldModel, measure: Any, settings: HierarchySettings, stride: int, every: int) -> Level:
    """A level that plans macro-actions.

    Args:
        model: Of `world_models.macro.macro_model`.
        measure: `(params of the distance, latent, goal) -> scalar`.
        settings: How to plan.
        stride: Blocks of the agent in one of its steps.
        every: Plans of the level below in one of its steps.
    """
    horizon, none = settings.horizon, jnp.zeros(0)
    reach = [mpc.risk.LATENT_BOUND] * settings.macro

    def far(params: PyTree, state: Latent, *_: Any) -> jax.Array:
        return 1.0 - jnp.exp(-measure(params["distance"], state.latent, params["goal"]) / settings.near)

    def hope(params: PyTree, state: Latent, macro: jax.Array, t: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(macro**2)

    def leap(params: PyTree, state: Latent, *_: Any) -> jax.Array:
        moved = measure(params["distance"], state.latent - state.memory, state.latent)
        return jax.nn.relu(moved / stride - LONGEST) ** 2

    each = 1.0 / horizon
    leaps = (each * settings.reachability_weight, leap)
    asked = settings.reachability_weight > 0  # it takes another look at the distance
    problem = mpc.Problem(
        lambda params, state, macro: model.predict(params["model"], state, none, macro),
        mpc.costs.total(way=(each, far), hope=(each * settings.prior_weight, hope), **({"leap": leaps} if asked else {})),
        mpc.costs.total(end=(each, far), **({"last": leaps} if asked else {})),
        horizon=horizon,
        action_space=mpc.Box([-r for r in reach], reach),
    )

    def target(params: PyTree, states: Latent, age: jax.Array) -> jax.Array:
        """Where this level expects to be after its next step; its own goal where it expects to be about there by then."""
        left = jax.vmap(lambda z: measure(params["distance"], z, params["goal"]))(states.latent)
        arrived = left <= jnp.minimum(left.min() + 0.5 * settings.near, settings.near)
        return jnp.where(arrived[:2].any(), params["goal"], states.latent[1])

    steps = optax.cosine_decay_schedule(0.1, settings.iterations, alpha=0.1)
    screen = (settings.candidates, 1)
    planner = mpc.gradient(problem, optimizer=optax.adam(steps), starts=settings.starts, spread=0.5, screen=screen)
    return Level(planner, settings.iterations, settings.first_iterations, every, lift, target)


def lift(params: PyTree, state: Any) -> Latent:
    """A level's state from that of the lowest: the same representation, and what the last step of the level changed."""
    before, known = params["before"]
    return Latent(state.latent, jnp.where(known, state.latent - before, 0.0))


def _before(corrections: Corrections, blocks: int) -> tuple[jax.Array, jax.Array]:
    """The representation so many blocks ago, and whether it is remembered."""
    if len(corrections.reach) < blocks:
        return jnp.zeros(corrections.latents.shape[1]), jnp.asarray(False)
    return corrections.latents[blocks - 1], corrections.reach[blocks - 1] > 0
