"""Receipt of what environments return: copied, so that nothing kept changes with them, and rewards as one number."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np


class Received(gymnasium.Wrapper):
    """Copies observations, infos and actions, which environments may write into, and makes rewards and flags plain values.

    Args:
        env: Any environment.
    """

    @classmethod
    def of(cls, env: gymnasium.Env) -> gymnasium.Env:
        """Return an environment that is wrapped so, once."""
        return env if isinstance(env, cls) else cls(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return copied(observation), copied(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Raises:
            ValueError: If the reward, or whether the episode ended, is not one number.
        """
        observation, reward, terminated, truncated, info = self.env.step(copied(action))
        ends = bool(number(terminated, "terminated")), bool(number(truncated, "truncated"))
        return copied(observation), number(reward, "reward"), *ends, copied(info)


class VectorOfOne(gymnasium.vector.SyncVectorEnv):
    """Makes a vector of one environment, whose observations keep the precision that they are returned in.

    A space of float32 does not keep an environment from returning float64, which vectors of several round.

    Args:
        env: That copies what it returns.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__([lambda: env], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        _, infos = super().reset(**settings)
        return batched(self._env_obs[0]), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take a step."""
        _, *outcome = super().step(actions)
        return batched(self._env_obs[0]), *outcome  # type: ignore[return-value]


def batched(observation: Any) -> Any:
    """Return an observation with a leading axis of one in every part."""
    if isinstance(observation, Mapping):
        return {name: batched(part) for name, part in observation.items()}
    return np.asarray(observation)[None]


def copied(value: Any) -> Any:
    """Return a value with copies of the arrays in it, through dictionaries, lists and tuples."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) is dict:
        return {name: copied(part) for name, part in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else value


def number(value: Any, what: str) -> float:
    """Return a number or an array that holds one, of any shape, as a float.

    Args:
        value: As an environment returned it.
        what: Its name.

    Raises:
        ValueError: If it is not one number.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        shape = f" of shape {array.shape}" if array.shape else ""
        raise ValueError(f"{what} must be one number; the environment returned {value!r}{shape}")
    return float(array.reshape(()))
