"""The gradient planner against known optima, finite differences, loops and bad models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc

KEY = jax.random.key(0)


def pendulum() -> mpc.Problem:
    """The swing-up reference problem whose best known optimum is 170.04488."""

    def dynamics(params, state, action):
        speed = state[1] + 0.05 * (15.0 * jnp.sin(state[0]) + 3.0 * action[0])
        return jnp.stack([state[0] + 0.05 * speed, speed])

    def cost(params, state, action, t):
        return 2.0 * (1.0 - jnp.cos(state[0])) + 0.1 * state[1] ** 2 + 0.001 * action[0] ** 2

    def terminal(params, state):
        return 20.0 * (1.0 - jnp.cos(state[0])) + state[1] ** 2

    return mpc.Problem(dynamics, cost, terminal, horizon=50, action_space=mpc.Box([-2.0], [2.0]))


def test_pendulum_reaches_its_best_known_optimum():
    planner = mpc.gradient(pendulum(), starts=4)
    plan = mpc.solve(planner, None, jnp.array([jnp.pi, 0.0]), jax.random.key(0), iterations=300)
    theta, omega, total = np.pi, 0.0, 0.0
    for u in np.asarray(plan.actions, np.float64)[:, 0]:
        total += 2 * (1 - np.cos(theta)) + 0.1 * omega**2 + 0.001 * u**2
        omega = omega + 0.05 * (15 * np.sin(theta) + 3 * u)
        theta = theta + 0.05 * omega
    total += 20 * (1 - np.cos(theta)) + omega**2
    assert total == pytest.approx(170.04488, abs=1e-3)
    assert float(plan.cost) == pytest.approx(total, rel=1e-5)
    assert float(sum(jnp.sum(c) for c in plan.costs.values())) == pytest.approx(float(plan.cost), rel=1e-6)


def test_linear_quadratic_optimum_by_riccati():
    a, b, horizon = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]]), 20
    cost_to_go = np.eye(2)
    gains = []
    for _ in range(horizon):
        gain = np.linalg.solve(0.1 * np.eye(1) + b.T @ cost_to_go @ b, b.T @ cost_to_go @ a)
        cost_to_go = np.eye(2) + a.T @ cost_to_go @ (a - b @ gain)
        gains.append(gain)
    start = np.array([1.0, -0.5])
    problem = mpc.Problem(
        lambda p, s, u: jnp.asarray(a, s.dtype) @ s + jnp.asarray(b, s.dtype) @ u,
        lambda p, s, u, t: s @ s + 0.1 * u @ u,
        lambda p, s: s @ s,
        horizon=horizon,
        action_space=mpc.Box([-10.0], [10.0]),
    )
    planner = mpc.gradient(problem, optimizer=optax.adam(0.01), starts=2)
    plan = mpc.solve(planner, None, jnp.asarray(start, float), jax.random.key(1), iterations=1500)
    assert float(plan.cost) == pytest.approx(start @ cost_to_go @ start, rel=1e-4)
    np.testing.assert_allclose(plan.actions[0], -gains[-1] @ start, atol=2e-2)


def test_costates_are_the_energys_derivatives():
    problem, state = pendulum(), jnp.array([2.0, 0.5])
    actions = 0.5 * jnp.ones((50, 1))
    adjoint = mpc.costates(problem, None, state, actions)
    slope = jax.grad(lambda s: mpc.energy(problem, None, s, actions))(state)
    np.testing.assert_allclose(adjoint[0], slope, rtol=1e-4)
    last = mpc.rollout(problem, None, state, actions).states[-1]
    np.testing.assert_allclose(adjoint[-1], [20 * np.sin(last[0]), 2 * last[1]], rtol=1e-4)


def test_vmapped_solves_equal_single_ones():
    planner = mpc.gradient(pendulum(), starts=2)
    states = jnp.array([[jnp.pi, 0.0], [1.0, -1.0], [0.1, 0.2]])
    keys = jax.random.split(jax.random.key(2), 3)
    together = jax.vmap(lambda s, k: mpc.solve(planner, None, s, k, iterations=20).cost)(states, keys)
    alone = [mpc.solve(planner, None, s, k, iterations=20).cost for s, k in zip(states, keys, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(low=st.floats(-1e3, 1e3), width=st.floats(0, 1e3), seed=st.integers(0, 2**30))
def test_box_actions_never_leave_their_bounds(low, width, seed):
    space = mpc.Box([low], [low + width])
    variables = 3 * jax.random.normal(jax.random.key(seed), (64, 1))
    actions = np.asarray(space.decide(space.project(variables)), np.float64)
    float32_gap = np.spacing(np.float32(max(abs(low), abs(low + width))))
    if width > max(4 * float32_gap, 1e-30):
        assert (actions >= low).all() and (actions <= low + width).all()
        again = space.decide(space.encode(jnp.asarray(actions, jnp.float32)))
        np.testing.assert_allclose(again, actions, atol=4 * float32_gap)


def test_discrete_plans_pick_the_best_alternative():
    problem = mpc.Problem(
        lambda p, s, a: s + a @ jnp.array([-1.0, 0.0, 1.0]),
        lambda p, s, a, t: s**2,
        lambda p, s: 10 * s**2,
        horizon=6,
        action_space=mpc.Discrete(3),
    )
    plan = mpc.solve(mpc.gradient(problem, starts=32), None, jnp.asarray(4.0), jax.random.key(0), iterations=60)
    assert plan.actions.tolist()[:4] == [0, 0, 0, 0]
    assert float(plan.cost) == 16 + 9 + 4 + 1


def test_a_model_that_breaks_gives_a_status_and_bounded_actions():
    problem = mpc.Problem(
        lambda p, s, a: s * jnp.nan,
        lambda p, s, a, t: jnp.sum(s),
        horizon=5,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    plan = mpc.solve(mpc.gradient(problem, starts=3), None, jnp.ones(2), jax.random.key(0), iterations=3)
    assert plan.status == mpc.Status.NOT_FINITE
    assert np.isfinite(plan.actions).all() and (np.abs(plan.actions) <= 1).all()


def test_tolerance_stops_early_and_says_so():
    problem = mpc.Problem(
        lambda p, s, a: a, lambda p, s, a, t: jnp.sum((a - 0.5) ** 2), horizon=3, action_space=mpc.Box([-1.0], [1.0])
    )
    planner = mpc.gradient(problem, optimizer=optax.sgd(0.4), starts=1)
    plan = mpc.solve(planner, None, jnp.zeros(1), jax.random.key(0), iterations=100, tolerance=1e-4)
    assert plan.status == mpc.Status.CONVERGED and plan.info["iterations"] < 20
    np.testing.assert_allclose(plan.actions, 0.5, atol=1e-3)


@pytest.mark.parametrize(
    ("dynamics", "cost", "message"),
    [
        (lambda p, s, a: s, lambda p, s, a, t: s, "scalar"),
        (lambda p, s, a: s[:1], lambda p, s, a, t: jnp.sum(s), "keep the state's shapes"),
        (lambda p, s, a: (s, s), lambda p, s, a, t: jnp.sum(s), "built like"),
    ],
)
def test_functions_that_do_not_fit_are_refused(dynamics, cost, message):
    problem = mpc.Problem(dynamics, cost, horizon=3, action_space=mpc.Box([-1.0], [1.0]))
    with pytest.raises(ValueError, match=message):
        mpc.solve(mpc.gradient(problem, starts=1), None, jnp.ones(2), jax.random.key(0), iterations=1)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="reversed"):
        mpc.Box([1.0], [-1.0])
    with pytest.raises(ValueError, match="horizon"):
        mpc.Problem(lambda p, s, a: s, lambda p, s, a, t: jnp.sum(s), horizon=0, action_space=mpc.Box([-1.0], [1.0]))
    with pytest.raises(ValueError, match="starts"):
        mpc.gradient(pendulum(), starts=0)
    with pytest.raises(ValueError, match="at least one term"):
        mpc.costs.total()


def test_weights_given_as_parameters_override_the_defaults():
    cost = mpc.costs.total(goal=(1.0, lambda p, s, a, t: jnp.sum(s)), effort=(0.1, lambda p, s, a, t: jnp.sum(a)))
    params = {"cost": {"weights": {"effort": 2.0}}}
    assert float(cost(params, jnp.ones(2), jnp.ones(1), 0)) == 4.0
    assert float(cost(None, jnp.ones(2), jnp.ones(1), 0)) == pytest.approx(2.1)


def test_a_plan_of_choices_is_never_dearer_than_its_guess():
    """A balanced pole pushed left or right: relaxed plans get cheaper and cheaper, and round to ones that fall."""

    def dynamics(params, state, action):
        angle, speed = state
        speed = speed + 0.1 * (4.0 * angle + 3.0 * (action[1] - action[0]))
        return jnp.stack([angle + 0.1 * speed, speed])

    problem = mpc.Problem(dynamics, lambda p, s, a, t: s @ s, horizon=30, action_space=mpc.Discrete(2))
    state, choices = jnp.array([0.1, 0.0]), []
    for _ in range(problem.horizon):  # a controller that balances
        choices.append(int(2.0 * state[0] + state[1] < 0.0))
        state = dynamics(None, state, problem.action_space.embed(jnp.asarray(choices[-1])))
    guess, start = jnp.array(choices), jnp.array([0.1, 0.0])
    balanced = float(mpc.energy(problem, None, start, problem.action_space.embed(guess)))
    plan = mpc.solve(mpc.gradient(problem, starts=1), None, start, jax.random.key(0), 50, guess=guess)
    assert balanced < 10.0
    assert float(plan.cost) <= balanced + 1e-4


def test_lbfgs_settles_on_bounds_and_inside_them():
    plan = mpc.solve(mpc.gradient(pendulum(), optimizer="lbfgs", starts=4), None, jnp.array([jnp.pi, 0.0]), KEY, 80)
    assert float(plan.cost) == pytest.approx(170.0449, abs=2e-3)
    assert (np.abs(plan.actions) > 2 - 1e-5).any() and (np.abs(plan.actions) <= 2).all()


def test_any_optimiser_that_searches_along_a_line_will_do():
    problem = linear()
    plan = mpc.solve(mpc.gradient(problem, optimizer=optax.lbfgs(memory_size=3), starts=1), None, jnp.ones(1), KEY, 30)
    exact = mpc.solve(mpc.ilqr(problem), None, jnp.ones(1), KEY, 5)
    np.testing.assert_allclose(plan.actions, exact.actions, atol=1e-3)


def linear(horizon: int = 6) -> mpc.Problem:
    return mpc.Problem(
        lambda p, s, a: 0.9 * s + 0.2 * a,
        lambda p, s, a, t: s @ s + 0.1 * a @ a,
        horizon=horizon,
        action_space=mpc.Box([-9.0], [9.0]),
    )


def test_normalised_steps_do_not_hang_on_the_scale_of_the_energy():
    def scaled(scale):
        return mpc.Problem(
            lambda p, s, a: s + a,
            lambda p, s, a, t: scale * jnp.sum(s * s),
            lambda p, s: scale * jnp.sum(s * s),
            horizon=4,
            action_space=mpc.Box([-1.0], [1.0]),
        )

    plans = [
        mpc.solve(mpc.gradient(scaled(s), optimizer=optax.sgd(0.02), starts=1, normalise=True), None, jnp.ones(1), KEY, 20)
        for s in (1.0, 1e6)
    ]
    np.testing.assert_allclose(plans[0].actions, plans[1].actions, atol=1e-3)
    assert float(plans[0].cost) < 4.0


@pytest.mark.parametrize(("clip", "expected"), [(None, [27, 9, 3, 1]), (5.0, [5, 5, 3, 1]), (100.0, [27, 9, 3, 1])])
def test_clipped_costates(clip, expected):
    """Each step triples the costate of a linear terminal cost, until it is clipped."""
    problem = mpc.Problem(
        lambda p, s, a: 3.0 * s + a,
        lambda p, s, a, t: jnp.zeros(()),
        lambda p, s: s[0],
        horizon=4,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    planner = mpc.gradient(problem, optimizer=optax.sgd(1e-3), starts=1, clip=clip)
    planner_state = planner.init(None, jnp.zeros(1), KEY, jnp.zeros((4, 1)))
    after = planner.step(None, jnp.zeros(1), planner_state)
    np.testing.assert_allclose(-1e3 * after.variables[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("horizon", [1, 2, 7, 16])
def test_rematerialised_energies_have_the_same_gradient(horizon):
    problem, actions = linear(horizon), jnp.linspace(-1, 1, horizon)[:, None]
    plain, again = (
        jax.value_and_grad(lambda a, remat=remat: mpc.energy(problem, None, jnp.ones(1), a, remat=remat))(actions)
        for remat in (False, True)
    )
    np.testing.assert_allclose(plain[0], again[0], rtol=1e-6)
    np.testing.assert_allclose(plain[1], again[1], rtol=1e-5)


def neural(horizon: int, latent: int) -> mpc.Problem:
    """A residual network imagined over `horizon` steps."""

    def dynamics(params, state, action):
        hidden = jax.nn.silu(params["in"] @ jnp.concatenate([state, action]))
        return state + params["out"] @ hidden

    return mpc.Problem(dynamics, lambda p, s, a, t: s @ s, horizon=horizon, action_space=mpc.Box(-np.ones(2), np.ones(2)))


def held(horizon: int, latent: int, starts: int, remat: bool) -> int:
    """Bytes that one compiled step of the planner needs beside its arguments and results."""
    planner = mpc.gradient(neural(horizon, latent), starts=starts, remat=remat)
    params = {"in": np.zeros((2 * latent, latent + 2), np.float32), "out": np.zeros((latent, 2 * latent), np.float32)}
    state, key = jnp.zeros(latent), jax.random.key(0)
    planner_state = jax.eval_shape(planner.init, params, state, key)
    compiled = jax.jit(planner.step).lower(params, state, planner_state).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes


def test_rematerialised_memory_grows_with_the_root_of_the_horizon():
    """Extrapolated: horizon 1,000, latent 512, 64 starts need less than 4 GiB."""
    latent, starts = 64, 8
    small, large = (held(h, latent, starts, remat=True) for h in (100, 400))
    assert large < 0.25 * held(400, latent, starts, remat=False)
    assert large < 2.5 * small
    per_state = (large - small) / ((2 * 20 - 2 * 10) * starts * latent * 4)  # buffers the size of a state, per step kept
    assert per_state * 2 * np.sqrt(1000) * 64 * 512 * 4 < 4 * 2**30


def test_screening_drops_hopeless_starts():
    planner = mpc.gradient(pendulum(), starts=2, screen=(16, 30))
    state = jnp.array([jnp.pi, 0.0])
    planner_state = jax.jit(planner.init)(None, state, KEY)
    assert planner_state.starts.variables.shape == (2, 50, 1)
    every = jax.jit(mpc.gradient(pendulum(), starts=16).init)(None, state, KEY)
    assert every.starts.variables.shape == (16, 50, 1)
    few = mpc.solve(planner, None, state, KEY, 1)
    blind = mpc.solve(mpc.gradient(pendulum(), starts=2), None, state, KEY, 1)
    assert float(few.cost) < float(blind.cost)


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"optimizer": "newton"}, {"optimizer": "lbfgs", "normalise": True}, {"spread": -1.0}]
)
def test_settings_that_cannot_be_meant(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mpc.gradient(linear(), **wrong)
