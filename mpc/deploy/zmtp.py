"""ZeroMQ's wire protocol, ZMTP 3.0 (https://rfc.zeromq.org/spec/23/), for replies to clients on the same machine.

libzmq keeps the parts of an unfinished message without a limit. Here a message has at most `PARTS` parts and `MOST` bytes. A
connection that breaks this, or the protocol, or that never finishes what it began, is closed. So is the one unused for
longest where there are more than `CONNECTIONS`; those that never asked anything go first.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

PARTS = 32  # of one message
MOST = 1 << 19  # bytes of one message, and of what is read ahead of it
CONNECTIONS = 64
PATIENCE = 10.0  # seconds for a handshake or a message, from its first byte
MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame
SOCKET_TYPES = (b"REQ", b"DEALER")


class ProtocolError(ValueError):
    """A peer that breaks the protocol or its limits, and how."""


def frame(body: bytes, flags: int = 0) -> bytes:
    """Returns a frame as it is sent."""
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | LONG,)) + len(body).to_bytes(8, "big") + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
NULL = b"NULL".ljust(20, b"\0")
GREETING = SIGNATURE + b"\x03\x00" + NULL + bytes(32)
READY = frame(b"\x05READY" + _property(b"Socket-Type", b"REP") + _property(b"Identity", b""), COMMAND)


class Message(NamedTuple):
    """A message: `sender`, which tells connections apart, its `parts`, and `answer(body)`, to be called once."""

    sender: str
    parts: list[bytes]
    answer: Callable[[bytes], None]


def opened(message: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Returns the envelope of a message, which goes back as it came, and its parts."""
    end = message.index(b"") + 1
    return message[:end], message[end:]


class Peer:
    """One connection: bytes in, messages out.

    Args:
        number: Of the connection, which no other has.
        now: Seconds.
    """

    def __init__(self, number: int, now: float) -> None:
        self.number, self.used, self.asked = number, now, False
        self.incoming, self.outgoing = bytearray(), bytearray(GREETING)
        self.began: float | None = now
        """Time of the first byte of what is not finished, None where nothing is."""
        self._parts: list[bytes] = []
        self._size, self._greeted, self._ready = 0, False, False

    def feed(self, data: bytes, now: float) -> None:
        """Takes bytes that arrived."""
        self.incoming += data
        self.began = now if self.began is None else self.began

    def message(self, now: float) -> list[bytes] | None:
        """Returns the parts of the next whole message, or None where there is none yet.

        Raises:
            ProtocolError: If there will be none.
        """
        if not self._greeted and not self._greet():
            return None
        while (found := self._frame()) is not None:
            flags, body = found
            if flags & COMMAND:
                self._command(body)
            elif not self._ready:
                raise ProtocolError("a message before the handshake")
            else:
                self._parts.append(body)
                self._size += len(body)
                if len(self._parts) > PARTS or self._size > MOST:
                    raise ProtocolError(f"a message of more than {PARTS} parts or {MOST} bytes")
                if not flags & MORE:
                    message, self._parts, self._size = self._parts, [], 0
                    self.used, self.asked, self.began = now, True, now if self.incoming else None
                    return message
        if self._ready and not self.incoming and not self._parts:
            self.began = None
        return None

    def _greet(self) -> bool:
        start = bytes(self.incoming[:10])
        if start[:1] != SIGNATURE[: len(start[:1])] or (len(start) == 10 and start[9:] != SIGNATURE[9:]):
            raise ProtocolError("another protocol")
        if len(self.incoming) < len(GREETING):
            return False
        if self.incoming[10] < 3 or self.incoming[12:32] != NULL:
            raise ProtocolError("an older protocol, or another mechanism")
        del self.incoming[: len(GREETING)]
        self._greeted = True
        return True

    def _frame(self) -> tuple[int, bytes] | None:
        if len(self.incoming) < 2:
            return None
        flags = self.incoming[0]
        head = 9 if flags & LONG else 2
        size = int.from_bytes(self.incoming[1:head], "big")
        if flags > 7 or (size > MOST - 16 and len(self.incoming) >= head):
            raise ProtocolError("a frame that is none, or too large")
        if len(self.incoming) < head + size:
            return None
        body = bytes(self.incoming[head : head + size])
        del self.incoming[: head + size]
        return flags, body

    def _command(self, body: bytes) -> None:
        if self._ready:
            return  # of later versions, which nobody needs here
        if not body.startswith(b"\x05READY") or not any(_property(b"Socket-Type", kind) in body for kind in SOCKET_TYPES):
            raise ProtocolError("no handshake of a socket that asks")
        self._ready = True
        self.outgoing += READY


class Replier:
    """A socket that listens, and answers one message of each connection after the other.

    Args:
        host: To listen at.
        port: Of TCP; 0 for any.

    Raises:
        OSError: If nobody can listen there.
    """

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[Any, Peer] = {}
        self._waiting: dict[Any, None] = {}  # connections that may have a message, in the order in which they came
        self._number, self._swept = 0, time.monotonic()

    def receive(self, timeout: float) -> Iterator[Message]:
        """Waits for messages, and yields one of each connection that has one.

        Args:
            timeout: Seconds to wait at most.
        """
        for key, events in self._selector.select(0.0 if self._waiting else timeout):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj in self._peers:
                self._exchange(key.fileobj, events)
        now = time.monotonic()
        if now - self._swept > 1.0:
            self._swept = now
            for connection, peer in list(self._peers.items()):
                late = peer.began is not None and now - peer.began > PATIENCE
                if late and connection not in self._waiting:
                    self.drop(connection)
        for connection in list(self._waiting):
            peer = self._peers.get(connection)
            if peer is None:  # gone while another one was answered
                continue
            if peer.outgoing:  # whoever does not read answers is asked nothing further
                del self._waiting[connection]
                continue
            try:
                message = peer.message(now)
            except ProtocolError:
                self.drop(connection)
                continue
            if message is None:
                del self._waiting[connection]
                self._flush(connection, peer)  # the handshake
            elif b"" in message:  # or else there is no envelope, and nowhere to answer to
                envelope, parts = opened(message)
                yield Message(str(peer.number), parts, partial(self._answer, connection, peer, envelope))

    def _answer(self, connection: Any, peer: Peer, envelope: list[bytes], body: bytes) -> None:
        peer.outgoing += b"".join(frame(part, MORE) for part in envelope) + frame(body)
        self._flush(connection, peer)

    def close(self) -> None:
        """Closes everything."""
        for connection in list(self._peers):
            self.drop(connection)
        self._selector.close()
        self._listener.close()

    def drop(self, connection: Any) -> None:
        """Closes a connection."""
        del self._peers[connection]
        self._waiting.pop(connection, None)
        self._selector.unregister(connection)
        connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptor is left
            return
        if len(self._peers) >= CONNECTIONS:
            self.drop(min(self._peers, key=lambda c: (self._peers[c].asked, self._peers[c].used)))
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number += 1
        self._peers[connection] = peer = Peer(self._number, time.monotonic())
        self._selector.register(connection, selectors.EVENT_READ)
        self._flush(connection, peer)

    def _exchange(self, connection: Any, events: int) -> None:
        peer = self._peers[connection]
        if events & selectors.EVENT_READ and len(peer.incoming) <= MOST:  # or else there is a whole message, or none to come
            try:
                data = connection.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.drop(connection)
                return
            peer.feed(data, time.monotonic())
        self._waiting[connection] = None
        self._flush(connection, peer)

    def _flush(self, connection: Any, peer: Peer) -> None:
        """Sends what can be sent; until all of it is, nothing is read."""
        if connection not in self._peers:
            return
        try:
            while peer.outgoing:
                del peer.outgoing[: connection.send(peer.outgoing)]
        except BlockingIOError:
            peer.began = time.monotonic() if peer.began is None else peer.began
        except OSError:
            self.drop(connection)
            return
        wanted = selectors.EVENT_WRITE if peer.outgoing else selectors.EVENT_READ
        if self._selector.get_key(connection).events != wanted:
            self._selector.modify(connection, wanted)
