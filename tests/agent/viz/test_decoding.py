"""Latents read as observations, where the answer is known: exact decoders, linear encoders, recorded images."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from mpc.agent.viz import decoding

RANDOM = np.random.default_rng(0)
ROTATION = np.array([[0.6, -0.8], [0.8, 0.6]], np.float32)


def agent(space: spaces.Space, shape: tuple[int, ...], rows=(), **given: Any) -> SimpleNamespace:
    """An agent that encodes by turning the first two numbers of a row, with rows in its replay buffer."""

    def encode(some):
        flat = jnp.asarray(some, jnp.float32).reshape(len(some), -1)
        return flat[:, :2] @ ROTATION

    seen = np.asarray(rows)[None]
    made: dict[str, Any] = {
        "model": SimpleNamespace(decode=None),
        "image": len(shape) == 3,
        "samples": None,
        "render": None,
        "observation_space": space,
        "components": SimpleNamespace(history=SimpleNamespace(observation=shape)),
        "learner": SimpleNamespace(
            encode_observations=encode,
            encode_rows=encode,
            training=SimpleNamespace(params={"scale": 2.0}),
            origin=None,
        ),
        "buffer": SimpleNamespace(filled=np.array([seen.shape[1]]), observations=seen),
    }
    return SimpleNamespace(**(made | given))


VECTORS = spaces.Box(-1, 1, (2,))


def test_a_decoder_is_asked_and_of_a_history_the_newest_observation_counts():
    decode = SimpleNamespace(decode=lambda params, state: params["scale"] * jnp.tile(state.latent, 3))
    read = decoding.reader(agent(VECTORS, (2,), model=decode))
    np.testing.assert_allclose(read(np.arange(12.0).reshape(2, 3, 2)), 2 * np.arange(12.0).reshape(2, 3, 2))


def test_without_a_decoder_a_probe_inverts_a_linear_encoder():
    rows = RANDOM.normal(size=(50, 6)).astype(np.float32)  # histories, the newest observation first
    read = decoding.reader(agent(VECTORS, (2,), rows))
    latents = RANDOM.normal(size=(3, 4, 2))
    np.testing.assert_allclose(read(latents), latents @ ROTATION.T, atol=1e-3)
    with pytest.raises(ValueError, match="seen nothing yet"):
        decoding.reader(agent(VECTORS, (2,)))


def test_images_are_the_nearest_recorded_ones_rendered_and_drawn():
    states = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)

    def render(rows):  # every state as another shade of grey
        return (jnp.arange(len(rows))[:, None, None, None] * 100 + jnp.zeros((len(rows), 2, 2, 1))).astype(jnp.uint8)

    space = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    read = decoding.reader(agent(space, (2, 2, 1), samples=states, render=render))
    near = np.array([[0.9, 0.1], [0.1, 0.8]]) @ ROTATION
    shown = read(near)
    assert shown.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(shown[:, 0, 0, 0], np.array([100, 200]) / 255.0, atol=1e-6)
