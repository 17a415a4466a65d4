"""Mode 1: what an actor does by itself in imagination, and what it is taught there: Mode 2 distilled into it.

An actor that only regresses onto remembered plans goes wrong where it alone goes. So planning is asked there, too:

    1. from what is remembered, spread over all of it, the actor's own futures are imagined
    2. states on them are drawn, in proportion to what the actor's future from there costs more than the cheapest
    3. each is planned from, the actor's future among the planner's starts
    4. the actor regresses onto the beginnings of these plans, and of all earlier ones; and so on from 1

Where planning improves nothing, the plan is the actor's own future, and asks it to stay as it is.

Sources: amortised inference, LeCun (2022), A path towards autonomous machine intelligence, section 3.1.3; asking where the
pupil goes: Ross, Gordon, Bagnell (2011), A reduction of imitation learning and structured prediction to no-regret online
learning, AISTATS.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.planners.base import Planner
from mpc.problem import Problem
from mpc.rollout import Rollout, rollout
from mpc.spaces import Space
from world_models.training.fit import adam_scan

PyTree = Any
Act = Callable[[PyTree, PyTree], jax.Array]
"""`(params, state) -> planner variables [V]`."""
IMITATIONS, IMITATED = 1000, 128  # gradient steps of an imitation, and rows in each
ACTION_CLIP = 0.98  # of the largest action: what an actor that imitates it does at most
CANDIDATES, BEGINNINGS = 2048, 256  # remembered states to spread over, and those that the actor's futures begin at
VISITED = 4  # states along each of these futures
ANYWHERE = 0.1  # share of the drawing that does not look at costs


def react(problem: Problem, act: Act, params: PyTree, state: PyTree, steps: int | None = None) -> jax.Array:
    """Roll an actor out from a state in imagination, in closed loop, and return its planner variables `[steps, V]`.

    Without `steps`, it is rolled out over the problem's horizon.
    """
    space = problem.action_space

    def advance(state: PyTree, _: None) -> tuple[PyTree, jax.Array]:
        action = space.decide(act(params, state))
        return problem.dynamics(params, state, space.embed(action)), space.encode(action)

    steps = problem.horizon if steps is None else steps
    return jax.lax.scan(advance, jax.tree.map(jnp.asarray, state), None, length=steps)[1]


def imitation(raw: Callable[[PyTree, jax.Array], jax.Array], space: Space) -> Callable[..., tuple[PyTree, dict[str, Any]]]:
    """Return a function that regresses an actor onto recorded or planned actions.

    Continuous actions are compared before they are squashed, in mean squares of their artanh: where an actor is sure,
    squashed actions have no slope left. Choices are compared relaxed.

    Args:
        raw: `(weights, seen [N, D]) -> [N, V]`, what is squashed by tanh to be planner variables.
        space: Of actions.

    Returns:
        `(weights, key, seen [N, D], shown [N, A]) -> (weights, {"imitation": the loss in the end})`, with what was done as
        networks see actions, in [-1, 1].
    """

    @jax.jit
    def imitate(weights: PyTree, key: jax.Array, seen: jax.Array, shown: jax.Array) -> tuple[PyTree, dict[str, Any]]:
        def miss(weights: PyTree, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
            rows = jax.random.randint(key, (IMITATED,), 0, len(seen))
            said = raw(weights, seen[rows])
            if space.exact:
                apart = said - jnp.arctanh(ACTION_CLIP * shown[rows])
            else:
                apart = space.relax(space.project(jnp.tanh(said))) - shown[rows]
            loss = jnp.square(apart).sum(axis=-1).mean()
            return loss, {"imitation": loss}

        return adam_scan(miss, weights, jax.random.split(key, IMITATIONS), IMITATIONS, 1e-3)

    return imitate


class ActorAdapter(NamedTuple):
    """Adapts an actor's input, one vector `[D]`, to a planner's problem.

    `begin(params, seen) -> (params, state)` to plan with and from; `see(params, state) -> seen`; `act(params, seen) ->
    planner variables [V]`.
    """

    begin: Callable[[PyTree, jax.Array], tuple[PyTree, PyTree]]
    see: Callable[[PyTree, PyTree], jax.Array]
    act: Callable[[PyTree, jax.Array], jax.Array]

    def course(self, problem: Problem, params: PyTree, state: PyTree) -> jax.Array:
        """The actions `[H, ...]` that the actor would take over a problem's horizon."""
        variables = react(problem, lambda p, s: self.act(p, self.see(p, s)), params, state)
        return problem.action_space.decide(variables)


class ExpertBatch(NamedTuple):
    """Inputs `[N, D]` with the plans' actions there `[N, A]`, as networks see them; and `gain`, by how much these plans cost
    less than the actor's own futures, on average."""

    seen: jax.Array
    shown: jax.Array
    gain: jax.Array


def expert(planner: Planner, actor_adapter: ActorAdapter, *, iterations: int) -> Callable[..., ExpertBatch]:
    """Return a function that plans where an actor goes, with so many iterations of each plan.

    Of each plan the first half counts: its end was made for the sake of nothing that comes after.

    Returns:
        `(params, remembered [N, D], key, plans) -> ExpertBatch`; `remembered` is what may be seen, and `plans`, how many are
        made, is static.
    """
    problem, space = planner.problem, planner.problem.action_space
    imagine = futures(problem, actor_adapter)

    def planned(params: PyTree, seen: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        params, state = actor_adapter.begin(params, seen)
        memory = planner.init(params, state, key, actor_adapter.course(problem, params, state))
        memory = jax.lax.fori_loop(0, iterations, lambda _, m: planner.step(params, state, m), memory)
        plan = planner.plan(params, state, memory)
        first = max(problem.horizon // 2, 1)
        states, actions = jax.tree.map(lambda x: x[:first], (plan.states, plan.actions))
        shown = jax.vmap(space.encode if space.exact else space.embed)(actions)
        return jax.vmap(partial(actor_adapter.see, params))(states), shown, plan.cost

    @partial(jax.jit, static_argnames="plans")
    def expert_batch(params: PyTree, remembered: jax.Array, key: jax.Array, plans: int) -> ExpertBatch:
        draw, pick, search = jax.random.split(key, 3)
        seen, costs = imagine(params, remembered, draw)
        excess_cost = jnp.nan_to_num(costs - jnp.nanmin(costs), posinf=0.0)
        total = excess_cost.sum()
        share = jnp.where(total > 0, excess_cost / jnp.where(total > 0, total, 1.0), 1.0 / len(seen))
        chances = (1 - ANYWHERE) * share + ANYWHERE / len(seen)
        drawn = jax.random.choice(pick, len(seen), (min(plans, len(seen)),), replace=False, p=chances)
        where, shown, reached = jax.vmap(partial(planned, params))(seen[drawn], jax.random.split(search, len(drawn)))
        where, shown = (part.reshape(-1, part.shape[-1]) for part in (where, shown))
        return ExpertBatch(where, shown, (costs[drawn] - reached).mean())

    return expert_batch


def futures(problem: Problem, actor_adapter: ActorAdapter) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Return a function that imagines an actor's futures, with their costs.

    Returns:
        `(params, remembered [N, D], key) -> (seen [M, D], costs [M])`: what it sees on futures that begin at what is
        remembered, spread over all of it, and what its future from there costs, over the horizon and beyond.
    """

    def imagined(params: PyTree, state: PyTree) -> Rollout:
        return rollout(problem, params, state, problem.action_space.embed(actor_adapter.course(problem, params, state)))

    def visited(params: PyTree, seen: jax.Array) -> jax.Array:
        params, state = actor_adapter.begin(params, seen)
        every = max(problem.horizon // VISITED, 1)
        states = jax.tree.map(lambda x: x[:-1:every], imagined(params, state).states)
        return jax.vmap(partial(actor_adapter.see, params))(states)

    @jax.jit
    def imagine(params: PyTree, remembered: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        some = jax.random.permutation(key, remembered)[:CANDIDATES]
        begun = some[spread(some, min(BEGINNINGS, len(some)))]
        seen = jax.vmap(partial(visited, params))(begun).reshape(-1, remembered.shape[1])
        return seen, jax.vmap(lambda seen: imagined(*actor_adapter.begin(params, seen)).energy)(seen)

    return imagine


def spread(points: jax.Array, count: int) -> jax.Array:
    """Indices `[count]` of points `[N, D]` far from each other: each is the farthest from all before it.

    Source: Gonzalez (1985), Clustering to minimize the maximum intercluster distance, Theoretical Computer Science 38.
    """

    def another(apart: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        farthest = jnp.argmax(apart)
        return jnp.minimum(apart, jnp.sum((points - points[farthest]) ** 2, axis=-1)), farthest

    return jax.lax.scan(another, jnp.full(len(points), jnp.inf), None, length=count)[1]
