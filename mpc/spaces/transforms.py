"""Spaces made of other spaces: decisions that are held, actions whose change is limited, several actions at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mpc.spaces.base import Space, parameter, tamed, user_params, with_fields, within
from mpc.spaces.box import Box, inward
from mpc.spaces.discrete import MultiDiscrete

Array = jax.Array


class Wrapper:
    """A space that ties the steps of another, `inner`, together, and is otherwise like it."""

    inner: Any
    separable = False

    @property
    def size(self) -> int:
        """Number of planner variables per step."""
        return self.inner.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one executed action."""
        return self.inner.shape

    @property
    def exact(self) -> bool:
        """True where the model sees the executed action itself."""
        return self.inner.exact

    @property
    def bounded(self) -> bool:
        """True where every coordinate has two finite bounds."""
        return self.inner.bounded

    def bind(self, params: Any) -> Any:
        """The space as it is for one solve."""
        return with_fields(self, inner=self.inner.bind(params))

    def project(self, variables: Array) -> Array:
        """The inner space's allowed variables."""
        return self.inner.project(variables)

    def embed(self, action: Array) -> Array:
        """The model's view of an executed action."""
        return self.inner.embed(action)

    def encode(self, action: Array) -> Array:
        """Variables that decide on the actions, where they are allowed."""
        return self.inner.encode(action)

    def permit(self, actions: Array) -> Array:
        """Actions as they are: what is held is a plan, and what is left of one may be shorter."""
        return self.inner.permit(actions)

    def remember(self, params: Any, action: Any) -> Any:
        """The parameters with what the inner space keeps of the last action."""
        return self.inner.remember(params, action)


@dataclass(frozen=True, eq=False)
class Held(Wrapper):
    """Every decision lasts for several steps; made by `held`."""

    inner: Any
    steps: int

    def project(self, variables: Array) -> Array:
        """The nearest allowed variables that are held: means over blocks of steps."""
        return self.inner.project(self._hold(variables))

    def relax(self, variables: Array) -> Array:
        """The inner space's actions, held."""
        return self.inner.relax(self._hold(variables))

    def decide(self, variables: Array) -> Array:
        """The inner space's actions, held."""
        return self.inner.decide(self._hold(variables))

    def _hold(self, variables: Array) -> Array:
        if variables.ndim == 1:
            return variables
        horizon = variables.shape[-2]
        blocks = np.arange(horizon) // self.steps
        member = blocks == np.arange(blocks[-1] + 1)[:, None]
        share = (member / member.sum(axis=1, keepdims=True)).astype(variables.dtype)
        means = jnp.einsum("bh,...hv->...bv", share, tamed(variables, float(np.sqrt(np.finfo(variables.dtype).max))))
        return jnp.repeat(means, self.steps, axis=-2)[..., :horizon, :]


@dataclass(frozen=True, eq=False)
class RateLimited(Wrapper):
    """Actions of a `Box` that change by so much a step at most; made by `rate_limited`."""

    inner: Any
    rate: np.ndarray
    read: Callable[[Any], Array]
    previous: Any = None

    def bind(self, params: Any) -> "RateLimited":
        """The space knowing the action executed last."""
        previous = jnp.asarray(self.read(user_params(params)))
        if previous.shape != self.shape:
            raise ValueError(f"the previous action must be of shape {list(self.shape)}; got {list(previous.shape)}")
        return with_fields(self, inner=self.inner.bind(params), previous=previous)

    def relax(self, variables: Array) -> Array:
        """Variables `[..., H, V]` say where to go; the actions `[..., H, ...]` go there as fast as they may."""
        wanted = self.inner.relax(variables)
        if variables.ndim == 1:
            return wanted
        wanted = jnp.moveaxis(wanted, -1 - len(self.shape), 0)
        rate = inward(np.asarray(self.rate), np.dtype(wanted.dtype), -np.inf)

        def follow(before: Array, goal: Array) -> tuple[Array, Array]:
            up, down = _towards(before + rate, before), _towards(before - rate, before)
            action = within(goal, down, up)  # between two actions of the box, and so in it
            return action, action

        known = wanted[0] if self.previous is None else jnp.asarray(self.previous, wanted.dtype)
        before = self.inner._clip(jnp.where(jnp.isfinite(known), known, wanted[0]))  # not finite: nothing was executed yet
        return jnp.moveaxis(jax.lax.scan(follow, before, wanted)[1], 0, -1 - len(self.shape))

    def decide(self, variables: Array) -> Array:
        """The actions executed; the same as `relax`."""
        return self.relax(variables)

    def permit(self, actions: Array) -> Array:
        """Actions as near to the given ones as the limits let them be."""
        return self.relax(self.encode(actions))

    def remember(self, params: Any, action: Any) -> Any:
        """The action executed last, as `params["previous_action"]`."""
        if self.read is not _previous_action:
            return params
        if params is not None and not isinstance(params, Mapping):
            raise ValueError(
                "a rate-limited space keeps the last action in params['previous_action'], so params must be a dict or None; "
                f"got {type(params).__name__}: give rate_limited(..., previous=function)"
            )
        unknown = {"previous_action": np.full(self.shape, np.nan, np.float32)}
        return {**unknown, **(params or {})} | ({} if action is None else {"previous_action": action})


def held(space: Space, steps: int) -> Held:
    """Hold every decision for `steps` steps; the last may be shorter. For any space and planner.

    A plan is searched in `H / steps` decisions. Within a control loop that decides anew at each step, what is executed is
    each plan's first action; there, take a problem whose steps are `steps` times as long, or `expanded`.

    Args:
        space: What is held.
        steps: For how long.

    Raises:
        ValueError: If `steps` is not a whole number of at least 1.
    """
    return Held(space, _count(steps))


def expanded(space: Box | MultiDiscrete, steps: int) -> Box | MultiDiscrete:
    """Decide on `steps` actions at once, for a model whose one step is `steps` steps of the environment.

    Args:
        space: Of a single action.
        steps: Actions per decision.

    Returns:
        A `Box` of actions `[steps, *shape]`, or a `MultiDiscrete` of `steps · n` choices, those of one action side by side.

    Raises:
        ValueError: If `steps` is not a whole number of at least 1, or the space is of another kind.
    """
    count = _count(steps)
    if isinstance(space, Box):
        return Box(space.low, space.high, (count, *space.shape))
    if isinstance(space, MultiDiscrete):
        return MultiDiscrete(space.choices * count, space.start * count)
    raise ValueError(f"expanded needs a Box or a discrete space; got {type(space).__name__}")


def rate_limited(space: Box, rate: ArrayLike, previous: Callable[[Any], Array] | None = None) -> RateLimited:
    """Limit how much actions change from one step to the next: `|u[t] - u[t-1]| ≤ rate`, exactly, at every step.

    The first step is limited from the action executed last, which `Controller` keeps in `params["previous_action"]`; with
    `solve`, put it there; NaN says that there was none. The bounds of the box come first if that action lies outside.

    Args:
        space: The box.
        rate: Largest change per step, in the action's own units; one number or one per coordinate.
        previous: `params -> action`, where the last action is kept elsewhere in the parameters, and not by `Controller`.

    Raises:
        ValueError: If the space is no Box, or a rate is not positive; when solving, if there is no previous action.
    """
    if not isinstance(space, Box):
        raise ValueError(f"rate_limited needs a Box; got {type(space).__name__}")
    try:
        limits = np.broadcast_to(np.asarray(rate, np.float64), space.shape)
    except ValueError:
        raise ValueError(f"rate must be one number or of shape {list(space.shape)}; got {np.shape(rate)}") from None
    if not (limits > 0).all():
        raise ValueError(f"rates must be positive; got {rate}")
    return RateLimited(space, limits, previous or _previous_action)


def _previous_action(params: Any) -> Array:
    previous = parameter(params, "previous_action")
    if previous is None:
        raise ValueError(
            "a rate-limited space needs the action executed last: params['previous_action'], NaN where there was none, "
            "or rate_limited(..., previous=function)"
        )
    return previous


def _count(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number, at least 1; got {steps!r}")
    return steps


def _towards(bound: Array, inside: Array) -> Array:
    """The next number inwards: the sum that gave the bound may have been rounded outwards. As differentiable as the sum."""
    fixed = jax.lax.stop_gradient(bound)
    return bound + (jnp.nextafter(fixed, jax.lax.stop_gradient(inside)) - fixed)
