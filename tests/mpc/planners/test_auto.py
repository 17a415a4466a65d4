import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.planners.auto import recommend

BOX, KEY = mpc.Box([-1.0], [1.0]), jax.random.key(0)


def problem(dynamics=None, cost=None, space: mpc.spaces.Space = BOX, **settings) -> mpc.Problem:
    return mpc.Problem(
        dynamics or (lambda p, s, a: s + 0.3 * jnp.sin(a).sum()),
        cost or (lambda p, s, a, t: jnp.sum((s - 1.0) ** 2)),
        horizon=6,
        action_space=space,
        **settings,
    )


def searched(params, state, action):
    """A loop of unknown length has no derivative in reverse."""
    return jax.lax.while_loop(lambda x: x[0] < -5, lambda x: x + 1, state) + 0.3 * action


CASES = {
    "smooth and small": (problem(), 2, "ilqr", "smooth and small: 3 numbers"),
    "constrained": (
        problem(constraints=[mpc.constraints.inequality(lambda p, s, a, t: s - 2.0)]),
        2,
        "ilqr",
        "smooth and small",
    ),
    "large": (problem(), 100, "gradient", "101 numbers"),
    "choices": (problem(space=mpc.Discrete(3)), 1, "cem", "Discrete are choices"),
    "rate limited": (problem(space=mpc.spaces.rate_limited(BOX, 0.3)), 1, "gradient", "RateLimited ties steps together"),
    "searched": (problem(searched), 1, "icem", "has no gradient"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_planner_follows_from_the_problem_and_the_reason_is_told(case):
    posed, size, name, reason = CASES[case]
    params = {"previous_action": jnp.zeros(1)}
    config, why = recommend(posed, params, jax.ShapeDtypeStruct((size,), jnp.float32))
    assert config.name == name and reason in why


def test_it_plans_as_the_planner_that_was_chosen_in_every_use(caplog):
    posed, start = problem(), jnp.zeros(2)
    chosen, auto = mpc.make_planner(posed, recommend(posed, None, start)[0]), mpc.make_planner(posed, "auto")
    with caplog.at_level("INFO", "mpc.planners.auto"):
        plan = mpc.solve(auto, None, start, KEY, 8)
    assert "planning by ilqr: the problem is smooth and small" in caplog.text
    np.testing.assert_array_equal(plan.actions, mpc.solve(chosen, None, start, KEY, 8).actions)
    again = mpc.solve(auto, None, start, KEY, 1, memory=plan.memory)
    assert float(again.cost) <= float(plan.cost) + 1e-5
    together = jax.vmap(lambda s: mpc.solve(auto, None, s, KEY, 8).cost)(jnp.stack([start, start]))
    np.testing.assert_allclose(together, plan.cost, rtol=1e-6)
    controller = mpc.Controller(auto, None, observation=start, iterations=8)
    np.testing.assert_allclose(controller.act(start), plan.actions[0], atol=1e-3)
