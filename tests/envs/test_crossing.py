"""Tests of the crossing: latent variables, the mean future, and contact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import crossing

RUNS = 500


def drive(state, speed):
    """Keeps the lane at a constant speed, like a driver who expects that no agent moves."""
    steering = -0.15 * (state.car[1] + crossing.LANE) - 0.8 * state.car[2]
    return jnp.stack([4.0 * (speed - state.car[3]), steering])


def careful(state):
    """Drives as fast as braking for undecided agents allows, and behind agents in the lane."""
    ahead, across = state.place[:, 0] - state.car[0], state.place[:, 1]
    open_ = (state.decided == 0.0) & (ahead > -4.0) & (ahead < 20.0)
    walker = jnp.sqrt(8.0 * jnp.maximum(ahead - 14.5, 0.0) + 2.5**2)
    driver = jnp.sqrt(8.0 * jnp.maximum(ahead - 14.0, 0.0)) + 3.9
    speed = jnp.where(open_, jnp.where(jnp.arange(crossing.OTHERS) < crossing.PEDESTRIANS, walker, driver), 10.0)
    in_way = (state.decided > 0.0) & (ahead > -3.0) & (ahead < 16.0)
    in_way = in_way & ((jnp.abs(across + crossing.LANE) < 2.3) | (state.velocity[:, 1] != 0.0))
    behind = jnp.where(in_way, jnp.sqrt(6.0 * jnp.maximum(ahead - 4.5, 0.0)), 10.0)
    return drive(state, jnp.minimum(speed.min(), behind.min()))


@pytest.fixture(scope="module")
def runs():
    """Returns the share of successful runs per driver, in random futures and in the mean future, and all decisions."""
    policies = {"fast": lambda s: drive(s, 10.0), "careful": careful}

    def run(policy, scale, key):
        starting, drawing = jax.random.split(key)

        def advance(carry, latent):
            state, over = carry
            following = crossing.advance(crossing.PARAMS, state, policy(state), scale * latent)
            state = jax.tree.map(lambda a, b: jnp.where(over, a, b), state, following)
            return (state, over | crossing.crashed(state) | crossing.success(state)), None

        latents = jax.random.normal(drawing, (300, crossing.OTHERS))
        (last, _), _ = jax.lax.scan(advance, (crossing.reset(starting), jnp.zeros((), bool)), latents)
        return crossing.success(last), last.decided

    @jax.jit
    def all_of_them(keys):
        return {
            (name, scale): jax.vmap(lambda key, p=policy, s=scale: run(p, s, key))(keys)
            for name, policy in policies.items()
            for scale in (0.0, 1.0)
            if (name, scale) != ("careful", 0.0)
        }

    return all_of_them(jax.random.split(jax.random.key(0), RUNS))


def test_planning_with_the_mean_future_crashes(runs):
    assert runs["fast", 0.0][0].all() and not runs["fast", 0.0][1].any()
    assert runs["fast", 1.0][0].mean() < 0.2


def test_planning_over_sampled_futures_arrives(runs):
    assert runs["careful", 1.0][0].mean() > 0.99


def test_half_of_the_decisions_lead_into_the_path_of_the_car(runs):
    decided = np.asarray(runs["careful", 1.0][1])[:, : crossing.PEDESTRIANS]
    assert (decided != 0.0).mean() > 0.95
    np.testing.assert_allclose((decided[decided != 0.0] > 0).mean(), 0.5, atol=0.045)  # four standard deviations


def test_opposite_latents_give_mirrored_futures_around_the_mean():
    state = crossing.reset(jax.random.key(1))
    state = state._replace(place=state.place.at[:, 0].set(6.0))  # all agents are near enough to decide
    step = jax.jit(crossing.advance)
    both = [step(crossing.PARAMS, state, jnp.zeros(2), jnp.full(crossing.OTHERS, z)) for z in (2.0, -2.0)]
    still = step(crossing.PARAMS, state, jnp.zeros(2), jnp.zeros(crossing.OTHERS))
    for _ in range(5):
        both = [step(crossing.PARAMS, s, jnp.zeros(2), jnp.zeros(crossing.OTHERS)) for s in both]
        still = step(crossing.PARAMS, still, jnp.zeros(2), jnp.zeros(crossing.OTHERS))
    assert (jnp.abs(both[0].place - both[1].place)[:, 1] > 1.0).all()
    np.testing.assert_allclose(0.5 * (both[0].place + both[1].place), still.place, atol=1e-5)
    np.testing.assert_allclose(still.place[:, 1], state.home, atol=1e-6)


def test_distant_agents_do_not_decide():
    state = crossing.reset(jax.random.key(2))
    after = jax.jit(crossing.advance)(crossing.PARAMS, state, jnp.zeros(2), jnp.full(crossing.OTHERS, 3.0))
    ahead = state.place[:, 0] - state.car[0]
    np.testing.assert_array_equal(after.decided, jnp.where(ahead < 12.0, 1.0, 0.0))


def test_clearance_is_the_distance_between_outlines():
    """Compares with points on the outline of the car."""
    random = np.random.default_rng(0)
    side = np.linspace(-1, 1, 801)
    outline = np.concatenate([np.stack([2.1 * side, 0 * side + s * 0.9], 1) for s in (-1, 1)])
    outline = np.concatenate([outline, *(np.stack([0 * side + s * 2.1, 0.9 * side], 1) for s in (-1, 1))])
    state, clearance = crossing.reset(jax.random.key(3)), jax.jit(crossing.clearance)
    for _ in range(20):
        angle, place = random.uniform(-1, 1), np.array([20.0, 0.0]) + random.uniform(-8, 8, (crossing.OTHERS, 2))
        ours = jnp.array([20.0, -1.0, angle, 5.0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = outline @ turn.T + [20.0, -1.0]
        measured = float(clearance(state._replace(car=ours, place=jnp.asarray(place, jnp.float32))))
        gaps = []
        for i in range(crossing.OTHERS):
            walks = i < crossing.PEDESTRIANS
            for axle in (0.0,) if walks else (-1.2, 1.2):
                gap = np.linalg.norm(points - place[i] - [axle, 0.0], axis=1).min() - (0.35 if walks else 0.9)
                gaps.append(gap)
        if measured > 0:
            np.testing.assert_allclose(measured, min(gaps), atol=0.01)


def test_the_speed_of_the_car_stays_within_its_limits():
    step, state = jax.jit(crossing.step), crossing.reset(jax.random.key(4))
    slow, fast = state, state
    for _ in range(25):
        slow = step(crossing.PARAMS, slow, jnp.array([-4.0, 0.0]), jax.random.key(0))
        fast = step(crossing.PARAMS, fast, jnp.array([9.0, 0.0]), jax.random.key(0))
    assert float(slow.car[3]) == 0.0 and float(fast.car[3]) == 10.0
