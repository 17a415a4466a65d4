"""One plan for many models: problems whose state holds N worlds side by side, with the energy of each so far."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.costs import Total, itemise
from mpc.problem import Problem
from mpc.risk.measures import Measure, ParametricCVaR

PyTree = Any


class ScenarioState(NamedTuple):
    """The state of a risk-aware problem: N worlds `[N, ...]`, what each has cost so far `[N]`, and the step."""

    states: PyTree
    spent: jax.Array
    time: jax.Array


def over_models(problem: Problem, measure: Measure, count: int) -> Problem:
    """Plan one action sequence for all members of an ensemble of models.

    Args:
        problem: With dynamics and costs that read one model, `params["model"]`.
        measure: Of the members' energies; see this module.
        count: Number of members N: the leading axis of every leaf of `params["model"]` that the new problem is given.

    Returns:
        A problem whose plans show all members' states, `plan.states.states [H+1, N, ...]`; named costs are means over
        members, and the term `risk` is what the measure adds to them.

    Raises:
        ValueError: If the count is less than 1, the problem has latents (apply `over_latents` first), or a term is called
            risk; when solving, if a leaf of `params["model"]` has another leading axis.
    """
    if problem.latents is not None:
        raise ValueError("the problem has latents: apply mpc.risk.over_latents first, then over_models to what it returns")

    def each(function: Callable, params: PyTree, states: PyTree, *rest: Any) -> Any:
        model = params["model"]
        for path, leaf in jax.tree.leaves_with_path(model):
            if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != count:
                where = f"params['model']{jax.tree_util.keystr(path)}"
                raise ValueError(f"{where} must have a leading axis of {count} members; got shape {list(jnp.shape(leaf))}")
        return jax.vmap(lambda m, s: function({**params, "model": m}, s, *rest))(model, states)

    def advance(params: PyTree, worlds: ScenarioState, action: jax.Array) -> PyTree:
        return each(problem.dynamics, params, worlds.states, action)

    def spread(params: PyTree, state: PyTree) -> PyTree:
        return each(problem.lifted, params, copies(state, count))

    return over_scenarios(problem, measure, count, each, advance, spread)


def over_scenarios(
    problem: Problem,
    measure: Measure,
    count: int,
    each: Callable[..., Any],
    advance: Callable[[PyTree, ScenarioState, jax.Array], PyTree],
    spread: Callable[[PyTree, PyTree], PyTree],
) -> Problem:
    """The problem over N worlds, where `each` calls a function in every world and `advance` takes them a step further."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of worlds, at least 1; got {count!r}")
    for cost in (problem.cost, problem.terminal_cost):
        if isinstance(cost, Total) and "risk" in cost.weighted:
            raise ValueError("a cost term is called risk, which is the name of what the measure adds; rename it")

    def dynamics(params: PyTree, worlds: ScenarioState, action: jax.Array) -> ScenarioState:
        spent = worlds.spent + each(problem.cost, params, worlds.states, action, step_index(worlds))
        return ScenarioState(advance(params, worlds, action), spent, worlds.time + 1)

    def stage(params: PyTree, worlds: ScenarioState, action: jax.Array, t: jax.Array) -> dict[str, jax.Array]:
        return _means(each(itemise(problem.cost, "stage"), params, worlds.states, action, t))

    def terminal(params: PyTree, worlds: ScenarioState) -> dict[str, jax.Array]:
        energies, terms = worlds.spent, {}
        if problem.terminal_cost is not None:
            energies = energies + each(problem.terminal_cost, params, worlds.states)
            terms = _means(each(itemise(problem.terminal_cost, "terminal"), params, worlds.states))
        # the worlds of a world may have a risk of their own, already part of its energy
        risk = measure(energies, params) if isinstance(measure, ParametricCVaR) else measure(energies)
        return terms | {"risk": terms.get("risk", 0.0) + risk - jnp.mean(energies)}

    def begin(params: PyTree, state: PyTree) -> ScenarioState:
        dtype = jnp.result_type(float)
        return ScenarioState(spread(params, state), jnp.zeros(count, dtype), jnp.zeros((), dtype))

    constraints = [
        replace(c, function=lambda params, worlds, *rest, f=c.function: each(f, params, worlds.states, *rest))
        for c in problem.constraints
    ]
    return Problem(
        dynamics,
        Terms(stage),
        Terms(terminal),
        horizon=problem.horizon,
        action_space=problem.action_space,
        constraints=constraints,
        lift=begin,
    )


class Terms(Total):
    """A cost whose named terms come from one function; their sum is the cost."""

    def __init__(self, terms: Callable[..., dict[str, jax.Array]]) -> None:
        super().__init__({})
        self.terms = terms


def _means(terms: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.mean(values) for name, values in terms.items()}


def copies(state: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda s: jnp.broadcast_to(s, (count, *jnp.shape(s))), state)


def step_index(worlds: ScenarioState) -> jax.Array:
    """The step as an index; collocation may hand in a clock that is off by a little."""
    return jnp.round(worlds.time).astype(jnp.int32)
