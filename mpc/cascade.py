"""Planners above planners: the states that a slower level expects are the goals of the level below it.

    level n:   minimise over u^n   E^n(u^n; g^n)   from s^n = lift^n(s),     g^n = target^n(planned states of level n+1)

Each level has a problem of its own, with steps as long and actions as abstract as it likes. Only the highest level is given
the goal, and only the actions of the lowest are executed. A level plans anew once the level below it has planned `every`
times, from the rest of its own plan; until then its plan stands. All levels together are one program for `jit` and `vmap`,
and any number of levels is the same code.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.6; replanning at every level at its own
rate: Nachum et al. (2018), Data-efficient hierarchical reinforcement learning, arXiv:1805.08296, whose goals a policy makes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Plan, Planner, Status, tree_where
from mpc.policy import ControllerState, Decision, begin, conclude, improve, shift

PyTree = Any


class Level(NamedTuple):
    """One level of a cascade; the lowest comes first.

    `planner`: for a problem that reads its goal from `params["cost"]["goal"]`. `iterations`: of every plan;
    `first_iterations`: of the first. `every`: plans of the level below, or decisions at the lowest, from one plan to the
    next. `lift`: `(params, state) -> state` of this level, from the state that the cascade is given; `target`: `(params,
    states [H+1, ...], age) -> goal` of the level below, from the states that this level planned `age` plans of the level
    below ago; `params` hold its own goal.
    """

    planner: Planner
    iterations: int
    first_iterations: int
    every: int
    lift: Callable[[PyTree, PyTree], PyTree] = lambda params, state: state
    target: Callable[[PyTree, PyTree, jax.Array], PyTree] = lambda params, states, age: jax.tree.map(lambda s: s[1], states)


class LevelState(NamedTuple):
    """The state of one level between two decisions.

    `controller`: the receding horizon of its planner. `states`: `[H+1, ...]`, the states it planned. `age`: int32, plans of
    the level below that were made since, the one to come included.
    """

    controller: ControllerState
    states: PyTree
    age: jax.Array


class Cascade(NamedTuple):
    """Pure functions that plan at every level.

    `init(params, state, key) -> level_states`: plan every level, from the highest down, with its `first_iterations`.
    `step(params, state, level_states, candidate=None) -> (level_states, Decision)`: plan every level that is due; the
    decision is that of the lowest level, which is always due. `candidate`: actions `[H, ...]` for the lowest level to take
    up, an actor's proposal for example.

    `params` is a sequence with the parameters of each level's problem, the lowest first, all mappings; that of the highest
    has the goal, `params["cost"]["goal"]`. `level_states` are as many `LevelState`, the lowest first. Where a level's plan
    is not finite, its last plan stands, and the action is in bounds in any case.
    """

    init: Callable[[Sequence[PyTree], PyTree, jax.Array], tuple[LevelState, ...]]
    step: Callable[..., tuple[tuple[LevelState, ...], Decision]]
    levels: tuple[Level, ...]


def cascade(levels: Sequence[Level]) -> Cascade:
    """Stacks levels.

    Args:
        levels: The lowest first, at least one.

    Raises:
        ValueError: If there is none, the lowest does not plan at every decision, or a number is less than 1; by `init`, when
            it is traced, if the parameters are not one mapping for each level.
    """
    levels = tuple(levels)
    if not levels:
        raise ValueError("a cascade needs at least one level")
    for index, level in enumerate(levels):
        if min(level.every, level.iterations, level.first_iterations) < 1:
            raise ValueError(f"every, iterations and first_iterations must be at least 1; got {level[1:4]} at level {index}")
    if levels[0].every != 1:
        raise ValueError(f"the lowest level acts, and plans at every decision: every must be 1; got {levels[0].every}")
    return Cascade(partial(_init, levels), partial(_step, levels), levels)


def _init(levels: tuple[Level, ...], params: Sequence[PyTree], state: PyTree, key: jax.Array) -> tuple[LevelState, ...]:
    if len(params) != len(levels):
        raise ValueError(f"params must hold the parameters of each of {len(levels)} levels; got {len(params)}")
    level_states: list[LevelState] = []
    given: PyTree = None
    for index in reversed(range(len(levels))):
        key, draw = jax.random.split(key)
        level = levels[index]
        given = _with_goal(levels, params, index, given, level_states[-1] if level_states else None)
        here = level.lift(params[index], state)
        begun = begin(level.planner, given, here, draw)
        controller, plan = _planned(level, given, here, begun, level.first_iterations)
        if index > 0:  # it plans next when a step of its own has passed; the lowest, at the first `step`, when none has
            controller = shift(level.planner, controller)
        level_states.append(LevelState(controller, plan.states, jnp.zeros((), jnp.int32)))
    return tuple(reversed(level_states))


def _step(
    levels: tuple[Level, ...],
    params: Sequence[PyTree],
    state: PyTree,
    level_states: tuple[LevelState, ...],
    candidate: jax.Array | None = None,
) -> tuple[tuple[LevelState, ...], Decision]:
    due, after = _due(levels, level_states), list(level_states)
    bottom, lowest = levels[0], after[0]
    given: PyTree = None
    for index in range(len(levels) - 1, 0, -1):
        above = after[index + 1] if index + 1 < len(levels) else None
        given = _with_goal(levels, params, index, given, above)
        anew = partial(_replanned, levels[index], given, levels[index].lift(params[index], state))
        after[index] = jax.lax.cond(due[index], lambda s, anew=anew: anew(s)[0], lambda s: s, after[index])
    given = _with_goal(levels, params, 0, given, after[1] if len(levels) > 1 else None)
    if candidate is not None:
        planner_state = bottom.planner.inject(lowest.controller.planner_state, candidate)
        lowest = lowest._replace(controller=lowest.controller._replace(planner_state=planner_state))
    after[0], plan = _replanned(bottom, given, bottom.lift(params[0], state), lowest)
    return _aged(levels, after), Decision(plan.actions[0], plan, plan.status)


def _with_goal(
    levels: tuple[Level, ...], params: Sequence[PyTree], index: int, above: PyTree, above_state: LevelState | None
) -> PyTree:
    """Returns the parameters of a level's problem with the goal that the level above sets; None above at the top."""
    if above_state is None:
        return params[index]
    goal = levels[index + 1].target(above, above_state.states, above_state.age)
    return {**params[index], "cost": {**params[index].get("cost", {}), "goal": goal}}


def _planned(
    level: Level, params: PyTree, state: PyTree, controller: ControllerState, iterations: int
) -> tuple[ControllerState, Plan]:
    improved = improve(level.planner, params, state, controller, iterations)
    return conclude(level.planner, params, state, improved, before=controller)


def _replanned(level: Level, params: PyTree, state: PyTree, level_state: LevelState) -> tuple[LevelState, Plan]:
    """Plans one level anew, and shifts it; its last states stand where the plan is not finite."""
    controller, plan = _planned(level, params, state, level_state.controller, level.iterations)
    fine = plan.status != Status.NOT_FINITE
    states = tree_where(fine, plan.states, level_state.states)
    return LevelState(shift(level.planner, controller), states, jnp.zeros((), jnp.int32)), plan


def _due(levels: tuple[Level, ...], level_states: Sequence[LevelState]) -> list[jax.Array]:
    """Returns which levels plan at this decision: one whose level below plans, and has planned often enough."""
    due = [jnp.asarray(True)]
    for level, level_state in zip(levels[1:], level_states[1:], strict=True):
        due.append(due[-1] & (level_state.age >= level.every))
    return due


def _aged(levels: tuple[Level, ...], level_states: Sequence[LevelState]) -> tuple[LevelState, ...]:
    """Counts, for every level, the plan that the level below it makes at the next decision."""
    aged, due = [level_states[0]], jnp.asarray(True)
    for level, level_state in zip(levels[1:], level_states[1:], strict=True):
        age = level_state.age + due
        aged.append(level_state._replace(age=age))
        due = due & (age >= level.every)
    return tuple(aged)
