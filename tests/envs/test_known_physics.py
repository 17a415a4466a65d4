"""Tests of cart-pole, car, quadrotor and rendezvous: reference physics, known solutions and conserved quantities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from benchmarks.formulas import Maths, optimum
from benchmarks.problems import REFERENCES
from envs import car, cartpole_swingup, quadrotor, rendezvous

NUMPY = Maths(np.sin, np.cos, np.tan, np.sqrt, np.exp, lambda *scalars: np.stack(scalars))
PAIRS = {"cartpole": cartpole_swingup, "car": car, "quadrotor": quadrotor, "rendezvous": rendezvous}
WIDTHS = {
    "cartpole": (2, 4, 4, 8),
    "car": (20, 5, 1, 5),
    "quadrotor": (5, 2, 2, 4, 4, 6),
    "rendezvous": (200,) * 3 + (1,) * 3,
}


@pytest.mark.parametrize("name", PAIRS)
def test_physics_bounds_and_start_match_the_reference_problem(name):
    reference, module, random = REFERENCES[name], PAIRS[name], np.random.default_rng(0)
    task = module.task()
    np.testing.assert_allclose(task.actions.low, reference.low, rtol=1e-6)
    np.testing.assert_allclose(task.actions.high, reference.high, rtol=1e-6)
    np.testing.assert_allclose(module.START, reference.start)
    states = random.uniform(-1, 1, (50, len(module.START))) * WIDTHS[name]
    actions = random.uniform(task.actions.low, task.actions.high, (50, len(reference.low)))
    ours = jax.jit(jax.vmap(module.dynamics, in_axes=(None, 0, 0)))(
        module.PARAMS, jnp.asarray(states, jnp.float32), jnp.asarray(actions, jnp.float32)
    )
    theirs = np.stack([reference.dynamics(NUMPY, x, u) for x, u in zip(states, actions, strict=True)])
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * np.max(WIDTHS[name]))


@pytest.mark.parametrize("name", PAIRS)
def test_costs_and_limits_match_the_reference_problem(name):
    reference, module, random = REFERENCES[name], PAIRS[name], np.random.default_rng(1)
    for _ in range(5):
        x = random.uniform(-1, 1, len(module.START)) * WIDTHS[name]
        u = random.uniform(reference.low, reference.high)
        state, action = jnp.asarray(x, jnp.float32), jnp.asarray(u, jnp.float32)
        if name == "cartpole":
            cost = -module.reward(module.PARAMS, state, action)
        else:
            cost = module.fuel(module.PARAMS, action) if name == "rendezvous" else module.stage(state, action)
        np.testing.assert_allclose(cost, reference.stage(NUMPY, x, u), rtol=1e-4, atol=1e-5)
        if name == "rendezvous":
            limits = [module.keep_out(state), module.cone(state)]
        else:
            limits = [] if name == "cartpole" else [module.limits(state)]
        theirs = [limit.function(NUMPY, x) for limit in reference.limits if not limit.equality]
        for mine, other in zip(limits, theirs, strict=False):
            assert len(np.atleast_1d(mine)) >= len(other)
        mine, other = (np.concatenate([np.atleast_1d(a) for a in (*side, [0.0])]) for side in (limits, theirs))
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_the_best_known_plan_succeeds(name):
    """Executes the stored optimum; the rendezvous docks with its last action."""
    task, actions = PAIRS[name].task(spread=0.0), jnp.asarray(optimum(name).actions, jnp.float32)

    def advance(state, action):
        state = task.step(task.params, state, action, jax.random.key(0))
        return state, (task.success(state), task.terminated(state), task.report(state))

    start = task.reset(jax.random.key(0))
    last, (success, terminated, report) = jax.lax.scan(advance, start, actions)
    if "crashed" in report:
        assert not report["crashed"].any() and report["violation"].max() < 1e-4  # the optimum touches its limits
        assert report["distance"][-1] < 0.1
    elif name == "cartpole":
        assert success[-1]
    else:
        assert success[-1] and not terminated[:-1].any()
        assert report["distance"][-1] < 0.05 and report["speed"][-1] < 1e-3
    assert last is not None


def test_crashes_and_limit_violations_are_penalised():
    resting = jnp.zeros(2)
    inside, outside = jnp.array([5.0, -0.3, 0.0, 1.0]), jnp.array([0.0, 0.0, 0.0, 3.0])
    assert car.reward(car.PARAMS, outside, resting, inside) < -200 and car.crashed(inside) and not car.crashed(outside)
    fast = outside.at[3].set(12.0)
    np.testing.assert_allclose(
        car.reward(car.PARAMS, outside, resting, outside) - car.reward(car.PARAMS, outside, resting, fast),
        20 * 0.5,
        rtol=1e-5,
    )
    hover = jnp.full(2, quadrotor.HOVER)
    rest, low = jnp.zeros(6), jnp.array([0.0, -2.01, 0.0, 0.0, 0.0, 0.0])
    assert quadrotor.crashed(low) and float(quadrotor.reward(quadrotor.PARAMS, rest, hover, low)) == pytest.approx(-100.5)


def test_rendezvous_steps_equal_the_matrix_exponential():
    n, dt = 0.00113, 20.0
    rates = np.zeros((9, 9))
    rates[:3, 3:6] = np.eye(3)
    rates[3, 0], rates[3, 4], rates[4, 3], rates[5, 2] = 3 * n**2, 2 * n, -2 * n, -(n**2)
    rates[3:6, 6:] = np.eye(3)
    exact = expm(rates * dt)
    drift, push = rendezvous.transition(jnp.float32(n), jnp.float32(dt))
    np.testing.assert_allclose(drift, exact[:6, :6], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(push, exact[:6, 6:], rtol=2e-3, atol=2e-2)  # lag/n² loses precision by cancellation


def test_a_craft_without_thrust_returns_on_a_closed_relative_orbit():
    """With ẏ = -2 n x there is no drift: the relative orbit is a closed 2:1 ellipse, back after one period."""
    n = 2 * np.pi / (280 * 20.0)
    motion = jnp.array([100.0, 0.0, 50.0, 0.0, -2 * n * 100.0, 0.0])
    params = {"mean_motion": n, "dt": 20.0}

    def coast(motion, _):
        following = rendezvous.dynamics(params, motion, jnp.zeros(3))
        return following, following

    end, path = jax.lax.scan(coast, motion, length=280)
    np.testing.assert_allclose(end[:3], motion[:3], atol=0.5)
    np.testing.assert_allclose([np.ptp(path[:, 1]), np.ptp(path[:, 0])], [400.0, 200.0], rtol=1e-3)


def test_docking_requires_ten_steps_in_the_cone():
    motion = jnp.array([0.0, 45.2, 0.0, 0.0, 0.0, 0.0])
    for steps, docked in ((9, False), (10, True)):
        assert bool(rendezvous.success(rendezvous.State(motion, jnp.asarray(steps, jnp.int32)))) == docked
    entering = rendezvous.State(jnp.array([0.0, 80.0, 0.0, 0.0, 0.0, 0.0]), jnp.asarray(3, jnp.int32))
    after = rendezvous.step(rendezvous.PARAMS, entering, jnp.zeros(3), jax.random.key(0))
    assert int(after.inside) == 4
    outside = rendezvous.State(jnp.array([80.0, 45.0, 0.0, 0.0, 0.0, 0.0]), jnp.asarray(9, jnp.int32))
    assert int(rendezvous.step(rendezvous.PARAMS, outside, jnp.zeros(3), jax.random.key(0)).inside) == 0


def test_a_free_cart_pole_conserves_energy_and_momentum():
    cart, pole, length, gravity = 1.0, 0.1, 0.5, 9.81
    params = cartpole_swingup.PARAMS | {"dt": 0.01}

    def invariants(s):
        tip = jnp.stack([s[2] + length * s[3] * jnp.cos(s[1]), -length * s[3] * jnp.sin(s[1])])
        kinetic = 0.5 * cart * s[2] ** 2 + 0.5 * pole * (tip**2).sum()
        return jnp.stack([kinetic + pole * gravity * length * jnp.cos(s[1]), cart * s[2] + pole * tip[0]])

    start = jnp.array([0.0, 1.0, 0.3, 2.0])
    after = jax.lax.fori_loop(0, 500, lambda _, s: cartpole_swingup.dynamics(params, s, jnp.zeros(1)), start)
    assert abs(float(after[1] - start[1])) > 0.3
    np.testing.assert_allclose(invariants(after), invariants(start), atol=2e-3)


def test_a_turning_car_follows_the_circle_of_its_wheelbase():
    radius, state, steps = 2.5 / np.tan(0.4), jnp.array([0.0, 0.0, 0.0, 3.0]), 40
    turn = jax.jit(lambda s: car.dynamics(car.PARAMS, s, jnp.array([0.0, 0.4])))
    with jax.disable_jit():
        eager = car.dynamics(car.PARAMS, state, jnp.array([0.0, 0.4]))
    np.testing.assert_allclose(eager, turn(state), rtol=1e-6)
    for _ in range(steps):
        state = turn(state)
    angle = 3.0 * 0.1 * steps / radius
    np.testing.assert_allclose(state, [radius * np.sin(angle), radius * (1 - np.cos(angle)), angle, 3.0], rtol=1e-4)


def test_a_quadrotor_hovers_at_hover_thrust_and_falls_without_thrust():
    resting = jnp.zeros(6)
    np.testing.assert_allclose(quadrotor.dynamics(quadrotor.PARAMS, resting, jnp.full(2, quadrotor.HOVER)), 0.0, atol=1e-6)
    fallen = quadrotor.dynamics(quadrotor.PARAMS, resting, jnp.zeros(2))
    np.testing.assert_allclose(fallen[jnp.array([1, 4])], [-0.5 * 9.81 * 0.05**2, -9.81 * 0.05], rtol=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_spread_outside_its_range_raises(value):
    with pytest.raises(ValueError, match=r"spread must lie in \[0, 1\].*got"):
        car.task(spread=value)
