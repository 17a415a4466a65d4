"""Overhead of the planning server: round trips over the loopback interface minus planning time.

`python -m benchmarks.serving` serves the cart of `benchmarks.faults` from a separate process and writes
`benchmarks/results/serving.json`.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.closed_loop import marks
from benchmarks.provenance import invoked, provenance


@dataclass
class Options:
    """Options of the benchmark."""

    requests: int = 5000
    """Number of timed round trips."""
    hertz: float = 200.0
    """Requests per second, as in a control loop; without pauses, the scheduler would interrupt the client."""
    core: int | None = None
    """Core for server and client; waking an idle core takes longer than the whole request on one core."""
    out: Path = Path(__file__).parent / "results" / "serving.json"
    """File of the results."""


@contextmanager
def serving() -> Iterator[tuple[str, Any]]:
    """Context manager that runs a server in a separate process and yields its address and the process."""
    spawn = multiprocessing.get_context("spawn")
    addresses = spawn.Queue()
    process = spawn.Process(target=_serve, args=(addresses,), daemon=True)
    process.start()
    try:
        yield addresses.get(timeout=300), process
    finally:
        process.terminate()
        process.join()


def _serve(addresses: Any) -> None:
    """Serves the cart of `benchmarks.faults` and sends its address to the queue."""
    from benchmarks.faults import cart
    from mpc.deploy.server import Server

    server = Server(cart(), "tcp://127.0.0.1:*")
    addresses.put(server.address)
    server.run()


def main() -> None:
    """Times requests and writes results."""
    from mpc.deploy.server import Client

    options = tyro.cli(Options, description=__doc__)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    trips, plans = np.zeros(options.requests), np.zeros(options.requests)
    with serving() as (address, _), Client(address, timeout=10.0) as client:
        for _ in range(100):
            client.act([0.5, 0.0])
        for index in range(options.requests):
            begun = time.perf_counter()
            answer = client.act([0.5, 0.0])
            trips[index], plans[index] = time.perf_counter() - begun, answer.seconds
            time.sleep(max(0.0, 1 / options.hertz - trips[index]))
    report = provenance(invoked("benchmarks.serving"), ("craik", "jax", "numpy", "pyzmq", "msgpack")) | {
        "load_average": os.getloadavg()[0],
        "requests": options.requests,
        "hertz": options.hertz,
        "core": options.core,
        "milliseconds": {"round_trip": marks(trips), "plan": marks(plans), "beside_the_plan": marks(trips - plans)},
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["milliseconds"]))


if __name__ == "__main__":
    main()
