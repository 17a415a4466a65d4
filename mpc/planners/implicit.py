"""Gradients of plans by the implicit function theorem: of the optimum itself, not of the iterations that led to it.

At an optimum u(θ), with duals λ of the active constraints A and the free variables F (those not held by a bound),

    ∂E/∂u_F + (∂c_A/∂u_F)ᵀ λ = 0,      c_A = 0      for every θ,

so its derivative with respect to θ solves a linear system with the matrix of this one's derivatives, the KKT matrix
(Nocedal & Wright 2006, ch. 12 and 18; for plans: Amos et al. 2018). How the optimum was found does not matter.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mpc.constraints import feasibility_tolerance, table
from mpc.planners.augmented import equalities
from mpc.planners.base import Plan, Planner, Status, conclude
from mpc.planners.solve import solve
from mpc.problem import Problem
from mpc.rollout import energy, rollout

PyTree = Any

NEAR = 1e-3  # of a bound, in variables: where the search may have ended just short of it


def implicit(
    planner: Planner, params: PyTree, state: PyTree, key: jax.Array, iterations: int = 100, **settings: Any
) -> Plan:
    """`solve`, whose plan has the derivatives of the optimum with respect to `params` and `state`.

    Exact where the plan is a strict local optimum, whatever the planner, the number of iterations or the tolerance; the
    unrolled derivatives of `solve` itself also know how far the iterations came. Needs second derivatives of dynamics and
    costs, and one dense system of size `H (V + C)` for V variables and C constraint values a step.

    Args:
        planner: Any planner of a problem whose actions are continuous.
        params: Parameters of the problem's functions.
        state: Where to start.
        key: Randomness.
        iterations: As for `solve`.
        **settings: The other settings of `solve`.

    Raises:
        ValueError: If the actions are discrete, or as `solve` does.
    """
    problem = planner.problem
    space = problem.action_space
    if not space.exact:
        raise ValueError(f"discrete actions do not change smoothly with the parameters; got {type(space).__name__}")
    if not space.separable:
        raise ValueError(f"implicit knows bounds, but not ties between steps such as those of {type(space).__name__}")
    found = solve(planner, *jax.lax.stop_gradient((params, state)), key, iterations, **settings)
    state = problem.lifted(params, state)
    optimum = jax.lax.stop_gradient(space.encode(found.actions))
    variables = _follow(problem, params, state, optimum)
    plan = conclude(problem, params, state, space.relax(variables), found.status != Status.NOT_FINITE, found.info)
    return plan._replace(status=found.status)


def _follow(problem: Problem, params: PyTree, state: PyTree, optimum: jax.Array) -> jax.Array:
    """The optimal variables `[H, V]`, with their derivatives with respect to parameters and state."""
    space, count = problem.action_space, optimum.size

    def slope(flat: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        return jax.grad(lambda u: energy(problem, params, state, space.relax(u.reshape(optimum.shape))))(flat)

    def values(flat: jax.Array, params: PyTree, state: PyTree) -> jax.Array:
        shown = space.relax(flat.reshape(optimum.shape))
        states = rollout(problem, params, state, shown).states
        return table(problem.constraints, params, states, shown).reshape(-1)

    start, fixed = optimum.reshape(-1), jax.lax.stop_gradient((params, state))
    equal = jnp.tile(equalities(problem, *fixed), problem.horizon)
    jacobian = jax.jacobian(values)(start, *fixed)
    free, active, duals = _active_set(problem, start, slope(start, *fixed), values(start, *fixed), jacobian, equal)

    def conditions(point: jax.Array) -> jax.Array:
        """Zero at an optimum: stationarity of what is free, and the active constraints."""
        u, duals = jnp.where(free, point[:count], start), jnp.where(active, point[count:], 0.0)
        c, pull = jax.vjp(lambda u: values(u, params, state), u)
        stationary = slope(u, params, state) + pull(duals)[0]
        rest = jnp.where(free, stationary, point[:count] - start)
        return jnp.concatenate([rest, jnp.where(active, c, point[count:])])

    def linear_solve(conditions: Any, right: jax.Array) -> jax.Array:
        matrix = jax.jacobian(conditions)(jnp.zeros_like(right))
        # constraints that say nothing, or the same twice, leave their duals open: the smallest are as good as any
        slack = jnp.finfo(right.dtype).eps * jnp.abs(matrix).max()
        redundant = jnp.concatenate([jnp.zeros(count, bool), active])
        idle = (matrix == 0).all(axis=1) & ~redundant  # actions without any effect stay
        return jnp.linalg.solve(matrix - jnp.diag(jnp.where(redundant, slack, 0.0) - idle), right)

    point = jnp.concatenate([start, duals])
    return jax.lax.custom_root(conditions, point, lambda _, guess: guess, linear_solve)[:count].reshape(optimum.shape)


def _active_set(
    problem: Problem, start: jax.Array, slope: jax.Array, values: jax.Array, jacobian: jax.Array, equal: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the variables that no bound holds, the constraints that are active, and their duals, by least squares."""
    space = problem.action_space
    far = jnp.full((problem.horizon, space.size), jnp.inf, start.dtype)
    low, high = (space.project(x).reshape(-1) for x in (-far, far))
    at_low, at_high = start <= low + NEAR, start >= high - NEAR
    inside = ~(at_low | at_high)
    tight = equal | (values >= -100 * feasibility_tolerance(values.dtype))
    rows = jnp.where(tight[:, None] & inside, jacobian, 0.0)
    duals = jnp.linalg.lstsq(rows.T, jnp.where(inside, -slope, 0.0))[0] if len(values) else values
    active = tight & (equal | (duals > 0))
    pull = slope + jnp.where(active, duals, 0.0) @ jacobian
    # a step along the gradient would end at the bound (Bertsekas 1982)
    held = (at_low & (pull > start - low)) | (at_high & (-pull > high - start)) | (low == high)
    return ~held, active, jnp.where(active, duals, 0.0)
