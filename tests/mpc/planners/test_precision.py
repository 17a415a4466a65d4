import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc

PATH = np.stack([np.linspace(0.0, 3.0, 30), np.sin(np.linspace(0.0, 3.0, 30))], axis=1)
CAR, START = mpc.Box([-3.0, -1.0], [3.0, 1.0]), jnp.array([0.0, 0.1, 0.0, 0.0])
KEY = jax.random.key(0)


def drive(params, state, action):
    heading, speed = state[2], state[3]
    return state + 0.1 * jnp.stack([jnp.cos(heading) * speed, jnp.sin(heading) * speed, action[0], action[1]])


def to_the_path(params, state, action, t):
    """The nearest point by `argmin`, and noise: JAX lowers both by tracing anew, under the process's own options."""
    nearest = jnp.asarray(PATH)[jnp.argmin(jnp.sum((PATH - state[:2]) ** 2, axis=1))]
    noise = 1e-3 * jax.random.normal(jax.random.key(0), ())
    return jnp.sum((nearest - state[:2]) ** 2) + 0.01 * action @ action + (state[3] - 1.0) ** 2 + noise


def to_the_goal(params, state, action, t):
    return jnp.sum((state[:2] - params["goal"]) ** 2) + 0.01 * action @ action


FOLLOWING = mpc.ilqr(mpc.Problem(drive, to_the_path, horizon=10, action_space=CAR), starts=2, precision="float64")
REACHING = mpc.ilqr(mpc.Problem(drive, to_the_goal, horizon=10, action_space=CAR), precision="float64")
GOAL = {"goal": jnp.array([1.0, 0.5])}


def test_double_precision_is_the_default_of_exact_planners_on_a_cpu_alone():
    chosen = mpc.ilqr(REACHING.problem)
    known = mpc.ilqr(REACHING.problem, precision="float64" if jax.default_backend() == "cpu" else "float32")
    structures = [jax.tree.structure(jax.eval_shape(p.init, GOAL, START, KEY, None)) for p in (chosen, known)]
    assert structures[0] == structures[1]


def test_plans_are_in_the_precision_of_the_caller_and_as_exact_as_double_precision():
    plan = mpc.solve(REACHING, GOAL, START, KEY, 50, tolerance=1e-9)
    assert {leaf.dtype for leaf in jax.tree.leaves(plan._replace(memory=None))} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert plan.status == mpc.Status.CONVERGED and plan.info["optimality"] < 1e-9  # which float32 resolves to 1e-6 only
    with jax.enable_x64(True):
        goal, start = {"goal": GOAL["goal"].astype(jnp.float64)}, START.astype(jnp.float64)
        exact = mpc.solve(mpc.ilqr(REACHING.problem), goal, start, KEY, 50, tolerance=1e-9)
        assert exact.actions.dtype == jnp.float64
    np.testing.assert_allclose(plan.actions, exact.actions, rtol=2e-7, atol=1e-7)


def test_jit_and_vmap_give_what_a_loop_gives_whatever_the_model_is_made_of():
    def solve(state):
        return mpc.solve(FOLLOWING, None, state, KEY, 10)

    states = jnp.stack([START, START + 0.1])
    one_by_one = [solve(state) for state in states]
    for together in (jax.vmap(solve)(states), jax.jit(jax.vmap(solve))(states), jax.vmap(jax.jit(solve))(states)):
        for index, alone in enumerate(one_by_one):
            np.testing.assert_allclose(together.actions[index], alone.actions, atol=1e-5)
    np.testing.assert_array_equal(jax.jit(solve)(START).actions, one_by_one[0].actions)


def test_numpy_constants_keep_the_precision_of_whoever_traces_them():
    """JAX keeps one canonical copy of a constant, which a plan and its user must not share where their precisions differ."""
    grid = np.linspace(0.0, 3.0, 30)

    def cost(params, state, action, t):
        return jnp.sum((grid - state[0]) ** 2) + 0.01 * action @ action

    planner = mpc.ilqr(mpc.Problem(drive, cost, horizon=4, action_space=CAR), precision="float64")
    for _ in range(2):
        value, slope = jax.value_and_grad(jax.jit(lambda state: cost(None, state, jnp.zeros(2), 0)))(START)
        assert value.dtype == slope.dtype == jnp.float32
        assert mpc.solve(planner, None, START, KEY, 3).cost.dtype == jnp.float32


def test_forward_derivatives_pass_and_reverse_ones_are_refused_with_what_to_use_instead():
    def cost(goal):
        return mpc.solve(REACHING, {"goal": goal}, START, KEY, 20).cost

    step = 1e-2
    along = jnp.array([1.0, 0.0])
    difference = (cost(GOAL["goal"] + step * along) - cost(GOAL["goal"] - step * along)) / (2 * step)
    assert jax.jvp(cost, (GOAL["goal"],), (along,))[1] == pytest.approx(float(difference), rel=1e-3)
    with pytest.raises(ValueError, match=r"mpc\.implicit"):
        jax.grad(cost)(GOAL["goal"])


def test_a_problem_may_close_over_what_is_traced():
    def cost(goal):
        problem = mpc.Problem(drive, lambda p, s, a, t: to_the_goal({"goal": goal}, s, a, t), horizon=10, action_space=CAR)
        return mpc.solve(mpc.ilqr(problem, precision="float64"), None, START, KEY, 20).cost

    expected = float(mpc.solve(REACHING, GOAL, START, KEY, 20).cost)
    assert float(jax.jit(cost)(GOAL["goal"])) == pytest.approx(expected, rel=1e-6)
    assert jax.vmap(cost)(jnp.stack([GOAL["goal"]] * 2)).tolist() == pytest.approx([expected] * 2, rel=1e-6)


def single_scan(params, state, action):
    """Dynamics that carry float32 through a scan, as a network of float32 layers does."""

    def add(x, _):
        return x + 0.05 * jnp.tanh(action.astype(jnp.float32)), None

    return jax.lax.scan(add, state[:2].astype(jnp.float32), None, length=2)[0]


def mixed_scan(params, state, action):
    """Dynamics that are refused where the state is wide and what is added is not."""
    weights = jnp.full((2,), 0.05, jnp.float32)
    return jax.lax.scan(lambda x, w: ((x + w * action).astype(jnp.float32), None), state, weights)[0]


@pytest.mark.parametrize("dynamics", [single_scan, mixed_scan])
def test_models_with_a_precision_of_their_own_keep_it(dynamics):
    problem = mpc.Problem(
        dynamics,
        lambda p, s, a, t: jnp.sum((s - 0.3) ** 2) + 1e-3 * a @ a,
        horizon=8,
        action_space=mpc.Box([-1.0] * 2, [1.0] * 2),
    )
    plans = [
        mpc.solve(mpc.ilqr(problem, precision=p), None, jnp.zeros(2), KEY, 20) for p in mpc.planners.precision.PRECISIONS
    ]
    np.testing.assert_allclose(plans[0].actions, plans[1].actions, atol=1e-3)


def test_a_controller_and_a_chain_plan_in_double_precision_too():
    chained = mpc.chain(mpc.cem(REACHING.problem, samples=32, elites=4), REACHING, switch_after=2)
    for planner in (REACHING, chained):
        controller = mpc.Controller(planner, GOAL, observation=START, iterations=5)
        for _ in range(3):
            action = controller.act(START)
        assert action.dtype == np.float32 and controller.status == mpc.Status.ITERATIONS
        assert controller.act(jnp.full(4, jnp.nan)).dtype == np.float32 and controller.status == mpc.Status.NOT_FINITE


def test_rounded_actions_stay_within_bounds_that_no_float32_meets():
    for bound in (0.1, 0.3, 0.7, 1 / 3):
        problem = mpc.Problem(
            lambda p, s, a: s + a, lambda p, s, a, t: (s - 9) @ (s - 9), horizon=4, action_space=mpc.Box([-bound], [bound])
        )
        actions = np.asarray(
            mpc.solve(mpc.ilqr(problem, precision="float64"), None, jnp.zeros(1), KEY, 5).actions, np.float64
        )
        assert (np.abs(actions) <= bound).all() and actions.max() == pytest.approx(bound, rel=1e-6)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of float32, float64, or None; got 'half'"):
        mpc.ilqr(REACHING.problem, precision="half")
