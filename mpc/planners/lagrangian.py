"""Constraints around any planner: the augmented Lagrangian method of Powell, Hestenes and Rockafellar.

    minimise over u   E(u) + Σ_t ψ(c[t](u), λ[t], ρ),      ψ(c, λ, ρ) = (max(0, λ + ρc)² - λ²) / 2ρ      for c ≤ 0

(without the max for c = 0), then move the duals where the penalty pushed them, `λ ← max(0, λ + ρc)`, and raise the penalty ρ
if violations hardly fell; again and again. Nocedal & Wright 2006, ch. 17.3-17.4; in trajectory optimisation ALTRO (Howell et
al. 2019). The inner planner sees an ordinary problem without constraints, whose parameters hold the duals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from mpc.constraints import Constraint, feasibility_tolerance, reads, table
from mpc.planners.base import Plan, Planner, best_of, conclude, invalidate, require_no_latents, shifted
from mpc.planners.candidates import Candidate, emptied, injector, later, no_candidate, where_pending
from mpc.problem import Problem
from mpc.rollout import rollout

PyTree = Any
P = ParamSpec("P")

SETTLED = 0.1  # the inner optimality from which on violations say something about the penalty
SUFFICIENT = 0.25  # the share of its violation that a round must leave for the penalty to stay
LARGEST = 1e8  # of duals and penalties: beyond, the constraints cannot be met, and arithmetic ends


class Augmented(NamedTuple):
    """Parameters of the augmented problem: the problem's own, duals `[H, C]` for t = 1..H, the penalty."""

    params: PyTree
    duals: jax.Array
    penalty: jax.Array


class StateWithAction(NamedTuple):
    """A state and the action that led to it."""

    state: PyTree
    action: jax.Array


class Measured(NamedTuple):
    """Actions `[H, ...]` with their energy and violation on the original problem, infinite if unknown or not finite."""

    actions: jax.Array
    energy: jax.Array
    violation: jax.Array


class LagrangianState(NamedTuple):
    """The inner planner's state, the duals `[H, C]` and the penalty it works under, and the best actions.

    `spent`: inner steps since the duals moved. `missed`: how far feasibility or complementarity was missed then.
    `cost`: the augmented energy. `candidate`: a slot for one. `carried`: whether the best actions are those of the decision
    before, which are measured before anything replaces them.
    """

    inner: Any
    duals: jax.Array
    penalty: jax.Array
    spent: jax.Array
    missed: jax.Array
    best: Measured
    cost: jax.Array
    optimality: jax.Array
    candidate: Candidate
    carried: jax.Array

    def reset_to(self, variables: jax.Array) -> "LagrangianState":
        """Begin anew from variables `[H, V]`, without duals; as `init` or `shift` left the rest."""
        return self._replace(inner=self.inner.reset_to(variables), duals=jnp.zeros_like(self.duals))

    def invalidate(self) -> "LagrangianState":
        """Forget all costs, but not the duals, which remain the best guess: the problem changed."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(
            inner=invalidate(self.inner),
            spent=jnp.zeros_like(self.spent),
            missed=infinite,
            best=self.best._replace(energy=infinite, violation=infinite),
            cost=infinite,
            optimality=infinite,
        )


def lagrangian(
    problem: Problem,
    build: Callable[[Problem], Planner],
    *,
    inner: int = 10,
    penalty: float = 10.0,
    growth: float = 10.0,
) -> Planner:
    """Make a planner for a constrained problem of one that knows no constraints.

    Args:
        problem: With constraints.
        build: Builds the inner planner, with a single start, for the augmented problem.
        inner: Inner steps, at most, between two updates of the duals. An update comes sooner if the inner optimality falls
            below the violation. More for planners that need many steps to settle.
        penalty: The first ρ. Higher values heed constraints sooner, and hide the energy from planners that see no curvature.
        growth: Of the penalty, when an update finds that the violation fell by less than three quarters.

    Returns:
        The planner. Its plan is the cheapest that was feasible to within `mpc.constraints.feasibility_tolerance`, or else
        the least violating one, with the status `INFEASIBLE`; `plan.info["violation"]` has every constraint's by name.

    Raises:
        ValueError: If the problem has no constraints, `inner < 1`, `penalty <= 0` or `growth < 1`.
    """
    if not problem.constraints:
        raise ValueError("lagrangian needs a problem with constraints; got one without")
    if inner < 1 or not penalty > 0 or not growth >= 1:
        raise ValueError(
            "inner must be at least 1, penalty positive and growth at least 1; "
            f"got inner={inner}, penalty={penalty}, growth={growth}"
        )
    own = _Lagrangian(problem, build(augment(problem)), inner, penalty, growth)
    return Planner(own.init, own.step, own.plan, own.shift, own.inject, problem)


@dataclass(frozen=True, eq=False)
class _Lagrangian:
    """The planner of `lagrangian`: `planner` minimises the augmented energy."""

    problem: Problem
    planner: Planner
    inner: int
    penalty: float
    growth: float

    def _latest(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> jax.Array:
        """The actions that the inner planner found."""
        augmented = Augmented(params, planner_state.duals, planner_state.penalty)
        return self.planner.actions(augmented, _lift(self.problem, params, state), planner_state.inner)

    def _measure(self, params: PyTree, state: PyTree, actions: jax.Array, dtype: Any) -> tuple[Measured, jax.Array]:
        """Actions, measured, and the values `[H, C]` of all constraints."""
        shown = self.problem.action_space.embed(actions)
        future = rollout(self.problem, params, state, shown)
        values = table(self.problem.constraints, params, future.states, shown).astype(dtype)
        broken = jnp.max(jnp.where(equalities(self.problem, params, state), jnp.abs(values), jnp.maximum(values, 0.0)))
        fine = jnp.isfinite(broken) & jnp.isfinite(future.energy)
        energy = future.energy.astype(values.dtype)
        return Measured(actions, jnp.where(fine, energy, jnp.inf), jnp.where(fine, broken, jnp.inf)), values

    def _contest(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> Measured:
        """The best of the two that `plan` chooses from, and the candidate where there is one."""
        slot, own = planner_state.candidate, planner_state.best.actions
        rival = jnp.where(slot.pending, self.problem.action_space.bind(params).decide(slot.variables), own)
        rivals = jnp.stack([own, self._latest(params, state, planner_state), rival])
        measured = jax.lax.map(lambda actions: self._measure(params, state, actions, planner_state.duals.dtype)[0], rivals)
        one, two, three = (jax.tree.map(lambda x, i=i: x[i], measured) for i in range(3))
        return _better(three, _better(two, one))

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> LagrangianState:
        space, horizon = self.problem.action_space, self.problem.horizon
        duals, nothing = jnp.zeros((horizon, len(equalities(self.problem, params, state)))), jnp.zeros((horizon, space.size))
        rho, infinite = jnp.asarray(self.penalty, duals.dtype), jnp.asarray(jnp.inf, duals.dtype)
        begun = self.planner.init(Augmented(params, duals, rho), _lift(self.problem, params, state), key, guess)
        best, slot = Measured(space.decide(nothing), infinite, infinite), no_candidate(nothing)
        zero, carried = jnp.asarray(0), jnp.asarray(False)
        return LagrangianState(begun, duals, rho, zero, infinite, best, infinite, infinite, slot, carried)

    def step(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> LagrangianState:
        augmented, slot = Augmented(params, planner_state.duals, planner_state.penalty), planner_state.candidate
        moved = self.planner.step(augmented, _lift(self.problem, params, state), planner_state.inner)
        spent = planner_state.spent + 1
        # no need to settle more exactly than the constraints are met (after Nocedal & Wright 2006, algorithm 17.4)
        due = (spent >= self.inner) | (moved.optimality <= jnp.minimum(planner_state.missed, SETTLED))
        unknown = slot.pending | (due & planner_state.carried)
        best = where_pending(unknown, self._contest, planner_state.best, params, state, planner_state)
        cost = moved.cost.astype(planner_state.cost.dtype)
        planner_state = planner_state._replace(inner=moved, spent=spent, best=best, cost=cost)
        planner_state = planner_state._replace(candidate=emptied(slot), carried=planner_state.carried & ~unknown)
        return jax.lax.cond(due, self._update, lambda *given: given[-1], params, state, planner_state)

    def _update(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> LagrangianState:
        actions = self._latest(params, state, planner_state)
        candidate, values = self._measure(params, state, actions, planner_state.duals.dtype)
        equal, fine = equalities(self.problem, params, state), jnp.isfinite(candidate.violation)
        pushed = planner_state.duals + planner_state.penalty * values
        duals = jnp.clip(jnp.where(equal, pushed, jnp.maximum(pushed, 0.0)), -LARGEST, LARGEST)
        missed = jnp.max(jnp.abs(duals - planner_state.duals)) / planner_state.penalty
        # a violation left by an inner planner that has not settled is not the penalty's fault, nor is one of rounding
        allowed = feasibility_tolerance(missed.dtype)
        stalled = (planner_state.inner.optimality <= SETTLED) & (
            missed > jnp.maximum(SUFFICIENT * planner_state.missed, allowed)
        )
        raised = jnp.minimum(self.growth * planner_state.penalty, 1 / allowed)
        changed = planner_state._replace(
            inner=invalidate(planner_state.inner),
            duals=duals,
            penalty=jnp.where(stalled, raised, planner_state.penalty),
            missed=missed,
            optimality=jnp.maximum(planner_state.inner.optimality.astype(missed.dtype), missed),
        )
        planner_state = jax.tree.map(partial(jnp.where, fine), changed, planner_state)
        best = _better(candidate, planner_state.best)
        return planner_state._replace(spent=jnp.zeros_like(planner_state.spent), best=best)

    def plan(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> Plan:
        info = {"optimality": planner_state.optimality, "duals": planner_state.duals, "penalty": planner_state.penalty}

        def shown(actions: jax.Array) -> Plan:
            return conclude(self.problem, params, state, actions, jnp.asarray(True), info)

        plans = jax.lax.map(shown, jnp.stack([self._latest(params, state, planner_state), planner_state.best.actions]))
        return best_of(plans)

    def shift(self, planner_state: LagrangianState) -> LagrangianState:
        infinite = jnp.full_like(planner_state.cost, jnp.inf)
        return planner_state._replace(
            inner=self.planner.shift(planner_state.inner),
            duals=shifted(planner_state.duals),
            spent=jnp.zeros_like(planner_state.spent),
            missed=infinite,
            best=Measured(shifted(planner_state.best.actions), infinite, infinite),
            cost=infinite,
            optimality=infinite,
            candidate=later(planner_state.candidate, shifted),
            carried=jnp.ones_like(planner_state.carried),
        )

    def inject(self, planner_state: LagrangianState, actions: jax.Array) -> LagrangianState:
        planner_state = injector(self.problem)(planner_state, actions)
        return planner_state._replace(inner=self.planner.inject(planner_state.inner, actions))


def constrained(
    **settings: Any,
) -> Callable[[Callable[Concatenate[Problem, P], Planner]], Callable[Concatenate[Problem, P], Planner]]:
    """Make a planner's constructor heed the problem's constraints: `@constrained()`, above one that takes the problem first.

    Args:
        **settings: For `lagrangian`, where the planner is at its best with others than the usual.
    """

    def decorate(construct: Callable[Concatenate[Problem, P], Planner]) -> Callable[Concatenate[Problem, P], Planner]:
        @wraps(construct)
        def build(problem: Problem, *args: P.args, **kwargs: P.kwargs) -> Planner:
            require_no_latents(problem)
            if not problem.constraints:
                return construct(problem, *args, **kwargs)
            return lagrangian(problem, lambda inner: construct(inner, *args, **kwargs), **settings)

        return build

    return decorate


def augment(problem: Problem) -> Problem:
    """The problem without constraints whose parameters are `Augmented` and whose energy is the augmented Lagrangian.

    Every constraint is charged where the planner sees all that it reads: one on actions alone when the action is taken, one
    on states alone when the state is reached. Only one that reads both needs states that remember the action before.
    """

    def charge(given: Augmented, state: PyTree, action: jax.Array, t: jax.Array, leaving: bool) -> jax.Array:
        total, first = jnp.zeros(()), 0
        for constraint in problem.constraints:
            reads_state, _, size = _look(constraint, problem, given.params, state)
            columns, first = slice(first, first + size), first + size
            if reads_state != leaving:
                values = constraint.function(given.params, state, action, t).reshape(-1)
                duals = given.duals[t - 1, columns].astype(values.dtype)
                total = total + _psi(values, duals, given.penalty.astype(values.dtype), constraint.equality)
        return total

    def dynamics(given: Augmented, lifted: PyTree, action: jax.Array) -> PyTree:
        if isinstance(lifted, StateWithAction):
            return StateWithAction(problem.dynamics(given.params, lifted.state, action), action)
        return problem.dynamics(given.params, lifted, action)

    def arrival(given: Augmented, lifted: PyTree, t: jax.Array) -> jax.Array:
        state, action = lifted if isinstance(lifted, StateWithAction) else (lifted, _idle(problem))
        return charge(given, state, action, t, leaving=False)

    def cost(given: Augmented, lifted: PyTree, action: jax.Array, t: jax.Array) -> jax.Array:
        state = lifted.state if isinstance(lifted, StateWithAction) else lifted
        own = problem.cost(given.params, state, action, t) + charge(given, state, action, t + 1, leaving=True)
        return own + jnp.where(t > 0, arrival(given, lifted, t), 0.0)

    def terminal_cost(given: Augmented, lifted: PyTree) -> jax.Array:
        charged = arrival(given, lifted, jnp.asarray(problem.horizon))
        if problem.terminal_cost is None:
            return charged
        return problem.terminal_cost(given.params, lifted.state if isinstance(lifted, StateWithAction) else lifted) + charged

    return Problem(dynamics, cost, terminal_cost, horizon=problem.horizon, action_space=problem.action_space)


def _psi(values: jax.Array, duals: jax.Array, penalty: jax.Array, equality: bool) -> jax.Array:
    """`Σ ψ(c, λ, ρ)`, multiplied out where the max is positive: the difference of squares would lose single precision."""
    active = values * (duals + 0.5 * penalty * values)
    if equality:
        return jnp.sum(active)
    return jnp.sum(jnp.where(duals + penalty * values > 0, active, -0.5 * duals * duals / penalty))


def _idle(problem: Problem) -> jax.Array:
    return problem.action_space.relax(jnp.zeros(problem.action_space.size))


def _look(constraint: Constraint, problem: Problem, params: PyTree, state: PyTree) -> tuple[bool, bool, int]:
    """Tell whether a constraint reads the state and the action, and count its values."""
    leaves, structure = jax.tree.flatten((params, state))
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    return _looked(constraint, problem, structure, shapes, jax.config.read("jax_enable_x64"))


@lru_cache(maxsize=1024)
def _looked(constraint: Constraint, problem: Problem, structure: Any, shapes: tuple, _: bool) -> tuple[bool, bool, int]:
    params, state = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    example = (params, state, _idle(problem), jnp.asarray(1))
    _, reads_state, reads_action, _ = reads(constraint.function, *example)
    return reads_state, reads_action, jax.eval_shape(constraint.function, *example).size


def equalities(problem: Problem, params: PyTree, state: PyTree) -> np.ndarray:
    """Mask `[C]` of the values that must be zero."""
    sizes = [(c.equality, _look(c, problem, params, state)[2]) for c in problem.constraints]
    return np.array([equality for equality, size in sizes for _ in range(size)], bool)


def _lift(problem: Problem, params: PyTree, state: PyTree) -> PyTree:
    looks = [_look(c, problem, params, state) for c in problem.constraints]
    mixed = any(reads_state and reads_action for reads_state, reads_action, _ in looks)
    return StateWithAction(state, _idle(problem)) if mixed else state


def _better(one: Measured, other: Measured) -> Measured:
    """The cheaper where both are feasible, or else the less violating."""
    allowed = feasibility_tolerance(one.violation.dtype)
    both = (one.violation <= allowed) & (other.violation <= allowed)
    first = jnp.where(both, one.energy < other.energy, one.violation < other.violation)
    return jax.tree.map(partial(jnp.where, first), one, other)
