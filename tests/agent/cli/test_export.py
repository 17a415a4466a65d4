"""An exported run decides as its agent does, and drives simulated robots."""

import contextlib
import io
import json
import time

import jax
import numpy as np
import pytest
from gymnasium import spaces

import mpc
from mpc.agent import Agent
from mpc.agent.cli.main import main
from mpc.deploy import runtime
from tests.agent import toys

SMALL = {"horizon": 4, "starts": 2, "first_starts": 2, "iterations": 1, "first_iterations": 1, "hidden": 8, "members": 2}
SMALL |= {"capacity": 100}


@pytest.fixture(scope="module")
def agent():
    return Agent("Pendulum-v1", config=SMALL)


@pytest.fixture(scope="module")
def folder(agent, tmp_path_factory):
    """A run's folder."""
    path = tmp_path_factory.mktemp("deployment")
    agent.save(path / "run" / "checkpoint")
    return path


def exporting(folder, names: str) -> list[str]:
    """The command that makes an artefact of the run."""
    out = ["--out", str(folder / "p.craik"), "--observed", names]
    return ["export", str(folder / "run"), *out, "--period", "0.05", "--platforms", "cpu", "--json"]


@pytest.fixture(scope="module")
def exported(folder):
    """The report on an artefact of the run, which lies beside it."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(exporting(folder, '{"names": ["cos", "sin", "speed"], "units": ["", "", "rad/s"]}')) == 0
    return json.loads(said.getvalue())


def test_a_checkpoint_is_exported_and_decides_as_the_agent_does(agent, folder, exported, capsys):
    out, seen = folder / "p.craik", np.array([0.5, -0.3, 1.0], np.float32)
    assert exported["bytes"] - exported["files"]["weights.npz"]["size"] < 1 << 20
    artefact = runtime.load(out)
    key = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(agent.seed), 1)[0]))  # as agents draw theirs
    artefact_state, state = artefact.init(seen, key), None
    for _ in range(4):
        decision = artefact.step(seen, artefact_state)
        action, state = agent.predict(seen, state=state)
        np.testing.assert_allclose(decision.action, action, atol=1e-6)
        artefact_state, seen = decision.state, seen * np.float32(0.9)
    assert artefact.observation.names == ["cos", "sin", "speed"] and np.ravel(artefact.observation.high)[2] == 8.0
    assert artefact.manifest["about"]["env"] == "Pendulum-v1" and artefact.period == 0.05
    assert main(exporting(folder, "[1]")) == 2
    assert "--observed" in capsys.readouterr().err


def test_the_parts_of_an_observation_keep_their_order_in_checkpoints_and_artefacts(tmp_path):
    parts = {"z": spaces.Box(-9, 9, (1,)), "a": spaces.Box(-3, 3, (1,)), "m": spaces.Discrete(2)}
    space, action_space = spaces.Dict([(name, parts[name]) for name in "zma"]), spaces.Box(-1, 1, (1,))
    agent = Agent(None, config=toys.SMALL, observation_space=space, action_space=action_space)
    agent.save(tmp_path / "run")
    artefact = runtime.loads(Agent.load(tmp_path / "run").export(platforms=("cpu",)), prepare=False)
    key = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(agent.seed), 1)[0]))
    space.seed(0)
    decided = set()
    for _ in range(8):
        seen = space.sample()
        flat = np.asarray(spaces.flatten(space, seen))
        action = artefact.step(flat, artefact.init(flat, key)).action
        np.testing.assert_allclose(action, agent.predict(seen)[0], atol=1e-5)
        decided.add(float(action[0]))
    assert len(decided) > 2  # else the order would not matter


def test_a_foreign_file_is_not_served(tmp_path, capsys):
    (tmp_path / "foreign.craik").write_bytes(b"something else")
    assert main(["serve", str(tmp_path / "foreign.craik"), "--quiet"]) == 2
    assert "not an artefact" in capsys.readouterr().err


def test_an_artefact_drives_a_simulated_robot_by_the_wall_clock(folder, exported, capsys):
    arguments = ["robot", str(folder / "p.craik"), "--seconds", "1", "--health", str(folder / "health.csv"), "--json"]
    begun = time.monotonic()
    assert main(arguments) == 0
    assert time.monotonic() - begun > 0.95
    report = json.loads(capsys.readouterr().out)
    assert report["env"] == "Pendulum-v1" and report["period"] == 0.05 and report["health"]["ticks"] == 20
    assert report["health"]["sources"]["fresh"] + report["health"]["sources"]["shifted"] > 10
    assert len((folder / "health.csv").read_text().splitlines()) == 21
    assert main([*arguments, "--env", "CartPole-v1"]) == 2
    assert "another robot" in capsys.readouterr().err
    assert main([*arguments, "--push", "1.0"]) == 2
    assert "--push and --video are for robots of MuJoCo's, craik/CartPoleRobot-v0" in capsys.readouterr().err


def test_a_robot_of_mujocos_lives_in_a_process_of_its_own_and_is_judged(tmp_path, capsys):
    """A cart-pole told to push left, and never upright."""
    pytest.importorskip("mujoco", reason="robots need the extra [mujoco]")
    space = mpc.Box([-10.0], [10.0])
    left = mpc.Problem(lambda p, s, a: s, lambda p, s, a, t: (a[0] + 5.0) ** 2, horizon=5, action_space=space)
    decisions, out = mpc.policy(mpc.gradient(left, starts=1), iterations=5), tmp_path / "left.craik"
    about = {"env": "craik/CartPoleRobot-v0"}
    mpc.export(decisions, None, np.zeros(5), out, period=0.02, delay=3, platforms=("cpu",), about=about)
    arguments = ["robot", str(out), "--seconds", "0.6", "--delay", "0.02", "--timing", str(tmp_path / "t.png"), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["good_for"] == 0.0 and report["good_share"] == 0.0 and report["health"]["ticks"] == 30
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--env", "craik/ReacherRobot-v0"]) == 2
    assert "observes 5 numbers, and craik/ReacherRobot-v0 shows 10" in capsys.readouterr().err
