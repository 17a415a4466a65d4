"""Windows drawn from datasets: on the device, or read from the disk ahead of training."""

import queue
import threading
import warnings
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from world_models.data.dataset import Dataset, DatasetError
from world_models.data.normalisation import Moments
from world_models.data.replay_buffer import Window, blocks
from world_models.networks.patches import unit

_TOGETHER = 512  # observations encoded at a time
_FRAMES = 1024  # of how many observations moments are taken, at most


def starts(dataset: Dataset, steps: int) -> np.ndarray:
    """`[episodes]`, at how many places of each a window of so many transitions can start.

    Args:
        dataset: With episodes.
        steps: Transitions in a window.

    Raises:
        DatasetError: If no episode is long enough. Where only some are too short, a warning says how many.
    """
    counts = np.maximum(dataset.lengths - steps + 1, 0)
    short = int((counts == 0).sum())
    if short == len(counts):
        raise DatasetError(f"windows of {steps} transitions don't fit: the longest episode has {dataset.lengths.max()}")
    if short:
        warnings.warn(
            f"{short} of {len(counts)} episodes have fewer than {steps} transitions and are not drawn from", stacklevel=3
        )
    return counts


def channel_moments(frames: Float[Array, "*rows channels"]) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and standard deviation of the last axis over all others."""
    others = tuple(range(frames.ndim - 1))
    return jnp.mean(frames, axis=others), jnp.std(frames, axis=others)


def moments(dataset: Dataset, render: Callable[[Array], Array] | None = None) -> Moments:
    """Scales of a dataset: of every channel of frames, of every coordinate of vectors and actions.

    Those of observations are taken over at most 1,024 of them, spread evenly.

    Args:
        dataset: With episodes.
        render: As for `training.trainer`.
    """
    rows = np.unique(np.linspace(0, len(dataset.observations) - 1, _FRAMES).astype(int))
    seen = jnp.asarray(dataset.observations[rows])
    mean, std = channel_moments(unit(seen if render is None else jnp.asarray(render(seen))))
    taken = np.ones(len(dataset.rewards), bool)
    taken[dataset.first + dataset.lengths] = False
    rewards = np.asarray(dataset.rewards)[taken]
    middle, spread, best = (jnp.float32(x) for x in (rewards.mean(), rewards.std(), rewards.max()))
    ends = jnp.asarray(bool(np.asarray(dataset.terminated).any()))
    found = Moments(mean, std, middle, spread, best, terminates=ends)
    if dataset.actions is None:
        return found.floored()
    actions = np.asarray(dataset.actions)[taken].astype(np.float32)
    actions = actions[np.isfinite(actions).reshape(len(actions), -1).all(axis=1)]
    mean, std = (jnp.asarray(x) for x in (actions.mean(axis=0), actions.std(axis=0)))
    return found._replace(action_mean=mean, action_std=std).floored()


def encoded(dataset: Dataset, rows: np.ndarray, encode: Callable[[np.ndarray], Array]) -> np.ndarray:
    """What an encoder makes of rows of a dataset, `[N, D]`, some hundreds at a time.

    Args:
        dataset: Whose observations are encoded.
        rows: `[N]`, in any order.
        encode: `observations [M, ...] -> [M, D]`.
    """
    padded = np.pad(rows, (0, -len(rows) % _TOGETHER), mode="edge")  # one program serves all
    parts = [np.asarray(encode(dataset.observations[part])) for part in padded.reshape(-1, _TOGETHER)]
    return np.concatenate(parts)[: len(rows)]


class Resident(NamedTuple):
    """A dataset on the device; see `resident`."""

    observations: Shaped[Array, "rows ..."]
    actions: Shaped[Array, "rows ..."]
    rewards: Float[Array, " rows"]
    terminated: Bool[Array, " rows"]
    first: Int[Array, " episodes"]
    lengths: Int[Array, " episodes"]
    moments: Moments


def resident(dataset: Dataset, steps: int, render: Callable[[Array], Array] | None = None) -> Resident:
    """Put a dataset on the device.

    Args:
        dataset: What fits there.
        steps: Transitions in the longest windows that will be drawn: `length * block`.
        render: As for `training.trainer`; only the moments are taken of what it makes.

    Raises:
        DatasetError: If no episode is long enough for a window.
    """
    starts(dataset, steps)
    return Resident(
        observations=jnp.asarray(dataset.observations),
        actions=jnp.asarray(_with_actions(dataset).actions),
        rewards=jnp.asarray(dataset.rewards),
        terminated=jnp.asarray(dataset.terminated),
        first=jnp.asarray(dataset.first, jnp.int32),
        lengths=jnp.asarray(dataset.lengths, jnp.int32),
        moments=moments(dataset, render),
    )


def draw(source: Resident, key: PRNGKeyArray, batch: int, length: int, block: int = 1) -> Window:
    """Draw windows from a dataset on the device, each uniformly from all that lie within one episode.

    Args:
        source: With an episode of at least `length * block` transitions; without one, masks are set nowhere.
        key: Consumed.
        batch: Number of windows B.
        length: Steps L in each.
        block: Transitions in a step; observations between are left out.
    """
    ends = jnp.cumsum(jnp.maximum(source.lengths - length * block + 1, 0))
    tickets = jax.random.randint(key, (batch,), 0, jnp.maximum(ends[-1], 1))
    window = _cut(source, _rows(source, ends, tickets, jnp), length, block, jnp)
    return window._replace(mask=window.mask & (ends[-1] > 0))


def _rows(source: Any, ends: Any, tickets: Any, xp: Any) -> Any:
    """Where the windows start that tickets `[B]` stand for, in NumPy or JAX; `ends`: running totals of starts by episode."""
    episode, later = stratum(ends, tickets, xp)
    return source.first[episode] + later


def stratum(ends: Any, tickets: Any, xp: Any) -> tuple[Any, Any]:
    """The episodes that tickets `[B]` fall into, and how far, in NumPy or JAX; `ends`: running totals by episode."""
    episode = xp.minimum(xp.searchsorted(ends, tickets, side="right"), len(ends) - 1)
    return episode, tickets - xp.where(episode > 0, ends[episode - 1], 0)


def _cut(source: Any, rows: Any, length: int, block: int, xp: Any) -> Window:
    """The windows that start at rows `[B]`, in NumPy or JAX; what lies between the observations of a block is not read."""
    frames = rows[:, None] + block * xp.arange(length + 1)
    steps = rows[:, None] + xp.arange(length * block)
    grouped = (len(rows), length, block)
    return Window(
        observations=source.observations[frames],
        actions=blocks(source.actions[steps], block),
        rewards=source.rewards[steps].reshape(grouped).sum(axis=-1),
        terminated=source.terminated[steps].reshape(grouped).any(axis=-1),
        mask=xp.ones((len(rows), length), bool),
    )


def batches(
    dataset: Dataset,
    *,
    seed: int,
    batch: int,
    length: int,
    block: int = 1,
    updates: int = 1,
    members: int = 1,
    ahead: int = 2,
) -> Generator[Window, None, None]:
    """Draw windows without end, as `Trainer.fit_windows` takes them, reading ahead in a thread of its own.

    Args:
        dataset: In memory or on the disk.
        seed: Of what is drawn: the same seed draws the same windows.
        batch: Windows B for each update and member.
        length: Steps L in each.
        block: Transitions in a step; observations between are not read.
        updates: Batches U at a time; more keep the device busy for longer, and take more memory.
        members: M of the model.
        ahead: How many such bundles to have ready.

    Yields:
        Windows with leading axes `[U, M, B]`, on the device. Closing the generator ends the thread.

    Raises:
        DatasetError: If no episode is long enough for a window.
    """
    ends = np.cumsum(starts(dataset, length * block))
    dataset = _with_actions(dataset)
    return _read_ahead(lambda random: _bundle(dataset, ends, random, (updates, members, batch), length, block), seed, ahead)


def _with_actions(dataset: Dataset) -> Dataset:
    """Actions of size 0 where there are none."""
    if dataset.actions is not None:
        return dataset
    return replace(dataset, actions=np.zeros((len(dataset.rewards), 0), np.float32))


def _bundle(
    dataset: Dataset, ends: np.ndarray, random: np.random.Generator, shape: tuple[int, ...], length: int, block: int
) -> Window:
    tickets = random.integers(ends[-1], size=int(np.prod(shape)))
    window = _cut(dataset, _rows(dataset, ends, tickets, np), length, block, np)
    return jax.tree.map(lambda x: jax.device_put(x.reshape(*shape, *x.shape[1:])), window)


def _read_ahead(read: Callable[[np.random.Generator], Window], seed: int, ahead: int) -> Generator[Window, None, None]:
    """What `read` gives, over and over, from a thread that ends with the iterator."""
    ready: queue.Queue[Window | BaseException] = queue.Queue(max(ahead, 1))
    over = threading.Event()

    def work() -> None:
        random = np.random.default_rng(seed)
        while not over.is_set():
            try:
                item: Window | BaseException = read(random)
            except BaseException as error:
                item = error
            while not over.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        thread.join()
