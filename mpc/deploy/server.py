"""Decisions over ZeroMQ: an observation in; an action, the plan and its status out; a reply to every other message.

    request  {"craik": 1, "do": "act", "observation": floats, "loop": name}      also "reset" and "about"
    reply    {"ok": True, "action": floats, "plan": floats, "status": text, "seconds": number}
             {"ok": False, "error": text}

Messages are msgpack. Floats are a list, or bytes of little-endian float32, and are sent as the latter; their shapes are in
the manifest, which "about" asks for. Every loop has a state of its own, so that several robots may ask the same server.
"""

import threading
import time
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from mpc.deploy.runtime import Artefact, ArtefactError

PROTOCOL = 1
LOOPBACK = "tcp://127.0.0.1:5577"
LARGEST = 1 << 16  # bytes of a request that is read
UNREADABLE = 1 << 24  # bytes at which ZeroMQ hangs up, before they fill the memory
LOOPS = 64  # kept at most; the one unused for longest is forgotten first
NAME = 128  # characters of a loop's name
WAKE = 0.1  # seconds between two looks whether to close


class ServingError(RuntimeError):
    """A server that refused or did not answer, and why."""


class Answer(NamedTuple):
    """A server's decision: `action` `[...]`, `plan` `[H, ...]`, `status` as `mpc.Status` names it, `seconds` it took."""

    action: np.ndarray
    plan: np.ndarray
    status: str
    seconds: float


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


class Server:
    """A server that answers until it is closed.

    Args:
        artefact: Decides; for one observation at a time.
        bind: Where to listen; on this machine alone unless told.

    Raises:
        ImportError: If pyzmq or msgpack is missing.
        ServingError: If the artefact has a batch, or the address cannot be listened at.
    """

    def __init__(self, artefact: Artefact, bind: str = LOOPBACK):
        if artefact.batch is not None:
            raise ServingError(f"a server takes one observation at a time; the artefact has a batch of {artefact.batch}")
        self._zmq, self._msgpack = libraries()
        self.artefact, self.answered, self.refused = artefact, 0, 0
        self._loops: OrderedDict[str, list[Any]] = OrderedDict()
        self._closing = threading.Event()
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.REP)
        self._socket.setsockopt(self._zmq.MAXMSGSIZE, UNREADABLE)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        self._socket.setsockopt(self._zmq.RCVTIMEO, round(1e3 * WAKE))
        try:
            self._socket.bind(bind)
        except self._zmq.ZMQError as error:
            self._context.destroy()
            raise ServingError(f"cannot listen at {bind}: {error}") from error
        self.address = self._socket.getsockopt_string(self._zmq.LAST_ENDPOINT)

    def run(self) -> None:
        """Answers requests until `close` is called."""
        try:
            while not self._closing.is_set():
                try:
                    parts = self._socket.recv_multipart()
                except self._zmq.Again:  # nobody asked
                    continue
                self._socket.send(self._msgpack.packb(self.reply(parts)))
        finally:
            self._context.destroy()

    def close(self) -> None:
        """Ends `run`, from another thread or a signal."""
        self._closing.set()

    def reply(self, parts: list[bytes]) -> dict[str, Any]:
        """Returns the answer to a message; never raises.

        Args:
            parts: Of the message, as they came.
        """
        try:
            answer = self._answer(self._request(parts))
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

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do, loop = request.get("do"), request.get("loop", "")
        if not isinstance(loop, str) or len(loop) > NAME:
            raise ServingError(f"loop must be a name of at most {NAME} characters")
        if do == "about":
            return {"about": self.artefact.manifest}
        if do == "reset":
            return {"forgot": self._loops.pop(loop, None) is not None}
        if do != "act":
            raise ServingError('do must be "act", "reset" or "about"')
        seen, begun = self._floats(request.get("observation")), time.perf_counter()
        state = self._loops.pop(loop) if loop in self._loops else self.artefact.init(seen)
        decision = self.artefact.step(seen, state)
        self._loops[loop] = decision.state
        if len(self._loops) > LOOPS:
            self._loops.popitem(last=False)
        kind = np.dtype(self.artefact.action.dtype).newbyteorder("<")
        arrays = {"action": decision.action, "plan": decision.actions}
        sent = {name: np.asarray(array, kind).tobytes() for name, array in arrays.items()}
        return sent | {"status": decision.status, "seconds": time.perf_counter() - begun}

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
        loop: Name of this control loop, whose state the server keeps.
        timeout: Seconds to wait for an answer.

    Raises:
        ImportError: If pyzmq or msgpack is missing.
        ServingError: If the server does not answer, or refuses; here and in every method.
    """

    def __init__(self, address: str = LOOPBACK, *, loop: str = "", timeout: float = 1.0):
        self._zmq, self._msgpack = libraries()
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.REQ)
        for option in (self._zmq.REQ_RELAXED, self._zmq.REQ_CORRELATE):  # after a timeout, ask again
            self._socket.setsockopt(option, 1)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        self._socket.setsockopt(self._zmq.RCVTIMEO, round(1e3 * timeout))
        self._socket.connect(address)
        self._loop, self._address = loop, address
        try:
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
        return Answer(action.reshape(self._shape), plan.reshape(-1, *self._shape), reply["status"], reply["seconds"])

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
