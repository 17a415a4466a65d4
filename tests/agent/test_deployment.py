"""What leaves for a robot decides as the agent does that it was made of."""

import json

import jax
import numpy as np
import pytest

from mpc import runtime
from mpc.agent import Agent, Settings
from mpc.agent.cli import main

SMALL = Settings(horizon=4, starts=2, first_starts=2, iterations=1, first_iterations=1, hidden=8, members=2, capacity=100)


@pytest.mark.usefixtures("compiled_quickly")
def test_a_checkpoint_is_exported_and_decides_as_the_agent_does(tmp_path, capsys):
    agent, out, seen = Agent("Pendulum-v1", settings=SMALL), tmp_path / "p.craik", np.array([0.5, -0.3, 1.0], np.float32)
    agent.save(tmp_path / "run" / "checkpoint")
    names = '{"names": ["cos", "sin", "speed"], "units": ["", "", "rad/s"]}'
    arguments = ["export", str(tmp_path / "run"), "--out", str(out), "--period", "0.05", "--platforms", "cpu", "--json"]
    assert main([*arguments, "--observed", names]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] - report["files"]["weights.npz"]["size"] < 1 << 20
    artefact = runtime.load(out)
    key = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(agent.seed), 1)[0]))  # as agents draw theirs
    memory, state = artefact.begin(seen, key), None
    for _ in range(4):
        decision = artefact.decide(seen, memory)
        action, state = agent.predict(seen, state=state)
        np.testing.assert_allclose(decision.action, action, atol=1e-6)
        memory, seen = decision.memory, seen * np.float32(0.9)
    assert artefact.observation.names == ["cos", "sin", "speed"] and np.ravel(artefact.observation.high)[2] == 8.0
    assert artefact.manifest["about"]["env"] == "Pendulum-v1" and artefact.period == 0.05
    assert main([*arguments, "--observed", "[1]"]) == 2
    assert "--observed" in capsys.readouterr().err


def test_a_foreign_file_is_not_served(tmp_path, capsys):
    (tmp_path / "foreign.craik").write_bytes(b"something else")
    assert main(["serve", str(tmp_path / "foreign.craik"), "--quiet"]) == 2
    assert "not an artefact" in capsys.readouterr().err
