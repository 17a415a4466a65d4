"""Iterative LQR."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Plan, Planner, conclude
from mpc.planners.multistart import multistart
from mpc.planners.riccati import Expansion, Policy, backward
from mpc.problem import Problem

Array = jax.Array
PyTree = Any


class IlqrMemory(NamedTuple):
    best: Array
    states: Array
    defects: Array
    feedforward: Array
    gain: Array
    decrease: Array
    damping: Array
    cost: Array
    optimality: Array

    def restart(self, variables: Array) -> "IlqrMemory":
        infinite = jnp.full_like(self.cost, jnp.inf)
        return self._replace(
            best=variables,
            defects=jnp.zeros_like(self.defects),
            feedforward=jnp.zeros_like(self.feedforward),
            gain=jnp.zeros_like(self.gain),
            damping=jnp.full_like(self.damping, self.damping0) if False else self.damping,
            cost=infinite,
            optimality=infinite,
        )


def ilqr(
    problem: Problem,
    *,
    starts: int = 1,
    spread: float = 0.3,
    screen=None,
    second_order: bool = False,
    damping: float = 1e-3,
    grow: float = 8.0, shrink: float = 0.2, floor: float = 1e-6, dmin=1e-8, dmax=1e8,
    step_sizes: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01),
) -> Planner:
    space, horizon = problem.action_space, problem.horizon
    sizes = np.asarray(step_sizes)

    def limits(variables):
        far = jnp.full_like(variables, jnp.inf)
        return space.project(-far), space.project(far)

    def single(params, state):
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, state))
        shapes = [(x.shape, x.dtype) for x in leaves]
        splits = np.cumsum([x.size for x in leaves])[:-1]

        def flat(state):
            return jnp.concatenate([jnp.ravel(x).astype(float) for x in jax.tree.leaves(state)])

        def unflat(x):
            parts = jnp.split(x, splits)
            return jax.tree.unflatten(tree, [p.reshape(s).astype(d) for p, (s, d) in zip(parts, shapes, strict=True)])

        def f(x, v):
            return flat(problem.dynamics(params, unflat(x), space.relax(v)))

        def l(x, v, t):
            return problem.cost(params, unflat(x), space.relax(v), t)

        def end(x):
            return jnp.zeros(()) if problem.terminal_cost is None else problem.terminal_cost(params, unflat(x))
        return flat, f, l, end

    def expand(params, state, states, variables):
        flat, f, l, end = single(params, state)
        m = space.size
        z = jnp.concatenate([variables, states[:-1]], axis=1)
        fz = lambda z: f(z[m:], z[:m])
        lz = lambda z, t: l(z[m:], z[:m], t)
        ts = jnp.arange(horizon)
        jac = jax.vmap(jax.jacfwd(fz))(z)
        grad = jax.vmap(jax.grad(lz))(z, ts)
        egrad, ehess = jax.grad(end)(states[-1]), jax.hessian(end)(states[-1])

        def adjoint(lam, step):
            J, g = step
            q = g + lam @ J
            return q[m:], (q[:m], lam)
        _, (slope, lam) = jax.lax.scan(adjoint, egrad, (jac, grad), reverse=True)
        if second_order:
            hess = jax.vmap(jax.hessian(lambda z, t, lam: lz(z, t) + lam @ fz(z)))(z, ts, lam)
        else:
            hess = jax.vmap(jax.hessian(lz))(z, ts)
        low, high = limits(variables)
        defects = jnp.zeros_like(states[1:])
        ex = Expansion(jac, defects, grad, hess, egrad, ehess, low - variables, high - variables)
        return ex, slope

    def rollout(params, state, memory, alpha):
        flat, f, l, end = single(params, state)

        def advance(carry, step):
            x, total = carry
            v, k, K, xn, t = step
            v = space.project(v + alpha * k + K @ (x - xn))
            return (f(x, v), total + l(x, v, t)), (x, v)
        (last, total), (xs, vs) = jax.lax.scan(advance, (flat(state), jnp.zeros(())), (memory.best, memory.feedforward, memory.gain, memory.states[:-1], jnp.arange(horizon)))
        return jnp.concatenate([xs, last[None]]), vs, total + end(last)

    def begin(variables, states):
        inf = jnp.asarray(jnp.inf)
        n = states.shape[1]
        return IlqrMemory(variables, states, jnp.zeros((horizon, n)), jnp.zeros_like(variables), jnp.zeros((horizon, space.size, n)), jnp.zeros(()), jnp.asarray(damping / grow), inf, inf)

    def init(params, state, key, guess=None):
        flat = single(params, state)[0]
        variables = jnp.zeros((horizon, space.size)) if guess is None else space.project(space.encode(guess))
        states = jnp.broadcast_to(flat(state), (horizon + 1, flat(state).size))
        return begin(variables, states)

    def step(params, state, memory):
        xs, vs, costs = jax.vmap(lambda a: rollout(params, state, memory, a))(sizes.astype(memory.states.dtype))
        costs = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
        i = jnp.argmin(costs)
        better = costs[i] < memory.cost
        first = jnp.isinf(memory.cost)
        states = jnp.where(better, xs[i], memory.states)
        variables = jnp.where(better, vs[i], memory.best)
        cost = jnp.where(better, costs[i], memory.cost)
        mu = jnp.where(better, memory.damping * jnp.where(i == 0, shrink, jnp.where(i <= 2, 1.0, grow)), memory.damping * grow)
        mu = jnp.clip(mu, dmin, dmax)
        ex, slope = expand(params, state, states, variables)
        policy = backward(ex, mu, jnp.asarray(floor))
        residual = jnp.abs(space.project(variables - slope) - variables).max()
        return IlqrMemory(variables, states, memory.defects, policy.feedforward, policy.gain, policy.decrease, mu, cost, residual)

    def plan(params, state, memory):
        return conclude(problem, params, state, space.decide(memory.best), jnp.isfinite(memory.cost), {"optimality": memory.optimality})

    def shift(memory):
        def later(x): return jnp.concatenate([x[1:], x[-1:]])
        inf = jnp.full_like(memory.cost, jnp.inf)
        return memory._replace(best=later(memory.best), states=later(memory.states), feedforward=later(memory.feedforward), gain=later(memory.gain).at[-1].set(0.0), cost=inf, optimality=inf, damping=jnp.full_like(memory.damping, damping/grow))

    return multistart(Planner(init, step, plan, shift, problem), starts=starts, spread=spread, screen=screen)
