"""Tests of leaves and noise: their statistics, and that the task itself is unchanged."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import leaves, pendulum, two_rooms
from envs.wrappers import WindyLeaves, WindyNoise


def trajectory(task, steps=6):
    """Returns states and observations of one episode with fixed keys and actions."""
    reset, step, observe = jax.jit(task.reset), jax.jit(task.step), jax.jit(task.observe)
    state, states, seen = reset(jax.random.key(1)), [], []
    for t in range(steps):
        state = step(task.params, state, jnp.full(task.actions.low.shape, 0.7), jax.random.key(t))
        states.append(state)
        seen.append(np.asarray(observe(state)))
    return states, np.stack(seen)


def test_leaves_do_not_change_the_task():
    windy, plain = leaves.behind(two_rooms.task()), two_rooms.task()
    (states, seen), (bare, images) = trajectory(windy), trajectory(plain)
    for ours, theirs in zip(states, bare, strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours.inner, theirs)
    walls = images[..., 1] == 255
    assert (seen[walls] == images[walls]).all()  # drawn shapes stay in front of the leaves
    floor = images.max(axis=-1) == 0
    assert windy.goal is not None and plain.goal is not None
    see = jax.jit(windy.goal)
    goals = [np.asarray(see(state)) for state in (states[0], states[-1])]
    np.testing.assert_array_equal(goals[0], goals[1])  # the goal image is constant
    assert (goals[0] != np.asarray(jax.jit(plain.goal)(bare[0]))).mean() > 0.5
    moving = np.abs(np.diff(seen[..., 1].astype(float), axis=0))
    assert (moving[floor[1:] & floor[:-1]] > 2).mean() > 0.15 and seen[floor].mean() > 30


def test_every_leaf_and_wave_changes_the_scene_at_its_position():
    draw = jax.jit(lambda wind: leaves.scene(wind, 48, 48))
    wind = jax.jit(leaves.calm)(jax.random.key(0))
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    unseen = jax.jit(lambda image: leaves.compose(image, wind, [(1.0, 1.0, 1.0)], 0.0))(image)
    np.testing.assert_array_equal(unseen, image)
    base = draw(wind)
    assert base.shape == (48, 48, 3) and float(base.min()) >= 0.0 and float(base.max()) <= 1.0
    for i in range(0, leaves.LEAVES, 7):
        changed = np.abs(draw(wind._replace(flutter=wind.flutter.at[i].add(2.0))) - base).max(axis=-1) > 0.02
        assert changed.any() and changed.mean() < 0.1 and not changed[40:].any()
    changed = np.abs(draw(wind._replace(phase=wind.phase + 1.0)) - base).max(axis=-1) > 0.02
    assert changed[36:44].any() and not changed[:30].any()


def test_noise_has_the_documented_autocorrelation_and_variance():
    task = leaves.beside(pendulum.task(), 64)
    assert task.observations.low.shape == (67,)

    def advance(state, key):
        state = task.step(task.params, state, jnp.zeros(1), key)
        return state, task.observe(state)

    _, seen = jax.lax.scan(advance, task.reset(jax.random.key(0)), jax.random.split(jax.random.key(1), 2000))
    noise = np.asarray(seen[:, 3:], float)
    np.testing.assert_allclose(noise.std(), 1.0, atol=0.03)
    np.testing.assert_allclose((noise[1:] * noise[:-1]).mean() / noise.var(), 0.9, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(noise.T)[0, 1:], 0.0, atol=0.35)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: leaves.beside(two_rooms.task(), 4), r"noise needs vector observations; two_rooms observes .*\(65, 65, 2\)"),
        (lambda: leaves.beside(pendulum.task(), 0), "must be 1 or more; got 0"),
        (lambda: leaves.behind(two_rooms.task(), 1.5), r"must lie in \[0, 1\]; got 1.5"),
        (lambda: WindyLeaves(gymnasium.make("Pendulum-v1")), r"images of bytes \[h, w, c\]; got Box"),
        (lambda: WindyNoise(gymnasium.make("Pendulum-v1"), 0), "must be 1 or more; got 0"),
        (lambda: WindyNoise(gymnasium.make("CliffWalking-v1")), "noise needs vector observations; got Discrete"),
    ],
)
def test_invalid_settings_raise(make, says):
    with pytest.raises(ValueError, match=says):
        make()


class Painted(gymnasium.Env):
    """An external environment: a black square on a white image."""

    observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(4, 20))
        return self._seen(), {}

    def step(self, action):
        self.place += int(self.np_random.integers(-1, 2))
        return self._seen(), 0.0, False, False, {}

    def _seen(self):
        image = np.full((32, 32, 3), 255, np.uint8)
        image[self.place : self.place + 6, 10:20] = 0
        return image


def test_wrappers_work_on_other_environments():
    bare, windy = Painted(), WindyLeaves(Painted())
    plain, _ = bare.reset(seed=3)
    seen, _ = windy.reset(seed=3)
    frames = []
    for _ in range(4):
        square = plain[..., 0] == 0
        assert (seen[square] == 0).all() and (seen[~square] != 255).any(axis=-1).mean() > 0.7
        frames.append(seen)
        plain, seen = bare.step(0)[0], windy.step(0)[0]
    assert (frames[0] != frames[1]).mean() > 0.05
    again, _ = windy.reset(seed=3)
    np.testing.assert_array_equal(again, frames[0])

    noisy, pendulum_ = WindyNoise(gymnasium.make("Pendulum-v1"), 16), gymnasium.make("Pendulum-v1")
    first, _ = noisy.reset(seed=0)
    np.testing.assert_array_equal(first[:3], pendulum_.reset(seed=0)[0])
    assert first.shape == (19,) and first in noisy.observation_space
    np.testing.assert_array_equal(noisy.step([1.0])[0][:3], pendulum_.step([1.0])[0])
    np.testing.assert_array_equal(noisy.reset(seed=0)[0], first)
