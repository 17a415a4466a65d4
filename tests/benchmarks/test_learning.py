"""Tests of the learning benchmark: failing, hanging and existing runs; statistics compared with values by hand."""

import json
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from benchmarks.learning import drawing, methods, report, run, summary, sweep, tasks
from benchmarks.learning.__main__ import main
from benchmarks.learning.methods import METHODS, Method
from mpc.agent.cli.main import main as craik


def raw(method: str, seed: int, *scored: float, task: str = "T-v0", failed: str | None = None) -> summary.Raw:
    """Returns raw data of a run evaluated after 100, 200, … steps, two episodes each."""
    rows = [
        {
            "asked": 100 * n,
            "steps": 100 * n,
            "cpu_seconds": 10.0 * n,
            "wall_seconds": 12.0 * n,
            "returns": [score - 1, score + 1],
        }
        for n, score in enumerate(scored, 1)
    ]
    marks = {"decision_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}, "peak_mib": 100}
    return {"task": task, "method": method, "seed": seed, "rows": rows, "failed": failed} | marks


TASK = tasks.Task("T-v0", (100, 200), goal=10.0)
RAW = [raw("craik", 0, 4, 12), raw("craik", 1, 10, 14), raw("craik", 2, 0, 4), raw("sac", 0, 6, 2), raw("random", 0, 0, 0)]
RAW[-1]["rows"] = [row | {"steps": 0} for row in RAW[-1]["rows"]]


def test_the_goal_is_reached_where_the_median_run_first_scores_it():
    ours, theirs = summary.reached(RAW, [TASK])
    assert (ours.method, ours.runs, ours.reached, ours.steps, ours.cpu_seconds) == ("craik", 3, 2, 200.0, 20.0)
    assert (theirs.reached, theirs.steps) == (0, math.inf)


def test_scores_are_normalised_by_random_actions_and_the_goal():
    relative = summary.normalised(RAW, [TASK])
    np.testing.assert_allclose(relative["craik"]["T-v0"], [1.2, 1.4, 0.4])
    assert summary.aggregate(relative)["craik"][0] == pytest.approx(1.0)
    assert summary.improvement(relative)["sac"][0] == 1.0
    assert summary.normalised(RAW, [tasks.Task("T-v0", (100, 200))]) == {}


def test_curves_are_cut_as_far_below_random_as_the_best_is_above():
    scores = summary.scores([*RAW, raw("astray", 0, -1e6, 3)], [TASK])
    assert drawing.lowest(scores) == -max(line.iqm for line in scores)  # random actions score 0
    assert drawing.lowest([line for line in scores if line.method != "random"]) == -math.inf


def test_the_report_starts_with_the_cases_where_sac_is_better(tmp_path):
    failed = raw("ppo", 0, failed="RuntimeError: the | broke")
    written = report.write(tmp_path, [*RAW, failed], [TASK], "the command")
    assert all(path.stat().st_size > 0 for path in written)
    text = (tmp_path / "report.md").read_text()
    assert "higher in 1 of 2 evaluations: T-v0 after 100 steps (6.0 against 4.7)" in text.splitlines()[2]
    assert (
        "| T-v0 | craik | 1.00 | 2.00 | 3.00 | 120 | 100 |" in text
        and "| T-v0 | random | 1.00 | 2.00 | 3.00 |  | 100 |" in text
    )
    assert "the / broke" in text and "the command" in text and "not reached" in text
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["reached"][1]["steps"] is None  # JSON has no infinity


def test_a_failed_run_is_recorded_with_its_earlier_scores(tmp_path, monkeypatch):
    class Raises:
        def learn(self, steps, on_step):
            on_step(1)
            raise RuntimeError("the motor burnt out")

        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            return np.zeros((len(observation), 1), np.float32), None

    monkeypatch.setitem(METHODS, "raises", Method(lambda task, seed: Raises()))
    asked = run.Run("Pendulum-v1", (1, 2), None, "raises", 0, 1, tmp_path / "0.json")
    with pytest.raises(RuntimeError, match="burnt"):
        run.perform(asked)
    found = sweep.read(asked)
    assert found is not None and found["failed"] == "RuntimeError: the motor burnt out"
    assert [row["asked"] for row in found["rows"]] == [1]


def test_a_sweep_records_failures_and_repeats_only_missing_runs(tmp_path):
    messages: list[str] = []
    arguments = {"cores": 1, "limit": 120.0, "retry": False, "log": messages.append}
    task = tasks.task("CartPole-v1", (5,))
    runs = sweep.planned([task], ["random", "truth"], 1, 2, tmp_path, messages.append)
    missing = run.Run("NoSuchTask-v0", (5,), None, "random", 0, 2, tmp_path / "missing.json")
    first = sweep.sweep([*runs, missing], **arguments)
    assert [r["failed"] is None for r in first] == [True, False] and "NoSuchTask" in first[1]["failed"]
    before = missing.file.stat().st_mtime_ns
    runs[0].file.write_text(runs[0].file.read_text()[:-20])  # cut short
    again = sweep.sweep([*runs, missing], **arguments)
    assert [r["rows"] and r["rows"][0]["returns"] for r in again] == [r["rows"] and r["rows"][0]["returns"] for r in first]
    assert messages[0] == "truth cannot play CartPole-v1: skipped" and messages[-2].startswith("2 runs, 1 to execute")
    assert missing.file.stat().st_mtime_ns == before
    run.write(replace(runs[0], seed=7, file=runs[0].file.with_name("7.json")), {"rows": [], "failed": "of another sweep"})
    assert [figures["seed"] for figures in sweep.load_all(runs)] == [0, 7]


def test_a_hanging_run_is_stopped_at_the_time_limit(tmp_path):
    hanging = run.Run("Pendulum-v1", (10**6,), None, "craik", 0, 1, tmp_path / "0.json")
    (found,) = sweep.sweep([hanging], cores=1, limit=1.0, retry=False, log=lambda _: None)
    assert found["failed"] == "exceeded the time limit of 1 s" and found["rows"] == []


def test_methods_skip_tasks_that_they_cannot_play():
    tasks.register()
    assert methods.fits("truth", tasks.task("Pendulum-v1")) and not methods.fits("truth", tasks.task("CartPole-v1"))
    assert gymnasium.make(tasks.HIDDEN).reset(seed=0)[0].shape == (2,)
    with pytest.raises(ValueError, match=r"method must be one of .*got 'magic'"):
        methods.fits("magic", tasks.task("Pendulum-v1"))
    with pytest.raises(ImportError, match=r"craik\[baselines\]"):
        methods.library("a_library_that_nobody_wrote")
    with pytest.raises(ValueError, match="increase"):
        tasks.task("Pendulum-v1", (20, 10))


def test_the_command_line_reports_errors(tmp_path, capsys, monkeypatch):
    assert main(["Pendulum-v1", "--against", "magic", "--out", str(tmp_path)]) == 2
    assert "magic" in capsys.readouterr().err
    monkeypatch.setattr("mpc.__file__", str(tmp_path / "mpc" / "__init__.py"))
    assert craik(["bench", "Pendulum-v1"]) == 2
    assert "checkout" in capsys.readouterr().err


def test_baselines_get_the_policy_network_for_their_observations():
    frames = [gymnasium.spaces.Box(0, 255, (4, side, side), np.uint8) for side in (84, 10)]
    numbers = gymnasium.spaces.Box(-1, 1, (3,))
    spaces = [*frames, numbers, gymnasium.spaces.Dict({"a": numbers})]
    fitting = ["CnnPolicy", "MlpPolicy", "MlpPolicy", "MultiInputPolicy"]
    assert [methods.policy_for(space) for space in spaces] == fitting
