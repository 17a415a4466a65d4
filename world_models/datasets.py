"""Recorded trajectories: checked on the way in, kept in files of our own or Minari's, and drawn from in windows.

A dataset holds the rows of all its episodes one after the other, each as in `world_models.data`: an observation, the action
taken from it, the reward of that action, and whether it terminated the episode; the last observation of an episode has a
zero action that nobody took.

    walk/                     a folder, for arrays that are read from the disk as they are needed
        metadata.json         what it is, where it was recorded, size and SHA-256 of every file
        observations.npy      [rows, ...]
        actions.npy           [rows, ...], absent where nobody told
        rewards.npy, terminated.npy, lengths.npy
    walk.npz                  or the same in one file, which is read whole

There are two ways to train on one. `resident` puts it on the device, where `Trainer.fit` draws from it: for what fits in
memory, such as states of which frames are rendered on the way. `batches` reads windows of it in a thread of its own, ahead
of `Trainer.fit_windows`.
"""

import json
import os
import queue
import shutil
import threading
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from world_models.base import Moments
from world_models.data import Window, blocks
from world_models.files import changed, fingerprint, flush, sealed, whole
from world_models.networks.patches import unit

FORMAT, FORMAT_VERSION = "craik trajectories", 1

_ARRAYS = ("observations", "actions", "rewards", "terminated", "lengths")
_FRAMES = 1024  # of how many observations moments are taken, at most


class DatasetError(ValueError):
    """A dataset that cannot be written or used, and why."""


@dataclass(frozen=True)
class About:
    """Where trajectories come from: what has to agree before they may teach a model of something else.

    Args:
        environment: Its id.
        observation_space: As it describes itself, for people.
        action_space: As it describes itself, for people.
        action_meaning: What the coordinates of an action are, and their units.
        notes: Whatever else JSON can hold.
    """

    environment: str
    observation_space: str = ""
    action_space: str = ""
    action_meaning: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories, in memory or on the disk; see the module for what a row is.

    Args:
        observations: `[rows, ...]`.
        actions: `[rows, ...]`, or None where nobody told.
        rewards: `[rows]`.
        terminated: `[rows]`.
        lengths: `[episodes]`, transitions of each, one less than its rows.
        about: Where they come from.

    Raises:
        DatasetError: If the arrays don't belong together.
    """

    observations: np.ndarray
    actions: np.ndarray | None
    rewards: np.ndarray
    terminated: np.ndarray
    lengths: np.ndarray
    about: About

    def __post_init__(self):
        if self.lengths.ndim != 1 or len(self.lengths) == 0 or self.lengths.min() < 1:
            raise DatasetError("a dataset needs episodes of at least one transition each")
        rows = int(np.sum(self.lengths + 1))
        for name in ("observations", "actions", "rewards", "terminated"):
            array = getattr(self, name)
            if array is not None and len(array) != rows:
                raise DatasetError(f"{name} has {len(array)} rows, and the lengths of the episodes add up to {rows}")

    @property
    def first(self) -> np.ndarray:
        """`[episodes]`, the first row of each."""
        return np.cumsum(self.lengths + 1) - (self.lengths + 1)

    @property
    def transitions(self) -> int:
        """How many there are in all episodes."""
        return int(self.lengths.sum())

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one episode of T transitions: T + 1 observations, and T of the others."""
        start, length = int(self.first[index]), int(self.lengths[index])
        steps = slice(start, start + length)
        found = {
            "observations": self.observations[start : start + length + 1],
            "rewards": self.rewards[steps],
            "terminated": self.terminated[steps],
        }
        return found if self.actions is None else found | {"actions": self.actions[steps]}

    def require(
        self,
        *,
        environment: str | None = None,
        observation: tuple[int, ...] | None = None,
        action: tuple[int, ...] | None = None,
    ) -> "Dataset":
        """Return the dataset if it is what is asked for.

        Args:
            environment: The id of the environment it must have been recorded in.
            observation: The shape that observations must have.
            action: The shape that actions must have.

        Raises:
            DatasetError: If it is not, with what it is.
        """
        if environment is not None and environment != self.about.environment:
            raise DatasetError(f"the dataset was recorded in {self.about.environment!r}, and {environment!r} was wanted")
        if observation is not None and self.observations.shape[1:] != tuple(observation):
            raise DatasetError(
                f"the dataset's observations have shape {list(self.observations.shape[1:])}, {list(observation)} was wanted"
            )
        if action is not None and self.actions is None:
            raise DatasetError(f"the dataset has no actions, and actions of shape {list(action)} were wanted")
        if action is not None and self.actions is not None and self.actions.shape[1:] != tuple(action):
            raise DatasetError(f"the dataset's actions have shape {list(self.actions.shape[1:])}, {list(action)} was wanted")
        return self


# Episodes, checked one by one


def gather(episodes: Iterable[Mapping[str, Any]], about: About, *, actions: bool = True, bad: str = "refuse") -> Dataset:
    """Make a dataset of episodes.

    Args:
        episodes: Mappings with `observations` `[T+1, ...]`, `actions` `[T, ...]`, and, if they like, `rewards` `[T]` and
            `terminated` `[T]`, zero and False where missing.
        about: Where they come from.
        actions: Whether they must tell actions; if not, actions are left out even where told.
        bad: What happens to episodes with missing keys, lengths that don't fit, shapes or dtypes other than the first good
            one's, or numbers that are not finite: `"refuse"` all, or `"skip"` them with a warning that names each.

    Raises:
        DatasetError: If there are bad episodes and they are refused, or there are no good ones.
    """
    if bad not in ("refuse", "skip"):
        raise DatasetError(f"bad must be 'refuse' or 'skip'; got {bad!r}")
    good: list[dict[str, np.ndarray]] = []
    problems = []
    for index, given in enumerate(episodes):
        episode, problem = _episode(given, good[0] if good else None, actions)
        if episode is None:
            problems.append(f"episode {index}: {problem}")
        else:
            good.append(episode)
    if problems and bad == "refuse":
        raise DatasetError(_listed("the dataset has bad episodes (bad='skip' leaves them out)", problems))
    if not good:
        raise DatasetError(_listed("the dataset has no good episodes", problems))
    if problems:
        warnings.warn(_listed(f"skipped {len(problems)} of {len(problems) + len(good)} episodes", problems), stacklevel=2)
    joined = {name: np.concatenate([episode[name] for episode in good]) for name in good[0]}
    lengths = np.array([len(episode["rewards"]) - 1 for episode in good])
    return Dataset(actions=joined.pop("actions", None), lengths=lengths, about=about, **joined)


def mixed(told: Dataset, silent: Dataset) -> Dataset:
    """Trajectories that tell actions, then others of the same environment that don't; NaN stands for an action nobody told.

    Args:
        told: With actions.
        silent: Actions that it tells are forgotten.

    Raises:
        DatasetError: If `told` has no actions, or they are not floating-point numbers, or the two were not recorded alike.
    """
    if told.actions is None or told.actions.dtype.kind != "f":
        raise DatasetError("the first dataset must tell actions, as floating-point numbers")
    silent.require(environment=told.about.environment, observation=told.observations.shape[1:])
    if silent.observations.dtype != told.observations.dtype:
        raise DatasetError(f"observations are {told.observations.dtype} in one and {silent.observations.dtype} in the other")
    unknown = np.full((len(silent.rewards), *told.actions.shape[1:]), np.nan, told.actions.dtype)
    unknown[silent.first + silent.lengths] = 0.0
    names = ("observations", "rewards", "terminated", "lengths")
    joined = {name: np.concatenate([getattr(told, name), getattr(silent, name)]) for name in names}
    return Dataset(actions=np.concatenate([told.actions, unknown]), about=told.about, **joined)


def _listed(head: str, problems: list[str], shown: int = 8) -> str:
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    return f"{head}: " + "; ".join([*problems[:shown], *more]) if problems else head


def _episode(
    given: Mapping[str, Any], like: dict[str, np.ndarray] | None, actions: bool
) -> tuple[dict[str, np.ndarray] | None, str]:
    """The rows of an episode, or None and what is wrong with it."""
    wanted = ("observations", "actions") if actions else ("observations",)
    missing = [name for name in wanted if name not in given]
    if missing:
        return None, f"lacks {' and '.join(missing)}; it has {', '.join(sorted(given)) or 'nothing'}"
    try:
        found = {name: np.asarray(given[name]) for name in wanted}
        steps = len(found["observations"]) - 1
        found["rewards"] = np.asarray(given.get("rewards", np.zeros(steps)), np.float32)
        found["terminated"] = np.asarray(given.get("terminated", np.zeros(steps)), bool)
    except (TypeError, ValueError) as error:
        return None, f"holds what is no array ({error})"
    if any(array.dtype.kind not in "fiub" for array in found.values()):
        return None, "holds what is no number, or rows of different lengths"
    if steps < 1:
        return None, f"has {steps + 1} observations, and a transition needs 2"
    for name, array in found.items():
        if name != "observations" and (array.ndim < 1 or len(array) != steps):
            return None, f"has {steps + 1} observations and {len(array) if array.ndim else 'no'} {name}, {steps} are needed"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return None, f"{name} are not finite from step {np.argwhere(~np.isfinite(array))[0, 0]} on"
        if like is not None and (array.shape[1:], array.dtype) != (like[name].shape[1:], like[name].dtype):
            return None, (
                f"{name} are {array.dtype}{list(array.shape[1:])}, those of the first episode "
                f"{like[name].dtype}{list(like[name].shape[1:])}"
            )
    rows = {name: array if name == "observations" else _last_row(array) for name, array in found.items()}
    return rows, ""


def _last_row(array: np.ndarray) -> np.ndarray:
    """Add the row of an episode's last observation, of zeros."""
    return np.concatenate([array, np.zeros_like(array[:1])])


# Files


def save(path: str | os.PathLike, dataset: Dataset) -> Path:
    """Write a dataset, whole or not at all.

    Args:
        path: A file name ending in `.npz`, or the name of a folder to be.
        dataset: What to write.

    Raises:
        DatasetError: If something is there already, or `about` holds what JSON cannot.
        OSError: If the disk is full or may not be written.
    """
    target = Path(path).absolute()
    if target.exists():
        raise DatasetError(f"{target} exists already")
    arrays = {name: getattr(dataset, name) for name in _ARRAYS if getattr(dataset, name) is not None}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "about": asdict(dataset.about),
        "arrays": {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()},
    }
    _seal(header)  # a refusal comes before anything is touched
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".npz":
        _save_file(target, header, arrays)
        return target
    shutil.rmtree(target.with_name(f".{target.name}.tmp"), ignore_errors=True)  # of a writer that was killed
    with whole(target) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        prints = {file.name: fingerprint(file) for file in folder.iterdir()}
        (folder / "metadata.json").write_text(_seal({**header, "files": prints}), encoding="utf-8")
    return target


def _save_file(target: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            contents: dict[str, Any] = {"metadata": np.frombuffer(_seal(header).encode(), np.uint8), **arrays}
            np.savez(stream, **contents)
        flush(temporary)
        temporary.rename(target)
        flush(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _seal(header: dict[str, Any]) -> str:
    try:
        return sealed(header)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"what a dataset says of itself must be what JSON can hold: {error}") from error


def load(path: str | os.PathLike, *, environment: str | None = None, verify: bool = True) -> Dataset:
    """Read a dataset; arrays of a folder stay on the disk until they are looked at.

    Args:
        path: As given to `save`.
        environment: The id of the environment it must have been recorded in; any when None.
        verify: Whether to read every byte of a folder once to see that nothing has changed; sizes are looked at in any case.

    Raises:
        DatasetError: If there is no dataset, it is damaged, was written in another format or recorded in another
            environment.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise DatasetError(f"there is no dataset at {place}: nothing exists there")
    header, arrays = _load_folder(place, verify) if place.is_dir() else _load_file(place)
    found = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
    if found != header["arrays"]:
        raise DatasetError(f"the dataset {place} is damaged: it holds {found}, and {header['arrays']} was written")
    names = {f.name for f in fields(About)}
    about = About(**{name: value for name, value in header["about"].items() if name in names})
    try:
        loaded: dict[str, Any] = {name: arrays.get(name) for name in _ARRAYS}
        dataset = Dataset(about=about, **loaded)
    except DatasetError as error:
        raise DatasetError(f"the dataset {place} is damaged: {error}") from error
    return dataset.require(environment=environment)


def _load_folder(folder: Path, verify: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        text = (folder / "metadata.json").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder} is not a dataset: its metadata.json cannot be read ({error})") from error
    header = _header(folder, text)
    reason = changed(folder, header["files"], contents=verify)
    if reason is not None:
        raise DatasetError(f"the dataset {folder} is damaged: {reason}")
    names = [Path(name).stem for name in header["files"]]
    return header, {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


def _load_file(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DatasetError(f"the dataset {file} is damaged, or not one: {error}") from error
    if "metadata" not in arrays:
        raise DatasetError(f"{file} is not a dataset of {FORMAT}: it holds {', '.join(arrays) or 'nothing'} and no metadata")
    return _header(file, arrays.pop("metadata").tobytes().decode("utf-8", "replace")), arrays


def _header(place: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"the dataset {place} is damaged: its metadata is not JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DatasetError(f"{place} is not a dataset of {FORMAT}: its metadata was written by something else")
    if header.get("format_version") != FORMAT_VERSION:
        raise DatasetError(f"{place} is in format {header.get('format_version')}, and this version reads {FORMAT_VERSION}")
    header.pop("sha256", None)
    if sealed(header) != text:
        raise DatasetError(f"the dataset {place} is damaged: its metadata is not as it was written")
    return header


# Minari


def _minari() -> Any:
    try:
        import minari  # type: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("Minari datasets need the extra 'data': pip install 'craik[data]'") from error
    return minari


def read_minari(source: Any, *, observation: str | None = None, actions: bool = True, bad: str = "refuse") -> Dataset:
    """Read a Minari dataset.

    Args:
        source: Its id, as `minari.load_dataset` takes it, or the dataset.
        observation: Which part of observations that are dictionaries to take.
        actions: As for `gather`.
        bad: As for `gather`.

    Raises:
        ImportError: If an id is given and Minari is not installed.
        DatasetError: As `gather` raises, and where observations are dictionaries and nothing was said about it.
    """
    dataset = _minari().load_dataset(source) if isinstance(source, str) else source
    spec = dataset.env_spec
    about = About(
        environment=dataset.id if spec is None else spec.id,
        observation_space=str(dataset.observation_space),
        action_space=str(dataset.action_space),
        notes={"minari": dataset.id},
    )

    def part(observations: Any) -> Any:
        if observation is None and isinstance(observations, Mapping):
            raise DatasetError(
                f"observations of {dataset.id} are dictionaries of {', '.join(observations)}: say which, observation=..."
            )
        if observation is not None and (not isinstance(observations, Mapping) or observation not in observations):
            raise DatasetError(f"observations of {dataset.id} have no part {observation!r}")
        return observations if observation is None else observations[observation]

    episodes = (
        {
            "observations": part(episode.observations),
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminated": episode.terminations,
        }
        for episode in dataset.iterate_episodes()
    )
    return gather(episodes, about, actions=actions, bad=bad)


def write_minari(dataset: Dataset, name: str, *, observation_space: Any, action_space: Any, env: Any = None) -> Any:
    """Write a dataset as a Minari dataset, without loss.

    Args:
        dataset: With actions.
        name: Id to be, `namespace/name-v0`.
        observation_space: A Gymnasium space that the observations are in.
        action_space: A Gymnasium space that the actions are in.
        env: The environment, its id or its spec, so that Minari can make it again; may be None.

    Returns:
        The Minari dataset.

    Raises:
        ImportError: If Minari is not installed.
        DatasetError: If the dataset has no actions.
    """
    if dataset.actions is None:
        raise DatasetError("Minari datasets have actions, and this one has none")
    minari = _minari()
    from minari.data_collector.episode_buffer import EpisodeBuffer  # type: ignore[reportMissingImports]

    def buffered(index: int) -> Any:
        episode = dataset.episode(index)
        steps = len(episode["rewards"])
        ended = np.arange(steps) == steps - 1
        return EpisodeBuffer(
            id=index,
            observations=episode["observations"],
            actions=episode["actions"],
            rewards=episode["rewards"].tolist(),
            terminations=episode["terminated"].tolist(),
            truncations=(ended & ~episode["terminated"]).tolist(),
        )

    return minari.create_dataset_from_buffers(
        name,
        [buffered(index) for index in range(len(dataset.lengths))],
        env=env,
        observation_space=observation_space,
        action_space=action_space,
        description=f"{dataset.about.environment}. {dataset.about.action_meaning}",
        jpeg_encoding=False,
    )


# Windows


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
