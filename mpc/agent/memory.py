"""Short-term memory: what was observed in the last steps, side by side, for what a single observation does not tell.

seen = (o[t], o[t-1], …, o[t-K+1]),        before an episode's first step as if nothing had moved: o[-k] = o[0]
"""

from typing import NamedTuple

import numpy as np

from mpc.controller import Loop


class Ongoing(NamedTuple):
    """What an agent hands from one decision to the next."""

    loop: Loop
    """The plan under way."""
    seen: np.ndarray
    """`[B, K, O]`, the newest observation first, as it was at the last decision."""
    held: np.ndarray
    """`[B, ...]`, the actions decided on."""
    left: np.ndarray
    """`[B]`, how many steps more they are held for."""

    def released(self) -> "Ongoing":
        """With nothing held any longer: the next call decides."""
        return self._replace(left=np.zeros_like(self.left))


def recall(seen: np.ndarray | None, observations: np.ndarray, fresh: np.ndarray | None, steps: int) -> np.ndarray:
    """What is remembered after another observation, `[B, K, O]`.

    A remembered observation that is not finite is taken to have been the newest one: a glitch is over when it is over.

    Args:
        seen: What was remembered before; None for nothing.
        observations: `[B, O]`, the newest.
        fresh: `[B]`, where an episode begins with it; None for nowhere.
        steps: To remember, K.
    """
    newest = np.repeat(observations[:, None], steps, axis=1)
    if seen is None:
        return newest
    shifted = np.concatenate([newest[:, :1], seen[:, : steps - 1]], axis=1)
    shifted = np.where(np.isfinite(shifted).all(axis=2, keepdims=True), shifted, newest)
    return shifted if fresh is None else np.where(fresh[:, None, None], newest, shifted)


def flat(seen: np.ndarray) -> np.ndarray:
    """As a world model sees it, `[B, K * O]`: the newest observation, and the changes that led there, `o[t-k] - o[t-k-1]`.

    Every coordinate is scaled by itself: as changes, small motions are seen as well as large places.
    """
    changes = seen[:, :-1] - seen[:, 1:]
    return np.concatenate([seen[:, :1], changes], axis=1).reshape(len(seen), -1)
