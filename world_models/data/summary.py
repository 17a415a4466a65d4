"""Statistics of all rows of a replay buffer, kept up to date as they are written: no scan of its capacity.

A `Summary` holds the rows at which episodes terminated, and means and standard deviations of blocks of rows. The block that
is written, and the one before it, whose last reward belongs to an episode only if the next row follows, are looked at anew
whenever moments are asked for. All others are as they were when they were full.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from world_models.data.normalisation import Moments, combined_moments, masked_moments

BLOCK = 1024
"""Rows in a block: as many blocks as rows in a block make the largest buffers, of 1e6 rows, cheapest."""


class BlockMoments(NamedTuple):
    """Moments of K blocks of rows in each of E rings."""

    counts: Int[Array, "E K"]
    means: Float[Array, "E K ..."]
    stds: Float[Array, "E K ..."]


class Summary(NamedTuple):
    """Of E rings with capacity C, in K blocks of rows."""

    endings: Int[Array, "E C"]
    """Rows that terminated an episode, in the order in which they were written; a ring itself."""
    first_ending: Int[Array, " E"]
    """Number of terminations that were overwritten."""
    next_ending: Int[Array, " E"]
    """Number of terminations that were written."""
    observations: BlockMoments
    """Of vectors; of no numbers where observations are frames."""
    rewards: BlockMoments
    """Of actions that the next row follows."""
    actions: BlockMoments
    """The same, where they were recorded."""
    best: Float[Array, "E K"]
    """Highest reward in each block."""

    @property
    def terminations(self) -> Int[Array, " E"]:
        """Number of terminations that are still held."""
        return self.next_ending - self.first_ending


def summarise(buffer: Any) -> Summary:
    """Returns the summary of a buffer's rows by a scan of all.

    Args:
        buffer: A `TrajectoryBuffer`, whatever its summary.
    """
    environments, capacity = buffer.follows.shape
    blocks = jnp.arange(-(-capacity // min(BLOCK, capacity)))
    of_block = jax.lax.map(lambda k: _of_blocks(buffer, jnp.full(environments, k)), blocks)
    parts = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), of_block)
    order = (buffer.head[:, None] - buffer.filled[:, None] + jnp.arange(capacity)) % capacity
    every = jnp.arange(environments)[:, None]
    ended = buffer.terminated[every, order] & (jnp.arange(capacity) < buffer.filled[:, None])
    places = jnp.where(ended, jnp.cumsum(ended, axis=1) - 1, capacity)
    endings = jnp.zeros((environments, capacity), jnp.int32).at[every, places].set(order.astype(jnp.int32), mode="drop")
    counts = ended.sum(axis=1, dtype=jnp.int32)
    return Summary(endings, jnp.zeros_like(counts), counts, *parts)


def appended(
    summary: Summary, after: Any, slot: Int[Array, " E"], ended: Bool[Array, " E"], overwritten: Bool[Array, " E"]
) -> Summary:
    """Returns the summary after a row per environment was written.

    Args:
        summary: Before.
        after: The buffer with the row.
        slot: Place of the row; the capacity where none was written.
        ended: Whether the row terminated an episode.
        overwritten: Whether the row in whose place it is did.
    """
    environments, capacity = after.follows.shape
    place = jnp.where(ended, summary.next_ending % capacity, capacity)
    summary = summary._replace(
        endings=summary.endings.at[jnp.arange(environments), place].set(slot.astype(jnp.int32), mode="drop"),
        first_ending=summary.first_ending + overwritten,
        next_ending=summary.next_ending + ended,
    )
    # with the first row of a block, all is known of the rows of the block before it
    full = (slot < capacity) & (slot % min(BLOCK, capacity) == 0)
    return jax.lax.cond(full.any(), lambda s: _put(s, after, slot - 1, full), lambda s: s, summary)


def moments(buffer: Any) -> Moments:
    """Returns the moments of all rows, of observations that are frames 0; no scale is put in place of a deviation."""
    known = buffer.summary
    for back in (2, 1):
        known = _put(known, buffer, buffer.head - back, jnp.ones_like(buffer.filled, bool))
    parts = [combined_moments(*jax.tree.map(_merged, part)) for part in (known.observations, known.rewards, known.actions)]
    return Moments(*parts[0], *parts[1], known.best.max(), *parts[2], known.terminations.any())


def _merged(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])  # of no numbers, too


def _put(summary: Summary, buffer: Any, row: Int[Array, " E"], where: Bool[Array, " E"]) -> Summary:
    """The summary with the blocks that hold a row per environment looked at anew."""
    environments, capacity = buffer.follows.shape
    index = (row % capacity) // min(BLOCK, capacity)
    every, place = jnp.arange(environments), jnp.where(where, index, summary.best.shape[1])
    new = _of_blocks(buffer, index)
    put = jax.tree.map(lambda old, one: old.at[every, place].set(one, mode="drop"), tuple(summary[3:]), new)
    return Summary(*summary[:3], *put)


def _of_blocks(buffer: Any, index: Int[Array, " E"]) -> tuple[BlockMoments, BlockMoments, BlockMoments, jax.Array]:
    """Moments of observations, rewards and actions, and the highest reward, of one block per environment."""
    environments, capacity = buffer.follows.shape
    size = min(BLOCK, capacity)
    rows = index[:, None] * size + jnp.arange(size)
    there, rows = rows < buffer.filled[:, None], jnp.minimum(rows, capacity - 1)
    every = jnp.arange(environments)[:, None]
    paid = there & buffer.follows[every, (rows + 1) % capacity]  # a reward belongs to a row that the next one follows
    actions, rewards = buffer.actions[every, rows], buffer.rewards[every, rows]
    recorded = paid & jnp.isfinite(actions).all(axis=tuple(range(2, actions.ndim)))
    frames = buffer.observations.ndim > 3
    seen = jnp.zeros((environments, size, 0)) if frames else buffer.observations[every, rows]
    best = jnp.max(rewards, axis=1, where=paid, initial=-jnp.inf)
    return _moments(seen, there), _moments(rewards, paid), _moments(actions, recorded), best


def _moments(values: jax.Array, mask: jax.Array) -> BlockMoments:
    return BlockMoments(mask.sum(axis=1, dtype=jnp.int32), *jax.vmap(masked_moments)(values, mask))
