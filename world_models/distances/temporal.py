"""Steps to go: a distance between latents that tells how long the way is, not how different two images look.

Two places on either side of a wall look alike and are far apart. Whoever descends the distance between their latents stops
at the wall. So latents are embedded once more, by a network φ, in a space in which

    d(z, g) = Σ_k |φ_k(z) - φ_k(g)|,        φ = (φ_1, …, φ_K)

is at most 1 for the two ends of every step that was ever taken, and otherwise as large as can be:

    minimise   mean over pairs of one recording of  reach/4 · softplus((reach - d(z, g)) / (reach/4))
               + penalty · mean over steps taken of  max(0, d(z[t], z[t+1]) - 1)²

The penalty rises from next to nothing: first everything flies apart, then steps are pulled together. Pairs stay apart until
chains of steps hold them: d becomes the length of the shortest chain, in steps of the model, as
far as such a space can hold it. What was never crossed, such as a wall, is unfolded, and the way to a goal is downhill.

A single Euclidean space (K = 1) cannot hold ways that branch: the tips of three arms that meet in one place are closer to
each other than by way of it. Rooms that meet in a door are such arms. A sum can: room k unfolds in φ_k, where all others are
where its door is, and the way from room to room is the way to the door and the way from it.

Where ways lead one way only, through a teleport or down a slope, one more summand tells the directions apart,

    d(z, g) = Σ_k |φ_k(z) - φ_k(g)| + max_j max(0, ψ_j(z) - ψ_j(g))

which still obeys the triangle inequality; with enough ψ it holds any way there is (ψ_j(z) = d(z, place j) does it).

Sources: the largest distance that the steps allow: Wang et al. (2023), Optimal goal-reaching reinforcement learning via
quasimetric learning, arXiv:2304.01203; in a Euclidean space: Weinberger, Saul (2006), maximum variance unfolding; a
distance of latents as a value of goals: Park et al. (2024), HILP, arXiv:2402.15567; directions by a maximum beside a norm:
Liu et al. (2023), Metric residual networks for sample efficient goal-conditioned reinforcement learning, AAAI; that trees
embed exactly in sums of lines, and not in Euclidean spaces: Linial, London, Rabinovich (1995), The geometry of graphs,
Combinatorica 15.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from world_models.data import stratum
from world_models.networks import MLP, functional
from world_models.training.fit import adam_scan

PyTree = Any
Numbers = Array | np.ndarray
_FLOOR = 1e-3  # inside the root, so that its gradient is finite at the goal


class Distance(NamedTuple):
    """How far it is from one latent to another, as planners minimise it.

    `init(key) -> params`. `measure(params, latent [D], goal [D]) -> scalar`, at least 0, 0 at the goal, differentiable.
    `fit(params, key, latents [rows, D], first [sequences], lengths [sequences]) -> (params, metrics)`: learn it from latents
    of whole trajectories, one row per step of the model; None where there is nothing to learn. `dense`: whether `fit` wants
    one row per step of the environment instead.
    """

    init: Callable[[Array], PyTree]
    measure: Callable[[PyTree, Array, Array], Array]
    fit: Callable[..., tuple[PyTree, dict[str, Any]]] | None = None
    dense: bool = False


def grouped_norm(gap: Float[Array, "*batch size"], parts: int = 1) -> Float[Array, "*batch"]:
    """The sum of the Euclidean norms of so many equal parts of a vector, rounded off at 0 so that gradients are finite."""
    squares = jnp.sum(gap.reshape(*gap.shape[:-1], parts, -1) ** 2, axis=-1)
    return jnp.sum(jnp.sqrt(squares + _FLOOR**2) - _FLOOR, axis=-1)


def require_positive(numbers: Mapping[str, int | float]) -> None:
    """Refuse the first of the named numbers that is not positive.

    Raises:
        ValueError: With its name, and what it is.
    """
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive; got {number!r}")


def latent_distance() -> Distance:
    """The root mean square of the difference of two latents; nothing of it is learnt."""

    def measure(params: PyTree, latent: Float[Array, " D"], goal: Float[Array, " D"]) -> Float[Array, ""]:
        return grouped_norm((latent - goal) / jnp.sqrt(latent.shape[-1]))

    return Distance(lambda key: {}, measure)


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
    """A distance learnt from recordings, without actions or rewards.

    Args:
        latent: Size D of a latent.
        size: Of the space that latents are embedded in.
        parts: K, of the space, each of `size / parts` dimensions; 1 is a Euclidean space.
        directed: Number of ψ, for worlds in which there are ways that lead one way only; 0 is a distance that is the same
            there and back.
        hidden: Units of the hidden layers of φ.
        reach: Steps beyond which pairs are hardly pushed apart any more.
        penalty: Of steps longer than 1; higher values keep the unit truer.
        slack: Powers of ten by which the penalty is less at the beginning, from where it rises geometrically.
        updates: Gradient steps of a `fit`.
        batch: Steps and pairs in each.
        learning_rate: Of Adam, falling to 0 along a cosine.

    Raises:
        ValueError: If a number is not positive, `directed` is negative, or `size` cannot be divided into `parts`.
    """
    numbers = {"latent": latent, "size": size, "parts": parts, "reach": reach, "penalty": penalty}
    numbers |= {"updates": updates, "batch": batch, "learning_rate": learning_rate}
    require_positive(numbers)
    if size % parts:
        raise ValueError(f"size must be a multiple of parts; got size={size}, parts={parts}")
    if directed < 0:
        raise ValueError(f"directed must be at least 0; got {directed}")

    def build(rngs: nnx.Rngs) -> MLP:
        return MLP((latent, *hidden, size + directed), rngs=rngs)

    def between(here: Float[Array, "*batch size"], there: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
        """How far it is from one embedded place to another."""
        gap = here - there
        both_ways = grouped_norm(gap[..., :size], parts)
        return both_ways + jnp.max(jax.nn.relu(gap[..., size:]), axis=-1) if directed else both_ways

    init, network = functional(build)

    def measure(params: PyTree, z: Float[Array, " D"], goal: Float[Array, " D"]) -> Float[Array, ""]:
        embed = network(params)
        return between(embed(z), embed(goal))

    def loss(params: PyTree, steps: Array, pairs: Array, price: Array) -> tuple[Array, dict[str, Array]]:
        """`steps`, `pairs`: `[batch, 2, D]`; `price`: of steps longer than 1, now."""
        embedded = network(params)(jnp.concatenate([steps, pairs]))
        apart = between(embedded[:, 0], embedded[:, 1])
        taken, far = apart[: len(steps)], apart[len(steps) :]
        soft = reach / 4
        short = jnp.mean(jax.nn.relu(taken - 1.0) ** 2)
        metrics = {"far": far.mean(), "step": taken.mean(), "too_long": jnp.mean(taken > 1.1)}
        return soft * jnp.mean(jax.nn.softplus((reach - far) / soft)) + price * short, metrics

    @jax.jit
    def run(params: PyTree, key: PRNGKeyArray, latents: Array, first: Array, lengths: Array):
        ends = jnp.cumsum(lengths)

        def drawn(params: PyTree, draw: tuple[PRNGKeyArray, Array]) -> tuple[Array, dict[str, Array]]:
            key, price = draw
            step, place = jax.random.split(key)
            sequence, steps_in = stratum(ends, jax.random.randint(step, (batch,), 0, ends[-1]), jnp)
            row = first[sequence] + steps_in
            other = first[sequence] + (jax.random.uniform(place, (batch,)) * (lengths[sequence] + 1)).astype(jnp.int32)
            here = latents[row]
            steps, pairs = jnp.stack([here, latents[row + 1]], axis=1), jnp.stack([here, latents[other]], axis=1)
            return loss(params, steps, pairs, price)

        # cheap at first: what is held tight from the start gets stuck half unfolded
        prices = penalty * jnp.logspace(-slack, 0.0, updates)
        return adam_scan(drawn, params, (jax.random.split(key, updates), prices), updates, learning_rate)

    def fit(
        params: PyTree,
        key: PRNGKeyArray,
        latents: Float[Numbers, "rows D"],
        first: Int[Numbers, " sequences"],
        lengths: Int[Numbers, " sequences"],
    ) -> tuple[PyTree, dict[str, Array]]:
        """Learn from latents of whole trajectories: `first` row and number of steps of each sequence."""
        arrays = (jnp.asarray(latents), jnp.asarray(first, jnp.int32), jnp.asarray(lengths, jnp.int32))
        return run(params, key, *arrays)

    return Distance(init, measure, fit)
