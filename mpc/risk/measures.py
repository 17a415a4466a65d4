"""Measures of risk: functions of the N energies that one action sequence has in N imagined worlds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Measure = Callable[..., jax.Array]


class ParametricCVaR:
    """CVaR whose share is a parameter, `params["risk"]`, so that other risk asks for no other program; see
    `cvar_from_params`."""

    def __call__(self, energies: jax.Array, params: PyTree) -> jax.Array:
        """The mean of the worst share of the energies."""
        return _worst(energies, jnp.asarray(params["risk"], energies.dtype))


def mean(energies: jax.Array) -> jax.Array:
    """The expectation, indifferent to risk."""
    return jnp.mean(energies)


def worst_case(energies: jax.Array) -> jax.Array:
    """The largest energy: robust control."""
    return jnp.max(energies)


def optimistic(energies: jax.Array) -> jax.Array:
    """The lowest energy: the latent is chosen as the action is, by inference; for exploring, not for robots."""
    return jnp.min(energies)


def cvar(alpha: float) -> Measure:
    """Conditional value at risk, the mean of the worst share `alpha` of the energies.

        CVaR_α(E) = min_η  η + Σ_i max(0, E_i - η) / (α N)        (Rockafellar & Uryasev 2000)

    The minimum lies at one of the energies. 1 is the mean; at most 1/N is the worst case.

    Raises:
        ValueError: If alpha is not in `(0, 1]`.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"cvar's alpha is a share in (0, 1]; got {alpha}")

    return lambda energies: _worst(energies, alpha)


def cvar_from_params() -> ParametricCVaR:
    """`cvar` of a share that is given when solving, as `params["risk"]`: 1 is the mean, 0 the worst case."""
    return ParametricCVaR()


def _worst(energies: jax.Array, alpha: Any) -> jax.Array:
    share = jnp.maximum(alpha * energies.shape[0], 1.0)
    beyond = jnp.maximum(energies[:, None] - energies, 0.0).sum(axis=0)  # no sort: XLA would leave the planner's loop
    return jnp.min(energies + beyond / share)


def entropic(aversion: float) -> Measure:
    """The entropic risk `log(mean exp(θ E_i)) / θ`: smooth, about `mean + θ/2 variance` (Whittle 1981).

    Args:
        aversion: θ, in units of one over the cost. Higher values tend to the worst case, negative ones to the best.

    Raises:
        ValueError: If it is 0; take `mean`.
    """
    if aversion == 0:
        raise ValueError("entropic needs an aversion other than 0, where it is the mean; take mpc.risk.mean")

    def measure(energies: jax.Array) -> jax.Array:
        return (jax.nn.logsumexp(aversion * energies) - np.log(energies.shape[0])) / aversion

    return measure
