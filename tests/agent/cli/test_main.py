"""The command line: every command leaves what it promises, and bad input gets a reason and an exit code."""

import csv
import json
import subprocess
import sys

import imageio.v3 as imageio
import imageio_ffmpeg
import pytest

from mpc.agent.cli.main import main

BRIEF = {"random_steps": 20, "updates": 10, "first_trainings": 1, "practice": 5, "actor_critic_reset_rounds": 1}
BRIEF |= {"hidden": 16, "members": 2, "starts": 2, "iterations": 2, "first_starts": 4, "first_iterations": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 30 steps, too few to learn much from, and its report as printed."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    command = [sys.executable, "-m", "mpc", "learn", "Pendulum-v1", "--steps", "30", "--episodes", "1", "--json"]
    command += ["--settings", json.dumps(BRIEF)]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_run_leaves_numbers_pictures_and_a_checkpoint(run):
    folder, report, errors = run
    assert errors == ""
    assert report == json.loads((folder / "report.json").read_text())
    assert report["steps"] == 30 and len(report["scores"]["returns"]) == 1
    imagined, unchanged = (report["prediction_error"][name] for name in ("imagined", "unchanged"))
    assert len(imagined) == len(unchanged) == 41 and imagined[0] < 0.05 and unchanged[0] == 0.0
    assert imageio.imread(folder / "futures.png").shape[2] in (3, 4)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(folder / "video.mp4"))
    assert frames == 200 and seconds == pytest.approx(200 / 30, abs=0.1)
    assert json.loads((folder / "config.json").read_text())["settings"]["horizon"] == 40
    assert list(folder.glob("tensorboard/*"))


def test_a_run_is_resumed_and_planned_with(run, capsys):
    folder, *_ = run
    assert main(["learn", "Pendulum-v1", "--steps", "10", "--episodes", "0", "--out", str(folder), "--quiet"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["learn", "Pendulum-v1", "--resume", "--effort", "2", "--out", str(folder)]) == 2
    assert "settings it began with" in capsys.readouterr().err
    arguments = ["--steps", "10", "--episodes", "0", "--resume", "--out", str(folder), "--quiet"]
    assert main(["learn", "Pendulum-v1", *arguments]) == 0
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [int(r["timesteps"]) for r in rows] == sorted(int(r["timesteps"]) for r in rows)
    assert {int(r["timesteps"]) for r in rows if r["latent"]} == {20, 30, 40}
    capsys.readouterr()
    assert main(["plan", str(folder), "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 40


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["plan", "nowhere-at-all"], "nowhere-at-all"),
        (["learn", "NoSuchEnvironment-v0", "--steps", "10"], "NoSuchEnvironment"),
        (["learn", "Pendulum-v1", "--settings", '{"zeal": 2}'], "there is no zeal; there are effort, repeat"),
        (["learn", "Pendulum-v1", "--effort", "0"], "effort must be a positive number; got 0.0"),
    ],
)
def test_bad_input_gets_a_reason_and_exit_code_2(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_the_doctor_reports(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [] and found["versions"]["jax"][0].isdigit()
    assert "small loops hoisted" in found
