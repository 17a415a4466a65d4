"""Replay buffer on the device: a ring of rows per environment, and windows of consecutive steps sampled from it.

A row is one *observation*, the action taken from it, the reward of that action, and a flag that is True if the action
terminated the episode. Each observation is stored once: the next observation is the next row. The flag `follows` is True
if a row continues the row before it. It is False for the first observation of an episode, and for the oldest row of a full
ring, whose predecessor is overwritten. The last observation of an episode has its own row, with a zero action:

    row           0      1      2      3   |   4      5    …
    observation   s0     s1     s2     s3  |   s0'    s1'
    action        a0     a1     a2     0   |   a0'    a1'
    follows       no     yes    yes    yes |   no     yes        3 transitions, then 1

Every environment has its own write head, because episodes end at different times. All functions are pure. `append` and
`sample` are compiled. `append` donates its buffer: the caller must not use it again.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from world_models.data.normalisation import Moments
from world_models.data.summary import Summary, appended, summarise
from world_models.data.summary import moments as summarised_moments

_PROPOSALS = 8  # start rows proposed per window; with one-step episodes, the worst case, 1 window in 256 stays empty


class Rows(NamedTuple):
    """One row for each of E environments, in NumPy or JAX arrays."""

    observations: Any
    """`[E, ...]` observations."""
    actions: Any
    """`[E, ...]` actions taken from them; zero after the end of an episode."""
    rewards: Any
    """`[E]` rewards of the actions; 0 after the end of an episode."""
    terminated: Any
    """`[E]` True if the action ended the episode by termination (not by truncation)."""
    follows: Any
    """`[E]` True if the action of the previous row led to this observation."""


class _Rings(NamedTuple):
    """The fields of a `TrajectoryBuffer`."""

    observations: Shaped[Array, "E C ..."]
    actions: Shaped[Array, "E C ..."]
    rewards: Float[Array, "E C"]
    terminated: Bool[Array, "E C"]
    follows: Bool[Array, "E C"]
    head: Int[Array, " E"]
    """Index of the next row of each environment."""
    filled: Int[Array, " E"]
    """Number of rows written per environment, at most C."""
    summary: Summary
    """Statistics of all rows; follows from the other fields."""


class TrajectoryBuffer(_Rings):
    """Rings of E environments with capacity C each; see the module docstring."""

    __slots__ = ()

    def _replace(self, **changes: Any) -> "TrajectoryBuffer":
        """Returns the buffer with other fields; its summary is that of its rows, unless it is given, too."""
        made = super()._replace(**changes)
        return made if "summary" in changes else made._replace(summary=summarise(made))


class Window(NamedTuple):
    """B windows of L consecutive steps."""

    observations: Shaped[Array, "B L+1 ..."]
    actions: Shaped[Array, "B L ..."]
    """`[B, L, block, ...]` if a step is a block of several actions."""
    rewards: Float[Array, "B L"]
    """Sum over the actions of a step."""
    terminated: Bool[Array, "B L"]
    mask: Bool[Array, "B L"]
    """True where `observations[0]` … `observations[k + 1]` are consecutive; True up to some step, False after it."""


def create(
    capacity: int,
    environments: int,
    observation_shape: tuple[int, ...],
    action_shape: tuple[int, ...],
    *,
    observation_dtype: DTypeLike = np.float32,
    action_dtype: DTypeLike = np.float32,
) -> TrajectoryBuffer:
    """Returns an empty buffer.

    Args:
        capacity: Rows per environment, at least 2; the oldest are overwritten.
        environments: Number of environments E.
        observation_shape: Shape of one observation.
        action_shape: Shape of one action.
        observation_dtype: Storage type of observations; `uint8` needs a quarter of the memory for images.
        action_dtype: Storage type of actions.

    Raises:
        ValueError: If the capacity is too small for a transition, or there is no environment.
    """
    if capacity < 2 or environments < 1:
        raise ValueError(
            f"a buffer needs 2 rows for a transition and 1 environment; got capacity={capacity}, environments={environments}"
        )
    rings = (environments, capacity)
    empty = TrajectoryBuffer(
        observations=jnp.zeros(rings + observation_shape, observation_dtype),
        actions=jnp.zeros(rings + action_shape, action_dtype),
        rewards=jnp.zeros(rings, jnp.float32),
        terminated=jnp.zeros(rings, bool),
        follows=jnp.zeros(rings, bool),
        head=jnp.zeros(environments, jnp.int32),
        filled=jnp.zeros(environments, jnp.int32),
        summary=cast(Summary, None),
    )
    return empty._replace(summary=jax.jit(summarise)(empty))


@partial(jax.jit, donate_argnames="buffer")
def append(buffer: TrajectoryBuffer, rows: Rows, write: Bool[Array | np.ndarray, " E"]) -> TrajectoryBuffer:
    """Writes one row per environment where `write` is True, over the oldest row.

    Args:
        buffer: Donated: its memory is reused for the result.
        rows: One row for each of E environments.
        write: `[E]`, mask of the environments that write.
    """
    environments, capacity = buffer.follows.shape
    every = jnp.arange(environments)
    after = (buffer.head + 1) % capacity
    # index `capacity` is out of bounds, so rows that are not written are dropped
    slot, oldest = (jnp.where(write, place, capacity) for place in (buffer.head, after))

    def put(ring: Array, values: Array) -> Array:
        return ring.at[every, slot].set(values.astype(ring.dtype), mode="drop")

    # the first row has no predecessor, and the predecessor of the oldest row is overwritten
    rows = rows._replace(follows=rows.follows & (buffer.filled > 0))
    overwritten = (buffer.filled == capacity) & write & buffer.terminated[every, buffer.head]
    written = jax.tree.map(put, Rows(*buffer[:5]), rows)
    follows = written.follows.at[every, oldest].set(False, mode="drop")
    later = TrajectoryBuffer(
        *written[:4],
        follows=follows,
        head=jnp.where(write, after, buffer.head),
        filled=jnp.minimum(buffer.filled + jnp.asarray(write), capacity),
        summary=buffer.summary,
    )
    return later._replace(summary=appended(buffer.summary, later, slot, write & rows.terminated, overwritten))


@partial(jax.jit, static_argnames=("batch", "length", "block"))
def sample(buffer: TrajectoryBuffer, key: PRNGKeyArray, batch: int, length: int, block: int = 1) -> Window:
    """Samples windows of consecutive steps; each starts at a step drawn uniformly from all stored steps.

    Each window takes the first of 8 proposed rows that starts a step, so the cost does not grow with the buffer. If none
    does, the mask of the window is all False. This happens for about `(block / rows per episode)^8` of the windows, and for
    all windows of an empty buffer.

    Args:
        buffer: Buffer of E environments.
        key: Consumed.
        batch: Number of windows.
        length: Steps per window.
        block: Transitions per step; observations within a step are left out.
    """
    capacity = buffer.follows.shape[1]
    environment, start = _propose(buffer, key, (batch, _PROPOSALS))
    reached = (start[..., None] + 1 + jnp.arange(block)) % capacity
    moves = buffer.follows[environment[..., None], reached].all(axis=-1)
    first = jnp.argmax(moves, axis=1)[:, None]
    environment, start = (jnp.take_along_axis(rows, first, axis=1) for rows in (environment, start))
    rows = (start + jnp.arange(length * block + 1)) % capacity
    steps = (environment, rows[:, :-1])
    follows = jnp.cumprod(buffer.follows[environment, rows[:, 1:]], axis=1, dtype=jnp.int32) > 0
    return Window(
        observations=buffer.observations[environment, rows[:, ::block]],
        actions=blocks(buffer.actions[steps], block),
        rewards=_grouped(buffer.rewards[steps], block).sum(axis=-1),
        terminated=_grouped(buffer.terminated[steps], block).any(axis=-1),
        mask=follows[:, block - 1 :: block],
    )


def blocks(actions: Any, block: int) -> Any:
    """Reshapes actions `[B, L * block, ...]` to `[B, L, block, ...]`; returns them unchanged if `block` is 1."""
    return actions if block == 1 else _grouped(actions, block)


def _grouped(steps: Any, block: int) -> Any:
    return steps.reshape(steps.shape[0], steps.shape[1] // block, block, *steps.shape[2:])


@partial(jax.jit, static_argnames=("count", "within"))
def before_terminations(buffer: TrajectoryBuffer, key: PRNGKeyArray, count: int, within: int) -> Shaped[Array, "count ..."]:
    """Samples observations from the last steps before terminations, or from all steps if no episode has terminated.

    Args:
        buffer: Buffer of E environments.
        key: Consumed.
        count: Number of observations.
        within: Largest number of steps before a termination; the steps of an episode within it are equally likely.
    """
    capacity, summary = buffer.follows.shape[1], buffer.summary
    counts = summary.terminations
    pick, offset_key, other = jax.random.split(key, 3)
    environment, ticket = _drawn(pick, (count,), counts)
    row = summary.endings[environment, (summary.first_ending[environment] + ticket) % capacity]
    rows = (row[:, None] - jnp.arange(within)) % capacity
    linked = jnp.cumprod(buffer.follows[environment[:, None], rows], axis=1, dtype=jnp.int32)
    available = jnp.minimum(linked.sum(axis=1), within - 1)
    steps = jnp.floor(jax.random.uniform(offset_key, (count,)) * (available + 1)).astype(jnp.int32)
    near_termination = buffer.observations[environment, (row - steps) % capacity]
    anywhere = buffer.observations[_propose(buffer, other, (count,))]
    return jnp.where(counts.any(), near_termination, anywhere)


def _propose(
    buffer: TrajectoryBuffer, key: PRNGKeyArray, shape: tuple[int, ...]
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Samples (environment, row) uniformly from the written rows."""
    return _drawn(key, shape, buffer.filled)


def _drawn(
    key: PRNGKeyArray, shape: tuple[int, ...], counts: Int[Array, " E"]
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Samples (environment, number) uniformly where there are so many in each."""
    ends = jnp.cumsum(counts)
    ticket = jax.random.randint(key, shape, 0, jnp.maximum(ends[-1], 1))
    environment = jnp.minimum(jnp.searchsorted(ends, ticket, side="right"), ends.shape[0] - 1)
    return environment, ticket - (ends - counts)[environment]


@jax.jit
def buffer_moments(buffer: TrajectoryBuffer) -> Moments:
    """Returns the moments of all rows but for frames, with standard deviations as they are; 0 for an empty buffer."""
    return summarised_moments(buffer)


def observation_moments(buffer: TrajectoryBuffer) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Returns mean and standard deviation of each coordinate of the stored observations; 0 for an empty buffer."""
    found = buffer_moments(buffer)
    return found.observation_mean, found.observation_std
