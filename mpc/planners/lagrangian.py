"""Constraints around any planner: the augmented Lagrangian method of Powell, Hestenes and Rockafellar.

    minimise over u   E(u) + Σ_t ψ(c[t](u), λ[t], ρ),      ψ(c, λ, ρ) = (max(0, λ + ρc)² - λ²) / 2ρ      for c ≤ 0

(without the max for c = 0), then move the duals where the penalty pushed them, `λ ← max(0, λ + ρc)`, and raise the penalty ρ
if violations hardly fell; again and again. Nocedal & Wright 2006, ch. 17.3-17.4; in trajectory optimisation ALTRO (Howell et
al. 2019). The inner planner sees an ordinary problem without constraints, whose parameters hold the duals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from mpc.constraints import exact_share, feasibility_tolerance, table
from mpc.feasibility import STEPS, infeasibility, moves, sensitivity
from mpc.planners.augmented import Augmented, augment, equalities, lift
from mpc.planners.base import Plan, Planner, conclude, invalidate, require_no_latents, resume, shifted, smoothing, tree_where
from mpc.planners.candidates import Candidate, emptied, injector, later, no_candidate, where_pending
from mpc.planners.multistart import middle, noise
from mpc.problem import Problem
from mpc.rollout import rollout

PyTree = Any
P = ParamSpec("P")

SETTLED = 0.1  # the inner optimality from which on violations say something about the penalty
SUFFICIENT = 0.25  # the share of its violation that a round must leave for the penalty to stay
LARGEST = 1e8  # of duals, in units of cost per constraint: beyond, constraints cannot be met, and arithmetic ends
FAR = 1.0  # violation, in moves of one step, from which on a decision's duals only tell that it failed
NEARER = 0.5  # share of its infeasibility that a failed decision must leave for the next to go on from it
NEARLY = 1e-3  # violation, in moves of one step, up to which a plan is not given up for one to rest that is dearer
STEEP = 10.0  # costs, per unit of a constraint, beyond which the duals of an infeasible plan tell the same
UNIT = 10.0  # steps whose moves of the state are the unit of a constraint
SPREAD = 0.3  # standard deviation, in variables, of the actions that units are found along


class Measured(NamedTuple):
    """Actions `[H, ...]` with their energy and infeasibility on the original problem, infinite if unknown or not finite,
    and by how much each constraint is violated, `[H, C]`."""

    actions: jax.Array
    energy: jax.Array
    infeasibility: jax.Array
    violations: jax.Array


class Units(NamedTuple):
    """Of the energy, of each constraint's values, `[C]`, and the `moves` of states and actions (see `mpc.feasibility`)."""

    energy: jax.Array
    values: jax.Array
    moves: jax.Array


class LagrangianState(NamedTuple):
    """The inner planner's state, the duals `[H, C]` and the penalty it works under, and the best actions.

    `penalty`: in `units` of the energy per square of each constraint's. `spent`: inner steps since the duals moved.
    `missed`: how far feasibility or complementarity was missed then, in the constraints' units.
    `cost`: the augmented energy. `candidate`: a slot for one. `carried`: whether the best actions are those of the decision
    before, which are measured before anything replaces them. `far`: the infeasibility of the decision before, if it failed,
    or else infinite. `anew`: whether the next step begins anew, in noise from `key`, for decisions failed and get no nearer.
    """

    inner: Any
    duals: jax.Array
    penalty: jax.Array
    units: Units
    spent: jax.Array
    missed: jax.Array
    best: Measured
    cost: jax.Array
    optimality: jax.Array
    candidate: Candidate
    carried: jax.Array
    far: jax.Array
    anew: jax.Array
    key: jax.Array

    def reset_to(self, variables: jax.Array) -> "LagrangianState":
        """Begin anew from variables `[H, V]`, without duals; as `init` or `shift` left the rest."""
        inner, begun = self.inner.reset_to(variables), jnp.zeros_like(self.anew)
        return self._replace(inner=inner, duals=jnp.zeros_like(self.duals), anew=begun)

    def invalidate(self) -> "LagrangianState":
        """Forget all costs, but not the duals, which remain the best guess: the problem changed."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(
            inner=invalidate(self.inner),
            spent=jnp.zeros_like(self.spent),
            missed=infinite,
            best=self.best._replace(energy=infinite, infeasibility=infinite),
            cost=infinite,
            optimality=infinite,
        )

    def resume(self) -> "LagrangianState":
        """The best plan and the duals, for another solve: the plan is measured anew before another takes its place."""
        duals = jnp.where(self.failed(), 0.0, self.duals)
        return self.invalidate()._replace(inner=resume(self.inner), duals=duals, carried=jnp.ones_like(self.carried))

    def failed(self) -> jax.Array:
        """Tell of a plan far from feasible, or of duals that grew and grew in vain: they would outweigh all else later."""
        infeasibility = self.best.infeasibility
        far = infeasibility * feasibility_tolerance(infeasibility.dtype) > FAR
        wound = jnp.any(jnp.abs(self.duals) * self.units.values > STEEP * len(self.duals) * self.units.energy)
        return jnp.isfinite(infeasibility) & (far | (wound & (infeasibility > 1)))


def lagrangian(
    problem: Problem,
    build: Callable[[Problem], Planner],
    *,
    inner: int = 10,
    penalty: float = 40.0,
    growth: float = 10.0,
) -> Planner:
    """Make a planner for a constrained problem of one that knows no constraints.

    Args:
        problem: With constraints.
        build: Builds the inner planner, with a single start, for the augmented problem.
        inner: Inner steps, at most, between two updates of the duals. An update comes sooner if the inner optimality falls
            below the violation. More for planners that need many steps to settle.
        penalty: The first ρ, in units of the energy per square of a constraint's, which are found along random actions, so
            that neither changes a plan. Higher values heed constraints sooner, and hide the energy from planners that see no
            curvature.
        growth: Of the penalty, when an update finds that the violation fell by less than three quarters.

    Returns:
        The planner. Its plan is the cheapest that was feasible (see `mpc.feasibility`), whatever it violates charged at its
        dual, or else the least violating one, with the status `INFEASIBLE`; `plan.info["violation"]` has every constraint's
        by name. `optimality` is infinite until a plan is feasible, and then the larger of the inner planner's and what is
        missed of feasibility and complementarity, in the constraints' units.

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

    def _augmented(self, params: PyTree, planner_state: LagrangianState) -> Augmented:
        """The parameters that the inner planner works with."""
        units = planner_state.units
        return Augmented(params, planner_state.duals, planner_state.penalty * units.energy / units.values**2)

    def _latest(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> jax.Array:
        """The actions that the inner planner found."""
        augmented = self._augmented(params, planner_state)
        return self.planner.actions(augmented, lift(self.problem, params, state), planner_state.inner)

    def _measure(
        self, params: PyTree, state: PyTree, actions: jax.Array, planner_state: LagrangianState
    ) -> tuple[Measured, jax.Array]:
        """Actions, measured, and the values `[H, C]` of all constraints."""
        shown, dtype = self.problem.action_space.embed(actions), planner_state.duals.dtype
        future = rollout(self.problem, params, state, shown)
        values = table(self.problem.constraints, params, future.states, shown).astype(dtype)
        far = infeasibility(self.problem, params, future.states, shown, planner_state.units.moves)
        return self._judged(params, actions, future.states, future.energy, far, dtype), values

    def _judged(
        self, params: PyTree, actions: jax.Array, states: PyTree, energy: jax.Array, far: jax.Array, dtype: Any
    ) -> Measured:
        """Actions, measured by the future that they lead to, and how far that is from feasible."""
        shown, far = self.problem.action_space.embed(actions), far.astype(dtype)
        broken = table(self.problem.constraints, params, states, shown, violated=True).astype(dtype)
        fine = jnp.isfinite(far) & jnp.isfinite(energy)
        return Measured(actions, jnp.where(fine, energy.astype(dtype), jnp.inf), jnp.where(fine, far, jnp.inf), broken)

    def _contest(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> Measured:
        """The best of the plan, the inner planner's, and the candidate where there is one."""
        slot, own = planner_state.candidate, planner_state.best.actions
        rival = jnp.where(slot.pending, self.problem.action_space.bind(params).decide(slot.variables), own)
        rivals = jnp.stack([own, self._latest(params, state, planner_state), rival])
        measured = jax.lax.map(lambda actions: self._measure(params, state, actions, planner_state)[0], rivals)
        one, two, three = (jax.tree.map(lambda x, i=i: x[i], measured) for i in range(3))
        return _better(three, _better(two, one, planner_state.duals), planner_state.duals)

    def _units(self, params: PyTree, state: PyTree, variables: jax.Array) -> Units:
        """Along random actions: a step's mean cost, the change of each constraint where it is nearest, the moves."""
        space, horizon = self.problem.action_space.bind(params), len(variables)
        drawn = SPREAD * smoothing(horizon) @ np.random.default_rng(0).standard_normal(variables.shape)
        actions = space.relax(space.project(variables + jnp.asarray(drawn, variables.dtype)))
        future = rollout(self.problem, params, state, actions)
        pushed = np.random.default_rng(0).choice([-1.0, 1.0], (STEPS, space.size))
        extreme = space.relax(space.project(jnp.asarray(pushed, variables.dtype)))
        values = table(self.problem.constraints, params, future.states, actions)
        moved = moves(rollout(self.problem, params, state, extreme).states, extreme)
        moved = jnp.maximum(moved, moves(future.states, actions))
        own = np.arange(len(moved)) >= len(moved) - actions[0].size  # actions move at once
        change = sensitivity(self.problem, params, future.states, actions, jnp.where(own, 1.0, UNIT) * moved)
        far = jnp.where(equalities(self.problem, params, state), 1 / change, jnp.abs(values) / change)
        nearest = jnp.argmin(jnp.where(change > 0, far, jnp.inf), axis=0)
        found = (jnp.abs(future.energy) / horizon, change[nearest, jnp.arange(change.shape[1])])
        mean, each = (jnp.where(jnp.isfinite(x) & (x > 0), x, 1.0).astype(float) for x in found)
        return Units(mean, each, jnp.where(jnp.isfinite(moved), moved, 0.0).astype(float))

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> LagrangianState:
        space, horizon = self.problem.action_space, self.problem.horizon
        duals, nothing = jnp.zeros((horizon, len(equalities(self.problem, params, state)))), jnp.zeros((horizon, space.size))
        rho, infinite = jnp.asarray(self.penalty, duals.dtype), jnp.asarray(jnp.inf, duals.dtype)
        actions = guess[0] if isinstance(guess, tuple) else guess
        units = self._units(params, state, nothing if actions is None else space.project(space.encode(actions)))
        augmented = Augmented(params, duals, rho * units.energy / units.values**2)
        key, own = jax.random.split(key)
        begun = self.planner.init(augmented, lift(self.problem, params, state), own, guess)
        best, slot = Measured(space.decide(nothing), infinite, infinite, jnp.zeros_like(duals)), no_candidate(nothing)
        zero, no = jnp.asarray(0), jnp.asarray(False)
        return LagrangianState(
            begun, duals, rho, units, zero, infinite, best, infinite, infinite, slot, no, infinite, no, key
        )

    def _anew(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> tuple[Any, jax.Array]:
        """The inner planner, begun as by `init` without a guess, in noise; and the key of the next beginning.

        From a plan that was made for what could not be met, most planners need longer to come back than from none.
        """
        key, draw, own = jax.random.split(planner_state.key, 3)
        augmented, slot = self._augmented(params, planner_state), planner_state.candidate
        begun = self.planner.init(augmented, lift(self.problem, params, state), own)
        if hasattr(begun, "reset_to"):
            begun = begun.reset_to(noise(self.problem, SPREAD, draw, 1)[0])
        given = self.planner.inject(begun, self.problem.action_space.bind(params).decide(slot.variables))
        return tree_where(slot.pending, given, begun), key

    def step(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> LagrangianState:
        given, known = (params, state, planner_state), (planner_state.inner, planner_state.key)
        inner, key = where_pending(planner_state.anew, self._anew, known, *given)
        planner_state = planner_state._replace(inner=inner, key=key, anew=jnp.zeros_like(planner_state.anew))
        augmented, slot = self._augmented(params, planner_state), planner_state.candidate
        moved = self.planner.step(augmented, lift(self.problem, params, state), planner_state.inner)
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
        actions, units = self._latest(params, state, planner_state), planner_state.units
        candidate, values = self._measure(params, state, actions, planner_state)
        equal, share = equalities(self.problem, params, state), exact_share(candidate.violations.dtype)
        exact = candidate.infeasibility <= share
        penalty, most = self._augmented(params, planner_state).penalty, LARGEST * units.energy / units.values
        pushed = planner_state.duals + penalty * values
        duals = jnp.clip(jnp.where(equal, pushed, jnp.maximum(pushed, 0.0)), -most, most)
        missed = jnp.max(jnp.abs(duals - planner_state.duals) / (penalty * units.values))
        # a violation left by an inner planner that has not settled is not the penalty's fault, nor is one of rounding
        stalled = (planner_state.inner.optimality <= SETTLED) & (missed > SUFFICIENT * planner_state.missed) & ~exact
        most = UNIT**2 / (share * feasibility_tolerance(missed.dtype))
        raised = jnp.minimum(self.growth * planner_state.penalty, most)
        optimality = jnp.maximum(planner_state.inner.optimality.astype(missed.dtype), missed)
        changed = planner_state._replace(
            inner=invalidate(planner_state.inner),
            duals=duals,
            penalty=jnp.where(stalled, raised, planner_state.penalty),
            missed=missed,
            optimality=jnp.where(exact, optimality, jnp.inf),
        )
        fine = jnp.isfinite(candidate.infeasibility)
        planner_state = tree_where(fine, changed, planner_state)
        best = _better(candidate, planner_state.best, planner_state.duals)
        return planner_state._replace(spent=jnp.zeros_like(planner_state.spent), best=best)

    def plan(self, params: PyTree, state: PyTree, planner_state: LagrangianState) -> Plan:
        info = {"optimality": planner_state.optimality, "duals": planner_state.duals, "penalty": planner_state.penalty}

        def shown(actions: jax.Array) -> tuple[Plan, Measured]:
            plan = conclude(self.problem, params, state, actions, jnp.asarray(True), info, planner_state.units.moves)
            far, dtype = plan.info["infeasibility"], planner_state.duals.dtype
            return plan, self._judged(params, actions, plan.states, plan.cost, far, dtype)

        latest, best = self._latest(params, state, planner_state), planner_state.best.actions
        rest = self.problem.action_space.bind(params).decide(middle(self.problem)).astype(best.dtype)
        plans, measured = jax.lax.map(shown, jnp.stack([latest, best, rest]))
        one, two, three = ((jnp.asarray(i), jax.tree.map(lambda x, i=i: x[i], measured)) for i in range(3))

        found, own = tree_where(_is_better(one[1], two[1], planner_state.duals), one, two)
        kept, tolerance = measured.infeasibility[2] <= 1, feasibility_tolerance(planner_state.duals.dtype)
        nearly = kept & (own.infeasibility > 1) & (own.infeasibility * tolerance <= NEARLY)
        own = own._replace(infeasibility=jnp.where(nearly, 1.0, own.infeasibility))
        first = jnp.where(_is_better(three[1], own, planner_state.duals), three[0], found)
        return jax.tree.map(lambda x: x[first], plans)

    def shift(self, planner_state: LagrangianState) -> LagrangianState:
        infinite = jnp.full_like(planner_state.cost, jnp.inf)
        failed, far = planner_state.failed(), planner_state.best.infeasibility
        return planner_state._replace(
            inner=self.planner.shift(planner_state.inner),
            duals=jnp.where(failed, 0.0, shifted(planner_state.duals)),
            penalty=jnp.where(failed, self.penalty, planner_state.penalty),
            spent=jnp.zeros_like(planner_state.spent),
            missed=infinite,
            best=Measured(
                shifted(planner_state.best.actions), infinite, infinite, jnp.zeros_like(planner_state.best.violations)
            ),
            cost=infinite,
            optimality=infinite,
            candidate=later(planner_state.candidate, shifted),
            carried=~failed,
            far=jnp.where(failed, far, infinite),
            anew=failed & (far > NEARER * planner_state.far),
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


def _better(one: Measured, other: Measured, duals: jax.Array) -> Measured:
    """The better of two plans."""
    return tree_where(_is_better(one, other, duals), one, other)


def _is_better(one: Measured, other: Measured, duals: jax.Array) -> jax.Array:
    """Tell which of two is cheaper where both are feasible, or else less violating.

    Twice the duals are the price of what is violated: it makes no plan cheaper than the optimum, to first order.
    """
    one_costs, other_costs = (m.energy + 2 * jnp.sum(jnp.abs(duals) * m.violations) for m in (one, other))
    both = (one.infeasibility <= 1) & (other.infeasibility <= 1)
    return jnp.where(both, one_costs < other_costs, one.infeasibility < other.infeasibility)
