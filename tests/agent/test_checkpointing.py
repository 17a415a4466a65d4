"""Learning that is killed, interrupted or done twice at once: nothing that a checkpoint held is lost."""

import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mpc.agent import Agent
from mpc.agent.cli.main import main
from tests.agent.toys import SMALL
from world_models.data import About, Dataset
from world_models.io.atomic import locked
from world_models.io.checkpoint import CheckpointError


def recordings() -> Dataset:
    random, rows = np.random.default_rng(0), 4 * 31
    numbers = {
        "observations": random.normal(size=(rows, 3)),
        "actions": random.uniform(-2, 2, (rows, 1)),
        "rewards": random.normal(size=rows),
    }
    numbers = {name: array.astype(np.float32) for name, array in numbers.items()}
    return Dataset(**numbers, terminated=np.zeros(rows, bool), lengths=np.full(4, 30), about=About("Pendulum-v1"))


def test_checkpoints_come_every_so_many_updates_and_minutes(tmp_path):
    agent, seen = Agent("Pendulum-v1", config=SMALL), []

    def look(agent, progress):
        seen.append(len(list((tmp_path / "run").glob("checkpoint-*"))))

    agent.learn(40, look, progress_bar=False, checkpoint_path=tmp_path / "run", checkpoint_updates=5)
    assert seen[0] == 0 and max(seen) > 0  # before the end
    before = len(seen)
    agent.learn(3, look, progress_bar=False, checkpoint_path=tmp_path / "often", checkpoint_minutes=1e-9)
    assert len(list((tmp_path / "often").glob("checkpoint-*"))) == 2 and len(seen) == before + 3
    for wrong in ({"checkpoint_minutes": 0.0}, {"checkpoint_updates": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            agent.learn(1, progress_bar=False, checkpoint_path=tmp_path / "run", **wrong)  # type: ignore[arg-type]


def test_what_was_killed_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    """A copy of what a kill would have left, after a part of the updates, learns on as the whole did."""
    monkeypatch.setattr("mpc.agent.offline.CHUNK", 2)
    dataset, config, path = recordings(), SMALL | {"offline_updates": 8}, tmp_path / "run"

    def copy(agent, progress):
        if agent.learner.updates == 6:
            shutil.copytree(path, tmp_path / "killed")

    whole = Agent("Pendulum-v1", config=config)
    given = {"progress_bar": False, "checkpoint_updates": 2}
    whole.learn_from(dataset, callback=copy, checkpoint_path=path, **given)
    again = Agent.load(tmp_path / "killed", "Pendulum-v1")
    assert again.learner.updates == 4 and whole.learner.updates == 8
    again.learn_from(dataset, progress_bar=False)
    for a, b in zip(
        jax.tree.leaves(again.learner.training.params), jax.tree.leaves(whole.learner.training.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_one_process_at_a_time_learns_into_a_folder(tmp_path, capsys):
    agent = Agent("Pendulum-v1", config=SMALL)
    with locked(tmp_path / ".run.lock"), pytest.raises(CheckpointError, match="another process learns into"):
        agent.learn(1, progress_bar=False, checkpoint_path=tmp_path / "run")
    with locked(tmp_path / ".lock"):
        assert main(["learn", "Pendulum-v1", "--out", str(tmp_path), "--quiet"]) == 2
    assert "another process learns in" in capsys.readouterr().err
    agent.save(tmp_path / "run")
    agent.learn(1, progress_bar=False, checkpoint_path=tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_sigterm_ends_what_python_does_not_hear_of(tmp_path):
    """Compiling is one call that lasts; here it is a hash of a hash of a hash."""
    program = (
        "import hashlib\n"
        "from mpc.agent import Agent\n"
        "from tests.agent.toys import SMALL\n"
        "def callback(agent, progress):\n"
        "    if progress.timesteps == 5:\n"
        "        print('busy', flush=True)\n"
        "        hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
        f"Agent('Pendulum-v1', config=SMALL).learn(10, callback, progress_bar=False, checkpoint_path=r'{tmp_path}/run')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "busy\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143 and time.monotonic() - begun < 5.0
    finally:
        process.kill()
        process.communicate()
    assert Agent.load(tmp_path / "run").num_timesteps == 5
