"""The configurator: turns a task into a program and its parameters, at run time, without learning or compiling anew.

Of a task, the horizon, the number of starts, which terms count, and whether there are limits select a program, which is
compiled when it is first asked for, and kept. Everything else is a parameter: another goal, weight, limit, risk, or number
of iterations never recompiles, in the middle of an episode, too.

    minimise over u    CVaR_risk over futures of  Σ_t Σ_i w_i c_i(s[t], u[t], t) + Σ_i w_i c_i(s[H])
    subject to         limit_j(o[t], u[t-1], t) ≤ bound_j,      o the decoded observation

Source: the configurator of LeCun (2022), A path towards autonomous machine intelligence, section 3.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mpc.agent.components import FUTURES, Components
from mpc.agent.configurator.task import Task, TaskError, TaskSchema, read_goal, validate
from mpc.agent.cost import terms
from mpc.agent.cost.terms import LOOSE, Shape
from mpc.agent.perception import gym_spaces

PyTree = Any
FAMILIAR = 0.99
"""Share of the experienced latents that count as familiar."""


class OutOfDistributionGoal(UserWarning):
    """A goal is unlike anything that the model was trained on; plans to it may mean little."""


class Setup(NamedTuple):
    """A task made ready: the shape of its program, and the parameters that it adds to those that were learnt.

    `observation`: the goal; `mask`: 1 where it counts. `measures_goal`: whether it is whole, and the agent has a distance to
    it. `milliseconds`: that a decision may take, or None.
    """

    shape: Shape
    weights: dict[str, np.float32]
    limits: dict[str, np.float32]
    observation: np.ndarray
    mask: np.ndarray
    has_goal: bool
    measures_goal: bool
    risk: np.float32
    iterations: np.int32
    milliseconds: float | None


def schema(made: Components) -> TaskSchema:
    """Return what tasks for agents of a kind may name."""
    goals = tuple(name for name in terms.available(made.parts) if "goal" in name)
    weights = dict.fromkeys(terms.available(made.parts), 1.0)
    return TaskSchema(weights, tuple(made.parts.limits), made.history.observation, goals, made.model.latents is not None)


def with_goal(task: Task, made: Components) -> Task:
    """Return a task whose goal, where it was given as a file, is read; a file without an observation raises a TaskError."""
    if not isinstance(task.goal, str | Path):
        return task
    try:
        return replace(task, goal=read_goal(task.goal, made.history.observation))
    except ValueError as error:
        raise TaskError("the task", [f"goal {error}"]) from error


def set_up(task: Task, made: Components, origin: np.ndarray | None = None) -> Setup:
    """Return what a task asks of an agent's kind; a TaskError has everything that is wrong with it.

    `origin` `[O]` is what the model's observations are relative to, see `gym_spaces.origin`; None for zeros.
    """
    problems = validate(task, schema(made))
    if not problems and task.goal is not None and made.observation_dtype == np.uint8 and not _is_image(task.goal):
        problems = ["goal must hold whole numbers from 0 to 255, as images do"]
    if problems:
        raise TaskError("the task", problems)
    shape, actor = made.history.observation, made.config.actor
    goal = None if task.goal is None else gym_spaces.centred(np.asarray(task.goal).reshape(shape), origin)
    mask = np.zeros(shape, np.float32) if goal is None else np.isfinite(goal).astype(np.float32)
    kind = None if goal is None else "whole" if mask.all() else "partial"
    try:
        weights = terms.default_weights(made.config, made.parts, kind)
    except ValueError as error:
        raise TaskError("the task", [str(error)]) from error
    weights |= dict(task.weights)
    horizon, starts = task.horizon or actor.horizon, task.starts or actor.starts
    active = {name for name, weight in weights.items() if weight}
    if made.config.cost.exploration_bonus and "disagreement" in weights and kind is None:
        active.add("disagreement")  # its weight is not 0 while learning
    futures = 0 if made.model.latents is None else FUTURES
    program = Shape(horizon, starts, tuple(sorted(active)), bool(task.limits), futures)
    return Setup(
        program,
        {name: np.float32(weight) for name, weight in weights.items()},
        {name: np.float32(task.limits.get(name, LOOSE)) for name in made.parts.limits},
        np.zeros(shape, np.float32) if goal is None else np.nan_to_num(goal).astype(np.float32),
        mask,
        goal is not None,
        kind == "whole" and made.distance is not None,
        np.float32(1.0 if task.risk is None else task.risk),
        np.int32(task.iterations or actor.iterations),
        task.milliseconds,
    )


def _is_image(goal: Any) -> bool:
    numbers = np.asarray(goal)
    return bool((numbers == np.round(numbers)).all() and numbers.min() >= 0 and numbers.max() <= 255)


def cost_params(setup: Setup, made: Components, goal: jax.Array) -> dict[str, PyTree]:
    """Return the parameters that a task adds to those that were learnt; `goal` is the latent `[D]` of its goal."""
    cost: dict[str, PyTree] = {"weights": dict(setup.weights), "goal": goal}
    if setup.limits:
        cost["limits"] = dict(setup.limits)
    if made.parts.decodes:
        cost |= {"observation": setup.observation, "mask": setup.mask}
    found: dict[str, PyTree] = {"cost": cost, "iterations": setup.iterations}
    return found if made.model.latents is None else found | {"risk": setup.risk}


class Familiarity:
    """Tells goals that are unlike what was experienced, by the distance to the nearest latent `[N, D]` of that."""

    def __init__(self, latents: np.ndarray) -> None:
        self._known, others = latents[::2], latents[1::2]
        self.threshold = float(np.quantile([self.novelty(z) for z in others], FAMILIAR)) if len(others) else np.inf

    def novelty(self, latent: np.ndarray) -> float:
        """Return the root mean square distance of a latent `[D]` to the nearest known one."""
        return float(np.sqrt(np.min(np.mean((self._known - np.asarray(latent)) ** 2, axis=1))))

    def check(self, latent: np.ndarray) -> None:
        """Warn of a goal that is further from what was experienced than nearly all of that is from itself."""
        found = self.novelty(latent)
        if found > self.threshold:
            warnings.warn(
                f"the goal is unlike what the model has seen: {found:.3g} from the nearest latent, where {FAMILIAR:.0%} of "
                f"what it has seen are at most {self.threshold:.3g}; it is planned for all the same",
                OutOfDistributionGoal,
                stacklevel=3,
            )
