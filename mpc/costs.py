"""Named, weighted, composable cost terms, and the few shapes most of them are made of."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Term = Callable[..., jax.Array]


class Total:
    """A sum of named terms that can still be told apart; made by `total`."""

    def __init__(self, weighted: Mapping[str, tuple[float, Term]]) -> None:
        self.weighted = dict(weighted)

    def terms(self, params: Any, state: Any, *rest: Any) -> dict[str, jax.Array]:
        """Every weighted term by its name; they add up to what calling the cost returns."""
        given = _weights(params)
        return {
            name: given.get(name, weight) * function(params, state, *rest)
            for name, (weight, function) in self.weighted.items()
        }

    def __call__(self, params: Any, state: Any, *rest: Any) -> jax.Array:
        return sum(self.terms(params, state, *rest).values(), start=jnp.zeros(()))


def total(**weighted: tuple[float, Term]) -> Total:
    """Add named cost terms: `Σ_i weight_i · term_i(params, state, action, t)`.

    A weight given here is the default; `params["cost"]["weights"][name]` overrides it at run time without recompiling.
    A total of `(params, state)` terms is a terminal cost.

    Args:
        **weighted: `name=(weight, term)`, the term a function returning a scalar.

    Raises:
        ValueError: If there is no term, or one is not a pair of a number and a function.

    Example:
        >>> cost = total(goal=(1.0, lambda p, s, a, t: s @ s), effort=(0.01, lambda p, s, a, t: a @ a))
        >>> {k: float(v) for k, v in cost.terms(None, jnp.ones(2), jnp.ones(1), 0).items()}
        {'goal': 2.0, 'effort': 0.009999999776482582}
    """
    if not weighted:
        raise ValueError("a cost needs at least one term, for example total(goal=(1.0, distance))")
    for name, pair in weighted.items():
        if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])) or callable(pair[0]):
            raise ValueError(f"cost term {name!r} must be a pair (weight, function); got {pair!r}")
    return Total(weighted)


def _weights(params: Any) -> Mapping[str, Any]:
    cost = params.get("cost") if isinstance(params, Mapping) else None
    weights = cost.get("weights") if isinstance(cost, Mapping) else None
    return weights if isinstance(weights, Mapping) else {}


def quadratic(x: jax.Array, weights: Any = 1.0) -> jax.Array:
    """`½ Σ_i w_i x_i²`."""
    return 0.5 * jnp.sum(weights * x * x)


def tolerance(x: jax.Array, low: float = 0.0, high: float = 0.0, margin: float = 1.0) -> jax.Array:
    """Cost 0 inside `[low, high]`, rising smoothly to 0.9 at `margin` outside it and to 1 far away.

    `1 - 0.1^{(d / margin)²}` for the distance d to the interval, summed over coordinates; the complement of the Gaussian
    tolerance of the DeepMind Control Suite (Tassa et al. 2018).

    Raises:
        ValueError: If the interval is reversed or the margin is not positive.
    """
    if low > high or margin <= 0:
        raise ValueError(f"tolerance needs low <= high and margin > 0; got low={low}, high={high}, margin={margin}")
    distance = jnp.maximum(jnp.maximum(low - x, x - high), 0.0) / margin
    return jnp.sum(1.0 - 0.1 ** (distance * distance))


def itemise(cost: Term, name: str) -> Callable[..., dict[str, jax.Array]]:
    """Any cost as a function returning its named terms; a plain function is one term called `name`."""
    if isinstance(cost, Total):
        return cost.terms
    return lambda *args: {name: cost(*args)}
