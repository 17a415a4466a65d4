"""A dot that moves on frames of 16x16 pixels, for tests: `position += action`, kept inside."""

import jax
import jax.numpy as jnp
import numpy as np

from world_models.data import About, Dataset, gather

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


WALL, EDGE = 7.5, 9.0
"""Of a wall across the field: where it stands, and where it ends and a door begins."""


def around(episodes: int = 300, steps: int = 48, seed: int = 0) -> Dataset:
    """Walks from one place to another, round a wall where it is between them, at 1.2 a step."""
    random = np.random.default_rng(seed)
    walks = []
    for _ in range(episodes):
        place, target = random.uniform(2, 13, (2, 2))
        rows, actions = [place], []
        for _ in range(steps):
            if np.linalg.norm(target - place) < 1.0:
                target = random.uniform(2, 13, 2)
            ahead = target - place
            if (place[0] < WALL) != (target[0] < WALL):  # first to the door, then through it
                side = np.sign(WALL - place[0])
                door = np.array([WALL - side, EDGE + 2.5] if place[1] > EDGE + 0.5 else [WALL + side, EDGE + 1.5])
                ahead = door - place
            action = 1.2 * ahead / max(np.linalg.norm(ahead), 1.2) + random.uniform(-0.3, 0.3, 2)
            after = np.clip(place + action, 1, SIZE - 2)
            if way(place, after) > np.linalg.norm(after - place):
                after[0] = place[0]
            actions.append(action)
            place = after
            rows.append(place)
        walks.append({"observations": np.array(rows, np.float32), "actions": np.array(actions, np.float32)})
    return gather(walks, ABOUT)


def way(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The distance from places `[..., 2]` to others, past the wall's end where it is between them."""
    apart = (here[..., 0] < WALL) != (there[..., 0] < WALL)
    share = (WALL - here[..., 0]) / np.where(apart, there[..., 0] - here[..., 0], 1.0)
    shut = apart & (here[..., 1] + share * (there[..., 1] - here[..., 1]) < EDGE)
    end = np.array([WALL, EDGE])
    round_it = np.linalg.norm(here - end, axis=-1) + np.linalg.norm(there - end, axis=-1)
    return np.where(shut, round_it, np.linalg.norm(there - here, axis=-1))
