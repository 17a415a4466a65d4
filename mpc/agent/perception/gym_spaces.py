"""Gymnasium spaces on one side; vectors, images and planner spaces on the other.

Boxes of bytes or of yes and no with two axes or more are images, `[H, W, C]` to the agent; everything else is flattened:

| space | image |
|---|---|
| `[H, W]` | `[H, W, 1]` |
| `[H, W, C]` | as it is |
| `[K, H, W]`, fewer along the first axis than along the last: a stack of frames | `[H, W, K]`, the newest last |
| `[K, H, W, C]` | `[H, W, K C]` |

A `Dict` is the sequence of its parts, in its own order; a `Dict` of one part is that part.
"""

import importlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as gym

import mpc
from mpc.agent.perception.action_repeat import Repeated, repeats
from mpc.agent.perception.packages import ours
from mpc.agent.perception.receipt import Received, VectorOfOne

LARGEST = 4096  # numbers in a vector observation; an image has more, which want another encoder


def planner_space(space: gym.Space) -> mpc.Box | mpc.MultiDiscrete:
    """The planner's space for a Gymnasium action space.

    Raises:
        ValueError: If actions are neither continuous nor a fixed number of choices, or a continuous one is unbounded.
    """
    if isinstance(space, gym.Box):
        if not np.issubdtype(space.dtype, np.floating):  # type: ignore[arg-type]
            raise ValueError(f"action space {space} counts in whole numbers: give it as MultiDiscrete")
        box = mpc.Box(space.low, space.high, shape=space.shape)
        if not box.bounded:
            advice = "gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Box(low, high))"
            raise ValueError(f"action space {space} is unbounded: give bounds by {advice}")
        return box
    if isinstance(space, gym.Discrete):
        return mpc.Discrete(int(space.n), int(space.start))
    if isinstance(space, gym.MultiDiscrete) and space.nvec.ndim == 1:
        return mpc.MultiDiscrete(space.nvec.tolist(), space.start.tolist())
    if isinstance(space, gym.MultiBinary) and len(space.shape) == 1:
        return mpc.MultiBinary(int(space.shape[0]))
    raise ValueError(
        f"action space {_kind(space)} is not supported: wrap the environment in gymnasium.wrappers.TransformAction so that "
        "it takes Box, Discrete, or one-dimensional MultiDiscrete or MultiBinary actions"
    )


def is_image(space: gym.Space) -> bool:
    """Return whether observations are images."""
    space = _sole(space)
    return isinstance(space, gym.Box) and space.dtype in (np.uint8, np.bool_) and 2 <= len(space.shape) <= 4


def is_stack(space: gym.Space) -> bool:
    """Return whether an image is a stack of frames, from the oldest to the newest."""
    shape = _sole(space).shape or ()
    return is_image(space) and (len(shape) == 4 or (len(shape) == 3 and shape[0] < shape[2]))


def observation_shape(space: gym.Space) -> tuple[int, ...]:
    """Of an observation as the agent takes it: `(O,)`, or `(H, W, C)` of an image.

    Raises:
        ValueError: If it has no fixed number of numbers, or too many for what is no image.
    """
    if not is_image(space):
        return (observation_size(space),)
    inner = _sole(space)
    return _images(inner, np.zeros((1, *(inner.shape or ())), inner.dtype)).shape[1:]


def observation_size(space: gym.Space) -> int:
    """Return how many numbers an observation flattens to.

    Raises:
        ValueError: If it has no fixed number of them, or too many for what is no image; with the part that is to blame.
    """
    parts, fine = leaves(space), gym.Box | gym.Discrete | gym.MultiDiscrete | gym.MultiBinary
    for name, part in parts:
        if not isinstance(part, fine):
            raise ValueError(
                f"observation space {_kind(part)}, of {name}, is not supported: wrap the environment in "
                "gymnasium.wrappers.TransformObservation so that it returns Box or Dict observations"
            )
    sizes = {name: gym.flatdim(part) for name, part in parts}
    size = sum(sizes.values())
    if not 1 <= size <= LARGEST:
        most = f", {max(sizes.values())} of them {max(sizes, key=lambda name: sizes[name])}," if len(sizes) > 1 else ""
        raise ValueError(
            f"observation space {space} flattens to {size} numbers{most} and vector observations have 1 to {LARGEST}: wrap "
            "the environment in gymnasium.wrappers.TransformObservation so that it returns fewer features, or nothing but "
            "an image of bytes (uint8), [H, W] or [H, W, C]"
        )
    return size


def leaves(space: gym.Space, name: str = "observation") -> list[tuple[str, gym.Space]]:
    """Return the parts of a space that are no `Dict`, in its order, by name: `("observation['arm']['angle']", Box)`."""
    if not isinstance(space, gym.Dict):
        return [(name, space)]
    return [leaf for key, part in space.spaces.items() for leaf in leaves(part, f"{name}[{key!r}]")]


def rows(space: gym.Space, observations: Any, batched: bool, origin: np.ndarray | None = None) -> np.ndarray:
    """Observations as float32 vectors `[B, O]`, in the order of `gymnasium.spaces.flatten`; images as bytes `[B, H, W, C]`.

    Args:
        space: Of one observation.
        observations: One observation, or a batch of them with a leading axis in every part.
        batched: Which of the two.
        origin: `[O]`, subtracted before numbers are rounded; None for zeros.

    Raises:
        ValueError: If a part has another size, or holds a choice that there is not.
    """
    return centred(flat(space, observations, batched), origin)


def flat(space: gym.Space, observations: Any, batched: bool) -> np.ndarray:
    """Return `rows` in the precision of the environment, at least float32."""
    given = [np.asarray(x) if batched else np.asarray(x)[None] for x in _values(space, observations)]
    if is_image(space):
        return _images(_sole(space), given[0])
    parts = [_numbers(name, part, values) for (name, part), values in zip(leaves(space), given, strict=True)]
    whole = np.concatenate(parts, axis=1)
    return whole.astype(np.result_type(whole, np.float32))


def centred(values: Any, origin: np.ndarray | None) -> np.ndarray:
    """Return vectors `[..., O]` relative to an origin as float32, a copy; images as they are, without one.

    Args:
        values: As `flat` returns them.
        origin: `[O]`, or None.
    """
    if origin is None:
        return np.array(values, values.dtype if values.dtype == np.uint8 else np.float32)
    apart = np.asarray(values, np.float64) - origin
    rounding = 4 * np.finfo(np.float64).eps * np.abs(origin)  # of a constant in the environment's own arithmetic
    return np.where(np.abs(apart) <= rounding, 0.0, apart).astype(np.float32)


def origin(space: gym.Space, first: np.ndarray | None = None) -> np.ndarray | None:
    """Return the origin `[O]` of observations, in double precision; None where float32 holds all that they tell.

    Time stamps and positions on a map are large numbers of which only the last digits change: in float32, they would not.
    Numbers of more precision, by their space or as they arrived, are therefore relative to the first ones seen.

    Args:
        space: Of one observation.
        first: `[O]`, the first observation, in the precision of the environment; None for zeros, before any is seen.
    """
    parts = [] if is_image(space) else [part for _, part in leaves(space)]
    sizes = {"f": 4 if first is None else first.dtype.itemsize, "i": 0, "u": 0}  # bytes of a number as it arrived
    kinds = [part.dtype if isinstance(part, gym.Box) else np.dtype(bool) for part in parts]
    wide = [kind.kind in sizes and max(kind.itemsize, sizes[kind.kind]) > 4 for kind in kinds]
    if not any(wide):
        return None
    each = np.concatenate([np.full(gym.flatdim(part), each) for part, each in zip(parts, wide, strict=True)])
    return np.where(each & np.isfinite(first), first, 0.0) if first is not None else np.zeros(len(each))


def _sole(space: gym.Space) -> gym.Space:
    """The part of a `Dict` that has only one; any other space itself."""
    while isinstance(space, gym.Dict) and len(space.spaces) == 1:
        space = next(iter(space.spaces.values()))
    return space


def _values(space: gym.Space, observations: Any, name: str = "observation") -> list[Any]:
    """The values of the `leaves` of a space."""
    if not isinstance(space, gym.Dict):
        return [observations]
    if not isinstance(observations, Mapping) or set(observations) != set(space.spaces):
        raise ValueError(f"{name} must be a dict with the keys {sorted(space.spaces)}; got {_keys(observations)}")
    parts = space.spaces.items()
    return [value for key, part in parts for value in _values(part, observations[key], f"{name}[{key!r}]")]


def _numbers(name: str, space: gym.Space, values: np.ndarray) -> np.ndarray:
    """Values `[B, ...]` of one part as numbers `[B, n]`: as they are, or choices one-hot."""
    if values.size != len(values) * int(np.prod(space.shape or ())):
        raise ValueError(f"{name} must have shape {space.shape}; got {values.shape[1:]}")
    values = values.reshape(len(values), -1)
    if not isinstance(space, gym.Discrete | gym.MultiDiscrete):
        return values
    counts, first = (space.nvec, space.start) if isinstance(space, gym.MultiDiscrete) else (space.n, space.start)
    choices, counts = values - np.ravel(first), np.ravel(counts)
    if not ((choices >= 0) & (choices < counts)).all():
        raise ValueError(f"{name} must be in {space}; got {values.tolist()}")
    return np.concatenate([choices[:, i : i + 1] == np.arange(count) for i, count in enumerate(counts)], axis=1)


def _images(space: gym.Space, observations: np.ndarray) -> np.ndarray:
    """`[B, ...]` to bytes `[B, H, W, C]`; see the module's table.

    Raises:
        ValueError: If they hold other numbers than whole ones.
    """
    if observations.dtype.kind not in "uib":
        raise ValueError(f"an observation that is an image holds whole numbers, {space.dtype}; got {observations.dtype}")
    images = 255 * observations.astype(np.uint8) if space.dtype == np.bool_ else observations.astype(np.uint8)
    if is_stack(space):
        images = np.moveaxis(images, 1, -2 if images.ndim == 5 else -1)
    return images.reshape(*images.shape[:3], -1)


def is_batched(space: gym.Space, observations: Any) -> bool:
    """Return whether observations carry a leading batch axis.

    Raises:
        ValueError: If the shape of a part is neither that of its space nor that with one more axis, the same for all parts.
    """
    sizes: dict[int | None, str] = {}
    for (name, part), value in zip(leaves(space), _values(space, observations), strict=True):
        shape, one = np.shape(value), tuple(part.shape or ())
        if shape != one and shape[1:] != one:
            raise ValueError(f"{name} must have shape {one}, or with a batch axis in front; got {shape}")
        sizes.setdefault(None if shape == one else shape[0], name)
    if len(sizes) > 1:
        found = ", ".join(f"{name} {'one' if size is None else f'a batch of {size}'}" for size, name in sizes.items())
        raise ValueError(f"the parts of an observation must be one of each, or equally many: {found}")
    return None not in sizes


def describe(space: gym.Space) -> dict[str, Any]:
    """A space as JSON, for checkpoints; `rebuild` makes the same space of it.

    Raises:
        ValueError: If agents know no such space.
    """
    kind = type(space).__name__
    if isinstance(space, gym.Box):
        found: dict[str, Any] = {"kind": kind, "shape": list(space.shape), "dtype": str(space.dtype)}
        return found | {name: _bound(getattr(space, name)) for name in ("low", "high")}
    if isinstance(space, gym.Discrete):
        return {"kind": kind, "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, gym.MultiDiscrete):
        return {"kind": kind, "n": space.nvec.tolist(), "start": space.start.tolist(), "dtype": str(space.dtype)}
    if isinstance(space, gym.MultiBinary):
        return {"kind": kind, "n": space.n if isinstance(space.n, int) else np.asarray(space.n).tolist()}
    if isinstance(space, gym.Dict):  # pairs: JSON's objects are sorted when they are written, and the order counts
        return {"kind": kind, "spaces": [[name, describe(part)] for name, part in space.spaces.items()]}
    raise ValueError(f"space {_kind(space)} cannot be stored")


def _bound(bound: np.ndarray) -> list[str]:
    """Bounds as text, which holds what JSON's numbers cannot; one for all where they are the same."""
    values = bound.ravel().tolist()
    return [str(value) for value in (values[:1] if len(set(values)) == 1 else values)]


def rebuild(description: Mapping[str, Any]) -> gym.Space:
    """The inverse of `describe`."""
    kind = description["kind"]
    if kind == "Dict":
        return gym.Dict(OrderedDict((name, rebuild(part)) for name, part in description["spaces"]))
    if kind == "MultiBinary":
        return gym.MultiBinary(description["n"])
    dtype: Any = np.dtype(description["dtype"])
    if kind == "Box":
        read: Any = {"f": float, "b": "True".__eq__}.get(dtype.kind, int)
        given = (np.array([read(x) for x in description[name]], dtype) for name in ("low", "high"))
        low, high = (np.resize(bound, description["shape"]) for bound in given)
        return gym.Box(low, high, dtype=dtype.type)
    made = {"Discrete": gym.Discrete, "MultiDiscrete": gym.MultiDiscrete}[kind]
    return made(description["n"], start=description["start"], dtype=dtype.type)


def same(one: gym.Space, other: gym.Space) -> bool:
    """Return whether two spaces are equal, with their parts in the same order."""
    return one == other and [name for name, _ in leaves(one)] == [name for name, _ in leaves(other)]


def make(env: str | Callable[..., gymnasium.Env], **settings: Any) -> gymnasium.Env:
    """`gymnasium.make`, which knows our own tasks, those of DeepMind Control, Atari games and MinAtar's, too.

    Atari games come with the usual preprocessing (Machado et al. 2018): up to 30 idle frames at the beginning, every action
    held for 4 frames, of the last two the brighter pixels, grey, 84x84, the last 4 such frames stacked.

    Args:
        env: Id of an environment: `craik/...`, `dm_control/DOMAIN-TASK-v0`, `ALE/GAME-v5`, `MinAtar/GAME-v1`, or any that
            Gymnasium has; or a function that returns an environment.
        **settings: Of `gymnasium.make`.

    Raises:
        ImportError: If what it takes is not installed or does not work, with the extra that has it.
    """
    if callable(env):
        return Received.of(env(**settings))
    made = _ELSEWHERE.get(env.split("/")[0], gymnasium.make)
    return Received(made(env, **settings))


def _our_own(env: str, **settings: Any) -> gymnasium.Env:
    ours("envs")  # importing it registers them
    return gymnasium.make(env, **settings)


def _atari(env: str, **settings: Any) -> gymnasium.Env:
    try:
        importlib.import_module("cv2")  # Gymnasium scales frames by it
        gymnasium.register_envs(importlib.import_module("ale_py"))
    except ImportError as error:
        raise ImportError(f"{env} cannot be made ({error}): pip install 'craik[atari]'") from error
    frames = gymnasium.make(env, frameskip=1, **settings)
    return gymnasium.wrappers.FrameStackObservation(gymnasium.wrappers.AtariPreprocessing(frames), 4)


def _minatar(env: str, **settings: Any) -> gymnasium.Env:
    try:
        importlib.import_module("seaborn")  # frames are coloured by it; without, MinAtar only logs a warning
        games = importlib.import_module("minatar.gym")
    except ImportError as error:
        raise ImportError(f"{env} cannot be made ({error}): pip install 'craik[minatar]'") from error
    if env not in gymnasium.registry:
        games.register_envs()
    # its environments are simpler than the checker asks for, and who plays well plays on for ever: Freeway's limit for all
    return gymnasium.make(env, **({"disable_env_checker": True, "max_episode_steps": 2_500} | settings))


def _deepmind_control(env: str, **settings: Any) -> gymnasium.Env:
    try:
        importlib.import_module("dm_control.suite")  # where that fails, shimmy says nothing and registers nothing
        importlib.import_module("shimmy")
        return gymnasium.make(env, **settings)
    except (ImportError, AttributeError) as error:  # the latter where MuJoCo is newer than dm_control knows
        raise ImportError(
            f"{env} cannot be made ({error}): pip install 'craik[dmc]', best into an environment of its own, for "
            "dm_control wants a MuJoCo older than 4"
        ) from error


_ELSEWHERE = {"craik": _our_own, "dm_control": _deepmind_control, "ALE": _atari, "MinAtar": _minatar}


def vectorise(env: str | gymnasium.Env | gymnasium.vector.VectorEnv, repeat: int = 1) -> gymnasium.vector.VectorEnv:
    """Any environment as a vector environment; one that is already stays as it is, autoreset mode and all.

    Args:
        env: An environment, its id, or a vector environment.
        repeat: How often every action is taken.

    Raises:
        ValueError: If it is none of the three, or a vector environment that does not repeat actions so often.
    """
    if isinstance(env, str):
        env = make(env)
    if isinstance(env, gymnasium.vector.VectorEnv):
        inner: Any = env.unwrapped
        if isinstance(inner, gymnasium.vector.SyncVectorEnv):
            # last observations come beside first ones: they must not be one array
            inner.envs = [Received.of(one) for one in inner.envs]
        if repeat > 1 and repeats(env) != repeat:
            raise ValueError(
                f"a vector environment cannot be made to repeat actions: wrap each of its environments in "
                f"mpc.agent.perception.action_repeat.Repeated(env, {repeat})"
            )
        return env
    if isinstance(env, gymnasium.Env):
        return VectorOfOne(Repeated(env, repeat) if repeat > 1 else Received.of(env))
    raise ValueError(f"env must be a Gymnasium environment, its id, or a vector environment; got {type(env).__name__}")


def observation_dtype(space: gym.Space) -> Any:
    """Return the dtype of observations as the agent takes them: bytes of images, else float32."""
    return np.uint8 if is_image(space) else np.float32


def bounds(space: gym.Space) -> dict[str, Any]:
    """Return `low` and `high` of an observation as exported policies take it, images in [0, 1]; {} where unknown."""
    space = _sole(space)
    if is_image(space):
        return {"low": 0.0, "high": 1.0}
    return {"low": space.low.ravel(), "high": space.high.ravel()} if isinstance(space, gym.Box) else {}


def identify(env: gymnasium.vector.VectorEnv) -> str | None:
    """The id an environment is registered under, if it says."""
    first = getattr(env, "envs", [env])[0]
    spec = getattr(first, "spec", None)
    return None if spec is None else spec.id


def _kind(space: gym.Space) -> str:
    return f"{type(space).__name__} ({space})"


def _keys(observations: Any) -> str:
    return str(sorted(observations)) if isinstance(observations, Mapping) else type(observations).__name__
