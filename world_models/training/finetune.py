"""Fine-tune long predictions on the latents of a frozen encoder: computed once, they make long chains cheap."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from world_models.base import LatentState, PyTree, WorldModel, initial_state
from world_models.training.fit import adam_scan

Numbers = Array | np.ndarray
Metric = Callable[[Array, Array], Array]

METRIC_WEIGHT = 0.3
"""Of the squared error in `latent_metric`, beside the mean squared error of latents of about unit variance."""


class Chains(NamedTuple):
    """The rules by which a chain of predictions is made and compared."""

    model: WorldModel
    carry: PyTree
    """At the beginning of a chain."""
    known: int
    """Latents given at the beginning."""
    metric: Metric | None


def chain_error(chains: Chains, params: PyTree, true: Array, taken: Array) -> tuple[Array, Array]:
    """The error of one chain of predictions, and its mean squared part.

    Args:
        true: Latents `[steps + 1, D]`.
        taken: Blocks of actions `[steps, block]`.
    """
    model, known = chains.model, chains.known

    def look(state: LatentState, step: tuple[Array, Array]) -> tuple[LatentState, None]:
        seen, block = step
        return model.predict(params, state, block)._replace(latent=seen), None

    def advance(state: LatentState, step: tuple[Array, Array]) -> tuple[LatentState, tuple[Array, Array]]:
        seen, block = step
        state = model.predict(params, state, block)
        plain = jnp.mean((state.latent - seen) ** 2)
        more = 0.0 if chains.metric is None else METRIC_WEIGHT * chains.metric(state.latent, seen) ** 2
        return state, (plain + more, plain)

    state, _ = jax.lax.scan(look, initial_state(true[0], chains.carry), (true[1:known], taken[: known - 1]))
    errors = jax.lax.scan(advance, state, (true[known:], taken[known - 1 :]))[1]
    return errors[0].mean(), errors[1].mean()


def finetune(
    model: WorldModel,
    params: PyTree,
    key: PRNGKeyArray,
    like: Any,
    latents: Float[Numbers, "rows D"],
    actions: Float[Numbers, "rows block"],
    starts: Int[Numbers, " starts"],
    *,
    steps: int,
    known: int = 1,
    updates: int,
    latent_metric: Metric | None = None,
    batch: int = 512,
    learning_rate: float = 1e-3,
) -> tuple[PyTree, dict[str, Array]]:
    """Fit a model's predictions, chained over many steps, to latents that no longer change.

        minimise   mean over k = known … steps of  |ẑ[t+k] - z[t+k]|² / D + 0.3 latent_metric(ẑ[t+k], z[t+k])²

    where ẑ is predicted from itself after `known` real latents. Only what `predict` depends on learns.

    Args:
        model: Whose predictor's carry is zero at the beginning.
        like: An observation, for its shape and type.
        latents: Row by row, as the encoder gives them.
        actions: The block that follows each row.
        starts: Rows that are followed by `steps` more of the same trajectory.
        steps: From the first latent of a chain to the last.
        known: Latents given at the beginning of a chain, at least 1, from which the predictor's carry is built.
        updates: Gradient steps.
        latent_metric: `(latent, latent) -> scalar`, a distance in which predictions should be right too; None for none.
        batch, learning_rate: Chains in each, and the rate of Adam, falling to 0 along a cosine.

    Returns:
        The parameters, and `latent`, the mean squared error, of the last tenth.

    Raises:
        ValueError: If there are no starts, or nothing to predict.
    """
    if not 1 <= known <= steps:
        raise ValueError(f"of {steps} steps, between 1 and {steps} latents can be known; got known={known}")
    if len(starts) == 0:
        raise ValueError(f"no trajectory has {steps} steps of the model, so there is nothing to learn predictions from")
    carry = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(model.encode, params, like).carry)
    chains = Chains(model, carry, known, latent_metric)

    @jax.jit
    def run(params: PyTree, key: PRNGKeyArray, latents: Array, actions: Array, starts: Array) -> tuple[PyTree, Array]:
        def loss(network: PyTree, key: PRNGKeyArray) -> tuple[Array, Array]:
            rows = starts[jax.random.randint(key, (batch,), 0, len(starts))][:, None] + jnp.arange(steps + 1)
            error = partial(chain_error, chains, params | {"network": network})
            whole, plain = jax.vmap(error)(latents[rows], actions[rows[:, :-1]])
            return whole.mean(), plain.mean()

        return adam_scan(loss, params["network"], jax.random.split(key, updates), updates, learning_rate)

    arrays = (jnp.asarray(latents), jnp.asarray(actions, jnp.float32), jnp.asarray(starts, jnp.int32))
    network, plain = run(params, key, *arrays)
    return params | {"network": network}, {"latent": plain}
