"""A server that answers what it understands, refuses the rest with a reason, and lives on."""

import random
import shutil
import socket as socket_module
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzzing
from benchmarks.faults import cart
from mpc.deploy import curve, zmtp
from mpc.deploy import server as server_module
from mpc.deploy.server import Client, Server, ServingError

zmq = pytest.importorskip("zmq", reason="serving needs the extra [serve]")
msgpack = pytest.importorskip("msgpack", reason="serving needs the extra [serve]")


@pytest.fixture(scope="module")
def artefact():
    return cart()


@pytest.fixture
def server(artefact):
    made = Server(artefact, "tcp://127.0.0.1:*")
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.close()
    thread.join(10.0)
    assert not thread.is_alive()


def test_a_client_gets_the_artefacts_decisions_and_loops_keep_apart(server, artefact):
    assert server.address.startswith("tcp://127.0.0.1:") and "127.0.0.1" in server_module.LOOPBACK
    with Client(server.address, loop="a", timeout=20) as one, Client(server.address, loop="b", timeout=20) as other:
        state, seen = artefact.init([1.0, 0.0]), np.array([1.0, 0.0], np.float32)
        for _ in range(5):
            expected = artefact.step(seen, state)
            state, answer = expected.state, one.act(seen)
            np.testing.assert_array_equal(answer.action, expected.action)
            np.testing.assert_array_equal(answer.plan, expected.actions)
            assert answer.status == "ITERATIONS" and 0 < answer.seconds < 20
            other.act(-seen)
        first = artefact.step(seen, artefact.init(seen)).action
        one.reset()
        np.testing.assert_array_equal(one.act(seen).action, first)
        assert one.manifest == artefact.manifest
        assert one.act([np.nan, 0.0]).status == "NOT_FINITE"
        with pytest.raises(ServingError, match=r"refused.*shape \[2\]"):
            one.act([1.0])


def test_whatever_comes_is_answered(server):
    """Noise, damaged requests, other protocols, too much: each gets a reply, and the next request is served."""
    drawn, good = random.Random(0), msgpack.packb({"craik": 1, "do": "act", "observation": [0.5, 0.0]})
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.connect(server.address)
    foreign = [{"craik": 2}, {"do": "act"}, [1], "text", 7, None, {"craik": 1}, {"craik": 1, "do": ["act"]}]
    foreign += [
        {"craik": 1, "do": "act", "observation": x} for x in (None, {}, "no", [], [1], [[1, 2]], ["a", "b"], b"123", [{}, 1])
    ]
    foreign += [{"craik": 1, "do": "act", "observation": [0, 0], "loop": x} for x in (1, "x" * 1000)]
    messages = [msgpack.packb(x) for x in foreign]
    messages += [b"", b"\xc1", good[:-1], good + b"\x00", b"\x00" * 70_000, b"\xdf\xff\xff\xff\xff", b"\x81" * 60_000]
    for _ in range(300):
        noisy = bytearray(good)
        for _ in range(drawn.randrange(1, 4)):
            noisy[drawn.randrange(len(noisy))] = drawn.randrange(256)
        messages.append(bytes(noisy) if drawn.random() < 0.7 else drawn.randbytes(drawn.randrange(200)))
    refused = 0
    for message in messages:
        socket.send(message)
        reply = msgpack.unpackb(socket.recv())
        assert reply["ok"] or reply["error"]
        refused += not reply["ok"]
    assert refused >= len(foreign) + 7 and server.refused == refused
    socket.send_multipart([good, good])
    assert "one part" in msgpack.unpackb(socket.recv())["error"]
    socket.send(good)
    assert msgpack.unpackb(socket.recv())["ok"]
    context.destroy(linger=0)


GOOD = {"craik": 1, "do": "act", "observation": [0.5, 0.0]}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries({}, optional={name: ANYTHING for name in (*GOOD, "loop")}).map(
    lambda changes: GOOD | changes
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(max_size=300) | (ANYTHING | REQUESTS).map(msgpack.packb), min_size=1, max_size=2))
def test_no_message_does_more_than_be_answered(answering, parts):
    """Whatever comes, the reply can be sent, says why not or holds a plan, and a loop of someone else's is as it was."""
    server, expected = answering
    reply = server.reply(parts)
    assert msgpack.unpackb(msgpack.packb(reply), strict_map_key=False) and isinstance(reply["ok"], bool)
    if not reply["ok"]:
        assert reply["error"]
    elif "action" in reply:
        request = msgpack.unpackb(parts[0])
        assert len(parts) == 1 and request["craik"] == 1 and request["do"] == "act"
        assert (np.abs(np.frombuffer(reply["plan"], "<f4")) <= 1.0).all()
    server.reply([msgpack.packb({"craik": 1, "do": "reset", "loop": "judge"})])
    assert server.reply([msgpack.packb(GOOD | {"loop": "judge"})])["plan"] == expected


@pytest.fixture(scope="module")
def answering(artefact):
    """A server that is asked directly, and the plan of its loop "judge"."""
    server = Server(artefact, "tcp://127.0.0.1:*")
    yield server, server.reply([msgpack.packb(GOOD | {"loop": "judge"})])["plan"]
    server.close()
    server.run()


def test_a_thousand_fuzzed_messages_and_strangers_at_the_door(server):
    report = fuzzing.campaign(server.address, 1000, seed=3, window=16)
    assert report["replies"] == 1000 and set(report["sent"]) == set(fuzzing.KINDS)
    assert 800 < report["refused"] < 1000  # what is damaged or wrong is now and then a good request by chance
    with Client(server.address, timeout=20) as client:
        assert client.act([0.5, 0.0]).status == "ITERATIONS"


def test_a_client_in_cpp_gets_the_same_actions(server, artefact, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source, program = Path(__file__).parents[3] / "examples" / "serve" / "client.cpp", tmp_path / "client"
    build = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    subprocess.run(build, check=True, timeout=120)
    port = server.address.rsplit(":", 1)[1]
    lines = "1.0 0.0\n0.9 -0.1\nnan 0.1\n-0.5 0.2\n"
    done = subprocess.run(
        [str(program), "127.0.0.1", port, "2", "arm"], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    state = None
    for line, action in zip(lines.splitlines(), done.stdout.splitlines(), strict=True):
        seen = np.array(line.split(), np.float32)
        state = artefact.init(seen) if state is None else state
        decision = artefact.step(seen, state)
        state = decision.state
        np.testing.assert_allclose(np.array(action.split(), np.float32), decision.action, rtol=1e-6)
    for port_, numbers, reason in ((port, "3", "float32 of shape [2]"), ("9", "2", "nobody listens")):
        arguments = [str(program), "127.0.0.1", port_, numbers, "arm"]
        refused = subprocess.run(arguments, input="1 2 3", capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1 and reason in refused.stderr
    for wrong, reason in (("0.5 fast", "no number: fast"), ("1 2 3", "ends after 1 numbers")):
        arguments = [str(program), "127.0.0.1", port, "2", "leg"]
        refused = subprocess.run(arguments, input=wrong, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1 and reason in refused.stderr


def test_loops_that_nobody_uses_are_forgotten(artefact, monkeypatch):
    monkeypatch.setattr(server_module, "LOOPS", 2)
    server = Server(artefact, "tcp://127.0.0.1:*")
    for name in ("a", "b", "a", "c"):
        packed = msgpack.packb({"craik": 1, "do": "act", "observation": [0.5, 0.0], "loop": name})
        assert server.reply([packed])["ok"]
    assert [name for _, name in server._loops] == ["a", "c"]
    with pytest.raises(ServingError, match="cannot listen"):
        Server(artefact, server.address)
    server.close()
    server.run()


def stranger(server):
    """A connection that greets as a client of ZeroMQ does."""
    host, port = server.address.removeprefix("tcp://").split(":")
    line = socket_module.create_connection((host, int(port)), 10.0)
    line.sendall(zmtp.GREETING + zmtp.frame(b"\x05READY" + zmtp._property(b"Socket-Type", b"REQ"), zmtp.COMMAND))
    return line


def hung_up(line, seconds=20.0) -> bool:
    line.settimeout(seconds)
    try:
        while line.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_a_message_that_never_ends_does_not_fill_the_memory(server):
    with stranger(server) as many, stranger(server) as large:
        sent = 0
        with pytest.raises(ConnectionError):
            for _ in range(100_000):  # 6 GB, if they were taken
                large.sendall(zmtp.frame(bytes(60_000), zmtp.MORE))
                sent += 60_000
        assert sent < 16 << 20  # what the system keeps between the two, and less than a MiB beside it
        many.sendall(zmtp.frame(b"", zmtp.MORE) * (zmtp.PARTS + 1))
        assert hung_up(many)
    with Client(server.address, timeout=20) as client:
        assert client.act([0.5, 0.0]).status == "ITERATIONS"


def test_what_is_not_finished_in_time_is_hung_up_on(server, monkeypatch):
    monkeypatch.setattr(zmtp, "PATIENCE", 0.1)
    with stranger(server) as begins, stranger(server) as waits:
        begins.sendall(zmtp.frame(b"", zmtp.MORE) + b"\x00")
        assert hung_up(begins) and not hung_up(waits, 0.2)


def test_idle_connections_lock_nobody_out(server):
    """The robot that has asked before keeps its connection, and a new one gets one."""
    with Client(server.address, loop="robot", timeout=20) as robot, ExitStack() as opened:
        assert robot.act([0.5, 0.0]).begun
        for _ in range(3 * zmtp.CONNECTIONS):
            opened.enter_context(stranger(server))
        assert not robot.act([0.5, 0.0]).begun
        with Client(server.address, timeout=20) as another:
            assert another.act([0.5, 0.0]).begun


def test_loops_of_strangers_make_the_server_forget_none_of_a_robots(artefact):
    server, packed = Server(artefact, "tcp://127.0.0.1:*"), {"craik": 1, "do": "act", "observation": [0.5, 0.0]}

    def ask(sender, **more):
        return server.reply([msgpack.packb(packed | more)], sender)["begun"]

    assert ask("robot", loop="arm")
    assert all(ask("stranger", loop=str(index)) for index in range(3 * server_module.OWN_LOOPS))
    assert not ask("robot", loop="arm") and ask("stranger", loop="0") and len(server._loops) <= server_module.OWN_LOOPS + 1
    assert ask("one") and ask("other") and not ask("one") and not ask("robot later", loop="arm")
    server.close()
    server.run()


def test_clients_that_say_no_name_share_no_loop(server):
    with Client(server.address, timeout=20) as one, Client(server.address, timeout=20) as other:
        assert one.act([1.0, 0.0]).begun and other.act([1.0, 0.0]).begun and not one.act([1.0, 0.0]).begun
        one.reset()
        assert one.act([1.0, 0.0]).begun and not other.act([1.0, 0.0]).begun


@pytest.mark.parametrize(
    "address", ["tcp://*:5577", "tcp://0.0.0.0:0", "tcp://192.168.0.7:1", "tcp://[::]:1", "tcp://robot:1"]
)
def test_other_machines_are_answered_with_keys_only(artefact, address):
    assert not server_module.is_local(address) and server_module.is_local("tcp://[::1]:1")
    with pytest.raises(ServingError, match="needs keys"):
        Server(artefact, address)


def test_clients_without_a_known_key_get_no_answer(artefact, tmp_path):
    keys, others = curve.make_keys(tmp_path / "keys"), curve.make_keys(tmp_path / "others")
    assert keys.stat().st_mode & 0o777 == 0o700 and (keys / "server.key_secret").stat().st_mode & 0o777 == 0o600
    server = Server(artefact, "tcp://0.0.0.0:*", keys)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        with Client(address, keys=keys, timeout=20) as client:
            assert client.act([0.5, 0.0]).status == "ITERATIONS"
        shutil.copy(keys / "server.key", others / "server.key")
        for wrong in (None, others):
            with pytest.raises(ServingError, match="no answer"):
                Client(address, keys=wrong, timeout=0.5)
        with pytest.raises(ServingError, match=r"cannot listen .* no keys of a server"):
            Server(artefact, "tcp://0.0.0.0:*", tmp_path)
    finally:
        server.close()
        thread.join(10.0)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ServingError, match=r"no answer from tcp://127\.0\.0\.1:9"):
        Client("tcp://127.0.0.1:9", timeout=0.05)
