"""iLQR against Riccati, brute force, known optima and finite differences; its two backward passes against each other."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mpc
from mpc.planners.riccati import Expansion, backward, factorise, limited_policy, parallel_backward, substitute

FLOOR = jnp.asarray(1e-6)
POLICY = jax.jit(limited_policy)


def positive_definite(rng: np.random.Generator, size: int) -> np.ndarray:
    root = rng.standard_normal((size, size))
    return root @ root.T + 0.3 * np.eye(size)


def linear_quadratic(controls: int, bound: float, horizon: int = 20) -> tuple[mpc.Problem, np.ndarray, float, np.ndarray]:
    """A linear-quadratic problem, a state, and by Riccati the optimal cost and first action where no bound is met."""
    rng = np.random.default_rng(controls)
    a, b = np.eye(3) + 0.1 * rng.standard_normal((3, 3)), 0.3 * rng.standard_normal((3, controls))
    q, r, n = positive_definite(rng, 3), positive_definite(rng, controls), 0.1 * rng.standard_normal((controls, 3))
    value, gain = q, np.zeros((controls, 3))
    for _ in range(horizon):
        gain = np.linalg.solve(r + b.T @ value @ b, n + b.T @ value @ a)
        value = q + a.T @ value @ a - gain.T @ (n + b.T @ value @ a)
    state = np.array([1.0, -0.5, 0.3])
    problem = mpc.Problem(
        lambda p, s, u: jnp.asarray(a, s.dtype) @ s + jnp.asarray(b, s.dtype) @ u,
        lambda p, s, u, t: (
            0.5 * s @ q.astype(np.float32) @ s + 0.5 * u @ r.astype(np.float32) @ u + u @ n.astype(np.float32) @ s
        ),
        lambda p, s: 0.5 * s @ q.astype(np.float32) @ s,
        horizon=horizon,
        action_space=mpc.Box([-bound] * controls, [bound] * controls),
    )
    return problem, state, float(0.5 * state @ value @ state), np.asarray(-gain @ state)


def pendulum(horizon: int = 50) -> mpc.Problem:
    """The swing-up reference problem whose best known optimum is 170.04488."""

    def dynamics(params, state, action):
        speed = state[1] + 0.05 * (15.0 * jnp.sin(state[0]) + 3.0 * action[0])
        return jnp.stack([state[0] + 0.05 * speed, speed])

    def cost(params, state, action, t):
        return 2.0 * (1.0 - jnp.cos(state[0])) + 0.1 * state[1] ** 2 + 0.001 * action[0] ** 2

    def terminal(params, state):
        return 20.0 * (1.0 - jnp.cos(state[0])) + state[1] ** 2

    return mpc.Problem(dynamics, cost, terminal, horizon=horizon, action_space=mpc.Box([-2.0], [2.0]))


HANGING = jnp.array([jnp.pi, 0.0])


def exact_cost(actions: jax.Array) -> float:
    theta, omega, total = np.pi, 0.0, 0.0
    for u in np.asarray(actions, np.float64)[:, 0]:
        total += 2 * (1 - np.cos(theta)) + 0.1 * omega**2 + 0.001 * u**2
        omega = omega + 0.05 * (15 * np.sin(theta) + 3 * u)
        theta = theta + 0.05 * omega
    return total + 20 * (1 - np.cos(theta)) + omega**2


@pytest.mark.parametrize(("controls", "parallel"), [(1, False), (2, False), (2, True)])
def test_linear_quadratic_problems_take_one_iteration(controls, parallel):
    problem, state, optimum, action = linear_quadratic(controls, bound=np.inf, horizon=3 if parallel else 20)
    planner = mpc.ilqr(problem, parallel=parallel, second_order=0.0)
    guess = 0.1 * jnp.ones((problem.horizon, controls))
    plan = mpc.solve(planner, None, jnp.asarray(state, jnp.float32), jax.random.key(0), iterations=1, guess=guess)
    assert float(plan.cost) == pytest.approx(optimum, rel=1e-5)
    np.testing.assert_allclose(plan.actions[0], action, atol=1e-3)


def test_limited_linear_quadratic_problems_meet_the_optimality_conditions():
    problem, state, _, _ = linear_quadratic(2, bound=1.5)
    state = jnp.asarray(state, jnp.float32)
    plan = mpc.solve(mpc.ilqr(problem, second_order=0.0), None, state, jax.random.key(0), iterations=12)
    slope = np.asarray(jax.grad(lambda u: mpc.energy(problem, None, state, u))(plan.actions))
    actions = np.asarray(plan.actions)
    clamped = np.abs(actions) > 1.5 - 1e-5
    assert clamped.any() and not clamped.all()
    assert (slope * np.sign(actions))[clamped].max() < 1e-3  # pushes outwards
    assert np.abs(slope[~clamped]).max() < 2e-3


def test_pendulum_reaches_its_best_known_optimum():
    planner = mpc.ilqr(pendulum())
    plan = mpc.solve(planner, None, HANGING, jax.random.key(1), iterations=40, tolerance=1e-3)
    assert exact_cost(plan.actions) == pytest.approx(170.04488, abs=1e-4)
    assert plan.status == mpc.Status.CONVERGED and plan.info["iterations"] < 30


def test_a_plan_that_rounding_cannot_improve_is_settled():
    """In float32 no gradient gets to 1e-9; the solve ends all the same, and not before it is at the optimum."""
    plan = mpc.solve(mpc.ilqr(pendulum()), None, HANGING, jax.random.key(0), 200, guess=jnp.ones((50, 1)), tolerance=1e-9)
    assert plan.status == mpc.Status.CONVERGED and plan.info["iterations"] < 60
    assert exact_cost(plan.actions) == pytest.approx(170.04488, rel=1e-5)


def test_actions_leave_a_bound_that_no_float32_meets():
    problem = mpc.Problem(
        lambda p, s, a: s + a,
        lambda p, s, a, t: jnp.sum(s**2 + a**2),
        lambda p, s: jnp.sum(s**2),
        horizon=10,
        action_space=mpc.Box([-0.15], [0.15]),
    )
    guess = jnp.full((10, 1), 0.15)
    plan = mpc.solve(mpc.ilqr(problem), None, jnp.zeros(1), jax.random.key(0), 20, guess=guess, tolerance=1e-5)
    assert float(plan.cost) < 1e-9 and plan.status == mpc.Status.CONVERGED


def test_curvature_of_the_dynamics_makes_convergence_quadratic():
    """Cost does not fall to zero on the curve that states are kept to, so that Gauss-Newton converges only linearly."""
    problem = mpc.Problem(
        lambda p, s, a: jnp.stack([s[0] + a[0], s[1] + 0.7 * jnp.sin(2 * s[0] + a[0])]),
        lambda p, s, a, t: 0.05 * a[0] ** 2 + (s[1] - 2.0) ** 2,
        lambda p, s: 2 * (s[1] - 3.0) ** 2,
        horizon=4,
        action_space=mpc.Box([-5.0], [5.0]),
    )

    def residual(second_order: float) -> float:
        planner = mpc.ilqr(problem, second_order=second_order)
        plan = mpc.solve(planner, None, jnp.zeros(2), jax.random.key(0), iterations=12, guess=0.3 * jnp.ones((4, 1)))
        return float(plan.info["optimality"])

    assert residual(np.inf) < 1e-4 < 1e-2 < residual(0.0)


def test_an_infeasible_guess_of_states_is_followed_and_closed():
    """An unstable plant: with the guessed states, feedback holds it to them; the guessed actions alone would run away."""
    problem = mpc.Problem(
        lambda p, s, a: s + 0.3 * jnp.stack([s[1], 4 * jnp.sinh(s[0]) + a[0]]),
        lambda p, s, a, t: s @ s + 0.01 * a @ a,
        lambda p, s: 10 * s @ s,
        horizon=30,
        action_space=mpc.Box([-50.0], [50.0]),
    )
    planner, state = mpc.ilqr(problem, second_order=0.0, precision="float32"), jnp.array([0.5, 0.0])
    actions, states = jnp.zeros((30, 1)), jnp.linspace(state, jnp.zeros(2), 31)
    assert not np.isfinite(mpc.energy(problem, None, state, actions))
    planner_state = jax.jit(planner.init)(None, state, jax.random.key(0), (actions, states))
    assert jnp.isinf(planner_state.cost) and jnp.abs(planner_state.expansion.defects).max() > 0.1
    planner_state = jax.jit(planner.step)(None, state, planner_state)
    assert float(planner_state.cost) < 20
    np.testing.assert_allclose(planner_state.expansion.defects, 0.0, atol=1e-5)


def expansion(seed: int, horizon: int, controls: int, states: int, limit: float) -> Expansion:
    rng = np.random.default_rng(seed)
    size = controls + states
    jacobian = 0.5 * rng.standard_normal((horizon, states, size))
    hessian = np.stack([positive_definite(rng, size) for _ in range(horizon)])
    return Expansion(
        jacobian=jnp.float32(jacobian),
        defects=jnp.float32(0.3 * rng.standard_normal((horizon, states))),
        gradient=jnp.float32(rng.standard_normal((horizon, size))),
        hessian=jnp.float32(hessian),
        low=jnp.float32(-limit * rng.uniform(size=(horizon, controls))),
        high=jnp.float32(limit * rng.uniform(size=(horizon, controls))),
        terminal_gradient=jnp.float32(rng.standard_normal(states)),
        terminal_hessian=jnp.float32(positive_definite(rng, states)),
    )


@pytest.mark.parametrize("controls", [1, 2])
def test_the_parallel_pass_equals_the_sequential_one(controls):
    one_after_other, at_once = jax.jit(backward), jax.jit(parallel_backward)
    for seed, limit in enumerate((np.inf, np.inf, 0.5, 0.5, 0.2)):
        problem = expansion(seed, 6, controls, 3, limit)
        expected, got = (f(problem, jnp.asarray(0.1), FLOOR) for f in (one_after_other, at_once))
        np.testing.assert_allclose(got.feedforward, expected.feedforward, atol=2e-4)
        np.testing.assert_allclose(got.gain, expected.gain, atol=2e-4)
        if np.isfinite(limit):
            assert (expected.feedforward == problem.low).any() and (expected.feedforward > problem.low).any()


def test_the_policy_of_a_backward_pass_minimises_the_quadratic():
    """Without limits: against one dense solve over all controls, defects included."""
    problem = expansion(5, 6, 2, 3, np.inf)
    policy = jax.jit(backward)(problem, jnp.asarray(0.0), FLOOR)

    def total(changes):
        state, energy = jnp.zeros(3), 0.0
        for t in range(6):
            z = jnp.concatenate([changes[t], state])
            energy = energy + problem.gradient[t] @ z + 0.5 * z @ problem.hessian[t] @ z
            state = problem.jacobian[t] @ z + problem.defects[t]
        return energy + problem.terminal_gradient @ state + 0.5 * state @ problem.terminal_hessian @ state

    flat = lambda x: total(x.reshape(6, 2))  # noqa: E731
    hessian, slope = jax.jit(jax.hessian(flat))(jnp.zeros(12)), jax.jit(jax.grad(flat))(jnp.zeros(12))
    best = -np.linalg.solve(hessian, slope).reshape(6, 2)
    state = jnp.zeros(3)
    for t in range(6):
        change = policy.feedforward[t] + policy.gain[t] @ state
        np.testing.assert_allclose(change, best[t], atol=1e-3)
        state = problem.jacobian[t] @ jnp.concatenate([change, state]) + problem.defects[t]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**30), size=st.sampled_from([1, 2, 3]))
@example(seed=25751, size=3)  # where clipped Newton steps alone get stuck
def test_limited_policies_equal_brute_force_over_active_sets(seed, size):
    rng = np.random.default_rng(seed)
    hessian, cross, gradient = positive_definite(rng, size), rng.standard_normal((size, 2)), 2 * rng.standard_normal(size)
    low, high = -rng.uniform(0.1, 1.0, size), rng.uniform(0.1, 1.0, size)
    best, chosen_plan = np.inf, np.zeros(size)
    for ends in itertools.product((-1, 0, 1), repeat=size):
        k = np.where(np.array(ends) < 0, low, np.where(np.array(ends) > 0, high, 0.0))
        free = np.array(ends) == 0
        if free.any():
            k[free] = np.linalg.solve(hessian[np.ix_(free, free)], -(gradient + hessian @ k)[free])
        energy = gradient @ k + 0.5 * k @ hessian @ k
        if (k >= low - 1e-9).all() and (k <= high + 1e-9).all() and energy < best:
            best, chosen_plan = energy, k
    model = jnp.float32(np.concatenate([hessian, cross, gradient[:, None]], axis=1))
    got = np.asarray(POLICY(model, jnp.float32(low), jnp.float32(high), FLOOR))
    k = got[:, -1]
    assert (k >= np.float32(low)).all() and (k <= np.float32(high)).all()
    assert gradient @ k + 0.5 * k @ hessian @ k == pytest.approx(best, abs=1e-4)
    np.testing.assert_allclose(k, chosen_plan, atol=2e-2)
    inside = (k > np.float32(low)) & (k < np.float32(high))
    np.testing.assert_array_equal(got[~inside, :-1], 0.0)
    if inside.any():
        feedback = -np.linalg.solve(hessian[np.ix_(inside, inside)], cross[inside])
        np.testing.assert_allclose(got[inside, :-1], feedback, rtol=1e-2, atol=1e-3)


def test_factors_are_exact_where_positive_and_positive_where_not():
    rng = np.random.default_rng(0)
    matrix, right = positive_definite(rng, 4), rng.standard_normal((4, 2))
    solved = substitute(factorise(jnp.float32(matrix), FLOOR), jnp.float32(right))
    np.testing.assert_allclose(solved, np.linalg.solve(matrix, right), rtol=1e-3, atol=1e-4)
    columns, pivots = factorise(jnp.diag(jnp.array([2.0, -3.0, 0.0])), FLOOR)
    np.testing.assert_allclose(jnp.stack(pivots), [2.0, 3.0, 1e-6], rtol=1e-5)
    np.testing.assert_allclose(jnp.stack(columns), np.eye(3))


def test_trying_step_sizes_at_once_or_in_turn_comes_to_the_same():
    problem, state = pendulum(horizon=6), jnp.array([0.3, 0.0])
    plans = [
        mpc.solve(mpc.ilqr(problem, parallel=p, second_order=0.0), None, state, jax.random.key(2), iterations=12)
        for p in (True, False)
    ]
    np.testing.assert_allclose(plans[0].cost, plans[1].cost, rtol=1e-5)
    np.testing.assert_allclose(plans[0].actions, plans[1].actions, atol=1e-2)


def test_vmapped_solves_equal_single_ones():
    planner = mpc.ilqr(pendulum(horizon=20), second_order=0.0)
    states = jnp.array([[jnp.pi, 0.0], [1.0, -1.0], [0.1, 0.2]])
    keys = jax.random.split(jax.random.key(2), 3)
    together = jax.vmap(lambda s, k: mpc.solve(planner, None, s, k, iterations=15).cost)(states, keys)
    alone = [mpc.solve(planner, None, s, k, iterations=15).cost for s, k in zip(states, keys, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_a_shifted_plan_converges_sooner_than_a_new_one():
    planner = mpc.ilqr(pendulum(), second_order=0.0, precision="float32")
    init, step = jax.jit(planner.init), jax.jit(planner.step)

    def iterations(planner_state, state) -> int:
        for count in range(1, 60):
            planner_state = step(None, state, planner_state)
            if planner_state.optimality < 1e-2:
                return count
        return 60

    planner_state = init(None, HANGING, jax.random.key(3))
    for _ in range(25):
        planner_state = step(None, HANGING, planner_state)
    later = pendulum().dynamics(None, HANGING, 2.0 * planner_state.best[0])
    assert iterations(planner.shift(planner_state), later) <= 6
    assert iterations(init(None, later, jax.random.key(4)), later) > 8


def test_states_of_any_make_and_discrete_actions():
    problem = mpc.Problem(
        lambda p, s, a: {"far": (s["far"][0] + a @ jnp.array([-1.0, 0.0, 1.0]),), "still": s["still"]},
        lambda p, s, a, t: s["far"][0] ** 2 + jnp.sum(s["still"]) ** 2,
        lambda p, s: 10 * s["far"][0] ** 2,
        horizon=6,
        action_space=mpc.Discrete(3),
    )
    state = {"far": (jnp.asarray(4.0),), "still": jnp.zeros((2, 2))}
    plan = mpc.solve(mpc.ilqr(problem, starts=4, second_order=0.0), None, state, jax.random.key(0), iterations=20)
    assert plan.actions.tolist()[:4] == [0, 0, 0, 0]
    assert float(plan.cost) == 16 + 9 + 4 + 1
    assert plan.states["still"].shape == (7, 2, 2)


def test_a_model_that_breaks_gives_a_status_and_bounded_actions():
    problem = mpc.Problem(
        lambda p, s, a: s * jnp.nan, lambda p, s, a, t: jnp.sum(s), horizon=5, action_space=mpc.Box([-1.0], [1.0])
    )
    plan = mpc.solve(mpc.ilqr(problem, starts=2, second_order=0.0), None, jnp.ones(2), jax.random.key(0), iterations=3)
    assert plan.status == mpc.Status.NOT_FINITE
    assert np.isfinite(plan.actions).all() and (np.abs(plan.actions) <= 1).all()


def test_steps_into_a_forbidden_region_are_rejected():
    problem = mpc.Problem(
        lambda p, s, a: s + a,
        lambda p, s, a, t: jnp.sum(jnp.where(s > 0.5, jnp.nan, (s - 1.0) ** 2)) + 0.01 * jnp.sum(a * a),
        horizon=5,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    planner = mpc.ilqr(problem, second_order=0.0)
    plan = mpc.solve(planner, None, jnp.zeros(1), jax.random.key(0), iterations=20, guess=jnp.zeros((5, 1)))
    assert np.isfinite(plan.cost) and float(plan.cost) < 5.0 and plan.status == mpc.Status.ITERATIONS


def test_loops_are_hoisted(monkeypatch):
    """The same steps with a sort in the model, which XLA:CPU does not hoist, take several times longer."""
    if jax.default_backend() != "cpu" or mpc.loops_hoisted != "on":
        pytest.skip("for a CPU whose loops are hoisted")

    def seconds(problem: mpc.Problem) -> float:
        planner = mpc.ilqr(problem, second_order=0.0)
        planner_state = jax.jit(planner.init)(None, HANGING, jax.random.key(0))
        run = jax.jit(lambda m: jax.lax.fori_loop(0, 20, lambda _, m: planner.step(None, HANGING, m), m).cost)
        run(planner_state).block_until_ready()
        taken = []
        for _ in range(5):
            begun = time.process_time()
            run(planner_state).block_until_ready()
            taken.append(time.process_time() - begun)
        return min(taken)

    plain = pendulum()

    def sorting(params, state, action):
        return plain.dynamics(params, jnp.sort(jnp.stack([state, state]), axis=0)[0], action)

    spoilt = mpc.Problem(sorting, plain.cost, plain.terminal_cost, horizon=50, action_space=plain.action_space)
    assert seconds(spoilt) > 3 * seconds(plain)


@pytest.mark.parametrize("wrong", [{"second_order": -1.0}, {"damping": 0.0}, {"starts": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        mpc.ilqr(pendulum(), **wrong)
