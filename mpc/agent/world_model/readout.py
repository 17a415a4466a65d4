"""A readout of recorded rows from latents, fitted after training: decodes states that recordings store, or observations.

    y = std · MLP(x) + mean,      x the normalised latent

It changes nothing that was learnt. Costs, limits and figures read observations and positions off imagined latents by it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from world_models.networks import MLP, functional
from world_models.training.fit import adam_scan

PyTree = Any
HIDDEN, UPDATES, BATCH, RATE = 128, 1500, 256, 3e-3
LARGEST = 512
"""Numbers in a row, at most, that are read out; images have more, and are shown by their nearest neighbours instead."""


def fit(key: jax.Array, latents: np.ndarray, rows: np.ndarray) -> PyTree:
    """Fit a readout, or return None for rows that are too large.

    Args:
        key: Consumed.
        latents: `[N, D]`.
        rows: `[N, S]`, what to read off them.
    """
    if rows.ndim != 2 or rows.shape[1] > LARGEST:
        return None
    x, y = jnp.asarray(latents, jnp.float32), jnp.asarray(rows, jnp.float32)
    scales = {
        "x": (x.mean(axis=0), jnp.maximum(x.std(axis=0), 1e-6)),
        "y": (y.mean(axis=0), jnp.maximum(y.std(axis=0), 1e-6)),
    }
    init, network = _networks(x.shape[1], y.shape[1])
    begin, draw = jax.random.split(key)
    normal, target = (x - scales["x"][0]) / scales["x"][1], (y - scales["y"][0]) / scales["y"][1]

    @jax.jit
    def run(weights: PyTree, draw: jax.Array, normal: jax.Array, target: jax.Array) -> PyTree:
        def loss(weights: PyTree, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
            picked = jax.random.randint(key, (BATCH,), 0, len(normal))
            return jnp.square(network(weights)(normal[picked]) - target[picked]).mean(), {}

        return adam_scan(loss, weights, jax.random.split(draw, UPDATES), UPDATES, RATE)[0]

    return {"weights": run(init(begin), draw, normal, target), "scales": scales}


def read(params: PyTree, latent: jax.Array) -> jax.Array:
    """Return what a latent `[D]` is read as, `[S]`.

    Args:
        params: As `fit` returned them.
        latent: `[D]`.
    """
    scales = params["scales"]
    _, network = _networks(scales["x"][0].shape[0], scales["y"][0].shape[0])
    return network(params["weights"])((latent - scales["x"][0]) / scales["x"][1]) * scales["y"][1] + scales["y"][0]


def example(latent: int, size: int) -> PyTree:
    """Return parameters of a readout's shapes, for checkpoints to be loaded into."""
    scale = (jnp.zeros(latent), jnp.ones(latent)), (jnp.zeros(size), jnp.ones(size))
    return {"weights": _networks(latent, size)[0](jax.random.key(0)), "scales": {"x": scale[0], "y": scale[1]}}


def _networks(latent: int, size: int) -> Any:
    def build(rngs: nnx.Rngs) -> MLP:
        return MLP((latent, HIDDEN, HIDDEN, size), rngs=rngs)

    return functional(build)
