"""The optimal control problem: dynamics, cost, constraints, horizon and action space."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from mpc import spaces
from mpc.constraints import Constraint, named

PyTree = Any
Dynamics = Callable[..., PyTree]
StageCost = Callable[[PyTree, PyTree, jax.Array, jax.Array], jax.Array]
TerminalCost = Callable[[PyTree, PyTree], jax.Array]


@dataclass(frozen=True, eq=False)
class Problem:
    """A finite-horizon optimal control problem.

        minimise over u   E(u) = Σ_{t=0}^{H-1} cost(params, s[t], u[t], t) + terminal_cost(params, s[H])
        subject to        s[t+1] = dynamics(params, s[t], u[t]),   u[t] in action_space
                          g(params, s[t+1], u[t], t+1) ≤ 0,   h(params, s[t+1], u[t], t+1) = 0

    The functions are pure and traceable by JAX; a state is any pytree of arrays. Everything that may change between two
    solves (network weights, goals, cost weights) lives in `params`, so that a change never recompiles.

    Args:
        dynamics: `(params, state, action) -> next state`, of the same structure, shapes and dtypes as the state;
            `(params, state, action, latent) -> next state` where latents are declared.
        cost: `(params, state, action, t) -> scalar`; `mpc.costs.total` builds one out of named terms.
        terminal_cost: `(params, state) -> scalar`, or None.
        horizon: Number of steps H, at least 1.
        action_space: `mpc.Box`, `mpc.Discrete`, `mpc.MultiDiscrete` or `mpc.MultiBinary`; also `mpc.spaces.held` and
            `mpc.spaces.rate_limited` ones.
        constraints: Of `mpc.constraints.inequality` and `.equality`; every planner enforces them.
        latents: Size of the latent z that decides each step where the future is not determined, or None where it is.
        lift: `(params, state) -> state`, from the state that `solve` and `Controller` are given to the one that the dynamics
            carry along, where these differ (see `mpc.risk`); None where they do not.

    Raises:
        ValueError: If the horizon or the latents are no positive whole number, a function is not callable, the dynamics
            take a latent that is not declared or the other way round, the space is not one of ours, or a constraint is
            not made by `mpc.constraints`.
    """

    dynamics: Dynamics
    cost: StageCost
    terminal_cost: TerminalCost | None = None
    horizon: int = field(kw_only=True)
    action_space: spaces.Space = field(kw_only=True)
    constraints: Sequence[Constraint] = field(default=(), kw_only=True)
    latents: int | None = field(default=None, kw_only=True)
    lift: Callable[[PyTree, PyTree], PyTree] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("dynamics", "cost"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function; got {getattr(self, name)!r}")
        if self.terminal_cost is not None and not callable(self.terminal_cost):
            raise ValueError(f"terminal_cost must be a function or None; got {self.terminal_cost!r}")
        if not _whole(self.horizon):
            raise ValueError(f"horizon must be a whole number of steps, at least 1; got {self.horizon!r}")
        if self.latents is not None and not _whole(self.latents):
            raise ValueError(f"latents must be the size of one step's latent, at least 1, or None; got {self.latents!r}")
        _takes_latent(self.dynamics, self.latents)
        if not isinstance(self.action_space, spaces.Box | spaces.MultiDiscrete | spaces.Held | spaces.RateLimited):
            raise ValueError(
                "action_space must be an mpc.Box, Discrete, MultiDiscrete or MultiBinary, held or rate-limited or as it is; "
                f"got {type(self.action_space).__name__}"
            )
        given = self.constraints if isinstance(self.constraints, Sequence) else [self.constraints]
        for constraint in given:
            if not isinstance(constraint, Constraint) or given is not self.constraints:
                raise ValueError(
                    "constraints must be a sequence of mpc.constraints.inequality(g) and mpc.constraints.equality(h); "
                    f"got {constraint!r}"
                )
        object.__setattr__(self, "constraints", tuple(self.constraints))

    def lifted(self, params: PyTree, state: PyTree) -> PyTree:
        """The state that the dynamics carry along, for a state as `solve` is given it."""
        return state if self.lift is None else self.lift(params, state)

    def inputs(self) -> list[jax.ShapeDtypeStruct]:
        """The shapes of what the dynamics are given besides parameters and state: an action and, if declared, a latent."""
        kind = jnp.result_type(float)
        variables = jax.ShapeDtypeStruct((self.action_space.size,), kind)
        action = jax.eval_shape(with_usual_promotion(self.action_space.relax), variables)
        return [action, *([] if self.latents is None else [jax.ShapeDtypeStruct((self.latents,), kind)])]

    def check(self, params: PyTree, state: PyTree) -> None:
        """Hold dynamics and costs against one example, by shapes alone: nothing is computed and nothing compiled.

        Args:
            params: Parameters as they will be given to `solve`.
            state: One state, as `solve` is given it.

        Raises:
            ValueError: If the state has a leaf without a floating dtype, the dynamics change the state's structure, a
                shape or a dtype, a cost is not a scalar number, or a constraint is not one array of them.
        """
        state = jax.eval_shape(lambda s: jax.tree.map(jnp.asarray, self.lifted(params, s)), state)
        for path, leaf in jax.tree.leaves_with_path(state):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"state{jax.tree_util.keystr(path)} must be floating point, for gradients flow through it; "
                    f"got {leaf.dtype}"
                )
        action, *latent = self.inputs()
        _same("dynamics", state, jax.eval_shape(self.dynamics, params, state, action, *latent))
        time = jax.ShapeDtypeStruct((), jnp.int32)
        _scalar("cost", jax.eval_shape(self.cost, params, state, action, time))
        if self.terminal_cost is not None:
            _scalar("terminal_cost", jax.eval_shape(self.terminal_cost, params, state))
        for name, constraint in named(self.constraints).items():
            _array(f"constraint {name!r}", jax.eval_shape(constraint.function, params, state, action, time))


def with_usual_promotion(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose operations promote ranks and dtypes as JAX does by default, whatever the process has set.

    JAX's strict modes are for the code of their user, which `Problem.check` traces in them, and not for ours or Optax'.
    """

    if hasattr(function, "promotes_as_usual"):
        return function

    @wraps(function)
    def usual(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    usual.promotes_as_usual = True  # type: ignore[attr-defined]
    return usual


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _takes_latent(dynamics: Dynamics, latents: int | None) -> None:
    wanted = ("params", "state", "action") if latents is None else ("params", "state", "action", "latent")
    try:
        signature = inspect.signature(dynamics)
    except (TypeError, ValueError):
        return  # a callable that does not tell what it takes
    try:
        signature.bind(*wanted)
    except TypeError as error:
        raise ValueError(
            f"dynamics are called as ({', '.join(wanted)}) where latents={latents}; got a function of {signature}. "
            "Declare Problem(..., latents=size) for dynamics that take a latent, and leave it out for those that do not"
        ) from error


def _scalar(name: str, value: Any) -> None:
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{name} must return one floating-point number, a scalar of shape []; got {_described(value)}")


def _array(name: str, value: Any) -> None:
    if not hasattr(value, "shape") or not jnp.issubdtype(value.dtype, jnp.floating) or value.size == 0:
        raise ValueError(f"{name} must return one array of floating-point numbers, not empty; got {_described(value)}")


def _described(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__


def _same(name: str, wanted: PyTree, got: PyTree) -> None:
    if jax.tree.structure(wanted) != jax.tree.structure(got):
        raise ValueError(
            f"{name} must return a state built like the one it was given, {jax.tree.structure(wanted)}; "
            f"got {jax.tree.structure(got)}"
        )
    for (path, a), b in zip(jax.tree.leaves_with_path(wanted), jax.tree.leaves(got), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"{name} must keep the state's shapes and dtypes; state{jax.tree_util.keystr(path)} went in as "
                f"{a.dtype}{list(a.shape)} and came out as {b.dtype}{list(b.shape)}"
            )
