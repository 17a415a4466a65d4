"""Gradient shooting: actions improved by sending the energy's gradient backwards through imagined time.

    u ← project(u - optimizer(∂E/∂u)),        ∂E/∂u[t] = ∂cost/∂u[t] + (∂dynamics/∂u[t])ᵀ λ[t+1]

with the costates λ (Bryson & Ho 1969), from many starts at once, for the energy has many basins.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mpc.planners.base import Planner, plan_from_choice
from mpc.planners.lagrangian import constrained
from mpc.planners.multistart import multistart
from mpc.problem import Problem
from mpc.rollout import energy

PyTree = Any


class GradientState(NamedTuple):
    """Where one start stands: its `variables` `[H, V]`, the optimiser's moments, the `best` variables seen and their cost.

    Those of all starts, `[S, H, V]`, are `multistart.side_by_side(planner_state).variables`.
    """

    variables: jax.Array
    moments: Any
    best: jax.Array
    cost: jax.Array
    optimality: jax.Array

    def reset_to(self, variables: jax.Array) -> "GradientState":
        """Begin anew from variables `[H, V]`, with the moments as `init` or `shift` left them."""
        return self._replace(variables=variables, best=variables)

    def invalidate(self) -> "GradientState":
        """Told that its problem changed: differences of gradients taken across two energies say nothing about either."""

        def forget(part: Any) -> Any:
            return jax.tree.map(jnp.zeros_like, part) if isinstance(part, optax.ScaleByLBFGSState) else part

        moments = jax.tree.map(forget, self.moments, is_leaf=lambda part: isinstance(part, optax.ScaleByLBFGSState))
        return self._replace(moments=moments, cost=jnp.full_like(self.cost, jnp.inf))


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
        problem: What is minimised over what; dynamics, costs and constraints must be differentiable.
        optimizer: Any optax optimiser over the variables, which live in `[-1, 1]`, Adam(0.1) unless told; or `"lbfgs"`,
            whose line search spends several gradients per iteration and settles far more exactly where energies are smooth.
        starts: Number of starts S. More find better basins, at a cost that grows linearly once a core is full.
        spread: Standard deviation of the smoothed noise that starts are drawn from, in variables.
        screen: `(candidates, steps)`: begin with so many starts and keep the best S after so many steps; see `multistart`.
        normalise: Scale each start's gradient to a root mean square of 1, so that the optimiser's step does not hang on the
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


@constrained(inner=20)
def descent(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation | Literal["lbfgs"] | None,
    normalise: bool,
    clip: float | None,
    remat: bool,
) -> Planner:
    """`gradient` from a single start."""
    space, horizon = problem.action_space, problem.horizon
    # bounds break the smoothness that curvature and line searches count on; over angles, u = sin(angle), there are none
    curved = optimizer == "lbfgs" and space.bounded
    rule = optax.with_extra_args_support(
        optax.adam(0.1) if optimizer is None else optax.lbfgs() if isinstance(optimizer, str) else optimizer
    )
    searched = problem if clip is None else _with_limited_costates(problem, clip)

    def score(variables: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        return energy(searched, params, state, space.bind(params).relax(variables), remat=remat)

    def executed(variables: jax.Array, value: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        # a relaxed plan that got cheaper may still round to a dearer one: the best is told by what would be executed
        if space.exact:
            return value
        return energy(problem, params, state, space.embed(space.bind(params).decide(variables)))

    def point(variables: jax.Array) -> jax.Array:
        """Where the optimiser stands, `variables = place(point)`; never quite at a bound, where an angle would stay."""
        if not curved:
            return variables
        most = 1 - 10 * jnp.finfo(variables.dtype).eps
        return jnp.arcsin(jnp.clip(variables, -most, most))

    def place(point: jax.Array) -> jax.Array:
        return space.project(jnp.sin(point) if curved else point)

    def begin(variables: jax.Array) -> GradientState:
        infinite = jnp.asarray(jnp.inf, variables.dtype)
        return GradientState(variables, rule.init(variables), variables, infinite, infinite)

    def init(params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None) -> GradientState:
        if guess is None:
            return begin(jnp.zeros((horizon, space.size)))
        return begin(space.project(space.encode(guess)))

    def step(params: PyTree, state: PyTree, planner_state: GradientState) -> GradientState:
        variables = planner_state.variables
        value, slope = jax.value_and_grad(score)(variables, params, state)
        finite = jnp.isfinite(value) & jnp.isfinite(slope).all()
        slope = jnp.where(finite, slope, 0.0)  # a start that left the model's domain rests
        reached = executed(variables, value, params, state)
        better = finite & (reached < planner_state.cost)
        best = jnp.where(better, variables, planner_state.best)
        # the projected gradient vanishes exactly where no allowed move lowers the energy to first order
        residual = jnp.abs(space.project(variables - slope) - variables)
        here = point(variables)
        free = slope * jnp.cos(here) if curved else jnp.where(residual > 0, slope, 0.0)
        if normalise:
            free = free / jnp.maximum(jnp.sqrt(jnp.mean(free * free)), jnp.finfo(free.dtype).tiny)

        def along(trial: jax.Array) -> jax.Array:
            return score(place(trial), params, state)

        update: Any  # optax types it as a tree; here it is one array
        update, moments = rule.update(free, planner_state.moments, here, value=value, grad=free, value_fn=along)
        moved = place(here + update)
        moved = jnp.where(jnp.isfinite(moved), moved, variables)
        moments = jax.tree.map(lambda m, fresh: jnp.where(jnp.isnan(m), fresh, m), moments, rule.init(variables))
        optimality = jnp.where(finite, residual.max(), jnp.inf)
        return GradientState(moved, moments, best, jnp.where(better, reached, planner_state.cost), optimality)

    def best_actions(
        params: PyTree, state: PyTree, planner_state: GradientState
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        info = {"optimality": planner_state.optimality}
        return space.bind(params).decide(planner_state.best), jnp.isfinite(planner_state.cost), info

    def shift(planner_state: GradientState) -> GradientState:
        return begin(jnp.concatenate([planner_state.best[1:], planner_state.best[-1:]]))

    return Planner(init, step, plan_from_choice(problem, best_actions), shift, problem, best_actions)


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
