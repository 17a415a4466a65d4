"""Iterative LQR with box limits on the actions: Newton's method on the actions, by dynamic programming through time.

Around the current trajectory, costs are expanded to second order and dynamics to first order (Gauss-Newton: iLQR, Li &
Todorov 2004) or second order (DDP, Jacobson & Mayne 1970). The quadratic subproblem with its limits (control-limited DDP,
Tassa, Mansard & Todorov 2014) is solved by one pass back through time, and its feedback tried in a rollout of the real
dynamics,

    u[t] ← project(u[t] + α k[t] + K[t] (x̂[t] - x[t])),        x̂[t+1] = f(x̂[t], u[t])

at ever shorter steps α, and then with ever more damping (Levenberg & Marquardt), until the energy falls.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Planner, plan_from_choice, shifted, tree_where
from mpc.planners.candidates import Candidate, emptied, injector, later, no_candidate
from mpc.planners.continuation import continuation as continued
from mpc.planners.lagrangian import constrained
from mpc.planners.multistart import multistart
from mpc.planners.precision import with_precision
from mpc.planners.riccati import AffineFeedback, Expansion, backward, parallel_backward, unknown
from mpc.planners.trajectory import Model, curvature_of, expand, follow, projected_step
from mpc.problem import Problem
from mpc.rollout import energy

Array = jax.Array
PyTree = Any

STEP_SIZES = (1.0, 0.4, 0.15)
TRIES = 8  # feedbacks tried in one step, each with GROWTH times more damping
GROWTH, DECAY, LARGEST = 10.0, 0.1, 1e5  # of the damping
NOTHING = float(np.finfo(np.float64).eps)  # step of the variables, which span [-1, 1], that is no step
NARROWEST = 0.1  # share of the spread that the last of the starts is drawn with
FLOOR = 1e-6  # of pivots, as the damping a share of the largest curvature


class Rounded(NamedTuple):
    """The variables `[H, V]` whose executed actions cost least, and that cost."""

    variables: Array
    cost: Array


class IlqrState(NamedTuple):
    """One start: the trajectory, the problem's expansion around it, and the feedback that led there.

    `best`: `[H, V]` variables, of the cheapest trajectory so far. `states`: `[H+1, N]`, each a state as one vector.
    `damping`: μ, a share of `curvature`, `[V]`: the largest of each variable along the trajectory. `progress`: the share of
    the energy that recent steps removed. `candidate`: a slot for one.
    `rounded`: the plan where actions are rounded to be executed (a cheaper trajectory may round to a dearer one), or None
    where they are not and `best` is the plan.
    """

    best: Array
    states: Array
    expansion: Expansion
    feedback: AffineFeedback
    damping: Array
    curvature: Array
    progress: Array
    cost: Array
    optimality: Array
    candidate: Candidate
    rounded: Rounded | None

    def reset_to(self, variables: Array) -> "IlqrState":
        """Begin anew from variables `[H, V]`, with nothing known around them, so that they are first tried as they are."""
        infinite = jnp.full_like(self.cost, jnp.inf)
        expansion, feedback, states = jax.tree.map(jnp.zeros_like, (self.expansion, self.feedback, self.states))
        rounded = self.rounded and Rounded(variables, infinite)
        return self._replace(
            best=variables,
            states=states,
            expansion=expansion,
            feedback=feedback,
            cost=infinite,
            optimality=infinite,
            rounded=rounded,
        )

    def hold(self) -> "IlqrState":
        """Let the plan be its own candidate: the feedback that a warm start begins with may make it worse."""
        return self._replace(candidate=Candidate(_plan(self).variables, jnp.ones_like(self.candidate.pending)))

    def invalidate(self) -> "IlqrState":
        """Forget the cost of the trajectory and the expansion around it: the problem changed."""
        return self.reset_to(self.best)._replace(rounded=self.rounded and self.rounded._replace(cost=self.cost + jnp.inf))


def ilqr(
    problem: Problem,
    *,
    starts: int = 1,
    spread: float = 0.3,
    screen: tuple[int, int] | None = None,
    continuation: int = 0,
    second_order: float = 0.003,
    damping: float = 1e-6,
    parallel: bool | None = None,
    precision: str | None = None,
) -> Planner:
    """Plan by iterative LQR; where models are smooth and states few, the quickest and most exact way to a local optimum.

    It needs the Hessian of the costs and the Jacobian of the dynamics, so the work of a step grows with the square of the
    state's size; for large latent states prefer `mpc.gradient`. As a guess, `init` takes actions `[H, ...]`, or a pair of
    actions and states `[H+1, ...]` that need not follow from them (a multiple-shooting start): the first step tracks the
    states by feedback and closes their defects.

    Args:
        problem: The problem; all functions must be twice differentiable.
        starts: Number of starts. One finds a local optimum; see `multistart`.
        spread: Standard deviation of the smoothed noise that starts are drawn from, in variables; a tenth of it for the last
            start or candidate.
        screen: `(candidates, steps)`: begin with so many starts and keep the best after so many steps; see `multistart`.
        continuation: Steps, at most, that every start but a guess spends on a first stretch of the horizon, three quarters
            of it or more, without the terminal cost, before it goes on with the whole: for problems where that cost is steep
            and most starts are drawn into poor basins. 0 begins with the whole; see `mpc.planners.continuation`.
        second_order: The curvature of the dynamics counts while steps remove less than this share of the energy: near an
            optimum, where it makes convergence quadratic, and in long valleys. 0 is iLQR throughout, infinity DDP.
        damping: The first μ, and the least, as a share of the largest curvature. Higher values take shorter steps to begin
            with.
        parallel: Whether to expand all time steps and try all step sizes at once, and to go back through time by an
            associative scan: for devices with many cores. Otherwise one after the other, and starts too, as small loops
            that a CPU runs much faster. None is: not on a CPU.
        precision: `"float64"` or `"float32"` inside the planner; None is double precision on a CPU (see
            `mpc.planners.precision`), and else that of the states.

    Returns:
        The planner; `optimality` is the largest component of the projected gradient in units of the plan's mean cost per
        step, so that it does not hang on the units of the cost, and 0 once the energy, as exactly as it can be computed,
        tells the plan from no better one.

    Raises:
        ValueError: If `second_order` is negative, `damping` not positive, or `continuation` or `multistart` refuse their
            settings.
    """
    if not second_order >= 0 or not damping > 0:
        raise ValueError(
            f"second_order must not be negative and damping positive; got second_order={second_order}, damping={damping}"
        )
    parallel = jax.default_backend() != "cpu" if parallel is None else parallel
    build = partial(newton, second_order=second_order, damping=damping, parallel=parallel)

    def every_start(problem: Problem) -> Planner:
        single = continued(problem, build, steps=continuation) if continuation else build(problem)
        return multistart(single, starts=starts, spread=spread, narrowest=NARROWEST, screen=screen, together=parallel)

    return with_precision(problem, precision, every_start)


@constrained(penalty=10.0)
def newton(problem: Problem, *, second_order: float, damping: float, parallel: bool) -> Planner:
    """`ilqr` from a single start."""
    space = problem.action_space
    if not space.separable:
        raise ValueError(
            f"ilqr steps through time and cannot tie actions together as {type(space).__name__} does; "
            "take mpc.gradient, or put the last action into the state and limit the change by a constraint"
        )

    own = _Newton(problem, second_order, damping, parallel)
    plan = plan_from_choice(problem, own.best_actions)
    return Planner(own.init, own.step, plan, own.shift, injector(problem), problem, own.best_actions)


@dataclass(frozen=True, eq=False)
class _Newton:
    """Newton's method from a single start, with its settings."""

    problem: Problem
    second_order: float
    damping: float
    parallel: bool

    def init(self, params: PyTree, state: PyTree, key: Array, guess: Any = None) -> IlqrState:
        space, horizon = self.problem.action_space, self.problem.horizon
        actions, guessed = guess if isinstance(guess, tuple) else (guess, None)
        model = Model(self.problem, params, state)
        variables = jnp.zeros((horizon, space.size)) if actions is None else space.project(space.encode(actions))
        states = jnp.broadcast_to(model.state, (horizon + 1, len(model.state)))
        expansion, feedback = unknown(horizon, space.size, len(model.state))
        curvature = jnp.ones(space.size)
        if guessed is not None:
            states = jax.vmap(model.flatten)(guessed).at[0].set(model.state)
            expansion, _ = expand(model, states, variables, self.second_order > 1, self.parallel)
            curvature = curvature_of(expansion)
        infinite, slot = jnp.asarray(jnp.inf), no_candidate(variables)
        rounded = None if space.exact else Rounded(variables, infinite)
        known = (variables, states, expansion, feedback, jnp.asarray(self.damping), curvature, jnp.ones(()))
        return IlqrState(*known, infinite, infinite, slot, rounded)

    def step(self, params: PyTree, state: PyTree, planner_state: IlqrState) -> IlqrState:
        """One round; or two, where the first only finds out the trajectory and its cost."""
        model, before = Model(self.problem, params, state), _plan(planner_state).variables

        def turn(carry: tuple[Array, IlqrState]) -> tuple[Array, IlqrState]:
            left, planner_state = carry
            contested = planner_state.candidate.pending
            planner_state = self._rounded(params, state, self._round(model, planner_state))
            planner_state = jax.lax.while_loop(
                lambda m: m.candidate.pending, partial(self._challenge, params, state, before), planner_state
            )
            anew = contested & jnp.isinf(planner_state.cost)  # the new trajectory has yet to be scored
            return left - 1 + anew, planner_state

        rounds = jnp.where(jnp.isinf(planner_state.cost), 2, 1)
        return jax.lax.while_loop(lambda carry: carry[0] > 0, turn, (rounds, planner_state))[1]

    def _executed(self, params: PyTree, state: PyTree, variables: Array) -> Array:
        """The energy of the actions that variables stand for, infinite where it is not finite."""
        space = self.problem.action_space
        value = energy(self.problem, params, state, space.embed(space.bind(params).decide(variables))).astype(float)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def _challenge(self, params: PyTree, state: PyTree, before: Array, planner_state: IlqrState) -> IlqrState:
        """Begin anew from the candidate, or from the plan as it was `before` feedback changed it, if either is cheaper."""
        rivals = jnp.stack([before, planner_state.candidate.variables])
        costs = jax.lax.map(partial(self._executed, params, state), rivals)
        anew, slot = costs.min() < _plan(planner_state).cost, emptied(planner_state.candidate)
        begun = planner_state.reset_to(rivals[jnp.argmin(costs)])
        return tree_where(anew, begun, planner_state)._replace(candidate=slot)

    def _rounded(self, params: PyTree, state: PyTree, planner_state: IlqrState) -> IlqrState:
        """Compare plans by the cost of executed actions, where the model sees others."""
        if planner_state.rounded is None:
            return planner_state
        both = jnp.stack([planner_state.best, planner_state.rounded.variables])
        costs = jax.lax.map(partial(self._executed, params, state), both)
        return planner_state._replace(rounded=Rounded(both[jnp.argmin(costs)], costs.min()))

    def _round(self, model: Model, planner_state: IlqrState) -> IlqrState:
        """Improve the trajectory, then expand the problem around it."""
        (states, variables, cost, size), feedback, mu = _improved(model, planner_state, self.parallel)
        better = cost < planner_state.cost
        feedback = tree_where(better, feedback, planner_state.feedback)
        retreat = jnp.isinf(planner_state.cost)  # from where nothing is finite
        kept = jnp.where(retreat, 0.5, 1.0) * planner_state.best
        states, variables = jnp.where(better, states, planner_state.states), jnp.where(better, variables, kept)
        share = (planner_state.cost - cost) / jnp.abs(planner_state.cost)
        share = jnp.where(better & jnp.isfinite(share), share, jnp.where(better, 1.0, 0.0))
        # a first score tells nothing, as where only multipliers changed
        progress = jnp.where(retreat, planner_state.progress, 0.5 * (planner_state.progress + share))
        mu = jnp.where(better, jnp.maximum(mu * jnp.where(size == 0, DECAY, 1.0), self.damping), mu)
        curved = progress < self.second_order if 0 < self.second_order < 1 else self.second_order > 0
        expansion, slope = expand(model, states, variables, curved, self.parallel)
        cost, curvature = jnp.where(better, cost, planner_state.cost), curvature_of(expansion)
        # the projected gradient vanishes exactly where no allowed move lowers the energy to first order
        step = partial(projected_step, model.space, variables, slope)
        optimality = step(jnp.abs(cost) / len(variables)).max()
        # no step lowers the energy; and what the gradient promises is lost in rounding, or is little, and so many steps have
        # failed that the last ones together removed nothing that could be told
        exactness, promise = jnp.finfo(cost.dtype).eps, jnp.max(jnp.abs(slope) * step(curvature))
        hopeless = jnp.where(progress <= exactness, jnp.sqrt(exactness), exactness)
        settled = ~better & (mu >= LARGEST) & (promise <= hopeless * jnp.abs(cost))
        # where the least cost is 0, every cost falls far below the last until variables move by less than rounding
        settled = settled | (step(curvature).max() <= NOTHING * jnp.maximum(jnp.abs(variables).max(), 1.0))
        optimality = jnp.where(jnp.isfinite(cost) & jnp.isfinite(optimality), jnp.where(settled, 0.0, optimality), jnp.inf)
        slot, rounded = planner_state.candidate, planner_state.rounded
        known = (variables, states, expansion, feedback, mu, curvature, progress)
        return IlqrState(*known, cost, optimality, slot, rounded)

    def best_actions(
        self, params: PyTree, state: PyTree, planner_state: IlqrState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        gain, damping = planner_state.feedback.gain, planner_state.damping
        info = {"optimality": planner_state.optimality, "gain": gain, "damping": damping}
        variables, cost = _plan(planner_state)
        return self.problem.action_space.decide(variables), jnp.isfinite(cost), info

    def shift(self, planner_state: IlqrState) -> IlqrState:
        feedback = jax.tree.map(shifted, planner_state.feedback)  # it answers what the model did not foresee
        best, states = shifted(planner_state.best), shifted(planner_state.states)
        end, end_hessian = planner_state.expansion[-2:]
        expansion = jax.tree.map(shifted, planner_state.expansion)._replace(
            terminal_gradient=end, terminal_hessian=end_hessian
        )
        infinite, one = jnp.full_like(planner_state.cost, jnp.inf), jnp.ones_like(planner_state.progress)
        least = jnp.full_like(planner_state.damping, self.damping)
        rounded = planner_state.rounded and Rounded(shifted(planner_state.rounded.variables), infinite)
        slot = later(planner_state.candidate, shifted)
        known = (best, states, expansion, feedback, least, planner_state.curvature, one)
        return IlqrState(*known, infinite, infinite, slot, rounded)


def _plan(planner_state: IlqrState) -> Rounded:
    """The variables of the plan, and its cost."""
    return planner_state.rounded or Rounded(planner_state.best, planner_state.cost)


Tried = tuple[Array, Array, Array, Array]
"""States, variables and cost of a rollout, and the index of its step size."""


def _improved(model: Model, planner_state: IlqrState, parallel: bool) -> tuple[Tried, AffineFeedback, Array]:
    """The trajectory at the least damping that lowers the energy, the feedback that led there, and that damping."""
    nothing = (planner_state.states, planner_state.best, jnp.full_like(planner_state.cost, jnp.inf), jnp.asarray(-1))

    def failing(carry: tuple) -> Array:
        tries, mu, found, _ = carry
        return ~(found[2] < planner_state.cost) & (tries < TRIES) & (mu < LARGEST)

    def harder(carry: tuple) -> tuple:
        tries, mu, *_ = carry
        mu = jnp.where(tries > 0, GROWTH * mu, mu)
        feedback = _improve(planner_state.expansion, mu, planner_state.curvature, parallel)
        return tries + 1, mu, _searched(model, planner_state, feedback, nothing, parallel), feedback

    start = (jnp.asarray(0), jnp.minimum(planner_state.damping, LARGEST / GROWTH), nothing, planner_state.feedback)
    _, mu, found, feedback = jax.lax.while_loop(failing, harder, start)
    return found, feedback, mu


def _searched(model: Model, planner_state: IlqrState, feedback: AffineFeedback, nothing: Tried, parallel: bool) -> Tried:
    """The rollout at the longest step that lowers the energy, or else at the shortest."""
    sizes = jnp.asarray(STEP_SIZES, planner_state.best.dtype)
    along = partial(follow, model, planner_state.best, planner_state.states, feedback)
    if parallel:
        tried = jax.vmap(along)(sizes)
        first = jnp.argmax(tried[2] < planner_state.cost)
        states, variables, costs = tried
        return states[first], variables[first], costs[first], first

    def missing(tried: Tried) -> Array:
        return ~(tried[2] < planner_state.cost) & (tried[3] < len(sizes) - 1)

    def shorter(tried: Tried) -> Tried:
        return (*along(sizes[tried[3] + 1]), tried[3] + 1)

    return jax.lax.while_loop(missing, shorter, nothing)


def _improve(expansion: Expansion, damping: Array, curvature: Array, parallel: bool) -> AffineFeedback:
    return (parallel_backward if parallel else backward)(expansion, damping * curvature, FLOOR * curvature)
