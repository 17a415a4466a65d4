"""Short-term memory: what is shown to the model is what really was seen, whichever way episodes restart."""

from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mpc.agent import Agent
from mpc.agent.perception.history import Memory
from tests.agent.toys import SMALL
from world_models import data, jepa, trainer
from world_models.data.normalisation import Moments
from world_models.networks import HistoryAttention

STEPS = 3


class Clock(gymnasium.Env):
    """Shows the number of its episode, and the time."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    episode = 0.0

    def __init__(self, length: int):
        self.length = length

    def reset(self, *, seed=None, options=None):
        """Another episode."""
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self.look(), {}

    def look(self):
        """Now."""
        return np.array([self.episode, self.time], np.float32)

    def step(self, action):
        """Tick."""
        self.time += 1
        return self.look(), 0.0, False, self.time == self.length, {}


def test_memory_begins_as_if_nothing_had_moved_and_endures_glitches():
    memory, done = Memory(STEPS, (1,), 1), np.array([[0.5]])
    rows = [np.array([[float(t)]]) for t in range(5)]
    seen = memory.begun(rows[0])
    np.testing.assert_array_equal(seen[0], [[0, 0]] * STEPS)
    for t in (1, 2, 3):
        seen = memory.recall(seen, rows[t], t * done)
    np.testing.assert_array_equal(seen[0], [[3, 1.5], [2, 1.0], [1, 0.5]])
    np.testing.assert_array_equal(memory.shown(seen)[0].reshape(STEPS, 3), [[3, 1, 1.5], [2, 1, 1.0], [1, 0, 0.5]])
    glitch = memory.recall(seen, np.array([[np.nan]]), done)
    assert np.isnan(glitch[0, 0, 0])
    np.testing.assert_array_equal(memory.recall(glitch, rows[4], done)[0, :, 0], [4, 4, 3])
    np.testing.assert_array_equal(memory.recall(seen, rows[4], done, np.array([True]))[0], [[4, 0]] * STEPS)


def test_one_step_of_memory_is_the_observation():
    memory = Memory(1, (2,), 1)
    seen = memory.recall(memory.begun(np.zeros((1, 2))), np.array([[1.0, 2.0]]), None)
    np.testing.assert_array_equal(memory.shown(seen), [[1.0, 2.0]])
    assert memory.shape == (2,)


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode), ids=str)
def test_what_is_learnt_from_is_what_was_seen_in_the_same_episode(mode):
    env = gymnasium.vector.SyncVectorEnv([lambda n=n: Clock(n) for n in (4, 7)], autoreset_mode=mode)
    settings = replace(SMALL, memory=STEPS, random_steps=1000)  # nothing is learnt here
    agent = Agent(env, settings=settings).learn(60, progress_bar=False)
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


def test_what_is_read_out_is_the_sum_of_values_by_how_well_keys_fit():
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
    model = jepa(2, 1, steps=2, hidden=8, members=2)
    scales = Moments(
        jnp.array([0.0, 1.0, 2.0, 1.0]), jnp.array([1.0, 2.0, 1.0, 4.0]), jnp.zeros(()), jnp.ones(()), jnp.ones(())
    )
    found = model.normalise(model.init(jax.random.key(0)), scales)["scales"]
    np.testing.assert_allclose(found.observation_mean, [1.0, 1.0])
    np.testing.assert_allclose(found.observation_std, [np.sqrt(2.0), np.sqrt(10.0)])  # of both steps' observations together


def test_what_was_seen_long_ago_is_recalled_when_it_pays():
    """Every twelfth step shows a mark, which is paid until the next one; who sees one step alone cannot know it."""
    every, random = 12, np.random.default_rng(0)
    drawn = random.choice([-1.0, 1.0], 50).astype(np.float32)
    marks = np.where(np.arange(600) % every == 0, np.repeat(drawn, every), 0.0).astype(np.float32)
    missed = {}
    for steps in (every, 1):
        memory = Memory(steps, (1,), 1)
        model = jepa(memory.token, 1, steps=steps, hidden=16, members=2)
        seen, rows = memory.begun(marks[:1, None]), []
        for t in range(600):
            rows.append(memory.shown(seen)[0])
            seen = memory.recall(seen, marks[min(t + 1, 599), None, None], np.zeros((1, 1)))
        buffer = data.create(600, 1, memory.shape, (1,))._replace(
            observations=jnp.asarray(np.stack(rows)[None], jnp.float32),
            rewards=jnp.repeat(drawn, every)[None],
            follows=jnp.arange(600)[None] > 0,
            filled=jnp.array([600]),
        )
        fit = trainer(model, batch=32, length=1, updates=1000)
        _, metrics = fit.fit(fit.init(jax.random.key(0)), buffer)
        missed[steps] = float(metrics["reward"]) / model.members
    assert missed[every] < 0.2 and missed[1] > 0.7
