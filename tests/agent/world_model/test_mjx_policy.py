"""Planning through MuJoCo's equations: what the planner is told of them, and for whom there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.robots import built
from mpc.agent.cli.main import main
from mpc.agent.world_model.mjx_policy import mjx_policy

mujoco = pytest.importorskip("mujoco", reason="MJX needs the extra [mujoco]")


def test_what_is_planned_through_goes_on_where_angles_jump():
    """A pole that passes its half turn, seen as cosine and sine, against a step of MuJoCo's own."""
    pytest.importorskip("mujoco.mjx", reason="MJX needs the extra [mujoco]")
    policy, robot = mjx_policy("craik/CartPoleRobot-v0", "gradient")
    model = built(robot)
    model.opt.timestep, model.opt.integrator = robot.period, mujoco.mjtIntegrator.mjINT_EULER
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = [0.3, 3.13], [0.1, 4.0], 3.0
    seen = robot.observe(data.qpos, data.qvel)
    mujoco.mj_step(model, data)
    assert data.qpos[1] > np.pi
    following = jax.jit(policy.planner.problem.dynamics)(None, jnp.asarray(seen), jnp.asarray([3.0], jnp.float32))
    np.testing.assert_allclose(following, robot.observe(data.qpos, data.qvel), atol=2e-6)


def test_only_robots_of_mujocos_are_planned_for_through_mjx(capsys):
    assert main(["export", "--mjx", "CartPole-v1"]) == 2
    assert "is no robot with equations in MuJoCo's format; these are: craik/CartPoleRobot-v0" in capsys.readouterr().err
