"""Agents with goals: planned to in an exact model; learnt from recordings."""

import os
import signal
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

from mpc.agent import Agent, Task, TaskError
from mpc.agent.interrupts import interruptible
from tests.agent.toys import EXACT, GOAL, MOVES, START, TINY, Dot, exact, exact_agent, frame, go, image_agent, moved
from tests.world_models import dots
from world_models import WorldModel, data
from world_models.base import initial_state
from world_models.data import DatasetError
from world_models.distances.temporal import Distance, latent_distance


@pytest.mark.parametrize("change", [{}, {"planner": "cem"}, {"replan_every": 1}, {"replan_every": 4}], ids=str)
def test_a_goal_is_reached_in_an_exact_model(change):
    agent = exact_agent(config=change)
    random = np.random.default_rng(0)
    for _ in range(3):
        start, goal = random.uniform(1, 14, (2, 2)).astype(np.float32)
        path = go(agent.configure(Task(goal=goal)), start)
        assert np.linalg.norm(path[-2:] - goal, axis=1).min() < 0.6  # of a block of two moves, its end counts
        straight = np.abs(goal - start).max() / dots.STEP  # the fewest steps there are
        blocks = int(np.ceil(straight / 2)) + 2
        assert np.linalg.norm(path[2 * blocks] - goal) < 0.7


def test_many_episodes_at_once_reach_what_random_moves_do_not():
    agent = exact_agent()
    start, goal = np.random.default_rng(1).uniform(1, 14, (2, 64, 2)).astype(np.float32)
    made, common = agent.program.made, agent.params

    @jax.jit
    @jax.vmap
    def episode(place, goal, key):
        params = common | {"cost": common["cost"] | {"goal": goal}}

        def advance(carry, _):
            place, state = carry
            state = made.decide(params, place, state)
            for move in state.plan.actions[: made.every]:
                place = jnp.clip(place + move, 1.0, 14.0)
            return (place, state), None

        return jax.lax.scan(advance, (place, made.init(params, place, key)), None, length=12)[0][0]

    planned = np.linalg.norm(episode(start, goal, jax.random.split(jax.random.key(0), 64)) - goal, axis=1)
    moves = np.random.default_rng(2).uniform(-dots.STEP, dots.STEP, (24, 64, 2))
    random = start
    for move in moves:
        random = np.clip(random + move, 1.0, 14.0)
    assert (planned < 0.5).mean() == 1.0
    assert (np.linalg.norm(random - goal, axis=1) < 0.5).mean() < 0.1


def test_later_plans_begin_with_what_is_left_of_the_one_before():
    change = {"starts": 1, "first_starts": 1, "iterations": 1, "step_size": 1e-6, "correction_memory": 0}
    idle, place = exact_agent(config=change), np.array([2.0, 3.0], np.float32)
    _, state = idle.predict(place)
    before = np.asarray(state.policy.plan.actions[0])
    _, state = idle.predict(place, state)
    _, state = idle.predict(place, state)  # a new plan, hardly improved
    np.testing.assert_allclose(state.policy.plan.actions[0, :-2], before[2:], atol=1e-4)
    states = idle.imagine(state).latent
    first, second = np.asarray(state.policy.plan.actions[0, :2])
    np.testing.assert_allclose(states[1], moved(moved(place, first), second), atol=1e-5)


def test_another_goal_is_planned_to_at_once_without_compiling():
    agent, place = exact_agent(goal=[13.0, 7.0]), np.array([7.0, 7.0], np.float32)
    action, state = agent.predict(place)
    compiled = agent.program.decide._cache_size()  # type: ignore[attr-defined]
    agent.configure(Task(goal=np.array([1.0, 7.0])))
    other, _ = agent.predict(place, state)
    assert action[0] > 0.5 and other[0] < -0.5
    assert agent.program.decide._cache_size() == compiled  # type: ignore[attr-defined]


def test_actions_are_finite_and_in_bounds_whatever_is_seen():
    agent = exact_agent(goal=[12.0, 9.0], config={"action_limit": 1.0})
    place, state = np.array([2.0, 3.0], np.float32), None
    for t in range(12):
        seen = np.full(2, [np.nan, np.inf][t % 2], np.float32) if t >= 4 else place
        action, state = agent.predict(seen, state, deterministic=t % 3 > 0)
        assert np.isfinite(action).all() and MOVES.contains(action)
        assert t % 3 == 0 or np.abs(action).max() <= 1.0
        place = moved(place, action)
    assert np.linalg.norm(place - [12.0, 9.0]) < 5.0  # blind for two thirds of the way, it went on by what it expected
    blind, _ = agent.predict(np.full(2, np.nan, np.float32))
    assert np.isfinite(blind).all() and MOVES.contains(blind)


def test_limits_on_observations_hold_on_the_way_to_a_goal_beyond_them():
    """The goal is at 12, and the first number of no observation may exceed 8."""
    limits = {"right": lambda params, observation, action, t: observation[0]}
    agent = exact_agent(limits=limits, config={"horizon": 4, "starts": 2, "first_starts": 2})
    agent.configure(Task(goal=np.array([12.0, 9.0]), limits={"right": 8.0}))
    path = go(agent, START, 12)
    assert path[:, 0].max() < 8.2
    np.testing.assert_allclose(path[-1], [8.0, 9.0], atol=0.8)


def test_a_distance_of_latents_is_zero_at_the_goal_and_smooth_there():
    measure = latent_distance().measure
    a, b = jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0])
    assert float(measure({}, a, a)) == 0.0 and bool(jnp.isfinite(jax.grad(measure, 1)({}, a, a)).all())
    assert float(measure({}, a, b)) == pytest.approx(np.sqrt(12.5), abs=2e-3)
    assert exact_agent().distance(a, b) == pytest.approx(np.sqrt(12.5), abs=2e-3)


# Learning


@pytest.fixture(scope="module")
def walks():
    return dots.dataset(12)


@pytest.fixture(scope="module")
def learnt(walks):
    return image_agent().learn_from(walks, progress_bar=False)


def test_a_saved_agent_acts_and_learns_on_as_it_would_have(learnt, walks, tmp_path):
    image_agent().learn_from(walks, updates=2, progress_bar=False, checkpoint_path=tmp_path / "run")
    again = Agent.load(tmp_path / "run", render=dots.render)
    assert again.learner.updates == 2
    again.learn_from(walks, progress_bar=False)  # the two updates that are missing
    assert again.learner.updates == learnt.learner.updates == TINY["offline_updates"]
    learnt.save(tmp_path / "other")
    loaded = Agent.load(tmp_path / "other", render=dots.render)
    np.testing.assert_array_equal(learnt.predict(frame(START))[0], loaded.predict(frame(START))[0])
    np.testing.assert_array_equal(loaded.samples, learnt.samples)
    assert learnt.distance(frame(GOAL)) == 0.0 < learnt.distance(frame(START)) == loaded.distance(frame(START))


def test_learning_comes_to_rest_at_the_end_of_a_training(walks):
    agent, places = image_agent(), []
    for _ in range(4):  # a training of four updates, and as many beyond its end
        places.append(ravel_pytree(agent.learner.training.network["encoder"])[0])
        agent.learn_from(walks, updates=2, progress_bar=False)
    early, late = (float(jnp.abs(places[i + 1] - places[i]).mean()) for i in (0, 2))
    assert 0 < late < 0.1 * early


def test_an_interrupted_training_leaves_a_checkpoint_to_go_on_from(walks, tmp_path, monkeypatch):
    monkeypatch.setattr("mpc.agent.offline.CHUNK", 2)
    agent = image_agent(config={"offline_updates": 30})

    def interrupt(agent, progress):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        agent.learn_from(walks, callback=interrupt, progress_bar=False, checkpoint_path=tmp_path)
    again = Agent.load(tmp_path, render=dots.render)
    assert again.learner.updates == 2
    again.learn_from(walks, callback=lambda *_: False, progress_bar=False)
    assert again.learner.updates == 4 and again.samples is not None


def test_an_interrupt_that_nobody_looked_for_is_raised_at_the_end():
    done, before = [], signal.getsignal(signal.SIGINT)  # ignored, where a shell has started this in the background
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done and signal.getsignal(signal.SIGINT) is before


def test_a_distance_is_learnt_from_latents_of_whole_trajectories(walks):
    seen = {}

    def fit(params, key, latents, first, lengths):
        seen.update(latents=latents, first=first, lengths=lengths)
        return {"scale": jnp.float32(2.0)}, {}

    plain = latent_distance()
    scaled = Distance(lambda key: {"scale": jnp.float32(1.0)}, lambda p, a, b: p["scale"] * plain.measure({}, a, b), fit)
    agent = image_agent(distance=scaled)
    agent.learn_from(walks, progress_bar=False)
    rows = sum(len(range(offset, 25, 2)) for offset in range(2)) * 12
    assert seen["latents"].shape == (rows, 8) and seen["lengths"].tolist() == [12, 11] * 12
    np.testing.assert_array_equal(seen["first"], np.cumsum(seen["lengths"] + 1) - seen["lengths"] - 1)
    latent = agent.encode(frame(walks.observations[2]))  # the second of the first sequence
    np.testing.assert_allclose(seen["latents"][1], latent, atol=1e-2)  # bytes may round either way
    assert np.abs(seen["latents"][0] - latent).max() > 2e-2
    assert float(agent.params["distance"]["scale"]) == 2.0


def test_a_dataset_too_large_for_the_device_is_read_as_it_is_drawn(walks, monkeypatch):
    monkeypatch.setattr("mpc.agent.learner.RESIDENT", 0)
    for module in ("learner", "offline"):
        monkeypatch.setattr(f"mpc.agent.{module}.CHUNK", 2)
    agent = image_agent(config={"offline_updates": 3, "finetune_updates": 0}).learn_from(walks, progress_bar=False)
    assert agent.learner.updates == 3
    scales = agent.learner.training.params["scales"]
    assert float(scales.action_std[0]) == pytest.approx(np.std(walks.actions[:, 0]) / dots.STEP, rel=0.2)


def test_the_decoder_reads_the_recorded_states_off_latents(walks):
    """Latents of the exact model are the places that were recorded."""
    agent = exact_agent().learn_from(walks, progress_bar=False)
    read = jax.vmap(lambda o: agent.components.decode(agent.params, agent.model.encode({}, o)))(walks.observations[:50])
    np.testing.assert_allclose(read, walks.observations[:50], atol=0.5)


def test_recordings_in_which_few_actions_are_told_are_learnt_from():
    mixed = data.mixed(dots.dataset(3), dots.dataset(9, seed=1))
    agent = image_agent(config={"finetune_updates": 3}).learn_from(mixed, progress_bar=False)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(agent.params))
    assert mixed.actions is not None
    scales = agent.learner.training.params["scales"]  # of the actions that are told
    assert float(scales.action_std[0]) == pytest.approx(np.nanstd(mixed.actions[:, 0]) / dots.STEP, rel=0.1)
    with pytest.raises(ValueError, match=r"72% of these recordings' actions are missing: set inverse_weight"):
        image_agent(config={"inverse_weight": 0.0}).learn_from(mixed, progress_bar=False)


def test_recordings_without_actions_teach_the_encoder_alone(walks):
    """The predictor is learnt later, from recordings that tell actions."""
    agent = image_agent()
    before = agent.learner.training.network
    agent.learn_from(replace(walks, actions=None), progress_bar=False)
    after = agent.learner.training.network
    parts = {name: (ravel_pytree(before[name])[0], ravel_pytree(after[name])[0]) for name in before}
    changed = {name for name, (old, new) in parts.items() if (old != new).any()}
    assert changed == {"encoder"} and agent.learner.updates == 0
    agent.learn_from(walks, progress_bar=False)
    assert agent.learner.updates == TINY["offline_updates"]
    with pytest.raises(ValueError, match="one predictor, not an ensemble"):
        agent = image_agent(config={"predictor": "ensemble", "predictor_options": {}, "members": 2, "encoder": "patch"})
        agent.learn_from(replace(walks, actions=None), progress_bar=False)


def test_recordings_come_first_and_experience_after_from_pixels_to_a_goal_image(walks):
    agent = image_agent(Dot(image=True), config={"noise": 1e-6})
    agent.learn_from(walks, progress_bar=False)
    rows = len(walks.observations)
    assert int(agent.buffer.filled[0]) == rows and agent.buffer.observations.dtype == jnp.uint8
    np.testing.assert_array_equal(agent.buffer.observations[0, :rows], dots.render(jnp.asarray(walks.observations)))
    first, _ = Dot(image=True).reset(seed=0)
    expected, _ = agent.predict(first)  # a plan, for what was learnt offline decides
    agent.learn(6, progress_bar=False)
    np.testing.assert_array_equal(agent.buffer.observations[0, rows], first)
    np.testing.assert_allclose(dots.STEP * agent.buffer.actions[0, rows], expected, atol=1e-3)


# Bad input


@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        (np.zeros((8, 8, 1), np.uint8), r"goal has shape \(8, 8, 1\), and observations have \(16, 16, 1\)"),
        (np.full((16, 16, 1), 0.5), "goal must hold whole numbers from 0 to 255"),
        ([[1], [1, 2]], "goal cannot be read"),
        (np.full((16, 16, 1), np.nan), "goal must be finite"),
    ],
)
def test_goals_that_are_no_such_image_are_refused(learnt, goal, reason):
    with pytest.raises(TaskError, match=reason):
        learnt.configure(Task(goal=goal))


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (np.zeros((8, 8, 1), np.uint8), r"must have shape \(16, 16, 1\).*got \(8, 8, 1\)"),
        (np.zeros((16, 16, 1)), "whole numbers, uint8; got float64"),
    ],
)
def test_observations_that_are_no_such_image_are_refused(learnt, seen, reason):
    with pytest.raises(ValueError, match=f"observation.*{reason}"):
        learnt.predict(seen)


def test_goals_that_are_not_finite_or_nowhere_are_refused():
    with pytest.raises(TaskError, match="cannot be all of them"):
        exact_agent(goal=[np.nan, np.nan])
    with pytest.raises(TaskError, match="must be finite"):
        exact_agent(goal=[np.inf, 1.0])


def test_datasets_of_something_else_are_refused(learnt, walks):
    with pytest.raises(DatasetError, match="recorded in 'dot', and 'Pendulum-v1' was wanted"):
        Agent("Pendulum-v1").learn_from(replace(walks, observations=np.zeros((len(walks.observations), 3), np.float32)))
    with pytest.raises(DatasetError, match=r"shape \[2\], \[16, 16, 1\] was wanted"):
        image_agent(render=None).learn_from(walks)
    with pytest.raises(DatasetError, match=r"render makes observations of shape \(2,\)"):
        image_agent(render=jnp.asarray).learn_from(walks)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"block": 0}, "block"),
        ({"planner": "guess"}, "gradient, ilqr, collocation, cem, icem, mppi"),
        ({"replan_every": 100}, "longer than a plan"),
        ({"cumulative_weight": 0.0, "terminal_weight": 0.0}, "no plan would go to a goal"),
        ({"objective": "hope"}, "vicreg"),
        ({"encoder_options": {"wideness": 3}}, "wideness"),
        ({"predictor": "recurrent", "predictor_options": {}, "replan_every": 1}, "multiple"),
        ({"straightness_weight": 1.0, "window": 1, "chained_steps": 1}, "at least 2 steps"),
        ({"distance_options": {"wideness": 3}, "distance": "temporal"}, "wideness"),
        ({"wideness": 3}, "there is no setting 'wideness'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_the_agent_is_made(change, reason):
    with pytest.raises(ValueError, match=reason):
        image_agent(config=change)


def test_a_goal_that_nothing_measures_the_way_to_is_refused():
    with pytest.raises(TaskError, match="a goal needs a distance, or"):
        Agent("Pendulum-v1").configure(Task(goal=np.zeros(3)))


@cache
def track() -> WorldModel:
    """A place on a line, and the choice of a step to the left or to the right."""
    return exact()._replace(predict=lambda params, state, action: initial_state(state.latent + action[1:] - action[:1]))


def test_choices_reach_goals_too():
    config = EXACT | {"block": 1, "horizon": 3}
    given = {"observation_space": spaces.Box(-9.0, 9.0, (1,)), "action_space": spaces.Discrete(2)}
    agent = Agent(None, task=Task(goal=[3.0]), config=config, model=track(), **given)
    for goal, best in ((3.0, 1), (-3.0, 0)):
        action, _ = agent.configure(Task(goal=[goal])).predict(np.zeros(1, np.float32))
        assert action == best
