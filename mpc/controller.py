"""The control loop around a policy: observation in, action out, within a deadline, whatever happens.

The robot's path never raises. A decision that cannot be trusted (an observation or a plan that is not finite) falls back
on the next action of the last plan that could be trusted, and, once that is used up, on the neutral action.
"""

import logging
import time
from collections.abc import Callable
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.deadline import Pace
from mpc.deploy.host import on_host
from mpc.planners.base import Plan, Planner, Status
from mpc.policy import Decision, Policy, in_phases, policy

PyTree = Any
LOG = logging.getLogger(__name__)


class Controller:
    """A control loop around a policy, warm-started from one decision to the next.

    Given an example observation, everything is compiled when the controller is built, so that the first decision is as quick
    as the others; otherwise the first `act` compiles. With a deadline, iterations run in chunks, and a chunk is only begun
    if, by the slowest seen, it and the conclusion will end in time.

    Args:
        deciding: A policy; or a planner, of which `mpc.policy` makes one.
        params: Its parameters; assign `controller.params` for new ones of the same structure and shapes.
        observation: An example of the observations to come; without one, the first to act on is the example.
        iterations: Improvements per decision, at most so many when there is a deadline. None: 20 of a planner; as many as a
            policy makes by itself, and with a deadline as many as there is time for.
        first_iterations: Improvements of an episode's first decision, which has no plan to go on from; within the deadline.
            None: as many as of any other.
        tolerance: The planner's optimality measure at which a decision has converged, before all iterations are made; None
            makes them all. Only with a planner: policies know their own (see `mpc.policy`).
        deadline: Seconds a decision may take, or None for always all iterations.
        chunk: Improvements between two looks at the clock.
        key: Seed of all randomness.
        clock: Seconds, for the deadline.

    Raises:
        ValueError: If the problem's functions do not fit the observation, a setting is not positive, or a policy whose step
            is indivisible is given iterations or a deadline.

    Example:
        >>> import mpc
        >>> step = lambda params, state, action: state + 0.1 * action
        >>> problem = mpc.Problem(step, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0]))
        >>> controller = mpc.Controller(mpc.gradient(problem, starts=4), None, observation=jnp.ones(1), iterations=10)
        >>> bool(controller.act(jnp.ones(1))[0] < -0.9)
        True
    """

    @on_host
    def __init__(
        self,
        deciding: Policy | Planner,
        params: PyTree,
        *,
        observation: PyTree = None,
        iterations: int | None = None,
        first_iterations: int | None = None,
        tolerance: float | None = None,
        deadline: float | None = None,
        chunk: int = 1,
        key: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        counts = {"iterations": iterations, "first_iterations": first_iterations, "chunk": chunk}
        if any(count is not None and count < 1 for count in counts.values()):
            raise ValueError(f"{', '.join(counts)} must be at least 1; got {counts}")
        if deadline is not None and not deadline > 0:
            raise ValueError(f"deadline must be a positive number of seconds or None; got {deadline}")
        if isinstance(deciding, Planner):
            iterations = 20 if iterations is None else iterations
            deciding = policy(deciding, iterations=iterations, tolerance=tolerance)
        elif tolerance is not None:
            raise ValueError(f"a policy has a tolerance of its own: give mpc.policy(..., tolerance={tolerance})")
        limits = (iterations, first_iterations, deadline)
        if deciding.phases is None and limits != (None, None, None):
            raise ValueError(
                "this policy's step is indivisible (its phases are None): it takes neither iterations nor a deadline; "
                f"got iterations={iterations}, first_iterations={first_iterations}, deadline={deadline}"
            )
        self.policy, self.iterations, self.deadline, self.chunk = deciding, iterations, deadline, chunk
        self.first_iterations = iterations if first_iterations is None else first_iterations
        self.plan: Plan | None = None
        self.status, self.late, self.seconds = Status.ITERATIONS, False, 0.0
        self.iterations_spent: int | None = 0
        self._compile_for(params)
        self._pace = Pace(clock)
        self._key, self._state, self._example, self._warned = key, None, None, False
        if observation is not None:
            self._warm_up(observation)

    @property
    def params(self) -> PyTree:
        """The parameters; new ones are checked against those that everything was compiled for.

        Raises:
            ValueError: On assignment, if the structure, a shape or a kind of number is another one, with the leaf, what
                arrived and what was wanted; the parameters then stay as they were. Floats of other precisions are converted.
        """
        return self._params

    @params.setter
    @on_host
    def params(self, params: PyTree) -> None:
        self._params = conform(params, self._params)

    def reset(self, key: int = 0) -> None:
        """Forgets the last plan and action, as at the start of an episode."""
        self._key, self._state = key, None

    @on_host
    def act(self, observation: PyTree) -> np.ndarray:
        """Decides on the action now; afterwards `plan`, `status`, `late`, `seconds` and `iterations_spent` tell how it went.

        Args:
            observation: Shaped as the example was. One that is not finite, or shaped otherwise, gives the next action of the
                last good plan and the status `NOT_FINITE`; the first that is shaped otherwise is logged as a warning.

        Returns:
            An action of the space: in bounds, finite, whatever happened.

        Raises:
            ForkedProcessError: In a process forked from one that ran compiled programs, where it would wait for ever.
        """
        if self._example is None:
            self._warm_up(observation)
        clock = self._pace.clock
        begun = clock()
        decision = self._decide(self._fitting(observation), begun + (self.deadline or inf), self._allowed())
        action = np.asarray(decision.action)
        self.plan, self.status = decision.plan, Status(int(decision.status))
        self.seconds = clock() - begun
        self.late = self.deadline is not None and self.seconds > self.deadline
        return action

    def _compile_for(self, params: PyTree) -> None:
        """Makes the compiled functions, which compile when they are first called, and the parameters they take."""
        phases, iterations = self.policy.phases, self.iterations
        self._params = jax.tree.map(types_to_keep, params)
        self._init = jax.jit(self.policy.init)
        if iterations is None or phases is None:
            self._step = jax.jit(self.policy.step)
        else:
            self._step = jax.jit(in_phases(phases, iterations))
        if phases is not None:
            self._prepare, self._finish = jax.jit(phases.prepare), jax.jit(phases.finish)
            self._improve = jax.jit(phases.improve, static_argnums=2)
        self._made = None if phases is None else phases.made

    def _warm_up(self, example: PyTree) -> None:
        """Fixes the shapes of observations, and compiles everything before the clock runs."""
        self._example = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, jnp.float32)), example)
        for _ in range(3):  # the first call compiles; its time is no measure of the others
            self._pace.iteration = self._pace.conclusion = 0.0
            self._decide(self._example, inf, self._allowed() if self.deadline is None else 2 * self.chunk)
        self.reset(self._key)

    def _allowed(self) -> int | None:
        """Returns the iterations of the decision at hand, at most."""
        return self.first_iterations if self._state is None else self.iterations

    def _decide(self, observation: PyTree, end: float, iterations: int | None) -> Decision:
        params = self._params
        if self._state is None:
            self._state = self._init(params, self._first(observation), jax.random.key(self._key))
        if self.deadline is None and iterations == self.iterations:
            self._state, decision = self._step(params, observation, self._state)
            self.iterations_spent = iterations if self._made is None else int(decision.plan.info["iterations"])
            return decision
        working = jax.block_until_ready(self._prepare(params, observation, self._state, None))
        if self.deadline is None:
            working = self._improve(params, working, iterations)
            self.iterations_spent = iterations if self._made is None else int(self._made(working))
            self._state, decision = self._finish(params, working)
            return decision
        most = 2**31 - 1 if iterations is None else iterations
        working, self.iterations_spent = self._pace.improve(
            self._chunk,
            working,
            end=end,
            iterations=most,
            chunk=self.chunk,
        )
        self._state, decision = self._pace.conclude(lambda: self._finish(params, working))
        return decision

    def _chunk(self, working: Any, _: int) -> tuple[Any, int]:
        """Makes a chunk of iterations, or fewer where the decision converges, and counts them."""
        before = 0 if self._made is None else int(self._made(working))
        working = self._improve(self._params, working, self.chunk)
        return working, self.chunk if self._made is None else int(self._made(working)) - before

    def _first(self, observation: PyTree) -> PyTree:
        """The observation to begin an episode with: the example where that which came is not finite."""
        fine = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(observation))
        return observation if fine else self._example

    def _fitting(self, observation: PyTree) -> PyTree:
        """The observation as arrays; one of another make becomes NaN, which the compiled part knows how to survive."""
        try:
            fitting = jax.tree.map(lambda like, x: jnp.asarray(x, like.dtype), self._example, observation)
            if jax.tree.map(jnp.shape, fitting) == jax.tree.map(jnp.shape, self._example):
                return fitting
        except Exception:  # not an array at all, or built otherwise; an object may raise anything when asked for numbers
            pass
        if not self._warned:  # once: a loop has no time for more
            self._warned = True
            LOG.warning("an observation is not made as the example: %s was wanted", _makes(self._example))
        return jax.tree.map(lambda like: jnp.full_like(like, jnp.nan), self._example)


def _makes(tree: PyTree) -> PyTree:
    """Returns the types and shapes of a tree's leaves."""
    return jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)


def conform(new: PyTree, wanted: PyTree) -> PyTree:
    """Converts parameters to the types of others, so that nothing compiled for those is compiled again.

    Args:
        new: Parameters.
        wanted: Those that everything was compiled for.

    Raises:
        ValueError: If the structure, a shape or a kind of number differs, with the leaf, what arrived and what was wanted.
    """
    like = _named(wanted)
    try:
        arrived = jax.tree.structure(wanted).flatten_up_to(new)
    except (TypeError, ValueError) as error:
        names, known = dict(_named(new)), dict(like)
        if missing := [name for name in known if name not in names]:
            raise ValueError(f"params lack {', '.join(missing)}; got {', '.join(names) or 'none'}") from error
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"params have {', '.join(unknown)} beyond the wanted {', '.join(known) or 'none'}") from error
        structures = jax.tree.structure(wanted), jax.tree.structure(new)
        raise ValueError("params must be of structure {}; got {}".format(*structures)) from error
    leaves = [_conformed(name, leaf, kept) for leaf, (name, kept) in zip(arrived, like, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    return [(f"params{jax.tree_util.keystr(path)}", leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _conformed(name: str, new: Any, wanted: Any) -> Any:
    try:
        new = np.asarray(new) if isinstance(new, list | tuple) else new
        arrived, kind = (jnp.result_type(new), list(jnp.shape(new))), jnp.result_type(wanted)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be numbers; got {type(new).__name__}") from error
    if arrived[1] != list(jnp.shape(wanted)) or not _convertible(arrived[0], kind):
        raise ValueError(f"{name} must be {kind}{list(jnp.shape(wanted))}; got {arrived[0]}{arrived[1]}: {new}")
    if _rank(kind) is None:
        return jax.device_put(new, wanted.sharding) if wanted.committed else new
    given, converted = np.asarray(new), new
    if given.dtype != kind:
        with np.errstate(all="ignore"):
            converted = given.astype(kind)
        held = np.isfinite(converted) == np.isfinite(given) if jnp.issubdtype(kind, jnp.inexact) else converted == given
        if not held.all():
            raise ValueError(f"{name} must be {kind}{list(jnp.shape(wanted))}, which cannot hold {given}")
    if isinstance(wanted, bool | int | float):
        return type(wanted)(np.asarray(converted))
    if wanted.committed:
        return jax.device_put(jnp.asarray(converted, kind), wanted.sharding)
    return jnp.asarray(given.astype(kind) if getattr(converted, "committed", False) else converted, kind)


def _convertible(arrived: Any, wanted: Any) -> bool:
    """Returns whether numbers of one type stand for numbers of another; precision apart, nothing is lost."""
    ranks = _rank(arrived), _rank(wanted)
    return arrived == wanted if None in ranks else ranks <= ranks[::-1]


def _rank(kind: Any) -> int | None:
    """Returns the place of a type of numbers among booleans, integers, real and complex ones; None of keys."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next((rank for rank, parent in enumerate(kinds) if jnp.issubdtype(kind, parent)), None)


def types_to_keep(leaf: Any) -> Any:
    """Returns a parameter of a type that another one can be converted to: Python's numbers stay what they are."""
    if isinstance(leaf, bool | int | float):
        return leaf
    array = jnp.asarray(leaf)
    if not array.weak_type:
        return array
    return array.item() if array.ndim == 0 else jnp.asarray(array, array.dtype)
