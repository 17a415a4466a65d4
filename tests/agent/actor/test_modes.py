"""Two modes of deciding: which one decides, what reacting is, how planning goes on after it, and what actors are taught.

The model is known, x' = x + u with the reward -(x + u)², so that the best action is -x.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import mpc
from mpc.agent import Agent
from mpc.agent.actor.policy import Parts, proposal
from mpc.agent.actor.time_budget import PATIENCE, TimeBudget
from mpc.agent.cost.terms import mean_dynamics
from mpc.agent.viz import episode
from tests.agent.toys import ACTOR, SMALL
from world_models import analytic

SEEN = np.array([[0.4], [-0.7]], np.float32)
RANDOM = 15  # steps of random actions, which nothing is taught from
MODEL = analytic(lambda _, x, u: x + u, lambda _, x, u: -((x + u)[0] ** 2), None, {})
LINE = spaces.Box(-1.0, 1.0, (1,))


def new_agent() -> Agent:
    """Return an agent that knows its world, and whose actor does nothing."""
    config = SMALL | ACTOR | {"planner": "gradient", "random_steps": RANDOM, "iterations": 4, "starts": 4}
    return Agent(None, config=config, model=MODEL, observation_space=LINE, action_space=LINE, seed=3)


def remember(agent: Agent, places: np.ndarray, actions: np.ndarray) -> None:
    """Fill an agent's replay buffer with one episode `[N]`, in which nothing need follow from anything."""
    rows, follows = np.arange(len(places)), np.arange(len(places)) > 0
    agent.buffer = agent.buffer._replace(
        observations=agent.buffer.observations.at[0, rows, 0].set(places),
        actions=agent.buffer.actions.at[0, rows, 0].set(actions),
        follows=agent.buffer.follows.at[0, rows].set(follows),
        filled=jnp.array([len(places)]),
    )


@pytest.fixture(scope="module")
def agent() -> Agent:
    """One whose actor's weights are drawn."""
    made = new_agent()
    keys = iter(jax.random.split(jax.random.key(0), 100))
    state = made.learner.actor_critic_state
    assert state is not None
    drawn = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(next(keys), x.shape), state.deployed_actor)
    made.learner.actor_critic_state = state._replace(actor=drawn, actor_ema=drawn, deployed_actor=drawn)
    return made


def test_as_many_iterations_are_spent_as_fit_the_time():
    budget = TimeBudget()
    assert budget.iterations("kind", 20, 1e-3) == 20  # nothing is known yet
    budget.spent("kind", 5000.0, 20)  # compiles, and does not count
    assert budget.iterations("kind", 20, 1e-3) == 20
    for milliseconds in (40.0, 20.0, 1000.0):  # 2, 1 and 50 an iteration: 2 in the median
        budget.spent("kind", milliseconds, 20)
    assert [budget.iterations("kind", 20, limit) for limit in (0.5, 9.0, 39.0, 1e6)] == [1, 4, 19, 20]
    assert budget.iterations("another kind", 20, 0.5) == 20


def test_a_budget_plans_while_there_is_time_and_tries_again_later():
    budget = TimeBudget()
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
def test_other_modes_are_refused(agent, mode):
    with pytest.raises(ValueError, match="mode must be 'plan', 'react', or a positive number of milliseconds"):
        agent.predict(SEEN, mode=mode)


def reaction(agent: Agent, row: np.ndarray) -> np.ndarray:
    """Return what the actor does at one observation."""
    assert agent.components.actor_critic is not None
    variables = agent.components.actor_critic.act(agent.params["actor"], agent.encode(row))
    return np.asarray(agent.policy.action_space.decide(variables))


def test_reacting_is_what_the_actor_does_at_the_latent(agent):
    found, state = agent.predict(SEEN, mode="react")
    assert np.abs(found).min() > 0.05
    for row, action in zip(SEEN, found, strict=True):
        np.testing.assert_allclose(action, reaction(agent, row), atol=1e-6)
    imagined = [SEEN[0], SEEN[0] + found[0]]  # what its actions lead to, where there is no plan
    np.testing.assert_allclose(episode.futures(agent, state)[0, :2], imagined, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reaction_to_what_is_not_finite_is_to_what_was_expected(agent, bad):
    broken = np.full(2, bad, np.float32)[:, None]
    assert (np.abs(agent.predict(broken, mode="react")[0]) <= 1).all()  # finite, too, where an episode begins
    action, state = agent.predict(SEEN, mode="react")
    found, _ = agent.predict(broken, state=state, mode="react")
    for row, second in zip(SEEN + action, found, strict=True):
        np.testing.assert_allclose(second, reaction(agent, row), atol=1e-6)


def test_planning_goes_on_where_the_plan_would_be_after_reactions(agent):
    _, planned = agent.predict(SEEN)
    state = planned
    for _ in range(2):
        _, state = agent.predict(SEEN, state=state, mode="react")
    np.testing.assert_array_equal(state.policy.unplanned, 2)
    shift = agent.program.made.planning.shift
    twice = jax.jit(jax.vmap(lambda planning: shift(shift(planning))))
    later = planned.policy._replace(planning=twice(planned.policy.planning))
    expected = agent.program.decide(agent.params, SEEN, later)
    found, state = agent.predict(SEEN, state=state)
    np.testing.assert_allclose(found, agent.program.actions(expected), atol=1e-6)
    np.testing.assert_array_equal(state.policy.unplanned, 0)


def test_an_episode_that_began_with_a_reaction_is_planned_from_the_actors_proposal(agent):
    _, state = agent.predict(SEEN)
    _, state = agent.predict(SEEN, state=state, episode_start=np.array([True, False]), mode="react")
    _, state = agent.predict(SEEN, state=state)
    made, problem = agent.components, agent.program.problem
    parts = Parts(made.model, mean_dynamics(made.parts), made.spaces, made.history, made.act(False), 0, 1)
    belief = made.model.encode(agent.params["model"], jnp.asarray(SEEN[0]))
    actions = proposal(parts, agent.program.made.planning, agent.params, belief)
    own = mpc.rollout(problem, agent.params, belief, problem.action_space.embed(actions)).energy
    assert float(state.policy.plan.cost[0]) < float(own)


def test_within_a_budget_it_plans_or_reacts(agent):
    reacted, _ = agent.predict(SEEN, mode="react")
    state = None
    for _ in range(4):  # the first compiles
        _, state = agent.predict(SEEN, state=state, mode=1e6)
        assert (state.policy.unplanned == 0).all()
    found, state = agent.predict(SEEN, state=state, mode=1e-6)
    np.testing.assert_array_equal(found, reacted)
    assert (state.policy.unplanned == 1).all()


def test_settings_that_shape_nothing_learnt_can_be_changed(agent, tmp_path):
    agent.save(tmp_path)
    loaded = Agent.load(tmp_path, config={"horizon": 3}, model=MODEL)
    assert loaded.policy.horizon == 3 and loaded.config == agent.config.changed({"horizon": 3})


def test_an_actor_is_taught_what_was_planned():
    """All but the random steps count as planned, by a policy that takes half of what it sees."""
    pupil, places = new_agent(), np.linspace(-0.9, 0.9, 40, dtype=np.float32)
    remember(pupil, places[:RANDOM], places[:RANDOM])
    with pytest.raises(ValueError, match="nothing to distil"):
        pupil.distil()
    remember(pupil, places, np.where(np.arange(40) < RANDOM, 1.0, 0.5 * places))
    assert not pupil.predict(SEEN, mode="react")[0].any()
    pupil.distil(rounds=0)
    planned = places[RANDOM + 2 :][:2, None]
    np.testing.assert_allclose(pupil.predict(planned, mode="react")[0], 0.5 * planned, atol=0.05)


def test_an_actor_is_taught_what_planning_does_where_it_would_go():
    """The more often an actor was taught, the less plans gain on it; it begins with what was planned: nothing."""
    gains, places = [], np.random.default_rng(0).permutation(np.linspace(-0.9, 0.9, 40, dtype=np.float32))
    for rounds in (1, 2):
        pupil = new_agent()
        remember(pupil, places, np.zeros(40))
        gains.append(pupil.distil(rounds=rounds, plans=80)["gain"])
    assert 0 <= gains[1] < 0.2 * gains[0]
    np.testing.assert_allclose(pupil.predict(SEEN, mode="react")[0], -SEEN, atol=0.2)
