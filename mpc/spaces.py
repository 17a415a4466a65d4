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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

Array = jax.Array


class Space(Protocol):
    """What a planner asks of an action space; see the module's table.

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


class _Separable:
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


def _within(x: Array, low: Any, high: Any) -> Array:
    """`x` clipped, with derivative 1 up to and at the limits: `jnp.clip`'s is a half there, and takes two divisions."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def _tamed(variables: Array, limit: float) -> Array:
    """Variables that arithmetic survives: NaN is 0, the middle, and nothing is larger than `limit`."""
    return _within(jnp.where(jnp.isnan(variables), 0.0, variables), -limit, limit)


def _inward(bound: np.ndarray, dtype: np.dtype, towards: float) -> np.ndarray:
    """Round a float64 bound to `dtype` without ever leaving the box it bounds."""
    rounded = bound.astype(dtype)
    outside = rounded < bound if towards > 0 else rounded > bound
    rounded = np.where(outside, np.nextafter(rounded, dtype.type(towards)), rounded)
    # XLA flushes subnormal numbers to zero, which may lie outside: the next number it can hold is the smallest normal one
    tiny = np.copysign(np.finfo(dtype).tiny, towards)
    subnormal = (rounded != 0) & (np.abs(rounded) < np.abs(tiny))
    return np.where(subnormal, np.where(np.sign(rounded) == np.sign(towards), tiny, 0.0), rounded).astype(dtype)


@dataclass(frozen=True, eq=False)
class Box(_Separable):
    """Continuous actions between two bounds, per coordinate: `low <= action <= high`.

    Variables map linearly, `action = centre + half_width * variable`; an unbounded coordinate keeps its unit.

    Args:
        low: Lower bounds, any shape that broadcasts with `high`; `-inf` where there is none.
        high: Upper bounds.

    Raises:
        ValueError: If a bound is NaN, or a lower bound lies above its upper bound.
    """

    low: Any
    high: Any

    def __init__(self, low: ArrayLike, high: ArrayLike):
        low_, high_ = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        low_, high_ = np.atleast_1d(low_).copy(), np.atleast_1d(high_).copy()
        if np.isnan(low_).any() or np.isnan(high_).any():
            raise ValueError(f"Box bounds must be numbers; got low={low_}, high={high_}")
        if (low_ > high_).any():
            where = tuple(int(i) for i in np.argwhere(low_ > high_)[0])
            raise ValueError(f"Box bounds are reversed at {where}: low={low_[where]} is above high={high_[where]}")
        object.__setattr__(self, "low", low_)
        object.__setattr__(self, "high", high_)

    exact = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return self.low.shape

    @property
    def size(self) -> int:
        """Number of planner variables per step."""
        return int(self.low.size)

    @property
    def bounded(self) -> bool:
        """Whether every coordinate has two finite bounds."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        finite = np.isfinite(self.low) & np.isfinite(self.high)
        low, high = np.where(finite, self.low, -1.0), np.where(finite, self.high, 1.0)
        return 0.5 * (low + high), 0.5 * (high - low)

    def _clip(self, action: Array) -> Array:
        dtype = np.dtype(action.dtype)
        return _within(action, _inward(self.low, dtype, np.inf), _inward(self.high, dtype, -np.inf))

    def project(self, variables: Array) -> Array:
        """Clip `[..., size]` variables to the box they stand for."""
        centre, half = (x.reshape(-1) for x in self._affine())
        scale = np.where(half > 0, half, 1.0)
        dtype = np.dtype(variables.dtype)
        low = ((self.low.reshape(-1) - centre) / scale).astype(dtype)
        high = ((self.high.reshape(-1) - centre) / scale).astype(dtype)
        return jnp.clip(variables, low, high)

    def relax(self, variables: Array) -> Array:
        """`[..., size]` variables to `[..., *shape]` actions, differentiably and within the bounds."""
        centre, half = self._affine()
        largest = float(np.sqrt(np.finfo(variables.dtype).max))
        variables = _tamed(variables, largest).reshape(variables.shape[:-1] + self.shape)
        return self._clip(variables * half.astype(variables.dtype) + centre.astype(variables.dtype))

    def decide(self, variables: Array) -> Array:
        """The action executed; the same as `relax`."""
        return self.relax(variables)

    def embed(self, action: Array) -> Array:
        """The model sees the action itself."""
        return self._clip(jnp.asarray(action).astype(float))

    def encode(self, action: Array) -> Array:
        """Actions `[..., *shape]` to variables `[..., size]`."""
        centre, half = self._affine()
        action = self._clip(jnp.asarray(action).astype(float))
        variables = (action - centre.astype(action.dtype)) / np.where(half > 0, half, 1.0).astype(action.dtype)
        return variables.reshape((*variables.shape[: variables.ndim - len(self.shape)], self.size))


@dataclass(frozen=True, eq=False)
class MultiDiscrete(_Separable):
    """Several choices per step, the i-th among `choices[i]` alternatives numbered from `start[i]`.

    The relaxation is a softmax per choice whose sharpness lets a corner of `[-1, 1]^n` come within about 0.1% of a
    certain choice, so a planner may settle on one without leaving its variables' range. `params["sharpness"]`, where it is
    given, multiplies it: less than 1 blurs the alternatives, for the beginning of a search (see `mpc.anneal`).

    Args:
        choices: Number of alternatives of each choice, every one >= 1.
        start: Number of the first alternative of each choice.

    Raises:
        ValueError: If there is no choice, or one has no alternative.
    """

    choices: tuple[int, ...]
    start: tuple[int, ...]

    def __init__(self, choices: Sequence[int], start: Sequence[int] | int = 0):
        choices = tuple(int(n) for n in np.ravel(np.asarray(choices)))
        if not choices or min(choices) < 1:
            raise ValueError(f"every choice needs at least one alternative; got choices={choices}")
        first = np.broadcast_to(np.asarray(start, int), (len(choices),))
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "start", tuple(int(s) for s in first))

    exact = False
    bounded = True
    sharpness: Any = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one executed action."""
        return (len(self.choices),)

    def bind(self, params: Any) -> "MultiDiscrete":
        """The space with the sharpness that the parameters ask for."""
        sharpness = _given(params, "sharpness")
        return self if sharpness is None else _changed(self, sharpness=sharpness)

    @property
    def size(self) -> int:
        """Number of planner variables per step: one score for every alternative."""
        return sum(self.choices)

    def _split(self, values: Array) -> list[Array]:
        return jnp.split(values, list(np.cumsum(self.choices)[:-1]), axis=-1)

    def project(self, variables: Array) -> Array:
        """Clip scores to `[-1, 1]`."""
        return jnp.clip(variables, -1.0, 1.0)

    def relax(self, variables: Array) -> Array:
        """Scores `[..., size]` to points on the simplices, `[..., size]`."""
        scores = self._split(_tamed(variables, 1e6) * self.sharpness)
        return jnp.concatenate([jax.nn.softmax((3.5 + 0.5 * np.log(s.shape[-1])) * s, axis=-1) for s in scores], axis=-1)

    def decide(self, variables: Array) -> Array:
        """The best-scored alternative of every choice, `[..., choices]` integers."""
        scores = self._split(_tamed(variables, 1e6))
        picks = [jnp.argmax(s, axis=-1) + first for s, first in zip(scores, self.start, strict=True)]
        return jnp.stack(picks, axis=-1)

    def embed(self, action: Array) -> Array:
        """Executed actions as one-hot vectors side by side, `[..., size]`."""
        offset = jnp.asarray(action) - np.asarray(self.start)
        return jnp.concatenate([jax.nn.one_hot(offset[..., i], n) for i, n in enumerate(self.choices)], axis=-1)

    def encode(self, action: Array) -> Array:
        """Scores of 1 for what was chosen and -1 for the rest."""
        return 2.0 * self.embed(action) - 1.0


class Discrete(MultiDiscrete):
    """One choice per step among `n` alternatives numbered from `start`; actions are scalars.

    Args:
        n: Number of alternatives.
        start: Number of the first.
    """

    def __init__(self, n: int, start: int = 0):
        super().__init__((n,), (start,))

    @property
    def shape(self) -> tuple[int, ...]:
        """Executed actions are scalars."""
        return ()

    def decide(self, variables: Array) -> Array:
        """The best-scored alternative, an integer."""
        return super().decide(variables)[..., 0]

    def embed(self, action: Array) -> Array:
        """A one-hot vector."""
        return super().embed(jnp.asarray(action)[..., None])


class MultiBinary(MultiDiscrete):
    """`n` switches per step, each 0 or 1.

    Args:
        n: Number of switches.
    """

    def __init__(self, n: int):
        super().__init__((2,) * n)


class _Wrapper:
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
        """Whether the model sees just what is executed."""
        return self.inner.exact

    @property
    def bounded(self) -> bool:
        """Whether every coordinate has two finite bounds."""
        return self.inner.bounded

    def bind(self, params: Any) -> Any:
        """The space as it is for one solve."""
        return _changed(self, inner=self.inner.bind(params))

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
        """What the inner space wants to remember."""
        return self.inner.remember(params, action)


@dataclass(frozen=True, eq=False)
class Held(_Wrapper):
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
        means = jnp.einsum("bh,...hv->...bv", share, _tamed(variables, float(np.sqrt(np.finfo(variables.dtype).max))))
        return jnp.repeat(means, self.steps, axis=-2)[..., :horizon, :]


@dataclass(frozen=True, eq=False)
class RateLimited(_Wrapper):
    """Actions of a `Box` that change by so much a step at most; made by `rate_limited`."""

    inner: Any
    rate: np.ndarray
    read: Callable[[Any], Array]
    previous: Any = None

    def bind(self, params: Any) -> "RateLimited":
        """The space knowing the action executed last."""
        previous = jnp.asarray(self.read(_plain(params)))
        if previous.shape != self.shape:
            raise ValueError(f"the previous action must be of shape {list(self.shape)}; got {list(previous.shape)}")
        return _changed(self, inner=self.inner.bind(params), previous=previous)

    def relax(self, variables: Array) -> Array:
        """Variables `[..., H, V]` say where to go; the actions `[..., H, ...]` go there as fast as they may."""
        wanted = self.inner.relax(variables)
        if variables.ndim == 1:
            return wanted
        wanted = jnp.moveaxis(wanted, -1 - len(self.shape), 0)
        rate = _inward(np.asarray(self.rate), np.dtype(wanted.dtype), -np.inf)

        def follow(before: Array, goal: Array) -> tuple[Array, Array]:
            up, down = _towards(before + rate, before), _towards(before - rate, before)
            action = jnp.clip(goal, down, up)  # between two actions of the box, and so in it
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
        return Box(*(np.broadcast_to(bound, (count, *space.shape)) for bound in (space.low, space.high)))
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
    previous = _given(params, "previous_action")
    if previous is None:
        raise ValueError(
            "a rate-limited space needs the action executed last: params['previous_action'], NaN where there was none, "
            "or rate_limited(..., previous=function)"
        )
    return previous


def _given(params: Any, name: str) -> Any:
    params = _plain(params)
    return params.get(name) if isinstance(params, Mapping) else None


def _plain(params: Any) -> Any:
    """The parameters as the user gave them, where a planner has wrapped them (as the augmented Lagrangian does)."""
    while not isinstance(params, Mapping) and hasattr(params, "params"):
        params = params.params
    return params


def _changed(space: Any, **fields: Any) -> Any:
    """A copy of a frozen space with some fields changed."""
    other = copy.copy(space)
    for name, value in fields.items():
        object.__setattr__(other, name, value)
    return other


def _count(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number, at least 1; got {steps!r}")
    return steps


def _towards(bound: Array, inside: Array) -> Array:
    """The next number inwards: the sum that gave the bound may have been rounded outwards. As differentiable as the sum."""
    fixed = jax.lax.stop_gradient(bound)
    return bound + (jnp.nextafter(fixed, jax.lax.stop_gradient(inside)) - fixed)
