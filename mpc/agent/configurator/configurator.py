"""The configurator: sets a planner up for the task at hand, while it runs, without learning or compiling anew.

A task (`tasks`) names a goal, weights of the cost's terms, limits, a horizon, how much risk to take and how much to compute.
Of these the horizon, the number of starts, and whether there are limits make a program of their own, which is compiled when
it is first asked for, and kept. Everything else is a parameter: switching is free, in the middle of an episode, too.

    minimise over u    CVaR_risk over futures of  Σ_t Σ_i w_i c_i(s[t], u[t], t) + Σ_i w_i c_i(s[H], 0, H)
    subject to         limit_j(s[t], u[t-1], t) ≤ bound_j

Source: the configurator of LeCun (2022), A path towards autonomous machine intelligence, section 3.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.agent.actor import goal_policy
from mpc.agent.configurator.task import Task, TaskError, TaskSchema, read, understood
from mpc.agent.goal_agent import GoalAgent
from world_models.base import WorldModel

PyTree = Any
Term = Callable[..., jax.Array]
LOOSE = 1e6
"""A bound that nothing exceeds, of limits that a task does not set."""
KNOWN = 0.99
"""Share of what was seen that counts as familiar."""


class OutOfDistributionGoal(UserWarning):
    """A goal is unlike anything that the model has seen; plans to it may mean little."""


class Configurator:
    """Plans for whatever task it was given last.

    Terms and limits are functions `(params, state, action, t) -> scalar` of what is imagined, with `params["model"]`,
    `params["cost"]["goal"]` (the goal's state) and `params["cost"]["mask"]` (1 for every number of the goal's observation
    that matters, else 0). Terms count at every step, and at the end of the horizon with an action of zeros.

    Args:
        model: Predicts.
        params: Its parameters.
        space: Of one action of the model, as planners see it.
        observation: An example of what is observed.
        terms: `name=(default weight, term)`.
        limits: `name=function` that a task may bound from above.
        goals: Names of the terms that need a goal.
        beside: Parameters that terms and limits find beside these, `params[name]`.
        futures: Draws of the latent variable that plans are held against, where the model has one.
        doubt: `(params of the model, state) -> scalar`, how little the model knows there; see `disagreement`.
        seen: Observations that it has seen, `[N, ...]`: goals that are doubted more than nearly all of these are warned of.

    Raises:
        ValueError: If there is no term, or a name in `goals` is none.

    Example:
        >>> configurator.configure(configurator.read("task.toml"))  # doctest: +SKIP
        >>> action = configurator.act(observation)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: WorldModel,
        params: PyTree,
        space: mpc.Box,
        observation: Any,
        *,
        terms: Mapping[str, tuple[float, Term]],
        limits: Mapping[str, Term] | None = None,
        goals: tuple[str, ...] = ("goal",),
        beside: Mapping[str, PyTree] | None = None,
        futures: int = 8,
        disagreement: Callable[[PyTree, Any], jax.Array] | None = None,
        seen: Any = None,
    ):
        if missing := [name for name in goals if name not in terms]:
            raise ValueError(f"goals names terms that are not there: {', '.join(missing)}; terms are {', '.join(terms)}")
        self.model, self.params, self.space, self.futures = model, params, space, futures
        self.terms, self.limits, self.beside = dict(terms), dict(limits or {}), dict(beside or {})
        self.task: Task | None = None
        self._example = np.asarray(observation)
        self._programs: dict[tuple[int, int, bool], mpc.Controller] = {}
        self._encode = jax.jit(lambda params, o: model.encode(params, o))
        uncertain = model.latents is not None
        weights = {name: weight for name, (weight, _) in self.terms.items()}
        self.vocabulary = TaskSchema(weights, tuple(self.limits), self._example.shape, goals, uncertain)
        self._disagreement = None if disagreement is None else jax.jit(disagreement)
        self.familiar = np.inf
        """Doubt up to which a goal is familiar."""
        if disagreement is not None and seen is not None:
            every = jax.jit(jax.vmap(lambda o: disagreement(params, model.encode(params, o))))(jnp.asarray(seen))
            self.familiar = float(np.quantile(np.asarray(every), KNOWN))

    @property
    def shapes(self) -> list[tuple[int, int, bool]]:
        """Horizon, starts, and whether there are limits, of the programs compiled so far."""
        return list(self._programs)

    @property
    def controller(self) -> mpc.Controller:
        """What plans for the present task; its `plan` is the last one.

        Raises:
            ValueError: If there is no task yet.
        """
        if self.task is None:
            raise ValueError("there is nothing to do yet: configure(task) first")
        return self._programs[_shape(self.task)]

    def read(self, path: str | Path) -> Task:
        """Read a task file in this configurator's names.

        Raises:
            TaskError: With every problem and its line.
            OSError: If the file cannot be read.
        """
        return read(path, self.vocabulary)

    def configure(self, task: Task) -> None:
        """Plan for a task from now on, whatever was planned before.

        Args:
            task: Of `read`, or made in code.

        Raises:
            TaskError: With everything that is wrong with it.

        Warns:
            Unfamiliar: If the goal is unlike what the model has seen, with its doubt.
        """
        self._refuse(task)
        goal = np.zeros_like(self._example) if task.goal is None else task.goal.astype(self._example.dtype)
        mask = np.isfinite(goal) if task.goal is not None else np.zeros(goal.shape, bool)
        wanted = self._encode(self.params, np.where(mask, goal, np.zeros_like(goal)))
        cost = {
            "goal": wanted,
            "mask": jnp.asarray(mask, jnp.float32),
            "weights": {name: jnp.float32(task.weights.get(name, weight)) for name, (weight, _) in self.terms.items()},
            "limits": {name: jnp.float32(task.limits.get(name, LOOSE)) for name in self.limits},
        }
        params = self.beside | {"model": self.params, "cost": cost, "risk": jnp.float32(task.risk)}
        shape, start = _shape(task), self._encode(self.params, self._example)
        if shape not in self._programs:
            planner = mpc.gradient(self._problem(*shape), starts=task.starts, spread=0.5)
            # with a deadline, iterations are a number and no program of their own
            self._programs[shape] = mpc.Controller(planner, params, state=start, iterations=1, deadline=3600.0)
        controller = self._programs[shape]
        controller.params, controller.iterations = params, task.iterations
        controller.deadline = 3600.0 if task.milliseconds is None else task.milliseconds / 1000.0
        controller.reset()
        self.task = task
        if self._disagreement is not None and task.goal is not None and mask.all():
            disagreement = float(self._disagreement(self.params, wanted))
            if not disagreement <= self.familiar:
                warnings.warn(
                    f"the goal is unlike what the model has seen: its disagreement there is {disagreement:.3g}, and at most "
                    f"{self.familiar:.3g} for {KNOWN:.0%} of what it has seen; it is planned for all the same",
                    OutOfDistributionGoal,
                    stacklevel=2,
                )

    def act(self, observation: Any) -> np.ndarray:
        """Decide what to do now, for the present task.

        Args:
            observation: What is seen; one that is not finite gets the next action of the last plan.

        Returns:
            An action of the space, finite and in bounds.

        Raises:
            ValueError: If there is no task yet, or the observation has another shape.
        """
        seen = np.asarray(observation)
        if seen.shape != self._example.shape:
            raise ValueError(f"the observation has shape {seen.shape}, and {self._example.shape} was wanted")
        return self.controller.act(self._encode(self.params, seen.astype(self._example.dtype)))

    def _refuse(self, task: Task) -> None:
        given: dict[str, Any] = {"weights": dict(task.weights), "limits": dict(task.limits)}
        given |= {"horizon": task.horizon, "risk": task.risk}
        budget = {"iterations": task.iterations, "starts": task.starts, "milliseconds": task.milliseconds}
        given["budget"] = {name: value for name, value in budget.items() if value is not None}
        if task.goal is not None:
            given["goal"] = task.goal
        _, problems = understood(given, self.vocabulary)
        if problems:
            raise TaskError("the task", [what for _, what in problems])

    def _problem(self, horizon: int, starts: int, limited: bool) -> mpc.Problem:
        def step(params: PyTree, state: Any, action: jax.Array, *latent: jax.Array) -> Any:
            return self.model.predict(params["model"], state, action, *latent)

        still = jnp.zeros(self.space.shape)
        stage = {name: (weight, term) for name, (weight, term) in self.terms.items()}
        end = {name: (weight, _ended(term, still, horizon)) for name, (weight, term) in self.terms.items()}
        latents = self.model.latents
        problem = mpc.Problem(
            # a function of just as many arguments as there are
            step if latents is not None else lambda params, state, action: step(params, state, action),
            mpc.costs.total(**stage),
            mpc.costs.total(**end),
            horizon=horizon,
            action_space=self.space,
            constraints=[_bounded(name, limit) for name, limit in self.limits.items()] if limited else (),
            latents=latents,
        )
        return problem if latents is None else mpc.risk.over_latents(problem, mpc.risk.cvar_from_params(), self.futures)


def _shape(task: Task) -> tuple[int, int, bool]:
    """What of a task asks for a program of its own."""
    return task.horizon, task.starts, bool(task.limits)


def _ended(term: Term, still: jax.Array, horizon: int) -> Callable[[PyTree, Any], jax.Array]:
    return lambda params, state: term(params, state, still, jnp.asarray(horizon))


def _bounded(name: str, limit: Term) -> mpc.constraints.Constraint:
    def excess(params: PyTree, state: Any, action: jax.Array, t: jax.Array) -> jax.Array:
        return limit(params, state, action, t) - params["cost"]["limits"][name]

    return mpc.constraints.inequality(excess, name=name)


def to_goal(params: PyTree, state: Any, action: jax.Array, t: jax.Array) -> jax.Array:
    """A term for models whose latents are the observation: half the squared distance to the goal, in what matters of it."""
    return 0.5 * jnp.sum(params["cost"]["mask"] * (state.latent - params["cost"]["goal"].latent) ** 2)


def effort(space: mpc.Box, params: PyTree, state: Any, action: jax.Array, t: jax.Array) -> jax.Array:
    """A term, given a space: the mean square of an action, 1 being the largest."""
    return jnp.mean(space.encode(action) ** 2)


def for_goals(agent: GoalAgent) -> Configurator:
    """A configurator of what a goal-reaching agent has learnt; its actions are blocks `[block * A]` of the environment's.

    Terms are `goal`, the agent's distance, and `effort`. Goals are doubted by how far they are from the pictures in the
    agent's album.

    Args:
        agent: Of which model, distance and bounds are taken, as they are now.
    """
    seen, settings, bounds = agent.observation_space, agent.settings, agent.action_space
    space = goal_policy.space(bounds.low, bounds.high, settings.block, settings.action_limit)

    def far(params: PyTree, state: Any, action: jax.Array, t: jax.Array) -> jax.Array:
        return agent.distance.measure(params["distance"], state.latent, params["cost"]["goal"].latent)

    familiarity: dict[str, Any] = {}
    if agent.album is not None:
        shown = np.asarray(agent.album if agent.render is None else agent.render(jnp.asarray(agent.album)))
        known = jax.lax.map(lambda o: agent.model.encode(agent.training.params, o).latent, jnp.asarray(shown[::2]))
        familiarity = {"disagreement": nearest_latent_distance(known), "seen": shown[1::2]}
    return Configurator(
        agent.model,
        agent.training.params,
        space,
        np.zeros(seen.shape, seen.dtype),
        terms={"goal": (1.0, far), "effort": (settings.effort_weight, partial(effort, space))},
        beside={"distance": agent.distance_params},
        **familiarity,
    )


def disagreement(model: WorldModel, space: mpc.Box, count: int = 8) -> Callable[[PyTree, Any], jax.Array]:
    """How far an ensemble's members disagree about a step from a state, the mean over some actions.

    Args:
        model: Whose states have a `disagreement`.
        space: Of its actions.
        count: Of actions.
    """
    variables = np.random.default_rng(0).uniform(-1, 1, (count, space.size)).astype(np.float32)

    def disagreement(params: PyTree, state: Any) -> jax.Array:
        return jax.vmap(lambda a: model.predict(params, state, space.relax(a)).disagreement)(jnp.asarray(variables)).mean()

    return disagreement


def nearest_latent_distance(known: Any) -> Callable[[PyTree, Any], jax.Array]:
    """How far a state is from the nearest known one: for models that have no ensemble to ask.

    Args:
        known: Latents `[K, D]` of what was seen, other observations than those that the configurator is told as `seen`.
    """
    rows = jnp.asarray(known)
    return lambda params, state: jnp.sqrt(jnp.min(jnp.mean((rows - state.latent) ** 2, axis=1)))
