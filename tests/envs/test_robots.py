"""Tests of the MuJoCo robots: inverse of the observation, delays, pushes and equilibria compared with known values."""

import multiprocessing
import time

import jax.numpy as jnp
import numpy as np
import pytest

from envs.robots import ROBOTS, named
from envs.robots.env import RobotEnv
from envs.robots.plant import PUSH_DURATION, Body, Plant

pytest.importorskip("mujoco", reason="robots need the extra [mujoco]")


@pytest.mark.parametrize("name", ROBOTS)
def test_state_of_inverts_observe_and_seeds_reproduce_episodes(name):
    env, drawn = RobotEnv(name), np.random.default_rng(0)
    first, _ = env.reset(seed=3)
    actions = [env.action_space.sample() for _ in range(3)]
    trajectory = [env.step(action)[0] for action in actions]
    assert env.observation_space.contains(first) and len(first) == len(env.robot.names) == len(env.robot.units)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal([again, *(env.step(action)[0] for action in actions)], [first, *trajectory])
    joints = env.model.nq
    q, speed = drawn.uniform(-3.0, 3.0, joints), drawn.normal(size=joints)
    state = env.robot.state_of(jnp.asarray(env.robot.observe(q, speed)))
    np.testing.assert_allclose(state, np.concatenate([q, speed]), atol=1e-6)


def test_rewards_are_negative_costs_and_zero_at_the_upright_equilibrium():
    cartpole, quadrotor = RobotEnv("cartpole"), RobotEnv("quadrotor")
    cartpole.reset(seed=0)
    cartpole.pose(np.zeros(2))
    cartpole.data.qvel[:] = 0.0
    _, reward, terminated, truncated, info = cartpole.step([5.0])
    assert np.isclose(reward, -0.02 * 0.001 * 25.0) and not terminated and not truncated and info["success"]
    quadrotor.reset(seed=0)
    quadrotor.pose(np.zeros(3))
    for _ in range(50):  # both rotors carry the weight
        quadrotor.step([0.54 * 9.81 / 2] * 2)
    np.testing.assert_allclose(quadrotor.data.qpos, 0.0, atol=1e-6)


def test_episodes_start_as_configured_and_truncate_outside_the_arena():
    robot = named("cartpole")
    for share, spread in ((0.0, np.array([*robot.spread, 0.0, 0.0])), (1.0, np.array(robot.anywhere))):
        env = RobotEnv("cartpole", anywhere=share)
        offsets = [env._state() - np.array([*robot.start, 0.0, 0.0]) for seed in range(200) if env.reset(seed=seed)]
        assert (np.abs(offsets) <= spread + 1e-6).all()
        np.testing.assert_allclose(np.abs(offsets).max(axis=0), spread, rtol=0.1)
    env = RobotEnv("cartpole", anywhere=0.0)
    env.reset(seed=0)
    for position, away in ((-2.99, False), (3.01, True)):
        env.pose(np.array([position, 0.0]))
        assert env.step([0.0])[2:4] == (False, away)
    with pytest.raises(ValueError, match=r"share of episodes in \[0, 1\]; got 1\.5"):
        RobotEnv("cartpole", anywhere=1.5)


def test_actions_take_effect_after_the_delay():
    body = Body(named("cartpole"), delay=0.05, push=0.0, seed=0)
    body.advance(0.1)
    body.receive(0.1, np.array([7.0]))
    body.advance(0.3)
    trace = body.trace()
    np.testing.assert_allclose(trace.times, 0.02 * np.arange(15), atol=1e-9)
    expected = np.where(trace.times > 0.15 - 1e-9, 7.0, 0.0)
    np.testing.assert_array_equal(trace.actions[:, 0], expected)
    assert body.observation().dtype == np.float32
    body.advance(0.3009)  # half a step later
    assert 0.3 - 1e-9 <= body.data.time <= 0.3009  # time does not exceed the request


def test_a_push_transfers_force_times_duration_as_momentum():
    """Uses the quadrotor without thrust, for which only a small drag acts horizontally."""
    body = Body(named("quadrotor"), delay=0.0, push=2.0, seed=1)
    body.advance(5.0)
    trace = body.trace()
    pushes = np.flatnonzero(np.diff(np.abs(trace.pushes)) > 0)
    assert len(pushes) >= 1 and set(np.abs(trace.pushes)) == {0.0, 2.0}
    begin = pushes[0]
    gained = trace.states[begin + 7, 3] - trace.states[begin, 3]
    assert np.isclose(abs(gained), 2.0 * PUSH_DURATION / 0.54, rtol=0.05)


def test_a_plant_follows_the_wall_clock_and_returns_its_trajectory():
    threads = len(multiprocessing.active_children())
    with Plant(named("cartpole"), delay=0.02, seed=2) as plant:
        first, begun = plant.newest()
        plant.send(np.array([10.0]))
        later, stamp = first, begun
        patience = begun + 30.0  # allows for other load of the machine
        while stamp < begun + 0.4 and time.monotonic() < patience:
            time.sleep(0.02)
            later, stamp = plant.newest()
        now = time.monotonic()
    trace = plant.trace
    assert trace is not None and begun + 0.4 <= stamp <= now
    assert trace.times[-1] >= stamp - begun - 0.02
    sent = trace.times[np.argmax(trace.actions[:, 0] == 10.0)]
    assert trace.actions[-1, 0] == 10.0 and 0.02 <= sent <= stamp - begun
    assert later[0] > first[0]  # pushed to the right
    assert len(multiprocessing.active_children()) == threads
    with pytest.raises(ValueError, match="must not be negative"):
        Plant(named("cartpole"), delay=-1.0)
    with pytest.raises(ValueError, match=r"robot must be one of cartpole.*got 'toaster'"):
        named("toaster")
