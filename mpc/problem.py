"""What is minimised over what: dynamics, cost, horizon and action space."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from mpc import spaces

PyTree = Any
Dynamics = Callable[[PyTree, PyTree, jax.Array], PyTree]
StageCost = Callable[[PyTree, PyTree, jax.Array, jax.Array], jax.Array]
TerminalCost = Callable[[PyTree, PyTree], jax.Array]


@dataclass(frozen=True, eq=False)
class Problem:
    """A finite-horizon optimal control problem.

        minimise over u   E(u) = Σ_{t=0}^{H-1} cost(params, s[t], u[t], t) + terminal_cost(params, s[H])
        subject to        s[t+1] = dynamics(params, s[t], u[t]),   u[t] in action_space

    The functions are pure and traceable by JAX; a state is any pytree of arrays. Everything that may change between two
    solves (network weights, goals, cost weights) lives in `params`, so that a change never recompiles.

    Args:
        dynamics: `(params, state, action) -> next state`, of the same structure, shapes and dtypes as the state.
        cost: `(params, state, action, t) -> scalar`; `mpc.costs.total` builds one out of named terms.
        terminal_cost: `(params, state) -> scalar`, or None.
        horizon: Number of steps H, at least 1.
        action_space: `mpc.Box`, `mpc.Discrete`, `mpc.MultiDiscrete` or `mpc.MultiBinary`.

    Raises:
        ValueError: If the horizon is no positive whole number, a function is not callable, or the space is not one of ours.
    """

    dynamics: Dynamics
    cost: StageCost
    terminal_cost: TerminalCost | None = None
    horizon: int = field(kw_only=True)
    action_space: spaces.Space = field(kw_only=True)

    def __post_init__(self):
        for name in ("dynamics", "cost"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function; got {getattr(self, name)!r}")
        if self.terminal_cost is not None and not callable(self.terminal_cost):
            raise ValueError(f"terminal_cost must be a function or None; got {self.terminal_cost!r}")
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"horizon must be a whole number of steps, at least 1; got {self.horizon!r}")
        if not isinstance(self.action_space, spaces.Box | spaces.MultiDiscrete):
            raise ValueError(
                "action_space must be an mpc.Box, Discrete, MultiDiscrete or MultiBinary; "
                f"got {type(self.action_space).__name__}"
            )

    def check(self, params: PyTree, state: PyTree) -> None:
        """Hold dynamics and costs against one example, by shapes alone: nothing is computed and nothing compiled.

        Args:
            params: Parameters as they will be given to `solve`.
            state: One state.

        Raises:
            ValueError: If the state has a leaf without a floating dtype, the dynamics change the state's structure, a
                shape or a dtype, or a cost is not a scalar number.
        """
        state = jax.eval_shape(lambda s: jax.tree.map(jnp.asarray, s), state)
        for path, leaf in jax.tree.leaves_with_path(state):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"state{jax.tree_util.keystr(path)} must be floating point, for gradients flow through it; "
                    f"got {leaf.dtype}"
                )
        variables = jax.ShapeDtypeStruct((self.action_space.size,), jnp.result_type(float))
        action = jax.eval_shape(self.action_space.relax, variables)
        _same("dynamics", state, jax.eval_shape(self.dynamics, params, state, action))
        time = jax.ShapeDtypeStruct((), jnp.int32)
        _scalar("cost", jax.eval_shape(self.cost, params, state, action, time))
        if self.terminal_cost is not None:
            _scalar("terminal_cost", jax.eval_shape(self.terminal_cost, params, state))


def _scalar(name: str, value: Any) -> None:
    shape = getattr(value, "shape", None)
    if shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        got = f"{value.dtype}{list(shape)}" if shape is not None else type(value).__name__
        raise ValueError(f"{name} must return one floating-point number, a scalar of shape []; got {got}")


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
