"""Trackers: a table that is continued, by rows and by columns, and libraries behind stand-ins."""

import csv
import sys
from types import SimpleNamespace

import pytest

from mpc.agent.cli.main import main
from mpc.agent.cli.trackers import OFFLINE, TRACKERS, Opening, Table, names_of


def test_a_table_is_continued_and_takes_new_columns(tmp_path):
    path = tmp_path / "metrics.csv"
    Table(path, ("timesteps",)).write({"timesteps": 1, "loss": 0.5})
    table = Table(path, ("timesteps",))
    table.write({"timesteps": 2})
    table.write({"timesteps": 3, "reward": -1.0})
    assert list(csv.reader(path.read_text().splitlines())) == [
        ["timesteps", "loss", "reward"],
        ["1", "0.5", ""],
        ["2", "", ""],
        ["3", "", "-1.0"],
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_rows_after_the_last_checkpoint_of_a_killed_run_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    table = Table(path, ("timesteps", "updates"))
    for step in (10, 20, 30):
        table.write({"timesteps": step, "updates": step // 2})
    with open(path, "a") as file:
        file.write("4")  # of a row that was being written
    Table(path, ("timesteps",), {"timesteps": 20, "updates": 10}).write({"timesteps": 21, "updates": 10})
    assert [row["timesteps"] for row in csv.DictReader(path.read_text().splitlines())] == ["10", "20", "21"]


@pytest.fixture
def calls(monkeypatch):
    """Calls of stand-ins for wandb and MLflow, in their order."""
    seen = []

    def record(name, result=None):
        return lambda *args, **settings: seen.append((name, args, settings)) or result

    run = SimpleNamespace(id="w1", define_metric=record("define"), log=record("log"), finish=record("finish"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=record("init", run), Error=RuntimeError))
    begun = SimpleNamespace(info=SimpleNamespace(run_id="m1"))
    mlflow = {name: record(name) for name in ("set_experiment", "log_dict", "log_metrics", "end_run")}
    mlflow |= {"start_run": record("start_run", begun), "MlflowException": RuntimeError}
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**mlflow))
    return seen


def test_wandb_gets_values_with_their_counts_and_a_resumed_run_goes_on(tmp_path, calls):
    for _ in range(2):
        tracker = TRACKERS["wandb"](Opening(tmp_path, {"seed": 0}))
        tracker.log({"timesteps": 5, "updates": 2}, {"loss": 0.5})
        tracker.close()
    assert [settings["id"] for name, _, settings in calls if name == "init"] == [None, "w1"]
    assert [args for name, args, _ in calls if name == "log"] == [({"timesteps": 5, "updates": 2, "loss": 0.5},)] * 2
    assert calls[-1][0] == "finish"


@pytest.mark.parametrize(("prefix", "step"), [("", 5), (OFFLINE, 2)])
def test_mlflow_gets_values_at_their_step_and_a_resumed_run_goes_on(tmp_path, calls, prefix, step):
    for _ in range(2):
        tracker = TRACKERS["mlflow"](Opening(tmp_path, {"seed": 0}, prefix))
        tracker.log({"timesteps": 5, "updates": 2}, {"loss": 0.5})
        tracker.close()
    assert [settings["run_id"] for name, _, settings in calls if name == "start_run"] == [None, "m1"]
    assert [rest for name, *rest in calls if name == "log_metrics"] == [[({prefix + "loss": 0.5},), {"step": step}]] * 2
    assert calls[-1][0] == "end_run"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_ends_the_command_and_names_the_extra(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["learn", "Pendulum-v1", "--out", str(tmp_path / "run"), "--log", f"csv,{name}"]) == 2
    assert f"pip install 'craik[{name}]'" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_names_of_trackers_are_checked_and_taken_once():
    assert names_of("csv, tensorboard,csv") == ("csv", "tensorboard")
    with pytest.raises(ValueError, match="csv, tensorboard, wandb, mlflow"):
        names_of("csv,tensorbord")
