"""The commands around goals: collect, learn offline, plan to an image; and what they refuse."""

import csv
import json
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

import envs  # noqa: F401  (registers the task's face)
from mpc.agent.cli.main import main
from mpc.agent.memory import collect
from world_models import data

BRIEF = "tests/BriefRooms-v0"
SETTINGS = {
    "latent": 8,
    "window": 2,
    "steps": 1,
    "batch": 4,
    "updates": 3,
    "horizon": 3,
    "starts": 2,
    "first_iterations": 1,
    "iterations": 1,
    "finetune_updates": 3,
    "finetune_steps": 1,
    "distance_settings": {"hidden": [8], "size": 4, "parts": 2, "batch": 8},
    "encoder_settings": {"levels": [[8, 8]], "dense": [8]},
    "predictor_settings": {"hidden": [8]},
}


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
    arguments = [
        "--offline",
        str(dataset),
        "--updates",
        "2",
        "--settings",
        json.dumps(SETTINGS),
        "--out",
        str(out),
        "--quiet",
    ]
    assert main(["learn", BRIEF, *arguments]) == 0
    return out


@pytest.fixture(scope="module")
def goal(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("goals") / "there.png"
    env = gymnasium.make(BRIEF)
    env.reset(seed=3)
    imageio.imwrite(path, env.unwrapped.goal_observation())  # type: ignore[attr-defined]
    env.close()
    return path


def test_what_is_collected_says_where_it_is_from_and_can_be_seen(dataset):
    found = data.load(dataset, environment=BRIEF)
    assert found.observations.shape == (6 * 13, 6) and found.lengths.tolist() == [12] * 6
    assert found.actions is not None and 0.3 < np.abs(found.actions).max() <= 1.0
    env = gymnasium.make(BRIEF)
    frames = collect.rendering(found, env)
    assert frames is not None
    seen, _ = env.reset(options={"start": found.observations[0, :2].tolist(), "layout": found.observations[0, 4:].tolist()})
    env.close()
    np.testing.assert_allclose(np.asarray(frames(found.observations[0])), seen, atol=1)


def test_environments_without_an_explorer_are_wandered_in(tmp_path):
    assert (
        main(["collect", "Pendulum-v1", "--episodes", "2", "--length", "30", "--out", str(tmp_path / "a.npz"), "--quiet"])
        == 0
    )
    found = data.load(tmp_path / "a.npz")
    assert found.observations.shape == (62, 3) and found.actions is not None
    steps = np.diff(found.episode(0)["actions"][:, 0])
    assert 0 < np.abs(steps).mean() < 0.5 * found.actions.std()  # smooth
    assert np.isclose(np.abs(found.actions).max(), 2.0, atol=0.4)


def test_learning_leaves_numbers_and_goes_on(run, dataset, capsys):
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["updates"] for row in rows] == ["2"] and float(rows[0]["loss"]) > 0
    assert list((run / "tensorboard").iterdir())
    again = ["learn", BRIEF, "--offline", str(dataset), "--out", str(run), "--json"]
    assert main(again) == 2 and "--resume" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["updates"] == 3  # of three, one was missing
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["updates"] for row in rows] == ["2", "3"]


@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_goal_image_is_gone_after_and_shown(run, goal, capsys):
    arguments = ["plan", str(run), "--goal", str(goal), "--seed", "3", "--reset", '{"start": [10, 20], "layout": [30, 30]}']
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    folder = run / "goal-there"
    assert report["steps"] == 10 and report["folder"] == str(folder) and report["success"] is False
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert len(rows) == 11 and float(rows[0]["distance"]) == pytest.approx(report["distance"]["first"], abs=1e-5)
    assert imageio.imread(folder / "path.png").ndim == 3
    assert imageio_ffmpeg.count_frames_and_secs(str(folder / "video.mp4"))[0] == 11


def test_the_environments_own_goals_are_scored(run, capsys):
    assert main(["plan", str(run), "--episodes", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["reached"]) == 2 and report["success"] == np.mean(report["reached"])


def test_an_actor_is_taught_and_reacts(run, dataset, capsys, monkeypatch):
    react = ["plan", str(run), "--episodes", "1", "--mode", "react", "--json"]
    assert main(react) == 2 and "distil makes one" in capsys.readouterr().err
    for name, few in {"reacting.IMITATIONS": 20, "goals.actor.DRAWN": 500, "goals.actor.KEPT": 200}.items():
        monkeypatch.setattr(f"mpc.agent.{name}", few)
    learn = [
        "learn",
        BRIEF,
        "--offline",
        str(dataset),
        "--out",
        str(run),
        "--resume",
        "--updates",
        "0",
        "--distil",
        "--json",
    ]
    assert main(learn) == 0
    assert json.loads(capsys.readouterr().out)["distilled"]["imitation"] > 0
    assert main(react) == 0 and len(json.loads(capsys.readouterr().out)["reached"]) == 1


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


def test_who_plans_for_rewards_takes_no_goal(goal, tmp_path, capsys):
    from mpc.agent import Agent
    from tests.agent.toys import SMALL

    Agent("Pendulum-v1", settings=SMALL).save(tmp_path / "checkpoint")
    assert main(["plan", str(tmp_path), "--goal", str(goal)]) == 2
    assert "not learnt offline" in capsys.readouterr().err
