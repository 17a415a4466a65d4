"""MuJoCo's equations in JAX against MuJoCo itself, their derivatives against its finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.robots import built, named
from world_models.mjx import mjx_dynamics

mujoco = pytest.importorskip("mujoco", reason="MJX needs the extra [mujoco]")
pytest.importorskip("mujoco.mjx", reason="MJX needs the extra [mujoco]")
STATE, ACTION, PERIOD = np.array([0.2, 2.5, 0.4, -1.5]), np.array([3.0]), 0.02


@pytest.fixture(scope="module")
def model():
    return built(named("cartpole"))


@pytest.fixture(scope="module")
def truth(model):
    """One step of MuJoCo's, as long as a period, and its Jacobian by central differences."""
    model = built(named("cartpole"))
    model.opt.timestep, model.opt.integrator = PERIOD, mujoco.mjtIntegrator.mjINT_EULER
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = STATE[:2], STATE[2:], ACTION
    by_state, by_action = np.zeros((4, 4)), np.zeros((4, 1))
    mujoco.mjd_transitionFD(model, data, 1e-6, True, by_state, by_action, None, None)
    mujoco.mj_step(model, data)
    return np.concatenate([data.qpos, data.qvel]), np.hstack([by_state, by_action])


def test_a_step_and_its_derivatives_are_mujocos_own_and_need_no_library(model, truth):
    dynamics = mjx_dynamics(model, PERIOD, steps=1)

    def both_ways(state, action):
        """The next state, its Jacobian forwards, and one of its rows backwards."""

        def following(both):
            return dynamics(None, both[:4], both[4:])

        both = jnp.concatenate([state, action])
        forwards = jax.jvp(following, (both,), (jnp.ones(5),))[1]
        value, back = jax.vjp(following, both)
        return value, forwards, back(jnp.array([1.0, 2.0, 3.0, 4.0]))[0]

    lowered = jax.jit(both_ways).lower(jnp.asarray(STATE, jnp.float32), jnp.asarray(ACTION, jnp.float32))
    assert "lapack" not in lowered.as_text()
    value, forwards, backwards = lowered.compile()(jnp.asarray(STATE, jnp.float32), jnp.asarray(ACTION, jnp.float32))
    expected, jacobian = truth
    np.testing.assert_allclose(value, expected, atol=2e-6)
    np.testing.assert_allclose(forwards, jacobian @ np.ones(5), atol=1e-4)
    np.testing.assert_allclose(backwards, np.array([1.0, 2.0, 3.0, 4.0]) @ jacobian, atol=1e-4)
    assert model.opt.timestep == 0.002  # the caller's model stays as it is


def test_what_cannot_be_planned_through_is_refused(model):
    with pytest.raises(ValueError, match="period must be positive"):
        mjx_dynamics(model, 0.0)
    muscle = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint name='a'/><geom size='1'/></body></worldbody>"
        "<actuator><general joint='a' dyntype='integrator'/></actuator></mujoco>"
    )
    with pytest.raises(ValueError, match="actuators have 1 states more"):
        mjx_dynamics(muscle, 0.02)


PENDULUM = """<mujoco><option timestep="0.002" integrator="{}"/><worldbody><body><joint name="a" axis="0 1 0" damping="0.3"/>
<geom size=".05" pos="0 0 -.5"/></body></worldbody><actuator><motor joint="a"/></actuator></mujoco>"""


@pytest.mark.parametrize(("integrator", "period"), [("Euler", 0.02), ("RK4", 0.002)])
def test_a_period_is_as_many_steps_of_the_models_own_integrator_as_in_mujoco(integrator, period):
    model = mujoco.MjModel.from_xml_string(PENDULUM.format(integrator))
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = 2.0, 9.0, 0.5
    state = jnp.array([2.0, 9.0])
    while data.time < period - 1e-6:
        mujoco.mj_step(model, data)
    found = jax.jit(mjx_dynamics(model, period))(None, state, jnp.array([0.5]))
    np.testing.assert_allclose(found, [data.qpos[0], data.qvel[0]], rtol=2e-6)


def test_an_integrator_that_mjx_lacks_is_told_of():
    model = mujoco.MjModel.from_xml_string(PENDULUM.format("implicit"))
    with pytest.warns(UserWarning, match="no integrator 'implicit'"):
        mjx_dynamics(model, 0.002)
