"""Bounds the connections of an HTTP server on the event loop, in number, time and bytes.

Every connection has `head_s` to send the whole head of a request, from its first byte on, and `idle_s` between
requests, in which an answer has to be read, too. Of those that are open the one that has been waited for the longest
makes room for the next beyond `most`: who is served at once, as probes and scrapers are, is never refused for the sake
of those that wait. What has been received of requests that are not answered yet is bounded over all connections.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from sampler_proxy.receive.listeners import readable_address, unix_peer
from sampler_proxy.receive.opening import PREFACE_BYTES, classify

SLICE_BYTES, MAX_HEAD_BYTES = 8192, 64 * 1024
"""What the protocol is given of a head at once, and in all: what it refuses it quotes in errors, which live on for a
while, so it shall not be much."""

HTTP2 = "http2"
"""What a connection begins with that speaks HTTP/2, such as gRPC; the other kinds are those of `opening.FOREIGN`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a server's connections. `max_bytes`: of unanswered requests together; None: not looked at."""

    head_s: float
    idle_s: float
    most: int
    max_bytes: int | None = None


class Reader(Protocol):
    """Reads a connection before the protocol that speaks HTTP does, see http_plain.py."""

    def feed(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class HttpConnections:
    """The connections of a server; a factory of protocols for `create_server`. Used on its loop only.

    `make` has to be set before the first one: it makes the protocol that speaks HTTP. `on_foreign(kind, connection)` is
    told of a connection that begins with something else, which is ended then; None: that is not looked at.
    """

    make: Callable[[], asyncio.BaseProtocol] | None = None
    reader: Callable[[asyncio.Transport, Callable[[bytes], None]], Reader] | None = None
    """Makes what reads each connection first, with the function that hands all further bytes to the protocol."""

    def __init__(self, limits: Limits, on_foreign: Callable[[str, HttpConnection], None] | None = None) -> None:
        self._limits = limits
        self._on_foreign = on_foreign
        self._open: dict[asyncio.BaseTransport, HttpConnection] = {}
        self._waiting: dict[HttpConnection, None] = {}  # for a request or its body, the longest wait first
        self._held = 0  # bytes of unanswered requests
        self._peak = 0

    def __call__(self) -> asyncio.Protocol:
        return HttpConnection(self, self._on_foreign is not None)

    def __len__(self) -> int:
        return len(self._open)

    def peak(self) -> int:
        """Return the most bytes that unanswered requests have held since this was asked last."""
        peak, self._peak = self._peak, self._held
        return peak

    def enter(self, transport: asyncio.BaseTransport | None) -> HttpConnection | None:
        """Begin to serve a request, during which its connection waits for nothing; None where that has gone."""
        connection = self._open.get(transport) if transport is not None else None
        if connection is not None:
            self._waiting.pop(connection, None)
            connection.expect(None)
            connection.serving, connection.asked = True, False
        return connection

    def leave(self, connection: HttpConnection, last: bool = False, unread: bool = False) -> None:
        """End serving a request; `last`: the connection is closed once its client has read the answer; `unread`: of its
        body there is more to come."""
        connection.serving, connection.last = False, last
        self._held -= connection.held
        connection.held = 0
        if connection.transport in self._open:
            connection.idle = True
            self._wait(connection, self._limits.idle_s)
            connection.give_head(unread)

    def reading(self, connection: HttpConnection, timeout: asyncio.Timeout | None) -> None:
        """Note that the body of a connection's request is waited for, until `timeout`; None: no longer. That timeout
        passes at once, and `crowded` is set, where all requests hold too much and this one most."""
        connection.body_timeout = timeout
        if timeout is None:
            self._waiting.pop(connection, None)
        else:
            self._waiting[connection] = None
            connection.give_body()

    def abort_all(self) -> None:
        """End every connection, whatever it waits for."""
        for connection in list(self._open.values()):
            connection.abort()

    def close_idle(self) -> None:
        """Close the connections that wait for a request of which nothing has come."""
        for connection in [each for each in self._waiting if each.idle and not each.serving]:
            connection.transport.close()

    def _add(self, connection: HttpConnection) -> None:
        self._open[connection.transport] = connection
        self._wait(connection, self._limits.head_s)
        if len(self._open) > self._limits.most:
            next(iter(self._waiting)).abort()

    def _wait(self, connection: HttpConnection, seconds: float) -> None:
        self._waiting[connection] = None
        connection.expect(seconds)

    def _head_begins(self, connection: HttpConnection) -> None:
        connection.idle = False
        connection.expect(self._limits.head_s)

    def _remove(self, connection: HttpConnection) -> None:
        self._open.pop(connection.transport, None)
        self._waiting.pop(connection, None)
        self._held -= connection.held
        connection.held = 0

    def _count(self, connection: HttpConnection, size: int) -> None:
        """Count received bytes; beyond the bound, end the request that holds most of those that can be ended."""
        if self._limits.max_bytes is None or connection.last or connection.transport not in self._open:
            return
        connection.held += size
        self._held += size
        self._peak = max(self._peak, self._held)
        if self._held > self._limits.max_bytes:
            unfinished = [each for each in self._open.values() if each.body_timeout is not None or not each.serving]
            most = max(unfinished, key=lambda each: each.held, default=None)
            if most is not None and most.held:
                most.end_crowded()
                self._held -= most.held
                most.held = 0


class HttpConnection(asyncio.Protocol):
    """Passes everything on to the protocol that speaks HTTP, and ends the connection when its time is over.

    The protocol is made when something has come that it has to read: who only connects costs little. It is given a head
    in slices, and what follows when the request is served and its body is wanted. Meanwhile the connection is not read.
    """

    transport: asyncio.Transport

    def __init__(self, connections: HttpConnections, inspected: bool) -> None:
        self._connections = connections
        self._inner: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self._reader: Reader | None = None
        self._beginning: bytes | None = b"" if inspected else None  # None: it speaks HTTP/1, as far as is known
        self._held_back, self._next = b"", 0  # what the protocol is not given yet, from there on
        self._given, self._most = 0, float(MAX_HEAD_BYTES)  # bytes of what should be a head
        self._slicing = False
        self._congested = False  # answers are not read
        self.idle = False  # since the last request was handled, nothing has come
        self.asked = False  # the protocol has a whole head, and does not serve it yet
        self.serving = False
        self.last = False  # what still comes is dropped
        self.held = 0  # bytes received of requests that have not been answered
        self.body_timeout: asyncio.Timeout | None = None
        self.crowded = False

    @property
    def peer(self) -> str:
        """The client's address, to be logged."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family == socket.AF_UNIX:
            return unix_peer(connection)
        name = self.transport.get_extra_info("peername")
        return readable_address(name) if isinstance(name, tuple) else "unknown"

    def expect(self, seconds: float | None) -> None:
        """Give the next request so many seconds to come; None: as long as it takes. A timer that would fire too early
        is left, and set anew when it does: most requests set none."""
        if seconds is None:
            self._deadline = math.inf
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        """Abort the connection if its time is over."""
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._deadline <= loop.time():
            self.abort()
        elif self._deadline < math.inf:
            self._timer = loop.call_at(self._deadline, self._look)

    def abort(self) -> None:
        """End the connection, whatever has not been read."""
        self._connections._remove(self)
        self.transport.abort()

    def end_crowded(self) -> None:
        """End the request that is being received: by its handler, where there is one already."""
        if self.body_timeout is None:
            self.abort()
        else:
            self.crowded = True
            self.body_timeout.reschedule(0)
            self.body_timeout = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections._add(self)
        if self._connections.reader is not None:
            self._reader = self._connections.reader(self.transport, self._pass_on)

    def data_received(self, data: bytes) -> None:
        if self._beginning is not None:
            data = self._beginning = self._beginning + data
            kind = classify(data[:PREFACE_BYTES])
            if kind is None and len(data) < PREFACE_BYTES:
                return  # it may become HTTP/2
            self._beginning = None
            if kind != "http1":
                assert self._connections._on_foreign is not None
                self._connections._on_foreign(kind or HTTP2, self)
                self._connections._remove(self)
                self.transport.close()
                return
        self._connections._count(self, len(data))
        if self._reader is not None:
            self.idle = False
            self._reader.feed(data)
            return
        if self.idle:
            self._connections._head_begins(self)
        self._take(data)

    def _pass_on(self, data: bytes) -> None:
        """Leave a connection that has a reader of its own to the protocol, from these bytes on."""
        self._reader = None
        if not self.transport.is_closing():  # else aiohttp would serve a request that it is told is lost
            self._connections._head_begins(self)
            self._take(data)

    def _take(self, data: bytes) -> None:
        if self.body_timeout is not None and self._inner is not None:
            self._inner.data_received(data)
            return
        self._held_back, self._next = self._rest() + data, 0
        if not self.serving and not self._slicing:
            self._give_slice()
        if self._held_back:
            self.transport.pause_reading()

    def give_head(self, unread: bool) -> None:
        """Begin to give what is held back, now that a request has been answered; `unread`: of its body there is more to
        come first."""
        self._given, self._most = 0, math.inf if unread else MAX_HEAD_BYTES
        if self._held_back and not self._slicing:
            self._slicing = True
            asyncio.get_running_loop().call_soon(self._give_slice)

    def give_body(self) -> None:
        """Give all that is held back, and what comes: it is waited for."""
        data = self._rest()
        self._held_back = b""
        if data and self._inner is not None:
            self.transport.resume_reading()
            self._inner.data_received(data)  # may pause it again

    def _give_slice(self) -> None:
        """Give the protocol a part of one head, at most, and go on later, if that was not all of it."""
        self._slicing = False
        if self.transport.is_closing():
            self._held_back = b""
        if self.serving or self.asked or not self._held_back:
            return
        end = self._held_back.find(b"\r\n\r\n", self._next, self._next + SLICE_BYTES)
        size = SLICE_BYTES if end < 0 else end + 4 - self._next
        part = self._held_back[self._next : self._next + size]
        self._next += len(part)
        self._given += len(part)
        self.asked = end >= 0 and self._most < math.inf
        if self._next == len(self._held_back):
            self._held_back = b""
            self.transport.resume_reading()
        self._protocol().data_received(part)
        if self._held_back and not self.asked and self._given < self._most:
            self._slicing = True
            asyncio.get_running_loop().call_soon(self._give_slice)

    def _rest(self) -> bytes:
        """Return what is held back. Copies it only where a part has been given."""
        return self._held_back[self._next :] if self._held_back else b""

    def _protocol(self) -> asyncio.Protocol:
        if self._inner is None:
            assert self._connections.make is not None
            self._inner = cast(asyncio.Protocol, self._connections.make())
            self._inner.connection_made(self.transport)
            if self._congested:
                self._inner.pause_writing()
        return self._inner

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline = math.inf
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None:
            self._reader.close()
        self._connections._remove(self)
        self._held_back = b""
        if self._inner is not None:
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._congested = True
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._congested = False
        if self._inner is not None:
            self._inner.resume_writing()
