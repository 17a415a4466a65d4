"""The goal-reaching agent: an exact model is planned in to the goal; learning, bad input, persistence."""

import os
import signal
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

from mpc.agent.actor.goal_actor import goal_actor, hindsight
from mpc.agent.goal_agent import GoalAgent
from mpc.agent.goal_config import GoalSettings
from mpc.agent.interrupts import interruptible
from mpc.agent.memory import trajectory_latents
from tests.world_models import dots
from world_models import data
from world_models.base import WorldModel, initial_state
from world_models.data import DatasetError
from world_models.distances.temporal import Distance, latent_distance
from world_models.io.checkpoint import CheckpointError

PLACES = spaces.Box(1.0, 14.0, (2,))
FRAMES = spaces.Box(0, 255, (dots.SIZE, dots.SIZE, 1), np.uint8)
MOVES = spaces.Box(-dots.STEP, dots.STEP, (2,))
QUICK = GoalSettings(distance="latent", block=2, horizon=8, starts=4, samples=64, first_iterations=30, iterations=20)
TINY = GoalSettings(
    distance="latent",
    finetune_updates=2,
    finetune_steps=2,
    latent=8,
    block=2,
    window=3,
    steps=2,
    batch=8,
    updates=4,
    horizon=3,
    starts=2,
    first_iterations=2,
    iterations=1,
    encoder_settings={"levels": [[4, 8]], "dense": [16]},
    predictor_settings={"hidden": [16]},
)


def truth(block: int = 2) -> WorldModel:
    """The dot's own dynamics, with its place as the latent."""

    def predict(params, state, action):
        place = state.latent
        for move in action.reshape(block, 2):
            place = jnp.clip(place + move, 1.0, 14.0)
        return initial_state(place)

    return WorldModel(
        init=lambda key: {"network": {}},
        encode=lambda params, o: initial_state(jnp.asarray(o, jnp.float32)),
        predict=predict,
        normalise=lambda params, moments: params,
        loss=lambda params, windows: (jnp.zeros(()), {}),
        optimizer=optax.identity(),
        members=1,
    )


def knowing(settings: GoalSettings = QUICK, **given: Any) -> GoalAgent:
    return GoalAgent(None, settings=settings, model=truth(), observation_space=PLACES, action_space=MOVES, **given)


def go(agent: GoalAgent, start: np.ndarray, goal: np.ndarray, steps: int = 24) -> np.ndarray:
    place, state, path = start, None, [start]
    for _ in range(steps):
        action, state = agent.predict(place, goal, state)
        place = np.clip(place + action, 1.0, 14.0).astype(np.float32)
        path.append(place)
    return np.stack(path)


@pytest.mark.parametrize("change", [{}, {"planner": "cem"}, {"replan_every": 1}, {"replan_every": 4}], ids=str)
def test_a_goal_is_reached_in_an_exact_model(change):
    agent = knowing(replace(QUICK, **change))
    random = np.random.default_rng(0)
    for _ in range(3):
        start, goal = random.uniform(1, 14, (2, 2)).astype(np.float32)
        path = go(agent, start, goal)
        assert np.linalg.norm(path[-1] - goal) < 0.5
        straight = np.abs(goal - start).max() / dots.STEP  # the fewest steps there are
        blocks = int(np.ceil(straight / 2)) + 2
        assert np.linalg.norm(path[2 * blocks] - goal) < 0.7


def test_many_episodes_at_once_reach_what_random_moves_do_not():
    agent = knowing()
    start, goal = np.random.default_rng(1).uniform(1, 14, (2, 64, 2)).astype(np.float32)
    going, common = agent.pursuer, agent.parameters(goal[0])

    @jax.jit
    @jax.vmap
    def episode(place, goal, key):
        params = common | {"goal": goal}
        pursuit = going.first(params, place, key)

        def advance(carry, _):
            place, pursuit = carry
            for move in pursuit.actions[: going.every]:
                place = jnp.clip(place + move, 1.0, 14.0)
            return (place, going.next(params, place, pursuit)), None

        return jax.lax.scan(advance, (place, pursuit), None, length=12)[0][0]

    planned = np.linalg.norm(episode(start, goal, jax.random.split(jax.random.key(0), 64)) - goal, axis=1)
    moves = np.random.default_rng(2).uniform(-dots.STEP, dots.STEP, (24, 64, 2))
    random = start
    for move in moves:
        random = np.clip(random + move, 1.0, 14.0)
    assert (planned < 0.5).mean() == 1.0
    assert (np.linalg.norm(random - goal, axis=1) < 0.5).mean() < 0.1


def test_later_plans_begin_with_what_is_left_of_the_one_before():
    idle = knowing(replace(QUICK, starts=1, iterations=1, step_size=1e-6, correction_memory=0))
    place, goal = np.array([2.0, 3.0], np.float32), np.array([12.0, 9.0], np.float32)
    _, state = idle.predict(place, goal)
    before = np.asarray(state.policy_state.actions)
    _, state = idle.predict(place, goal, state)
    _, state = idle.predict(place, goal, state)  # a new plan, hardly improved
    np.testing.assert_allclose(state.policy_state.actions[:-2], before[2:], atol=1e-4)
    states = idle.imagine(state).latent
    np.testing.assert_allclose(states[1], place + np.asarray(state.policy_state.actions[:2]).sum(axis=0), atol=1e-5)


def test_another_goal_is_planned_to_at_once_without_compiling():
    agent = knowing()
    place = np.array([7.0, 7.0], np.float32)
    action, state = agent.predict(place, np.array([13.0, 7.0], np.float32))
    compiled = agent._first._cache_size()  # type: ignore[attr-defined]
    other, _ = agent.predict(place, np.array([1.0, 7.0], np.float32), state)
    assert action[0] > 0.5 and other[0] < -0.5
    assert agent._first._cache_size() == compiled  # type: ignore[attr-defined]


def test_actions_are_finite_and_in_bounds_whatever_is_seen():
    agent = knowing(replace(QUICK, action_limit=1.0))
    goal = np.array([12.0, 9.0], np.float32)
    place, state = np.array([2.0, 3.0], np.float32), None
    for t in range(12):
        seen = np.full(2, [np.nan, np.inf][t % 2], np.float32) if t >= 4 else place
        action, state = agent.predict(seen, goal, state, deterministic=t % 3 > 0)
        assert np.isfinite(action).all() and MOVES.contains(action)
        assert np.abs(state.policy_state.actions).max() <= 1.0
        place = np.clip(place + action, 1.0, 14.0).astype(np.float32)
    assert np.linalg.norm(place - goal) < 5.0  # blind for two thirds of the way, it went on by what it expected
    blind, _ = agent.predict(np.full(2, np.nan, np.float32), goal)
    assert np.isfinite(blind).all() and MOVES.contains(blind)


def test_a_distance_of_latents_is_zero_at_the_goal_and_smooth_there():
    measure = latent_distance().measure
    a, b = jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0])
    assert float(measure({}, a, a)) == 0.0 and bool(jnp.isfinite(jax.grad(measure, 1)({}, a, a)).all())
    assert float(measure({}, a, b)) == pytest.approx(np.sqrt(12.5), abs=2e-3)


# Learning


def seeing(settings: GoalSettings = TINY, **given: Any) -> GoalAgent:
    given = {"render": dots.render} | given
    return GoalAgent(None, settings=settings, observation_space=FRAMES, action_space=MOVES, **given)


@pytest.fixture(scope="module")
def walks():
    return dots.dataset(12)


@pytest.fixture(scope="module")
def learnt(walks):
    return seeing().learn(walks, progress_bar=False)


def test_a_saved_agent_acts_and_learns_on_as_it_would_have(learnt, walks, tmp_path):
    seeing().learn(walks, updates=2, progress_bar=False, checkpoint_path=tmp_path / "run")
    again = GoalAgent.load(tmp_path / "run", render=dots.render)
    assert again.updates == 2
    again.learn(walks, progress_bar=False)  # the two updates that are missing
    assert again.updates == learnt.updates == 4
    frames = np.asarray(dots.render(jnp.array([[3.0, 4.0], [9.0, 10.0]])))
    ours, _ = learnt.predict(frames[0], frames[1])
    learnt.save(tmp_path / "other")
    theirs, state = GoalAgent.load(tmp_path / "other", render=dots.render).predict(frames[0], frames[1])
    np.testing.assert_array_equal(ours, theirs)
    imagined = learnt.imagine(state)
    assert learnt.look_up(imagined.latent).shape == (TINY.horizon + 1, *FRAMES.shape)
    assert learnt.far(frames[0], frames[0]) == 0.0 < learnt.far(frames[0], frames[1])


def test_learning_comes_to_rest_at_the_end_of_a_training(walks):
    agent, places = seeing(), []
    for _ in range(4):  # a training of four updates, and as many beyond its end
        places.append(ravel_pytree(agent.training.network["encoder"])[0])
        agent.learn(walks, updates=2, progress_bar=False)
    early, late = (float(jnp.abs(places[i + 1] - places[i]).mean()) for i in (0, 2))
    assert 0 < late < 0.1 * early


def test_an_interrupted_training_leaves_a_checkpoint_to_go_on_from(walks, tmp_path, monkeypatch):
    monkeypatch.setattr("mpc.agent.goal_agent.CHUNK", 2)
    agent = seeing(replace(TINY, updates=30))

    def interrupt(agent, progress):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        agent.learn(walks, callback=interrupt, progress_bar=False, checkpoint_path=tmp_path)
    again = GoalAgent.load(tmp_path, render=dots.render)
    assert again.updates == 2
    again.learn(walks, callback=lambda *_: False, progress_bar=False)
    assert again.updates == 4 and again.album is not None


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
    agent = seeing(distance=scaled)
    agent.learn(walks, progress_bar=False)
    rows = sum(len(range(offset, 25, 2)) for offset in range(2)) * 12
    assert seen["latents"].shape == (rows, 8) and seen["lengths"].tolist() == [12, 11] * 12
    np.testing.assert_array_equal(seen["first"], np.cumsum(seen["lengths"] + 1) - seen["lengths"] - 1)
    place = np.asarray(dots.render(jnp.asarray(walks.observations[2])))  # the second of the first sequence
    latent = agent.encode(agent.training.params, place).latent
    np.testing.assert_allclose(seen["latents"][1], latent, atol=1e-2)  # bytes may round either way
    assert np.abs(seen["latents"][0] - latent).max() > 2e-2
    assert float(agent.distance_params["scale"]) == 2.0


def test_a_dataset_too_large_for_the_device_is_read_as_it_is_drawn(walks, monkeypatch):
    monkeypatch.setattr("mpc.agent.goal_agent.RESIDENT", 0)
    monkeypatch.setattr("mpc.agent.goal_agent.CHUNK", 2)
    agent = seeing(replace(TINY, updates=3)).learn(walks, progress_bar=False)
    assert agent.updates == 3
    assert float(agent.training.params["scales"]["action_std"][0]) == pytest.approx(np.std(walks.actions[:, 0]), rel=0.2)


def test_few_sequences_are_spread_over_all_trajectories(walks):
    few = trajectory_latents.embed(walks, 2, 5, lambda rows: jnp.zeros((len(rows), 1)))
    assert len(few.first) == len(few.lengths) == 5 and len(few.row) == len(few.latents) == (few.lengths + 1).sum()
    assert few.row[0] == 0 and few.row[-1] == len(walks.observations) - 2  # the last of the twelve from its second row on
    for first, steps in zip(few.first, few.lengths, strict=True):
        assert (np.diff(few.row[first : first + steps + 1]) == 2).all()


def test_whole_trajectories_are_embedded_in_the_order_that_they_were_recorded_in(walks):
    """Twelve of 24 steps, of which 5 sequences make 3, the first and the last among them."""
    some = trajectory_latents.embed(walks, 2, 5, lambda rows: jnp.asarray(rows), whole=True)
    assert sorted(set(some.of)) == [0, 5, 11] and len(some.first) == 6
    dense = some.dense()
    every = np.concatenate([25 * i + np.arange(25) for i in (0, 5, 11)])
    assert (
        dense.row.tolist() == every.tolist() and dense.first.tolist() == [0, 25, 50] and dense.lengths.tolist() == [24] * 3
    )
    np.testing.assert_array_equal(dense.latents, walks.observations[every])
    with pytest.raises(DatasetError, match="at least 49 steps"):
        trajectory_latents.embed(walks, 25, 5, jnp.asarray, whole=True)


def test_an_agent_learns_the_ways_that_recordings_show(walks):
    settings = replace(TINY, distance="ways", distance_settings={"hidden": [8], "size": 4, "batch": 8, "updates": 3})
    learnt = seeing(settings).learn(walks, progress_bar=False)
    before = seeing(settings).distance_params
    moved = [
        float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (learnt.distance_params, before)), strict=True)
    ]
    assert sum(m > 0 for m in moved) == len(moved) - 1 and all(np.isfinite(moved))  # a shift of all places changes nothing


def test_an_album_finds_what_it_holds(walks):
    kept = trajectory_latents.choose(walks)
    np.testing.assert_array_equal(trajectory_latents.nearest(kept, kept[:5] + 1e-4), np.arange(5))


def test_what_nobody_told_spoils_no_prediction():
    mixed = data.mixed(dots.dataset(3), dots.dataset(9, seed=1))
    learnt = seeing(replace(TINY, finetune_updates=3)).learn(mixed, progress_bar=False)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(learnt.training.params))
    taken = np.array([[0.0], [np.nan], [1.0], [2.0], [np.nan]])
    assert trajectory_latents.told(np.arange(4), taken, 1).tolist() == [0, 2, 3]
    assert trajectory_latents.told(np.arange(3), taken, 2).tolist() == [2]


# Reacting


@pytest.fixture(scope="module")
def pupil():
    """It knows the dot's dynamics, and has seen random moves."""
    with pytest.MonkeyPatch.context() as patch:  # small, and taught in a moment
        patch.setattr("mpc.agent.goal_agent.goal_actor", partial(goal_actor, hidden=(32,)))
        patch.setattr("mpc.agent.actor.goal_actor.DRAWN", 20_000)
        agent = knowing()
        assert agent.distil(dots.dataset(40), passes=1)["imitation"] > 0
        yield agent


def test_an_actor_reaches_goals_from_recordings_of_random_moves(pupil):
    random = np.random.default_rng(3)
    missed = []
    for _ in range(10):
        start, goal = random.uniform(1, 14, (2, 2)).astype(np.float32)
        place, state = start, None
        for _ in range(24):
            action, state = pupil.predict(place, goal, state, mode="react")
            place = np.clip(place + action, 1.0, 14.0).astype(np.float32)
            assert np.isinf(state.policy_state.cost)
        missed.append(np.linalg.norm(place - goal))
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
    place, goal = np.array([2.0, 3.0], np.float32), np.array([11.0, 9.0], np.float32)
    pupil.save(tmp_path)
    hasty = {"starts": 2, "first_iterations": 1, "iterations": 1}
    quick = GoalAgent.load(tmp_path, model=truth(), settings=hasty)
    _, with_actor = quick.predict(place, goal)
    quick.actor = None
    _, without = quick.predict(place, goal)
    assert float(with_actor.policy_state.cost) < 0.8 * float(without.policy_state.cost)
    again = GoalAgent.load(tmp_path, model=truth())
    for mode in ("react", "plan"):
        ours, theirs = (agent.predict(place, goal, mode=mode)[0] for agent in (pupil, again))
        np.testing.assert_array_equal(ours, theirs)


def test_an_agent_reacts_where_there_is_no_time_and_plans_on_from_there(pupil):
    place, goal = np.array([2.0, 3.0], np.float32), np.array([11.0, 9.0], np.float32)
    reacted, state = pupil.predict(place, goal, mode="react")
    for _ in range(3):  # the first compiles
        _, planned = pupil.predict(place, goal, mode=1e6)
        assert np.isfinite(planned.policy_state.cost)
    found, late = pupil.predict(place, goal, mode=1e-6)
    np.testing.assert_array_equal(found, reacted)
    place = place + reacted
    _, late = pupil.predict(place, goal, late, mode="react")
    place = (place + late.policy_state.actions[1]).astype(np.float32)
    _, late = pupil.predict(place, goal, late)
    np.testing.assert_array_equal(late.policy_state.state.latent, place)
    assert np.isfinite(late.policy_state.cost) and len(late.policy_state.corrections.reach) == QUICK.correction_memory
    np.testing.assert_allclose(
        late.policy_state.corrections.actions[0], np.asarray(state.policy_state.actions[:2]).ravel() / dots.STEP, atol=1e-5
    )


def test_there_is_no_reacting_without_an_actor():
    agent, place = knowing(), np.array([2.0, 3.0], np.float32)
    for mode in ("react", 5.0):
        with pytest.raises(ValueError, match="needs an actor"):
            agent.predict(place, place, mode=mode)


# Bad input


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros((8, 8, 1), np.uint8), r"\(8, 8, 1\).*\(16, 16, 1\)"),
        (np.zeros((16, 16, 1)), "float64.*uint8"),
        ([[1], [1, 2]], "must be an array"),
    ],
)
def test_images_of_another_make_are_refused(learnt, given, reason):
    frame = np.asarray(dots.render(jnp.array([3.0, 4.0])))
    with pytest.raises(ValueError, match=f"goal.*{reason}"):
        learnt.predict(frame, given)
    with pytest.raises(ValueError, match=f"observation.*{reason}"):
        learnt.predict(given, frame)


def test_a_goal_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="goal must be finite"):
        knowing().predict(np.ones(2), np.array([np.nan, 1.0]))


def test_a_dataset_of_something_else_is_refused(learnt, walks):
    other = GoalAgent("Pendulum-v1")
    with pytest.raises(DatasetError, match="recorded in 'dot', and 'Pendulum-v1' was wanted"):
        other.learn(walks)
    with pytest.raises(DatasetError, match=r"shape \[2\], \[16, 16, 1\] was wanted"):
        seeing(render=None).learn(walks)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"block": 0}, "block"),
        ({"planner": "guess"}, "gradient, cem, icem, mppi"),
        ({"replan_every": 100}, "longer than a plan"),
        ({"cumulative_weight": 0.0, "terminal_weight": 0.0}, "nothing to minimise"),
        ({"objective": "hope"}, "vicreg"),
        ({"encoder_settings": {"wideness": 3}}, "wideness"),
        ({"predictor": "recurrent", "predictor_settings": {}, "replan_every": 1}, "multiple"),
        ({"straightness_weight": 1.0, "window": 1}, "bends nowhere"),
    ],
)
def test_settings_that_make_no_sense_are_told_when_the_agent_is_made(change, reason):
    with pytest.raises(ValueError, match=reason):
        seeing(replace(TINY, **change))


def test_spaces_that_goals_do_not_fit_are_told():
    with pytest.raises(ValueError, match="continuous"):
        GoalAgent(None, observation_space=PLACES, action_space=spaces.Discrete(3))
    with pytest.raises(ValueError, match="vector or an image"):
        GoalAgent(None, observation_space=spaces.Discrete(3), action_space=MOVES)


def test_a_checkpoint_of_another_agent_is_told(tmp_path):
    from mpc.agent import Agent
    from tests.agent.toys import SMALL

    Agent("Pendulum-v1", settings=SMALL).save(tmp_path)
    with pytest.raises(CheckpointError, match="not of a goal-reaching agent"):
        GoalAgent.load(tmp_path)
