"""Imagine a future: states, itemised costs, total energy, and the costates that gradients are made of.

All functions take a problem, the parameters of its dynamics and costs, the state to start from, and `actions` `[H, ...]` as
the model sees them: `space.embed` of what is executed.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mpc.costs import itemise
from mpc.problem import Problem

PyTree = Any


class Rollout(NamedTuple):
    """One imagined future of H steps.

    `states`: `[H+1, ...]`, the given state first. `costs`: every named term, stage terms `[H]` and terminal terms scalars.
    `energy`: their sum, a scalar.
    """

    states: PyTree
    costs: dict[str, jax.Array]
    energy: jax.Array


def rollout(problem: Problem, params: PyTree, state: PyTree, actions: jax.Array, perturbations: PyTree = None) -> Rollout:
    """Imagine the future that a sequence of actions leads to, with states and costs, term by term.

    Each state is displaced by its row of the perturbations `[H+1, ...]`, where there are any.
    """
    stage = itemise(problem.cost, "stage")

    def add(state: PyTree, nudge: PyTree) -> PyTree:
        return state if nudge is None else jax.tree.map(jnp.add, state, nudge)

    def advance(state: PyTree, step: tuple[jax.Array, jax.Array, PyTree]):
        action, t, nudge = step
        return add(problem.dynamics(params, state, action), nudge), (state, stage(params, state, action, t))

    start = add(jax.tree.map(jnp.asarray, state), jax.tree.map(lambda n: n[0], perturbations))
    steps = (actions, jnp.arange(len(actions)), jax.tree.map(lambda n: n[1:], perturbations))
    last, (states, costs) = jax.lax.scan(advance, start, steps)
    states = jax.tree.map(lambda s, end: jnp.concatenate([s, end[None]]), states, last)
    if problem.terminal_cost is not None:
        for name, value in itemise(problem.terminal_cost, "terminal")(params, last).items():
            costs[name if name not in costs else f"terminal_{name}"] = value
    return Rollout(states, costs, sum((jnp.sum(c) for c in costs.values()), start=jnp.zeros(())))


def energy(problem: Problem, params: PyTree, state: PyTree, actions: jax.Array, *, remat: bool = False) -> jax.Array:
    """The scalar `E(u) = Σ cost + terminal_cost` that planners minimise, without keeping anything else.

    With `remat`, the states at the ends of about sqrt(H) stretches only are kept; whoever differentiates imagines each
    stretch again (Chen et al. 2016), with memory for `2 sqrt(H)` steps instead of H and one more rollout.
    """

    def advance(carry: tuple[PyTree, jax.Array], step: tuple[jax.Array, jax.Array]):
        state, so_far = carry
        action, t = step
        so_far = so_far + problem.cost(params, state, action, t)
        return (problem.dynamics(params, state, action), so_far), None

    state = jax.tree.map(jnp.asarray, state)
    carry, steps = (state, jnp.zeros((), jnp.result_type(float))), (actions, jnp.arange(len(actions)))
    if remat:
        length = math.isqrt(len(actions))
        odd = len(actions) % length
        stretch = jax.checkpoint(lambda carry, steps: jax.lax.scan(advance, carry, steps), prevent_cse=False)
        carry, _ = stretch(carry, jax.tree.map(lambda x: x[:odd], steps))
        steps = jax.tree.map(lambda x: x[odd:].reshape(-1, length, *x.shape[1:]), steps)
        (last, so_far), _ = jax.lax.scan(stretch, carry, steps)
    else:
        (last, so_far), _ = jax.lax.scan(advance, carry, steps)
    return so_far if problem.terminal_cost is None else so_far + problem.terminal_cost(params, last)


def costates(problem: Problem, params: PyTree, state: PyTree, actions: jax.Array) -> PyTree:
    """Compute the costates, the gradients of the energy by the states: `λ[t] = ∂E / ∂s[t]`, shape `[H+1, ...]`.

    They satisfy the adjoint recursion `λ[t] = ∂cost/∂s[t] + (∂dynamics/∂s[t])ᵀ λ[t+1]`, `λ[H] = ∂terminal_cost/∂s[H]`
    (Bryson & Ho 1969, ch. 2), which reverse-mode differentiation of the rollout runs through; here each state is displaced
    by a zero, and the gradient by that is the costate.
    """
    return rollout_and_costates(problem, params, state, actions)[1]


def rollout_and_costates(problem: Problem, params: PyTree, state: PyTree, actions: jax.Array) -> tuple[Rollout, PyTree]:
    """`rollout` and `costates` of the same future, which is imagined, and compiled, once."""
    state = jax.tree.map(jnp.asarray, state)
    perturbations = jax.tree.map(lambda s: jnp.zeros((len(actions) + 1, *s.shape), s.dtype), state)

    def nudged(perturbations: PyTree) -> tuple[jax.Array, Rollout]:
        future = rollout(problem, params, state, actions, perturbations)
        return future.energy, future

    adjoint, future = jax.grad(nudged, has_aux=True)(perturbations)
    return future, adjoint
