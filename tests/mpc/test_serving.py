"""A server that answers what it understands, refuses the rest with a reason, and lives on."""

import random
import threading

import numpy as np
import pytest

from benchmarks.faults import cart
from mpc import serving
from mpc.serving import Client, Server, ServingError

zmq = pytest.importorskip("zmq", reason="serving needs the extra [serve]")
msgpack = pytest.importorskip("msgpack", reason="serving needs the extra [serve]")
pytestmark = pytest.mark.usefixtures("compiled_quickly")


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
    assert server.address.startswith("tcp://127.0.0.1:") and "127.0.0.1" in serving.LOOPBACK
    with Client(server.address, loop="a", timeout=20) as one, Client(server.address, loop="b", timeout=20) as other:
        memory, seen = artefact.begin([1.0, 0.0]), np.array([1.0, 0.0], np.float32)
        for _ in range(5):
            expected = artefact.decide(seen, memory)
            memory, answer = expected.memory, one.act(seen)
            np.testing.assert_array_equal(answer.action, expected.action)
            np.testing.assert_array_equal(answer.plan, expected.actions)
            assert answer.status == "ITERATIONS" and 0 < answer.seconds < 20
            other.act(-seen)
        first = artefact.decide(seen, artefact.begin(seen)).action
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


def test_loops_that_nobody_uses_are_forgotten(artefact, monkeypatch):
    monkeypatch.setattr(serving, "LOOPS", 2)
    server = Server(artefact, "tcp://127.0.0.1:*")
    for name in ("a", "b", "a", "c"):
        packed = msgpack.packb({"craik": 1, "do": "act", "observation": [0.5, 0.0], "loop": name})
        assert server.reply([packed])["ok"]
    assert list(server._loops) == ["a", "c"]
    with pytest.raises(ServingError, match="cannot listen"):
        Server(artefact, server.address)
    server.close()
    server.run()


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ServingError, match=r"no answer from tcp://127\.0\.0\.1:9"):
        Client("tcp://127.0.0.1:9", timeout=0.05)
