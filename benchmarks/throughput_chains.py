"""Longest chains of dependent operations in one step of a planner, counted in what JAX traced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

import mpc

HORIZONS = (50, 100, 200, 400, 800, 1600)


def chain(jaxpr: core.Jaxpr, branch: Callable[..., int] = max) -> int:
    """The longest chain of dependent operations in a program: what an infinitely parallel machine would still wait for.

    A scan counts its body once per step; a while loop whose length is not known counts once. Where the program branches,
    `branch` says which way counts: `max`, the longest, or `min`, the shortest.
    """
    ready: dict[Any, int] = {}
    longest = 0
    for equation in jaxpr.eqns:
        inner = [chain(body, branch) for body in core.jaxprs_in_params(equation.params)]
        way = branch if equation.primitive.name == "cond" else max
        cost = way(inner, default=1) * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        begun = max((ready.get(v, 0) for v in equation.invars if not isinstance(v, core.Literal)), default=0)
        ready |= dict.fromkeys(equation.outvars, begun + cost)
        longest = max(longest, begun + cost)
    return longest


DEEP: dict[str, Callable[[mpc.Problem], mpc.Planner]] = {
    "gradient": partial(mpc.gradient, starts=1),
    "ilqr": partial(mpc.ilqr, parallel=False),
    "ilqr, parallel": partial(mpc.ilqr, parallel=True),
    "collocation, 10 rounds": partial(mpc.collocation, starts=1, synchronise=10),
}


def depth(quick: bool) -> list[dict[str, Any]]:
    """Returns chains of one planner step against the horizon, on a small linear-quadratic problem."""
    rows = []
    for name, build in DEEP.items():
        for horizon in HORIZONS[:2] if quick else HORIZONS:
            problem = mpc.Problem(
                lambda p, s, a: s + 0.1 * jnp.stack([s[1], a[0]]),
                lambda p, s, a, t: jnp.sum(s * s) + jnp.sum(a * a),
                horizon=horizon,
                action_space=mpc.Box([-1.0], [1.0]),
            )
            planner, state = build(problem), jnp.ones(2)
            planner_state = jax.eval_shape(planner.init, None, state, jax.random.key(0))
            traced = jax.make_jaxpr(planner.step)(None, state, planner_state)
            ways = {"chain": chain(traced.jaxpr), "shortest": chain(traced.jaxpr, min)}
            rows.append({"planner": name, "horizon": horizon} | ways)
    return rows
