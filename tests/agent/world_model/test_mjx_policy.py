"""Planning through MuJoCo's equations: what the planner is told of them, and for whom there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from envs.robots import built
from mpc.agent.cli.main import main
from mpc.agent.world_model.mjx_policy import mjx_policy, recipe
from mpc.policy import InFlight, PolicyState

mujoco = pytest.importorskip("mujoco", reason="MJX needs the extra [mujoco]")


def test_what_is_planned_through_goes_on_where_angles_jump():
    """A pole that passes its half turn, seen as cosine and sine, against a step of MuJoCo's own."""
    pytest.importorskip("mujoco.mjx", reason="MJX needs the extra [mujoco]")
    policy, robot = mjx_policy("craik/CartPoleRobot-v0", "ilqr")
    model = built(robot)
    model.opt.timestep, model.opt.integrator = robot.period, mujoco.mjtIntegrator.mjINT_EULER
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = [0.3, 3.13], [0.1, 4.0], 3.0
    seen = robot.observe(data.qpos, data.qvel)
    mujoco.mj_step(model, data)
    assert data.qpos[1] > np.pi
    assert policy.phases is not None
    begun = PolicyState(None, jnp.zeros(1))  # pyright: ignore[reportArgumentType]
    in_flight = InFlight(jnp.array([[0.0], [3.0]]), 1)
    following = jax.jit(policy.phases.prepare)(None, jnp.asarray(seen, jnp.float32), begun, in_flight).state
    np.testing.assert_allclose(following, robot.observe(data.qpos, data.qvel), atol=2e-6)


def test_only_robots_of_mujocos_are_planned_for_through_mjx(capsys):
    assert main(["export", "--mjx", "CartPole-v1"]) == 2
    assert "is no robot with equations in MuJoCo's format; these are: craik/CartPoleRobot-v0" in capsys.readouterr().err


def test_planners_that_sample_look_ahead_for_a_share_of_the_horizon():
    descending = [recipe(name) for name in ("ilqr", "gradient", "collocation", "chain")]
    sampling = [recipe(name) for name in ("mppi", "cem", "icem", "predictive_sampling")]
    assert {(made.share, made.end) for made in descending} == {(1.0, 0.4)}
    assert {(made.share, made.end) for made in sampling} == {(0.72, 0.6)}
    assert recipe(mpc.PlannerConfig("mppi", samples=8)).config.samples == 8


def test_a_planner_that_samples_plans_through_mjx():
    pytest.importorskip("mujoco.mjx", reason="MJX needs the extra [mujoco]")
    policy, robot = mjx_policy("craik/CartPoleRobot-v0", "mppi")
    seen = jax.ShapeDtypeStruct((len(robot.names),), jnp.float32)
    state = jax.eval_shape(policy.init, None, seen, jax.random.key(0))
    decision = jax.eval_shape(policy.step, None, seen, state)[1]
    assert policy.horizon == 36 and decision.plan.actions.shape == (36, 1)


def test_an_unknown_planner_is_refused_with_the_known_names(capsys):
    pytest.importorskip("mujoco.mjx", reason="MJX needs the extra [mujoco]")
    assert main(["export", "--mjx", "craik/CartPoleRobot-v0", "--planner", "sampling"]) == 2
    assert "planner must be one of gradient, ilqr, " in capsys.readouterr().err
