"""Gymnasium spaces on one side; vectors, images and planner spaces on the other.

Boxes of bytes or of yes and no with two axes or more are images, `[H, W, C]` to the agent; everything else is flattened:

| space | image |
|---|---|
| `[H, W]` | `[H, W, 1]` |
| `[H, W, C]` | as it is |
| `[K, H, W]`, fewer along the first axis than along the last: a stack of frames | `[H, W, K]`, the newest last |
| `[K, H, W, C]` | `[H, W, K C]` |
"""

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as gym

import mpc
from mpc.agent.perception.action_repeat import Repeated, repeats
from mpc.agent.perception.packages import ours

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
            raise ValueError(f"action space {space} is unbounded: wrap the environment in gymnasium.wrappers.RescaleAction")
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
    return isinstance(space, gym.Box) and space.dtype in (np.uint8, np.bool_) and 2 <= len(space.shape) <= 4


def is_stack(space: gym.Space) -> bool:
    """Return whether an image is a stack of frames, from the oldest to the newest."""
    shape = space.shape or ()
    return is_image(space) and (len(shape) == 4 or (len(shape) == 3 and shape[0] < shape[2]))


def observation_shape(space: gym.Space) -> tuple[int, ...]:
    """Of an observation as the agent takes it: `(O,)`, or `(H, W, C)` of an image.

    Raises:
        ValueError: If it has no fixed number of numbers, or too many for what is no image.
    """
    if not is_image(space):
        return (observation_size(space),)
    return rows(space, np.zeros(space.shape or (), space.dtype), batched=False).shape[1:]


def observation_size(space: gym.Space) -> int:
    """Return how many numbers an observation flattens to.

    Raises:
        ValueError: If it has no fixed number of them, or too many for what is no image.
    """
    unsupported = _unsupported(space)
    if unsupported is not None:
        raise ValueError(
            f"observation space {_kind(unsupported)} is not supported: wrap the environment in "
            "gymnasium.wrappers.TransformObservation so that it returns Box or Dict observations"
        )
    size = gym.flatdim(space)
    if not 1 <= size <= LARGEST:
        raise ValueError(
            f"observation space {space} flattens to {size} numbers, and vector observations have 1 to {LARGEST}: wrap the "
            "environment in gymnasium.wrappers.TransformObservation so that it returns fewer features, or an image of bytes "
            "(uint8), [H, W] or [H, W, C]"
        )
    return size


def rows(space: gym.Space, observations: Any, batched: bool) -> np.ndarray:
    """Observations as float32 vectors `[B, O]`, in the order of `gymnasium.spaces.flatten`; images as bytes `[B, H, W, C]`.

    Args:
        space: Of one observation.
        observations: One observation, or a batch of them with a leading axis in every part.
        batched: Which of the two.
    """
    if is_image(space):
        return _images(space, np.asarray(observations) if batched else np.asarray(observations)[None])
    if not batched:
        return np.asarray(gym.flatten(space, observations), np.float32).reshape(1, -1)
    if isinstance(space, gym.Dict):
        parts = [rows(part, observations[name], batched=True) for name, part in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, gym.Box | gym.MultiBinary):
        return np.asarray(observations, np.float32).reshape(len(observations), -1)
    return np.stack([np.asarray(gym.flatten(space, o), np.float32).ravel() for o in observations])


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
        ValueError: If their shape is neither that of the space nor that with one more axis.
    """
    if isinstance(space, gym.Dict):
        if not isinstance(observations, dict) or set(observations) != set(space.spaces):
            raise ValueError(f"observation must be a dict with the keys {sorted(space.spaces)}; got {_keys(observations)}")
        name, part = next(iter(space.spaces.items()))
        return is_batched(part, observations[name])
    shape = np.shape(observations)
    if shape == space.shape:
        return False
    if shape[1:] == space.shape and len(shape) == len(space.shape or ()) + 1:
        return True
    raise ValueError(f"observation must have shape {space.shape}, or with a batch axis in front; got {shape}")


def describe(space: gym.Space) -> dict[str, Any]:
    """A space as JSON, for checkpoints."""
    kind = type(space).__name__
    if isinstance(space, gym.Box):
        bounds = (b.ravel()[:1] if is_image(space) and np.all(b == b.ravel()[0]) else b for b in (space.low, space.high))
        low, high = (np.asarray(b, np.float64).ravel().astype(str).tolist() for b in bounds)
        return {"kind": kind, "shape": list(space.shape), "low": low, "high": high, "dtype": str(space.dtype)}
    if isinstance(space, gym.Discrete):
        return {"kind": kind, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.MultiDiscrete):
        return {"kind": kind, "n": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, gym.MultiBinary):
        return {"kind": kind, "n": list(space.shape)}
    if isinstance(space, gym.Dict):
        return {"kind": kind, "spaces": {name: describe(part) for name, part in space.spaces.items()}}
    raise ValueError(f"space {_kind(space)} cannot be stored")


def rebuild(description: dict[str, Any]) -> gym.Space:
    """The inverse of `describe`."""
    kind = description["kind"]
    if kind == "Box":
        shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
        given = (np.asarray(description[k], np.float64) for k in ("low", "high"))
        low, high = (np.broadcast_to(b, shape) if b.size == 1 else b.reshape(shape) for b in given)
        return gym.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
    if kind == "Discrete":
        return gym.Discrete(description["n"], start=description["start"])
    if kind == "MultiDiscrete":
        return gym.MultiDiscrete(description["n"], start=description["start"])
    if kind == "MultiBinary":
        return gym.MultiBinary(description["n"])
    return gym.Dict({name: rebuild(part) for name, part in description["spaces"].items()})


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
        return env(**settings)
    made = _ELSEWHERE.get(env.split("/")[0])
    return gymnasium.make(env, **settings) if made is None else made(env, **settings)


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
        if repeat > 1 and repeats(env) != repeat:
            raise ValueError(
                f"a vector environment cannot be made to repeat actions: wrap each of its environments in "
                f"mpc.agent.perception.action_repeat.Repeated(env, {repeat})"
            )
        return env
    if isinstance(env, gymnasium.Env):
        one = Repeated(env, repeat) if repeat > 1 else env
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        return gymnasium.vector.SyncVectorEnv([lambda: one], autoreset_mode=mode)
    raise ValueError(f"env must be a Gymnasium environment, its id, or a vector environment; got {type(env).__name__}")


def observation_dtype(space: gym.Space) -> Any:
    """Return the dtype of observations as the agent takes them: bytes of images, else float32."""
    return np.uint8 if is_image(space) else np.float32


def bounds(space: gym.Space) -> dict[str, Any]:
    """Return `low` and `high` of an observation as exported policies take it, images in [0, 1]; {} where unknown."""
    if is_image(space):
        return {"low": 0.0, "high": 1.0}
    return {"low": space.low.ravel(), "high": space.high.ravel()} if isinstance(space, gym.Box) else {}


def identify(env: gymnasium.vector.VectorEnv) -> str | None:
    """The id an environment is registered under, if it says."""
    first = getattr(env, "envs", [env])[0]
    spec = getattr(first, "spec", None)
    return None if spec is None else spec.id


def _unsupported(space: gym.Space) -> gym.Space | None:
    if isinstance(space, gym.Dict):
        return next((bad for part in space.spaces.values() if (bad := _unsupported(part)) is not None), None)
    fine = gym.Box | gym.Discrete | gym.MultiDiscrete | gym.MultiBinary
    return None if isinstance(space, fine) else space


def _kind(space: gym.Space) -> str:
    return f"{type(space).__name__} ({space})"


def _keys(observations: Any) -> str:
    return str(sorted(observations)) if isinstance(observations, dict) else type(observations).__name__
