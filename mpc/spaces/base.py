"""Action spaces: planner variables, the action a model is shown, the action an environment executes.

A planner searches over *variables*, one vector of `space.size` numbers per time step, every one of them in `[-1, 1]`.
The space turns them into actions, and is the one place where bounds are guaranteed:

| method | gives | for |
|---|---|---|
| `project(variables)` | the nearest allowed variables | after every planner update |
| `relax(variables)` | a differentiable action | what the model sees while the planner searches |
| `decide(variables)` | an action of the space, exactly | what is executed |
| `embed(action)` | the model's view of an executed action | learning, and scoring what is really executed |
| `encode(action)` | variables that decide on that action | warm starts from actions |

For a `Box`, `relax` and `decide` agree. For the discrete spaces `relax` is a point on a simplex (a softmax of scores) and
`decide` picks its largest coordinate. Whatever the variables are, NaN and infinite ones included, actions are in bounds.

Some spaces tie a sequence's steps together: `held` decisions last for several steps, `rate_limited` actions change by no
more than so much a step. They wrap another space and read time from the axis before the last, `[..., H, V]`. Planners call
`bind` first, which tells the space what it needs to know of the problem's parameters.
"""

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array


class Space(Protocol):
    """The interface of an action space to planners; see the module's table.

    `size`: planner variables per step. `shape`: of one executed action. `exact`: the model sees just what is executed.
    `bounded`: every coordinate has two finite bounds. `separable`: a step's action depends on that step's variables alone.
    `bind(params)`: the space as it is for one solve. `permit(actions)`: the nearest allowed actions `[H, ...]` of
    actions that came from elsewhere. `remember(params, action)`: parameters that tell which action was executed last, None
    where there was none.
    """

    @property
    def size(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def exact(self) -> bool: ...
    @property
    def bounded(self) -> bool: ...
    @property
    def separable(self) -> bool: ...

    def bind(self, params: Any) -> "Space": ...
    def project(self, variables: Array) -> Array: ...
    def relax(self, variables: Array) -> Array: ...
    def decide(self, variables: Array) -> Array: ...
    def embed(self, action: Array) -> Array: ...
    def encode(self, action: Array) -> Array: ...
    def permit(self, actions: Array) -> Array: ...
    def remember(self, params: Any, action: Any) -> Any: ...


class Separable:
    """A space whose steps know nothing of each other."""

    separable = True

    def bind(self, params: Any) -> Any:
        """The same for every solve."""
        return self

    def permit(self, actions: Array) -> Array:
        """Actions of the space are allowed in any order."""
        return actions

    def remember(self, params: Any, action: Any) -> Any:
        """Nothing needs remembering."""
        return params


def within(x: Array, low: Any, high: Any) -> Array:
    """`x` clipped, with derivative 1 up to and at the limits: `jnp.clip`'s is a half there, and takes two divisions."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


@jax.custom_jvp
def snapped(x: Array, low: Any, high: Any) -> Array:
    """`x` clipped, with derivative 1 everywhere: for limits that `x` passes by no more than rounding."""
    return within(x, low, high)


snapped.defjvp(lambda primals, tangents: (snapped(*primals), tangents[0]))


def tamed(variables: Array, limit: float) -> Array:
    """Variables that arithmetic survives: NaN is 0, the middle, and nothing is larger than `limit`."""
    return within(jnp.where(jnp.isnan(variables), 0.0, variables), -limit, limit)


def parameter(params: Any, name: str) -> Any:
    params = user_params(params)
    return params.get(name) if isinstance(params, Mapping) else None


def user_params(params: Any) -> Any:
    """The parameters as the user gave them, where a planner has wrapped them (as the augmented Lagrangian does)."""
    while not isinstance(params, Mapping) and hasattr(params, "params"):
        params = params.params
    return params


def with_fields(space: Any, **fields: Any) -> Any:
    """A copy of a frozen space with some fields changed."""
    other = copy.copy(space)
    for name, value in fields.items():
        object.__setattr__(other, name, value)
    return other
