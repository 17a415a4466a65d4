"""Experience on the device: a ring of rows per environment, and windows of consecutive steps drawn from it.

A row is one *observation*, with the action taken from it, the reward that action received, and whether it
terminated the episode. An observation is stored once: what an action leads to is simply the next row. So that
no transition is ever made up, each row says whether it `follows` the row before it; the first observation of
an episode does not, and neither does the oldest row of a full ring, whose predecessor has been overwritten.
The last observation of an episode has a row of its own, with a zero action that nobody took:

    row           0      1      2      3   |   4      5    …
    observation   s0     s1     s2     s3  |   s0'    s1'
    action        a0     a1     a2     0   |   a0'    a1'
    follows       no     yes    yes    yes |   no     yes        3 transitions, then 1

Every environment has its own write head, since episodes end at different times. All functions are pure;
`append` and `sample` are compiled, and `append` reuses the memory of the buffer it is given, which must not
be used again.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

_PROPOSALS = 8  # start rows proposed per window; episodes of one step, the worst case, leave 1 in 256 empty


class Rows(NamedTuple):
    """One row for each of E environments, in NumPy or JAX arrays."""

    observations: Any
    """`[E, ...]` what was observed."""
    actions: Any
    """`[E, ...]` the action taken from it; zero where the episode was over."""
    rewards: Any
    """`[E]` the reward of that action, 0 where there was none."""
    terminated: Any
    """`[E]` whether that action ended the episode by termination (not by truncation)."""
    follows: Any
    """`[E]` whether the action of the row written before led here."""


class TrajectoryBuffer(NamedTuple):
    """The rings of E environments with room for C rows each; see the module's picture."""

    observations: Shaped[Array, "E C ..."]
    actions: Shaped[Array, "E C ..."]
    rewards: Float[Array, "E C"]
    terminated: Bool[Array, "E C"]
    follows: Bool[Array, "E C"]
    head: Int[Array, " E"]
    """Where the next row of each environment goes."""
    filled: Int[Array, " E"]
    """How many rows of each environment have been written, at most C."""


class Window(NamedTuple):
    """Consecutive steps for each of B windows of L steps."""

    observations: Shaped[Array, "B L+1 ..."]
    actions: Shaped[Array, "B L ..."]
    """`[B, L, block, ...]` where a step is a block of several actions."""
    rewards: Float[Array, "B L"]
    """Of a step's actions together."""
    terminated: Bool[Array, "B L"]
    mask: Bool[Array, "B L"]
    """Where it is set, `observations[k + 1]` was really reached from `observations[k]`, and so on back to the
    first; it is set up to some step and never after."""


def create(
    capacity: int,
    environments: int,
    observation_shape: tuple[int, ...],
    action_shape: tuple[int, ...],
    *,
    observation_dtype: DTypeLike = np.float32,
    action_dtype: DTypeLike = np.float32,
) -> TrajectoryBuffer:
    """Make room for trajectories.

    Args:
        capacity: Rows kept for each environment, at least 2; the oldest are overwritten.
        environments: Number of environments E.
        observation_shape: Of one observation.
        action_shape: Of one action.
        observation_dtype: What observations are stored as; `uint8` keeps images four times smaller.
        action_dtype: What actions are stored as.

    Raises:
        ValueError: If there would be no room for a transition.
    """
    if capacity < 2 or environments < 1:
        raise ValueError(
            f"a buffer needs 2 rows for a transition and 1 environment; got capacity={capacity}, environments={environments}"
        )
    rings = (environments, capacity)
    return TrajectoryBuffer(
        observations=jnp.zeros(rings + observation_shape, observation_dtype),
        actions=jnp.zeros(rings + action_shape, action_dtype),
        rewards=jnp.zeros(rings, jnp.float32),
        terminated=jnp.zeros(rings, bool),
        follows=jnp.zeros(rings, bool),
        head=jnp.zeros(environments, jnp.int32),
        filled=jnp.zeros(environments, jnp.int32),
    )


@partial(jax.jit, donate_argnames="buffer")
def append(buffer: TrajectoryBuffer, rows: Rows, write: Bool[Array | np.ndarray, " E"]) -> TrajectoryBuffer:
    """Write one row per environment, where `write` is set, over the oldest one.

    Args:
        buffer: Given up: its memory becomes that of the result.
        rows: What to write, a row for each of E environments.
        write: `[E]`, which environments have a row to write.
    """
    environments, capacity = buffer.follows.shape
    every = jnp.arange(environments)
    after = (buffer.head + 1) % capacity
    # Out of bounds is nowhere: rows that are not written are dropped.
    slot, oldest = (jnp.where(write, place, capacity) for place in (buffer.head, after))

    def put(ring: Array, values: Array) -> Array:
        return ring.at[every, slot].set(values.astype(ring.dtype), mode="drop")

    # The very first row has nothing to follow, and the row that is now the oldest has lost what it followed.
    rows = rows._replace(follows=rows.follows & (buffer.filled > 0))
    written = jax.tree.map(put, Rows(*buffer[:5]), rows)
    follows = written.follows.at[every, oldest].set(False, mode="drop")
    return TrajectoryBuffer(
        *written[:4],
        follows=follows,
        head=jnp.where(write, after, buffer.head),
        filled=jnp.minimum(buffer.filled + jnp.asarray(write), capacity),
    )


@partial(jax.jit, static_argnames=("batch", "length", "block"))
def sample(buffer: TrajectoryBuffer, key: PRNGKeyArray, batch: int, length: int, block: int = 1) -> Window:
    """Draw windows of consecutive steps, each starting at a step chosen uniformly from all stored.

    A few rows are proposed for every window and the first that starts a step is taken, so that the work does not grow with
    the buffer. Where none does (about `(block / rows per episode)^8` of the windows; all of them in an empty buffer) the
    window's mask is not set anywhere.

    Args:
        buffer: With E environments.
        key: Consumed.
        batch: Number of windows.
        length: Steps in each.
        block: Transitions in a step; observations between are left out.
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
    """Actions `[B, L * block, ...]` as `[B, L, block, ...]`; left as they are where a block is one action."""
    return actions if block == 1 else _grouped(actions, block)


def _grouped(steps: Any, block: int) -> Any:
    return steps.reshape(steps.shape[0], steps.shape[1] // block, block, *steps.shape[2:])


@partial(jax.jit, static_argnames=("count", "within"))
def before_terminations(buffer: TrajectoryBuffer, key: PRNGKeyArray, count: int, within: int) -> Shaped[Array, "count ..."]:
    """Draw observations from the last steps before terminations; any observations while nothing has terminated.

    Args:
        buffer: With E environments.
        key: Consumed.
        count: Number of observations.
        within: How many steps before a termination an observation may lie, at most; each as likely as the others that the
            episode had.
    """
    capacity = buffer.follows.shape[1]
    ends = jnp.cumsum(buffer.terminated.ravel())
    pick, back, other = jax.random.split(key, 3)
    ticket = jax.random.randint(pick, (count,), 0, jnp.maximum(ends[-1], 1))
    place = jnp.minimum(jnp.searchsorted(ends, ticket, side="right"), ends.shape[0] - 1)
    environment, row = place // capacity, place % capacity
    rows = (row[:, None] - jnp.arange(within)) % capacity
    linked = jnp.cumprod(buffer.follows[environment[:, None], rows], axis=1, dtype=jnp.int32)
    room = jnp.minimum(linked.sum(axis=1), within - 1)
    steps = jnp.floor(jax.random.uniform(back, (count,)) * (room + 1)).astype(jnp.int32)
    near_termination = buffer.observations[environment, (row - steps) % capacity]
    anywhere = buffer.observations[_propose(buffer, other, (count,))]
    return jnp.where(ends[-1] > 0, near_termination, anywhere)


def _propose(
    buffer: TrajectoryBuffer, key: PRNGKeyArray, shape: tuple[int, ...]
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Draw (environment, row) uniformly from the rows written so far."""
    ends = jnp.cumsum(buffer.filled)
    ticket = jax.random.randint(key, shape, 0, jnp.maximum(ends[-1], 1))
    environment = jnp.minimum(jnp.searchsorted(ends, ticket, side="right"), ends.shape[0] - 1)
    return environment, ticket - (ends - buffer.filled)[environment]


@jax.jit
def observation_moments(buffer: TrajectoryBuffer) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Give mean and standard deviation of each coordinate of the stored observations; 0 if there are none."""
    observations = buffer.observations.astype(jnp.float32)
    written = jnp.arange(buffer.follows.shape[1]) < buffer.filled[:, None]
    written = written.reshape(written.shape + (1,) * (observations.ndim - 2))
    count = jnp.maximum(jnp.sum(buffer.filled), 1)
    mean = jnp.sum(observations, axis=(0, 1), where=written) / count
    return mean, jnp.sqrt(jnp.sum((observations - mean) ** 2, axis=(0, 1), where=written) / count)
