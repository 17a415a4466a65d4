"""The command line: every command leaves what it promises, and bad input gets a reason and an exit code."""

import csv
import json
import subprocess
import sys

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

import mpc
from mpc.agent import interrupts
from mpc.agent.cli.main import main

TINY = {"random_steps": 20, "updates": 10, "first_trainings": 1, "actor_critic_updates": 5, "actor_critic_reset_rounds": 1}
TINY |= {"hidden": 16, "members": 2, "starts": 2, "iterations": 2, "first_starts": 4, "first_iterations": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 30 steps, too few to learn much from, and its report as printed."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    command = [sys.executable, "-m", "mpc", "learn", "Pendulum-v1", "--steps", "30", "--episodes", "1", "--json"]
    command += ["--settings", json.dumps(TINY)]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_run_leaves_numbers_pictures_and_a_checkpoint(run):
    folder, report, errors = run
    assert errors == ""  # --json is for machines: no progress either
    assert report == json.loads((folder / "report.json").read_text())
    assert report["timesteps"] == 30 and len(report["scores"]["returns"]) == 1
    imagined, unchanged = (report["prediction_error"][name] for name in ("imagined", "unchanged"))
    assert len(imagined) == len(unchanged) == 41 and imagined[0] < 0.05 and unchanged[0] == 0.0
    assert imageio.imread(folder / "futures.png").shape[2] in (3, 4)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(folder / "video.mp4"))
    assert frames == 201 and seconds == pytest.approx(201 / 30, abs=0.1)  # of 200 steps, and where they end
    assert json.loads((folder / "config.json").read_text())["config"]["actor"]["horizon"] == 40
    assert list(folder.glob("tensorboard/*"))
    assert all(float(rows(folder)[-1][loss]) == float(rows(folder)[-1][loss]) for loss in ("actor", "critic"))


def test_a_run_is_resumed_and_planned_with(run, capsys):
    folder, *_ = run
    assert main(["learn", "Pendulum-v1", "--steps", "10", "--episodes", "0", "--out", str(folder), "--quiet"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["learn", "Pendulum-v1", "--resume", "--update-ratio", "2", "--out", str(folder)]) == 2
    assert "settings it began with" in capsys.readouterr().err
    arguments = ["--steps", "10", "--episodes", "0", "--resume", "--out", str(folder), "--quiet"]
    assert main(["learn", "Pendulum-v1", *arguments]) == 0
    steps = [int(row["timesteps"]) for row in rows(folder)]
    assert steps == sorted(steps)
    assert {int(row["timesteps"]) for row in rows(folder) if row["latent"]} == {20, 30, 40}
    capsys.readouterr()
    assert main(["plan", str(folder), "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["timesteps"] == 40


def test_a_run_learnt_for_rewards_is_distilled_and_reacts(run, capsys, monkeypatch):
    folder, *_ = run
    monkeypatch.setattr("mpc.agent.actor.distillation.IMITATIONS", 20)
    assert main(["distil", str(folder), "--rounds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["distilled"]["imitation"] > 0
    assert main(["plan", str(folder), "--episodes", "1", "--mode", "react", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["scores"]["returns"]) == 1


def test_an_agent_without_a_distance_takes_no_goal(run, tmp_path, capsys):
    np.save(tmp_path / "up.npy", np.array([1.0, 0.0, 0.0], np.float32))
    assert main(["plan", str(run[0]), "--goal", str(tmp_path / "up.npy")]) == 2
    assert "needs a distance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["plan", "nowhere-at-all"], "nowhere-at-all"),
        (["distil", "nowhere-at-all"], "nowhere-at-all"),
        (["export", "nowhere-at-all"], "nowhere-at-all"),
        (["learn", "NoSuchEnvironment-v0", "--steps", "10"], "NoSuchEnvironment"),
        (["learn", "Pendulum-v1", "--settings", '{"zeal": 2}'], "there is no setting 'zeal'; there are action_limit, "),
        (["learn", "Pendulum-v1", "--settings", '{"actor": {"latent": 2}}'], "there is no setting 'latent' in actor"),
        (["learn", "Pendulum-v1", "--update-ratio", "0"], "--update-ratio must be positive; got 0.0"),
    ],
)
def test_bad_input_gets_a_reason_and_exit_code_2(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_the_version_is_told_by_the_command_and_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"craik {mpc.__version__}\n" and mpc.__version__[0].isdigit()


def test_progress_is_printed_where_the_output_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(interrupts, "LINE_PERIOD", 0.0)
    with interrupts.bar(4, shown=True) as advance:
        advance(1)
        advance(3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0].split(";")[0] for line in lines] == [f"learning: {n} of 4" for n in (0, 1, 4)]
    assert lines[-1].endswith(" 0 s left")
    with interrupts.bar(4, shown=False) as advance:
        advance(4)
    assert capsys.readouterr().err == ""


def test_the_doctor_reports(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [] and found["versions"]["jax"][0].isdigit()
    assert "small loops hoisted" in found


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("learn Pendulum-v1 --steps -5", "--steps must be at least 0; got -5"),
        ("learn Pendulum-v1 --episodes -1", "--episodes must be at least 0; got -1"),
        ("learn Pendulum-v1 --update-ratio 0", "--update-ratio must be positive; got 0.0"),
        ("learn Pendulum-v1 --seed -1", "--seed must be at least 0; got -1"),
        ("learn Pendulum-v1 --offline data --updates -1", "--updates must be at least 0; got -1"),
        ("demo --steps -5", "--steps must be at least 0; got -5"),
        ("collect Pendulum-v1 --length 0", "--length must be at least 1; got 0"),
        ("distil run --rounds 0", "--rounds must be at least 1; got 0"),
        ("bench Pendulum-v1 --at 100 0", "--at must be at least 1; got 0"),
        ("robot x.craik --seconds nan", "--seconds must be positive; got nan"),
        ("export run --period 0", "--period must be positive; got 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_made(command, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    assert reason in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_paths_of_options_begin_at_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "Pendulum-v1", "--episodes", "1", "--length", "3", "--out", "~/swings", "--quiet"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["swings"]
    assert main(["plan", "~/none"]) == 2
    assert f"{tmp_path}/none" in capsys.readouterr().err
