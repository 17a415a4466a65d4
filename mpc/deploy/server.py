"""Decisions over ZeroMQ: an observation in; an action, the plan and its status out; a reply to every other message.

    request  {"craik": 1, "do": "act", "observation": floats, "loop": name}      also "reset" and "about"
    reply    {"ok": True, "action": floats, "plan": floats, "status": text, "seconds": number, "begun": whether a loop began}
             {"ok": False, "error": text}

Messages are msgpack. Floats are a list, or bytes of little-endian float32, and are sent as the latter; their shapes are in
the manifest, which "about" asks for. Every loop has a state of its own, so that several robots may ask the same server; a
request without a loop's name is of a loop of its connection.
"""

import ipaddress
import os
import threading
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpc.deploy.curve import Router, read_keys, read_public_key
from mpc.deploy.runtime import Artefact, ArtefactError
from mpc.deploy.zmtp import Replier

PROTOCOL = 1
LOOPBACK = "tcp://127.0.0.1:5577"
LARGEST = 1 << 16  # bytes of a request that is read
LOOPS = 256  # kept at most; the one unused for longest is forgotten first
OWN_LOOPS = 8  # kept of one connection, so that no stranger makes the server forget a robot's
NAME = 128  # characters of a loop's name
WAKE = 0.1  # seconds between two looks whether to close


class ServingError(RuntimeError):
    """A server that refused or did not answer, and why."""


class Answer(NamedTuple):
    """A server's decision: `action` `[...]`, `plan` `[H, ...]`, `status` as `mpc.Status` names it, `seconds` it took.

    `begun`: whether the server had no state of this loop, so that it began anew: at first, after `reset`, and where the
    server was started afresh or had forgotten it.
    """

    action: np.ndarray
    plan: np.ndarray
    status: str
    seconds: float
    begun: bool


class LoopState(NamedTuple):
    """The `state` of a control loop, and the `sender` of its last request."""

    state: list[Any]
    sender: str


def libraries() -> tuple[Any, Any]:
    """Returns ZeroMQ and msgpack.

    Raises:
        ImportError: If they are missing, with how to get them.
    """
    try:
        import msgpack
        import zmq
    except ImportError as error:
        raise ImportError(f"serving needs pyzmq and msgpack ({error}): pip install 'craik[serve]'") from error
    return zmq, msgpack


def is_local(address: str) -> bool:
    """Returns whether only processes of this machine can reach an address of ZeroMQ."""
    scheme, _, place = address.partition("://")
    host = place.rsplit(":", 1)[0].strip("[]")
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, an interface or *
        return False


class Server:
    """A server that answers until it is closed.

    Args:
        artefact: Decides; for one observation at a time.
        bind: Where to listen; on this machine alone unless told.
        keys: Folder that `mpc.deploy.curve.make_keys` wrote. An address that other machines reach needs one, and then only
            clients that have a key are answered.

    Raises:
        ImportError: If pyzmq or msgpack is missing.
        ServingError: If the artefact has a batch, the address cannot be listened at, or keys are missing.
    """

    def __init__(self, artefact: Artefact, bind: str = LOOPBACK, keys: str | os.PathLike[str] | None = None) -> None:
        if artefact.batch is not None:
            raise ServingError(f"a server takes one observation at a time; the artefact has a batch of {artefact.batch}")
        if keys is None and not is_local(bind):
            raise ServingError(
                f"other machines can reach {bind}, so that it needs keys: mpc.serving.make_keys(folder) makes some"
            )
        self._zmq, self._msgpack = libraries()
        self.artefact, self.answered, self.refused = artefact, 0, 0
        self._loops: OrderedDict[tuple[str, str], LoopState] = OrderedDict()
        self._closing = threading.Event()
        try:
            self._line, self.address = self._listening(bind, None if keys is None else Path(keys).expanduser())
        except (OSError, ValueError, OverflowError, self._zmq.ZMQError) as error:
            raise ServingError(f"cannot listen at {bind}: {error}") from error

    def _listening(self, bind: str, keys: Path | None) -> tuple[Replier | Router, str]:
        if keys is None and bind.startswith("tcp://"):
            host, _, port = bind.removeprefix("tcp://").rpartition(":")
            line = Replier(host.strip("[]"), 0 if port == "*" else int(port))
            return line, f"tcp://{host}:{line.port}"
        router = Router(self._zmq, bind, keys)
        return router, router.address

    def run(self) -> None:
        """Answers requests until `close` is called."""
        try:
            while not self._closing.is_set():
                for message in self._line.receive(WAKE):
                    message.answer(self._msgpack.packb(self.reply(message.parts, message.sender)))
        finally:
            self._line.close()

    def close(self) -> None:
        """Ends `run`, from another thread or a signal."""
        self._closing.set()

    def reply(self, parts: list[bytes], sender: str = "") -> dict[str, Any]:
        """Returns the answer to a message; never raises.

        Args:
            parts: Of the message, as they came.
            sender: Name of the connection it came from.
        """
        try:
            answer = self._answer(self._request(parts), sender)
            self.answered += 1
            return {"ok": True} | answer
        except (ServingError, ArtefactError) as error:
            problem = str(error)
        except Exception as error:  # a server that dies of a message can be killed by anyone
            problem = f"{type(error).__name__}: {error}"
        self.refused += 1
        return {"ok": False, "error": problem[:1000]}

    def _request(self, parts: list[bytes]) -> dict[str, Any]:
        size = sum(len(part) for part in parts)
        if len(parts) != 1 or size > LARGEST:
            raise ServingError(f"a request is one part of at most {LARGEST} bytes; got {len(parts)} of {size}")
        try:
            request = self._msgpack.unpackb(parts[0], strict_map_key=True)
        except Exception as error:  # msgpack raises as it pleases
            raise ServingError(f"a request must be msgpack; this is not ({type(error).__name__})") from None
        if not isinstance(request, dict) or request.get("craik") != PROTOCOL:
            raise ServingError(f'a request must be a map with "craik": {PROTOCOL}; this is of another protocol or version')
        return request

    def _answer(self, request: dict[str, Any], sender: str) -> dict[str, Any]:
        do, name = request.get("do"), request.get("loop")
        if name is not None and (not isinstance(name, str) or len(name) > NAME):
            raise ServingError(f"loop must be a name of at most {NAME} characters")
        loop = ("of the connection", sender) if name is None else ("named", name)
        if do == "about":
            return {"about": self.artefact.manifest}
        if do == "reset":
            return {"forgot": self._loops.pop(loop, None) is not None}
        if do != "act":
            raise ServingError('do must be "act", "reset" or "about"')
        seen, started = self._floats(request.get("observation")), time.perf_counter()
        begun = loop not in self._loops
        state = self.artefact.init(seen) if begun else self._loops[loop].state
        decision = self.artefact.step(seen, state)
        self._keep(loop, LoopState(decision.state, sender))
        kind = np.dtype(self.artefact.action.dtype).newbyteorder("<")
        arrays = {"action": decision.action, "plan": decision.actions}
        sent = {name: np.asarray(array, kind).tobytes() for name, array in arrays.items()}
        return sent | {"status": decision.status, "seconds": time.perf_counter() - started, "begun": begun}

    def _keep(self, name: tuple[str, str], loop: LoopState) -> None:
        """Keeps the state of a loop, and forgets others where there are too many; a connection's own ones first."""
        known = name in self._loops
        self._loops[name] = loop
        self._loops.move_to_end(name)
        if known:
            return
        own = [other for other, kept in self._loops.items() if kept.sender == loop.sender]
        if len(own) > OWN_LOOPS:
            del self._loops[own[0]]
        elif len(self._loops) > LOOPS:
            self._loops.popitem(last=False)

    def _floats(self, given: Any) -> np.ndarray:
        wanted = self.artefact.observation.shape
        if isinstance(given, bytes):
            if len(given) != 4 * int(np.prod(wanted)):
                raise ServingError(f"an observation is float32 of shape {list(wanted)}; got {len(given)} bytes")
            return np.frombuffer(given, "<f4").reshape(wanted).astype(self.artefact.observation.dtype)
        if not isinstance(given, list):
            raise ServingError(f"an observation is a list of numbers or bytes; got {type(given).__name__}")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is nothing to plan from
            return np.asarray(given, self.artefact.observation.dtype)


class Client:
    """A client that asks a server for decisions.

    Args:
        address: Of the server.
        loop: Name of this control loop, whose state the server keeps; one that no other client has unless told.
        timeout: Seconds to wait for an answer.
        keys: Folder of the keys of the client and of the server, where the server wants some.

    Raises:
        ImportError: If pyzmq or msgpack is missing.
        ServingError: If the server does not answer, or refuses; here and in every method.
        ValueError: If keys are missing.
    """

    def __init__(
        self,
        address: str = LOOPBACK,
        *,
        loop: str | None = None,
        timeout: float = 1.0,
        keys: str | os.PathLike[str] | None = None,
    ) -> None:
        self._zmq, self._msgpack = libraries()
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.REQ)
        for option in (self._zmq.REQ_RELAXED, self._zmq.REQ_CORRELATE):  # after a timeout, ask again
            self._socket.setsockopt(option, 1)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        self._socket.setsockopt(self._zmq.RCVTIMEO, round(1e3 * timeout))
        self._loop, self._address = uuid.uuid4().hex if loop is None else loop, address
        try:
            if keys is not None:
                folder = Path(keys).expanduser()
                self._socket.curve_publickey, self._socket.curve_secretkey = read_keys(folder, "client")
                self._socket.curve_serverkey = read_public_key(folder)
            self._socket.connect(address)
            self.manifest: dict[str, Any] = self._ask({"do": "about"})["about"]
        except BaseException:
            self._context.destroy()
            raise
        signal = self.manifest["action"]
        self._kind, self._shape = np.dtype(signal["dtype"]).newbyteorder("<"), tuple(signal["shape"])

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._context.destroy()

    def act(self, observation: Any) -> Answer:
        """Asks the server for one decision.

        Args:
            observation: Numbers, shaped as the manifest says.
        """
        sent = np.asarray(observation, "<f4").tobytes()
        reply = self._ask({"do": "act", "observation": sent, "loop": self._loop})
        action, plan = (np.frombuffer(reply[name], self._kind) for name in ("action", "plan"))
        plan = plan.reshape(-1, *self._shape)
        return Answer(action.reshape(self._shape), plan, *(reply[name] for name in ("status", "seconds", "begun")))

    def reset(self) -> None:
        """Makes the server forget this loop, as at the start of an episode."""
        self._ask({"do": "reset", "loop": self._loop})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._socket.send(self._msgpack.packb({"craik": PROTOCOL} | request))
        try:
            reply = self._msgpack.unpackb(self._socket.recv())
        except self._zmq.Again:
            raise ServingError(f"no answer from {self._address}") from None
        if not reply["ok"]:
            raise ServingError(f"{self._address} refused: {reply['error']}")
        return reply
