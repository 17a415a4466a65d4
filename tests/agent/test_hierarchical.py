"""A dot whose walks are all that the upper level knows of: what macro-actions stand for, and plans on two levels."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent.hierarchical_agent import HierarchicalAgent, HierarchySettings
from tests.agent.test_goals import QUICK, knowing, truth
from tests.world_models import dots
from world_models import data
from world_models.io.checkpoint import CheckpointError
from world_models.pixels import Latent

SETTINGS = HierarchySettings(
    strides=(3,),
    sigma=0.5,
    horizon=4,
    near=4.0,
    candidates=8,
    starts=2,
    first_iterations=20,
    iterations=10,
    updates=600,
    hidden=(32,),
    prior_weight=0.05,
)
ROWS = 3 * QUICK.block


@pytest.fixture(scope="module")
def learnt():
    agent = HierarchicalAgent(knowing(QUICK), settings=SETTINGS)
    agent.learn(dots.dataset())
    return agent


@pytest.fixture(scope="module")
def steps():
    """Where walks never learnt from are, and are a step of the upper level later, away from the border all the time."""
    source = data.resident(dots.dataset(200, 9), ROWS)
    seen = np.asarray(data.draw(source, jax.random.key(0), 1000, ROWS).observations)
    return seen[((seen > 2.0) & (seen < 13.0)).all(axis=(1, 2))][:, (0, -1)]


def test_macro_actions_say_where_a_walk_led(learnt, steps):
    model, params = learnt.models[0], learnt.params[0]

    @jax.jit
    @jax.vmap
    def missed(before, after):
        start, came, none = model.encode(params, before), model.encode(params, after), jnp.zeros(0)
        found = model.infer_latent(params, start, none, came)
        return [jnp.sum((model.predict(params, start, none, z).latent - after) ** 2) for z in (found, 0 * found)]

    inferred, zero = (float(x.mean()) for x in missed(steps[:, 0], steps[:, 1]))
    assert inferred < 0.2 * zero
    moved = float(np.square(steps[:, 1] - steps[:, 0]).sum(axis=1).mean())
    assert zero < 1.5 * moved  # knowing nothing, staying about there is the best guess


def test_drawn_macro_actions_lead_as_far_as_walks_do(learnt):
    """Six moves, uniform within 1.5 an axis: a standard deviation of 1.5 sqrt(6 / 3)."""
    model, params = learnt.models[0], learnt.params[0]
    start, draws = model.encode(params, jnp.array([7.5, 7.5])), jax.random.normal(jax.random.key(1), (1000, 2))
    ends = jax.jit(jax.vmap(lambda m: model.predict(params, start, jnp.zeros(0), m).latent))(draws)
    np.testing.assert_allclose(ends.std(axis=0), 1.5 * np.sqrt(2.0), rtol=0.35)
    np.testing.assert_allclose(ends.mean(axis=0), 7.5, atol=0.7)


def reach(agent, steps=40):
    place, goal, state = np.array([3.0, 4.0], np.float32), np.array([12.0, 11.0], np.float32), None
    for _ in range(steps):
        action, state = agent.predict(place, goal, state)
        place = np.clip(place + action, 1.0, 14.0).astype(np.float32)
    return np.linalg.norm(place - goal), state


def test_plans_on_two_levels_get_there(learnt):
    missed, state = reach(learnt)
    assert missed < 0.7 and state is not None
    # the lower level goes where the upper one expects to be next
    expected = np.asarray(state.course.level_states[1].states.latent)
    assert np.linalg.norm(expected[1] - [12.0, 11.0]) < 3.0


def test_upper_plans_keep_to_the_ways_that_recordings_show():
    """A goal 9 away beyond a wall, 15 and more by way of its door, and steps of which none was longer than 8.1."""
    settings = replace(SETTINGS, horizon=5, near=3.0, candidates=16, starts=8, first_iterations=30, updates=800)
    agent, walks = HierarchicalAgent(knowing(QUICK), settings=replace(settings, prior_weight=0.1)), dots.around()
    agent.learn(walks)
    recorded = walks.observations.reshape(len(walks.lengths), -1, 2)[:, ::ROWS]
    longest = dots.way(recorded[:, :-1], recorded[:, 1:]).max()
    for place, goal in [((3.0, 3.0), (12.0, 3.0)), ((12.0, 4.0), (2.0, 3.0))]:
        _, state = agent.predict(np.array(place, np.float32), np.array(goal, np.float32))
        plan = np.asarray(state.course.level_states[1].states.latent)
        assert dots.way(plan[:-1], plan[1:]).max() < 1.1 * longest < 10.0
        assert dots.way(plan, np.array(goal)).min() < 4.0


@pytest.mark.parametrize(("goal", "handed"), [((12.0, 11.0), (6.0, 6.0)), ((4.0, 4.5), (4.0, 4.5))])
def test_the_goal_itself_is_handed_down_where_it_is_nearer_than_a_step(learnt, goal, handed):
    params = {"distance": {}, "goal": jnp.array(goal)}
    states = Latent(jnp.array([[3.0, 4.0], [6.0, 6.0], [9.0, 9.0]]), ())
    np.testing.assert_array_equal(learnt.cascade.levels[1].target(params, states, jnp.int32(0)), handed)


def test_steps_longer_than_their_blocks_cost_what_they_are_too_long():
    """Three blocks, which may lead 1.1 each; the distance here is the root mean square of two numbers."""
    agent = HierarchicalAgent(knowing(QUICK), settings=replace(SETTINGS, reachability_weight=8.0))
    problem, goal = agent.cascade.levels[1].planner.problem, jnp.array([9.0, 9.0])
    assert problem.terminal_cost is not None
    for moved, longer in ((2.0, 0.0), (6.0, 6.0 / 3 - 1.1)):
        state = Latent(goal, jnp.full(2, moved))
        terms = problem.terminal_cost.terms({"distance": {}, "goal": goal}, state)
        assert float(terms["last"]) == pytest.approx(8.0 / SETTINGS.horizon * longer**2, rel=2e-3, abs=1e-6)


def test_an_action_is_in_bounds_and_another_goal_is_planned_for_from_scratch(learnt):
    place = np.array([7.0, 7.0], np.float32)
    _, state = learnt.predict(place, np.array([12.0, 11.0], np.float32))
    away, turned = learnt.predict(place, np.array([2.0, 3.0], np.float32), state)
    assert learnt.agent.action_space.contains(away) and turned.age == 1
    np.testing.assert_array_equal(away, learnt.predict(place, np.array([2.0, 3.0], np.float32))[0])
    with pytest.raises(ValueError, match="must be finite"):
        learnt.predict(place, np.array([np.nan, 3.0], np.float32))


def test_what_cannot_be_seen_is_taken_to_have_come_as_expected(learnt):
    place, goal = np.array([7.0, 7.0], np.float32), np.array([12.0, 11.0], np.float32)
    _, state = learnt.predict(place, goal)
    taken = np.asarray(state.course.actions)
    state = state._replace(age=QUICK.block)
    blind, _ = learnt.predict(np.full(2, np.nan, np.float32), goal, state)
    seeing, _ = learnt.predict(np.float32(place + taken.sum(axis=0)), goal, state)  # the model of this dot is exact
    np.testing.assert_allclose(blind, seeing, atol=1e-4)


def test_a_loaded_agent_acts_as_the_saved_one_did(learnt, tmp_path):
    place, goal = np.array([3.0, 4.0], np.float32), np.array([12.0, 11.0], np.float32)
    again = HierarchicalAgent.load(learnt.save(tmp_path / "dot"), model=truth())
    assert again.settings == learnt.settings and again.seed == learnt.seed
    np.testing.assert_array_equal(again.predict(place, goal)[0], learnt.predict(place, goal)[0])
    hasty = HierarchicalAgent.load(tmp_path / "dot", above={"iterations": 3}, model=truth())
    assert hasty.settings.iterations == 3 and hasty.cascade.levels[1].iterations == 3
    other = knowing(QUICK)
    other.training = other.training._replace(updates=other.training.updates + 7)
    other.save(tmp_path / "dot" / "lowest")
    with pytest.raises(CheckpointError, match="the levels above were learnt on an agent of"):
        HierarchicalAgent.load(tmp_path / "dot", model=truth())


@pytest.mark.parametrize("strides", [(), (1,), (3, 4), (4, 4)])
def test_strides_that_fit_no_hierarchy_are_refused(strides):
    with pytest.raises(ValueError, match=r"multiple of the one below|a level above"):
        HierarchySettings(strides=strides)


def test_more_starts_than_candidates_are_refused():
    with pytest.raises(ValueError, match="starts are the best of candidates"):
        HierarchySettings(starts=8, candidates=4)


def test_a_step_that_the_agent_cannot_imagine_is_refused():
    with pytest.raises(ValueError, match="longer than the 8 blocks"):
        HierarchicalAgent(knowing(QUICK), settings=HierarchySettings(strides=(12,)))
