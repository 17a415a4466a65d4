"""Trajectories of a problem as vectors: rolled out under feedback, and expanded to second order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mpc.planners.riccati import AffineFeedback, Expansion
from mpc.problem import Problem

Array = jax.Array
PyTree = Any


class Model:
    """A problem's functions of vectors: states flattened, actions as variables, and z = (variables, state)."""

    def __init__(self, problem: Problem, params: PyTree, state: PyTree) -> None:
        flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, state))
        self.problem, self.params, self.space = problem, params, problem.action_space.bind(params)
        self.state = flat.astype(float)
        self.unflatten = lambda x: unravel(x.astype(flat.dtype))

    def flatten(self, state: PyTree) -> Array:
        return ravel_pytree(state)[0].astype(float)

    def split(self, z: Array) -> tuple[PyTree, Array]:
        return self.unflatten(z[self.space.size :]), self.space.relax(z[: self.space.size])

    def dynamics(self, z: Array) -> Array:
        return self.flatten(self.problem.dynamics(self.params, *self.split(z)))

    def cost(self, z: Array, t: Array) -> Array:
        return self.problem.cost(self.params, *self.split(z), t).astype(float)

    def terminal_cost(self, x: Array) -> Array:
        terminal = self.problem.terminal_cost
        return jnp.zeros(()) if terminal is None else terminal(self.params, self.unflatten(x)).astype(float)


def follow(
    model: Model, variables: Array, states: Array, feedback: AffineFeedback, size: Array
) -> tuple[Array, Array, Array]:
    """Roll the real dynamics out under feedback around a trajectory: states, variables and energy, `inf` if not finite."""

    def advance(carry: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        state, energy = carry
        variable, nominal, (feedforward, gain), t = now
        variable = model.space.project(variable + size * feedforward + gain @ (state - nominal))
        z = jnp.concatenate([variable, state])
        return (model.dynamics(z), energy + model.cost(z, t)), (state, variable)

    now = (variables, states[:-1], feedback, jnp.arange(len(variables)))
    (last, energy), (before, variables) = jax.lax.scan(advance, (model.state, jnp.zeros(())), now)
    energy = energy + model.terminal_cost(last)
    return jnp.concatenate([before, last[None]]), variables, jnp.where(jnp.isfinite(energy), energy, jnp.inf)


def expand(model: Model, states: Array, variables: Array, curved: Any, parallel: bool) -> tuple[Expansion, Array]:
    """Expand the problem around a trajectory; also the energy's gradient `[H, V]` by the variables.

    `curved`: Whether the Hessian is that of `cost + λᵀ dynamics`, for the costates λ, and not of the cost alone.
    """
    over = (lambda f, *xs: jax.vmap(f)(*xs)) if parallel else (lambda f, *xs: jax.lax.map(lambda x: f(*x), xs))
    points, times = jnp.concatenate([variables, states[:-1]], axis=1), jnp.arange(len(variables))
    size = variables.shape[1]

    def finite(x: Array) -> Array:
        return jnp.where(jnp.isfinite(x), x, 0.0)

    def derivative(function: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
        """A function's value and its transposed Jacobian, a row at a time: such loops compile and, on a CPU, run faster.

        Derivatives that are not finite, as those of a norm at 0, count as 0: the others still lead somewhere.
        """
        value, push = jax.linearize(function, z)
        return value, finite(over(push, jnp.eye(len(z), dtype=z.dtype)))

    def first(z: Array, t: Array) -> tuple[Array, Array, Array, Array]:
        slope, hessian = derivative(jax.grad(lambda z: model.cost(z, t)), z)
        return *derivative(model.dynamics, z), finite(slope), hessian

    def back(costate: Array, step: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        jacobian, gradient = step
        total = gradient + costate @ jacobian
        return total[size:], (costate, total[:size])

    def add_curvature(hessian: Array) -> Array:
        def curvature(z: Array, costate: Array) -> Array:
            return derivative(jax.grad(lambda z: costate @ model.dynamics(z)), z)[1]

        return hessian + over(curvature, points, costates)

    reached, transposed, gradient, hessian = over(first, points, times)
    jacobian = jnp.swapaxes(transposed, 1, 2)
    end, end_hessian = derivative(jax.grad(model.terminal_cost), states[-1])
    end = finite(end)
    _, (costates, slope) = jax.lax.scan(back, end, (jacobian, gradient), reverse=True)
    if isinstance(curved, bool):
        hessian = add_curvature(hessian) if curved else hessian
    else:
        hessian = jax.lax.cond(curved, add_curvature, lambda same: same, hessian)
    far = jnp.full_like(variables, jnp.inf)
    low, high = model.space.project(-far) - variables, model.space.project(far) - variables
    return Expansion(jacobian, reached - states[1:], gradient, hessian, low, high, end, end_hessian), slope


def projected_step(space: Any, variables: Array, slope: Array, unit: Array) -> Array:
    """Absolute change of the variables, `[H, V]`, by a projected gradient step with the slope in a unit of the cost."""
    return jnp.abs(space.project(variables - slope / jnp.maximum(unit, jnp.finfo(slope.dtype).tiny)) - variables)


def curvature_of(expansion: Expansion) -> Array:
    """The largest curvature `[V]` that each variable has of its own and by the state it leads to; 1 where it has none."""
    size = expansion.low.shape[1]
    inputs, after = expansion.jacobian[:, :, :size], expansion.hessian[1:, size:, size:]
    after = jnp.concatenate([after, expansion.terminal_hessian[None]])
    own = jnp.diagonal(expansion.hessian[:, :size, :size], axis1=1, axis2=2)
    largest = jnp.max(jnp.abs(own) + jnp.abs(jnp.sum(inputs * (after @ inputs), axis=1)), axis=0)
    return jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1.0)
