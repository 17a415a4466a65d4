"""A dot that moves on frames of 16x16 pixels, for tests: `position += action`, kept inside."""

import jax
import jax.numpy as jnp
import numpy as np

from world_models.datasets import About, Dataset, gather

SIZE, STEP = 16, 1.5
ABOUT = About("dot", action_meaning="pixels down and right")


def render(positions: jax.Array) -> jax.Array:
    """Positions `[..., 2]` as frames `[..., 16, 16, 1]` of bytes."""
    places = jnp.stack(jnp.meshgrid(jnp.arange(SIZE), jnp.arange(SIZE), indexing="ij"), axis=-1)
    distance = jnp.sum((places - positions[..., None, None, :]) ** 2, axis=-1)
    return (255 * jnp.exp(-distance / (2 * 1.3**2))).astype(jnp.uint8)[..., None]


def trajectories(episodes: int, steps: int = 24, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random walks, as positions."""
    random = np.random.default_rng(seed)
    walks = []
    for _ in range(episodes):
        actions = random.uniform(-STEP, STEP, (steps, 2)).astype(np.float32)
        positions = [random.uniform(2, 13, 2)]
        for action in actions:
            positions.append(np.clip(positions[-1] + action, 1, SIZE - 2))
        walks.append({"observations": np.array(positions, np.float32), "actions": actions})
    return walks


def dataset(episodes: int = 150, seed: int = 0) -> Dataset:
    """Random walks as a dataset of positions."""
    return gather(trajectories(episodes, seed=seed), ABOUT)
