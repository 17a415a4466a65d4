"""Knots in time: a plan of H steps described by K < H values, smooth by construction and quicker to search.

Between knots the plan is interpolated, which is linear in the knots: `variables = matrix @ knots` for a constant
`[H, K]` matrix, and hence as good for gradients as for samples.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Interpolation = Literal["zero", "linear", "cubic"]


class Knots(NamedTuple):
    """K knots over H steps; made by `knots_in_time`.

    `matrix`: `[H, K]`, from knots to steps. `inverse`: `[K, H]`, the best knots for given steps, in the least squares.
    `later`: `[K, K]`, the best knots for the same plan one step later, its last step repeated.
    """

    matrix: np.ndarray
    inverse: np.ndarray
    later: np.ndarray

    @property
    def count(self) -> int:
        """Number of knots K."""
        return self.matrix.shape[1]

    def expand(self, knots: jax.Array) -> jax.Array:
        """Knots `[K, ...]` to steps `[H, ...]`."""
        return knots if len(self.matrix) == self.count else _apply(self.matrix, knots)

    def fit(self, steps: jax.Array) -> jax.Array:
        """Steps `[H, ...]` to the knots `[K, ...]` that come nearest."""
        return steps if len(self.matrix) == self.count else _apply(self.inverse, steps)

    def shift(self, knots: jax.Array) -> jax.Array:
        """The plan one step later."""
        return _apply(self.later, knots)


def knots_in_time(horizon: int, count: int | None = None, interpolation: Interpolation = "linear") -> Knots:
    """Lay `count` knots evenly over `horizon` steps.

    Zero-order knots are held for `horizon / count` steps; the others lie from the first step to the last, joined by lines
    or by cubic Hermite pieces with central differences as slopes (as in MuJoCo MPC; Howell et al. 2022).

    Args:
        horizon: Number of steps H.
        count: Number of knots K; None for one at every step.
        interpolation: `"zero"`, `"linear"` or `"cubic"`.

    Raises:
        ValueError: If there are fewer than 1 knot (2 unless zero-order), more knots than steps, or the interpolation is
            unknown.
    """
    count = horizon if count is None else count
    fewest = {"zero": 1, "linear": 2, "cubic": 2}
    if interpolation not in fewest:
        raise ValueError(f"interpolation must be one of {sorted(fewest)}; got {interpolation!r}")
    if count != horizon and not fewest[interpolation] <= count <= horizon:
        raise ValueError(
            f"{interpolation} knots must number between {fewest[interpolation]} and the horizon {horizon}; got {count}"
        )
    matrix = np.eye(horizon) if count == horizon else _matrix(horizon, count, interpolation)
    inverse = np.linalg.pinv(matrix)
    return Knots(matrix, inverse, inverse @ matrix[np.minimum(np.arange(horizon) + 1, horizon - 1)])


def _matrix(horizon: int, count: int, interpolation: Interpolation) -> np.ndarray:
    each = np.eye(count)
    if interpolation == "zero":
        return each[np.arange(horizon) * count // horizon]
    place = np.arange(horizon) * (count - 1) / (horizon - 1)
    left = np.minimum(place.astype(int), count - 2)
    x = (place - left)[:, None]
    if interpolation == "linear":
        return (1 - x) * each[left] + x * each[left + 1]
    slopes = np.gradient(each, axis=0)
    ends = (1 + 2 * x) * (1 - x) ** 2 * each[left] + x**2 * (3 - 2 * x) * each[left + 1]
    return ends + x * (1 - x) ** 2 * slopes[left] - x**2 * (1 - x) * slopes[left + 1]


def _apply(matrix: np.ndarray, values: jax.Array) -> jax.Array:
    flat = jnp.asarray(matrix, values.dtype) @ values.reshape(len(values), -1)
    return flat.reshape(len(matrix), *values.shape[1:])
