"""Fuzzing of `craik serve` with a million invalid messages: each must get a reply, and the server must survive.

`python -m benchmarks.fuzzing` serves the cart of `benchmarks.faults` from a separate process and sends it noise, damaged
requests, other protocols and oversized messages. It writes `benchmarks/results/fuzzing.json`. It exits with 1 if a message
got no reply, if a valid request gets another answer than before, or if the server died.
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
"""First bytes of other protocols; the server closes these connections, because ZeroMQ cannot reply to them."""


@dataclass
class Options:
    """Options of the benchmark."""

    messages: int = 1_000_000
    """Number of ZeroMQ messages; one connection with another protocol is added per 10,000."""
    seed: int = 0
    """Seed of the messages."""
    window: int = 64
    """Number of pending messages."""
    out: Path = Path(__file__).parent / "results" / "fuzzing.json"
    """File of the results."""


def message(rng: random.Random, pack: Any) -> tuple[str, list[bytes]]:
    """Returns the kind and the parts of a random message.

    Args:
        rng: Random number generator.
        pack: `msgpack.packb`.
    """
    good = pack(GOOD)
    match kind := rng.choices(KINDS, WEIGHTS)[0]:
        case "noise":
            return kind, [rng.randbytes(rng.randrange(200))]
        case "damaged":
            damaged = bytearray(good)
            for _ in range(rng.randrange(1, 5)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            return kind, [bytes(damaged)]
        case "cut off":
            return kind, [good[: rng.randrange(len(good))]]
        case "foreign":
            return kind, [pack(anything(rng, 4))]
        case "wrong":
            return kind, [pack(GOOD | {rng.choice(["craik", "do", "observation", "loop"]): anything(rng, 3)})]
        case "nested":
            return kind, [rng.choice([b"\x91", b"\x81\xa1a", b"\xdf\xff\xff\xff\xff"]) * rng.randrange(1, 5000)]
        case "parts":
            return kind, [good] * rng.randrange(2, 20)
    return kind, [good + bytes(rng.randrange(1 << 16, 1 << 18))]


def anything(rng: random.Random, depth: int) -> Any:
    """Returns a random value that msgpack can represent."""
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
    if depth == 0 or rng.random() < 0.4:
        return rng.choice([*leaves, rng.random(), rng.randrange(2**32)])
    size = rng.randrange(4)
    if rng.random() < 0.5:
        return [anything(rng, depth - 1) for _ in range(size)]
    return {rng.choice(["craik", "do", "observation", "loop", "x"]): anything(rng, depth - 1) for _ in range(size)}


def campaign(address: str, messages: int, seed: int, window: int, memory: Callable[[], int] | None = None) -> dict[str, Any]:
    """Sends messages and counts the replies.

    Args:
        address: Address of the server.
        messages: Number of messages.
        seed: Seed of the messages.
        window: Number of pending messages.
        memory: Function that returns the server's memory in bytes; called after every tenth of the messages.

    Returns:
        Sent messages by kind, replies, refusals, error messages by their beginning, and memory.
    """
    from mpc.deploy.server import libraries

    zmq, msgpack = libraries()
    rng, sent, refused, reasons, replies = random.Random(seed), Counter(), 0, Counter(), 0
    context = zmq.Context()
    line = context.socket(zmq.DEALER)  # allows several pending requests, each after an empty frame
    line.setsockopt(zmq.RCVTIMEO, 120_000)
    line.setsockopt(zmq.LINGER, 0)
    line.connect(address)
    host, port = address.removeprefix("tcp://").split(":")
    held = []
    try:
        for index in range(messages + window):
            if index < messages:
                kind, parts = message(rng, msgpack.packb)
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
                    stranger.sendall(rng.choice(GREETINGS))
    except zmq.Again:
        pass  # a missing reply shows in the count
    finally:
        context.destroy(linger=0)
    counted = {"sent": dict(sent), "replies": replies, "refused": refused, "reasons": dict(reasons.most_common(30))}
    return counted | {"memory": held}


def evaluate(options: Options) -> dict[str, Any]:
    """Runs a campaign and checks that the server returns the same plan before and after it."""
    from mpc.deploy.server import Client

    with serving() as (address, process):

        def plan() -> list[float]:
            with Client(address, loop="judge", timeout=60.0) as client:
                client.reset()
                return client.act([0.5, 0.0]).plan.ravel().tolist()

        def memory() -> int:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")

        campaign(address, min(options.messages, 1000), options.seed + 1, options.window)  # warm-up
        before, held, begun = plan(), memory(), time.perf_counter()
        report = campaign(address, options.messages, options.seed, options.window, memory)
        seconds, alive = round(time.perf_counter() - begun, 1), process.is_alive()
        after, later = (plan(), memory()) if alive else ([], held)
    same = {"alive": alive, "same_plan": after == before, "memory_growth": later - held}
    return {"seconds": seconds} | report | same


def main() -> None:
    """Runs the benchmark and writes results."""
    options = tyro.cli(Options, description=__doc__)
    report = evaluate(options)
    header = provenance(invoked("benchmarks.fuzzing"), ("craik", "jax", "numpy", "pyzmq", "msgpack"))
    options.out.write_text(json.dumps(header | {"seed": options.seed} | report, indent=1) + "\n")
    print(json.dumps(report))
    raise SystemExit(0 if report["replies"] == options.messages and report["alive"] and report["same_plan"] else 1)


if __name__ == "__main__":
    main()
