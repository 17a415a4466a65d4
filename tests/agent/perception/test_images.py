"""Agents that see images: which spaces are images, what the replay buffer stores, and that agents learn from them."""

import importlib.util
import json
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from mpc.agent import Agent, AgentConfig
from mpc.agent.cli.main import main
from mpc.agent.config import FOR_IMAGES
from mpc.agent.evaluation import evaluate, random_returns
from mpc.agent.perception import gym_spaces
from mpc.agent.viz import episode, figures, images
from mpc.deploy import runtime
from tests.agent.toys import SMALL, Catch
from world_models import data, ensemble_jepa

ATARI = importlib.util.find_spec("ale_py") is not None and importlib.util.find_spec("cv2") is not None
MINATAR = importlib.util.find_spec("minatar") is not None and importlib.util.find_spec("seaborn") is not None
CATCH = "tests/Catch-v0"


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Catch, by an id."""
    gymnasium.register(CATCH, lambda **given: Catch(**given))
    yield
    gymnasium.registry.pop(CATCH)


BYTES = np.random.default_rng(0).integers(0, 256, (4, 7, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("observation", "image"),
    [
        (BYTES[0, :, :, 0], BYTES[0, :, :, :1]),
        (BYTES[0], BYTES[0]),
        (BYTES[..., 0], np.moveaxis(BYTES[..., 0], 0, -1)),
        (BYTES, np.concatenate(list(BYTES), axis=-1)),
        (BYTES[0] > 99, 255 * (BYTES[0] > 99)),
    ],
    ids=["grey", "colours", "stacked grey", "stacked colours", "yes and no"],
)
def test_images_stand_upright_whatever_comes_first(observation, image):
    space = spaces.Box(0, 1 if observation.dtype == bool else 255, observation.shape, observation.dtype.type)
    assert gym_spaces.observation_shape(space) == image.shape
    seen = gym_spaces.rows(space, np.stack([observation, np.zeros_like(observation)]), batched=True)
    assert seen.dtype == np.uint8 and not seen[1].any()
    np.testing.assert_array_equal(seen[0], image)
    np.testing.assert_array_equal(gym_spaces.rows(space, observation, batched=False)[0], image)
    assert gym_spaces.rebuild(json.loads(json.dumps(gym_spaces.describe(space)))) == space


def test_of_a_stack_the_newest_frame_is_drawn_and_kinds_have_colours():
    def drawn(observations: np.ndarray) -> np.ndarray:
        space = spaces.Box(0, 255, observations.shape, np.uint8)
        return images.drawn(gym_spaces.rows(space, observations, batched=False)[0], space)

    np.testing.assert_allclose(drawn(BYTES), BYTES[3] / 255.0, atol=1e-6)
    np.testing.assert_allclose(drawn(BYTES[..., 0]), np.repeat(BYTES[3, :, :, :1], 3, axis=-1) / 255.0, atol=1e-6)
    kinds = drawn(255 * np.eye(5, dtype=np.uint8)[:, None])  # [5, 1, 5]: every place of another kind
    assert len({tuple(colour) for colour in kinds[:, 0].round(3).tolist()}) == 5


def test_tiles_lie_row_by_row():
    four = [[np.full((2, 3, 3), 0.2 * (2 * i + j)) for j in range(2)] for i in range(2)]
    canvas = images.tiled(four, 40)
    assert canvas.shape == (40, 40, 3)
    assert [[int(canvas[20 * i + 9, 20 * j + 9, 0]) for j in range(2)] for i in range(2)] == [[0, 51], [102, 153]]
    assert not canvas[18:20].any() and not canvas[:, 38:].any()  # between them it is dark


def test_images_are_stored_as_bytes_and_no_more_of_them_than_there_is_room_for():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    config = {"buffer_mib": 1, "members": 2, "hidden": 8, "starts": 1, "horizon": 2}
    agent = Agent(None, config=config, observation_space=space, action_space=spaces.Discrete(2))
    kept = agent.buffer.observations
    assert kept.dtype == jnp.uint8 and kept.shape == (1, 2**20 // (84 * 84 * 4), 84, 84, 4)
    assert AgentConfig().buffer_rows(12, 4) == 25_000


def test_defaults_follow_the_observations_and_given_settings_override_them():
    assert AgentConfig.of(image=True).actor.horizon == FOR_IMAGES["horizon"] and AgentConfig.of() == AgentConfig()
    assert AgentConfig.of({"horizon": 7}, image=True).actor.horizon == 7
    with pytest.raises(ValueError, match="there is no setting 'zeal'"):
        AgentConfig.of({"zeal": 1}, image=True)
    space, choice = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)
    with pytest.raises(ValueError, match=r"gradient, .*cem.* got 'guess'"):
        Agent(None, config={"planner": "guess"}, observation_space=space, action_space=choice)
    with pytest.raises(ValueError, match=r"planner_options .*'zeal'"):
        Agent(None, config={"planner_options": {"zeal": 1}}, observation_space=space, action_space=choice)
    with pytest.raises(ValueError, match="FrameStackObservation"):
        Agent(None, config={"history": 2}, observation_space=spaces.Box(0, 255, (6, 6), np.uint8), action_space=choice)


def test_members_that_share_windows_lose_as_much_as_with_copies_of_their_own():
    model = ensemble_jepa((5, 6, 2), 3, hidden=8, members=3)
    params = model.init(jax.random.key(0))
    random = np.random.default_rng(1)
    drawn = (
        random.integers(0, 256, (1, 4, 3, 5, 6, 2), np.uint8),
        np.eye(3, dtype=np.float32)[random.integers(3, size=(1, 4, 2))],
        random.normal(size=(1, 4, 2)).astype(np.float32),
        random.random((1, 4, 2)) < 0.2,
        np.cumprod(random.random((1, 4, 2)) < 0.8, axis=-1) > 0,
    )
    windows = data.Window(*map(jnp.asarray, drawn))
    loss = jax.jit(lambda windows: model.loss(params, windows)[1])
    shared, owned = loss(windows), loss(jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), windows))
    for name in ("latent", "reward", "termination"):
        assert float(shared[name]) == pytest.approx(float(owned[name]), rel=1e-4)
    seen = jax.jit(lambda o: model.encode(params, o).latent)
    np.testing.assert_allclose(seen(windows.observations[0, 0, 0]), seen(windows.observations[0, 0, 0] / 255.0), atol=1e-4)


LEARNT = {
    "hidden": 64,
    "members": 2,
    "window": 3,
    "horizon": 5,
    "actor_critic_updates": 0,
    "first_starts": 8,
    "first_iterations": 6,
}
"""Without actor and critic, whose programs take longer to compile than all of this: plans see to the episode's end."""


@pytest.fixture(scope="module")
def catcher():
    """An agent that learnt from 300 steps."""
    return Agent(CATCH, seed=0, config=LEARNT).learn(300, progress_bar=False)


def test_catching_is_learnt_from_300_steps(catcher):
    # one after the other: a batch would be another program
    planned, random = np.concatenate([evaluate(catcher, CATCH, [s]) for s in range(40)]), random_returns(CATCH, range(200))
    print(f"{planned.mean():.2f} of 5; random actions {random.mean():.2f}")
    assert planned.mean() > random.mean() + 0.7


def test_it_is_saved_loaded_and_drawn(catcher, tmp_path):
    catcher.save(tmp_path / "checkpoint")
    loaded = Agent.load(tmp_path / "checkpoint", CATCH)
    seen = Catch().reset(seed=3)[0]
    np.testing.assert_array_equal(loaded.predict(seen)[0], catcher.predict(seen)[0])
    np.testing.assert_array_equal(loaded.buffer.observations, catcher.buffer.observations)
    errors = figures.show(catcher, CATCH, tmp_path, 0)["prediction_error"]
    assert errors["unchanged"][0] == 0.0 < errors["unchanged"][1] and len(errors["imagined"]) == LEARNT["horizon"] + 1
    assert imageio.imread(tmp_path / "futures.png").std() > 10
    assert (tmp_path / "video.mp4").stat().st_size > 1000


def test_sampled_plans_act_on_images_and_are_exported():
    agent = Agent(CATCH, config=SMALL)
    raw = Catch().reset(seed=1)[0]
    action, state = agent.predict(raw)
    imagined = episode.futures(agent, state)
    assert imagined.shape == (1, SMALL["horizon"] + 1, 32)
    np.testing.assert_allclose(imagined[0, 0], agent.encode(raw), atol=1e-6)
    artefact = runtime.loads(agent.export(platforms=("cpu",)))
    shown = gym_spaces.rows(agent.observation_space, raw, batched=False)[0] / np.float32(255.0)
    key = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(agent.seed), 1)[0]))  # as agents draw theirs
    decision = artefact.step(shown, artefact.init(shown, key))
    np.testing.assert_array_equal(decision.actions, state.policy.plan.actions[0])
    assert int(decision.action) == int(action)


def _missing(env: str, extra: str, capsys) -> None:
    assert main(["learn", env, "--steps", "10"]) == 2
    assert f"pip install 'craik[{extra}]'" in capsys.readouterr().err


@pytest.mark.skipif(ATARI, reason="craik[atari] is installed")
def test_without_atari_the_error_names_the_extra(capsys):
    _missing("ALE/Pong-v5", "atari", capsys)


@pytest.mark.skipif(MINATAR, reason="craik[minatar] is installed")
def test_without_minatar_the_error_names_the_extra(capsys):
    _missing("MinAtar/Breakout-v1", "minatar", capsys)


@pytest.mark.skipif(not ATARI, reason="needs craik[atari]")
def test_atari_is_preprocessed_as_usual():
    env = gym_spaces.make("ALE/Pong-v5")
    raw, _ = env.reset(seed=0)
    assert raw.shape == (4, 84, 84) and env.unwrapped.get_wrapper_attr("_frameskip") == 1
    before = env.unwrapped.ale.getEpisodeFrameNumber()  # type: ignore[attr-defined]
    raw, *_ = env.step(2)
    assert env.unwrapped.ale.getEpisodeFrameNumber() - before == 4  # type: ignore[attr-defined]
    assert gym_spaces.observation_shape(env.observation_space) == (84, 84, 4)


@pytest.mark.skipif(not MINATAR, reason="needs craik[minatar]")
def test_an_agent_learns_in_minatar(tmp_path: Path):
    agent = Agent("MinAtar/Breakout-v1", config=SMALL).learn(25, progress_bar=False)
    assert agent.learner.trained and agent.buffer.observations.shape[2:] == (10, 10, 4)
    assert set(np.unique(agent.buffer.observations).tolist()) == {0, 255}
