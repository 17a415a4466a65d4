"""Mode 1 of a goal-reaching agent: from what is seen and what is wanted straight to a block of actions.

    u = tanh(π(z, g, h) + artanh h),        h = the step `polyak_step` from z to g, as the model and recent mistakes tell

An actor that has learnt nothing takes h, one gradient of the distance; what it learns is where to do otherwise.

A recording tells what each block of actions led to, and that is a lesson for every goal that it led towards, whoever took it
and whatever for. For the distance d with which the agent plans, and the length of a long step in it,

    gain(t, g) = (d(z[t], g) - d(z[t+1], g)) / min(long, d(z[t], g)),        weight(t, g) ∝ exp(gain(t, g) / temperature)

is what the block taken from z[t] gained on g, as a share of the most that one can. Lessons are drawn by weight, for goals
that were seen soon afterwards and for any others. No model is asked, so no error of its is learnt.

Sources: inference that is told its gradient: Marino, Yue, Mandt (2018), Iterative amortized inference, ICML; goals told in
hindsight: Andrychowicz et al. (2017), arXiv:1707.01495; imitating oneself: Ghosh et al. (2021), Learning to reach goals via
iterated supervised learning, ICLR; weighted by an advantage: Peng et al. (2019), arXiv:1910.00177.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.actor.distillation import ACTION_CLIP, imitation
from mpc.agent.memory.trajectory_latents import Sequences, with_actions
from mpc.spaces import Box
from world_models.networks import MLP, functional

PyTree = Any
DRAWN, KEPT, AT_ONCE = 400_000, 120_000, 2_000  # pairs of a block and a goal, those that become lessons, and a batch
TEMPERATURE = 0.1
LONG = 0.95  # quantile of the lengths of steps that is a long one


class GoalActor(NamedTuple):
    """An actor for goals.

    `init(key) -> weights`; `act(weights, seen) -> planner variables [block * A]`, where `seen` `[2 D + block * A]` is a
    latent, the goal's, and the step `polyak_step`, which an actor that has learnt nothing takes; `imitate(weights, key, seen
    [N, ...], shown [N, block * A]) -> (weights, metrics)`, see `distillation.imitation`.
    """

    init: Callable[[jax.Array], PyTree]
    act: Callable[[PyTree, jax.Array], jax.Array]
    imitate: Callable[..., tuple[PyTree, dict[str, Any]]]


def goal_actor(latent: int, blocks: Box, hidden: tuple[int, ...] = (256, 256)) -> GoalActor:
    """Make an actor from latents of a size to blocks of actions."""

    sizes = (2 * latent + blocks.size, *hidden, blocks.size)
    init, network = functional(lambda rngs: MLP(sizes, last_scale=0.0, rngs=rngs))

    def raw(weights: PyTree, seen: jax.Array) -> jax.Array:
        return network(weights)(seen) + jnp.arctanh(ACTION_CLIP * seen[..., 2 * latent :])

    def act(weights: PyTree, seen: jax.Array) -> jax.Array:
        return blocks.project(jnp.tanh(raw(weights, seen)))

    return GoalActor(jax.jit(init), act, imitation(raw, blocks))


def polyak_step(far: Callable[[jax.Array], jax.Array], size: int) -> jax.Array:
    """The step down a distance d that would end at the goal if its slope s stayed the same, `-d s / |s|²`, or the longest
    that there is, in planner variables.

    `far(variables [V]) -> scalar` is the distance that a block leads to. Source: Polyak (1987), Introduction to
    optimization, section 5.3.
    """
    left, slope = jax.value_and_grad(far)(jnp.zeros(size))
    steepness = jnp.max(jnp.abs(slope))
    unit = slope / jnp.where(steepness > 0, steepness, 1.0)  # whatever the unit of the distance
    step = -left / jnp.where(steepness > 0, steepness, 1.0) * unit / jnp.maximum(jnp.sum(unit**2), 1.0)
    return step / jnp.maximum(jnp.abs(step).max(), 1.0)


def hindsight(
    measure: Callable[[jax.Array, jax.Array], jax.Array], seen: Sequences, taken: np.ndarray, seed: int, soon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lessons from recordings.

    Args:
        measure: `(latent [D], goal [D]) -> scalar`.
        seen: Recordings as the model sees them.
        taken: The block of actions that follows each of their rows, `[rows, block * A]`, NaN where nobody told.
        seed: Of what is drawn.
        soon: Steps within which half of the goals were seen afterwards.

    Returns:
        What the actor sees, `[N, 2 D]`, and the rows of `taken` that it is shown, `[N]`.

    Raises:
        ValueError: If no actions are told.
    """
    random, latents = np.random.default_rng(seed), np.asarray(seen.latents)
    starts = with_actions(seen.starts(1), taken, 1)
    if not len(starts):
        raise ValueError("there is nothing to distil: these recordings tell no actions")
    last = np.repeat(seen.first + seen.lengths, seen.lengths + 1)  # row that a row's sequence ends with
    rows = random.choice(starts, DRAWN)
    goals = np.minimum(rows + random.integers(1, soon + 1, DRAWN), last[rows])
    goals = np.where(random.random(DRAWN) < 0.5, goals, random.integers(len(latents), size=DRAWN))

    def sides(triangle: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        before, after, goal = triangle
        return measure(before, goal), measure(after, goal), measure(before, after)

    triangles = latents[rows], latents[rows + 1], latents[goals]
    far, left, moved = map(np.asarray, jax.jit(partial(jax.lax.map, sides, batch_size=AT_ONCE))(triangles))
    gains = (far - left) / np.maximum(np.minimum(far, np.quantile(moved, LONG)), 1e-6 * far.max(initial=1e-30))
    weights = np.exp(np.clip(gains, -1.0, 1.0).astype(np.float64) / TEMPERATURE)
    chosen = random.choice(DRAWN, KEPT, p=weights / weights.sum())
    return np.concatenate([latents[rows[chosen]], latents[goals[chosen]]], axis=1), rows[chosen]
