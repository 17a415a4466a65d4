"""Problems of optimal control as formulas, each written once and evaluated by JAX and by CasADi.

Dynamics, costs and limits are formulas over a few mathematical functions (`Maths`). `JAX` evaluates them in JAX;
`benchmarks.peers` evaluates them with CasADi symbols. Every problem is

    minimise over u    J = Σ_{t=0}^{H-1} stage(x[t], u[t]) + terminal(x[H])
    subject to         x[t+1] = dynamics(x[t], u[t]),   low <= u[t] <= high,
                       inequality: g(x[t]) <= 0,  equality: h(x[t]) = 0     for t = first … last,
                       or g(u[t]) <= 0            for t = 0 … H-1

without normalisation of J. Limits are dimensionless, so one tolerance applies to all of them. The best known optima (multi-
start of an interior-point solver; local, not certified global) are in the files `STORES`, written by
`python -m benchmarks.references`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc import trigonometry

STORES = (Path(__file__).parent / "references.json", Path(__file__).parent / "literature" / "optima.json")
FEASIBLE = 1e-6  # largest violation of a limit that counts as feasible
Vector = Any  # a JAX array or a CasADi expression


class Maths(NamedTuple):
    """The functions used in the formulas below; `stack` makes a vector of scalars."""

    sin: Callable[[Any], Any]
    cos: Callable[[Any], Any]
    tan: Callable[[Any], Any]
    sqrt: Callable[[Any], Any]
    exp: Callable[[Any], Any]
    stack: Callable[..., Any]


JAX = Maths(jnp.sin, jnp.cos, jnp.tan, jnp.sqrt, jnp.exp, lambda *scalars: jnp.stack(scalars))
SIDE_BY_SIDE = JAX._replace(sin=trigonometry.sin, cos=trigonometry.cos, tan=trigonometry.tan)  # for many problems at once


class Limit(NamedTuple):
    """A constraint on states: `function(maths, x)` is <= 0 (or, for an equality, = 0) at the steps t = `first` … `last`.

    The default of `last` is H. With `of_actions`, the limit is `function(maths, u)` for the actions of all steps.
    """

    name: str
    function: Callable[[Maths, Vector], Vector]
    first: int = 1
    equality: bool = False
    last: int | None = None
    of_actions: bool = False

    def active(self, t: Any) -> Any:
        """Returns True if the limit holds for the state of a step."""
        return t >= self.first if self.last is None else (t >= self.first) & (t <= self.last)


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference problem as formulas; see the module docstring.

    `dynamics(maths, x, u)`, `stage(maths, x, u)`, `terminal(maths, x)`; `low`, `high`: bounds of an action; `start`: initial
    state.
    """

    name: str
    horizon: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    start: tuple[float, ...]
    dynamics: Callable[[Maths, Vector, Vector], Vector]
    stage: Callable[[Maths, Vector, Vector], Any]
    terminal: Callable[[Maths, Vector], Any]
    limits: tuple[Limit, ...] = ()

    @cached_property
    def problem(self) -> mpc.Problem:
        """The problem for planners; its params are None."""
        return self.posed(JAX)

    def posed(self, maths: Maths) -> mpc.Problem:
        """Returns the problem with other mathematical functions."""
        return mpc.Problem(
            lambda params, state, action: self.dynamics(maths, state, action),
            lambda params, state, action, t: self.stage(maths, state, action),
            lambda params, state: self.terminal(maths, state),
            horizon=self.horizon,
            action_space=mpc.Box(self.low, self.high),
            constraints=tuple(_constraint(maths, limit) for limit in self.limits),
        )

    def guess(self, seed: int) -> np.ndarray:
        """Returns the initial actions `[H, A]` shared by all solvers: smoothed noise of a third of the bounds' width.

        `w[t] = 0.8 w[t-1] + 0.6 n[t]`, times 0.3, clipped to ±1, scaled to the bounds.
        """
        white = np.random.default_rng(seed).standard_normal((self.horizon, len(self.low)))
        smooth = np.zeros_like(white)
        for t in range(self.horizon):
            smooth[t] = 0.8 * smooth[t - 1] * (t > 0) + 0.6 * white[t]
        low, high = np.array(self.low), np.array(self.high)
        return 0.5 * (low + high) + 0.5 * (high - low) * np.clip(0.3 * smooth, -1.0, 1.0)

    def measure(self, actions: Any, start: Any = None) -> tuple[float, float]:
        """Returns cost and largest violation of all limits and bounds for actions `[H, A]` rolled out in float64."""
        with jax.enable_x64(True):
            begin = jnp.asarray(self.start if start is None else start, jnp.float64)
            cost, violation = _evaluation(self)(begin, jnp.asarray(np.asarray(actions, np.float64)))
            return float(cost), float(violation)

    def successor(self, actions: Any) -> np.ndarray:
        """Returns the state `[S]` after the first of the actions `[H, A]`, in float64: the start of the next decision."""
        with jax.enable_x64(True):
            first = jnp.asarray(np.asarray(actions, np.float64))[0]
            return np.asarray(self.dynamics(JAX, jnp.asarray(self.start, jnp.float64), first))


def _constraint(maths: Maths, limit: Limit) -> Any:
    """Returns a limit as a constraint of `mpc`, which sees each state with the action that led to it."""
    idle = 0.0 if limit.equality else -1.0
    kind = mpc.constraints.equality if limit.equality else mpc.constraints.inequality
    if limit.of_actions:
        return kind(lambda params, state, action, t: limit.function(maths, action), name=limit.name)
    return kind(
        lambda params, state, action, t: jnp.where(limit.active(t), limit.function(maths, state), idle), name=limit.name
    )


@cache
def _evaluation(reference: Reference) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns a compiled function `(start, actions) -> (cost, violation)`."""
    low, high = np.array(reference.low), np.array(reference.high)

    def worst(action: jax.Array, state: jax.Array, t: jax.Array) -> jax.Array:
        largest = jnp.zeros(())
        for limit in reference.limits:
            value = limit.function(JAX, action if limit.of_actions else state)
            value = jnp.abs(value) if limit.equality else value
            held = limit.of_actions or limit.active(t)
            largest = jnp.maximum(largest, jnp.where(held, value.max(), 0.0))
        return largest

    def advance(carry, step):
        state, cost, violation = carry
        action, t = step
        cost = cost + reference.stage(JAX, state, action)
        state = reference.dynamics(JAX, state, action)
        return (state, cost, jnp.maximum(violation, worst(action, state, t + 1))), None

    def both(start: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        outside = jnp.maximum(low - actions, actions - high).max()
        carry = (start, jnp.zeros(()), jnp.maximum(outside, 0.0))
        (last, cost, violation), _ = jax.lax.scan(advance, carry, (actions, jnp.arange(reference.horizon)))
        return cost + reference.terminal(JAX, last), violation

    return jax.jit(both)


def outside_circles(circles: tuple[tuple[float, float, float], ...]) -> Callable[[Maths, Vector], Vector]:
    """Returns the constraint function `1 - |p - c|² / r² <= 0` for circles (x, y, r); p: first two state coordinates."""
    return lambda m, x: m.stack(*(1.0 - ((x[0] - cx) ** 2 + (x[1] - cy) ** 2) / r**2 for cx, cy, r in circles))


class Optimum(NamedTuple):
    """The best known solution of a problem: cost, actions `[H, A]`, and cost of the next decision.

    `warm_cost` is the optimal cost from the state after the first of these actions.
    """

    cost: float
    actions: np.ndarray
    warm_cost: float


def optimum(name: str) -> Optimum:
    """Reads a best known optimum.

    Args:
        name: Name of a problem.

    Raises:
        KeyError: If no optimum is stored for the name.
    """
    stored = next((problems[name] for problems in map(_optima, STORES) if name in problems), None)
    if stored is None:
        raise KeyError(f"no optimum of {name!r} is stored")
    return Optimum(stored["cost"], np.array(stored["actions"]), stored["warm_cost"])


def _optima(path: Path) -> dict[str, Any]:
    """Returns the stored optima of a file by problem; a missing file has none."""
    return json.loads(path.read_text())["problems"] if path.exists() else {}
