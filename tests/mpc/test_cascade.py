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
        mpc.costs.total(way=(1.0, lambda p, s, a, t: distance(s, p["goal"]))),
        lambda p, s: 2.0 * distance(s, p["goal"]),
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
    return [{"level": jnp.float32(i)} for i in range(count - 1)] + [{"level": jnp.float32(count - 1), "goal": goal}]


@pytest.fixture(scope="module")
def stacks():
    """`count -> first, next`, compiled once."""
    return {n: (jax.jit((c := cascade(LEVELS[:n])).first), jax.jit(c.next)) for n in (1, 2, 3)}


def walked(stack, count, steps=70):
    """Where the point goes, and what every level had planned on the way."""
    (first, next_), place, paths, plans, level_states = stack, START, [START], [], None
    for _ in range(steps):
        if level_states is None:
            level_states, action = first(told(count), place, jax.random.key(0))
        else:
            level_states, action = next_(told(count), place, level_states)
        place = moved(place, action)
        paths.append(place)
        plans.append([np.asarray(s.states) for s in level_states])
    return np.asarray(paths), plans


@pytest.mark.parametrize(("count", "arrives"), [(1, False), (2, True), (3, True)])
def test_the_level_above_leads_through_the_door(stacks, count, arrives):
    path, plans = walked(stacks[count], count)
    assert (np.linalg.norm(path[-1] - GOAL) < 0.5) == arrives
    for index in range(1, count):  # plans of upper levels stand for as long as they should
        changes = [not np.array_equal(a[index], b[index]) for a, b in pairwise(plans)]
        every = STRIDE if index == 1 else 2 * STRIDE
        assert all(changes[every - 1 :: every][:3]) and sum(changes) <= len(changes) // every


def test_a_cascade_is_its_levels_one_after_the_other(stacks):
    """Against two solves, the second of which goes for what the first expects after one step."""
    level_states, action = stacks[2][0](told(2), START, jax.random.key(7))
    key, upper = jax.random.split(jax.random.key(7))
    above = mpc.solve(LEVELS[1].planner, told(2)[1], START, upper, iterations=30)
    np.testing.assert_allclose(level_states[1].states, above.states, atol=1e-5)
    lower = jax.random.split(key)[1]
    below = mpc.solve(LEVELS[0].planner, {"goal": above.states[1]}, START, lower, iterations=30)
    np.testing.assert_allclose(action, below.actions[0], atol=1e-5)


def test_many_cascades_at_once_do_what_each_does_alone(stacks):
    goals = jnp.stack([GOAL, jnp.array([1.0, 7.0])])
    parameters = [{"level": jnp.zeros(2)}, {"level": jnp.ones(2), "goal": goals}]
    keys = jax.random.split(jax.random.key(0), 2)
    _, actions = jax.jit(jax.vmap(cascade(LEVELS[:2]).first, in_axes=(0, None, 0)))(parameters, START, keys)
    for goal, key, action in zip(goals, keys, actions, strict=True):
        np.testing.assert_allclose(stacks[2][0](told(2, goal), START, key)[1], action, atol=1e-4)


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
        cascade(LEVELS[:2]).first(told(1), START, jax.random.key(0))
