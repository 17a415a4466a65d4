"""Collocation: states and actions are both variables, and every time step is improved at once.

    minimise over s, u   Σ_t c(s[t], u[t], t) + c_T(s[H]) + Σ_t λ[t+1]·d[t] + ρ/2 |d[t] / scale|²,
    where                d[t] = f(s[t], u[t]) - s[t+1]          is the defect, 0 where states are what the actions lead to

an augmented Lagrangian whose gradient needs no recursion over time: all H steps are one `vmap`, of the same depth for any
horizon, and no gradient passes through more than one step. The multipliers λ are the costates (Betts 2010; with learned
models, noise on the states and gradients stopped at the model's input: GRASP, Psenka et al. 2025). Once a round the actions
are rolled out, to know what they are really worth and, when it is due, to synchronise states and multipliers with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from mpc.planners.base import Planner, plan_from_choice, shifted, tree_where
from mpc.planners.candidates import Candidate, compete, emptied, injector, later, no_candidate
from mpc.planners.lagrangian import constrained
from mpc.planners.multistart import multistart
from mpc.planners.reverse import refuse, unless_refused
from mpc.problem import Problem
from mpc.rollout import energy, rollout

PyTree = Any


class CollocationState(NamedTuple):
    """State of the search, for model states of n numbers.

    `variables`: `[H, V]`. `states`, `costates`: `[H, n]`, of s[1..H]. `scale`: `[n]`, by how much each coordinate varies.
    `penalty`: ρ. `rounds`: since the search began. `best`: the variables whose rollout cost least, `cost`.
    `candidate`: a slot for one.
    """

    variables: jax.Array
    states: jax.Array
    costates: jax.Array
    optimizer: Any
    scale: jax.Array
    penalty: jax.Array
    rounds: jax.Array
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    key: jax.Array
    candidate: Candidate

    def reset_to(self, variables: jax.Array) -> "CollocationState":
        """Begin anew from variables `[H, V]`; their states are found in the next round, the first."""
        infinite, first = jnp.full_like(self.cost, jnp.inf), jnp.zeros_like(self.rounds)
        return self._replace(variables=variables, rounds=first, best=variables, cost=infinite, optimality=infinite)

    def resume(self) -> "CollocationState":
        """The best plan, for another solve."""
        return self.reset_to(self.best)


def collocation(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation | None = None,
    updates: int = 5,
    penalty: float = 1.0,
    synchronise: int = 1,
    noise: float = 0.0,
    stop_gradients: bool = False,
    starts: int = 4,
    spread: float = 0.3,
) -> Planner:
    """Plan by descending on states and actions together, all time steps at once.

    One `step` is a round of updates between two rollouts. Constraints are enforced as for other planners, by the augmented
    Lagrangian around them. The plan is always a rollout of its actions, never the virtual states.

    Args:
        problem: The problem; dynamics and costs must be differentiable.
        optimizer: Any optax optimiser over variables `[H, V]`, which live in `[-1, 1]`, and states in units of their scale;
            Adam(0.05) unless told.
        updates: Gradient steps a round. More of them spare rollouts and trust the virtual states for longer.
        penalty: ρ, in units of the first rollout's energy per step. Higher values keep defects smaller and slow
            the rest.
        synchronise: Rounds between two synchronisations, which set the states to what the actions lead to and the
            multipliers to the costates. 1 is the most exact; higher values let states that no actions reach guide the
            search, the multipliers moving by λ ← λ + ρ d meanwhile.
        noise: Standard deviation of noise on the virtual states, in units of their scale, that fades as 1 / round (GRASP);
            for learned models, to leave bad basins.
        stop_gradients: Stop gradients at the model's state input and do without multipliers, so that states move only to be
            reached and to cost less, not to fool a model where it was never trained (GRASP). Much less exact where the model
            can be trusted; let several rounds pass between synchronisations.
        starts: Number of starts, of which the best is the plan.
        spread: Standard deviation of the smoothed noise that starts are drawn from, in variables.

    Raises:
        ValueError: If there are no updates, starts or rounds between synchronisations, the penalty is not positive, or
            noise or spread is negative.
    """
    if updates < 1 or synchronise < 1 or not penalty > 0 or noise < 0:
        raise ValueError(
            "collocation needs updates >= 1, synchronise >= 1, penalty > 0 and noise >= 0; "
            f"got updates={updates}, synchronise={synchronise}, penalty={penalty}, noise={noise}"
        )
    single = _single(problem, optimizer or optax.adam(0.05), updates, penalty, synchronise, noise, stop_gradients)
    return multistart(single, starts=starts, spread=spread)


@constrained(inner=10)
def _single(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    updates: int,
    penalty: float,
    synchronise: int,
    noise: float,
    stop_gradients: bool,
) -> Planner:
    own = _Collocation(problem, optimizer, updates, penalty, synchronise, noise, stop_gradients)
    plan = plan_from_choice(problem, own.best_actions)
    return Planner(own.init, own.step, plan, own.shift, injector(problem), problem, own.best_actions)


Point = tuple[jax.Array, jax.Array]
"""Variables `[H, V]` and states `[H, n]` of s[1..H] in units of their scale."""


@dataclass(frozen=True, eq=False)
class _Collocation:
    """`collocation` from a single start, with its settings."""

    problem: Problem
    optimizer: optax.GradientTransformation
    updates: int
    penalty: float
    synchronise: int
    noise: float
    stop_gradients: bool

    def _imagine(self, params: PyTree, state: PyTree, variables: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The states `[H+1, n]` that variables lead to, and the energy of what is executed, infinite where not finite."""
        problem, space = self.problem, self.problem.action_space
        bound = space.bind(params)
        future = rollout(problem, params, state, bound.relax(variables))
        states, value = jax.vmap(lambda s: ravel_pytree(s)[0])(future.states), future.energy
        if not space.exact:
            value = energy(problem, params, state, space.embed(bound.decide(variables)))
        return states, jnp.where(jnp.isfinite(value), value, jnp.inf)

    def _pieces(self, params: PyTree, state: PyTree) -> tuple[Callable, Callable]:
        """One step `(s, u, t) -> (cost, next s)` and the end's cost, of flat states."""
        problem, unravel = self.problem, ravel_pytree(state)[1]

        def at(flat: jax.Array, action: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            shown = unravel(jax.lax.stop_gradient(flat) if self.stop_gradients else flat)
            return problem.cost(params, unravel(flat), action, t), ravel_pytree(problem.dynamics(params, shown, action))[0]

        def end(flat: jax.Array) -> jax.Array:
            return jnp.zeros(()) if problem.terminal_cost is None else problem.terminal_cost(params, unravel(flat))

        return at, end

    def _adjoint(self, params: PyTree, state: PyTree, states: jax.Array, variables: jax.Array) -> jax.Array:
        """Costates `[H, n]` of s[1..H] along a rollout: `λ[t] = ∂c/∂s[t] + (∂f/∂s[t])ᵀ λ[t+1]`."""
        at, end = self._pieces(params, state)

        def back(later: jax.Array, step: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            flat, action, t = step
            (cost, _), pull = jax.vjp(lambda s: at(s, action, t), flat)
            return pull((jnp.ones_like(cost), later))[0], later

        actions = self.problem.action_space.bind(params).relax(variables)
        steps = (states[:-1], actions, jnp.arange(self.problem.horizon))
        return jax.lax.scan(back, jax.grad(end)(states[-1]), steps, reverse=True)[1]

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> CollocationState:
        space, horizon = self.problem.action_space, self.problem.horizon
        variables = jnp.zeros((horizon, space.size)) if guess is None else space.project(space.encode(guess))
        key, draw = jax.random.split(key)
        wandered = space.project(variables + jax.random.normal(draw, variables.shape))
        states, value = self._imagine(params, state, wandered)
        varied = jnp.sqrt(jnp.mean((states - states[0]) ** 2, axis=0))
        scale = jnp.where(jnp.isfinite(varied), jnp.maximum(varied, 1e-3), 1.0)
        rho = self.penalty * jnp.where(jnp.isfinite(value), jnp.maximum(jnp.abs(value) / horizon, 1e-6), 1.0)
        infinite, rest = jnp.full_like(value, jnp.inf), jnp.zeros_like(states[1:])
        moments, first, slot = self.optimizer.init((variables, rest)), jnp.asarray(0), no_candidate(variables)
        return CollocationState(variables, rest, rest, moments, scale, rho, first, variables, infinite, infinite, key, slot)

    def step(self, params: PyTree, state: PyTree, planner_state: CollocationState) -> CollocationState:
        key, draw = jax.random.split(planner_state.key)
        planner_state = self._synchronised(params, state, self._challenged(params, state, planner_state))
        rounds, scale, wander = planner_state.rounds, planner_state.scale, 0.0
        if self.noise:
            wander = self.noise / (1.0 + rounds) * jax.random.normal(draw, planner_state.states.shape)
        point = (planner_state.variables, planner_state.states / scale + wander)
        moments = tree_where(rounds == 0, self.optimizer.init(point), planner_state.optimizer)
        point, moments, residual, defects = self._descended(params, state, planner_state, point, moments)
        pulls = planner_state.costates
        if not self.stop_gradients:
            pulls = pulls + planner_state.penalty * defects / scale**2
        measured = jnp.maximum(residual, jnp.abs(defects / scale).max())
        return planner_state._replace(
            variables=point[0],
            states=point[1] * scale,
            costates=pulls,
            optimizer=moments,
            rounds=rounds + 1,
            optimality=jnp.where(jnp.isfinite(planner_state.cost) & jnp.isfinite(measured), measured, jnp.inf),
            key=key,
        )

    def _descended(
        self, params: PyTree, state: PyTree, planner_state: CollocationState, point: Point, moments: Any
    ) -> tuple[Point, Any, jax.Array, jax.Array]:
        """A round of updates: the point, the moments, the projected gradient's largest component, the defects `[H, n]`."""
        at, end = self._pieces(params, state)
        start, space, scale = ravel_pytree(state)[0], self.problem.action_space, planner_state.scale
        bound, times = space.bind(params), jnp.arange(self.problem.horizon)

        def lagrangian(point: Point) -> tuple[jax.Array, jax.Array]:
            variables, scaled = point
            states = jnp.concatenate([start[None], scaled * scale])
            costs, reached = jax.vmap(at)(states[:-1], bound.relax(variables), times)
            defects = reached - states[1:]
            pull = jnp.sum(planner_state.costates * defects) + 0.5 * planner_state.penalty * jnp.sum((defects / scale) ** 2)
            return jnp.sum(costs) + end(states[-1]) + pull, defects

        def update(_: int, carry: tuple[Point, Any, jax.Array]) -> tuple[Point, Any, jax.Array]:
            point, moments = carry[:2]
            slopes = jax.tree.map(_finite, jax.grad(lagrangian, has_aux=True)(point)[0])
            change, moments = self.optimizer.update(slopes, moments, point)
            variables, scaled = jax.tree.map(lambda x, d: x + _finite(d), point, change)
            residual = jnp.abs(space.project(point[0] - slopes[0]) - point[0]).max()
            return (space.project(variables), scaled), moments, residual

        begun = (point, moments, jnp.zeros_like(planner_state.cost))
        point, moments, residual = jax.lax.fori_loop(0, self.updates, update, begun)
        return point, moments, residual, lagrangian(point)[1]

    def _challenged(self, params: PyTree, state: PyTree, planner_state: CollocationState) -> CollocationState:
        """Begin anew from a pending candidate that is cheaper than the plan under way."""

        def worth(variables: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
            return self._imagine(params, state, variables)[1]

        slot, plans = planner_state.candidate, (planner_state.best, planner_state.variables)
        taken, best, cost = compete(slot, plans, planner_state.cost, worth, params, state)
        variables = jnp.where(taken, best, planner_state.variables)
        rounds = jnp.where(taken, 0, planner_state.rounds)
        return planner_state._replace(variables=variables, best=best, cost=cost, rounds=rounds, candidate=emptied(slot))

    def _synchronised(self, params: PyTree, state: PyTree, planner_state: CollocationState) -> CollocationState:
        """Score the actions by a rollout; and, when it is due, take over its states and costates."""
        variables = planner_state.variables
        states, value = self._imagine(params, state, variables)
        better = value < planner_state.cost

        def anew(planner_state: CollocationState) -> CollocationState:
            pulls = planner_state.costates if self.stop_gradients else self._adjoint(params, state, states, variables)
            return planner_state._replace(states=states[1:], costates=pulls)

        due = planner_state.rounds % self.synchronise == 0
        planner_state = anew(planner_state) if self.synchronise == 1 else jax.lax.cond(due, anew, lambda m: m, planner_state)
        best = jnp.where(better, variables, planner_state.best)
        return planner_state._replace(best=best, cost=jnp.minimum(value, planner_state.cost))

    def best_actions(
        self, params: PyTree, state: PyTree, planner_state: CollocationState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        value = self._imagine(params, state, planner_state.variables)[1]
        best = jnp.where(value < planner_state.cost, planner_state.variables, planner_state.best)
        best = unless_refused(best, refuse)  # slopes that are 0 have no derivative behind Adam's square root
        found = jnp.isfinite(jnp.minimum(value, planner_state.cost))
        return self.problem.action_space.bind(params).decide(best), found, {"optimality": planner_state.optimality}

    def shift(self, planner_state: CollocationState) -> CollocationState:
        slot = later(planner_state.candidate, shifted)
        return planner_state.reset_to(shifted(planner_state.best))._replace(candidate=slot)


def _finite(x: jax.Array) -> jax.Array:
    """A step into nowhere is not taken."""
    return jnp.where(jnp.isfinite(x), x, 0.0)
