"""Windows sampled from datasets: on the device, or read from disk ahead of training."""

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

_ENCODE_BATCH = 512  # observations per call of an encoder
_MOMENT_FRAMES = 1024  # largest number of observations from which moments are computed


def starts(dataset: Dataset, steps: int) -> np.ndarray:
    """Returns `[episodes]`, the number of rows in each at which a window of `steps` transitions can start.

    Args:
        dataset: Dataset to count in.
        steps: Transitions per window.

    Raises:
        DatasetError: If no episode is long enough. If only some are too short, a warning gives their number.
    """
    counts = np.maximum(dataset.lengths - steps + 1, 0)
    short = int((counts == 0).sum())
    if short == len(counts):
        raise DatasetError(f"no episode has {steps} transitions; the longest episode has {dataset.lengths.max()}")
    if short:
        warnings.warn(
            f"{short} of {len(counts)} episodes have fewer than {steps} transitions and are not used", stacklevel=3
        )
    return counts


def channel_moments(frames: Float[Array, "*rows channels"]) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Returns mean and standard deviation of each channel (last axis) stopped all other axes."""
    others = tuple(range(frames.ndim - 1))
    return jnp.mean(frames, axis=others), jnp.std(frames, axis=others)


def moments(dataset: Dataset, render: Callable[[Array], Array] | None = None) -> Moments:
    """Returns the moments of a dataset: per channel of frames, per coordinate of vectors and actions.

    Moments of observations are computed from at most 1,024 evenly spaced rows.

    Args:
        dataset: Dataset to measure.
        render: As for `training.trainer`.
    """
    rows = np.unique(np.linspace(0, len(dataset.observations) - 1, _MOMENT_FRAMES).astype(int))
    observations = dataset.observations[rows]
    if render is None and observations.ndim == 2 and observations.dtype.kind == "f":
        seen = _moments(observations)
    else:
        shown = jnp.asarray(observations)
        seen = channel_moments(unit(shown if render is None else jnp.asarray(render(shown))))
    taken = np.ones(len(dataset.rewards), bool)
    taken[dataset.first + dataset.lengths] = False
    rewards, ends = np.asarray(dataset.rewards)[taken], jnp.asarray(bool(np.asarray(dataset.terminated).any()))
    result = Moments(*seen, *_moments(rewards), jnp.float32(rewards.max()), terminates=ends)
    if dataset.actions is None:
        return result.scaled()
    actions = np.asarray(dataset.actions)[taken]
    mean, std = _moments(actions[np.isfinite(actions).reshape(len(actions), -1).all(axis=1)])
    return result._replace(action_mean=mean, action_std=std).scaled()


def _moments(values: np.ndarray) -> tuple[Array, Array]:
    """Mean and standard deviation of `[N, ...]`, computed in double precision."""
    exact = values.astype(np.float64)
    return jnp.asarray(exact.mean(axis=0), jnp.float32), jnp.asarray(exact.std(axis=0), jnp.float32)


def encoded(dataset: Dataset, rows: np.ndarray, encode: Callable[[np.ndarray], Array]) -> np.ndarray:
    """Returns the latents `[N, D]` of rows of a dataset, encoded in batches.

    Args:
        dataset: Dataset of the observations.
        rows: `[N]`, row indices in any order.
        encode: `observations [M, ...] -> [M, D]`.
    """
    padded = np.pad(rows, (0, -len(rows) % _ENCODE_BATCH), mode="edge")  # a constant batch size needs one compiled program
    parts = [np.asarray(encode(dataset.observations[part])) for part in padded.reshape(-1, _ENCODE_BATCH)]
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
    """Copies a dataset to the device.

    Args:
        dataset: Dataset that fits in device memory.
        steps: Transitions of the longest windows to be sampled, `length * block`.
        render: As for `training.trainer`; used for the moments only.

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
    """Samples windows from a dataset on the device, uniformly from all windows within one episode.

    Args:
        source: Dataset with an episode of at least `length * block` transitions; otherwise all masks are False.
        key: Consumed.
        batch: Number of windows B.
        length: Steps L per window.
        block: Transitions per step; observations within a step are left out.
    """
    ends = jnp.cumsum(jnp.maximum(source.lengths - length * block + 1, 0))
    tickets = jax.random.randint(key, (batch,), 0, jnp.maximum(ends[-1], 1))
    window = _cut(source, _rows(source, ends, tickets, jnp), length, block, jnp)
    return window._replace(mask=window.mask & (ends[-1] > 0))


def _rows(source: Any, ends: Any, tickets: Any, xp: Any) -> Any:
    """Returns the start rows for indices `tickets` `[B]` into all possible starts (NumPy or JAX).

    `ends`: cumulative numbers of starts per episode.
    """
    episode, offset = stratum(ends, tickets, xp)
    return source.first[episode] + offset


def stratum(ends: Any, tickets: Any, xp: Any) -> tuple[Any, Any]:
    """Returns the episode and the offset within it for flat indices `tickets` `[B]` (NumPy or JAX).

    `ends`: cumulative numbers of entries per episode.
    """
    episode = xp.minimum(xp.searchsorted(ends, tickets, side="right"), len(ends) - 1)
    return episode, tickets - xp.where(episode > 0, ends[episode - 1], 0)


def _cut(source: Any, rows: Any, length: int, block: int, xp: Any) -> Window:
    """Returns the windows that start at `rows` `[B]` (NumPy or JAX); observations within a block are not read."""
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
    """Yields windows for `Trainer.fit_windows` without end, reading ahead in a background thread.

    Args:
        dataset: In memory or memory-mapped.
        seed: Seed of the windows.
        batch: Windows B per update and ensemble member.
        length: Steps L per window.
        block: Transitions per step; observations within a step are not read.
        updates: Updates U per item; more updates per item keep the device busy for longer and need more memory.
        members: Ensemble members M of the model.
        ahead: Number of items to prepare in advance.

    Yields:
        Windows with leading axes `[U, M, B]`, on the device. Closing the generator stops the thread.

    Raises:
        DatasetError: If no episode is long enough for a window.
    """
    ends = np.cumsum(starts(dataset, length * block))
    dataset = _with_actions(dataset)
    return _read_ahead(lambda random: _bundle(dataset, ends, random, (updates, members, batch), length, block), seed, ahead)


def _with_actions(dataset: Dataset) -> Dataset:
    """Returns the dataset, with actions of size 0 if it has none."""
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
    """Yields the results of repeated calls of `read` in a background thread, which stops with the generator."""
    ready: queue.Queue[Window | BaseException] = queue.Queue(max(ahead, 1))
    stopped = threading.Event()

    def work() -> None:
        random = np.random.default_rng(seed)
        while not stopped.is_set():
            try:
                item: Window | BaseException = read(random)
            except BaseException as error:
                item = error
            while not stopped.is_set():
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
        stopped.set()
        thread.join()
