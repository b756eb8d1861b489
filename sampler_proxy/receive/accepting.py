"""Accepts the connections of a gRPC port, and gives each to who can answer it.

opening.py reads how a connection begins. Then

    HTTP/2 goes to gRPC core, with what has been read;
    unix sockets, calls in a compression that core does not know and this proxy inflates, and what does not call yet go
    there by a relay (relay.py);
    calls in a compression that nobody knows here are refused, each as gRPC's specification asks (unreadable.py);
    HTTP/1.1 is answered 400, with what to set at the sender; TLS and whatever else is not HTTP/2 is closed.

What does not go to core is counted, and logged once a minute with its peer's address. A connection that is closed
before its first byte was a probe, and no line.

One thread does this for all connections of a port. It bounds them by number, bytes and time.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from sampler_proxy.receive import client_hello, connections
from sampler_proxy.receive.client_hello import PLAINTEXT, TOO_OLD, TlsOpening, bad_request
from sampler_proxy.receive.listeners import readable_address, unix_peer
from sampler_proxy.receive.opening import COMPRESSION, CORE, FOREIGN, LATER, RECODING, SETTINGS, UNACKNOWLEDGED, Opening
from sampler_proxy.receive.recoding import Recoder
from sampler_proxy.receive.relay import Relay
from sampler_proxy.receive.throttle import Throttle
from sampler_proxy.receive.unreadable import UnreadableCalls

KINDS = (*FOREIGN, *client_hello.KINDS, "silent", UNACKNOWLEDGED, *connections.KINDS)
"""Why a connection is refused: what it begins with, that it does not begin, that it never answers, or what it goes on
doing once core has it."""

SILENT_S = 20.0
"""How long a connection may take to begin: to its client's acknowledgement of our SETTINGS."""

INSPECT_S = 0.25
"""How long a connection's first call is waited for from then on. Clients connect when they have something to send."""

LINGER_S = 2.0
"""How long a last answer may take to arrive. What its receiver still sends is read and dropped meanwhile: a connection
that is closed over unread bytes is reset, and a reset overtakes the answer."""

UNREADABLE_S = 60.0
"""How long a connection whose calls are refused here may be idle."""

MAX_UNREADABLE = 64
"""Connections whose calls are refused here; of more, the oldest is ended. Each may hold a megabyte of headers."""

MAX_HERE = 8192
"""Connections that core has not been given. At that many, one that has been here for CROWDED_S makes room, and where
there is none, the rest waits in the system's queue."""

CROWDED_S = 2.0

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""What all of them may have sent; beyond it the one that has sent most is closed."""

BACKLOG = 4096
"""Connections that the system may hold for us; it cuts this to a bound of its own (net.core.somaxconn)."""

MAX_FAILURES = 100
"""Rounds that fail one after the other, a pause apart, before the thread gives up."""

_PAUSE_S = 0.1
"""How long nothing is accepted once there is no descriptor or no memory for a connection."""

_TICK_S = 0.1
"""How often deadlines are looked at, while there are any."""

_READ_BYTES = 8192
"""What is read of a connection at once: enough for a first call's headers. The rest is left for core."""

_TEXT = (
    b"This port takes OTLP over gRPC (HTTP/2 without TLS). At the sender, set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or the "
    b"port for OTLP over HTTP in OTEL_EXPORTER_OTLP_ENDPOINT.\n"
)
_DROPPED = "dropped"
_WARNINGS = {
    "http1": "grpc: a sender speaks HTTP/1.1 to this port; at the sender, set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or the "
    "port of receive.http in OTEL_EXPORTER_OTLP_ENDPOINT",
    "tls": "grpc: a sender speaks TLS to this port, which takes plaintext; at the sender, write http:// in "
    "OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_EXPORTER_OTLP_INSECURE=true",
    "proxy_protocol": "grpc: a load balancer speaks the PROXY protocol to this port; switch it off for this port",
    "other": "grpc: a connection began with something that is not HTTP/2; was another port meant?",
    "silent": "grpc: a connection was closed since nothing, or no whole preface of HTTP/2, came",
    UNACKNOWLEDGED: "grpc: a connection was closed since its client does not acknowledge the SETTINGS of HTTP/2",
    COMPRESSION: "grpc: a sender compresses in a way that is not read here; at the sender, set the compression to gzip",
    PLAINTEXT: "grpc: a sender speaks plaintext to this port, which takes TLS; at the sender, write https:// in "
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    TOO_OLD: "grpc: a sender speaks no version of TLS that is taken here (receive.grpc.tls.min_version)",
    _DROPPED: "grpc: a connection was dropped",
}

log = structlog.get_logger()


class _Connection:
    """A connection that core has not been given."""

    def __init__(
        self, listener: socket.socket, sock: socket.socket, address: Any, now: float, opening: Opening | TlsOpening
    ) -> None:
        self.listener = listener
        self.socket = sock
        self._address = address
        self.since = now  # monotonic seconds, as is the deadline
        self.deadline = now + SILENT_S
        self.opening = opening
        self.size = 0  # bytes received
        self.unreadable: UnreadableCalls | None = None
        self.lingers = False

    @property
    def peer(self) -> str:
        """The client's address, to be logged; of a unix socket its process."""
        return unix_peer(self.socket) if self.is_unix else readable_address(self._address)

    @property
    def is_unix(self) -> bool:
        return self.socket.family == socket.AF_UNIX


class Acceptor:
    """The accepting thread of one port."""

    def __init__(
        self,
        listeners: list[socket.socket],
        hand_over: Callable[[socket.socket, socket.socket, bytes], None],
        relay: Relay,
        on_refused: Callable[[str], None],
        on_connection_refused: Callable[[str], None],
        new_opening: Callable[[], Opening | TlsOpening] = Opening,
    ) -> None:
        """Make it; it owns `listeners` from then on.

        `hand_over(listener, connection, received)` takes over a connection that speaks HTTP/2, or `relay` does.
        `on_refused(reason)` counts a call that is refused here: "unknown_compression", or "compression" where it names
        none. `on_connection_refused(kind)` counts a connection, see KINDS. `new_opening` makes what reads the beginning
        of a connection. All are called on the accepting thread.
        """
        self._listeners = listeners
        self._hand_over = hand_over
        self.relay = relay
        self._on_refused = on_refused
        self._on_connection_refused = on_connection_refused
        self._new_opening = new_opening
        self._throttles = {kind: Throttle() for kind in _WARNINGS}
        self._here: dict[_Connection, None] = {}  # oldest first
        self._unreadable: dict[_Connection, None] = {}  # those of them whose calls are refused here
        self._bytes = 0  # their sizes
        self._paused_until: float | None = None  # monotonic seconds; None: connections are accepted
        self._next_check = 0.0
        self._selector = selectors.DefaultSelector()
        self._closing, self._wake = socket.socketpair()
        self._close_once = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="grpc-accept", daemon=True)

    @property
    def alive(self) -> bool:
        """Tell whether connections are accepted: from `start` to `close`."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to accept."""
        self._selector.register(self._closing, selectors.EVENT_READ)
        self._resume()
        self._thread.start()

    def close(self) -> None:
        """Close the port, and every connection that core has not been given. Once this returns, core is given none any
        more. Blocks for a round of the thread; may be called again."""
        with self._close_once:
            self._wake.close()
            if self._thread.ident is not None:
                self._thread.join()
            for each in (*self._listeners, *(connection.socket for connection in self._here), self._closing):
                each.close()
            self._selector.close()

    def _serve(self) -> None:
        """Take rounds until `close`. Where they go on failing, close the port, so that senders turn to others; `alive`
        then says that this thread has ended."""
        failures = 0
        while True:
            try:
                if self._round():
                    return
                failures = 0
            except Exception as error:  # for want of memory, most likely: what is here goes on in the next round
                failures += 1
                if failures == MAX_FAILURES:
                    for listener in self._listeners:
                        listener.close()
                    with suppress(Exception):
                        log.error("grpc: the accepting thread cannot go on, and ends", error=type(error).__name__)
                    return
                time.sleep(_PAUSE_S)

    def _round(self) -> bool:
        """Do what there is to do, waiting for it; return whether it is time to end."""
        waits = self._here or self._paused_until is not None
        for key, _ in self._selector.select(_TICK_S if waits else None):
            if key.fileobj is self._closing:
                return True
            if isinstance(key.data, socket.socket):
                self._accept(key.data)
            elif key.data in self._here:
                self._guard(self._read, key.data)
        if waits and (now := time.monotonic()) >= self._next_check:
            self._next_check = now + _TICK_S
            self._check_deadlines(now)
        return False

    def _guard(self, step: Callable[[_Connection], None], connection: _Connection) -> None:
        """Take a step; where that fails, drop the connection: it must not harm others."""
        try:
            step(connection)
        except Exception as error:
            self._drop(connection)
            if not isinstance(error, OSError):  # the client has gone
                self._warn(_DROPPED, connection, error=type(error).__name__)

    def _accept(self, listener: socket.socket) -> None:
        now = time.monotonic()
        if len(self._here) >= MAX_HERE:
            oldest = next(iter(self._here))
            if now - oldest.since < CROWDED_S:
                self._pause(now)
                return
            self._guard(self._end_waiting, oldest)
        try:
            sock, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it has gone again
        except (OSError, MemoryError):  # no descriptor, most likely: `DescriptorWatch` speaks of that
            self._pause(now)
            return
        try:
            connection = _Connection(listener, sock, address, now, self._new_opening())
            self._here[connection] = None
        except BaseException:
            sock.close()
            raise
        self._guard(self._begin, connection)

    def _begin(self, connection: _Connection) -> None:
        connection.socket.setblocking(False)
        if not connection.is_unix:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Core may close a descriptor twice, that of a client which goes while it takes it over: the second time it may
        # be one of ours. Then its number comes back with another connection.
        if (lost := self._selector.get_map().get(connection.socket.fileno())) is not None:
            self._forget(lost.data)
            lost.data.socket.detach()
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._read(connection)  # the first bytes come with the connection, more often than not

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self._drop(connection)
        elif connection.unreadable is not None and not connection.lingers:
            connection.deadline = time.monotonic() + UNREADABLE_S
            self._answer_unreadable(connection, connection.unreadable.receive(data))
        elif not connection.lingers:
            self._inspect(connection, data)

    def _inspect(self, connection: _Connection, data: bytes) -> None:
        opening = connection.opening
        greeted, acknowledged = opening.greeted, opening.acknowledged
        opening.receive(data)
        connection.size += len(data)
        self._bytes += len(data)
        if opening.greeted and not greeted:
            connection.socket.sendall(SETTINGS)
        if opening.acknowledged and not acknowledged:
            connection.deadline = time.monotonic() + INSPECT_S
        if opening.verdict in (CORE, RECODING, LATER):
            self._give_to_core(connection)
        elif opening.verdict == COMPRESSION:
            self._refuse_calls(connection)
        elif opening.verdict is not None:
            self._refuse(connection, opening.verdict)
        elif self._bytes > MAX_TOTAL_BYTES:
            self._end_waiting(max(self._here, key=lambda each: each.size))

    def _give_to_core(self, connection: _Connection) -> None:
        self._forget(connection)
        try:
            connection.socket.getpeername()  # else the client has gone, of which core would write a line to stderr
            verdict, received = connection.opening.verdict, connection.opening.received
            if connection.is_unix or verdict == RECODING or (verdict != CORE and self.relay.has_room):
                recoder = None if verdict == CORE else Recoder()
                self.relay.add(connection.listener, connection.socket, received, connection.peer, recoder)
            else:
                self._hand_over(connection.listener, connection.socket, received)
        finally:
            connection.socket.close()  # nothing happens once it has been handed over

    def _refuse_calls(self, connection: _Connection) -> None:
        self._warn(COMPRESSION, connection, encoding=connection.opening.encoding or "none named")
        connection.deadline = time.monotonic() + UNREADABLE_S
        connection.unreadable = UnreadableCalls(self._on_refused)
        self._unreadable[connection] = None
        self._answer_unreadable(connection, connection.unreadable.receive(connection.opening.received))
        if len(self._unreadable) > MAX_UNREADABLE:
            self._guard(self._end_waiting, next(iter(self._unreadable)))

    def _answer_unreadable(self, connection: _Connection, answer: bytes) -> None:
        connection.socket.sendall(answer)
        if connection.unreadable is not None and connection.unreadable.ended:
            self._linger(connection)

    def _refuse(self, connection: _Connection, kind: str) -> None:
        self._on_connection_refused(kind)
        self._warn(kind, connection)
        answer = bad_request(_TEXT) if kind == "http1" else client_hello.answer(kind, connection.opening.received)
        if answer:
            connection.socket.sendall(answer)
            self._linger(connection)
        else:
            self._drop(connection)

    def _linger(self, connection: _Connection) -> None:
        connection.lingers = True
        connection.deadline = time.monotonic() + LINGER_S
        self._unreadable.pop(connection, None)
        connection.socket.shutdown(socket.SHUT_WR)

    def _warn(self, kind: str, connection: _Connection, **more: str) -> None:
        if (held_back := self._throttles[kind].due()) is not None:
            log.warning(f"{_WARNINGS[kind]}{held_back}", peer=connection.peer, **more)

    def _check_deadlines(self, now: float) -> None:
        if self._paused_until is not None and now >= self._paused_until:
            self._resume()
        for connection in [each for each in self._here if now >= each.deadline]:
            self._guard(self._end_waiting, connection)

    def _end_waiting(self, connection: _Connection) -> None:
        if connection.lingers:
            self._drop(connection)
        elif connection.unreadable is not None:
            self._answer_unreadable(connection, connection.unreadable.end())
        elif connection.opening.acknowledged:
            self._give_to_core(connection)
        else:
            self._refuse(connection, UNACKNOWLEDGED if connection.opening.greeted else "silent")

    def _drop(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.socket.close()

    def _forget(self, connection: _Connection) -> None:
        self._unreadable.pop(connection, None)
        if self._here.pop(connection, self) is None:
            self._bytes -= connection.size
            with suppress(KeyError):  # accepted, and failed before it was registered
                self._selector.unregister(connection.socket)

    def _pause(self, now: float) -> None:
        if self._paused_until is None:
            for listener in self._listeners:
                self._selector.unregister(listener)
            self._paused_until = now + _PAUSE_S

    def _resume(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
            if listener not in self._selector.get_map():
                self._selector.register(listener, selectors.EVENT_READ, listener)
        self._paused_until = None
