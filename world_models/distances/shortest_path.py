"""A learnt distance between pairs of latents, trained on shortest paths through recordings.

If the walls differ between recordings, the path between two points depends on both points jointly. A distance that embeds
each point separately, such as `temporal.temporal_distance`, cannot represent this well. The distance here is

    d(z, g) = |φ(z) - φ(g)| softplus f(h(z) h(g), h(z) + h(g)),        |h| < 1

It is the embedding distance times a learnt detour factor; it is symmetric, and 0 at the goal. Its regression targets are
shortest paths through a graph of each recording. The nodes are the rows of the recording, with edge weights

    w(s, t) = 1  for t = s ± 1,        w(s, t) = |z_s - z_t| / m  where that is less than `near`,

with m the median change of a latent in one step. Where a recording crosses its own path, the graph has a shortcut, so
shortest paths in it are about as long as shortest paths in the world. d is fitted to them for all pairs of a recording.
The method requires that latents on the two sides of a wall differ by more than one step.

Sources: shortest paths through recordings: Eysenbach, Salakhutdinov, Levine (2019), Search on the replay buffer,
arXiv:1906.05253; Savinov, Dosovitskiy, Koltun (2018), Semi-parametric topological memory, arXiv:1803.00653, which search
them while acting; all-pairs shortest paths: Floyd (1962), Communications of the ACM 5.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from world_models.distances.temporal import Distance, Numbers, grouped_norm, require_positive
from world_models.networks import MLP, functional
from world_models.training.fit import adam_scan

PyTree = Any


def shortest(weights: Float[Array, "N N"]) -> Float[Array, "N N"]:
    """Returns the lengths of the shortest paths between all nodes; infinite weights are missing edges."""

    def through(k: Int[Array, ""], lengths: Float[Array, "N N"]) -> Float[Array, "N N"]:
        return jnp.minimum(lengths, lengths[:, k, None] + lengths[None, k])

    direct = jnp.where(jnp.eye(len(weights), dtype=bool), 0.0, weights)
    return jax.lax.fori_loop(0, len(weights), through, direct)


def edges(rows: Float[Array, "N D"], count: Int[Array, ""], unit: Float[Array, ""], near: float) -> Float[Array, "N N"]:
    """Returns the edge weights between the first `count` rows of a recording, in steps; further rows are padding.

    Args:
        unit: Median latent distance of one step.
        near: Latent distance in steps below which two rows are joined.
    """
    squares, index = jnp.sum(rows**2, axis=-1), jnp.arange(len(rows))
    distance = jnp.sqrt(jnp.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0)) / unit
    weights = jnp.where(distance < near, distance, jnp.inf)
    weights = jnp.where(jnp.abs(index[:, None] - index) == 1, jnp.minimum(weights, 1.0), weights)
    valid = index < count
    return jnp.where(valid[:, None] & valid[None], weights, jnp.inf)


class PairwiseDistance(nnx.Module):
    """Network that predicts the path length between two latents; φ has `size` outputs, h has `hidden` layers."""

    def __init__(self, latent: int, size: int, hidden: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.embed = MLP((latent, 4 * size, size), rngs=rngs)
        self.read = MLP((latent, *hidden), rngs=rngs)
        self.between = MLP((2 * hidden[-1], hidden[-1], 1), rngs=rngs)

    def __call__(self, z: Float[Array, "*b D"], goal: Float[Array, "*b D"]) -> Float[Array, "*b"]:
        """Returns the distance, at least 0."""
        a, b = (jnp.tanh(self.read(end)) for end in (z, goal))
        detour = nnx.softplus(self.between(jnp.concatenate([a * b, a + b], axis=-1))[..., 0])
        return grouped_norm(self.embed(z) - self.embed(goal)) * detour


class Draws(NamedTuple):
    """Settings for sampling pairs of rows from recordings."""

    near: float
    """Latent distance below which rows are joined, in median row-to-row steps."""
    longest: int
    """Largest number of steps of a recording in one graph."""
    count: int
    """Total number of pairs."""


def draw_pairs(
    draws: Draws, key: PRNGKeyArray, latents: Array, first: Array, counts: Array, unit: Array
) -> tuple[Int[Array, "pairs 2"], Float[Array, " pairs"]]:
    """Samples pairs of rows; returns them with the lengths of the shortest paths between them, in rows.

    Args:
        draws: Settings.
        key: Consumed.
        latents: `[rows, D]`.
        first, counts: First row and number of rows of each piece of a recording.
        unit: Median latent distance of one step.
    """
    each = -(-draws.count // len(first))
    span = jnp.arange(draws.longest + 1)

    def of_piece(piece: tuple[Array, Array, PRNGKeyArray]) -> tuple[Array, Array]:
        begin, count, key = piece
        rows = latents[jnp.minimum(begin + span, len(latents) - 1)]
        paths = shortest(edges(rows, count, unit, draws.near))
        both = (jax.random.uniform(key, (each, 2)) * count).astype(jnp.int32)
        return begin + both, paths[both[:, 0], both[:, 1]]

    order_key, key = jax.random.split(key)
    pairs, paths = jax.lax.map(of_piece, (first, counts, jax.random.split(key, len(first))))
    order = jax.random.permutation(order_key, len(first) * each)[: draws.count]
    return pairs.reshape(-1, 2)[order], paths.reshape(-1)[order]


def path_loss(
    network: Callable[[PyTree], PairwiseDistance], latents: Array, params: PyTree, draw: tuple[Array, Array]
) -> tuple[Array, dict[str, Array]]:
    """Returns the mean of `((d - w) / (1 + w / 5))²` over pairs of rows `[batch, 2]` at path lengths w, and metrics."""
    rows, path = draw
    error = (network(params)(latents[rows[:, 0]], latents[rows[:, 1]]) - path) / (1.0 + 0.2 * path)
    squared = jnp.mean(error**2)
    return squared, {"error": jnp.sqrt(squared), "path": path.mean()}


def shortest_path_distance(
    *,
    latent: int,
    block: int = 1,
    size: int = 32,
    hidden: tuple[int, ...] = (256, 256, 256),
    reach: float = 40.0,
    near: float = 1.0,
    longest: int = 300,
    updates: int = 6000,
    batch: int = 512,
    learning_rate: float = 2e-3,
) -> Distance:
    """Returns a distance learnt from recordings, without actions or rewards, for worlds that differ between recordings.

    It is fitted to every row of recordings (`Distance.dense`). The loss is the mean over pairs of
    `((d - w) / (1 + w / 5))²`, with w the length of the shortest path in steps of the model, clipped to `reach`.

    Args:
        latent: Size D of a latent.
        block: Rows per step of the model.
        size: Size of the embedding φ.
        hidden: Units of the hidden layers of h.
        reach: Largest path length, in steps of the model; longer paths count as this long.
        near: Latent distance below which two rows are joined, in median row-to-row steps.
        longest: Largest number of steps of a recording in one graph; longer recordings are cut into pieces.
        updates, batch, learning_rate: As for `temporal_distance`.

    Raises:
        ValueError: If a number is not positive.
    """
    numbers = {"latent": latent, "block": block, "size": size, "reach": reach, "near": near, "longest": longest}
    require_positive(numbers | {"updates": updates, "batch": batch, "learning_rate": learning_rate})
    init, network = functional(lambda rngs: PairwiseDistance(latent, size, hidden, rngs=rngs))
    draw = jax.jit(partial(draw_pairs, Draws(near, longest, updates * batch)))

    def measure(params: PyTree, z: Float[Array, " D"], goal: Float[Array, " D"]) -> Float[Array, ""]:
        return network(params)(z, goal)

    @jax.jit
    def run(params: PyTree, latents: Array, pairs: Array, paths: Array) -> tuple[PyTree, dict[str, Array]]:
        draws = (pairs.reshape(updates, batch, 2), jnp.minimum(paths.reshape(updates, batch) / block, reach))
        return adam_scan(partial(path_loss, network, latents), params, draws, updates, learning_rate)

    def fit(params: PyTree, key: PRNGKeyArray, latents: Numbers, first: Numbers, lengths: Numbers):
        latents = np.asarray(latents)
        begins, counts = pieces(np.asarray(first), np.asarray(lengths), longest)
        inside = np.concatenate([b + np.arange(k - 1) for b, k in zip(begins, counts, strict=True)])
        unit = np.median(np.linalg.norm(latents[inside + 1] - latents[inside], axis=-1))
        arrays = jnp.asarray(latents), jnp.asarray(begins), jnp.asarray(counts), jnp.asarray(unit)
        return run(params, arrays[0], *draw(key, *arrays))

    return Distance(init, measure, fit, dense=True)


def pieces(first: np.ndarray, lengths: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts sequences into the fewest, nearly equal pieces of at most `longest` steps; returns their first rows and sizes."""
    begins, counts = [], []
    for begin, steps in zip(first, lengths, strict=True):
        cuts = np.linspace(0, steps, max(-(-int(steps) // longest), 1) + 1).astype(int)
        begins += (begin + cuts[:-1]).tolist()
        counts += (np.diff(cuts) + 1).tolist()
    return np.asarray(begins, np.int32), np.asarray(counts, np.int32)
