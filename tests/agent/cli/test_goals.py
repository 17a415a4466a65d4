"""One run in Two Rooms through every command: recordings, then experience; goals and tasks; an actor; an artefact."""

import csv
import json
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import imageio_ffmpeg
import jax
import numpy as np
import pytest

import envs  # noqa: F401  (registers the task's face)
from mpc.agent import Task
from mpc.agent.cli import runs
from mpc.agent.cli.main import main
from mpc.agent.memory import collect
from mpc.deploy import runtime
from world_models import data

pytestmark = [
    pytest.mark.filterwarnings("ignore::mpc.agent.configurator.configurator.OutOfDistributionGoal"),
    pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning"),
]
BRIEF = "tests/BriefRooms-v0"
TINY = {
    "latent": 8,
    "window": 2,
    "chained_steps": 1,
    "batch": 4,
    "offline_updates": 3,
    "updates": 2,
    "train_every": 10,
    "horizon": 3,
    "starts": 2,
    "first_iterations": 1,
    "iterations": 1,
    "finetune_updates": 3,
    "finetune_steps": 1,
    "capacity": 100,
    "distance_options": {"hidden": [8], "size": 4, "parts": 2, "batch": 8},
    "encoder_options": {"levels": [[8, 8]], "dense": [8]},
    "predictor_options": {"hidden": [8]},
}
RESET = '{"start": [10, 20], "layout": [30, 30]}'


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Two Rooms with episodes of ten steps."""
    gymnasium.register(
        BRIEF,
        entry_point="envs.gym:Env",
        max_episode_steps=10,
        kwargs={"task": "two_rooms"},
        disable_env_checker=True,
    )
    yield
    gymnasium.registry.pop(BRIEF)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "walks"
    assert main(["collect", BRIEF, "--episodes", "6", "--length", "12", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "rooms"
    arguments = ["--offline", str(dataset), "--updates", "2", "--settings", json.dumps(TINY), "--episodes", "0"]
    assert main(["learn", BRIEF, *arguments, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def goal(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("goals") / "there.png"
    env = gymnasium.make(BRIEF)
    env.reset(seed=3)
    imageio.imwrite(path, env.unwrapped.goal_observation())  # type: ignore[attr-defined]
    env.close()
    return path


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_recordings_say_where_they_are_from_and_can_be_seen(dataset):
    found = data.load(dataset, environment=BRIEF)
    assert found.observations.shape == (6 * 13, 6) and found.lengths.tolist() == [12] * 6
    assert found.actions is not None and 0.3 < np.abs(found.actions).max() <= 1.0
    env = gymnasium.make(BRIEF)
    frames = collect.rendering(found, env)
    assert frames is not None
    seen, _ = env.reset(options={"start": found.observations[0, :2].tolist(), "layout": found.observations[0, 4:].tolist()})
    env.close()
    np.testing.assert_allclose(np.asarray(frames(found.observations[0])), seen, atol=1)


def test_environments_without_an_explorer_are_recorded_under_smooth_random_actions(tmp_path):
    out = tmp_path / "a.npz"
    assert main(["collect", "Pendulum-v1", "--episodes", "2", "--length", "30", "--out", str(out), "--quiet"]) == 0
    found = data.load(out)
    assert found.observations.shape == (62, 3) and found.actions is not None
    steps = np.diff(found.episode(0)["actions"][:, 0])
    assert 0 < np.abs(steps).mean() < 0.5 * found.actions.std()  # smooth
    assert np.isclose(np.abs(found.actions).max(), 2.0, atol=0.4)


def test_a_goal_image_is_planned_to_and_shown(run, goal, capsys):
    assert main(["plan", str(run), "--goal", str(goal), "--seed", "3", "--reset", RESET, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    folder = run / "goal-there"
    assert report["steps"] == 10 and report["folder"] == str(folder) and report["success"] is False
    table = rows(folder / "episode.csv")
    assert len(table) == 11 and float(table[0]["distance"]) == pytest.approx(report["distance"]["first"], abs=1e-5)
    assert imageio.imread(folder / "path.png").ndim == 3
    assert imageio_ffmpeg.count_frames_and_secs(str(folder / "video.mp4"))[0] == 11


def test_a_task_is_read_from_a_file(run, goal, tmp_path, capsys):
    (tmp_path / "short.toml").write_text(f'goal = "{goal}"\nhorizon = 2\n[weights]\neffort = 0.5\n')
    arguments = ["plan", str(run), "--task", str(tmp_path / "short.toml"), "--seed", "3", "--reset", RESET, "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == "task-short" and len(report["prediction_error"]["imagined"]) == 3  # 2 steps of the model
    (tmp_path / "short.toml").write_text('goal = "nowhere.png"\nhaste = 1\n')
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "line 1: goal cannot be read" in said and "line 2: haste is unknown" in said
    assert main([*arguments, "--goal", str(goal)]) == 2 and "not both" in capsys.readouterr().err


def test_goals_that_the_environment_sets_are_scored(run, capsys):
    assert main(["plan", str(run), "--episodes", "2", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert len(scores["reached"]) == 2 and scores["success"] == np.mean(scores["reached"])


def test_an_actor_is_taught_and_reacts(run, dataset, capsys, monkeypatch):
    react = ["plan", str(run), "--episodes", "1", "--mode", "react", "--json"]
    assert main(react) == 2 and "distil makes one" in capsys.readouterr().err
    for name, few in {"distillation.IMITATIONS": 20, "goal_actor.DRAWN": 500, "goal_actor.KEPT": 200}.items():
        monkeypatch.setattr(f"mpc.agent.actor.{name}", few)
    assert main(["distil", str(run), "--data", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["distilled"]["imitation"] > 0
    assert main(react) == 0 and len(json.loads(capsys.readouterr().out)["scores"]["reached"]) == 1


def test_an_artefact_goes_to_the_goal_as_the_agent_does(run, goal, tmp_path, capsys):
    out = tmp_path / "rooms.craik"
    assert main(["export", str(run), "--out", str(out), "--platforms", "cpu", "--quiet"]) == 0  # its own task is kept
    assert main(["export", str(run), "--goal", str(goal), "--out", str(out), "--platforms", "cpu", "--json"]) == 0
    artefact = runtime.load(out)
    agent = runs.load(run)
    agent.configure(Task(goal=runs.goal(goal, agent.observation_space)))
    env = gymnasium.make(BRIEF)
    seen, _ = env.reset(seed=5)
    key = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(agent.seed), 1)[0]))  # as agents draw theirs
    held, state = artefact.init(seen / np.float32(255.0), key), None
    for _ in range(6):  # one block of four actions, and the beginning of the next
        decision = artefact.step(seen / np.float32(255.0), held)
        action, state = agent.predict(seen, state=state)
        np.testing.assert_allclose(decision.action, action, atol=1e-4)
        held = decision.state
        seen, *_ = env.step(action)
    env.close()


def test_learning_goes_on_offline_and_then_online_in_the_same_folder(run, dataset, capsys):
    assert [row["updates"] for row in rows(run / "metrics.csv")] == ["2"]
    assert float(rows(run / "metrics.csv")[0]["loss"]) > 0 and list((run / "tensorboard").iterdir())
    again = ["learn", BRIEF, "--out", str(run), "--episodes", "0", "--json"]
    assert main([*again, "--offline", str(dataset)]) == 2 and "--resume" in capsys.readouterr().err
    assert main([*again, "--offline", str(dataset), "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["updates"] == 3  # of three, one was missing
    assert main([*again, "--resume", "--steps", "20"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["timesteps"] == 20 and report["updates"] == 3 + 2 * 2  # two trainings of two updates
    table = rows(run / "metrics.csv")
    assert [int(row["updates"]) for row in table if row["loss"]] == [2, 3, 5, 7]
    assert [int(row["timesteps"]) for row in table if row["episode_return"]] == [10, 20]
    assert main(["plan", str(run), "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["timesteps"] == 20


def test_bad_goals_and_data_are_refused(run, dataset, tmp_path, capsys):
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    np.save(tmp_path / "small.npy", np.zeros((32, 32, 2), np.uint8))
    said = refused("plan", str(run), "--goal", str(tmp_path / "small.npy"))
    assert "(32, 32, 2)" in said and "(65, 65, 2)" in said
    assert "cannot be read" in refused("plan", str(run), "--goal", str(tmp_path / "none.png"))
    assert "JSON object" in refused("plan", str(run), "--reset", "[1]", "--episodes", "1")
    said = refused("learn", "craik/Wall-v0", "--offline", str(dataset), "--out", str(tmp_path / "wall"))
    assert BRIEF in said and "'craik/Wall-v0' was wanted" in said
    assert "nothing exists there" in refused("learn", BRIEF, "--offline", "nowhere", "--out", str(tmp_path / "x"))
    bad = ["--settings", '{"breadth": 3}', "--out", str(tmp_path / "y")]
    assert "breadth" in refused("learn", BRIEF, "--offline", str(dataset), *bad)
    assert "exists already" in refused("collect", BRIEF, "--episodes", "1", "--out", str(dataset))
    assert "continuous" in refused("collect", "CartPole-v1", "--episodes", "1", "--out", str(tmp_path / "z"))
