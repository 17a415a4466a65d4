"""Observation history: what the model sees is what was observed and done in the same episode, however episodes restart."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mpc.agent import Agent
from mpc.agent.perception.history import History
from tests.agent.toys import SMALL
from world_models import data, ensemble_jepa, trainer
from world_models.data import About, Dataset
from world_models.data.normalisation import Moments
from world_models.networks import HistoryAttention

STEPS = 3
BOTH = pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])


class Clock(gymnasium.Env):
    """Shows the number of its episode, and the time."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    episode = 0.0

    def __init__(self, length: int):
        self.length = length

    def reset(self, *, seed=None, options=None):
        """Begin another episode."""
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self.look(), {}

    def look(self):
        """Return the observation."""
        return np.array([self.episode, self.time], np.float32)

    def step(self, action):
        """Tick."""
        self.time += 1
        return self.look(), 0.0, False, self.time == self.length, {}


@BOTH
def test_a_history_begins_as_if_nothing_had_moved_and_endures_glitches(xp):
    history, done = History(STEPS, (1,), 1), np.array([0.5], np.float32)
    rows = [np.array([float(t)], np.float32) for t in range(5)]
    seen = history.begin(rows[0], xp)
    np.testing.assert_array_equal(seen, [[0, 0]] * STEPS)
    np.testing.assert_array_equal(history.model_input(seen, xp), np.zeros(history.shape))
    for t in (1, 2, 3):
        seen = history.append(seen, rows[t], t * done, xp)
    np.testing.assert_array_equal(seen, [[3, 1.5], [2, 1.0], [1, 0.5]])
    tokens = np.reshape(history.model_input(seen, xp), (STEPS, *history.token))
    np.testing.assert_array_equal(tokens, [[3, 1, 1.5], [2, 1, 1.0], [1, 0, 0.5]])
    glitch = history.append(seen, np.array([np.nan], np.float32), done, xp)
    assert np.isnan(glitch[0, 0])
    np.testing.assert_array_equal(history.append(glitch, rows[4], done, xp)[:, 0], [4, 4, 3])


def test_many_histories_are_many_of_one_in_numpy_as_in_jax():
    history, drawn = History(STEPS, (2,), 1), np.random.default_rng(0)
    rows, done = drawn.normal(size=(4, 5, 2)).astype(np.float32), drawn.normal(size=(4, 5, 1)).astype(np.float32)
    rows[2, 3] = np.nan  # a glitch

    def inputs(xp, rows, done):
        seen = history.begin(rows[0], xp)
        for row, action in zip(rows[1:], done[1:], strict=True):
            seen = history.append(seen, row, action, xp)
        return history.model_input(seen, xp)

    alone = [inputs(np, rows[:, e], done[:, e]) for e in range(5)]
    for xp in (np, jnp):
        np.testing.assert_array_equal(inputs(xp, rows, done), alone)


@BOTH
@pytest.mark.parametrize("shape", [(2,), (4, 5, 3)], ids=["vector", "image"])
def test_a_history_of_one_step_is_the_observation(xp, shape):
    history, drawn = History(1, shape, 1), np.random.default_rng(0)
    first, second = drawn.integers(0, 256, (2, 6, *shape)).astype(np.uint8)
    seen = history.append(history.begin(first, xp), second, None, xp)
    assert history.shape == history.token == shape and seen.dtype == np.uint8
    np.testing.assert_array_equal(history.model_input(seen, xp), second)


def test_a_datasets_rows_are_what_appending_step_by_step_gives():
    history, drawn = History(STEPS, (2,), 1), np.random.default_rng(0)
    lengths = np.array([1, 6, 3])
    count = int((lengths + 1).sum())
    rows = drawn.normal(size=(count, 2)).astype(np.float32)
    actions = drawn.normal(size=(count, 1)).astype(np.float32)
    dataset = Dataset(rows, actions, np.zeros(count), np.zeros(count, bool), lengths, About(""))
    expected = []
    for first, length in zip(dataset.first, lengths, strict=True):
        seen = history.begin(rows[first], np)
        expected.append(history.model_input(seen, np))
        for row in range(first, first + length):
            seen = history.append(seen, rows[row + 1], actions[row], np)
            expected.append(history.model_input(seen, np))
    np.testing.assert_array_equal(history.dataset(dataset, actions), expected)
    assert history._replace(steps=1).dataset(dataset, actions) is rows


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode), ids=str)
def test_the_model_learns_from_what_was_seen_in_the_same_episode(mode):
    env = gymnasium.vector.SyncVectorEnv([lambda n=n: Clock(n) for n in (4, 7)], autoreset_mode=mode)
    config = SMALL | {"history": STEPS, "random_steps": 1000}  # nothing is learnt here
    agent = Agent(env, config=config).learn(60, progress_bar=False)
    kept = agent.buffer
    for ring, done, filled, follows in zip(kept.observations, kept.actions, kept.filled, kept.follows, strict=True):
        tokens = np.asarray(ring)[: int(filled)].reshape(int(filled), STEPS, 5)
        rows, changes, actions = np.split(tokens, [2, 4], axis=2)
        np.testing.assert_array_equal(changes[:, :-1], rows[:, :-1] - rows[:, 1:])
        episode, time = rows[..., 0], rows[..., 1]
        assert (episode == episode[:, :1]).all()
        np.testing.assert_array_equal(time, np.maximum(time[:, :1] - np.arange(STEPS), 0))
        linked = np.asarray(follows)[: int(filled)]
        np.testing.assert_array_equal(actions[1:, 0][linked[1:]], np.asarray(done)[: int(filled) - 1][linked[1:]])
        assert not actions[time == 0].any()
        np.testing.assert_array_equal(np.diff(time[:, 0])[linked[1:]], 1)
        assert linked.sum() >= 20


def test_attention_reads_the_sum_of_values_by_how_well_keys_fit():
    steps, token, size = 5, 3, 4
    net = HistoryAttention(token, steps, size, rngs=nnx.Rngs(0))
    net.bias[...] = jax.random.normal(jax.random.key(1), (steps, 2))
    tokens = jax.random.normal(jax.random.key(2), (2, steps, token))
    query, pair = (np.asarray(part.kernels[0][...]) for part in (net.query, net.pair))
    for rows, found in zip(np.asarray(tokens), np.asarray(net(tokens)), strict=True):
        for head in range(2):
            mine = slice(2 * head, 2 * head + 2)
            keys, values = (rows @ pair)[:, :size][:, mine], (rows @ pair)[:, size:][:, mine]
            scores = keys @ (rows[0] @ query)[mine] / np.sqrt(2) + np.asarray(net.bias[...])[:, head]
            shares = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(found[mine], shares @ values, rtol=2e-4, atol=1e-6)


def test_steps_are_scaled_alike_however_long_ago_they_are():
    model = ensemble_jepa(2, 1, history=2, hidden=8, members=2)
    scales = Moments(
        jnp.array([0.0, 1.0, 2.0, 1.0]), jnp.array([1.0, 2.0, 1.0, 4.0]), jnp.zeros(()), jnp.ones(()), jnp.ones(())
    )
    found = model.normalise(model.init(jax.random.key(0)), scales)["scales"]
    np.testing.assert_allclose(found.observation_mean, [1.0, 1.0])
    np.testing.assert_allclose(found.observation_std, [np.sqrt(2.0), np.sqrt(10.0)])  # of both steps' observations together


def test_what_was_seen_long_ago_is_remembered_when_it_pays():
    """Every twelfth step shows a mark, which is paid until the next one; one step alone does not tell it."""
    every, random = 12, np.random.default_rng(0)
    drawn = random.choice([-1.0, 1.0], 50).astype(np.float32)
    marks, rewards = np.where(np.arange(600) % every == 0, np.repeat(drawn, every), 0.0), np.repeat(drawn, every)
    nothing, history = np.zeros((600, 1), np.float32), History(every, (1,), 1)
    recorded = Dataset(marks[:, None].astype(np.float32), nothing, rewards, nothing[:, 0] > 0, np.array([599]), About(""))
    model = ensemble_jepa(history.token, 1, history=every, hidden=16, members=2, learning_rate=3e-3)
    buffer = data.create(600, 1, history.shape, (1,))._replace(
        observations=jnp.asarray(history.dataset(recorded, nothing)[None]),
        rewards=jnp.asarray(rewards)[None],
        follows=jnp.arange(600)[None] > 0,
        filled=jnp.array([600]),
    )
    fit = trainer(model, batch=32, length=1, updates=300)
    _, metrics = fit.fit(fit.init(jax.random.key(0)), buffer)
    least = (1 - 1 / every) * np.var(rewards[marks == 0])  # the best guess from one step alone, which mostly shows nothing
    assert float(metrics["reward"]) / model.members < 0.1 * least
