"""ZeroMQ with keys (CURVE, https://rfc.zeromq.org/spec/26/), for servers that other machines can reach.

A folder of keys has `server.key` and `server.key_secret`, `client.key_secret`, and in `clients` the public keys of all
clients that are let in. A client on another machine needs `server.key` and `client.key_secret`.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mpc.deploy.zmtp import MOST, PATIENCE, Message, opened


def make_keys(folder: str | os.PathLike[str]) -> Path:
    """Writes the keys of a server and of one client into a new folder that is closed to all others.

    Raises:
        FileExistsError: If the folder exists.
    """
    import zmq.auth

    made = Path(folder).expanduser()
    made.mkdir(mode=0o700, parents=True)
    (made / "clients").mkdir(mode=0o700)
    for name in ("server", "client"):
        zmq.auth.create_certificates(made, name)
        (made / f"{name}.key_secret").chmod(0o600)
    (made / "client.key").rename(made / "clients" / "client.key")
    return made


def read_keys(folder: Path, name: str) -> tuple[bytes, bytes]:
    """Returns the public and the secret key of "server" or "client".

    Raises:
        ValueError: If they are missing, or a key file is none.
    """
    import zmq.auth

    try:
        public, secret = zmq.auth.load_certificate(folder / f"{name}.key_secret")
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no keys of a {name}: {error}") from error
    if secret is None:
        raise ValueError(f"{folder / name}.key_secret has no secret key")
    return public, secret


def read_public_key(folder: Path) -> bytes:
    """Returns the public key of the server.

    Raises:
        ValueError: If it is missing.
    """
    import zmq.auth

    try:
        return zmq.auth.load_certificate(folder / "server.key")[0]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no public key of a server: {error}") from error


class Router:
    """A socket of libzmq that listens; with keys, only to clients whose public keys are known.

    Args:
        zmq: The library.
        bind: Where to listen.
        keys: Folder of keys; None for an address that other machines cannot reach.

    Raises:
        ValueError: If keys are missing.
        zmq.ZMQError: If nobody can listen there.
    """

    def __init__(self, zmq: Any, bind: str, keys: Path | None) -> None:
        self._zmq, self._guard = zmq, None
        self._context = zmq.Context()
        try:
            self._socket = self._context.socket(zmq.ROUTER)
            options = {zmq.MAXMSGSIZE: MOST, zmq.LINGER: 0, zmq.HANDSHAKE_IVL: round(1e3 * PATIENCE)}
            for option, value in options.items():
                self._socket.setsockopt(option, value)
            if keys is not None:
                self._require_keys(keys)
            self._socket.bind(bind)
        except BaseException:
            self.close()
            raise
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _require_keys(self, keys: Path) -> None:
        from zmq.auth.thread import ThreadAuthenticator

        self._socket.curve_publickey, self._socket.curve_secretkey = read_keys(keys, "server")
        self._socket.curve_server = True
        self._guard = ThreadAuthenticator(self._context)
        self._guard.start()
        self._guard.configure_curve(domain="*", location=keys / "clients")

    def receive(self, timeout: float) -> Iterator[Message]:
        """Waits for a message, and yields it if one came.

        Args:
            timeout: Seconds to wait at most.
        """
        if not self._socket.poll(round(1e3 * timeout)):
            return
        sender, *message = self._socket.recv_multipart()
        if b"" in message:
            envelope, parts = opened(message)
            yield Message(sender.hex(), parts, partial(self._answer, [sender, *envelope]))

    def _answer(self, envelope: list[bytes], body: bytes) -> None:
        self._socket.send_multipart([*envelope, body])

    def close(self) -> None:
        """Closes everything."""
        if self._guard is not None:
            self._guard.stop()
        self._context.destroy(linger=0)
