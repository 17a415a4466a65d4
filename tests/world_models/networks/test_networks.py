"""Tests of networks: encoders compared with explicit convolutions, predictors step by step with parallel steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from world_models.networks import (
    CausalPredictor,
    MLPPredictor,
    PatchDecoder,
    PatchEncoder,
    RecurrentPredictor,
    VectorEncoder,
    VelocityPredictor,
    ViTEncoder,
    functional,
    patches,
)

PREDICTORS = [
    partial(MLPPredictor, hidden=(16,)),
    partial(VelocityPredictor, hidden=(16,)),
    partial(RecurrentPredictor, units=12, hidden=(16,)),
    partial(CausalPredictor, window=3, width=16, depth=2, heads=2),
]
ENCODERS = [partial(PatchEncoder, levels=((4, 8), (2, 16)), dense=(16,)), partial(ViTEncoder, width=16, depth=1, heads=2)]


def frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def convolution(frame: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Returns a convolution whose stride is its width, by loops over positions and pixels."""
    side, _, _, out = kernel.shape
    rows, columns = frame.shape[0] // side, frame.shape[1] // side
    result = np.zeros((rows, columns, out))
    for r in range(rows):
        for c in range(columns):
            for i in range(side):
                for j in range(side):
                    result[r, c] += frame[r * side + i, c * side + j] @ kernel[i, j]
    return result + bias


def test_a_patch_encoder_is_a_convolution_with_a_stride_of_its_width():
    encoder = PatchEncoder((16, 24, 2), 5, levels=((4, 3), (2, 6)), dense=(7,), rngs=nnx.Rngs(0))
    batch = frames(2, 16, 24, 2)
    x = batch[1] / 255.0
    for (side, width), layer in zip(((4, 3), (2, 6)), encoder.layers, strict=True):
        layer.biases[0][...] = jnp.arange(width) / 7.0  # zero biases would hide errors
        kernel = np.asarray(layer.kernels[0][...]).reshape(side, side, -1, width)
        x = silu(convolution(x, kernel, np.asarray(layer.biases[0][...])))
    wanted = jax.jit(encoder.head)(jnp.asarray(x.reshape(-1), jnp.float32))
    np.testing.assert_allclose(jax.jit(encoder)(jnp.asarray(batch))[1], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bytes_and_floats_encode_equally_with_any_batch_axes(encoder):
    encode = jax.jit(encoder((16, 16, 2), 6, rngs=nnx.Rngs(0)))
    batch = frames(3, 2, 16, 16, 2)
    latents = encode(jnp.asarray(batch))
    assert latents.shape == (3, 2, 6)
    np.testing.assert_allclose(encode(jnp.asarray(batch[2, 1] / 255.0, jnp.float32)), latents[2, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_distinguish_positions(encoder):
    encode = jax.jit(encoder((16, 16, 1), 6, rngs=nnx.Rngs(0)))
    here, there = (jnp.zeros((16, 16, 1)).at[r : r + 3, c : c + 3].set(1.0) for r, c in ((1, 1), (9, 9)))
    assert jnp.abs(encode(here) - encode(there)).max() > 1e-3


@pytest.mark.parametrize("encoder", [PatchEncoder, ViTEncoder])
def test_frames_of_a_wrong_size_raise_with_both_alternatives(encoder):
    with pytest.raises(ValueError, match="65x65.*96x96.*64x64" if encoder is PatchEncoder else "65x65.*72x72.*64x64"):
        encoder((65, 65, 2), 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\[64, 64, 1\].*\[32, 64, 1\]"):
        encoder((64, 64, 1), 8, rngs=nnx.Rngs(0))(jnp.zeros((32, 64, 1)))
    with pytest.raises(ValueError, match="smaller than a patch"):
        encoder((3, 64, 1), 8, fit="crop", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="height, width, channels"):
        encoder((64,), 8, rngs=nnx.Rngs(0))


def test_padding_and_cropping_keep_the_middle():
    frame = jnp.arange(1.0, 26.0).reshape(5, 5, 1)
    padded = patches.resize(frame, *patches.padded_size((5, 5, 1), 8, "pad"))
    assert padded.shape == (8, 8, 1)
    np.testing.assert_array_equal(padded[1:6, 1:6], frame)
    assert padded.sum() == frame.sum()
    cropped = patches.resize(frame, *patches.padded_size((5, 5, 1), 4, "crop"))
    np.testing.assert_array_equal(cropped, frame[:4, :4])
    np.testing.assert_array_equal(patches.resize(padded, 5, 5), frame)


def test_consecutive_patches_are_a_patch_of_patches():
    frame = jnp.asarray(frames(12, 24, 3), jnp.float32)
    tiles = patches.cut(frame, (2, 3))
    assert tiles.shape == (72, 12)
    np.testing.assert_array_equal(
        tiles[9:18].reshape(3, 3, 2, 2, 3)[1, 2], frame[2:4, 10:12]
    )  # row 1, column 2 of the second
    np.testing.assert_array_equal(patches.join(tiles, (2, 3), 12, 24), frame)


def test_joining_undoes_cutting_with_batch_axes():
    x = jnp.asarray(frames(2, 5, 24, 16, 3), jnp.float32)
    np.testing.assert_array_equal(patches.join(patches.cut(x, (4, 2)), (4, 2), 24, 16), x)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_decoder_returns_frames_of_the_requested_size(fit):
    decode = PatchDecoder((17, 17, 2), 6, levels=((4, 8), (2, 16)), dense=(16,), fit=fit, rngs=nnx.Rngs(0))
    assert decode(jnp.zeros((3, 6))).shape == (3, 17, 17, 2)


def test_a_vector_encoder_takes_vectors():
    assert VectorEncoder((4,), 6, hidden=(8,), rngs=nnx.Rngs(0))(jnp.ones((3, 4))).shape == (3, 6)
    with pytest.raises(ValueError, match="needs vectors"):
        VectorEncoder((4, 4, 1), 6, rngs=nnx.Rngs(0))


def trajectories(steps: int = 7) -> tuple[jax.Array, jax.Array]:
    latents, actions = jax.random.split(jax.random.key(0))
    return jax.random.normal(latents, (2, steps, 5)), jax.random.normal(actions, (2, steps, 3))


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_follow_equals_repeated_steps(predictor):
    net = predictor(5, 3, rngs=nnx.Rngs(0))
    if isinstance(net, CausalPredictor):
        net.ages[...] = jax.random.normal(jax.random.key(1), net.ages.shape)
    latents, actions = trajectories()
    memories, following = jax.jit(net.follow)(latents, actions)
    memory, step = net.begin(latents[:, 0]), jax.jit(net.step)
    for t in range(latents.shape[1]):
        memory, after = step(memory, latents[:, t], actions[:, t])
        np.testing.assert_allclose(following[:, t], after, rtol=1e-4, atol=1e-5)
        jax.tree.map(
            lambda all_, one, t=t: np.testing.assert_allclose(all_[:, t], one, rtol=1e-4, atol=1e-5), memories, memory
        )


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictions_do_not_depend_on_later_steps(predictor):
    net = predictor(5, 3, rngs=nnx.Rngs(0))
    latents, actions = trajectories()

    def reach(latents, actions):
        return jnp.abs(net.follow(latents, actions)[1]).sum(axis=(0, 2))

    slopes = jax.jit(jax.jacobian(reach, argnums=(0, 1)))(latents, actions)
    by_latent, by_action = (jnp.abs(x).sum(axis=(1, 3)) for x in slopes)
    assert jnp.triu(by_latent, 1).max() == 0 and jnp.triu(by_action, 1).max() == 0
    assert jnp.diag(by_action).min() > 0
    if not isinstance(net, MLPPredictor):  # earlier steps affect later predictions
        assert jnp.diag(by_action, -2).min() > 0


def test_a_token_attends_to_its_window_in_every_block():
    net = CausalPredictor(5, 3, window=3, width=16, depth=2, heads=2, rngs=nnx.Rngs(0))
    latents, actions = trajectories()
    slope = jax.jit(jax.jacobian(lambda a: net.follow(latents, a)[1].sum(axis=(0, 2))))(actions)
    reached = jnp.abs(slope).sum(axis=(1, 3))[6]
    assert reached[:2].max() == 0 and reached[2:].min() > 0  # two blocks of W = 3: 2 (W - 1) steps back


@pytest.mark.parametrize("wrong", [{"window": 0}, {"width": 15}])
def test_invalid_transformer_sizes_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CausalPredictor(5, 3, rngs=nnx.Rngs(0), **wrong)


def test_functional_network_equals_the_module():
    def build(rngs: nnx.Rngs) -> MLPPredictor:
        return MLPPredictor(4, 2, hidden=(8,), rngs=rngs)

    (init, network), key = functional(build), jax.random.key(3)
    given = (jax.random.normal(key, (5, 4)), jax.random.normal(key, (5, 2)))
    found, wanted = network(init(key)).step((), *given), build(nnx.Rngs(params=key)).step((), *given)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    other = network(init(jax.random.key(4))).step((), *given)
    assert float(jnp.abs(other[1] - wanted[1]).max()) > 1e-3
