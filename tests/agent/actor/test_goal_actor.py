"""Goals reached by an actor alone, which imitates what recordings show to lead to goals."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent import Agent, Task
from mpc.agent.actor.goal_actor import goal_actor, hindsight
from mpc.agent.memory import trajectory_latents
from tests.agent.toys import START, exact, exact_agent, go, moved
from tests.world_models import dots
from world_models.distances.temporal import latent_distance


@pytest.fixture(scope="module")
def pupil():
    """It knows the dot's dynamics, and has seen random moves."""
    with pytest.MonkeyPatch.context() as patch:  # small, and taught in a moment
        patch.setattr("mpc.agent.actor.goal_actor.goal_actor", partial(goal_actor, hidden=(32,)))
        patch.setattr("mpc.agent.actor.goal_actor.DRAWN", 20_000)
        patch.setattr("mpc.agent.actor.goal_actor.KEPT", 6_000)
        agent = exact_agent(seed=1, config={"first_starts": 5})  # of a kind of its own
        assert agent.distil(dots.dataset(40))["imitation"] > 0
        yield agent


def test_an_actor_reaches_goals_from_recordings_of_random_moves(pupil):
    random = np.random.default_rng(3)
    missed = []
    for _ in range(10):
        start, goal = random.uniform(1, 14, (2, 2)).astype(np.float32)
        path = go(pupil.configure(Task(goal=goal)), start, mode="react")
        missed.append(np.linalg.norm(path[-1] - goal))
    assert np.mean(missed) < 0.7 and max(missed) < 1.5  # a block's step is 4.2 at most


def test_lessons_lead_towards_their_goals():
    """Of random blocks as many lead away from a goal as towards it."""
    recorded = trajectory_latents.embed(dots.dataset(10), 2, 20, jnp.asarray)
    taken = trajectory_latents.blocks(dots.dataset(10), recorded, 2)
    seen, rows = hindsight(partial(latent_distance().measure, {}), recorded, taken, 0, 4)
    before, goal = seen[:, :2], seen[:, 2:]
    np.testing.assert_array_equal(before, recorded.latents[rows])
    nearer = np.linalg.norm(before - goal, axis=1) > np.linalg.norm(recorded.latents[rows + 1] - goal, axis=1)
    assert nearer.mean() > 0.95
    with pytest.raises(ValueError, match="tell no actions"):
        hindsight(partial(latent_distance().measure, {}), recorded, np.full_like(taken, np.nan), 0, 4)


def test_plans_begin_with_what_the_actor_would_do(pupil, tmp_path):
    place = np.array([2.0, 3.0], np.float32)
    pupil.configure(Task(goal=np.array([11.0, 9.0]))).save(tmp_path)
    hasty = {"starts": 2, "first_starts": 2, "first_iterations": 1, "iterations": 1}
    quick = Agent.load(tmp_path, model=exact(), config=hasty)
    _, with_actor = quick.predict(place)
    quick.learner.goal_actor = None
    _, without = quick.predict(place)
    assert float(with_actor.policy.plan.cost[0]) < 0.8 * float(without.policy.plan.cost[0])
    again = Agent.load(tmp_path, model=exact())
    for mode in ("react", "plan"):
        ours, theirs = (agent.predict(place, mode=mode)[0] for agent in (pupil, again))
        np.testing.assert_array_equal(ours, theirs)


def test_an_agent_reacts_where_there_is_no_time_and_plans_on_from_there(pupil):
    pupil.configure(Task(goal=np.array([11.0, 9.0])))
    place = np.array([2.0, 3.0], np.float32)
    reacted, state = pupil.predict(place, mode="react")
    for _ in range(3):  # the first compiles
        _, planned = pupil.predict(place, mode=1e6)
        assert np.isfinite(planned.policy.plan.cost).all()
    found, _ = pupil.predict(place, mode=1e-6)
    np.testing.assert_array_equal(found, reacted)
    place = moved(place, reacted)
    second, late = pupil.predict(place, state, mode="react")
    place = moved(place, second)
    _, late = pupil.predict(place, late)
    np.testing.assert_array_equal(late.policy.belief.latent[0], place)
    corrections = late.policy.corrections
    assert np.isfinite(late.policy.plan.cost).all() and corrections.reach.shape[1] == pupil.config.memory.correction_memory
    np.testing.assert_allclose(corrections.actions[0, 0], np.concatenate([reacted, second]) / dots.STEP, atol=1e-5)


def test_there_is_no_reacting_without_an_actor():
    agent = exact_agent()
    for mode in ("react", 5.0):
        with pytest.raises(ValueError, match="needs an actor"):
            agent.predict(START, mode=mode)
