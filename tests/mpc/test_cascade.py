"""A point before a wall: the lower level knows nothing of it, the level above knows the door."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc
from mpc.cascade import Level, cascade

WALL, DOOR = 5.0, jnp.array([5.0, 9.0])  # a wall at x = 5 below y = 8
STEP, STRIDE = 0.5, 4
START, GOAL = jnp.array([2.0, 2.0]), jnp.array([8.0, 2.0])


def straight(a, b):
    return jnp.sqrt(jnp.sum((a - b) ** 2) + 1e-4)


def way(a, b):
    """Through the door, from one side to the other."""
    return jnp.where((a[0] < WALL) == (b[0] < WALL), straight(a, b), straight(a, DOOR) + straight(DOOR, b))


def moved(place, by):
    """Stopped by the wall, unless it is crossed at the door."""
    there = place + by
    share = (WALL - place[0]) / jnp.where(jnp.abs(by[0]) < 1e-6, 1e-6, by[0])
    stops = (share >= 0) & (share <= 1) & (place[1] + share * by[1] < 8.0)
    return jnp.where(stops, jnp.array([WALL + jnp.where(place[0] < WALL, -0.05, 0.05), there[1]]), there)


def level(distance, model, reach, horizon, every) -> Level:
    """Steps of `reach` an axis at most, each minimising the distance to the goal all along."""
    problem = mpc.Problem(
        lambda params, state, action: model(state, action),
        mpc.costs.total(way=(1.0, lambda p, s, a, t: distance(s, p["cost"]["goal"]))),
        lambda p, s: 2.0 * distance(s, p["cost"]["goal"]),
        horizon=horizon,
        action_space=mpc.Box([-reach] * 2, [reach] * 2),
    )
    planner = mpc.gradient(problem, optimizer=optax.adam(0.2), starts=2)
    return Level(planner, iterations=8, first_iterations=30, every=every)


LEVELS = [
    level(straight, jnp.add, STEP, STRIDE, 1),
    level(way, moved, STRIDE * STEP, 6, STRIDE),
    level(way, moved, 2 * STRIDE * STEP, 4, 2),
]


def told(count, goal=GOAL):
    """Only the highest is told the goal."""
    return [{"level": jnp.float32(i)} for i in range(count - 1)] + [
        {"level": jnp.float32(count - 1), "cost": {"goal": goal}}
    ]


@pytest.fixture(scope="module")
def stacks():
    """`count -> init, step`, compiled once."""
    return {n: (jax.jit((c := cascade(LEVELS[:n])).init), jax.jit(c.step)) for n in (1, 2, 3)}


def walked(stack, count, steps=90):
    """The path of the point, and the plans of every level on the way."""
    (init, step), place, paths, plans = stack, START, [START], []
    level_states = init(told(count), place, jax.random.key(0))
    for _ in range(steps):
        level_states, decision = step(told(count), place, level_states)
        place = moved(place, decision.action)
        paths.append(place)
        plans.append([np.asarray(s.states) for s in level_states])
    return np.asarray(paths), plans


@pytest.mark.parametrize(("count", "arrives"), [(1, False), (2, True), (3, True)])
def test_the_level_above_leads_through_the_door(stacks, count, arrives):
    path, plans = walked(stacks[count], count)
    assert (np.linalg.norm(path[-30:] - GOAL, axis=1).min() < 0.5) == arrives  # it may pass the goal, and return
    for index in range(1, count):  # plans of upper levels stand for as long as they should
        changes = [not np.array_equal(a[index], b[index]) for a, b in pairwise(plans)]
        every = STRIDE if index == 1 else 2 * STRIDE
        assert all(changes[every - 1 :: every][:3]) and sum(changes) <= len(changes) // every


def test_a_cascade_is_its_levels_one_after_the_other(stacks):
    """Against two solves, the second of which goes for what the first expects after one step."""
    init, step = stacks[2]
    level_states = init(told(2), START, jax.random.key(7))
    key, upper = jax.random.split(jax.random.key(7))
    above = mpc.solve(LEVELS[1].planner, told(2)[1], START, upper, iterations=30)
    np.testing.assert_allclose(level_states[1].states, above.states, atol=1e-5)
    lower = jax.random.split(key)[1]
    below = mpc.solve(LEVELS[0].planner, {"cost": {"goal": above.states[1]}}, START, lower, iterations=30)
    np.testing.assert_allclose(level_states[0].states, below.states, atol=1e-5)
    longer = mpc.solve(LEVELS[0].planner, {"cost": {"goal": above.states[1]}}, START, lower, iterations=38)
    level_states, decision = step(told(2), START, level_states)
    np.testing.assert_allclose(decision.plan.actions, longer.actions, atol=1e-4)
    assert level_states[1].age == 1


def test_many_cascades_at_once_do_what_each_does_alone(stacks):
    goals = jnp.stack([GOAL, jnp.array([1.0, 7.0])])
    parameters = [{"level": jnp.zeros(2)}, {"level": jnp.ones(2), "cost": {"goal": goals}}]
    keys = jax.random.split(jax.random.key(0), 2)
    both = cascade(LEVELS[:2])

    def decided(params, key):
        return both.step(params, START, both.init(params, START, key))[1].action

    actions = jax.jit(jax.vmap(decided))(parameters, keys)
    init, step = stacks[2]
    for goal, key, action in zip(goals, keys, actions, strict=True):
        level_states = init(told(2, goal), START, key)
        np.testing.assert_allclose(step(told(2, goal), START, level_states)[1].action, action, atol=1e-4)


def test_what_cannot_be_seen_gets_the_last_plans_actions_and_plans_stand(stacks):
    init, step = stacks[2]
    level_states = init(told(2), START, jax.random.key(0))
    level_states, decision = step(told(2), START, level_states)
    expected = [*np.asarray(decision.plan.actions[1:]), np.zeros(2)]  # the plan of four steps, and then the middle
    for action in expected:  # the level above is due at the fourth
        before = level_states
        level_states, blind = step(told(2), jnp.full(2, jnp.nan), level_states)
        assert blind.status == mpc.Status.NOT_FINITE
        np.testing.assert_array_equal(blind.action, action)
        np.testing.assert_array_equal(level_states[1].states, before[1].states)


def test_a_candidate_is_taken_up_where_it_is_better():
    """A planner that steps towards the goal slowly is shown the way straight to it."""
    slow = LEVELS[0].planner.problem
    lowest = LEVELS[0]._replace(
        planner=mpc.gradient(slow, optimizer=optax.sgd(1e-6), starts=1), first_iterations=1, iterations=1
    )
    single, params = cascade([lowest]), [{"cost": {"goal": START + 1.5}}]
    step = jax.jit(single.step)
    level_states = single.init(params, START, jax.random.key(0))
    straight = jnp.concatenate([jnp.full((3, 2), STEP), jnp.zeros((slow.horizon - 3, 2))])
    alone = step(params, START, level_states)[1]
    proposed = step(params, START, level_states, straight)[1]
    assert proposed.plan.cost < alone.plan.cost
    np.testing.assert_allclose(proposed.plan.actions, straight, atol=1e-4)
    worse = step(params, START, level_states, -straight)[1]
    assert worse.plan.cost <= alone.plan.cost + 1e-6


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([], "at least one level"),
        ([LEVELS[1]], "every must be 1"),
        ([LEVELS[0], LEVELS[1]._replace(iterations=0)], "must be at least 1"),
    ],
)
def test_what_is_no_cascade_is_refused(levels, said):
    with pytest.raises(ValueError, match=said):
        cascade(levels)


def test_every_level_needs_its_parameters():
    with pytest.raises(ValueError, match="each of 2 levels; got 1"):
        cascade(LEVELS[:2]).init(told(1), START, jax.random.key(0))
