"""A safety filter: the last stage between whatever decides and the actuators.

An action u passes where some way to go on after it keeps every constraint g of the problem for K steps,

    ∃ i:   g(s[t], ·, t) ≤ 0   for t = 1..K,     s[1] = f(s[0], u),   s[t+1] = f(s[t], b_i(s[t])),

with backup controllers b_i, such as to brake. Where there is none, the nearest of u + λ (b_i(s[0]) - u) is sent for which
there is one, λ from 0 to 1. After a safe action λ = 1 of the same backup is safe again, as long as the model is right and K
steps of the backup end where the backup can stay, at rest for example. Then no constraint is ever violated, whatever is
asked for. See Wabersich and Zeilinger 2021, "A predictive safety filter for learning-based control"; backups take the place
of their optimisation, so that the time is always the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.deploy.host import on_host
from mpc.deploy.specs import InFlight
from mpc.policy import model_advance, predict_through_delay
from mpc.precision import as_dynamics_keep
from mpc.problem import Problem, with_usual_promotion
from mpc.spaces import Box

Array = jax.Array
PyTree = Any
Backup = Callable[[PyTree, PyTree], Array]


class FilterState(NamedTuple):
    """The memory of a filter between two actions.

    `backup`: int32, number of the backup that the last action can be followed by. `decided`, `changed`, `unsafe`: int32,
    counts of actions: all, those that were changed, and those for which no way to go on was found.
    """

    backup: Array
    decided: Array
    changed: Array
    unsafe: Array


class Filtered(NamedTuple):
    """An action to send: `action` `[...]`, finite and within bounds; `changed`, whether it is another than was asked for;
    `safe`, whether a way to go on is known that keeps all constraints."""

    action: Any
    changed: Any
    safe: Any


class SafetyFilter(NamedTuple):
    """Pure functions that filter actions; `jit` them, and `vmap` them over robots.

    `init() -> FilterState`.
    `apply(params, state, action, filter_state) -> (FilterState, Filtered)`: `state` is the model's, at the time at which the
    action acts; actions that are not finite count as what the backup wants. Where no way to go on keeps the constraints, the
    one is begun that violates them least; where none has a number, as from a state that is not finite, the backup acts.
    """

    init: Callable[[], FilterState]
    apply: Callable[[PyTree, PyTree, Any, FilterState], tuple[FilterState, Filtered]]


def safety_filter(
    problem: Problem, backups: Sequence[Backup], *, horizon: int | None = None, levels: int = 16, margin: float = 0.0
) -> SafetyFilter:
    """Builds a filter for the inequality constraints of a problem.

    Args:
        problem: Its dynamics, constraints and bounds; costs do not matter.
        backups: `(params, state) -> action`, controllers to go on with: to brake, to turn away and brake, to hover.
        horizon: Steps K that constraints are checked for, long enough for every backup to come to rest; the problem's unless
            told.
        levels: Values of λ tried; more change an action less.
        margin: What constraints have to be below 0 by, for models that are not exact; at least what rounding makes of them.

    Raises:
        ValueError: If the problem has no inequality, an equality, latents, a lift, or actions that are choices, or a number
            is impossible.

    Example:
        >>> import jax.numpy as jnp, mpc
        >>> def roll(p, s, a):  # a cart before a wall at 1 m: position, velocity; steps of 0.1 s
        ...     return s + 0.1 * jnp.stack([s[1] + 0.05 * a[0], a[0]])
        >>> wall = mpc.constraints.inequality(lambda p, s, a, t: s[0] - 1.0)
        >>> problem = mpc.Problem(roll, lambda *_: 0.0, horizon=20, action_space=mpc.Box([-1.0], [1.0]), constraints=[wall])
        >>> safe = mpc.safety_filter(problem, [lambda p, s: -s[1:] / 0.1])  # brake
        >>> _, sent = safe.apply(None, jnp.array([0.9, 0.5]), jnp.array([1.0]), safe.init())
        >>> bool(sent.changed)
        True
    """
    _check(problem, backups, horizon, levels, margin)
    steps = problem.horizon if horizon is None else horizon
    return SafetyFilter(_init, with_usual_promotion(partial(_apply, problem, tuple(backups), steps, levels, margin)))


def _check(problem: Problem, backups: Sequence[Backup], horizon: int | None, levels: int, margin: float) -> None:
    if not problem.constraints or any(constraint.equality for constraint in problem.constraints):
        raise ValueError("a safety filter needs constraints of mpc.constraints.inequality, and no equality")
    if problem.latents is not None or problem.lift is not None or not isinstance(problem.action_space, Box):
        raise ValueError("a safety filter needs a problem without latents and lift, and actions of an mpc.Box")
    numbers = (len(backups), 1 if horizon is None else horizon, levels)
    if min(numbers) < 1 or not (np.isfinite(margin) and margin >= 0):
        raise ValueError(
            f"backups, horizon and levels must be at least 1, and margin not negative; got {numbers} and {margin}"
        )


def _init() -> FilterState:
    zero = jnp.zeros((), jnp.int32)
    return FilterState(zero, zero, zero, zero)


def _bounded(space: Any, action: Any) -> Array:
    """Returns the nearest action within bounds; for what is no number, that nearest to 0."""
    action = space.permit(action)
    return jnp.where(jnp.isfinite(action), action, space.permit(jnp.zeros_like(action)))


def _width(space: Any) -> np.ndarray:
    """Returns what changes are measured by: the distance of bounds, or 1 where there are none."""
    with np.errstate(invalid="ignore"):
        width = space.high - space.low
    return np.where(np.isfinite(width) & (width > 0), width, 1.0)


def _largest(problem: Problem, params: PyTree, state: PyTree, action: Array, t: Array) -> Array:
    """Returns the largest constraint value; infinity where it is no number."""
    largest = jnp.max(jnp.stack([jnp.max(c.function(params, state, action, t)) for c in problem.constraints]))
    return jnp.where(jnp.isnan(largest), jnp.inf, largest)


def _follow(
    problem: Problem, backups: tuple[Backup, ...], steps: int, params: PyTree, state: PyTree, action: Array, number: Array
) -> Array:
    """Returns the largest constraint value over so many steps: of an action, then of a backup."""

    def step(carry: tuple[PyTree, Array], t: Array) -> tuple[tuple[PyTree, Array], Array]:
        state, action = carry
        after = problem.dynamics(params, state, action)
        following = jnp.stack([_bounded(problem.action_space, backup(params, after)) for backup in backups])[number]
        return (after, following), _largest(problem, params, after, action, t)

    return jnp.max(jax.lax.scan(step, (state, action), 1 + jnp.arange(steps))[1])


def _apply(
    problem: Problem,
    backups: tuple[Backup, ...],
    steps: int,
    levels: int,
    margin: float,
    params: PyTree,
    state: PyTree,
    action: Any,
    before: FilterState,
) -> tuple[FilterState, Filtered]:
    space, state = problem.action_space, as_dynamics_keep(problem, params, state)
    wanted = jnp.stack([_bounded(space, backup(params, state)) for backup in backups])
    action = jnp.asarray(action, wanted.dtype)
    asked = jnp.where(jnp.isfinite(action), _bounded(space, action), wanted[before.backup])
    # from λ = 1 down, so that the backup acts where all are as bad
    share = jnp.linspace(1.0, 0.0, levels + 1, dtype=asked.dtype).reshape(-1, 1, *[1] * asked.ndim)
    tried = asked + share * (wanted - asked)  # [levels + 1, backups, ...]
    numbers = jnp.broadcast_to(jnp.arange(len(backups)), tried.shape[:2])
    follow = partial(_follow, problem, backups, steps, params, state)
    found = jax.vmap(jax.vmap(follow))(tried, numbers)
    safe = found <= -margin
    change = jnp.sum(((tried - asked) / _width(space).astype(asked.dtype)) ** 2, axis=tuple(range(2, tried.ndim)))
    # of what is safe the nearest, and of what is as near the backup from before; or else the least unsafe
    prefer = change + 1e-6 * (numbers != before.backup)
    rank = jnp.where(safe.any(), jnp.where(safe, prefer, jnp.inf), found)
    level, number = jnp.unravel_index(jnp.argmin(rank), rank.shape)
    sent, known = _bounded(space, tried[level, number]), safe.any()
    changed = jnp.any(sent != action)
    counts = before.decided + 1, before.changed + changed, before.unsafe + ~known
    return FilterState(number.astype(jnp.int32), *counts), Filtered(sent, changed, known)


class Guard:
    """A safety filter beside a robot, `RealTime(…, guard=Guard(…))`; compiled by its first call. The loop's `health`
    counts how often it changed an action, and how often it knew of no way to go on.

    Args:
        problem: That of the filter.
        safe: The filter.
        params: Parameters of the problem.
        observe: `(params, observation) -> state`; None where the model's state is observed.
    """

    def __init__(
        self,
        problem: Problem,
        safe: SafetyFilter,
        params: PyTree = None,
        observe: Callable[[PyTree, PyTree], PyTree] | None = None,
    ):
        self.params, self.state = params, safe.init()

        def apply(params: PyTree, observation: Any, flying: InFlight, action: Array, state: FilterState) -> Any:
            seen = as_dynamics_keep(problem, params, observation if observe is None else observe(params, observation))
            acting = predict_through_delay(partial(model_advance, problem), params, seen, flying)
            return safe.apply(params, acting, action, state)

        self._apply = jax.jit(with_usual_promotion(apply))

    @on_host
    def __call__(self, observation: Any, in_flight: InFlight, action: Any) -> Filtered:
        """Returns the action to send, for the state in which it acts.

        Args:
            observation: The newest.
            in_flight: The actions sent last, of which the observation does not show `count`.
            action: As it was decided on.
        """
        flying = InFlight(np.asarray(in_flight.actions), np.int32(in_flight.count))
        self.state, sent = self._apply(self.params, np.asarray(observation), flying, np.asarray(action), self.state)
        return Filtered(*(np.asarray(x) for x in sent))
