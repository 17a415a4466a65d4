"""Nothing depends on the units of observations, rewards and costs, nor on where their zero is."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.agent import Agent, Task
from mpc.agent.actor.goal_actor import polyak_step
from mpc.agent.configurator import configurator
from mpc.agent.cost import terms
from mpc.agent.memory import recordings
from mpc.agent.perception import gym_spaces
from mpc.agent.world_model import readout, residual_correction
from tests.agent.toys import ACTIONS, SMALL, Toy, exact_agent
from world_models import data, ensemble_jepa
from world_models.data.normalisation import MIN_STD
from world_models.training.trainer import moments

STEPS, FAR = 64, 4.6e6
SCALES = st.integers(-6, 6).map(lambda power: 10.0**power)
SEEN = np.random.default_rng(0).normal(size=(STEPS, 3))
PAID = np.random.default_rng(1).normal(size=STEPS)
MODEL = ensemble_jepa(3, 1, hidden=8, members=2)
PARAMS = MODEL.init(jax.random.key(0))
measured = jax.jit(moments)


def buffer(observations: Any, rewards: Any) -> data.TrajectoryBuffer:
    """One episode in a ring of its length."""
    ring = data.create(STEPS, 1, (3,), (1,))
    given = {"observations": observations, "rewards": rewards, "actions": np.sin(np.arange(STEPS))[:, None]}
    filled = {name: jnp.asarray(values, jnp.float32)[None] for name, values in given.items()}
    return ring._replace(**filled, follows=jnp.arange(STEPS)[None] > 0, filled=jnp.array([STEPS]))


def seen_by_the_model(observations: Any, rewards: Any) -> tuple[np.ndarray, np.ndarray]:
    """Observations and rewards as networks see them."""
    found = MODEL.normalise(PARAMS, measured(buffer(observations, rewards)))["scales"]
    inputs = (np.asarray(observations, np.float32) - found.observation_mean) / found.observation_std
    return np.asarray(inputs), np.asarray((np.asarray(rewards, np.float32) - found.reward_mean) / found.reward_std)


@given(units=st.tuples(SCALES, SCALES, SCALES), pay=SCALES, offset=st.floats(-100.0, 100.0))
@settings(max_examples=60, deadline=None)
def test_networks_see_the_same_whatever_the_units(units, pay, offset):
    inputs, targets = seen_by_the_model(np.array(units) * (SEEN + offset), pay * PAID)
    wanted = (SEEN - SEEN.mean(axis=0)) / SEEN.std(axis=0)
    np.testing.assert_allclose(inputs, wanted, atol=1e-3)
    paid = PAID[:-1]  # the last row of an episode pays nothing
    np.testing.assert_allclose(targets[:-1], (paid - paid.mean()) / max(paid.std(), 0.5 * abs(paid.mean())), atol=1e-4)


@given(power=st.integers(-25, 15))
@settings(max_examples=20, deadline=None)
def test_very_small_and_very_large_numbers_neither_underflow_nor_overflow(power):
    inputs, _ = seen_by_the_model(10.0**power * SEEN, 10.0**power * PAID)
    np.testing.assert_allclose(inputs.std(axis=0), 1.0, rtol=1e-3)


def test_large_means_do_not_cost_precision():
    ticks = np.arange(STEPS, dtype=np.float64)
    found = measured(buffer(FAR + np.stack([ticks, ticks, ticks], axis=1), PAID))
    np.testing.assert_allclose(found.observation_std, ticks.std(), rtol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.5, -3.0, 1e-9, FAR])
def test_what_does_not_vary_is_not_blown_up(constant):
    rounded = np.float32(constant) * (1.0 + np.finfo(np.float32).eps * (np.arange(STEPS) % 2))  # in the last digit
    inputs, targets = seen_by_the_model(
        np.stack([SEEN[:, 0], rounded, SEEN[:, 2] * 1e-16], axis=1), np.full(STEPS, constant)
    )
    np.testing.assert_allclose(inputs[:, 0].std(), 1.0, rtol=1e-3)
    assert np.abs(inputs[:, 1:]).max() < 0.01
    assert np.isfinite(targets).all()


def test_moments_of_datasets_are_computed_in_double_precision():
    nothing = np.zeros(STEPS, bool)
    kept = data.Dataset(FAR + SEEN, 1e-5 * SEEN, 1e6 * PAID, nothing, np.array([STEPS - 1]), data.About("far"))
    found = data.moments(kept)
    np.testing.assert_allclose(found.observation_std, SEEN.std(axis=0), rtol=1e-5)
    assert found.action_std is not None
    np.testing.assert_allclose(found.action_std, 1e-5 * SEEN[:-1].std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.reward_std, 1e6 * PAID[:-1].std(), rtol=1e-5)
    assert MIN_STD > 1e-5  # which was the least before


WIDE = spaces.Dict({"n": spaces.Discrete(2), "x": spaces.Box(-np.inf, np.inf, (3,), np.float64)})


@given(offset=st.floats(-1e9, 1e9), unit=st.integers(-5, 5).map(lambda power: 10.0**power))
@settings(max_examples=40, deadline=None)
def test_observations_are_centred_before_they_are_rounded(offset, unit):
    seen = unit * (offset + SEEN)
    batch = {"n": np.arange(STEPS) % 2, "x": seen}
    whole = gym_spaces.flat(WIDE, batch, batched=True)
    origin = gym_spaces.origin(WIDE, whole[0])
    rows = gym_spaces.rows(WIDE, batch, batched=True, origin=origin)
    np.testing.assert_array_equal(rows[:, :2], np.eye(2)[batch["n"]])
    np.testing.assert_allclose(rows[:, 2:] / unit, SEEN - SEEN[0], atol=1e-6)


def test_spaces_that_float32_holds_have_no_origin():
    assert gym_spaces.origin(spaces.Box(-1, 1, (3,))) is None
    assert gym_spaces.origin(spaces.Box(0, 255, (8, 8), np.uint8)) is None
    assert gym_spaces.origin(spaces.Discrete(3)) is None
    jitter = 0.3 + np.spacing(0.3) * np.arange(3)[:, None]  # what the environment rounds is a constant
    np.testing.assert_array_equal(gym_spaces.centred(jitter, jitter[0]), 0.0)


class Clock(gymnasium.Env):
    """A walk on a line, seen as place, time and twice the place, with an offset and in some unit."""

    action_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, offset: float = 0.0, unit: float = 1.0, declared: Any = np.float64):
        self.offset, self.unit = offset, unit
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), declared)

    def _seen(self):
        return self.unit * (self.offset + np.array([self.place, 0.05 * self.time, 2.0 * self.place]))

    def reset(self, *, seed=None, options=None):
        """Begin at 0."""
        super().reset(seed=seed)
        self.place, self.time = 0.0, 0
        return self._seen(), {}

    def step(self, action):
        """Move."""
        self.place, self.time = self.place + 0.1 * float(action[0]), self.time + 1
        return self._seen(), -self.unit * abs(self.place), False, self.time == 20, {}


def test_an_agent_sees_time_stamps_as_it_sees_the_same_from_zero(tmp_path):
    near, far = (Agent(Clock(offset), config=SMALL | {"random_steps": 25}, seed=2) for offset in (0.0, FAR))
    for agent in (near, far):
        agent.learn(24, progress_bar=False)
    np.testing.assert_allclose(far.buffer.observations, near.buffer.observations, atol=1e-6)
    assert len(np.unique(far.buffer.observations[0, :20, 1])) == 20
    seen = np.array([0.3, 0.4, 0.6])
    np.testing.assert_allclose(far.encode(FAR + seen), near.encode(seen), atol=1e-6)
    far.save(tmp_path / "run")
    loaded = Agent.load(tmp_path / "run")
    assert loaded.learner.origin is not None
    np.testing.assert_array_equal(loaded.learner.origin, np.full(3, FAR))
    np.testing.assert_array_equal(loaded.rows(FAR + seen, batched=False), far.rows(FAR + seen, batched=False))
    with pytest.warns(UserWarning, match=r"rounds numbers \[0, 1, 2\]"):
        loaded.learner.training.params["scales"] = SimpleNamespace(observation_std=np.ones(3))
        loaded.warn_of_rounding()


def test_observations_of_more_precision_than_their_space_are_centred_before_they_are_rounded(tmp_path):
    config = SMALL | {"random_steps": 25}
    near, far = (Agent(Clock(offset, declared=np.float32), config=config, seed=2) for offset in (0.0, FAR))
    for agent in (near, far):
        agent.learn(24, progress_bar=False)
    np.testing.assert_allclose(far.buffer.observations, near.buffer.observations, atol=1e-6)
    far.save(tmp_path / "run")
    loaded, seen = Agent.load(tmp_path / "run"), FAR + np.array([0.3, 0.4, 0.6])
    np.testing.assert_array_equal(loaded.rows(seen, batched=False), far.rows(seen, batched=False))
    np.testing.assert_allclose(loaded.rows(seen, batched=False), [[0.3, 0.4, 0.6]], atol=1e-6)
    assert far.observation_space == Clock(declared=np.float32).observation_space


def test_the_origin_stays_once_something_was_learnt_from(tmp_path):
    agent = Agent(Toy(spaces.Box(-1, 1, (3,)), ACTIONS[0]), config=SMALL | {"random_steps": 25}, seed=2)
    agent.learn(3, progress_bar=False).save(tmp_path / "run")
    for one in (agent, Agent.load(tmp_path / "run")):
        one.locate(np.full(3, FAR))
        assert one.learner.origin is None


def test_recordings_are_relative_to_the_first_observation():
    agent = Agent(Clock(FAR), config=SMALL, seed=2)
    nothing = np.zeros(STEPS)
    kept = data.Dataset(FAR + SEEN, PAID[:, None], PAID, nothing > 0, np.array([STEPS - 1]), data.About(""))
    agent.locate(kept.observations[0])
    np.testing.assert_allclose(recordings.for_model(kept, agent).observations, SEEN - SEEN[0], atol=1e-6)


def test_costs_and_goals_are_in_the_units_of_the_environment():
    agent = exact_agent()
    found = configurator.set_up(Task(goal=FAR + np.array([9.0, np.nan])), agent.components, np.full(2, FAR))
    np.testing.assert_allclose(found.observation, [9.0, 0.0])
    state, origin = agent.components.encode(agent.params["model"], np.array([1.0, 2.0])), np.array([10.0, 20.0])
    np.testing.assert_allclose(
        terms._decoded(agent.components.parts, agent.params | {"origin": origin}, state), [11.0, 22.0]
    )


def test_a_limit_that_a_task_does_not_set_limits_nothing():
    parts = exact_agent().components.parts
    limit = terms._limit(parts, "pressure", lambda params, o, u, t: 2e6 + 0.0 * o[0])
    state, action = parts.model.encode({}, jnp.ones(2)), jnp.zeros((2, 2))
    for bound, wanted in ((terms.LOOSE, -1.0), (1.5e6, 0.5e6)):
        excess = limit.function(
            {"model": {}, "cost": {"limits": {"pressure": np.float32(bound)}}}, state, action, jnp.asarray(0)
        )
        np.testing.assert_allclose(excess, wanted)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_corrections_readouts_and_steps_to_goals_have_no_unit_of_their_own(unit, monkeypatch):
    began, expected, seen = (unit * jnp.array(x) for x in ([0.0, 0.0], [1.0, 0.0], [1.0, 0.5]))
    kept = residual_correction.remember(residual_correction.nothing(2, 2, 1), began, jnp.ones(1), expected, seen)
    nearby = residual_correction.correct(kept, unit * jnp.array([0.5, 0.0]), jnp.ones(1), jnp.zeros(2))
    np.testing.assert_allclose(nearby, [0.0, unit * 0.5 * np.exp(-0.125)], rtol=1e-4)
    step = polyak_step(lambda u: unit * jnp.abs(jnp.sum(u) - 1.0), 2)
    np.testing.assert_allclose(step, [0.5, 0.5], rtol=1e-5)
    monkeypatch.setattr(readout, "_fit", lambda key, normal, target, count: (normal, target))
    inputs, targets = readout.fit(jax.random.key(0), SEEN, unit * SEEN)["weights"]
    np.testing.assert_allclose(inputs, targets, atol=1e-4)
