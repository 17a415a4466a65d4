"""Descend a loss on data that are on the device: many small gradient steps as one compiled scan."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array

PyTree = Any


def adam_scan(
    loss: Callable[[PyTree, Any], tuple[Array, PyTree]], params: PyTree, draws: PyTree, updates: int, learning_rate: float
) -> tuple[PyTree, PyTree]:
    """Take steps of Adam, with gradients clipped to norm 5 and a rate that falls to 0 along a cosine.

    Args:
        loss: `(params, draw) -> (scalar, metrics)`.
        params: To begin with.
        draws: The second argument of the loss at each step, `[updates, ...]`, such as a key.
        updates: Steps.
        learning_rate: At the beginning.

    Returns:
        Parameters, and the metrics' means over the last tenth.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(learning_rate, updates)))

    def update(carry: tuple[PyTree, PyTree], draw: Any) -> tuple[tuple[PyTree, PyTree], PyTree]:
        params, state = carry
        slopes, metrics = jax.grad(loss, has_aux=True)(params, draw)
        steps, state = optimizer.update(slopes, state, params)
        return (optax.apply_updates(params, steps), state), metrics

    (params, _), metrics = jax.lax.scan(update, (params, optimizer.init(params)), draws)
    return params, jax.tree.map(lambda m: m[-max(updates // 10, 1) :].mean(), metrics)
