"""Tests of the Gymnasium environments: the checker, vectors compared with loops of single ones, seeds, and errors."""

import subprocess
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs
from envs import pendulum, two_rooms
from envs.gym import Env, VectorEnv


def test_importing_envs_only_registers_ids():
    program = "import sys, envs, gymnasium; print('jax' in sys.modules, len(envs.IDS), 'craik/Car-v0' in gymnasium.registry)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "12", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = envs.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", envs.IDS)
def test_the_gymnasium_checker_passes(name):
    env = gymnasium.make(name)
    check_env(env.unwrapped)  # the tests turn its warnings into errors
    task = env.unwrapped.task  # type: ignore[attr-defined]
    assert env.spec is not None and env.spec.max_episode_steps == task.horizon
    assert type(env.unwrapped).metadata["render_modes"] == ["rgb_array"]
    vector = gymnasium.make_vec(name, 3)
    assert isinstance(vector, VectorEnv) and vector.max_episode_steps == task.horizon
    assert vector.single_observation_space == env.observation_space and vector.action_space.shape == (
        3,
        *task.actions.low.shape,
    )
    env.close()


FALLING = replace(pendulum.task(), terminated=lambda state: state[1] > 1.5)
"""A small task with terminations, for the tests of vector environments."""


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_equals_a_loop_of_single_environments(mode):
    """Compares with Gymnasium's vector of single environments; some episodes terminate, others are truncated."""
    limit = 4
    ours = VectorEnv(FALLING, 5, limit, mode)
    theirs = SyncVectorEnv([lambda: gymnasium.wrappers.TimeLimit(Env(FALLING), limit)] * 5, autoreset_mode=mode)
    compare(ours.reset(seed=7), theirs.reset(seed=7))
    random, ended, cut = np.random.default_rng(0), 0, 0
    for _ in range(12):
        actions = random.uniform(-1, 1, (5, 1)).astype(np.float32)
        mine, other = ours.step(actions), theirs.step(actions)
        compare(mine, other)
        over = mine[2] | mine[3]
        ended, cut = ended + mine[2].sum(), cut + mine[3].sum()
        if mode is AutoresetMode.DISABLED and over.any():
            with pytest.raises(gymnasium.error.ResetNeeded):
                ours.step(actions)
            compare(*(env.reset(options={"reset_mask": over}) for env in (ours, theirs)))
    assert ended >= 2 and cut >= 2


def compare(mine, other):
    assert len(mine) == len(other)
    for a, b in zip(mine[:-1], other[:-1], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    infos(mine[-1], other[-1])


def infos(mine, other):
    assert mine.keys() == other.keys()
    for name, value in other.items():
        if isinstance(value, dict):
            infos(mine[name], value)
            continue
        assert mine[name].shape == value.shape
        for a, b in zip(mine[name], value, strict=True):
            if a is None or b is None:
                assert a is b
            else:
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_equal_seeds_reproduce_and_different_seeds_differ():
    env = VectorEnv("two_rooms", 4, observation="state")
    first, _ = env.reset(seed=[5, 6, 7, 5])
    again, _ = env.reset(seed=[5, 6, 7, 5])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0], first[3])
    assert (first[0] != first[1]).any() and (env.reset()[0] != first).any()
    single = gymnasium.make("craik/TwoRooms-v0", observation="state")
    np.testing.assert_allclose(single.reset(seed=6)[0], first[1], rtol=1e-6)


def test_actions_are_scaled_to_the_units_of_the_task():
    scaled, physical = Env("two_rooms", observation="state"), Env("two_rooms", observation="state", normalised=False)
    options = {"start": [10.0, 20.0], "layout": [32, 10]}
    for env, action in ((scaled, [1.0, -0.5]), (physical, [2.45, -1.225]), (scaled, [9.0, -0.5]), (physical, [9.0, -1.225])):
        env.reset(seed=0, options=options)
        np.testing.assert_allclose(env.step(action)[0][:2], [12.45, 18.775], rtol=1e-5)
    assert physical.action_space.high.tolist() == pytest.approx([2.45, 2.45])  # type: ignore[attr-defined]
    np.testing.assert_allclose(Env("quadrotor")._physical([0.0, -1.0], (2,)), [9.81 / 2, 0.0])  # of [0, 9.81] N


def test_reset_options_set_start_goal_and_layout_and_the_goal_is_observed():
    env = Env("two_rooms", render_mode="rgb_array")
    options = {"start": [10.0, 20.0], "goal": [50.0, 40.0], "layout": [25, 30]}
    _, info = env.reset(seed=0, options=options)
    np.testing.assert_array_equal(info["position"], [10.0, 20.0])
    np.testing.assert_array_equal(info["goal"], [50.0, 40.0])
    assert info["distance"] == pytest.approx(np.hypot(40, 20)) and info["success"] is False
    goal = env.goal_observation()
    assert goal.shape == (65, 65, 2) and goal[40, 50, 0] == 255 and goal[20, 10, 0] == 0
    assert env.render().shape == (325, 325, 3) and env.state.layout.tolist() == [25.0, 30.0]
    vector = VectorEnv("two_rooms", 2, observation="state")
    _, info = vector.reset(seed=0, options={"goal": [[50.0, 40.0], [55.0, 30.0]], "layout": [25, 30]})
    np.testing.assert_array_equal(info["goal"], [[50.0, 40.0], [55.0, 30.0]])
    np.testing.assert_array_equal(vector.goal_observation()[:, :2], info["goal"])


def made(**settings):
    return lambda: gymnasium.make("craik/TwoRooms-v0", **settings)


def reset(**options):
    return lambda: Env("two_rooms", observation="state").reset(options=options)


def stepped(action):
    def run():
        env = Env("pendulum")
        env.reset(seed=0)
        env.step(action)

    return run


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (made(colour="red"), "two_rooms has no setting colour; it has observation, layout, leaves, noise, normalised"),
        (made(observation="sound"), "observation must be one of 'pixels', 'state'; got 'sound'"),
        (made(layout="round"), "layout must be one of 'random', 'fixed'; got 'round'"),
        (lambda: Env("two_rooms", render_mode="human"), "render_mode must be None or 'rgb_array'; got 'human'"),
        (lambda: Env(two_rooms.task(), layout="fixed"), "settings need the name of a task, not a Task; got layout"),
        (reset(begin=[1, 2]), "has no reset option 'begin'; its options: start, goal, layout"),
        (reset(start=[1, 2, 3]), r"start must have shape \(2,\) and lie between"),
        (reset(goal=[10.0, 99.0]), "goal must have shape .* lie between .* got"),
        (reset(start=[float("nan"), 20.0]), "start must have shape .* got"),
        (reset(layout=[32, 10], start=[32.0, 40.0]), r"start \[32. 40.\] is inside a wall or an obstacle of two_rooms"),
        (stepped([0.1, 0.2]), r"finite numbers of shape \(1,\); got shape \(2,\)"),
        (stepped([float("nan")]), "finite numbers of shape"),
        (lambda: VectorEnv("two_rooms", 0), "num_envs must be at least 1; got 0"),
        (lambda: VectorEnv("two_rooms", 2, 0), "max_episode_steps must be at least 1; got 0"),
        (lambda: VectorEnv("two_rooms", 2, observation="state").reset(seed=[1]), "2 integers, one per environment"),
        (lambda: VectorEnv("two_rooms", 2).reset(options={"reset_mask": [1, 0]}), "reset_mask must be 2 booleans"),
        (
            lambda: VectorEnv("two_rooms", 2).reset(options={"start": [[5.0, 5.0]]}),
            r"start must have shape \(2,\) or \(2, 2\)",
        ),
        (lambda: Env("car").goal_observation(), "car has no goal observation"),
    ],
)
def test_invalid_input_raises_with_a_clear_message(bad, says):
    with pytest.raises(ValueError, match=says):
        bad()


def test_calls_before_reset_raise():
    for call in (lambda e: e.step([0.0, 0.0]), lambda e: e.state, lambda e: e.goal_observation()):
        with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
            call(Env("two_rooms"))
    with pytest.raises(gymnasium.error.ResetNeeded):
        VectorEnv("two_rooms", 2).step(np.zeros((2, 2)))
