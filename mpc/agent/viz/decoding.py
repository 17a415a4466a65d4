"""Latents to observations, for figures and films: nothing is planned or learnt with what is read here.

| observations | how latents are read |
|---|---|
| vectors | by the model's decoder where it has one, else by a linear probe fitted to experience |
| images | as the nearest recorded image where there are recordings, else by a linear probe of drawings |
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.viz import images
from mpc.agent.viz.probe import probe
from world_models.base import initial_state

Reader = Callable[[Any], np.ndarray]
"""`latents [..., D] -> observations [..., O]`, or drawings `[..., H, W, 3]` of images, from 0 to 1."""
PROBED_IMAGES, PROBED_VECTORS = 512, 5_000
"""Rows of experience, at most, that a probe is fitted to."""


def reader(agent: Any) -> Reader:
    """Return what reads an agent's latents as observations.

    Raises:
        ValueError: If nothing was experienced or recorded yet that latents could be compared with.
    """
    if agent.image and agent.model.decode is None and agent.samples is not None:
        return _nearest(agent)
    read, origin = (_decoder if agent.model.decode is not None else _probe)(agent), agent.learner.origin
    return read if origin is None else lambda latents: read(latents) + origin


def observed(agent: Any, observations: np.ndarray) -> np.ndarray:
    """Return observations as a reader shows them: vectors as they are, images as drawings `[..., H, W, 3]`."""
    return images.drawn(observations, agent.observation_space) if agent.image else observations


def _decoder(agent: Any) -> Reader:
    params, size = agent.learner.training.params, agent.components.history.observation
    decode = jax.jit(jax.vmap(lambda z: agent.model.decode(params, initial_state(z))))

    def read(latents: Any) -> np.ndarray:
        latents = np.asarray(latents, np.float32)
        found = np.asarray(decode(latents.reshape(-1, latents.shape[-1])))
        if agent.image:
            shown = images.drawn(found.reshape(-1, *size), agent.observation_space)
            return shown.reshape(*latents.shape[:-1], *shown.shape[1:])
        return found[..., : size[0]].reshape(*latents.shape[:-1], *size)  # of a history, the newest observation

    return read


def _nearest(agent: Any) -> Reader:
    rows = agent.samples
    known, shown = np.asarray(agent.learner.encode_rows(rows)), _rendered(agent, rows)

    def read(latents: Any) -> np.ndarray:
        latents = np.asarray(latents)
        apart = latents.reshape(-1, 1, latents.shape[-1]) - known
        picked = np.square(apart).sum(axis=-1).argmin(axis=1)
        return shown[picked].reshape(*latents.shape[:-1], *shown.shape[1:])

    return read


def _probe(agent: Any) -> Reader:
    filled = int(agent.buffer.filled[0])
    if not filled and agent.samples is None:
        raise ValueError("this agent has seen nothing yet, so that what it imagines cannot be shown as observations")
    if filled:
        count = min(filled, PROBED_IMAGES if agent.image else PROBED_VECTORS)
        seen = agent.buffer.observations[0, np.linspace(0, filled - 1, count).astype(int)]
        latents, shown = agent.learner.encode_observations(seen), observed(agent, np.asarray(seen))
    else:
        latents, shown = agent.learner.encode_rows(agent.samples), _rendered(agent, agent.samples)
    size = shown.shape[1:] if agent.image else agent.components.history.observation
    flat = shown.reshape(len(shown), -1)[:, : int(np.prod(size))]  # of a history, the newest observation
    linear = probe(np.asarray(latents), flat)
    return lambda latents: linear(latents).reshape(*np.shape(latents)[:-1], *size)


def _rendered(agent: Any, rows: np.ndarray) -> np.ndarray:
    """Recorded rows as a reader shows them."""
    return observed(agent, np.asarray(rows if agent.render is None else agent.render(jnp.asarray(rows))))
