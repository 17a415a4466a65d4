"""The border of a process: forks are refused, paths are expanded, and what cannot be written is named."""

import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import mpc
from mpc.deploy import archive, runtime
from mpc.deploy.host import ForkedProcessError
from mpc.deploy.realtime import RealTime
from mpc.deploy.runtime import ArtefactError
from mpc.deploy.telemetry import Health

PROBLEM = mpc.Problem(lambda p, s, a: s + a, lambda p, s, a, t: s @ s, horizon=2, action_space=mpc.Box([-1.0], [1.0]))
PLANNER = mpc.mppi(PROBLEM, samples=2)
POLICY = mpc.policy(PLANNER, iterations=1)


@pytest.fixture(scope="module")
def data():
    return mpc.export(POLICY, None, np.zeros(1), period=0.1, delay=1, platforms=("cpu",))


@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_forked_processes_are_refused_by_everything_that_runs_compiled_programs(data):
    artefact, controller = runtime.loads(data), mpc.Controller(PLANNER, None, observation=np.zeros(1))
    loop, state, key = RealTime(artefact, safe=[0.0]), artefact.init([0.0]), jax.random.key(0)
    uses = (
        lambda: artefact.step([0.0], state),
        lambda: artefact.init([0.0]),
        lambda: controller.act([0.0]),
        lambda: mpc.solve(PLANNER, None, np.zeros(1), key, 1),
        lambda: mpc.Controller(PLANNER, None),
        lambda: runtime.loads(data),
    )
    child = os.fork()
    if child == 0:
        refused = 0
        for use in uses:
            try:
                use()
            except ForkedProcessError as error:
                refused += "spawn" in str(error)
        os._exit(refused + bool(np.isfinite(loop.tick([0.0])).all()))  # a control loop never raises
    end, status = time.monotonic() + 20, (0, 0)
    while status == (0, 0) and time.monotonic() < end:
        time.sleep(0.02)
        status = os.waitpid(child, os.WNOHANG)
    if status == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    loop.close()
    assert status == (child, (len(uses) + 1) << 8)
    assert np.isfinite(controller.act([0.0])).all()  # the parent goes on


def test_home_directories_are_expanded_wherever_a_path_is_given(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    mpc.export(POLICY, None, np.zeros(1), "~/planner.craik", period=0.1, delay=1, platforms=("cpu",))
    assert (tmp_path / "planner.craik").read_bytes() == data
    assert runtime.load("~/planner.craik", prepare=False).delay == 1
    Health(4).write("~/ticks.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"planner.craik", "ticks.csv"}


def test_a_missing_folder_is_told_with_the_file_that_was_to_be_written(tmp_path):
    target = tmp_path / "missing" / "planner.craik"
    for write in (lambda: mpc.export(POLICY, None, np.zeros(1), target), lambda: archive.write(Path(target), b"")):
        with pytest.raises(FileNotFoundError, match="folder does not exist") as caught:
            write()
        assert caught.value.filename == str(target)


@pytest.mark.parametrize("batch", [None, 2, "b"])
def test_states_of_another_number_of_observations_are_refused(data, batch):
    if batch is not None:
        data = mpc.export(POLICY, None, np.zeros(1), batch=batch, platforms=("cpu",))
    artefact = runtime.loads(data, prepare=False)
    seen = np.zeros(1) if batch is None else np.zeros((2, 1))
    state = artefact.init(seen)
    assert np.isfinite(artefact.step(seen, state).actions).all()
    wrong = [[*state[:-1], np.zeros((3, *np.shape(state[-1])))], state[1:], None, np.zeros(3)]
    if batch == "b":
        wrong.append(artefact.init(np.zeros((3, 1))))
    for other in wrong:
        with pytest.raises(ArtefactError, match="the state must be one of this artefact"):
            artefact.step(seen, other)
