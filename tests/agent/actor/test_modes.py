"""Two modes of acting: which one acts, what reacting is, how planning goes on after it, and what actors are taught."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent import Agent
from mpc.agent.actor.actor_critic import actor_critic
from mpc.agent.actor.time_budget import PATIENCE, Budget
from mpc.policy import skip
from mpc.spaces import Discrete
from tests.agent.toys import SMALL
from world_models.base import initial_state

SEEN = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -2.0]], np.float32)


@pytest.fixture(scope="module")
def agent() -> Agent:
    """A small one that remembers 30 steps and has learnt nothing; its actor's weights are drawn."""
    made = Agent("Pendulum-v1", settings=replace(SMALL, random_steps=1000), seed=3).learn(30, progress_bar=False)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    practice = made.learner.practice
    drawn = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), practice.deployed_actor)
    made.learner.practice = practice._replace(actor=drawn, actor_ema=drawn, deployed_actor=drawn)
    return made


def test_a_budget_plans_while_there_is_time_and_tries_again_later():
    budget = Budget()
    assert budget.plans("plan", 1) and not budget.plans("react", 1)
    assert budget.plans(5.0, 1)  # nothing is known yet
    budget.spent(1, 900.0)  # compiled
    assert budget.plans(5.0, 1)
    for milliseconds in (4.0, 30.0, 4.5):
        budget.spent(1, milliseconds)
    assert budget.plans(5.0, 1) and not budget.plans(4.0, 1)
    assert budget.plans(4.0, 2)  # another number of decisions at once
    assert [budget.plans(4.0, 1) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]


@pytest.mark.parametrize("mode", ["think", 0.0, -1.0, float("nan"), True])
def test_modes_that_are_none_are_refused(agent, mode):
    with pytest.raises(ValueError, match="mode must be 'plan', 'react', or a positive number of milliseconds"):
        agent.predict(SEEN, mode=mode)


def test_reacting_is_what_the_actor_does_at_what_is_encoded(agent):
    found, state = agent.predict(SEEN, mode="react")
    weights = agent.learner.learnt
    for row, action in zip(SEEN, found, strict=True):
        latent = agent.model.encode(weights["model"], jnp.asarray(row)).latent
        expected = agent.space.decide(agent.learner.agent_ac.act(weights["actor"], latent))
        np.testing.assert_allclose(action, expected, atol=1e-6)
    with pytest.raises(ValueError, match="only reacted"):
        agent.futures(SEEN[:1], state)
    broken, _ = agent.predict(np.full(3, np.nan, np.float32), mode="react")
    np.testing.assert_array_equal(broken, agent.space.decide(jnp.zeros(1)))


def test_planning_goes_on_where_the_plan_would_be_after_reactions(agent):
    _, planned = agent.predict(SEEN)
    state = planned
    for _ in range(2):
        _, state = agent.predict(SEEN, state=state, mode="react")
    np.testing.assert_array_equal(state.behind, 2)
    later = jax.vmap(lambda loop: skip(agent.policy.planner, loop, jnp.asarray(2)))(planned.loop)
    expected = agent._decider.decide(agent.params, SEEN, later, None, agent.seed)[0]
    found, state = agent.predict(SEEN, state=state)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(state.behind, 0)


def test_planning_begins_anew_where_nothing_is_left_of_the_plan(agent):
    _, state = agent.predict(SEEN)
    _, state = agent.predict(SEEN, state=state, episode_start=np.array([True, False]), mode="react")
    found, _ = agent.predict(SEEN, state=state)
    fresh, _ = agent.predict(SEEN)
    np.testing.assert_allclose(found[0], fresh[0], atol=1e-5)


def test_within_a_budget_it_plans_or_reacts(agent):
    reacted, _ = agent.predict(SEEN, mode="react")
    state = None
    for _ in range(4):  # the first compiles
        _, state = agent.predict(SEEN, state=state, mode=1e6)
        assert (state.behind == 0).all() and state.loop is not None
    found, state = agent.predict(SEEN, state=state, mode=1e-6)
    np.testing.assert_array_equal(found, reacted)
    assert (state.behind == 1).all()


def test_settings_that_shape_nothing_learnt_can_be_changed(agent, tmp_path):
    agent.save(tmp_path)
    loaded = Agent.load(tmp_path, settings={"horizon": 3})
    assert loaded.policy.planner.problem.horizon == 3 and loaded.settings == replace(agent.settings, horizon=3)


def test_an_actor_imitates_choices():
    """A known policy: the first choice where z < 0, else the second."""
    space = Discrete(2)
    agent_ac = actor_critic(
        lambda _, state, action: state,
        lambda *_: jnp.zeros(()),
        lambda _: jnp.zeros(()),
        lambda _, seen: initial_state(seen),
        space,
        1,
        hidden=16,
    )
    latents = jnp.linspace(-1.0, 1.0, 200)[:, None]
    shown = jnp.concatenate([latents < 0.0, latents >= 0.0], axis=1).astype(jnp.float32)
    practice, _ = agent_ac.imitate(agent_ac.init(jax.random.key(0)), latents, shown)
    variables = jax.vmap(partial(agent_ac.act, practice.deployed_actor))(latents)
    apart = np.abs(latents[:, 0]) > 0.1
    np.testing.assert_array_equal(jax.vmap(space.decide)(variables)[apart], (latents[:, 0] >= 0.0)[apart])


def test_an_actor_is_taught_what_was_planned(agent, tmp_path):
    """Half of what is remembered counts as planned, by a known policy."""
    agent.save(tmp_path)
    pupil = Agent.load(tmp_path, settings={"random_steps": 15})
    with pytest.raises(ValueError, match="nothing to distil"):
        agent.distil()
    seen = np.asarray(pupil.buffer.observations[0, :30])
    own = pupil.predict(seen, mode="react")[0]
    pupil.buffer = pupil.buffer._replace(actions=0.5 * pupil.buffer.observations[..., 1:2])
    assert np.abs(own[15:] - seen[15:, 1:2]).mean() > 0.3
    pupil.distil(rounds=0)
    taught = pupil.predict(seen, mode="react")[0]
    assert np.abs(taught[15:] - seen[15:, 1:2]).mean() < 0.1  # half of the bounds, which are 2 Nm


def test_an_actor_is_taught_what_planning_does_where_it_would_go(agent, tmp_path):
    """The more plans an actor has learnt from, the less others gain on it."""
    agent.save(tmp_path)
    settings = {
        "random_steps": 15,
        "iterations": 4,
        "starts": 4,
        "disagreement": 0.3,
    }  # nothing learnt: doubt is all it plans for
    pupil = Agent.load(tmp_path, settings=settings)
    gains = [pupil.distil(1, 40)["gain"] for _ in range(3)]
    assert 0 <= gains[2] < 0.5 * gains[0]
