"""Many starts around one planner: basins, screening, shifting, and that a start on its own is left alone."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.planners.base import Planner, conclude
from mpc.planners.candidates import Candidate, compete, emptied, injector, no_candidate
from mpc.planners.multistart import multistart, side_by_side


class ToyState(NamedTuple):
    best: Any
    cost: Any
    optimality: Any
    candidate: Candidate

    def reset_to(self, variables):
        infinite = jnp.full_like(self.cost, jnp.inf)
        return ToyState(variables, infinite, jnp.full_like(self.optimality, jnp.inf), self.candidate)


def descent(problem: mpc.Problem) -> Planner:
    """The plainest planner with a single start: gradient descent that keeps what it last did."""
    space = problem.action_space

    def score(variables, params, state):
        return mpc.energy(problem, params, state, space.relax(variables))

    def init(params, state, key, guess=None):
        variables = jnp.zeros((problem.horizon, space.size)) if guess is None else space.encode(guess)
        return ToyState(variables, jnp.asarray(jnp.inf), jnp.asarray(jnp.inf), no_candidate(variables))

    def step(params, state, planner_state):
        begun = compete(planner_state.candidate, (planner_state.best,), planner_state.cost, score, params, state)[1]
        slope = jax.grad(score)(begun, params, state)
        variables = space.project(begun - 0.02 * slope)
        cost = score(variables, params, state)
        return ToyState(variables, cost, jnp.abs(slope).max(), emptied(planner_state.candidate))

    def plan(params, state, planner_state):
        return conclude(problem, params, state, space.decide(planner_state.best), jnp.isfinite(planner_state.cost), {})

    def shift(planner_state):
        return planner_state.reset_to(jnp.concatenate([planner_state.best[1:], planner_state.best[-1:]]))

    return Planner(init, step, plan, shift, injector(problem), problem)


def two_valleys(bias: float = 0.3) -> mpc.Problem:
    """One action, `(4u² - 1)² + bias u`: a good valley near -1/2, a worse one near 1/2, between them a ridge near 0."""
    return mpc.Problem(
        lambda p, s, a: s,
        lambda p, s, a, t: jnp.sum((4 * a**2 - 1) ** 2 + bias * a),
        horizon=1,
        action_space=mpc.Box([-1.0], [1.0]),
    )


STATE = jnp.zeros(1)


def improve(planner: Planner, planner_state: Any, steps: int) -> Any:
    step = jax.jit(planner.step)
    for _ in range(steps):
        planner_state = step(None, STATE, planner_state)
    return planner_state


def test_the_best_basin_is_picked_and_all_are_reported():
    planner = multistart(descent(two_valleys()), starts=12)
    plan = mpc.solve(planner, None, STATE, jax.random.key(0), iterations=60)
    costs = np.asarray(plan.info["start_costs"])
    assert costs.shape == (12,)
    grid = np.linspace(-1, 1, 20001)
    optimum = ((4 * grid**2 - 1) ** 2 + 0.3 * grid).min()
    assert float(plan.cost) == pytest.approx(optimum, abs=1e-4)
    assert float(plan.cost) == pytest.approx(costs.min(), abs=1e-6)
    assert costs.max() > optimum + 0.2  # some start ended in the other valley, or this test says nothing


def test_starts_are_what_single_solves_would_be():
    single = descent(two_valleys())
    advance = jax.jit(single.step)
    for together in (True, False):
        planner = multistart(single, starts=5, together=together)
        planner_state = planner.init(None, STATE, jax.random.key(1))
        begun = side_by_side(planner_state)
        planner_state = improve(planner, planner_state, 3)
        for s in range(5):
            alone = jax.tree.map(lambda x, s=s: x[s], begun)
            for _ in range(3):
                alone = advance(None, STATE, alone)
            np.testing.assert_allclose(side_by_side(planner_state).best[s], alone.best, atol=1e-6)
            np.testing.assert_allclose(side_by_side(planner_state).cost[s], alone.cost, atol=1e-6)
        assert float(planner_state.cost) == float(side_by_side(planner_state).cost.min())


def test_the_first_start_is_the_guess_and_the_others_are_noise_from_the_spread_to_a_tenth_of_it():
    problem = mpc.Problem(lambda p, s, a: s, lambda p, s, a, t: jnp.sum(a), horizon=200, action_space=mpc.Box([-2.0], [2.0]))
    guess = jnp.linspace(-1.9, 1.9, 200)[:, None]
    planner = multistart(descent(problem), starts=20, spread=0.1, narrowest=0.1)
    best = side_by_side(planner.init(None, STATE, jax.random.key(0), guess)).best
    np.testing.assert_allclose(best[0], guess / 2, atol=1e-6)
    widths = 0.1 * 0.1 ** (np.arange(20) / 19)
    white = best[1:] / widths[1:, None, None]
    assert float(white[:, 20:].std()) == pytest.approx(1.0, rel=0.1)
    neighbours = np.corrcoef(white[:, 20:-1, 0].ravel(), white[:, 21:, 0].ravel())[0, 1]
    assert neighbours == pytest.approx(0.8, abs=0.05)


def test_screening_keeps_the_cheapest_candidates():
    single = descent(two_valleys())
    key = jax.random.key(3)
    every = multistart(single, starts=16)
    planner_state = improve(every, every.init(None, STATE, key), 4)
    screened = multistart(single, starts=3, screen=(16, 4)).init(None, STATE, key)
    np.testing.assert_allclose(screened.starts.cost, np.sort(side_by_side(planner_state).cost)[:3], rtol=1e-6)


def test_shift_keeps_the_better_half_in_order_and_draws_the_rest_afresh():
    planner = multistart(descent(two_valleys()), starts=6)
    planner_state = improve(planner, planner.init(None, STATE, jax.random.key(4)), 5)
    order = np.argsort(planner_state.starts.cost)
    later = planner.shift(planner_state)
    np.testing.assert_array_equal(
        later.starts.best[:4], planner_state.starts.best[order[:4]]
    )  # one step long: shifting keeps it
    assert not np.isin(np.asarray(later.starts.best[4:]), np.asarray(planner_state.starts.best)).any()
    assert np.isinf(later.cost)


def test_a_candidate_takes_the_place_of_noise_and_never_of_the_best():
    planner = multistart(descent(two_valleys()), starts=3)
    candidate = jnp.array([[0.25]])
    planner_state = planner.init(None, STATE, jax.random.key(4), jnp.array([[-0.4]]))
    begun = planner.inject(planner_state, candidate).starts.best
    np.testing.assert_array_equal(begun[:2], planner_state.starts.best[:2])
    np.testing.assert_array_equal(begun[2], candidate)
    planner_state = planner_state._replace(starts=planner_state.starts._replace(cost=jnp.array([2.0, 3.0, 1.0])))
    injected = planner.inject(planner_state, candidate)
    np.testing.assert_array_equal(injected.starts.best[1, 0], candidate[0])  # the dearest
    np.testing.assert_array_equal(injected.starts.best[::2], planner_state.starts.best[::2])


def test_one_start_costs_nothing():
    single = descent(two_valleys())
    planner = multistart(single, starts=1)
    assert planner.step is single.step and planner.shift is single.shift and planner.inject is single.inject
    plan = mpc.solve(planner, None, STATE, jax.random.key(0), iterations=40)
    assert abs(float(plan.actions[0, 0])) == pytest.approx(
        0.5, abs=0.05
    )  # not stuck on the ridge at zero: it began in noise
    assert plan.info["start_costs"].shape == (1,)
    guessed = planner.init(None, STATE, jax.random.key(0), jnp.array([[0.4]]))
    np.testing.assert_allclose(guessed.best, [[0.4]], atol=1e-6)


def test_discrete_starts_are_scored_as_executed():
    problem = mpc.Problem(
        lambda p, s, a: s + a @ jnp.array([-1.0, 0.0, 1.0]),
        lambda p, s, a, t: s**2,
        lambda p, s: 10 * s**2,
        horizon=4,
        action_space=mpc.Discrete(3),
    )
    plan = mpc.solve(multistart(descent(problem), starts=16), None, jnp.asarray(2.0), jax.random.key(0), iterations=30)
    costs = np.asarray(plan.info["start_costs"])
    assert float(plan.cost) == costs.min()
    np.testing.assert_array_equal(costs, np.round(costs))  # whole actions have whole costs here; mixtures do not


def test_a_start_without_a_finite_cost_is_never_picked():
    problem = mpc.Problem(
        lambda p, s, a: s,
        lambda p, s, a, t: jnp.sum(jnp.where(a < 0, jnp.nan, a)),
        horizon=1,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    planner = multistart(descent(problem), starts=8, spread=0.5)
    planner_state = planner.init(None, STATE, jax.random.key(2))
    assert (planner_state.starts.best < 0).any() and (planner_state.starts.best > 0.05).any()
    planner_state = improve(planner, planner_state, 1)
    plan = planner.plan(None, STATE, planner_state)
    assert plan.status != mpc.Status.NOT_FINITE and np.isfinite(plan.cost) and np.isfinite(planner_state.cost)


def test_same_key_same_plan_and_jit_is_eager():
    planner = multistart(descent(two_valleys()), starts=4, screen=(6, 2))

    def run(key):
        planner_state = planner.init(None, STATE, key)
        return planner.step(None, STATE, planner.shift(planner.step(None, STATE, planner_state))).starts.best

    compiled = jax.jit(run)
    np.testing.assert_array_equal(compiled(jax.random.key(7)), compiled(jax.random.key(7)))
    np.testing.assert_allclose(compiled(jax.random.key(7)), run(jax.random.key(7)), atol=1e-6)
    assert not np.array_equal(compiled(jax.random.key(7)), compiled(jax.random.key(8)))


@pytest.mark.parametrize(
    "wrong", [{"starts": 0}, {"starts": 2, "spread": -1.0}, {"starts": 2, "narrowest": 0.0}, {"starts": 4, "screen": (3, 2)}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        multistart(descent(two_valleys()), **wrong)


LIMIT = mpc.constraints.inequality(lambda p, s, a, t: s - 2)
RESTING = {
    "gradient": lambda p: mpc.gradient(p, starts=1),
    "ilqr": mpc.ilqr,
    "collocation": mpc.collocation,
    "constrained": lambda p: mpc.gradient(replace(p, constraints=[LIMIT]), starts=1),
}


@pytest.mark.parametrize("name", RESTING)
def test_no_plan_is_dearer_than_to_rest(name):
    """A norm has no slope at the goal that would hold a plan there."""
    problem = mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: jnp.linalg.norm(s - 1) + 0.01 * jnp.linalg.norm(a),
        horizon=8,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    plan = mpc.solve(RESTING[name](problem), None, jnp.ones(1), jax.random.key(0), 10)
    assert float(plan.cost) == 0 and not plan.actions.any() and float(plan.states.min()) == 1
