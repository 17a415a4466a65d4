"""A million messages that nobody should send, against `craik serve`: each gets a reply, and the server lives on.

`python -m benchmarks.fuzzing` serves the cart of `benchmarks.faults` from a process of its own, sends it noise, damaged
requests, foreign protocols and too much, and writes `benchmarks/results/fuzzing.json`; it exits with 1 if a message got no
reply, a good request is answered otherwise than before, or the server died.
"""

import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.provenance import invoked, provenance
from benchmarks.serving import serving

GOOD: dict[str, Any] = {"craik": 1, "do": "act", "observation": [0.5, 0.0], "loop": "a"}
KINDS = ("noise", "damaged", "cut off", "foreign", "wrong", "nested", "parts", "oversized")
WEIGHTS = (25, 30, 10, 15, 15, 3, 1.5, 0.5)
GREETINGS = (
    b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n",
    b"\xff" + b"\x00" * 8 + b"\x7f\x03",
    b"\x16\x03\x01\x02\x00",
    b"",
    b"\x00" * 5000,
)
"""What other protocols begin with: they are hung up on, for ZeroMQ has no reply for who doesn't speak it."""


@dataclass
class Options:
    """How many messages."""

    messages: int = 1_000_000
    """Sent by ZeroMQ; foreign connections come on top, one for every 10,000."""
    seed: int = 0
    """Of the messages."""
    window: int = 64
    """Under way at a time."""
    out: Path = Path(__file__).parent / "results" / "fuzzing.json"
    """Where the figures go."""


def message(drawn: random.Random, pack: Any) -> tuple[str, list[bytes]]:
    """A message of one of the kinds, and its kind.

    Args:
        drawn: Draws it.
        pack: `msgpack.packb`.
    """
    good = pack(GOOD)
    match kind := drawn.choices(KINDS, WEIGHTS)[0]:
        case "noise":
            return kind, [drawn.randbytes(drawn.randrange(200))]
        case "damaged":
            damaged = bytearray(good)
            for _ in range(drawn.randrange(1, 5)):
                damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
            return kind, [bytes(damaged)]
        case "cut off":
            return kind, [good[: drawn.randrange(len(good))]]
        case "foreign":
            return kind, [pack(anything(drawn, 4))]
        case "wrong":
            return kind, [pack(GOOD | {drawn.choice(["craik", "do", "observation", "loop"]): anything(drawn, 3)})]
        case "nested":
            return kind, [drawn.choice([b"\x91", b"\x81\xa1a", b"\xdf\xff\xff\xff\xff"]) * drawn.randrange(1, 5000)]
        case "parts":
            return kind, [good] * drawn.randrange(2, 20)
    return kind, [good + bytes(drawn.randrange(1 << 16, 1 << 18))]


def anything(drawn: random.Random, depth: int) -> Any:
    """Something that msgpack holds."""
    leaves = [
        None,
        True,
        0,
        -1,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "act",
        "x" * 200,
        b"",
        b"\x00" * 8,
        b"\xff" * 7,
    ]
    if depth == 0 or drawn.random() < 0.4:
        return drawn.choice([*leaves, drawn.random(), drawn.randrange(2**32)])
    size = drawn.randrange(4)
    if drawn.random() < 0.5:
        return [anything(drawn, depth - 1) for _ in range(size)]
    return {drawn.choice(["craik", "do", "observation", "loop", "x"]): anything(drawn, depth - 1) for _ in range(size)}


def campaign(address: str, messages: int, seed: int, window: int, memory: Callable[[], int] | None = None) -> dict[str, Any]:
    """Send, and count what comes back.

    Args:
        address: Of the server.
        messages: How many.
        seed: Of the messages.
        window: Under way at a time.
        memory: Bytes that the server holds, looked at after every tenth of the messages.

    Returns:
        Messages sent by kind, replies, refusals, reasons by how they begin, and the memory.
    """
    from mpc.deploy.server import libraries

    zmq, msgpack = libraries()
    drawn, sent, refused, reasons, replies = random.Random(seed), Counter(), 0, Counter(), 0
    context = zmq.Context()
    line = context.socket(zmq.DEALER)  # as many requests as wanted under way, each behind an empty frame
    line.setsockopt(zmq.RCVTIMEO, 120_000)
    line.setsockopt(zmq.LINGER, 0)
    line.connect(address)
    host, port = address.removeprefix("tcp://").split(":")
    held = []
    try:
        for index in range(messages + window):
            if index < messages:
                kind, parts = message(drawn, msgpack.packb)
                line.send_multipart([b"", *parts])
                sent[kind] += 1
            if index >= window:
                reply = msgpack.unpackb(line.recv_multipart()[-1])
                replies += 1
                if not reply["ok"]:
                    refused += 1
                    reasons[reply["error"][:40]] += 1
            if memory is not None and index % -(-messages // 10) == 0:
                held.append(memory())
            if index % 10_000 == 0:
                with socket.create_connection((host, int(port)), 10) as stranger:
                    stranger.sendall(drawn.choice(GREETINGS))
    except zmq.Again:
        pass  # no reply: the count says so
    finally:
        context.destroy(linger=0)
    counted = {"sent": dict(sent), "replies": replies, "refused": refused, "reasons": dict(reasons.most_common(30))}
    return counted | {"memory": held}


def judged(options: Options) -> dict[str, Any]:
    """What came of a campaign, and whether the server plans afterwards as it did before."""
    from mpc.deploy.server import Client

    with serving() as (address, process):

        def plan() -> list[float]:
            with Client(address, loop="judge", timeout=60.0) as client:
                client.reset()
                return client.act([0.5, 0.0]).plan.ravel().tolist()

        def memory() -> int:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")

        campaign(address, min(options.messages, 1000), options.seed + 1, options.window)  # to warm up
        before, held, begun = plan(), memory(), time.perf_counter()
        report = campaign(address, options.messages, options.seed, options.window, memory)
        seconds, discount = round(time.perf_counter() - begun, 1), process.is_alive()
        after, later = (plan(), memory()) if discount else ([], held)
    same = {"discount": discount, "same_plan": after == before, "memory_growth": later - held}
    return {"seconds": seconds} | report | same


def main() -> None:
    """Serve, send, look whether it still works, write down."""
    options = tyro.cli(Options, description=__doc__)
    report = judged(options)
    header = provenance(invoked("benchmarks.fuzzing"), ("craik", "jax", "numpy", "pyzmq", "msgpack"))
    options.out.write_text(json.dumps(header | {"seed": options.seed} | report, indent=1) + "\n")
    print(json.dumps(report))
    raise SystemExit(0 if report["replies"] == options.messages and report["discount"] and report["same_plan"] else 1)


if __name__ == "__main__":
    main()
