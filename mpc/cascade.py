"""Plans above plans: what a slower level expects to come about is what the level below it goes for.

    level n:   minimise over u^n   E^n(u^n; g^n)   from s^n = lift^n(s),     g^n = target^n(planned states of level n+1)

Each level has a problem of its own, with steps as long and actions as abstract as it likes; only the highest is told the
goal, and only the actions of the lowest are carried out. A level plans anew once the level below it has planned `every`
times, from what is left of its own plan; in between, its plan stands. All levels together are one program for `jit` and
`vmap`, and any number of levels is the same code.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.6; replanning at every level at its own
rate: Nachum et al. (2018), Data-efficient hierarchical reinforcement learning, arXiv:1805.08296, whose goals a policy makes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc import controller as loops
from mpc.planners.base import Planner

PyTree = Any


class Level(NamedTuple):
    """One level of a cascade; the lowest comes first.

    `planner`: for a problem whose parameters are a mapping with a `goal`. `iterations`: of every plan; `first_iterations`:
    of the first. `every`: plans of the level below, or decisions at the lowest, from one plan to the next. `lift`:
    `(params, state) -> state` of this level, from the state that the cascade is given; `target`:
    `(params, states [H+1, ...], age) -> goal` of the level below, from what this level planned `age` plans of the level
    below ago; `params` hold its own goal.
    """

    planner: Planner
    iterations: int
    first_iterations: int
    every: int
    lift: Callable[[PyTree, PyTree], PyTree] = lambda params, state: state
    target: Callable[[PyTree, PyTree, jax.Array], PyTree] = lambda params, states, age: jax.tree.map(lambda s: s[1], states)


class LevelState(NamedTuple):
    """Where one level stands: the loop of its planner, what it planned, `states` `[H+1, ...]`, and how many plans of the
    level below are made since."""

    loop: loops.ControllerState
    states: PyTree
    age: jax.Array


class Cascade(NamedTuple):
    """`first(params, state, key) -> (level_states, action)`, `next(params, state, level_states) -> (level_states, action)`.

    `params` is a sequence with the parameters of each level's problem, the lowest first, all mappings; that of the highest
    has the `goal`. A standing for every level, the lowest first, carries what is planned; where a level's plan is not
    finite, what it planned before stands, and the action is in bounds in any case.
    """

    first: Callable[[Sequence[PyTree], PyTree, jax.Array], tuple[tuple[LevelState, ...], jax.Array]]
    next: Callable[[Sequence[PyTree], PyTree, tuple[LevelState, ...]], tuple[tuple[LevelState, ...], jax.Array]]
    levels: tuple[Level, ...]


def cascade(levels: Sequence[Level]) -> Cascade:
    """Stack levels.

    Args:
        levels: The lowest first, at least one.

    Raises:
        ValueError: If there is none, the lowest does not plan at every decision, or a number is less than 1; by `first`,
            when it is traced, if the parameters are not one mapping for each level.
    """
    levels = tuple(levels)
    if not levels:
        raise ValueError("a cascade needs at least one level")
    for index, level in enumerate(levels):
        if min(level.every, level.iterations, level.first_iterations) < 1:
            raise ValueError(f"every, iterations and first_iterations must be at least 1; got {level[1:4]} at level {index}")
    if levels[0].every != 1:
        raise ValueError(f"the lowest level acts, and plans at every decision: every must be 1; got {levels[0].every}")
    top = len(levels) - 1

    def told(params: PyTree, index: int, above: tuple[PyTree, LevelState] | None) -> PyTree:
        """The parameters of a level's problem, its goal among them; `above`: those of the level above, and how it stands."""
        if above is None:
            return params
        given, rank_key = above
        return {**params, "goal": levels[index + 1].target(given, rank_key.states, rank_key.age)}

    def plan(
        level: Level, params: PyTree, state: PyTree, loop: loops.ControllerState, before: LevelState | None, iterations: int
    ) -> tuple[LevelState, jax.Array]:
        improved = loops.improve(level.planner, params, state, loop, iterations)
        later, made, action = loops.finish(level.planner, params, state, improved, loop)
        states = made.states
        if before is not None:
            fine = made.status != loops.Status.NOT_FINITE
            states = jax.tree.map(lambda new, old: jnp.where(fine, new, old), states, before.states)
        return LevelState(later, states, jnp.zeros((), jnp.int32)), action

    def first(params: Sequence[PyTree], state: PyTree, key: jax.Array) -> tuple[tuple[LevelState, ...], jax.Array]:
        if len(params) != len(levels):
            raise ValueError(f"params must hold the parameters of each of {len(levels)} levels; got {len(params)}")
        level_states: list[LevelState] = []
        above, action = None, jnp.zeros(())
        for index in range(top, -1, -1):
            key, draw = jax.random.split(key)
            level, given = levels[index], told(params[index], index, above)
            here = level.lift(params[index], state)
            loop = loops.begin(level.planner, given, here, draw)
            rank_key, action = plan(level, given, here, loop, None, level.first_iterations)
            above = given, rank_key
            level_states.append(rank_key)
        return tuple(reversed(level_states)), action

    def next_(
        params: Sequence[PyTree], state: PyTree, level_states: tuple[LevelState, ...]
    ) -> tuple[tuple[LevelState, ...], jax.Array]:
        aged = list(level_states)
        # a level is due when the one below it has planned often enough, and that one when the one below it has
        due = [jnp.asarray(True)]
        for index in range(1, len(levels)):
            age = aged[index].age + due[-1]
            aged[index] = aged[index]._replace(age=age)
            due.append(due[-1] & (age >= levels[index].every))
        renewed: list[LevelState] = []
        above, action = None, jnp.zeros(())
        for index in range(top, -1, -1):
            level, given, rank_key = levels[index], told(params[index], index, above), aged[index]
            here = level.lift(params[index], state)

            def anew(rank_key: LevelState, level: Level = level, given: PyTree = given, here: PyTree = here):
                return plan(level, given, here, rank_key.loop, rank_key, level.iterations)

            if index == 0:
                rank_key, action = anew(rank_key)
            else:
                rank_key = jax.lax.cond(due[index], lambda s, f=anew: f(s)[0], lambda s: s, rank_key)
            above = given, rank_key
            renewed.append(rank_key)
        return tuple(reversed(renewed)), action

    return Cascade(first, next_, levels)
