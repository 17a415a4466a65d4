"""Gradient shooting: actions improved by sending the energy's gradient backwards through imagined time.

    u ← project(u - optimizer(∂E/∂u)),        ∂E/∂u[t] = ∂cost/∂u[t] + (∂dynamics/∂u[t])ᵀ λ[t+1]

with the costates λ (Bryson & Ho 1969), from many starts at once, for the energy has many basins.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mpc.planners.base import Planner, plan_from_choice, shifted, tree_where
from mpc.planners.candidates import Candidate, compete, emptied, injector, later, no_candidate
from mpc.planners.lagrangian import constrained
from mpc.planners.multistart import multistart
from mpc.problem import Problem
from mpc.rollout import energy

PyTree = Any


class GradientState(NamedTuple):
    """One start: its `variables` `[H, V]`, the optimiser's moments, the `best` variables seen, their cost, and a slot for a
    `candidate`.

    Those of all starts, `[S, H, V]`, are `multistart.side_by_side(planner_state).variables`.
    """

    variables: jax.Array
    moments: Any
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array
    candidate: Candidate

    def reset_to(self, variables: jax.Array) -> "GradientState":
        """Begin anew from variables `[H, V]`, with the moments as they are: as `init` or `shift` left them, none."""
        infinite = jnp.full_like(self.optimality, jnp.inf)
        return self.invalidate()._replace(variables=variables, best=variables, optimality=infinite)

    def invalidate(self) -> "GradientState":
        """Forget the cost and L-BFGS's differences of gradients, which are of one energy: the problem changed."""

        def forget(part: Any) -> Any:
            return jax.tree.map(jnp.zeros_like, part) if isinstance(part, optax.ScaleByLBFGSState) else part

        moments = jax.tree.map(forget, self.moments, is_leaf=lambda part: isinstance(part, optax.ScaleByLBFGSState))
        return self._replace(moments=moments, cost=jnp.full_like(self.cost, jnp.inf))

    def resume(self) -> "GradientState":
        """The best plan, for another solve."""
        return self.reset_to(self.best)


def gradient(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation | Literal["lbfgs"] | None = None,
    starts: int = 16,
    spread: float = 0.3,
    screen: tuple[int, int] | None = None,
    normalise: bool = False,
    clip: float | None = None,
    remat: bool = False,
) -> Planner:
    """Plan by gradient descent on the actions, from many starts in one compiled program.

    Args:
        problem: The problem; dynamics, costs and constraints must be differentiable.
        optimizer: Any optax optimiser over the variables, which live in `[-1, 1]`, Adam(0.1) unless told; or `"lbfgs"`,
            whose line search spends several gradients per iteration and settles far more exactly where energies are smooth.
        starts: Number of starts S. More find better basins, at a cost that grows linearly once a core is full.
        spread: Standard deviation of the smoothed noise that starts are drawn from, in variables.
        screen: `(candidates, steps)`: begin with so many starts and keep the best S after so many steps; see `multistart`.
        normalise: Scale each start's gradient to a root mean square of 1, so that the optimiser's step is independent of the
            scale of the energy or the horizon. For optimisers that neither adapt to the scale nor search along a line.
        clip: Largest Euclidean norm of a costate on its way back through time, or None. Through long or chaotic futures they
            grow exponentially; clipped, actions long before an effect keep a bounded say in it, and the gradient is biased.
        remat: Keep about 2·sqrt(H) steps of the future in memory, not H, and imagine the rest once more on the way back.

    Returns:
        The planner; `plan.info["costates"]` are the λ of the plan.

    Raises:
        ValueError: If `starts` is less than 1, `spread` negative, `clip` not positive, the optimiser's name unknown, or
            L-BFGS is to search along normalised gradients.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive norm or None; got {clip}")
    if isinstance(optimizer, str) and (optimizer != "lbfgs" or normalise):
        raise ValueError(f'optimizer must be an optax optimiser or, without normalise, "lbfgs"; got {optimizer!r}')
    single = descent(problem, optimizer=optimizer, normalise=normalise, clip=clip, remat=remat)
    return multistart(single, starts=starts, spread=spread, screen=screen)


@constrained(inner=20, penalty=400.0)
def descent(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation | Literal["lbfgs"] | None,
    normalise: bool,
    clip: float | None,
    remat: bool,
) -> Planner:
    """`gradient` from a single start."""
    rule = optax.adam(0.1) if optimizer is None else optax.lbfgs() if isinstance(optimizer, str) else optimizer
    # bounds break the smoothness that curvature and line searches count on; over angles, u = sin(angle), there are none
    curved = optimizer == "lbfgs" and problem.action_space.bounded
    searched = problem if clip is None else _with_limited_costates(problem, clip)
    own = _Descent(problem, searched, optax.with_extra_args_support(rule), curved, normalise, remat)
    plan = plan_from_choice(problem, own.best_actions)
    return Planner(own.init, own.step, plan, own.shift, injector(problem), problem, own.best_actions)


@dataclass(frozen=True, eq=False)
class _Descent:
    """One start's descent.

    `searched`: the problem whose gradient is followed. `curved`: whether the optimiser sees angles, `u = sin(angle)`.
    """

    problem: Problem
    searched: Problem
    rule: optax.GradientTransformationExtraArgs
    curved: bool
    normalise: bool
    remat: bool

    def _relaxed(self, variables: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        actions = self.problem.action_space.bind(params).relax(variables)
        return energy(self.searched, params, state, actions, remat=self.remat)

    def _executed(self, variables: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        space = self.problem.action_space
        return energy(self.problem, params, state, space.embed(space.bind(params).decide(variables)))

    def _point(self, variables: jax.Array) -> jax.Array:
        """The optimiser's own coordinates, `variables = place(point)`; never quite at a bound, where angles would stay."""
        if not self.curved:
            return variables
        most = 1 - 10 * jnp.finfo(variables.dtype).eps
        return jnp.arcsin(jnp.clip(variables, -most, most))

    def _place(self, point: jax.Array) -> jax.Array:
        return self.problem.action_space.project(jnp.sin(point) if self.curved else point)

    def _begin(self, variables: jax.Array) -> GradientState:
        infinite = jnp.asarray(jnp.inf, variables.dtype)
        moments = self.rule.init(variables)
        return GradientState(variables, moments, variables, infinite, infinite, no_candidate(variables))

    def init(self, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> GradientState:
        space = self.problem.action_space
        if guess is None:
            return self._begin(jnp.zeros((self.problem.horizon, space.size)))
        return self._begin(space.project(space.encode(guess)))

    def step(self, params: PyTree, state: PyTree, planner_state: GradientState) -> GradientState:
        slot, old = planner_state.candidate, planner_state.variables
        taken, held, cost = compete(slot, (planner_state.best,), planner_state.cost, self._executed, params, state)
        variables, fresh = jnp.where(taken, held, old), self.rule.init(old)
        moments = tree_where(taken, fresh, planner_state.moments)
        value, slope = jax.value_and_grad(self._relaxed)(variables, params, state)
        finite = jnp.isfinite(value)
        # a slope that is missing, as a norm's at 0, says nothing against the value, nor against the rest of the slope
        slope = jnp.where(finite & jnp.isfinite(slope), slope, 0.0)
        # a relaxed plan that got cheaper may still round to a dearer one: the best is told by what would be executed
        reached = value if self.problem.action_space.exact else self._executed(variables, params, state)
        better = finite & (reached < cost)
        moved, moments, residual = self._descend(params, state, variables, value, slope, moments)
        # a start that left the model's domain goes half of the way back to where it was last in it, or to the middle
        moved = jnp.where(finite, moved, 0.5 * (variables + jnp.where(jnp.isfinite(cost), held, 0.0)))
        moments = jax.tree.map(lambda m, new: jnp.where(jnp.isnan(m), new, m), moments, fresh)
        best, cost = jnp.where(better, variables, held), jnp.where(better, reached, cost)
        return GradientState(moved, moments, best, cost, jnp.where(finite, residual, jnp.inf), emptied(slot))

    def _descend(
        self, params: PyTree, state: PyTree, variables: jax.Array, value: jax.Array, slope: jax.Array, moments: Any
    ) -> tuple[jax.Array, Any, jax.Array]:
        """One step of the optimiser: variables, its moments, and the largest component of the projected gradient."""
        # the projected gradient vanishes exactly where no allowed move lowers the energy to first order
        residual = jnp.abs(self.problem.action_space.project(variables - slope) - variables)
        here = self._point(variables)
        free = slope * jnp.cos(here) if self.curved else jnp.where(residual > 0, slope, 0.0)
        if self.normalise:
            length = jnp.sqrt(jnp.maximum(jnp.mean(free * free), jnp.finfo(free.dtype).tiny))
            free = jnp.where(free != 0, free / length, 0.0)  # roots of 0 in optimisers have no slope to share

        def along(trial: jax.Array) -> jax.Array:
            return self._relaxed(self._place(trial), params, state)

        update: Any  # optax types it as a tree; here it is one array
        update, moments = self.rule.update(free, moments, here, value=value, grad=free, value_fn=along)
        moved = self._place(here + update)
        return jnp.where(jnp.isfinite(moved), moved, variables), moments, residual.max()

    def best_actions(
        self, params: PyTree, state: PyTree, planner_state: GradientState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        actions = self.problem.action_space.bind(params).decide(planner_state.best)
        return actions, jnp.isfinite(planner_state.cost), {"optimality": planner_state.optimality}

    def shift(self, planner_state: GradientState) -> GradientState:
        return self._begin(shifted(planner_state.best))._replace(candidate=later(planner_state.candidate, shifted))


def _with_limited_costates(problem: Problem, limit: float) -> Problem:
    return replace(problem, dynamics=lambda *args: _limited(limit, problem.dynamics(*args)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _limited(limit: float, state: PyTree) -> PyTree:
    """The state itself, whose costate is scaled down to the norm `limit` where it is longer."""
    return state


def _limit(limit: float, _: None, costate: PyTree) -> tuple[PyTree]:
    norm = optax.tree.norm(costate)
    return (jax.tree.map(lambda c: c * jnp.where(norm > limit, limit / norm, 1.0).astype(c.dtype), costate),)


_limited.defvjp(lambda limit, state: (state, None), _limit)
