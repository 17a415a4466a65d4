"""Conventions of Python: numbers of NumPy, seeds, paths, pickling, and warnings of what would be silence."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpc.agent import Agent, AgentConfig, Task
from mpc.agent import learner as learning
from mpc.agent.config import WorldModelConfig
from mpc.agent.decisions import NothingLearnt
from mpc.agent.world_model import readout
from tests.agent.toys import ACTIONS, OBSERVATIONS, SMALL, Toy, exact_agent
from world_models import data
from world_models.io import checkpoint

RANDOM = SMALL | {"random_steps": 1000}


def new(config: Any = None, **given: Any) -> Agent:
    """An agent that only ever acts at random in a toy."""
    return Agent(Toy(OBSERVATIONS[0], ACTIONS[0]), config=RANDOM | (config or {}), **given)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.float16, np.asarray, jnp.asarray], ids=lambda n: n.__name__)
def test_numbers_of_numpy_are_numbers(number):
    config = AgentConfig.of({"discount": number(0.5), "distance_options": {"weight": number(2.0), "sizes": [number(1.0)]}})
    assert type(config.world_model.discount) is float and config.world_model.discount == 0.5
    assert config.cost.distance_options == {"weight": 2.0, "sizes": (1.0,)}
    assert AgentConfig(world_model=WorldModelConfig(discount=number(0.5))) == AgentConfig.of({"discount": 0.5})
    given: Any = {"weights": {"reward": number(2.0)}, "risk": number(0.5), "horizon": np.int64(3)}
    task = Task(**given)
    assert type(task.weights["reward"]) is type(task.risk) is float and type(task.horizon) is int


def test_settings_of_numpy_are_saved(tmp_path):
    given = {"discount": np.float32(0.97), "decoder": np.bool_(False), "random_steps": np.int64(1000), "latent": np.array(9)}
    weights: Any = {"reward": np.float32(2.0)}
    agent = new(given, seed=np.int64(3), task=Task(weights=weights))
    agent.learn(3, progress_bar=False)
    agent.save(tmp_path / "run")
    loaded = Agent.load(tmp_path / "run")
    assert loaded.config == agent.config and loaded.seed == 3 and loaded.task.weights == {"reward": 2.0}


def test_a_seed_that_is_not_given_is_drawn_and_can_be_asked_for():
    one, other = new(seed=None), new(seed=None)
    assert one.seed != other.seed and one.learn(2, progress_bar=False).num_timesteps == 2
    again = new(seed=one.seed).learn(2, progress_bar=False)
    np.testing.assert_array_equal(again.buffer.observations, one.buffer.observations)


@pytest.mark.parametrize("seed", [-1, 1.5, "3", True, 2**31])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed must be None or a whole number"):
        new(seed=seed)


def test_errors_of_callbacks_are_not_the_environments():
    def fail(agent: Agent, progress: Any) -> None:
        raise TypeError("of the callback")

    with pytest.raises(TypeError, match="of the callback"):
        new().learn(3, fail, progress_bar=False)


def test_an_agent_that_has_learnt_nothing_warns_once(recwarn):
    agent = new()
    with pytest.warns(NothingLearnt, match=r"after 5 random steps.*random_steps=1000"):
        agent.learn(5, progress_bar=False)
    agent.learn(5, progress_bar=False)
    assert not [w for w in recwarn if issubclass(w.category, NothingLearnt)]
    with pytest.warns(NothingLearnt, match="decides by random weights"), pytest.raises(ValueError, match="shape"):
        new().predict(np.zeros(7))


def test_a_known_model_has_nothing_to_learn(recwarn):
    with pytest.raises(ValueError, match="shape"):
        exact_agent().predict(np.zeros(7))
    assert not recwarn.list


def test_pickling_an_agent_names_what_to_do_instead():
    agent = new()
    with pytest.raises(TypeError, match=r"agent\.save\(path\), Agent\.load\(path\)"):
        pickle.dumps(agent)
    assert copy.deepcopy(agent).learn(2, progress_bar=False).num_timesteps == 2 and agent.num_timesteps == 0


def test_paths_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint.save("~/run", {"x": np.ones(2)}, {}, step=1)
    assert checkpoint.load(tmp_path / "run")[0]["x"].tolist() == [1.0, 1.0] == checkpoint.load("~/run")[0]["x"].tolist()
    walk = data.gather([{"observations": np.zeros((3, 1)), "actions": np.zeros((2, 1))}], data.About("walk"))
    data.save("~/walk", walk)
    assert data.load("~/walk").transitions == 2 and (tmp_path / "walk").is_dir()
    np.save(tmp_path / "goal.npy", np.array([3.0, 4.0]))
    (tmp_path / "task.toml").write_text('goal = "goal.npy"')
    for task in (Task(goal="~/goal.npy"), "~/task.toml"):
        agent = exact_agent().configure(task)
        np.testing.assert_array_equal(agent.setup.observation, [3.0, 4.0])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"predictor_options": {"hidden": [8]}}, "an ensemble has no predictor_options"),
        ({"prediction_weight": 2.0}, "an ensemble has no prediction_weight"),
        ({"straightness_weight": 0.1}, "an ensemble has no straightness_weight"),
        ({"encoder_options": {"dense": [8]}}, "an ensemble has no encoder_options"),
        ({"objective_options": {"similarity": 1.0}}, "similarity"),
        (
            {"predictor": "mlp", "objective": "reconstruction", "straightness_weight": 0.1},
            "'reconstruction' has no straight",
        ),
    ],
)
def test_settings_that_a_model_would_ignore_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        new(settings)


def test_a_known_model_is_not_finetuned(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nothing to fine-tune")

    monkeypatch.setattr(learning, "finetune", refuse)
    monkeypatch.setattr(readout, "fit", lambda *_: None)
    places = 5.0 + np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    nothing = np.zeros(20, np.float32)
    walk = data.Dataset(places, places, nothing, nothing > 0, np.array([19]), data.About(""))
    agent = exact_agent()
    agent.learner.finetune(walk, jax.random.key(0))
    assert agent.learner.finetuned_at == agent.learner.updates


def test_readouts_of_nearly_as_many_rows_share_a_program(monkeypatch):
    shapes = set()
    monkeypatch.setattr(readout, "_fit", lambda key, normal, target, count: shapes.add((normal.shape, target.shape)))
    rows = np.random.default_rng(0).normal(size=(128, 3))
    for count in (65, 100, 128):
        readout.fit(jax.random.key(0), rows[:count], rows[:count, :2])
    assert shapes == {((128, 3), (128, 2))}
