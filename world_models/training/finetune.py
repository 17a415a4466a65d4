"""Learning to predict on, once the encoder stands still: on its latents, embedded once, long predictions cost little."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from world_models.base import WorldModel
from world_models.training.fit import adam_scan

PyTree = Any
Numbers = Array | np.ndarray


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
    latent_metric: Callable[[Array, Array], Array] | None = None,
    batch: int = 512,
    learning_rate: float = 1e-3,
) -> tuple[PyTree, dict[str, Array]]:
    """Fit a model's predictions, chained over many steps, to latents that don't change any more.

        minimise   mean over k = known … steps of  |ẑ[t+k] - z[t+k]|² / D + 0.3 matters(ẑ[t+k], z[t+k])²

    where ẑ is predicted from itself after `known` latents that were really reached. Only what `predict` depends on learns:
    nothing else has a gradient.

    Args:
        model: Whose states have a `latent`, and a memory that is zero at the beginning.
        params: Its parameters.
        key: Consumed.
        like: An observation, of which only the shape counts.
        latents: Row by row, as the encoder gives them.
        actions: The block that follows each row; anything for rows that `starts` don't lead to.
        starts: Rows that are followed by `steps` more of the same trajectory.
        steps: From the first latent of a chain to the last.
        known: Latents at the beginning of a chain that are given, at least 1: for a model that has to see some of the way
            before it knows what moves how.
        updates: Gradient steps.
        matters: `(latent, latent) -> scalar`, a distance in which predictions should be right besides; None for none.
        batch: Chains in each.
        learning_rate: Of Adam, falling to 0 along a cosine.

    Returns:
        The parameters, and `latent`, the mean squared error, of the last tenth.

    Raises:
        ValueError: If there is nowhere to start, or nothing to predict.
    """
    if not 1 <= known <= steps:
        raise ValueError(f"of {steps} steps, between 1 and {steps} latents can be known; got known={known}")
    if len(starts) == 0:
        raise ValueError(f"no trajectory has {steps} steps of the model: there is nothing to learn predictions from")
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(model.encode, params, like))
    fixed = {name: part for name, part in params.items() if name != "network"}

    def error(params: PyTree, true: Array, taken: Array) -> tuple[Array, Array]:
        """Of one chain: latents `[steps + 1, D]`, blocks `[steps, block]`."""

        def look(state: Any, step: tuple[Array, Array]):
            came, block = step
            return model.predict(params, state, block)._replace(latent=came), None

        def advance(state: Any, step: tuple[Array, Array]):
            came, block = step
            state = model.predict(params, state, block)
            besides = 0.0 if latent_metric is None else 0.3 * latent_metric(state.latent, came) ** 2
            plain = jnp.mean((state.latent - came) ** 2)
            return state, (plain + besides, plain)

        state, _ = jax.lax.scan(look, blank._replace(latent=true[0]), (true[1:known], taken[: known - 1]))
        errors = jax.lax.scan(advance, state, (true[known:], taken[known - 1 :]))[1]
        return errors[0].mean(), errors[1].mean()

    @jax.jit
    def run(network: PyTree, key: PRNGKeyArray, latents: Array, actions: Array, starts: Array):
        def loss(network: PyTree, key: PRNGKeyArray) -> tuple[Array, Array]:
            rows = starts[jax.random.randint(key, (batch,), 0, len(starts))][:, None] + jnp.arange(steps + 1)
            given = (fixed | {"network": network}, latents[rows], actions[rows[:, :-1]])
            whole, plain = jax.vmap(error, in_axes=(None, 0, 0))(*given)
            return whole.mean(), plain.mean()

        return adam_scan(loss, network, jax.random.split(key, updates), updates, learning_rate)

    arrays = (jnp.asarray(latents), jnp.asarray(actions, jnp.float32), jnp.asarray(starts, jnp.int32))
    network, plain = run(params["network"], key, *arrays)
    return params | {"network": network}, {"latent": plain}
