"""Tests of the replay buffer, compared with Python lists, and of the recorder, with known episodes."""

from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models import data

ENVIRONMENTS, CAPACITY = 3, 5


class Episodes(gymnasium.Env):
    """Environments with episodes of known lengths; all observations `(environment, resets, step)` differ."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, name: int, lengths: list[int], truth: list[tuple]):
        self.name, self.lengths, self.truth = name, lengths, truth
        self.resets, self.steps = -1, 0

    def _observation(self) -> np.ndarray:
        return np.array([self.name, self.resets, self.steps], np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.resets, self.steps = self.resets + 1, 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        before = self._observation()
        self.steps += 1
        ended = self.steps == self.lengths[self.resets % len(self.lengths)]
        terminated = ended and self.resets % 2 == 0  # every other episode is truncated instead
        reward = float(np.float32(action.sum() + self.steps))
        self.truth.append(transition(before, action, reward, terminated, self._observation()))
        return self._observation(), reward, terminated, ended and not terminated, {}


def transition(*parts: Any) -> tuple:
    """Returns a transition as a hashable value, in the precision of the buffer."""
    return tuple(tuple(np.ravel(np.asarray(part, np.float32)).tolist()) for part in parts)


def stored(buffer: data.TrajectoryBuffer) -> Counter:
    """Returns every transition of a buffer, row by row."""
    rows = jax.tree.map(np.asarray, buffer)
    environments, capacity = rows.follows.shape
    fields = (rows.observations, rows.actions, rows.rewards, rows.terminated)
    return Counter(
        transition(*(field[e, i] for field in fields), rows.observations[e, j])
        for e in range(environments)
        for i in range(capacity)
        if rows.follows[e, j := (i + 1) % capacity]
    )


def append_all(buffer: data.TrajectoryBuffer, writes: list) -> data.TrajectoryBuffer:
    for rows, write in writes:
        buffer = data.append(buffer, rows, write)
    return buffer


def play(mode: AutoresetMode, steps: int, resets: tuple[int, ...] = (), capacity: int = 200) -> tuple[Counter, Any]:
    """Records random actions; all environments are reset before the steps in `resets`, also within episodes."""
    truth: list[tuple] = []
    lengths = [[3, 1, 4], [2], [1], [50]]
    makers = [partial(Episodes, name, each, truth) for name, each in enumerate(lengths)]
    env = SyncVectorEnv(makers, autoreset_mode=mode)
    recorder, random = data.Recorder(env.metadata["autoreset_mode"]), np.random.default_rng(0)
    buffer = data.create(capacity, len(lengths), (3,), (2,))
    buffer = append_all(buffer, recorder.reset(env.reset()[0]))
    for t in range(steps):
        if t in resets:
            buffer = append_all(buffer, recorder.reset(env.reset()[0]))
        actions = random.uniform(0.1, 1.0, (len(lengths), 2)).astype(np.float32)
        result = env.step(actions)
        buffer = append_all(buffer, recorder.step(actions, *result))
        ended = result[2] | result[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            observations = env.reset(options={"reset_mask": ended})[0]
            buffer = append_all(buffer, recorder.reset(observations, ended))
    buffer = append_all(buffer, recorder.reset(env.reset()[0]))
    return Counter(truth), buffer


@pytest.mark.parametrize("resets", [(), (0, 5, 6, 20)])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_buffer_holds_exactly_the_recorded_transitions(mode: AutoresetMode, resets: tuple[int, ...]):
    truth, buffer = play(mode, steps=40, resets=resets)
    assert len(truth) > 100
    assert stored(buffer) == truth
    assert transitions(buffer) == truth.total()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_windows_are_consecutive_transitions_of_one_episode(mode: AutoresetMode):
    truth, buffer = play(mode, steps=40)
    window = jax.tree.map(np.asarray, data.sample(buffer, jax.random.key(0), 4000, 6))
    assert window.mask[:, 0].mean() > 0.99
    assert (window.mask[:, 1:] <= window.mask[:, :-1]).all()
    fields = (window.observations[:, :-1], *window[1:4], window.observations[:, 1:])
    seen = {transition(*(field[b, k] for field in fields)) for b, k in np.argwhere(window.mask)}
    assert seen == set(truth)
    ends = window.mask.sum(1)
    for b in np.flatnonzero(ends < 6):
        resumes = window.observations[b, ends[b] : ends[b] + 2]
        # a mask ends only at the end of an episode
        assert transition(resumes[0])[0][:2] != transition(resumes[1])[0][:2]


def test_a_full_ring_keeps_the_newest_rows_and_breaks_the_seam():
    truth, buffer = play(AutoresetMode.SAME_STEP, steps=40, capacity=7)
    kept = stored(buffer)
    assert kept <= truth
    assert transitions(buffer) == kept.total()
    endless = [t for t in kept if t[0][0] == 3.0]
    assert sorted(t[0][2] for t in endless) == [34.0, 35.0, 36.0, 37.0, 38.0, 39.0]


FLAGS = st.lists(st.booleans(), min_size=ENVIRONMENTS, max_size=ENVIRONMENTS)


@given(st.lists(st.tuples(FLAGS, FLAGS), max_size=25))
@settings(max_examples=100, deadline=None)
def test_the_ring_equals_a_list_per_environment(history: list[tuple[list[bool], list[bool]]]):
    buffer = data.create(CAPACITY, ENVIRONMENTS, (1,), ())
    lists: list[list[tuple[float, bool]]] = [[] for _ in range(ENVIRONMENTS)]
    for number, (write, follows) in enumerate(history):
        value = np.arange(ENVIRONMENTS, dtype=np.float32) + 10 * number
        rows = data.Rows(value[:, None], value, value, value % 2 > 0, np.array(follows))
        buffer = data.append(buffer, rows, np.array(write))
        for e in np.flatnonzero(write):
            lists[e] = [*lists[e], (value[e], follows[e])][-CAPACITY:]
    pairs = {(float(a), float(b)) for rows in lists for (a, _), (b, linked) in pairwise(rows) if linked}
    _check_ring(buffer, lists, pairs)
    _check_windows(buffer, pairs)


def _check_ring(buffer: data.TrajectoryBuffer, lists: list, pairs: set[tuple[float, float]]) -> None:
    values = np.asarray([value for rows in lists for value, _ in rows] or [0.0])
    mean, spread = data.observation_moments(buffer)
    np.testing.assert_allclose(mean, [values.mean()], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spread, [values.std()], rtol=1e-4, atol=1e-4)
    assert {(t[0][0], t[4][0]) for t in stored(buffer)} == pairs
    assert transitions(buffer) == len(pairs)


def _check_windows(buffer: data.TrajectoryBuffer, pairs: set[tuple[float, float]]) -> None:
    window = jax.tree.map(np.asarray, data.sample(buffer, jax.random.key(1), 200, 3))
    drawn = {tuple(window.observations[b, k : k + 2, 0].tolist()) for b, k in np.argwhere(window.mask)}
    assert drawn <= pairs
    steps = window.observations[:, :-1, 0]
    np.testing.assert_array_equal(window.actions, steps)
    np.testing.assert_array_equal(window.rewards, steps)
    np.testing.assert_array_equal(window.terminated, steps % 2 > 0)
    for start, length in zip(steps[:, 0], window.mask.sum(1), strict=True):
        assert length == _run(float(start), pairs, 3)  # a mask ends only at the end of a trajectory


def transitions(buffer: data.TrajectoryBuffer) -> int:
    """Returns the number of consecutive transitions from the start of a window."""
    return int(buffer.follows.sum())


def _run(start: float, pairs: set[tuple[float, float]], limit: int) -> int:
    """Returns the number of consecutive transitions from a row."""
    after = dict(pairs)
    length = 0
    while length < limit and start in after:
        start, length = after[start], length + 1
    return length


def test_windows_start_at_every_transition_equally_often():
    buffer = data.create(8, 2, (), ())
    both = ([1, 1], [0, 0]), ([1, 1], [1, 1]), ([1, 1], [1, 1])
    one = ([1, 0], [0, 0]), ([1, 0], [1, 1])
    for number, (write, follows) in enumerate(both + one):
        value = np.array([number, 100 + number], np.float32)
        rows = data.Rows(value, value, value, value < 0, np.array(follows, bool))
        buffer = data.append(buffer, rows, np.array(write, bool))
    draws = 20_000
    window = data.sample(buffer, jax.random.key(3), draws, 1)
    assert np.asarray(window.mask).mean() > 0.995  # 5 of 8 rows start a transition: 3^8 / 8^8 windows miss
    counts = Counter(np.asarray(window.observations)[np.asarray(window.mask)[:, 0], 0].tolist())
    assert set(counts) == {0.0, 1.0, 3.0, 100.0, 101.0}
    expected = draws / 5
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi2 < 18.5  # one in a thousand for 4 degrees of freedom


def test_an_empty_buffer_gives_masked_windows_and_finite_moments():
    buffer = data.create(4, 2, (3,), (1,))
    window = data.sample(buffer, jax.random.key(0), 5, 2)
    assert not np.asarray(window.mask).any()
    np.testing.assert_array_equal(data.observation_moments(buffer), np.zeros((2, 3)))


def test_a_new_recorder_never_links_to_the_rows_before_it():
    buffer = data.create(10, 1, (), ())
    for start in (0.0, 10.0):
        recorder = data.Recorder("NextStep")
        recorder.reset(np.array([start]))
        for t in range(3):  # the run is interrupted; the observation of the third step is lost
            step = ([1.0], [start + t + 1], [0.0], [False], [False], {})
            buffer = append_all(buffer, recorder.step(*step))
    assert sorted((t[0][0], t[4][0]) for t in stored(buffer)) == [(0, 1), (1, 2), (10, 11), (11, 12)]


def test_append_reuses_the_memory_of_the_buffer():
    buffer = data.create(4, 2, (3,), (1,))
    place = buffer.observations.unsafe_buffer_pointer()
    rows = data.Rows(np.ones((2, 3)), np.ones((2, 1)), np.ones(2), np.zeros(2, bool), np.zeros(2, bool))
    after = data.append(buffer, rows, np.ones(2, bool))
    assert after.observations.unsafe_buffer_pointer() == place
    assert buffer.observations.is_deleted()


def test_a_recorder_raises_on_an_invalid_stream():
    with pytest.raises(ValueError, match="autoreset mode"):
        data.Recorder("Sometimes")
    with pytest.raises(ValueError, match="before reset"):
        data.Recorder("NextStep").step([0.0], [0.0], [0.0], [False], [False], {})
    for mode, message in [("Disabled", "were not reset"), ("SameStep", "final_obs")]:
        recorder = data.Recorder(mode)
        recorder.reset(np.zeros(1))
        with pytest.raises(ValueError, match=message):
            for _ in range(2):
                recorder.step([0.0], [0.0], [0.0], [True], [False], {})


@pytest.mark.parametrize(("capacity", "environments"), [(1, 1), (2, 0)])
def test_a_buffer_too_small_for_a_transition_raises(capacity: int, environments: int):
    with pytest.raises(ValueError, match="2 rows"):
        data.create(capacity, environments, (1,), (1,))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_non_finite_data_is_excluded_from_transitions(broken: float):
    recorder, buffer = data.Recorder("NextStep"), data.create(10, 1, (), ())
    recorder.reset(np.zeros(1))
    observed, paid = [1.0, broken, 3.0, 4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 0.0, broken, 0.0]
    for o, r in zip(observed, paid, strict=True):
        buffer = append_all(buffer, recorder.step([1.0], [o], [r], [False], [False], {}))
    assert sorted((t[0][0], t[4][0]) for t in stored(buffer)) == [(0, 1), (3, 4)]
    assert np.isfinite(buffer.observations).all() and np.isfinite(buffer.rewards).all()


def test_observations_before_terminations_are_sampled_uniformly():
    """Rows 0-6 of one environment: an episode of 4 steps that terminates, and one of 2 that is truncated."""
    buffer = data.create(10, 1, (1,), (1,))
    follows, terminated = [0, 1, 1, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 0, 0, 0]
    for i, (linked, over) in enumerate(zip(follows, terminated, strict=True)):
        row = data.Rows(np.full((1, 1), i), np.zeros((1, 1)), np.ones(1), np.array([bool(over)]), np.array([bool(linked)]))
        buffer = data.append(buffer, row, np.ones(1, bool))
    for within, expected in ((1, {3}), (3, {1, 2, 3}), (20, {0, 1, 2, 3})):
        drawn = np.asarray(data.before_terminations(buffer, jax.random.key(0), 2000, within)).ravel()
        values, counts = np.unique(drawn, return_counts=True)
        assert set(values) == expected
        assert counts.min() > 0.8 * counts.max()
    none = buffer._replace(terminated=jax.numpy.zeros_like(buffer.terminated))
    drawn = np.asarray(data.before_terminations(none, jax.random.key(0), 500, 3)).ravel()
    assert set(drawn) == set(range(8))


def filled_ring(capacity: int, rows: int, seed: int = 0) -> data.TrajectoryBuffer:
    """Returns a buffer of two environments after random rows, of which some are not written, in one compiled program."""
    random = np.random.default_rng(seed)
    shape = (rows, 2)
    values = data.Rows(
        random.normal(3.0, 2.0, (*shape, 3)).astype(np.float32),
        np.where(random.random((*shape, 1)) < 0.1, np.nan, random.normal(size=(*shape, 1))).astype(np.float32),
        random.normal(-1.0, 5.0, shape).astype(np.float32),
        random.random(shape) < 0.02,
        random.random(shape) < 0.9,
    )
    write = random.random(shape) < [0.9, 0.5]
    buffer = data.create(capacity, 2, (3,), (1,))
    return jax.jit(lambda b: jax.lax.scan(lambda b, x: (data.append(b, *x), None), b, (values, write))[0])(buffer)


@pytest.mark.parametrize(("capacity", "rows"), [(2500, 7000), (2048, 1500)])
def test_the_summary_kept_while_rows_are_written_is_that_of_a_scan_of_all(capacity: int, rows: int):
    buffer = filled_ring(capacity, rows)
    arrays = jax.tree.map(np.asarray, buffer)
    follows, there = np.roll(arrays.follows, -1, axis=1), np.arange(capacity) < arrays.filled[:, None]
    recorded = follows & np.isfinite(arrays.actions).all(axis=-1)
    found = data.buffer_moments(buffer)
    rows_of = (arrays.observations[there], arrays.rewards[follows], arrays.actions[recorded])
    expected = [f(x, axis=0) for x in rows_of for f in (np.mean, np.std)]
    for mine, theirs in zip((*found[:4], *found[5:7]), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    assert found.reward_best == arrays.rewards[follows].max()
    summary, ended = jax.tree.map(np.asarray, buffer.summary), []
    for e in range(2):
        order = (arrays.head[e] - arrays.filled[e] + np.arange(arrays.filled[e])) % capacity
        ended.append(order[arrays.terminated[e, order]].tolist())
        numbers = np.arange(summary.first_ending[e], summary.next_ending[e])
        assert summary.endings[e, numbers % capacity].tolist() == ended[e]
    scanned = jax.tree.map(np.asarray, data.summarise(buffer))
    assert [scanned.endings[e, : len(ended[e])].tolist() for e in range(2)] == ended
    again = data.buffer_moments(buffer._replace(rewards=buffer.rewards))
    np.testing.assert_allclose(again.reward_std, found.reward_std, rtol=1e-5)


def test_terminations_and_moments_cost_the_same_for_any_capacity():
    def operations(capacity: int) -> list[float]:
        buffer = jax.eval_shape(lambda: data.create(capacity, 1, (3,), (1,)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        programs = (
            jax.jit(lambda b, k: data.before_terminations(b, k, 16, 30)),
            jax.jit(lambda b, _: data.buffer_moments(b)),
        )
        costs: list[Any] = [program.lower(buffer, key).compile().cost_analysis() for program in programs]
        return [cost["flops"] for cost in costs]

    for small, large in zip(operations(2048), operations(200 * 1024), strict=True):
        assert large < 2 * small


def test_the_summary_of_frames_is_of_rewards_and_terminations():
    buffer = data.create(6, 1, (4, 4, 3), (1,), observation_dtype=np.uint8)
    for i in range(4):
        row = data.Rows(np.full((1, 4, 4, 3), i), np.ones((1, 1)), np.full(1, i), np.array([i == 2]), np.array([i > 0]))
        buffer = data.append(buffer, row, np.ones(1, bool))
    found = data.buffer_moments(buffer)
    assert (found.reward_mean, found.reward_best, bool(found.terminates)) == (1.0, 2.0, True)
