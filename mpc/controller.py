"""Receding horizon: plan, execute the first action, shift the plan, plan again; and what to do when planning fails.

The robot's path never raises. A decision that cannot be trusted (an observation or a plan that is not finite) falls back
on the next action of the last plan that could, and, once that is used up, on the middle of the action space.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.planners.base import Plan, Planner, Status

PyTree = Any


class ControllerState(NamedTuple):
    """What one control loop remembers between decisions.

    `planner`: the planner's memory. `backup`: `[H, ...]` actions to fall back on, next one first.
    """

    planner: Any
    backup: jax.Array


def neutral(planner: Planner) -> jax.Array:
    """The actions `[H, ...]` taken when nothing is known: the middle of the space, or its first alternative."""
    problem = planner.problem
    return problem.action_space.decide(jnp.zeros((problem.horizon, problem.action_space.size)))


def begin(
    planner: Planner, params: PyTree, state: PyTree, key: jax.Array, guess: jax.Array | None = None
) -> ControllerState:
    """Start a control loop, with nothing to fall back on yet."""
    return ControllerState(planner.init(params, planner.problem.lifted(params, state), key, guess), neutral(planner))


def improve(planner: Planner, params: PyTree, state: PyTree, loop: ControllerState, iterations: int) -> ControllerState:
    """Spend iterations on the decision at hand."""
    state = planner.problem.lifted(params, state)
    return loop._replace(planner=jax.lax.fori_loop(0, iterations, lambda _, m: planner.step(params, state, m), loop.planner))


def finish(
    planner: Planner, params: PyTree, state: PyTree, loop: ControllerState, before: ControllerState
) -> tuple[ControllerState, Plan, jax.Array]:
    """End a decision: the action to execute, and the loop as the next decision finds it.

    Args:
        planner: The planner.
        params: Parameters of its problem.
        state: The state that was planned from.
        loop: The loop after its iterations.
        before: The loop as it was before them, returned to when they came to nothing.

    Returns:
        The next loop (already shifted), the plan with its status, and the action, finite and in bounds in any case.
    """
    plan = planner.plan(params, planner.problem.lifted(params, state), loop.planner)
    fine = jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), (state, plan.actions, plan.cost)))
    trusted = fine & (plan.status != Status.NOT_FINITE)
    backup = planner.problem.action_space.bind(params).permit(loop.backup)
    actions = jnp.where(trusted, plan.actions, backup)
    planner_state = planner.shift(jax.tree.map(partial(jnp.where, trusted), loop.planner, before.planner))
    backup = jnp.concatenate([actions[1:], neutral(planner)[-1:]])
    plan = plan._replace(actions=actions, status=jnp.where(trusted, plan.status, Status.NOT_FINITE))
    return ControllerState(planner_state, backup), plan, actions[0]


def decide(
    planner: Planner, params: PyTree, state: PyTree, loop: ControllerState, iterations: int
) -> tuple[ControllerState, Plan, jax.Array]:
    """One whole decision as a pure function, for `jit` and, over many environments, `vmap`."""
    return finish(planner, params, state, improve(planner, params, state, loop, iterations), loop)


class Controller:
    """A control loop around a planner, warm-started from one decision to the next.

    Given an example state, everything is compiled when the controller is built, so that the first decision is as quick as
    the others; otherwise the first `act` compiles. With a deadline, iterations run in chunks, and a chunk is only begun
    if, by the slowest seen, it and the conclusion will end in time.

    Args:
        planner: Any planner.
        params: Parameters of its problem; assign `controller.params` for new ones of the same shapes.
        state: An example of the states to come; without one, the first state to act on is the example.
        iterations: Improvements per decision; at most so many when there is a deadline.
        deadline: Seconds a decision may take, or None for always all iterations.
        chunk: Improvements between two looks at the clock.
        key: Seed of all randomness.

    Raises:
        ValueError: If the problem's functions do not fit the state, or a setting is not positive.

    Example:
        >>> import mpc
        >>> step = lambda params, state, action: state + 0.1 * action
        >>> problem = mpc.Problem(step, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0]))
        >>> controller = mpc.Controller(mpc.gradient(problem, starts=4), None, state=jnp.ones(1), iterations=10)
        >>> bool(controller.act(jnp.ones(1))[0] < -0.9)
        True
    """

    def __init__(
        self,
        planner: Planner,
        params: PyTree,
        *,
        state: PyTree = None,
        iterations: int = 20,
        deadline: float | None = None,
        chunk: int = 1,
        key: int = 0,
    ):
        if iterations < 1 or chunk < 1:
            raise ValueError(f"iterations and chunk must be at least 1; got iterations={iterations}, chunk={chunk}")
        if deadline is not None and not deadline > 0:
            raise ValueError(f"deadline must be a positive number of seconds or None; got {deadline}")
        self.planner, self.params, self.iterations, self.deadline, self.chunk = planner, params, iterations, deadline, chunk
        self.plan: Plan | None = None
        self.status, self.late, self.seconds, self.iterations_spent = Status.ITERATIONS, False, 0.0, 0
        self._decide = jax.jit(partial(decide, planner, iterations=iterations))
        self._improve = jax.jit(partial(improve, planner, iterations=chunk))
        self._finish = jax.jit(partial(finish, planner))
        self._begin = jax.jit(partial(begin, planner))
        self._slowest_chunk = self._slowest_end = 0.0
        self._key, self._loop, self._example, self._last = key, None, None, None
        if state is not None:
            self._prepare(state)

    def _prepare(self, example: PyTree) -> None:
        """Fix the shapes of states, and compile everything before the clock runs."""
        example = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, jnp.float32)), example)
        self.planner.problem.check(self._informed(), example)
        self._example = example
        self._warm_up()
        self.reset(self._key)

    def reset(self, key: int = 0) -> None:
        """Forget the last plan and action, as at the start of an episode."""
        self._key, self._loop, self._last = key, None, None

    def act(self, state: PyTree) -> np.ndarray:
        """Decide what to do now; afterwards `plan`, `status`, `late` and `seconds` tell how it went.

        Args:
            state: The state now, shaped as the example was. One that is not finite, or shaped otherwise, gives the next
                action of the last good plan and the status `NOT_FINITE`.

        Returns:
            An action of the space: in bounds, finite, whatever happened.
        """
        if self._example is None:
            self._prepare(state)
        begun = time.perf_counter()
        action = self._act(self._fitting(state), begun)
        self._last = action
        self.seconds = time.perf_counter() - begun
        self.late = self.deadline is not None and self.seconds > self.deadline
        return action

    def _act(self, state: PyTree, begun: float) -> np.ndarray:
        before, params = self._loop, self._informed()
        if before is None:
            before = self._begin(params, self._example, jax.random.key(self._key))
        if self.deadline is None:
            self._loop, plan, action = self._decide(params, state, before)
            self.iterations_spent = self.iterations
        else:
            loop, self.iterations_spent = self._until(params, state, before, begun + self.deadline)
            ended = time.perf_counter()
            self._loop, plan, action = self._finish(params, state, loop, before)
            jax.block_until_ready(action)
            self._slowest_end = max(0.99 * self._slowest_end, time.perf_counter() - ended)
        self.plan, self.status = plan, Status(int(plan.status))
        return np.asarray(action)

    def _informed(self) -> PyTree:
        """The parameters, with the action executed last where the action space asks for it."""
        return self.planner.problem.action_space.remember(self.params, self._last)

    def _until(self, params: PyTree, state: PyTree, loop: ControllerState, end: float) -> tuple[ControllerState, int]:
        spent, now = 0, time.perf_counter()
        while spent < self.iterations and (spent == 0 or now + self._slowest_chunk + self._slowest_end < end):
            loop = jax.block_until_ready(self._improve(params, state, loop))
            before, now = now, time.perf_counter()
            # the slowest seen, slowly forgotten: one hiccup should not cost iterations for ever
            self._slowest_chunk = max(0.99 * self._slowest_chunk, now - before)
            spent += self.chunk
        return loop, spent

    def _fitting(self, state: PyTree) -> PyTree:
        """The state as arrays; one of another make becomes NaN, which the compiled part knows how to survive."""
        try:
            state = jax.tree.map(lambda like, x: jnp.asarray(x, like.dtype), self._example, state)
            if jax.tree.leaves(jax.tree.map(jnp.shape, state)) == jax.tree.leaves(jax.tree.map(jnp.shape, self._example)):
                return state
        except (TypeError, ValueError):
            pass  # not an array at all, or built otherwise
        return jax.tree.map(lambda like: jnp.full_like(like, jnp.nan), self._example)

    def _warm_up(self) -> None:
        for _ in range(3):  # the first call compiles; its time is no measure of the others
            self._slowest_chunk = self._slowest_end = 0.0
            self._act(self._example, time.perf_counter())
