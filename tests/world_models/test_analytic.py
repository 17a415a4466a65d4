"""A known model as a world model: actions in the environment's units, rewards and observations as given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from world_models import analytic


def tank(**settings):
    """A level that an inflow raises by half of it, with a reward for a level of 12 after the step."""
    return analytic(
        lambda params, state, action: state + params["area"] * action,
        lambda params, state, action: -jnp.square(state[0] + params["area"] * action[0] - 12.0),
        None,
        {"area": 0.5},
        **settings,
    )


def test_actions_of_an_asymmetric_box_arrive_in_its_units():
    """From 2, the inflow that leads to 12 at once is 20, and 0 keeps it there."""
    model = tank(discount=1.0)
    params = model.init(jax.random.key(0))
    assert model.has_reward and not model.normalised_actions
    problem = mpc.Problem(
        model.predict,
        lambda p, s, a, t: -s.reward,
        lambda p, s: -s.reward,
        horizon=2,
        action_space=mpc.Box([0.0], [20.0]),
    )
    planner = mpc.gradient(problem, starts=4)
    plan = jax.jit(lambda: mpc.solve(planner, params, model.encode(params, jnp.array([2.0])), jax.random.key(0), 200))()
    np.testing.assert_allclose(plan.actions[:, 0], [20.0, 0.0], atol=0.2)
    np.testing.assert_allclose(plan.states.latent[-1], [12.0], atol=0.1)


def test_rewards_are_discounted_and_observations_are_states_unless_told():
    model = tank(discount=0.9)
    params = model.init(jax.random.key(0))
    state = model.encode(params, jnp.array([2.0]))
    for action in (4.0, 6.0):  # to 4, then to 7
        state = model.predict(params, state, jnp.array([action]))
    np.testing.assert_allclose(state.reward, 0.9 * -((7.0 - 12.0) ** 2), rtol=1e-6)
    np.testing.assert_allclose([state.discount, state.disagreement], [0.81, 0.0], rtol=1e-6)
    assert model.decode is not None
    np.testing.assert_array_equal(model.decode(params, state), [7.0])


def test_states_are_decoded_by_observation_of_and_need_no_reward():
    model = analytic(
        lambda params, state, action: state + action,
        None,
        lambda seen: jnp.arctan2(seen[1:], seen[:1]),
        {},
        observation_of=lambda state: jnp.concatenate([jnp.cos(state), jnp.sin(state)]),
    )
    params = model.init(jax.random.key(0))
    state = model.predict(params, model.encode(params, jnp.array([0.0, 1.0])), jnp.array([np.pi / 2]))
    assert model.decode is not None and not model.has_reward
    np.testing.assert_allclose(model.decode(params, state), [-1.0, 0.0], atol=1e-6)
    assert float(state.reward) == 0.0 and float(state.discount) == 1.0
    blind = analytic(lambda params, state, action: state, None, lambda seen: seen[:1], {})
    assert blind.decode is None
    with pytest.raises(ValueError, match="discount must lie"):
        tank(discount=0.0)
