"""JAX's strict modes: every planner works under them, and the functions of a problem are held to them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.deploy import runtime

PLANNERS: dict[str, Callable[[mpc.Problem], mpc.Planner]] = {
    "gradient": lambda p: mpc.gradient(p, starts=2),
    "lbfgs": lambda p: mpc.gradient(p, optimizer="lbfgs", starts=1),
    "ilqr": lambda p: mpc.ilqr(p),
    "continuation": lambda p: mpc.ilqr(p, continuation=1),
    "collocation": lambda p: mpc.collocation(p, starts=2),
    "cem": lambda p: mpc.cem(p, samples=8, elites=2, knots=2),
    "icem": lambda p: mpc.icem(p, samples=8, elites=2),
    "mppi": lambda p: mpc.mppi(p, samples=8),
    "predictive sampling": lambda p: mpc.predictive_sampling(p, samples=4),
    "chain": lambda p: mpc.chain(mpc.mppi(p, samples=4), mpc.gradient(p, starts=1), switch_after=1),
}
SPACES = {
    "box": mpc.Box([-1.0, -2.0], [1.0, 2.0]),
    "choices": mpc.MultiDiscrete([3, 2]),
    "held": mpc.spaces.held(mpc.Box([-1.0], [1.0]), 2),
    "rate limited": mpc.spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.3),
}
CASES = [(name, "box") for name in PLANNERS] + [("cem", space) for space in SPACES] + [("gradient", "choices")]
LIMITS = (
    mpc.constraints.inequality(lambda p, s, a, t: s[0] - 2.0),
    mpc.constraints.equality(lambda p, s, a, t: jnp.zeros(()) * s[0], name="nothing"),
)


def problem(space: mpc.spaces.Space, constraints=()) -> mpc.Problem:
    """A point in the plane that is pushed along both axes."""
    return mpc.Problem(
        lambda p, s, a: s + p["gain"] * jnp.sum(a),
        lambda p, s, a, t: s @ s + 0.1 * jnp.sum(a * a),
        horizon=3,
        action_space=space,
        constraints=constraints,
    )


@pytest.fixture
def strict() -> Iterator[None]:
    with ExitStack() as modes:
        modes.enter_context(jax.numpy_rank_promotion("raise"))
        modes.enter_context(jax.numpy_dtype_promotion("strict"))
        modes.enter_context(jax.transfer_guard("disallow"))
        yield


def given() -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Parameters, a state and a key, brought to the device explicitly."""
    words = jax.device_put(np.array([0, 1], np.uint32))
    previous = jax.device_put(np.full(1, np.nan, np.float32))
    params = {"gain": jax.device_put(np.float32(0.5)), "previous_action": previous}
    return params, jax.device_put(np.array([0.3, -0.2], np.float32)), jax.random.wrap_key_data(words)


@pytest.mark.parametrize(("name", "space"), CASES)
def test_every_planner_is_traced_in_strict_modes(strict, name, space):
    planner = PLANNERS[name](problem(SPACES[space], LIMITS if space == "box" else ()))
    params, state, key = given()
    policy = mpc.policy(planner, iterations=1)
    begun = jax.eval_shape(policy.init, params, state, key)
    jax.eval_shape(policy.step, params, state, begun)
    jax.eval_shape(planner.inject, begun.controller.planner_state, begun.controller.fallback)


def test_solves_controllers_and_artefacts_work_in_strict_modes(strict):
    planner = PLANNERS["predictive sampling"](problem(SPACES["box"]))
    params, state, key = given()
    settings: list[dict[str, Any]] = [{}, {"deadline": 60.0}, {"tolerance": -1.0}]
    plans = [mpc.solve(planner, params, state, key, 2, **how) for how in settings]
    assert [int(jax.device_get(plan.info["iterations"])) for plan in plans] == [2, 2, 2]
    for deadline in (None, 60.0):
        controller = mpc.Controller(planner, params, observation=np.zeros(2), iterations=1, deadline=deadline)
        controller.params = {"gain": 0.4, "previous_action": [0.0]}
        for seen in (np.array([0.3, -0.2]), [np.nan, 0.0], "text"):
            assert np.isfinite(controller.act(seen)).all()
    data = mpc.export(mpc.policy(planner, iterations=1), params, np.zeros(2), delay=1, platforms=("cpu",))
    artefact = runtime.loads(data)
    decision = artefact.step([0.3, -0.2], artefact.init([0.3, -0.2]))
    assert np.isfinite(decision.action).all()


WRONG = {"rank": lambda p, s, a: (s[None] * s)[0], "dtype": lambda p, s, a: s + jnp.arange(2, dtype=jnp.int32)}


@pytest.mark.parametrize("mode", WRONG)
def test_the_functions_of_a_problem_are_held_to_strict_modes(strict, mode):
    wrong = mpc.Problem(WRONG[mode], lambda p, s, a, t: s @ s, horizon=2, action_space=SPACES["box"])
    with pytest.raises(Exception, match=f"numpy_{mode}_promotion"):
        mpc.solve(mpc.mppi(wrong, samples=4), *given(), iterations=1)
