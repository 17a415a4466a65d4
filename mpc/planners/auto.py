"""A planner chosen for a problem by what can be read off its functions and sizes."""

import json
import logging
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, invalidate, resume
from mpc.planners.config import PlannerConfig, make_planner
from mpc.problem import Problem
from mpc.rollout import energy

PyTree = Any

LOG = logging.getLogger(__name__)
LARGEST = 64
"""Numbers in a state and the variables of a step up to which second derivatives are worth what they cost."""
SEVERAL = {"starts": 6, "options": {"screen": (24, 20), "continuation": 10}}
"""Starts of planners that find a local optimum: a single one fails on half of fourteen problems of the literature."""


def recommend(problem: Problem, params: PyTree, state: PyTree) -> tuple[PlannerConfig, str]:
    """Recommend a planner for a problem by its space, its size and the derivatives it has; nothing is computed.

    Derivatives that exist and are 0 everywhere, as of rounded costs, are not noticed: there, name a planner that samples.

    Args:
        problem: The problem to plan for.
        params: Parameters of its functions.
        state: One state, as `solve` is given it; arrays or their shapes.

    Returns:
        The planner's configuration, and why it was chosen.

    Raises:
        ValueError: If the problem's functions do not fit the state.
    """
    problem.check(params, state)
    space = problem.action_space
    if not space.exact:
        return PlannerConfig("cem"), f"actions of {type(space).__name__} are choices, which sampling tries as they are"
    flaw = _not_smooth(problem, params, state, second=False)
    if flaw is not None:
        return PlannerConfig("icem"), f"the energy has no gradient ({flaw})"
    if not space.separable:
        return PlannerConfig("gradient"), f"{type(space).__name__} ties steps together, which ilqr cannot"
    size = space.size + sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(problem.lifted, params, state)))
    if size > LARGEST:
        return PlannerConfig("gradient"), f"second derivatives by {size} numbers a step cost more than they spare"
    flaw = _not_smooth(problem, params, state, second=True)
    if flaw is not None:
        return PlannerConfig("gradient"), f"the energy has a gradient, and no second derivatives ({flaw})"
    return PlannerConfig("ilqr", **SEVERAL), f"the problem is smooth and small: {size} numbers a step"


def _not_smooth(problem: Problem, params: PyTree, state: PyTree, *, second: bool) -> str | None:
    """Tell why the energy has no gradient by the actions, or no second derivatives; None if it has."""
    action = problem.inputs()[0]
    actions = jax.ShapeDtypeStruct((problem.horizon, *action.shape), action.dtype)

    def derivatives(actions: jax.Array, params: PyTree, state: PyTree) -> Any:
        def value(actions: jax.Array) -> jax.Array:
            return energy(problem, params, problem.lifted(params, state), actions)

        if not second:
            return jax.grad(value)(actions)
        return jax.jvp(lambda a: (value(a), jax.grad(value)(a)), (actions,), (jnp.ones_like(actions),))

    try:
        jax.eval_shape(derivatives, actions, params, state)
    except (TypeError, ValueError, NotImplementedError) as error:
        return str(error).splitlines()[0][:100]
    return None


def auto(problem: Problem, *, precision: str | None = None) -> Planner:
    """Plan by whichever planner suits the problem, chosen when parameters and a state are first seen.

    What was chosen, and why, is logged as information by `mpc.planners.auto`, and told by `recommend`.

    Args:
        problem: The problem to plan for.
        precision: Of planners that take one (see `mpc.planners.precision`).
    """
    own = _Auto(problem, precision)
    return Planner(own.init, own.step, own.plan, own.shift, own.inject, problem)


@partial(jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=["config"])
@dataclass(frozen=True)
class AutoState:
    """The state of the planner that was chosen, and its configuration as JSON."""

    inner: Any
    config: str

    @property
    def cost(self) -> jax.Array:
        """The cost of the plan, as the planner that was chosen has it."""
        return self.inner.cost

    @property
    def optimality(self) -> jax.Array:
        """The measure of the planner that was chosen."""
        return self.inner.optimality

    def invalidate(self) -> "AutoState":
        """Forget the cost of the plan: the problem changed."""
        return AutoState(invalidate(self.inner), self.config)

    def resume(self) -> "AutoState":
        """The plan, for another solve."""
        return AutoState(resume(self.inner), self.config)


@dataclass(frozen=True, eq=False)
class _Auto:
    problem: Problem
    precision: str | None

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: PyTree = None) -> AutoState:
        config, why = recommend(self.problem, params, state)
        LOG.info("planning by %s: %s", config.name, why)
        config = replace(config, precision=self.precision if config.name == "ilqr" else None)
        text = json.dumps(config.as_dict())
        return AutoState(_built(self.problem, text).init(params, state, key, guess), text)

    def step(self, params: PyTree, state: PyTree, planner_state: AutoState) -> AutoState:
        config = planner_state.config
        return AutoState(_built(self.problem, config).step(params, state, planner_state.inner), config)

    def plan(self, params: PyTree, state: PyTree, planner_state: AutoState) -> Plan:
        return _built(self.problem, planner_state.config).plan(params, state, planner_state.inner)

    def shift(self, planner_state: AutoState) -> AutoState:
        return AutoState(_built(self.problem, planner_state.config).shift(planner_state.inner), planner_state.config)

    def inject(self, planner_state: AutoState, actions: jax.Array) -> AutoState:
        config = planner_state.config
        return AutoState(_built(self.problem, config).inject(planner_state.inner, actions), config)


@lru_cache(maxsize=64)
def _built(problem: Problem, config: str) -> Planner:
    return make_planner(problem, PlannerConfig.from_dict(json.loads(config)))
