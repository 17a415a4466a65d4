"""Agents are saved and loaded with `jax_enable_x64` or without, and whatever random keys a process has."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from mpc.agent import Agent
from tests.agent import toys
from tests.agent.toys import SMALL
from world_models.io import checkpoint
from world_models.io.checkpoint import CheckpointError

SEEN = np.array([[1.0, 0.0, 0.5]], np.float32)  # one of a batch, as while learning, which is compiled anyway


def decided(agent: Agent) -> np.ndarray:
    """Two decisions, one after the other."""
    first, state = agent.predict(SEEN)
    return np.stack([first, agent.predict(SEEN, state)[0]])


def dtypes(agent: Agent) -> list[str]:
    """Of everything learnt."""
    return [str(leaf.dtype) for leaf in jax.tree.leaves(agent.learner.training)]


@pytest.mark.parametrize("wide", [True, False])
def test_agents_decide_alike_in_either_precision_and_learn_on(wide, tmp_path):
    with jax.enable_x64(wide):
        agent = Agent("Pendulum-v1", config=SMALL, seed=3)
        begun = dtypes(agent)
        agent.learn(25 if wide else 3, progress_bar=False).save(tmp_path)
        assert dtypes(agent) == begun and ("float64" in begun) == wide
        wanted = decided(agent)
        np.testing.assert_array_equal(decided(Agent.load(tmp_path)), wanted)
    with jax.enable_x64(not wide):
        other = Agent.load(tmp_path, "Pendulum-v1")
        np.testing.assert_allclose(decided(other), wanted, atol=1e-4)
        assert ("float64" in dtypes(other)) != wide
        assert other.learn(3, progress_bar=False).num_timesteps == agent.num_timesteps + 3


SAMPLING = {"planner": "predictive_sampling", "samples": 8}
AGENTS: dict[str, Callable[[], Agent]] = {
    "history": lambda: Agent("Pendulum-v1", config=SMALL | {"history": 2}, seed=3),
    "goal": lambda: toys.exact_agent(config=SAMPLING),
    "latent risk": lambda: toys.exact_agent(config=SAMPLING, model=toys.exact(latents=1)),
}


@pytest.mark.parametrize("name", AGENTS)
def test_policies_keep_the_dtypes_of_their_state(name):
    """They could not be exported otherwise; the known model is one of single precision."""
    with jax.enable_x64(True):
        agent = AGENTS[name]()
        policy, seen = agent.policy, np.zeros(agent.components.history.observation, np.float32)
        begun = jax.eval_shape(policy.init, agent.params, seen, jax.random.key(0))
        after, _ = jax.eval_shape(policy.step, agent.params, seen, begun)
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(begun)]


def test_agents_keep_the_kind_of_their_random_keys(tmp_path):
    with jax.default_prng_impl("rbg"):
        agent = Agent("Pendulum-v1", config=SMALL, seed=3)
        agent.save(tmp_path)
        wanted = jax.random.key_data(agent.draw())
    loaded = Agent.load(tmp_path, "Pendulum-v1")
    assert str(jax.random.key_impl(loaded.key)) == str(jax.random.key_impl(loaded.seed_key())) == "rbg"
    np.testing.assert_array_equal(jax.random.key_data(loaded.draw()), wanted)
    assert loaded.learn(3, progress_bar=False).num_timesteps == 3


def test_numbers_that_half_the_bits_do_not_hold_are_refused(tmp_path: Path):
    with jax.enable_x64(True):
        checkpoint.save(tmp_path, {"count": jax.numpy.asarray(2**40), "far": jax.numpy.asarray(1e300)}, {}, step=0)
        assert int(checkpoint.load(tmp_path)[0]["count"]) == 2**40
    for like in (None, {"count": jax.numpy.asarray(0), "far": jax.numpy.asarray(0.0)}):
        with pytest.raises(CheckpointError, match="count holds int64 numbers that int32 does not: set jax_enable_x64"):
            checkpoint.load(tmp_path, like)
