"""Action spaces: in bounds whatever comes in, and what they promise about sequences."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mpc
from mpc import spaces

ANY = st.floats(width=32, allow_nan=True, allow_infinity=True)
SIZES = {"max_examples": 40, "deadline": None}


def sequences(steps: int, size: int):
    return st.lists(ANY, min_size=steps * size, max_size=steps * size).map(
        lambda x: jnp.asarray(np.array(x, np.float32).reshape(steps, size))
    )


@settings(**SIZES)
@given(
    variables=sequences(4, 3),
    low=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    width=st.lists(st.sampled_from([0.0, 1e-3, 1.0, 1e4, np.inf]), min_size=3, max_size=3),
)
def test_box_actions_are_in_bounds_whatever_the_variables(variables, low, width):
    low = np.array(low, np.float32).astype(float)  # a bound that no number of the action's type meets can't be kept to
    high = (np.array(low) + width).astype(np.float32).astype(float)
    # XLA flushes subnormal numbers to zero: a box that holds nothing but those holds no action at all
    tiny = np.finfo(np.float32).tiny
    assume((((low <= 0) & (high >= 0)) | (high >= tiny) & (low > 0) | (low <= -tiny) & (high < 0)).all())
    space = mpc.Box(low, high)
    for actions in (space.relax(variables), space.decide(space.project(variables)), space.decide(variables)):
        actions = np.asarray(actions, float)
        assert np.isfinite(actions).all() and (actions >= low).all() and (actions <= high).all()
    normal = np.asarray(space.project(jnp.where(jnp.isnan(variables), 0.0, variables)))
    bounded = np.isfinite(high)
    assert (np.abs(normal[:, bounded]) <= 1).all()


@settings(**SIZES)
@given(variables=sequences(3, 7), sharpness=st.floats(0.01, 50.0))
def test_choices_are_choices_whatever_the_variables(variables, sharpness):
    space = mpc.MultiDiscrete([3, 4], start=[5, -2])
    relaxed = np.asarray(space.bind({"sharpness": jnp.asarray(sharpness)}).relax(variables))
    assert (relaxed >= 0).all()
    np.testing.assert_allclose([relaxed[:, :3].sum(1), relaxed[:, 3:].sum(1)], 1.0, rtol=1e-5)
    actions = np.asarray(space.decide(variables))
    assert ((actions >= [5, -2]) & (actions <= [7, 1])).all()
    np.testing.assert_array_equal(space.decide(space.encode(jnp.asarray(actions))), actions)
    switches = np.asarray(mpc.MultiBinary(3).decide(variables[:, :6]))
    assert ((switches == 0) | (switches == 1)).all()


def test_sharpness_blurs_and_sharpens_without_changing_the_choice():
    space, scores = mpc.Discrete(3), jnp.array([[0.5, 1.0, -1.0]])
    soft, usual, hard = (space.bind({"sharpness": s}).relax(scores)[0] for s in (0.1, 1.0, 10.0))
    np.testing.assert_allclose(usual, space.relax(scores)[0])
    assert soft.max() < usual.max() < hard.max() and soft.argmax() == usual.argmax() == hard.argmax() == 1
    assert float(soft.max() - soft.min()) < 0.3 and float(hard.max()) > 0.999


@settings(**SIZES)
@given(
    variables=sequences(6, 2),
    rate=st.sampled_from([1e-4, 0.03, 0.3, 1.0, 1e5]),
    centre=st.sampled_from([0.0, 7.0, -3e4]),
    last=st.floats(-1.0, 1.0),
    known=st.booleans(),
)
def test_rates_hold_exactly_from_the_last_action_on(variables, rate, centre, last, known):
    low, high = np.float32(centre - 1.0), np.float32(centre + 1.5)
    previous = np.full(2, np.clip(np.float32(centre + last), low, high) if known else np.nan, np.float32)
    space = spaces.rate_limited(mpc.Box([low] * 2, [high] * 2), rate).bind({"previous_action": previous})
    for actions in (space.decide(variables), space.decide(space.project(variables)), space.permit(1e3 * variables)):
        actions = np.asarray(actions, np.float64)
        assert np.isfinite(actions).all() and (actions >= low).all() and (actions <= high).all()
        before = np.concatenate([(previous if known else actions[0])[None].astype(np.float64), actions[:-1]])
        assert (np.abs(actions - before) <= rate).all()


def test_rate_limited_actions_go_where_they_are_told_as_fast_as_they_may():
    space = spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.5).bind({"previous_action": jnp.zeros(1)})
    variables = jnp.array([[0.9], [0.9], [0.9], [-0.9], [0.2]])
    np.testing.assert_allclose(space.relax(variables)[:, 0], [0.5, 0.9, 0.9, 0.4, 0.2], atol=1e-6)
    slope = jax.grad(lambda v: space.relax(v)[3, 0])(variables)
    np.testing.assert_allclose(slope[:, 0], [0, 0, 1, 0, 0], atol=1e-6)  # the fourth is limited by where the third went
    batch = jnp.stack([variables, -variables])
    np.testing.assert_allclose(space.relax(batch)[1], -space.relax(variables), atol=1e-6)
    unlimited = spaces.rate_limited(mpc.Box([-1.0], [1.0]), 10.0).bind({"previous_action": jnp.full(1, jnp.nan)})
    np.testing.assert_allclose(unlimited.relax(variables), variables, atol=1e-6)
    assert np.isfinite(jax.grad(lambda v: unlimited.relax(v).sum())(variables)).all()


@settings(**SIZES)
@given(variables=sequences(7, 2), steps=st.integers(1, 9))
def test_held_actions_are_held_exactly(variables, steps):
    space = spaces.held(mpc.Box([-1.0, 0.0], [1.0, 3.0]), steps)
    actions = np.asarray(space.decide(variables))
    blocks = np.arange(7) // steps
    for block in np.unique(blocks):
        assert (actions[blocks == block] == actions[blocks == block][0]).all()
    assert (actions >= [-1, 0]).all() and (actions <= [1, 3]).all()
    allowed = space.project(jnp.where(jnp.isnan(variables), 0.0, variables))
    np.testing.assert_allclose(space.project(allowed), allowed, atol=1e-5)


def test_expanded_actions_are_several_at_once():
    box = spaces.expanded(mpc.Box([-1.0, 0.0], [1.0, 3.0]), 3)
    assert box.shape == (3, 2) and box.size == 6 and box.decide(jnp.full((5, 6), 2.0)).shape == (5, 3, 2)
    choices = spaces.expanded(mpc.Discrete(3, start=1), 2)
    assert choices.shape == (2,) and choices.size == 6
    assert choices.decide(jnp.array([0.0, 1.0, 0.0, 0.0, 0.0, 1.0])).tolist() == [2, 3]


def reach(space, **params) -> tuple[mpc.Problem, dict]:
    problem = mpc.Problem(
        lambda p, s, a: s + 0.2 * a, lambda p, s, a, t: jnp.sum((s - 1.0) ** 2), horizon=6, action_space=space
    )
    return problem, params


@pytest.mark.parametrize(
    "build",
    [
        lambda p: mpc.gradient(p, starts=2),
        lambda p: mpc.collocation(p, starts=1),
        lambda p: mpc.cem(p, samples=64, elites=8),
        lambda p: mpc.mppi(p, samples=64),
    ],
)
def test_planners_reach_the_optimum_that_the_rate_allows(build):
    problem, params = reach(spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.25), previous_action=jnp.array([-0.5]))
    plan = mpc.solve(build(problem), params, jnp.zeros(1), jax.random.key(0), iterations=80)
    best = np.clip(-0.5 + 0.25 * np.arange(1, 7), -1, 1)  # 1 is out of reach, so faster is better all the way
    np.testing.assert_allclose(plan.actions[:5, 0], best[:5], atol=2e-2)
    assert (np.abs(np.diff(np.asarray(plan.actions, float)[:, 0], prepend=-0.5)) <= 0.25).all()


def test_every_controlled_action_keeps_the_rate_even_when_the_state_breaks():
    problem, _ = reach(spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.3))
    controller = mpc.Controller(mpc.cem(problem, samples=32, elites=4), None, observation=jnp.zeros(1), iterations=3)
    state, before = np.zeros(1), None
    for step in range(12):
        action = np.asarray(controller.act(np.full(1, np.nan) if step in (4, 5, 6, 7, 8, 9, 10) else state), float)
        assert before is None or (np.abs(action - before) <= 0.3).all()
        state, before = state + 0.2 * action, action


def test_held_choices_are_planned_and_coupled_spaces_refused_where_they_do_not_fit():
    problem = mpc.Problem(
        lambda p, s, a: s + a @ jnp.array([-1.0, 0.0, 1.0]),
        lambda p, s, a, t: s**2,
        lambda p, s: 10 * s**2,
        horizon=6,
        action_space=spaces.held(mpc.Discrete(3), 3),
    )
    plan = mpc.solve(mpc.cem(problem, samples=64, elites=8), None, jnp.asarray(3.0), jax.random.key(0), iterations=15)
    assert plan.actions.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="ilqr"):
        mpc.ilqr(reach(spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.3))[0])
    with pytest.raises(ValueError, match="previous_action"):
        problem, _ = reach(spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.3))
        mpc.solve(mpc.cem(problem), None, jnp.zeros(1), jax.random.key(0), iterations=1)


def test_annealing_sharpens_as_it_was_told_and_plans_no_worse():
    problem = mpc.Problem(
        lambda p, s, a: 0.8 * s + jnp.stack([a @ jnp.array([1.0, -0.6, 0.3, 0.0]), s[0] * a[1]]),
        lambda p, s, a, t: s @ s + 0.5 * a[2],
        horizon=6,
        action_space=mpc.Discrete(4),
    )
    start, seen = jnp.array([1.3, -2.0]), []

    def step(params, state, memory):
        seen.append(float(params["sharpness"]))
        return memory

    plain = mpc.gradient(problem, starts=4)
    spied = mpc.anneal(plain._replace(step=step), start=0.25, steps=2)
    memory = spied.init(None, start, jax.random.key(0))
    for _ in range(4):
        memory = spied.step(None, start, memory)
    np.testing.assert_allclose(seen, [0.25, 0.5, 1.0, 1.0], rtol=1e-6)
    assert int(spied.shift(memory).steps) == 0
    plan = mpc.solve(mpc.anneal(plain, steps=30), None, start, jax.random.key(0), iterations=60)
    sure = mpc.solve(plain, None, start, jax.random.key(0), iterations=0)
    assert float(plan.cost) < float(sure.cost)
    with pytest.raises(ValueError, match="sharpness"):
        mpc.solve(mpc.anneal(plain), jnp.ones(1), start, jax.random.key(0), iterations=1)


def test_impossible_settings_are_refused():
    box, half, choice = mpc.Box([-1.0], [1.0]), cast(Any, 1.5), cast(Any, mpc.Discrete(3))
    for build, message in (
        (lambda: spaces.held(box, 0), "steps"),
        (lambda: spaces.expanded(box, half), "steps"),
        (lambda: spaces.rate_limited(box, 0.0), "positive"),
        (lambda: spaces.rate_limited(box, [1.0, 2.0]), "shape"),
        (lambda: spaces.rate_limited(choice, 1.0), "Box"),
        (lambda: mpc.anneal(mpc.gradient(reach(box)[0]), start=0.0), "start"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.parametrize("variable", [-1.0, -0.3, 1.0])
def test_the_derivative_at_a_bound_is_that_from_within(variable):
    box = mpc.Box([-2.0], [4.0])
    assert float(jax.grad(lambda v: box.relax(v)[0])(jnp.array([variable]))[0]) == pytest.approx(3.0)
    assert float(jax.grad(lambda v: box.relax(v)[0])(jnp.array([1.5]))[0]) == 0.0


def test_a_box_of_shape_none_has_scalar_actions():
    space = mpc.Box(-1.0, 3.0, shape=())
    actions = space.decide(jnp.array([[0.5], [-9.0], [np.nan]]))
    np.testing.assert_allclose(actions, [2.0, -1.0, 1.0])
    np.testing.assert_allclose(space.encode(actions), [[0.5], [-1.0], [0.0]])
    assert space.shape == () and space.size == 1 and mpc.Box(-1.0, 1.0).shape == (1,)
    with pytest.raises(ValueError, match="broadcast"):
        mpc.Box([-1.0, 0.0], 1.0, shape=())


HUNDREDTHS = np.arange(1, 100) / 100  # half of which no float32 meets without leaving the box
BOXES = [mpc.Box(-HUNDREDTHS, HUNDREDTHS), mpc.Box(HUNDREDTHS, 3.7 * HUNDREDTHS), mpc.Box(-1e4 * HUNDREDTHS, 0.01)]
WRAPPED = {
    "box": lambda box: box,
    "held": lambda box: spaces.held(box, 2),
    "rate limited": lambda box: spaces.rate_limited(box, 0.3),
    "expanded": lambda box: spaces.expanded(box, 2),
    "one side": lambda box: mpc.Box(box.low, np.inf),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("box", BOXES, ids=("symmetric", "positive", "large"))
def test_no_bound_holds_an_action_for_lack_of_a_derivative(wrap, box):
    space = wrap(box)
    half = np.ones_like(box.low) if not space.bounded else 0.5 * (box.high - box.low)
    half = np.tile(half, space.size // len(half))
    bound = space.bind({"previous_action": jnp.full(space.shape, jnp.nan)})
    for actions in (box.low, box.high) if space.bounded else (box.low,):
        variables = space.encode(jnp.asarray(np.broadcast_to(actions, (4, *space.shape)), jnp.float32))
        slope = jax.grad(lambda v: bound.relax(space.project(v)).sum())(variables)
        np.testing.assert_allclose(slope.sum(0), 4 * half, rtol=1e-5)
