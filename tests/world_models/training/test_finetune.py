"""Predictions refined on still latents, against a world that is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models import jepa
from world_models.networks import RecurrentPredictor, VectorEncoder
from world_models.training.finetune import finetune


def test_predictions_get_right_and_the_encoder_stays():
    model = jepa((2,), 2, latent=2, encoder=VectorEncoder, inverse_weight=0.0)
    params = model.init(jax.random.key(0))
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (400, 2)).astype(np.float32)
    latents = np.zeros((400, 2), np.float32)
    for t in range(399):
        latents[t + 1] = 0.9 * latents[t] + 0.5 * actions[t]
    starts = np.arange(396)
    given = (model, params, jax.random.key(1), jnp.zeros(2), latents, actions, starts)
    refined, metrics = finetune(*given, steps=4, updates=600, batch=64, latent_metric=lambda a, b: jnp.linalg.norm(a - b))
    assert metrics["latent"] < 0.02 * latents.var()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params["network"], refined["network"])
    assert all(jax.tree.leaves(same["encoder"])) and not all(jax.tree.leaves(same["predictor"]))


def test_what_remembers_is_shown_some_of_the_way_first():
    """A place that goes on as it came: one latent does not tell which way, two do."""
    model = jepa((1,), 1, latent=1, encoder=VectorEncoder, predictor=RecurrentPredictor, inverse_weight=0.0)
    params = model.init(jax.random.key(0))
    random = np.random.default_rng(0)
    begin, speed = random.uniform(-1, 1, (2, 200, 1))
    latents = (begin + speed * 0.3 * np.arange(6)).reshape(-1, 1)
    given = (model, params, jax.random.key(1), jnp.zeros(1), latents, np.zeros((1200, 1)), np.arange(200) * 6)
    blind, seeing = (
        finetune(*given, steps=steps, known=known, updates=400, batch=64, learning_rate=3e-3)[1]["latent"]
        for steps, known in ((2, 1), (3, 2))
    )
    assert seeing < 0.2 * blind


def test_without_a_place_to_start_it_refuses():
    model = jepa((2,), 2, latent=2, encoder=VectorEncoder, inverse_weight=0.0)
    params = model.init(jax.random.key(0))
    empty = (np.zeros((5, 2)), np.zeros((5, 2)), np.zeros(0, int))
    with pytest.raises(ValueError, match="no trajectory has 9 steps"):
        finetune(model, params, jax.random.key(1), jnp.zeros(2), *empty, steps=9, updates=1)
    some = (np.zeros((5, 2)), np.zeros((5, 2)), np.zeros(1, int))
    with pytest.raises(ValueError, match="got known=3"):
        finetune(model, params, jax.random.key(1), jnp.zeros(2), *some, steps=2, known=3, updates=1)
