"""Ways to go: a distance that sees both ends at once, taught by the shortest ways through recordings.

Where walls differ from one recording to the next, what lies between two places is told by both ends together. Whoever embeds
them one by one, as `distance.temporal_distance` does, has to solve a maze alone. So

    d(z, g) = |φ(z) - φ(g)| softplus f(h(z) h(g), h(z) + h(g)),        |h| < 1

is how far apart both ends look, times how much longer the way is; it is the same there and back, and 0 at the goal. What it
is held against can be read off recordings. Their rows are the nodes of a graph: a row is one step from the next, and as far
from any other row of the same recording that looks as near as a step leads as the two look apart,

    w(s, t) = 1  for t = s ± 1,        w(s, t) = |z_s - z_t| / m  where that is less than `near`,

in units of m, what a step changes (the median). So a recording that crosses its own way is cut short there, and shortest
ways are about as long as those in the world, whatever detours were taken; d is fitted to them, for all pairs of a recording.
What a wall parts must look farther apart than a step leads.

Sources: shortest ways through recordings: Eysenbach, Salakhutdinov, Levine (2019), Search on the replay buffer,
arXiv:1906.05253; Savinov, Dosovitskiy, Koltun (2018), Semi-parametric topological memory, arXiv:1803.00653, where they are
searched while acting; all shortest ways: Floyd (1962), Communications of the ACM 5.
"""

from typing import Any

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
    """Lengths of the shortest ways from every node to every other; infinite where there is none.

    Args:
        weights: Of edges from node to node, infinite where there is none.
    """

    def through(k: Int[Array, ""], found: Float[Array, "N N"]) -> Float[Array, "N N"]:
        return jnp.minimum(found, found[:, k, None] + found[None, k])

    nobody = jnp.where(jnp.eye(len(weights), dtype=bool), 0.0, weights)
    return jax.lax.fori_loop(0, len(weights), through, nobody)


def edges(rows: Float[Array, "N D"], known: Int[Array, ""], unit: Float[Array, ""], near: float) -> Float[Array, "N N"]:
    """The graph of a recording: weights between its first `known` rows, in steps of which one changes so much as `unit`."""
    squares, places = jnp.sum(rows**2, axis=-1), jnp.arange(len(rows))
    apart = jnp.sqrt(jnp.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0)) / unit
    weights = jnp.where(apart < near, apart, jnp.inf)
    weights = jnp.where(jnp.abs(places[:, None] - places) == 1, jnp.minimum(weights, 1.0), weights)
    there = places < known
    return jnp.where(there[:, None] & there[None], weights, jnp.inf)


class PairwiseDistance(nnx.Module):
    """How far it is from one latent to another.

    Args:
        latent: Size of a latent.
        size: Of the space that latents are embedded in, to say how far apart they look.
        hidden: Units of the hidden layers that tell what lies between.
        rngs: Source of the initial weights.
    """

    def __init__(self, latent: int, size: int, hidden: tuple[int, ...], *, rngs: nnx.Rngs):
        self.embed = MLP((latent, 4 * size, size), rngs=rngs)
        self.read = MLP((latent, *hidden), rngs=rngs)
        self.between = MLP((2 * hidden[-1], hidden[-1], 1), rngs=rngs)

    def __call__(self, z: Float[Array, "*b D"], goal: Float[Array, "*b D"]) -> Float[Array, "*b"]:
        """The distance, at least 0."""
        a, b = (jnp.tanh(self.read(end)) for end in (z, goal))
        longer = nnx.softplus(self.between(jnp.concatenate([a * b, a + b], axis=-1))[..., 0])
        return grouped_norm(self.embed(z) - self.embed(goal)) * longer


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
    """A distance learnt from recordings, without actions or rewards, in worlds that differ from recording to recording.

    It is fitted to every row of recordings (`Distance.dense`), and minimises the mean over pairs of
    `((d - w) / (1 + w / 5))²`, with w the length of the shortest way, in steps of the model, at most `reach`.

    Args:
        latent: Size D of a latent.
        block: Rows in a step of the model.
        size: Of the space that latents are embedded in.
        hidden: Units of the hidden layers that tell what lies between.
        reach: Steps of the model beyond which ways count as equally long.
        near: How near a row has to look to be joined to another, in units of what a step from row to row changes.
        longest: Steps of a recording in one graph; longer ones are cut into several.
        updates: Gradient steps of a `fit`.
        batch: Pairs in each.
        learning_rate: Of Adam, falling to 0 along a cosine.

    Raises:
        ValueError: If a number is not positive.
    """
    numbers = {"latent": latent, "block": block, "size": size, "reach": reach, "near": near, "longest": longest}
    require_positive(numbers | {"updates": updates, "batch": batch, "learning_rate": learning_rate})

    def build(rngs: nnx.Rngs) -> PairwiseDistance:
        return PairwiseDistance(latent, size, hidden, rngs=rngs)

    init, network = functional(build)

    def measure(params: PyTree, z: Float[Array, " D"], goal: Float[Array, " D"]) -> Float[Array, ""]:
        return network(params)(z, goal)

    @jax.jit
    def drawn(key: PRNGKeyArray, latents: Array, first: Array, known: Array, unit: Array) -> tuple[Array, Array]:
        """Pairs of rows, `[updates, batch, 2]`, and how far it is from one to the other."""
        count = -(-updates * batch // len(first))
        span = jnp.arange(longest + 1)

        def some(piece: tuple[Array, Array, PRNGKeyArray]) -> tuple[Array, Array]:
            begin, known, key = piece
            ways = shortest(edges(latents[jnp.minimum(begin + span, len(latents) - 1)], known, unit, near))
            both = (jax.random.uniform(key, (count, 2)) * known).astype(jnp.int32)
            return begin + both, ways[both[:, 0], both[:, 1]]

        mixing, key = jax.random.split(key)
        pairs, ways = jax.lax.map(some, (first, known, jax.random.split(key, len(first))))
        order = jax.random.permutation(mixing, len(first) * count)[: updates * batch].reshape(updates, batch)
        return pairs.reshape(-1, 2)[order], jnp.minimum(ways.reshape(-1)[order] / block, reach)

    @jax.jit
    def run(params: PyTree, latents: Array, pairs: Array, ways: Array) -> tuple[PyTree, dict[str, Array]]:
        def loss(params: PyTree, draw: tuple[Array, Array]) -> tuple[Array, dict[str, Array]]:
            rows, way = draw
            error = (network(params)(latents[rows[:, 0]], latents[rows[:, 1]]) - way) / (1.0 + 0.2 * way)
            squared = jnp.mean(error**2)
            return squared, {"error": jnp.sqrt(squared), "way": way.mean()}

        return adam_scan(loss, params, (pairs, ways), updates, learning_rate)

    def fit(
        params: PyTree,
        key: PRNGKeyArray,
        latents: Float[Numbers, "rows D"],
        first: Int[Numbers, " sequences"],
        lengths: Int[Numbers, " sequences"],
    ) -> tuple[PyTree, dict[str, Array]]:
        """Learn from latents of whole trajectories: `first` row and number of steps of each sequence."""
        latents = np.asarray(latents)
        begins, known = pieces(np.asarray(first), np.asarray(lengths), longest)
        inside = np.concatenate([b + np.arange(k - 1) for b, k in zip(begins, known, strict=True)])
        unit = np.median(np.linalg.norm(latents[inside + 1] - latents[inside], axis=-1))
        arrays = jnp.asarray(latents), jnp.asarray(begins), jnp.asarray(known), jnp.asarray(unit)
        return run(params, arrays[0], *drawn(key, *arrays))

    return Distance(init, measure, fit, dense=True)


def pieces(first: np.ndarray, lengths: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences cut into pieces of at most so many steps, as few and as equal as can be: first row, and rows, of each."""
    begins, known = [], []
    for begin, steps in zip(first, lengths, strict=True):
        edges = np.linspace(0, steps, max(-(-int(steps) // longest), 1) + 1).astype(int)
        begins += (begin + edges[:-1]).tolist()
        known += (np.diff(edges) + 1).tolist()
    return np.asarray(begins, np.int32), np.asarray(known, np.int32)
