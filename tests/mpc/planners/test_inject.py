"""Candidates from elsewhere: one table of planners; whatever is injected, the better of plan and candidate survives."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc
from mpc.planners.base import conclude, rank_key

HORIZON = 4


def sampling(task: mpc.Problem) -> mpc.Planner:
    """The first stage of chains."""
    return mpc.predictive_sampling(task, samples=2)


PLANNERS: dict[str, Callable[[mpc.Problem], mpc.Planner]] = {
    "gradient": lambda p: mpc.gradient(p, starts=1),
    "gradient, 4 starts": lambda p: mpc.gradient(p, starts=4),
    "gradient, 1 start of 3 screened": lambda p: mpc.gradient(p, starts=1, screen=(3, 1)),
    "lbfgs": lambda p: mpc.gradient(p, optimizer="lbfgs", starts=1),
    "ilqr": lambda p: mpc.ilqr(p),
    "ilqr, 2 starts": lambda p: mpc.ilqr(p, starts=2),
    "continuation": lambda p: mpc.ilqr(p, continuation=3),
    "collocation": lambda p: mpc.collocation(p, starts=1),
    "collocation, 3 starts": lambda p: mpc.collocation(p, starts=3, synchronise=2),
    "cem": lambda p: mpc.cem(p, samples=16, elites=4),
    "cem, no room": lambda p: mpc.cem(p, samples=2, elites=1),
    "icem": lambda p: mpc.icem(p, samples=16, elites=4),
    "icem, no room": lambda p: mpc.icem(p, samples=2, elites=1),
    "mppi": lambda p: mpc.mppi(p, samples=16),
    "mppi, no room": lambda p: mpc.mppi(p, samples=2),
    "predictive sampling": lambda p: mpc.predictive_sampling(p, samples=2),
    "chain, before the switch": lambda p: mpc.chain(sampling(p), mpc.gradient(p, starts=1), switch_after=9),
    "chain, at the switch": lambda p: mpc.chain(sampling(p), mpc.gradient(p, starts=1), switch_after=1),
    "annealed": lambda p: mpc.anneal(mpc.gradient(p, starts=1), steps=3),
}


def cost(params, state, action, t):
    """A valley with its bottom at 0, and in it a hole at 0.7, too narrow to be found by chance or by descent."""
    a = action[0]
    return 0.1 * state[0] ** 2 + a**2 - 5.0 * jnp.exp(-(((a - 0.7) / 0.02) ** 2))


@cache
def problem(kind: str) -> mpc.Problem:
    """Three kinds: continuous, with a limit that the hole observes and one half of the valley does not, and with choices."""
    if kind == "choices":  # the first of five alternatives is best by far, but only if taken at every step
        return mpc.Problem(
            lambda p, s, a: s + 0.2 * (1.0 - a[0]),
            lambda p, s, a, t: 0.3 * a[0] + 0.01 * (a @ jnp.arange(5.0)),
            lambda p, s: jnp.where(s[0] < 0.1, -9.0, 1.0) + jnp.sum(s),
            horizon=HORIZON,
            action_space=mpc.Discrete(5),
        )
    limits = (mpc.constraints.inequality(lambda p, s, a, t: -0.3 - a, "floor"),) if kind == "constrained" else ()
    return mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        cost,
        horizon=HORIZON,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=limits,
    )


def constant(task: mpc.Problem, value: float) -> jax.Array:
    """The same action at every step."""
    if isinstance(task.action_space, mpc.Discrete):
        return jnp.full((HORIZON,), int(value), jnp.int32)
    return jnp.full((HORIZON, 1), value)


@pytest.fixture(scope="module")
def case(request):
    """A planner and its compiled parts: begin, step, act (the actions and their grade and merit), shift, inject."""
    name, kind = request.param
    planner = PLANNERS[name](problem(kind))

    def act(state, planner_state):
        actions = planner.actions(None, state, planner_state)
        return actions, merit(planner.problem, actions, state)

    parts = (partial(planner.init, None), partial(planner.step, None), act, planner.shift, planner.inject)
    return planner.problem, *map(jax.jit, parts[:3]), *parts[3:]


CONSTRAINED = ["gradient", "gradient, 4 starts", "ilqr, 2 starts", "continuation", "collocation", "cem", "icem", "mppi"]
CONSTRAINED += ["predictive sampling", "chain, at the switch"]
CHOICES = ["gradient", "gradient, 4 starts", "ilqr, 2 starts", "collocation", "cem", "cem, no room", "mppi"]
CHOICES += ["predictive sampling", "chain, at the switch", "annealed"]
TABLE = [(name, "continuous") for name in PLANNERS]
TABLE += [(name, "constrained") for name in CONSTRAINED] + [(name, "choices") for name in CHOICES]
GOOD, FAIR, BAD = {"box": 0.7, "choices": 0}, {"box": -0.2, "choices": 2}, {"box": -0.9, "choices": 4}


def values(task: mpc.Problem, which: dict[str, float]) -> jax.Array:
    return constant(task, which["choices" if isinstance(task.action_space, mpc.Discrete) else "box"])


def merit(task: mpc.Problem, actions: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Grade and merit of actions on the problem, computed from the actions alone."""
    return rank_key(conclude(task, None, state, actions, jnp.asarray(True), {}))


@cache
def compiled_merit(task: mpc.Problem) -> Callable:
    """`(actions, state) -> (grade, merit)`."""
    return jax.jit(partial(merit, task))


def no_worse(one, other) -> bool:
    """True if the first is of a better grade, or of the same and no dearer."""
    (grade, worth), (other_grade, other_worth) = map(float, one), map(float, other)
    return grade < other_grade or (grade == other_grade and worth <= other_worth + 1e-4 * max(1.0, abs(other_worth)))


def begun(parts, when: str, guess: jax.Array):
    """A planner's state after a guess, and the state of the world as it is then."""
    init, step, _, shift, _ = parts
    state = jnp.zeros(1)
    own = init(state, jax.random.key(0), guess)
    if when != "init":
        own = step(state, own)
    if when == "shift":
        own, state = shift(own), jnp.asarray([0.05])
    return own, state


@pytest.mark.parametrize("case", TABLE, indirect=True, ids=": ".join)
def test_the_better_of_plan_and_candidate_survives(case):
    task, *parts = case
    _, step, act, _, inject = parts
    worth = compiled_merit(task)
    for when in ("init", "between", "shift"):
        for guess, candidate in ((FAIR, GOOD), (GOOD, FAIR), (GOOD, BAD), (FAIR, BAD)):
            own, state = begun(parts, when, values(task, guess))
            _, before = act(state, own)
            injected = inject(own, values(task, candidate))
            actions, after = act(state, step(state, injected))
            where = (when, guess, candidate)
            assert no_worse(after, before) and no_worse(after, worth(values(task, candidate), state)), where
            if GOOD in (guess, candidate):
                np.testing.assert_allclose(actions, values(task, GOOD), atol=0.01, err_msg=str(where))
            shapes = [[(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (own, injected)]
            assert shapes[0] == shapes[1] and jax.tree.structure(own) == jax.tree.structure(injected)


@pytest.mark.parametrize("case", TABLE, indirect=True, ids=": ".join)
def test_a_candidate_that_is_not_finite_is_ignored(case):
    task, *parts = case
    _, step, act, _, inject = parts
    own, state = begun(parts, "shift", values(task, FAIR))
    alone = act(state, step(state, own))
    for wrong in (jnp.nan, jnp.inf):
        candidate = values(task, GOOD).astype(float).at[1].set(wrong)
        jax.tree.map(np.testing.assert_array_equal, act(state, step(state, inject(own, candidate))), alone)


@pytest.mark.parametrize("name", ["gradient", "cem"])
def test_jit_is_eager_and_vmap_is_a_loop(name):
    planner = PLANNERS[name](problem("continuous"))

    def run(state, candidate):
        own = planner.init(None, state, jax.random.key(0), jnp.full((HORIZON, 1), -0.2))
        return planner.step(None, state, planner.inject(own, candidate)).cost

    states = jnp.array([[0.0], [0.1], [0.0]])
    candidates = jnp.array([0.7, -0.9, jnp.nan])[:, None, None] * jnp.ones((3, HORIZON, 1))
    together = jax.jit(jax.vmap(run))(states, candidates)
    for i in range(3):
        np.testing.assert_allclose(run(states[i], candidates[i]), together[i], rtol=1e-5)
    assert together[0] < -15 and together[1] > 0 and together[2] > 0


def test_plans_are_differentiable_where_a_candidate_may_be_taken_up():
    planner = mpc.gradient(problem("continuous"), optimizer=optax.sgd(0.1), starts=1)

    @jax.jit
    def value(candidate, state):
        own = planner.inject(planner.init(None, state, jax.random.key(0), jnp.full((HORIZON, 1), -0.2)), candidate)
        return planner.step(None, state, planner.step(None, state, own)).variables.sum()

    for candidate in (jnp.full((HORIZON, 1), -0.3), jnp.full((HORIZON, 1), -0.1)):
        step = 1e-2
        difference = (value(candidate, jnp.full(1, step)) - value(candidate, jnp.full(1, -step))) / (2 * step)
        np.testing.assert_allclose(jax.grad(value, argnums=1)(candidate, jnp.zeros(1))[0], difference, rtol=1e-2)


def test_a_candidate_of_another_shape_is_refused():
    planner = mpc.cem(problem("continuous"), samples=8, elites=2)
    own = planner.init(None, jnp.zeros(1), jax.random.key(0))
    with pytest.raises(ValueError, match=r"shape \[4, 1\]; got \[3, 1\]"):
        planner.inject(own, jnp.zeros((3, 1)))
