"""Choices among alternatives, relaxed to points on simplices while a planner searches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.spaces.base import Separable, parameter, tamed, with_fields

Array = jax.Array


@dataclass(frozen=True, eq=False)
class MultiDiscrete(Separable):
    """Several choices per step, the i-th among `choices[i]` alternatives numbered from `start[i]`.

    The relaxation is a softmax per choice whose sharpness lets a corner of `[-1, 1]^n` come within about 0.1% of a
    certain choice, so a planner may settle on one without leaving its variables' range. `params["sharpness"]`, where it is
    given, multiplies it: less than 1 blurs the alternatives, for the beginning of a search (see `mpc.anneal`).

    Args:
        choices: Number of alternatives of each choice, every one >= 1.
        start: Number of the first alternative of each choice.

    Raises:
        ValueError: If there is no choice, or one has no alternative.
    """

    choices: tuple[int, ...]
    start: tuple[int, ...]

    def __init__(self, choices: Sequence[int], start: Sequence[int] | int = 0) -> None:
        choices = tuple(int(n) for n in np.ravel(np.asarray(choices)))
        if not choices or min(choices) < 1:
            raise ValueError(f"every choice needs at least one alternative; got choices={choices}")
        first = np.broadcast_to(np.asarray(start, int), (len(choices),))
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "start", tuple(int(s) for s in first))

    exact = False
    bounded = True
    sharpness: Any = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one executed action."""
        return (len(self.choices),)

    def bind(self, params: Any) -> "MultiDiscrete":
        """The space with the sharpness that the parameters ask for."""
        sharpness = parameter(params, "sharpness")
        return self if sharpness is None else with_fields(self, sharpness=sharpness)

    @property
    def size(self) -> int:
        """Number of planner variables per step: one score for every alternative."""
        return sum(self.choices)

    def _split(self, values: Array) -> list[Array]:
        return jnp.split(values, list(np.cumsum(self.choices)[:-1]), axis=-1)

    def project(self, variables: Array) -> Array:
        """Clip scores to `[-1, 1]`."""
        return jnp.clip(variables, -1.0, 1.0)

    def relax(self, variables: Array) -> Array:
        """Scores `[..., size]` to points on the simplices, `[..., size]`."""
        scores = self._split(tamed(variables, 1e6) * self.sharpness)
        return jnp.concatenate([jax.nn.softmax((3.5 + 0.5 * np.log(s.shape[-1])) * s, axis=-1) for s in scores], axis=-1)

    def decide(self, variables: Array) -> Array:
        """The best-scored alternative of every choice, `[..., choices]` integers."""
        scores = self._split(tamed(variables, 1e6))
        picks = [jnp.argmax(s, axis=-1) + first for s, first in zip(scores, self.start, strict=True)]
        return jnp.stack(picks, axis=-1)

    def embed(self, action: Array) -> Array:
        """Executed actions as one-hot vectors side by side, `[..., size]`."""
        offset = jnp.asarray(action).astype(int) - np.asarray(self.start)
        return jnp.concatenate([jax.nn.one_hot(offset[..., i], n) for i, n in enumerate(self.choices)], axis=-1)

    def encode(self, action: Array) -> Array:
        """Scores of 1 for what was chosen and -1 for the rest."""
        return 2.0 * self.embed(action) - 1.0


class Discrete(MultiDiscrete):
    """One choice per step among `n` alternatives numbered from `start`; actions are scalars.

    Args:
        n: Number of alternatives.
        start: Number of the first.
    """

    def __init__(self, n: int, start: int = 0) -> None:
        super().__init__((n,), (start,))

    @property
    def shape(self) -> tuple[int, ...]:
        """Executed actions are scalars."""
        return ()

    def decide(self, variables: Array) -> Array:
        """The best-scored alternative, an integer."""
        return super().decide(variables)[..., 0]

    def embed(self, action: Array) -> Array:
        """A one-hot vector."""
        return super().embed(jnp.asarray(action)[..., None])


class MultiBinary(MultiDiscrete):
    """`n` switches per step, each 0 or 1.

    Args:
        n: Number of switches.
    """

    def __init__(self, n: int) -> None:
        super().__init__((2,) * n)
