"""A dot whose walks are all that the slower level knows of: what macro-actions stand for, and plans on two levels."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent import Agent, AgentConfig, Task, TaskError
from mpc.agent.actor.macro_planning import macro_planner, target
from tests.agent.toys import EXACT, LEVELS, exact, exact_agent, moved
from tests.world_models import dots
from world_models import data
from world_models.base import WorldModel, initial_state
from world_models.distances.temporal import latent_distance

ROWS = 3 * EXACT["block"]
PLACE, FAR, NEAR = (np.array(x, np.float32) for x in ([3.0, 4.0], [12.0, 11.0], [4.0, 4.5]))


@pytest.fixture(scope="module")
def learnt() -> Agent:
    """An agent on two levels that has learnt from many walks."""
    return exact_agent(goal=FAR, config=LEVELS | {"macro_updates": 600}).learn_from(dots.dataset(), progress_bar=False)


@pytest.fixture(scope="module")
def steps():
    """Places of walks never learnt from, now and a step of the slower level later, away from the border all the time."""
    source = data.resident(dots.dataset(200, 9), ROWS)
    seen = np.asarray(data.draw(source, jax.random.key(0), 1000, ROWS).observations)
    return seen[((seen > 2.0) & (seen < 13.0)).all(axis=(1, 2))][:, (0, -1)]


def test_macro_actions_say_where_a_walk_led(learnt, steps):
    model, params = learnt.components.macro_models[0], learnt.params["macro"][0]

    @jax.jit
    @jax.vmap
    def missed(before, after):
        start, came, none = model.encode(params, before), model.encode(params, after), jnp.zeros(0)
        found = model.infer_latent(params, start, none, came)
        return [jnp.sum((model.predict(params, start, none, z).latent - after) ** 2) for z in (found, 0 * found)]

    inferred, zero = (float(x.mean()) for x in missed(steps[:, 0], steps[:, 1]))
    assert inferred < 0.2 * zero
    far = float(np.square(steps[:, 1] - steps[:, 0]).sum(axis=1).mean())
    assert zero < 1.5 * far  # knowing nothing, staying about there is the best guess


def test_drawn_macro_actions_lead_as_far_as_walks_do(learnt):
    """Six moves, uniform within 1.5 an axis: a standard deviation of 1.5 sqrt(6 / 3)."""
    model, params = learnt.components.macro_models[0], learnt.params["macro"][0]
    start, draws = model.encode(params, jnp.array([7.5, 7.5])), jax.random.normal(jax.random.key(1), (1000, 2))
    ends = jax.jit(jax.vmap(lambda m: model.predict(params, start, jnp.zeros(0), m).latent))(draws)
    np.testing.assert_allclose(ends.std(axis=0), 1.5 * np.sqrt(2.0), rtol=0.35)
    np.testing.assert_allclose(ends.mean(axis=0), 7.5, atol=0.7)


def expected(state) -> np.ndarray:
    """Places where the slower level expects to be, step by step."""
    return np.asarray(state.policy.planning[1].states.latent[0])


def test_plans_on_two_levels_get_there(learnt):
    place, state = PLACE, None
    for _ in range(40):
        action, state = learnt.predict(place, state)
        place = moved(place, action)
    assert np.linalg.norm(place - FAR) < 0.7
    assert np.linalg.norm(expected(state)[1] - FAR) < 3.0


def test_the_lower_level_goes_where_the_slower_one_expects_to_be(learnt):
    """Its plan ends there, and not at the goal, which is further than its horizon reaches."""
    _, state = learnt.predict(PLACE)
    end, subgoal = np.asarray(learnt.imagine(state).latent)[-1], expected(state)[1]
    assert np.linalg.norm(subgoal - FAR) > 4.0
    assert np.linalg.norm(end - subgoal) < 0.5


@pytest.fixture(scope="module")
def walks():
    """Walks round a wall, by its door, of which the exact model knows nothing."""
    return dots.around()


@pytest.fixture(scope="module")
def detouring(walks) -> Agent:
    """An agent that has learnt from them."""
    change = {"macro_horizon": 5, "near": 3.0, "candidates": 16, "macro_starts": 8, "macro_first_iterations": 30}
    change |= {"macro_updates": 800, "prior_weight": 0.1}
    return exact_agent(config=LEVELS | change).learn_from(walks, progress_bar=False)


@pytest.mark.filterwarnings("ignore::mpc.agent.configurator.configurator.OutOfDistributionGoal")
def test_slower_plans_keep_to_the_ways_that_recordings_show(detouring, walks):
    """A goal 9 away beyond a wall, 15 and more by way of its door, and steps of which none was longer than 8.1."""
    recorded = walks.observations.reshape(len(walks.lengths), -1, 2)[:, ::ROWS]
    longest = dots.way(recorded[:, :-1], recorded[:, 1:]).max()
    for place, goal in [((3.0, 3.0), (12.0, 3.0)), ((12.0, 4.0), (2.0, 3.0))]:
        detouring.configure(Task(goal=np.array(goal)))
        plan = expected(detouring.predict(np.array(place, np.float32))[1])
        assert dots.way(plan[:-1], plan[1:]).max() < 1.1 * longest < 10.0
        assert dots.way(plan, np.array(goal)).min() < 4.0


@pytest.mark.parametrize(("goal", "handed"), [((12.0, 11.0), (6.0, 6.0)), ((4.0, 4.5), (4.0, 4.5))])
def test_the_goal_itself_is_handed_down_where_it_is_nearer_than_a_step(goal, handed):
    params = {"distance": {}, "cost": {"goal": jnp.array(goal)}}
    states = initial_state(jnp.array([[3.0, 4.0], [6.0, 6.0], [9.0, 9.0]]), ())
    given = target(latent_distance(), AgentConfig.of(LEVELS, goals=True).macro_levels)
    np.testing.assert_array_equal(given(params, states, jnp.int32(0)), handed)


@cache
def stays() -> WorldModel:
    """A slower level that goes nowhere."""
    return exact()._replace(predict=lambda params, state, action, latent: state)


def test_steps_longer_than_their_blocks_cost_what_they_are_too_long():
    """Three blocks, which may lead 1.1 each; the distance here is the root mean square of two numbers."""
    macro = AgentConfig.of(LEVELS | {"reachability_weight": 8.0}, goals=True).macro_levels
    problem, goal = macro_planner(stays(), latent_distance(), macro, 3).problem, jnp.array([9.0, 9.0])
    assert problem.terminal_cost is not None
    weights = {}
    for far, longer in ((2.0, 0.0), (6.0, 6.0 / 3 - 1.1)):
        state = initial_state(goal, jnp.full(2, far))
        found = problem.terminal_cost.terms({"distance": {}, "cost": {"goal": goal, "weights": weights}}, state)
        assert float(found["reachability_at_end"]) == pytest.approx(
            8.0 / macro.macro_horizon * longer**2, rel=2e-3, abs=1e-6
        )


def test_an_action_is_in_bounds_and_another_goal_is_planned_for_from_scratch(learnt):
    place = np.array([7.0, 7.0], np.float32)
    _, state = learnt.predict(place)
    learnt.configure(Task(goal=np.array([2.0, 3.0])))
    away, _ = learnt.predict(place, state)
    assert learnt.action_space.contains(away)
    np.testing.assert_array_equal(away, learnt.predict(place)[0])
    with pytest.raises(TaskError, match="must be finite"):
        learnt.configure(Task(goal=np.array([np.inf, 3.0])))
    learnt.configure(Task(goal=FAR))


def test_the_expected_state_takes_the_place_of_an_observation_that_is_not_finite(learnt):
    place = np.array([7.0, 7.0], np.float32)
    action, state = learnt.predict(place)
    for _ in range(EXACT["block"] - 1):
        place = moved(place, action)
        action, state = learnt.predict(place, state)
    place = moved(place, action)
    blind, _ = learnt.predict(np.full(2, np.nan, np.float32), state)
    seeing, _ = learnt.predict(place, state)  # the model of this dot is exact
    np.testing.assert_allclose(blind, seeing, atol=1e-4)


def test_a_loaded_agent_acts_as_the_saved_one_did(learnt, tmp_path):
    again = Agent.load(learnt.save(tmp_path / "dot"), model=exact())
    assert again.config == learnt.config and again.seed == learnt.seed
    np.testing.assert_array_equal(again.predict(PLACE)[0], learnt.predict(PLACE)[0])
    hasty = Agent.load(tmp_path / "dot", config={"macro_iterations": 3}, model=exact())
    assert hasty.config.macro_levels.macro_iterations == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"strides": (1,)}, "multiple of the one below"),
        ({"strides": (3, 4)}, "multiple of the one below"),
        ({"strides": (4, 4)}, "multiple of the one below"),
        ({"strides": (12,)}, "longer than the horizon of 8"),
        ({"macro_starts": 8, "candidates": 4}, "macro_starts are the best of candidates; got 8 of 4"),
        ({"replan_every": 1}, "multiple of block=2"),
    ],
)
def test_levels_that_do_not_fit_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        exact_agent(config=LEVELS | change)
