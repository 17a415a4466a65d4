"""Temporal distance: a learnt distance between latents that approximates the number of steps between them.

Two points on opposite sides of a wall have similar images and similar latents, but a long path between them. A planner that
minimises the distance of latents stops at the wall. A network φ therefore embeds latents in a space in which

    d(z, g) = Σ_k |φ_k(z) - φ_k(g)|,        φ = (φ_1, …, φ_K)

is at most 1 for the two ends of every recorded step, and as large as possible otherwise:

    minimise   mean over pairs of one recording of  reach/4 · softplus((reach - d(z, g)) / (reach/4))
               + penalty · mean over steps taken of  max(0, d(z[t], z[t+1]) - 1)²

The penalty starts small and rises: embeddings first spread, then recorded steps are shortened to length 1. Pairs spread
until chains of steps constrain them, so d becomes the length of the shortest chain, as far as the space can represent it.
The embedding unfolds the world along its walls, and d decreases along the path to a goal.

A single Euclidean space (K = 1) cannot represent branching paths: for three arms that meet in one point, the distance
between two tips would be shorter than the path through that point. Rooms joined by a door are such arms. A sum of norms can:
room k unfolds in φ_k, in which all other rooms map to the door.

For directed paths, such as a teleport or a slope, an additional term distinguishes the directions,

    d(z, g) = Σ_k |φ_k(z) - φ_k(g)| + max_j max(0, ψ_j(z) - ψ_j(g))

which satisfies the triangle inequality. With enough ψ it represents any distance (choose ψ_j(z) = d(z, point j)).

Sources: the largest distance consistent with the steps: Wang et al. (2023), Optimal goal-reaching reinforcement learning via
quasimetric learning, arXiv:2304.01203; in a Euclidean space: Weinberger, Saul (2006), maximum variance unfolding; a latent
distance as a goal-conditioned value: Park et al. (2024), HILP, arXiv:2402.15567; a maximum plus a norm for directed
distances: Liu et al. (2023), Metric residual networks for sample efficient goal-conditioned reinforcement learning, AAAI;
trees embed exactly in sums of lines, and not in Euclidean spaces: Linial, London, Rabinovich (1995), The geometry of
graphs, Combinatorica 15.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from world_models.data import stratum
from world_models.networks import MLP, functional
from world_models.training.fit import adam_scan

PyTree = Any
Numbers = Array | np.ndarray
_FLOOR = 1e-3  # inside the square root, so that its gradient is finite at the goal


class Distance(NamedTuple):
    """A distance between latents, for planners to minimise.

    `init(key) -> params`. `measure(params, latent [D], goal [D]) -> scalar`: at least 0, 0 at the goal, differentiable.
    `fit(params, key, latents [rows, D], first [sequences], lengths [sequences]) -> (params, metrics)`: learns from latents
    of whole trajectories, one row per step of the model; None for a fixed distance. `dense`: if True, `fit` takes one row
    per step of the environment instead.
    """

    init: Callable[[Array], PyTree]
    measure: Callable[[PyTree, Array, Array], Array]
    fit: Callable[..., tuple[PyTree, dict[str, Any]]] | None = None
    dense: bool = False


def grouped_norm(gap: Float[Array, "*batch size"], parts: int = 1) -> Float[Array, "*batch"]:
    """Returns the sum of the Euclidean norms of `parts` equal parts of a vector, smoothed at 0 for finite gradients."""
    squares = jnp.sum(gap.reshape(*gap.shape[:-1], parts, -1) ** 2, axis=-1)
    return jnp.sum(jnp.sqrt(squares + _FLOOR**2) - _FLOOR, axis=-1)


def require_positive(numbers: Mapping[str, int | float]) -> None:
    """Raises a ValueError for the first named number that is not positive."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive; got {number!r}")


def latent_distance() -> Distance:
    """Returns a fixed distance: the root mean square of the difference of two latents."""

    def measure(params: PyTree, latent: Float[Array, " D"], goal: Float[Array, " D"]) -> Float[Array, ""]:
        return grouped_norm((latent - goal) / jnp.sqrt(latent.shape[-1]))

    return Distance(lambda key: {}, measure)


class Embedding(NamedTuple):
    """The embedding space and its distance."""

    size: int
    """Dimensions of the symmetric part φ."""
    parts: int
    """Number of Euclidean parts of φ."""
    directed: int
    """Dimensions of the directed part ψ."""

    def between(self, here: Float[Array, "*batch size"], there: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
        """Returns the distance between two embeddings."""
        gap = here - there
        symmetric = grouped_norm(gap[..., : self.size], self.parts)
        return symmetric + jnp.max(jax.nn.relu(gap[..., self.size :]), axis=-1) if self.directed else symmetric


def spreading_loss(
    embedding: Embedding, reach: float, steps: Array, pairs: Array, penalty: Array
) -> tuple[Array, dict[str, Array]]:
    """Returns loss and metrics: pairs are pushed apart, and recorded steps are kept at a length of at most 1.

    Args:
        embedding: Embedding space.
        reach: Distance beyond which pairs are hardly pushed further apart.
        steps, pairs: Embeddings of the two ends of recorded steps, and of two rows of one recording, `[batch, 2, size]`.
        penalty: Weight of steps longer than 1.
    """
    of_steps, of_pairs = (embedding.between(x[:, 0], x[:, 1]) for x in (steps, pairs))
    soft = reach / 4
    excess = jnp.mean(jax.nn.relu(of_steps - 1.0) ** 2)
    metrics = {"pair": of_pairs.mean(), "step": of_steps.mean(), "too_long": jnp.mean(of_steps > 1.1)}
    return soft * jnp.mean(jax.nn.softplus((reach - of_pairs) / soft)) + penalty * excess, metrics


def draw_steps_and_pairs(key: PRNGKeyArray, latents: Array, first: Array, lengths: Array, batch: int) -> tuple[Array, Array]:
    """Samples recorded steps, and pairs of rows of the same recordings; returns both, each `[batch, 2, D]`.

    `first` and `lengths` are the first row and the number of steps of each recording.
    """
    step_key, other_key = jax.random.split(key)
    sequence, offset = stratum(jnp.cumsum(lengths), jax.random.randint(step_key, (batch,), 0, lengths.sum()), jnp)
    row = first[sequence] + offset
    other = first[sequence] + (jax.random.uniform(other_key, (batch,)) * (lengths[sequence] + 1)).astype(jnp.int32)
    here = latents[row]
    return jnp.stack([here, latents[row + 1]], axis=1), jnp.stack([here, latents[other]], axis=1)


def temporal_distance(
    *,
    latent: int,
    size: int = 64,
    parts: int = 8,
    directed: int = 0,
    hidden: tuple[int, ...] = (256, 256),
    reach: float = 20.0,
    penalty: float = 600.0,
    slack: float = 3.0,
    updates: int = 6000,
    batch: int = 512,
    learning_rate: float = 3e-3,
) -> Distance:
    """Returns a distance learnt from recordings, without actions or rewards.

    Args:
        latent: Size D of a latent.
        size: Size of the embedding φ.
        parts: Number K of parts of the embedding, each of `size / parts` dimensions; 1 is a Euclidean space.
        directed: Number of ψ, for worlds with one-way paths; 0 gives a symmetric distance.
        hidden: Units of the hidden layers of φ.
        reach: Distance in steps beyond which pairs are hardly pushed further apart.
        penalty: Weight of steps longer than 1; higher values keep the unit more accurate.
        slack: Powers of ten by which the initial penalty is smaller; it rises geometrically.
        updates, batch: Gradient steps of `fit`, and steps and pairs in each.
        learning_rate: Initial learning rate of Adam; it decays to 0 along a cosine.

    Raises:
        ValueError: If a number is not positive, `directed` is negative, or `size` is not a multiple of `parts`.
    """
    numbers = {"latent": latent, "size": size, "parts": parts, "reach": reach, "penalty": penalty}
    require_positive(numbers | {"updates": updates, "batch": batch, "learning_rate": learning_rate})
    if size % parts:
        raise ValueError(f"size must be a multiple of parts; got size={size}, parts={parts}")
    if directed < 0:
        raise ValueError(f"directed must be at least 0; got {directed}")
    init, network = functional(lambda rngs: MLP((latent, *hidden, size + directed), rngs=rngs))
    embedding = Embedding(size, parts, directed)

    def measure(params: PyTree, z: Float[Array, " D"], goal: Float[Array, " D"]) -> Float[Array, ""]:
        embed = network(params)
        return embedding.between(embed(z), embed(goal))

    @jax.jit
    def run(params: PyTree, key: PRNGKeyArray, latents: Array, first: Array, lengths: Array):
        def loss(params: PyTree, draw: tuple[PRNGKeyArray, Array]) -> tuple[Array, dict[str, Array]]:
            key, penalty = draw
            steps, pairs = draw_steps_and_pairs(key, latents, first, lengths, batch)
            embedded = network(params)(jnp.concatenate([steps, pairs]))
            return spreading_loss(embedding, reach, embedded[:batch], embedded[batch:], penalty)

        # a high initial penalty would stop the embedding half unfolded
        penalties = penalty * jnp.logspace(-slack, 0.0, updates)
        return adam_scan(loss, params, (jax.random.split(key, updates), penalties), updates, learning_rate)

    def fit(params: PyTree, key: PRNGKeyArray, latents: Numbers, first: Numbers, lengths: Numbers):
        return run(params, key, jnp.asarray(latents), jnp.asarray(first, jnp.int32), jnp.asarray(lengths, jnp.int32))

    return Distance(init, measure, fit)
