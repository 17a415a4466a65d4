"""Action repeat: an action is held for several steps of the environment, which the agent sees as one.

    o[t], r[t] = Σ_{k<K} r[Kt + k]           an episode that ends among them ends the step

Plans see K times as far for the same work, and control is coarser. Environment steps are counted as the environment does.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from mpc.agent.perception.receipt import Received

TAKEN = "taken"
"""Entry of an `info` with the number of steps taken."""


class Repeated(gymnasium.Wrapper):
    """Takes every action `times` times, or until the episode ends, and sums the rewards.

    Args:
        env: Any environment.
        times: K, at least 1.

    Raises:
        ValueError: If `times` is less than 1.
    """

    def __init__(self, env: gymnasium.Env, times: int) -> None:
        if times < 1:
            raise ValueError(f"an action is taken at least once; got times={times}")
        super().__init__(Received.of(env))
        self.times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action; `info["taken"]` says for how many steps."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        total, taken = float(reward), 1
        while taken < self.times and not (terminated or truncated):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total, taken = total + float(reward), taken + 1
        return observation, total, terminated, truncated, info | {TAKEN: taken}


def taken(infos: Mapping[str, Any], environments: int) -> np.ndarray:
    """Steps that each of a vector's environments took, `[E]`; 1 where none is `Repeated`.

    Args:
        infos: As the vector's `step` returned it.
        environments: E.
    """
    steps = np.ones(environments, int)
    for told in (infos, infos.get("final_info")):
        if isinstance(told, Mapping) and TAKEN in told:
            steps = np.where(told[f"_{TAKEN}"], told[TAKEN], steps)
    return steps


def repeats(env: gymnasium.vector.VectorEnv) -> int:
    """Return how often a vector's environments repeat actions: 1 unless all are `Repeated` alike."""
    try:
        times = set(env.get_attr("times"))  # type: ignore[attr-defined]
    except (AttributeError, NotImplementedError):
        return 1
    return times.pop() if len(times) == 1 else 1
