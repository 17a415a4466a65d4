"""Observations of all spaces become rows by one rule, spaces survive storage, and environments may reuse their arrays."""

import json
from collections import OrderedDict
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.agent import Agent
from mpc.agent.memory.collect import wandered
from mpc.agent.memory.collector import Experience
from mpc.agent.memory.recordings import for_model
from mpc.agent.memory.safeguards import EnvironmentFailure
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.history import History
from tests.agent.toys import ACTIONS, SMALL, Toy
from world_models.data import About, Dataset
from world_models.io.atomic import as_json

GRID = spaces.Dict({"direction": spaces.Discrete(4), "image": spaces.Box(0, 255, (7, 7, 3), np.uint8)})
ONE = st.integers(1, 3)


@st.composite
def boxes(draw: Any) -> spaces.Box:
    """Boxes of every dtype, with bounds that are shared or not, infinite or not."""
    shape = tuple(draw(st.lists(ONE, max_size=3)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]))
    if np.issubdtype(dtype, np.floating):
        size = int(np.prod(shape))
        bound = st.one_of(st.floats(-1e4, 1e4), st.just(-np.inf))
        low = np.array(draw(st.lists(bound, min_size=size, max_size=size)), dtype).reshape(shape)
        return spaces.Box(low, np.where(np.isfinite(low), low + dtype(1), dtype(np.inf)), dtype=dtype)
    info = {"b": (0, 1), "u": (0, 255), "i": (-(2**63), 2**63 - 1)}[np.dtype(dtype).kind]
    low, high = (np.full(shape, bound, dtype) for bound in info)
    return spaces.Box(low, high, dtype=dtype)


LEAVES = st.one_of(
    boxes(),
    st.builds(spaces.Discrete, ONE, start=st.integers(-3, 3), dtype=st.sampled_from([np.int64, np.int32])),
    st.lists(st.tuples(ONE, st.integers(-3, 3)), min_size=1, max_size=3).map(
        lambda pairs: spaces.MultiDiscrete([n for n, _ in pairs], start=[s for _, s in pairs], dtype=np.int32)
    ),
    st.builds(lambda n, k: spaces.MultiDiscrete(np.full((n, k), 2)), ONE, ONE),
    st.builds(spaces.MultiBinary, st.one_of(ONE, st.lists(ONE, min_size=1, max_size=2))),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.lists(
        st.tuples(st.text("zayb", min_size=1), inner), min_size=1, max_size=3, unique_by=lambda p: p[0]
    ).map(lambda pairs: spaces.Dict(OrderedDict(pairs))),
    max_leaves=5,
)


@given(space=SPACES)
@settings(max_examples=100, deadline=None)
def test_spaces_that_were_stored_are_as_they_were(space):
    again = gym_spaces.rebuild(json.loads(as_json(gym_spaces.describe(space))))
    assert gym_spaces.same(again, space)
    assert str(again) == str(space)
    assert gym_spaces.describe(again) == gym_spaces.describe(space)


@given(space=SPACES, seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_one_observation_and_a_batch_are_flattened_alike_in_the_order_of_gymnasium(space, seed):
    together = batch_space(space, 3)
    together.seed(seed)
    batch = together.sample()
    assert gym_spaces.is_batched(space, batch)
    rows = gym_spaces.rows(space, batch, batched=True)
    assert rows.shape == (3, *gym_spaces.observation_shape(space))
    for row, one in zip(rows, gymnasium.vector.utils.iterate(together, batch), strict=True):
        assert not gym_spaces.is_batched(space, one)
        np.testing.assert_array_equal(gym_spaces.rows(space, one, batched=False)[0], row)
        if not gym_spaces.is_image(space):
            flat = np.asarray(spaces.flatten(space, one)).astype(np.float32)
            np.testing.assert_array_equal(row, flat)


def test_spaces_whose_parts_come_in_another_order_are_not_the_same():
    box = spaces.Box(-9, 9, (1,))
    z_first, a_first = spaces.Dict([("z", box), ("a", box)]), spaces.Dict([("a", box), ("z", box)])
    assert not gym_spaces.same(z_first, a_first) and gym_spaces.same(z_first, spaces.Dict([("z", box), ("a", box)]))


@pytest.mark.parametrize(("space", "shape"), [(GRID, (151,)), (spaces.Dict({"image": GRID["image"]}), (7, 7, 3))], ids=str)
def test_grid_worlds_are_learnt_in(space, shape):
    agent = Agent(Toy(space, ACTIONS[2]), config=SMALL | {"random_steps": 100}).learn(5, progress_bar=False)
    assert agent.components.history.observation == shape and int(agent.buffer.filled[0]) >= 5
    assert ACTIONS[2].contains(agent.action_space.sample())


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (spaces.Text(5), r"Text.*observation\['a'\]\['x'\]"),
        (spaces.Tuple([spaces.Discrete(2)]), r"Tuple.*observation\['a'\]\['x'\]"),
        (spaces.Sequence(spaces.Discrete(2)), r"Sequence.*observation\['a'\]\['x'\]"),
        (spaces.Graph(ACTIONS[0], None), r"Graph.*observation\['a'\]\['x'\]"),
        (spaces.OneOf([spaces.Discrete(2)]), r"OneOf.*observation\['a'\]\['x'\]"),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), r"21168 of them observation\['a'\]\['x'\]"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_part_that_is_not_supported_is_named(part, named):
    nested = spaces.Dict({"a": spaces.Dict({"x": part}), "b": spaces.Discrete(2)})
    with pytest.raises(ValueError, match=named):
        Agent(None, config=SMALL, observation_space=nested, action_space=ACTIONS[0])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"direction": 4}, r"observation\['direction'\] must be in Discrete\(4\); got"),
        ({"image": np.zeros((7, 7), np.uint8)}, r"observation\['image'\] must have shape \(7, 7, 3\)"),
        (
            {"direction": np.zeros(2, int)},
            r"equally many: observation\['direction'\] a batch of 2, observation\['image'\] one",
        ),
        ({"other": 1}, r"keys \['direction', 'image'\]; got \['direction', 'image', 'other'\]"),
    ],
)
def test_observations_that_do_not_fit_name_the_part(wrong, named):
    seen = {"direction": 1, "image": np.zeros((7, 7, 3), np.uint8)} | wrong
    with pytest.raises(ValueError, match=named):
        gym_spaces.rows(GRID, seen, gym_spaces.is_batched(GRID, seen))


class Reused(gymnasium.Env):
    """Counts in the same array at every step, begins anew in it too, and writes into the actions that it is given."""

    observation_space = spaces.Box(-9.0, 9.0, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, reward: Any = 1.0):
        self.seen, self.reward = np.zeros(1, np.float32), reward

    def reset(self, *, seed=None, options=None):
        """Begin at 0."""
        super().reset(seed=seed)
        self.seen[:] = 0.0
        return self.seen, {"seen": self.seen}

    def step(self, action):
        """Count up to 5."""
        self.seen += 1.0
        action *= 0.0
        return self.seen, self.reward, bool(self.seen[0] == 5.0), False, {"seen": self.seen}


def transitions(env: gymnasium.vector.VectorEnv, steps: int = 12) -> list[tuple[float, float]]:
    """Observations before and after every recorded step of the first environment."""
    life = Experience(env, History(1, (1,), 1), seed=0, timesteps=0)
    rows = list(life.begun)
    for _ in range(steps):
        actions = np.full((env.num_envs, 1), 0.5, np.float32)
        rows += life.step(actions, actions.copy()).writes
    kept = [row for row, write in rows if write[0]]
    return [(float(a.observations[0, 0]), float(b.observations[0, 0])) for a, b in pairwise(kept) if b.follows[0]]


EPISODE = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, 5.0)]


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode), ids=str)
def test_the_last_transition_of_environments_that_reuse_an_array_is_kept(mode):
    made = gymnasium.vector.SyncVectorEnv([Reused, Reused], autoreset_mode=mode, copy=False)
    assert transitions(gym_spaces.vectorise(made))[:5] == EPISODE
    assert transitions(gym_spaces.vectorise(Reused()))[:5] == EPISODE


def test_wrapped_vectors_of_environments_that_reuse_an_array_are_copied():
    made = gymnasium.vector.SyncVectorEnv([Reused], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP, copy=False)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(made)
    assert transitions(gym_spaces.vectorise(wrapped))[:5] == EPISODE


class Elsewhere(gymnasium.vector.VectorWrapper):
    """Environments out of reach, as those in the processes of an `AsyncVectorEnv` are."""

    @property
    def unwrapped(self) -> Any:
        """The vector itself."""
        return self


def test_last_observations_that_were_written_over_out_of_reach_are_warned_of(recwarn):
    modes = gymnasium.vector.AutoresetMode
    for mode in (modes.SAME_STEP, modes.NEXT_STEP, modes.DISABLED):
        vector = Elsewhere(gymnasium.vector.SyncVectorEnv([Reused], autoreset_mode=mode, copy=False))
        found = transitions(gym_spaces.vectorise(vector))
        said = [str(w.message) for w in recwarn.list if "the first one of its next episode" in str(w.message)]
        assert (len(said) == 1) == (mode is modes.SAME_STEP) == (found[:5] != EPISODE)
        recwarn.clear()


def test_recordings_of_environments_that_reuse_an_array_are_right():
    found = wandered(gym_spaces.Received.of(Reused()), "reused", 2)
    np.testing.assert_array_equal(found.observations[:, 0], [0, 1, 2, 3, 4, 5] * 2)
    assert found.actions is not None and np.abs(found.actions[:5]).min() > 0.0


def test_recordings_of_several_parts_are_flattened_as_an_agent_sees_them():
    space = spaces.Dict({"z": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2,))})
    found = wandered(gym_spaces.Received.of(Toy(space, ACTIONS[1])), "parts", 2)
    assert found.observations.shape[1:] == gym_spaces.observation_shape(space) == (5,)
    np.testing.assert_array_equal(found.observations[:, 2:].sum(axis=1), 1.0)


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Box(0, 255, (2, 8, 8), np.uint8)]
)
def test_recordings_as_the_environment_returns_them_are_read_by_the_same_rule(space):
    many = batch_space(space, 4)
    many.seed(0)
    seen, nothing = np.asarray(many.sample()), np.zeros(4, np.float32)
    agent = Agent(None, config=SMALL, observation_space=space, action_space=ACTIONS[0])
    recorded = Dataset(seen, None, nothing, nothing > 0, np.array([3]), About(""))
    found = for_model(recorded, agent).observations
    np.testing.assert_array_equal(found, gym_spaces.rows(space, seen, batched=True))


def test_rows_do_not_change_with_the_observation():
    seen = np.ones((2, 1), np.float32)
    rows = gym_spaces.rows(Reused.observation_space, seen, batched=True)
    seen[:] = 5.0
    np.testing.assert_array_equal(rows, 1.0)


@pytest.mark.parametrize(
    "reward", [1, True, 1.0, np.float64(1.0), np.float32(1.0), np.ones(()), np.ones(1), np.ones((1, 1))]
)
def test_a_reward_is_any_one_number(reward):
    life = Experience(gym_spaces.vectorise(Reused(reward), repeat=2), History(1, (1,), 1), seed=0, timesteps=0)
    zero = np.zeros((1, 1), np.float32)
    rows, _ = life.step(zero, zero).writes[0]
    assert rows.rewards.shape == (1,) and rows.rewards[0] == 2.0


@pytest.mark.parametrize("reward", [np.ones(2), None, "much", [1.0, 2.0]], ids=str)
def test_a_reward_that_is_not_one_number_is_named(reward):
    life = Experience(gym_spaces.vectorise(Reused(reward)), History(1, (1,), 1), seed=0, timesteps=0)
    zero = np.zeros((1, 1), np.float32)
    with pytest.raises(EnvironmentFailure, match="reward must be one number"):
        life.step(zero, zero)
