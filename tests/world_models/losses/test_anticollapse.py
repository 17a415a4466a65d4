"""Tests of the objectives: closed forms, values computed by hand, and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models.losses import anticollapse
from world_models.losses.terms import inverse_dynamics, straightness, variance_covariance

OBJECTIVES = [
    partial(anticollapse.decorrelation, floor=2.0),
    partial(anticollapse.vicreg, slowness_weight=1.0, episode_weight=1.0, floor=2.0, episode_floor=2.0),
    anticollapse.barlow_twins,
    anticollapse.sigreg,
    anticollapse.infonce,
    anticollapse.byol,
]


def drawn(seed: int = 0, batch: int = 6, time: int = 5, dim: int = 4) -> tuple[jax.Array, jax.Array]:
    """Returns embeddings and inexact predictions."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(batch, time, dim)).cumsum(axis=1)
    return jnp.asarray(z, jnp.float32), jnp.asarray(z[:, 1:] + 0.3 * random.normal(size=(batch, time - 1, dim)), jnp.float32)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_agree_with_finite_differences(objective):
    (z, guess), (dz, dguess) = drawn(), drawn(1)

    @jax.jit
    def along(step):
        return objective(z + step * dz, guess + step * dguess, targets=z)[0]

    slope, step = jax.grad(along)(0.0), 3e-3
    np.testing.assert_allclose(slope, (along(step) - along(-step)) / (2 * step), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_after_the_end_is_ignored(objective):
    z, guess = drawn()
    weights = jnp.ones(z.shape[:2]).at[:3, 3:].set(0.0).at[5].set(0.0)
    loss = jax.jit(jax.value_and_grad(lambda z, guess: objective(z, guess, weights)[0], argnums=(0, 1)))
    hidden = weights[..., None] == 0
    value, slopes = loss(jnp.where(hidden, jnp.nan, z), jnp.where(hidden[:, 1:], jnp.nan, guess))
    wanted, wanted_slopes = loss(z, guess)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for slope, wanted in zip(slopes, wanted_slopes, strict=True):
        np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(jnp.where(hidden, slopes[0], 0.0), 0.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("weights", [None, jnp.zeros((6, 5))])
def test_collapsed_and_empty_batches_have_finite_gradients(objective, weights):
    z = jnp.full((6, 5, 4), 0.3)
    loss = jax.jit(jax.value_and_grad(lambda z, guess: objective(z, guess, weights)[0], argnums=(0, 1)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(loss(z, z[:, 1:]))))


def test_vicreg_adds_slowness_and_variance_between_episodes():
    z, guess = drawn()
    rows = z.reshape(-1, 4)
    loss, terms = anticollapse.vicreg(
        z, guess, variance_weight=2.0, covariance_weight=3.0, slowness_weight=5.0, episode_weight=7.0, episode_floor=4.0
    )
    np.testing.assert_allclose(terms["slowness"], np.mean(np.diff(np.asarray(z), axis=1) ** 2), rtol=1e-5)
    between = np.maximum(0, 4.0 - np.sqrt(np.asarray(z).mean(axis=1).var(axis=0, ddof=1) + 1e-4)).mean()
    np.testing.assert_allclose(terms["episode_variance"], between, rtol=1e-5)
    known, _ = variance_covariance(rows, variance_weight=2.0, covariance_weight=3.0)
    np.testing.assert_allclose(loss, known + 5 * terms["slowness"] + 7 * terms["episode_variance"], rtol=1e-5)


def test_barlow_twins_is_zero_for_an_identity_cross_correlation():
    signs = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], np.float32)  # uncorrelated columns
    came = signs * [1.0, 5.0, 0.2] + [3.0, 0.0, -1.0]
    z = jnp.asarray(np.stack([came, came], axis=1), jnp.float32)
    loss, _ = anticollapse.barlow_twins(z, jnp.asarray(signs[:, None]))
    np.testing.assert_allclose(loss, 0.0, atol=1e-5)
    mixed = jnp.asarray((signs @ np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32))[:, None])
    correlation = np.corrcoef(np.asarray(mixed)[:, 0], came, rowvar=False)[:3, 3:]
    wanted = ((1 - np.diag(correlation)) ** 2).sum() / 3 + 0.5 * (
        correlation**2 - np.diag(np.diag(correlation) ** 2)
    ).sum() / 3
    loss, _ = anticollapse.barlow_twins(z, mixed, redundancy=0.5)
    np.testing.assert_allclose(loss, wanted, rtol=1e-3)


def test_sigreg_is_the_epps_pulley_statistic():
    """In one dimension there is one direction, and the integral over all frequencies has a closed form."""
    x = np.random.default_rng(0).normal(size=30) * 1.4 + 0.3
    pairs = np.exp(-((x[:, None] - x) ** 2) / 2).sum() / 30
    known = np.sqrt(2 * np.pi) * (pairs - 2 * np.exp(-(x**2) / 4).sum() / np.sqrt(2) + 30 / np.sqrt(3))
    z = jnp.asarray(x.reshape(6, 5, 1), jnp.float32)
    _, terms = anticollapse.sigreg(z, z[:, 1:], points=65, directions=3)
    np.testing.assert_allclose(terms["sigreg"], known, rtol=1e-3)
    _, terms = anticollapse.sigreg(z, z[:, 1:])
    np.testing.assert_allclose(terms["sigreg"], known, rtol=2e-2)


def test_sigreg_ranks_normal_below_uniform_below_collapsed():
    random = np.random.default_rng(1)
    clouds = {
        "normal": random.normal(size=(100, 10, 8)),
        "uniform": random.uniform(-0.5, 0.5, size=(100, 10, 8)),
        "line": random.normal(size=(100, 10, 1)) * np.ones(8),
        "point": np.full((100, 10, 8), 0.5),
    }
    measure = jax.jit(lambda z: anticollapse.sigreg(z, z[:, 1:], key=jax.random.key(3))[1]["sigreg"])
    scores = {name: float(measure(jnp.asarray(z, jnp.float32))) for name, z in clouds.items()}
    assert scores["normal"] < 2.0  # about sqrt(2π) (1 - 1/sqrt(3)) = 1.06
    assert min(scores["uniform"], scores["line"], scores["point"]) > 20 * scores["normal"]


def test_sigreg_directions_depend_on_the_key():
    z, guess = drawn()
    first, again, other = (anticollapse.sigreg(z, guess, key=jax.random.key(k))[0] for k in (0, 0, 1))
    assert first == again and first != other
    with pytest.raises(ValueError, match="odd number"):
        anticollapse.sigreg(z, guess, points=16)


def test_infonce_equals_a_value_by_hand():
    z = jnp.array([[[9.0, 9.0], [0.0, 0.0]], [[9.0, 9.0], [2.0, 0.0]]])  # what came: (0, 0) and (2, 0)
    guess = jnp.array([[[0.0, 2.0]], [[2.0, 0.0]]])
    # mean squared distances: first to (0, 0) 2, to (2, 0) 4; second to (0, 0) 2, to (2, 0) 0
    first, second = np.log(1 + np.exp(-(4 - 2) / 0.5)), np.log(1 + np.exp(-(2 - 0) / 0.5))
    loss, terms = anticollapse.infonce(z, guess, temperature=0.5, weight=3.0)
    np.testing.assert_allclose(loss, 3 * (first + second) / 2, rtol=1e-5)
    assert terms["picked"] == 1.0
    _, terms = anticollapse.infonce(z, guess[::-1])
    assert terms["picked"] == 0.0


def test_byol_depends_on_directions_and_stops_target_gradients():
    z, guess = drawn()
    np.testing.assert_allclose(anticollapse.byol(z, 3 * z[:, 1:])[0], 0.0, atol=1e-5)
    np.testing.assert_allclose(anticollapse.byol(z, -z[:, 1:])[0], 4.0, rtol=1e-5)
    slopes = jax.grad(lambda z, guess: anticollapse.byol(z, guess)[0], argnums=(0, 1))(z, guess)
    assert jnp.abs(slopes[0]).max() == 0 and jnp.abs(slopes[1]).max() > 0


def test_a_moving_average_decays_geometrically():
    average = {"w": jnp.array([1.0, 5.0])}
    for _ in range(10):
        average = anticollapse.moving_average(average, {"w": jnp.array([3.0, 3.0])}, 0.9)
    np.testing.assert_allclose(average["w"], 3 + np.array([-2, 2]) * 0.9**10, rtol=1e-5)


def test_straightness_of_a_line_a_corner_and_a_reversal():
    line, corner, back = ([[0, 0], [1, 0], [2, 0]], [[0, 0], [1, 0], [1, 3]], [[0, 0], [1, 0], [0, 0]])
    for path, bent in ((line, 0.0), (corner, 1.0), (back, 2.0)):
        np.testing.assert_allclose(straightness(jnp.array([path], jnp.float32)), bent, atol=1e-5)
    paths = jnp.array([[*line, [9, 9]], [*back, [0, 5]]], jnp.float32)
    only_the_line = jnp.array([[1.0, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(straightness(paths, only_the_line), 0.0, atol=1e-5)


def test_inverse_dynamics_recovers_the_actions_of_a_linear_world():
    """For `z' = z + B a` gradient descent over linear inverse models reaches a loss of zero."""
    random = np.random.default_rng(0)
    actions = jnp.asarray(random.uniform(-1, 1, (40, 6, 2)), jnp.float32)
    moves = actions @ jnp.asarray(random.normal(size=(2, 5)), jnp.float32)
    z = jnp.cumsum(jnp.concatenate([jnp.zeros((40, 1, 5)), moves], axis=1), axis=1)

    def loss(matrix):
        return inverse_dynamics(lambda a, b: (b - a) @ matrix, z, actions)

    start = jnp.zeros((5, 2))
    np.testing.assert_allclose(loss(start), jnp.mean(actions**2), rtol=1e-5)
    descend = jax.jit(lambda m: jax.lax.fori_loop(0, 3000, lambda _, m: m - 0.1 * jax.grad(loss)(m), m))
    assert loss(descend(start)) < 1e-4
