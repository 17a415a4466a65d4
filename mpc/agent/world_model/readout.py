"""A readout of recorded rows from latents, fitted after training: decodes states that recordings store, or observations.

    y = std · MLP(x) + mean,      x the normalised latent

It changes nothing that was learnt. Costs, limits and figures read observations and positions off imagined latents by it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from world_models.data import masked_moments, scale
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
    x, y = (np.asarray(part, np.float32) for part in (latents, rows))
    scales = {"x": _scales(x), "y": _scales(y)}
    normal, target = (_padded((part - scales[name][0]) / scales[name][1]) for name, part in (("x", x), ("y", y)))
    return {"weights": _fit(key, normal, target, len(x)), "scales": jax.tree.map(jnp.asarray, scales)}


def _scales(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = masked_moments(jnp.asarray(values), jnp.ones(len(values), bool))
    return np.asarray(mean), np.asarray(scale(mean, std))


def _padded(values: np.ndarray) -> np.ndarray:
    """Rows with zeros after them, a power of two in all: readouts of nearly as many rows share a compiled program."""
    return np.pad(values, ((0, 2 ** (len(values) - 1).bit_length() - len(values)), (0, 0)))


@jax.jit
def _fit(key: jax.Array, normal: jax.Array, target: jax.Array, count: int | jax.Array) -> PyTree:
    """The weights that fit the first `count` rows."""
    init, network = _networks(normal.shape[1], target.shape[1])
    begin, draw = jax.random.split(key)

    def loss(weights: PyTree, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        picked = jax.random.randint(key, (BATCH,), 0, count)
        return jnp.square(network(weights)(normal[picked]) - target[picked]).mean(), {}

    return adam_scan(loss, init(begin), jax.random.split(draw, UPDATES), UPDATES, RATE)[0]


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
