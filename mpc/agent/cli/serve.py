"""`craik serve`: an artefact answers observations with actions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mpc.agent.cli.options import Common, say
from mpc.deploy import runtime
from mpc.deploy.curve import make_keys
from mpc.deploy.server import LOOPBACK, Server, ServingError


@dataclass
class Serve(Common):
    """Answer observations with actions, over ZeroMQ, until Ctrl-C.

    Example: craik serve pendulum.craik --bind tcp://127.0.0.1:5577
    """

    artefact: tyro.conf.Positional[Path] = Path("planner.craik")
    """File that `craik export` wrote."""
    bind: str = LOOPBACK
    """Address to listen at. One that other machines can reach needs --keys."""
    keys: Path | None = None
    """Folder of keys, made if missing; clients then need its server.key and client.key_secret."""
    sha256: str | None = None
    """Of the artefact, where it is known from elsewhere."""


def serve(options: Serve) -> dict[str, Any]:
    """Load, listen, answer, and return the report."""
    tell = say(options)
    artefact = runtime.load(options.artefact, sha256=options.sha256)
    try:
        if options.keys is not None and not options.keys.exists():
            make_keys(options.keys)
            tell(f"clients need server.key and client.key_secret of {options.keys}")
        server = Server(artefact, options.bind, options.keys)
    except ServingError as error:
        raise ValueError(str(error)) from error
    tell(f"{options.artefact} answers at {server.address}")
    try:
        server.run()
    except KeyboardInterrupt:
        tell("")
    tell(f"answered {server.answered} requests, refused {server.refused}")
    return {"address": server.address, "answered": server.answered, "refused": server.refused}
