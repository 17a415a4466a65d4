"""Gymnasium spaces on one side, flat observations and planner spaces on the other."""

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as gym

import mpc
from mpc.agent.doctor import ours
from mpc.agent.repeating import Repeated, repeats

LARGEST = 4096  # numbers in a vector observation; more is an image, which wants another encoder


def planner_space(space: gym.Space) -> mpc.Box | mpc.MultiDiscrete:
    """The planner's space for a Gymnasium action space.

    Raises:
        ValueError: If actions are neither continuous nor a fixed number of choices, or a continuous one is unbounded.
    """
    if isinstance(space, gym.Box):
        if not np.issubdtype(space.dtype, np.floating):  # type: ignore[arg-type]
            raise ValueError(f"action space {space} counts in whole numbers: give it as MultiDiscrete")
        box = mpc.Box(space.low, space.high)
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


def observation_size(space: gym.Space) -> int:
    """How many numbers an observation flattens to.

    Raises:
        ValueError: If it has no fixed number of them, or so many that it must be an image.
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
            "environment in gymnasium.wrappers.TransformObservation so that it returns fewer features"
        )
    return size


def flatten(space: gym.Space, observations: Any, batched: bool) -> np.ndarray:
    """Observations as float32 vectors `[B, O]`, in the order of `gymnasium.spaces.flatten`.

    Args:
        space: Of one observation.
        observations: One observation, or a batch of them with a leading axis in every part.
        batched: Which of the two.
    """
    if not batched:
        return np.asarray(gym.flatten(space, observations), np.float32).reshape(1, -1)
    if isinstance(space, gym.Dict):
        parts = [flatten(part, observations[name], batched=True) for name, part in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, gym.Box | gym.MultiBinary):
        return np.asarray(observations, np.float32).reshape(len(observations), -1)
    return np.stack([np.asarray(gym.flatten(space, o), np.float32).ravel() for o in observations])


def is_batched(space: gym.Space, observations: Any) -> bool:
    """Whether observations carry a leading batch axis.

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
        low, high = (np.asarray(b, np.float64).ravel().astype(str).tolist() for b in (space.low, space.high))
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
        low, high = (np.asarray(description[k], np.float64).reshape(description["shape"]) for k in ("low", "high"))
        dtype = np.dtype(description["dtype"])
        return gym.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
    if kind == "Discrete":
        return gym.Discrete(description["n"], start=description["start"])
    if kind == "MultiDiscrete":
        return gym.MultiDiscrete(description["n"], start=description["start"])
    if kind == "MultiBinary":
        return gym.MultiBinary(description["n"])
    return gym.Dict({name: rebuild(part) for name, part in description["spaces"].items()})


def make(env: str, **settings: Any) -> gymnasium.Env:
    """`gymnasium.make`, which knows our own tasks and those of DeepMind Control, too.

    Args:
        env: Id of an environment: `craik/...`, `dm_control/DOMAIN-TASK-v0`, or any that Gymnasium has.
        **settings: Of `gymnasium.make`.

    Raises:
        ImportError: If it is of DeepMind Control, and that is not installed or does not work, with the extra that has it.
    """
    if env.startswith("craik/"):
        ours("envs")  # importing it registers them
    if env.startswith("dm_control/"):
        return _deepmind_control(env, **settings)
    return gymnasium.make(env, **settings)


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
                f"mpc.agent.repeating.Repeated(env, {repeat})"
            )
        return env
    if isinstance(env, gymnasium.Env):
        one = Repeated(env, repeat) if repeat > 1 else env
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        return gymnasium.vector.SyncVectorEnv([lambda: one], autoreset_mode=mode)
    raise ValueError(f"env must be a Gymnasium environment, its id, or a vector environment; got {type(env).__name__}")


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
