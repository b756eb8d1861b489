"""Accepts the connections of a gRPC port, and gives each to who can answer it.

opening.py reads how a connection begins. Then

    HTTP/2 goes to gRPC core, with what has been read;
    calls in a compression that core does not know are refused here, each as gRPC's specification asks (unreadable.py);
    HTTP/1.1 is answered 400, with what to set at the sender; TLS and whatever else is not HTTP/2 is closed.

What does not go to core is counted, and logged once a minute with its peer's address. A connection that is closed
before its first byte was a probe, and no line.

One thread does this for all connections of a port. It bounds them by number, bytes and time.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from sampler_proxy.receive import grpc_status
from sampler_proxy.receive.opening import COMPRESSION, CORE, FOREIGN, SETTINGS, Opening
from sampler_proxy.receive.throttle import Throttle
from sampler_proxy.receive.unreadable import UnreadableCalls

KINDS = (*FOREIGN, "silent")
"""Why a connection is refused: what it begins with, or that it does not begin."""

SILENT_S = 20.0
"""How long a connection may take to begin: to its client's acknowledgement of our SETTINGS."""

INSPECT_S = 0.25
"""How long a connection's first call is waited for from then on. Clients connect when they have something to send."""

LINGER_S = 2.0
"""How long an answer to HTTP/1.1 may take to arrive. What its receiver still sends is read and dropped meanwhile: a
connection that is closed over unread bytes is reset, and a reset overtakes the answer."""

MAX_HERE = 1024
"""Connections that core has not been given; of more, the oldest go there uninspected, or are closed where they have not
begun. Each holds `opening.MAX_BYTES` at most, so this is another 100 MB at worst."""

BACKLOG = 4096
"""Connections that the system may hold for us; it cuts this to a bound of its own (net.core.somaxconn)."""

_PAUSE_S = 0.1
"""How long nothing is accepted once there is no descriptor or no memory for a connection."""

_TICK_S = 0.1
"""How often deadlines are looked at, while there are any."""

_READ_BYTES = 65536

_TEXT = b"This port takes OTLP over gRPC (HTTP/2 without TLS). At the sender, set OTEL_EXPORTER_OTLP_PROTOCOL=grpc.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)

_WARNINGS = {
    "http1": "grpc: a sender speaks HTTP/1.1 to this port; at the sender, set OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
    "tls": "grpc: a sender speaks TLS to this port, which takes plaintext; at the sender, write http:// in "
    "OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_EXPORTER_OTLP_INSECURE=true",
    "proxy_protocol": "grpc: a load balancer speaks the PROXY protocol to this port; switch it off for this port",
    "other": "grpc: a connection began with something that is not HTTP/2; was another port meant?",
    "silent": "grpc: a connection was closed since it did not begin to speak HTTP/2",
    COMPRESSION: "grpc: a sender compresses in a way that is not read here; at the sender, set the compression to gzip",
}

log = structlog.get_logger()


class _Connection:
    """A connection that core has not been given."""

    def __init__(self, listener: socket.socket, sock: socket.socket, address: Any, deadline: float) -> None:
        self.listener = listener
        self.socket = sock
        self._address = address
        self.deadline = deadline  # monotonic seconds
        self.opening = Opening()
        self.unreadable: UnreadableCalls | None = None
        self.lingers = False

    @property
    def peer(self) -> str:
        """The client's address, to be logged."""
        host, port = self._address[0].removeprefix("::ffff:"), self._address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Acceptor:
    """The accepting thread of one port."""

    def __init__(
        self,
        listeners: list[socket.socket],
        hand_over: Callable[[socket.socket, socket.socket, bytes], None],
        on_refused: Callable[[str], None],
        on_connection_refused: Callable[[str], None],
    ) -> None:
        """Make it; it owns `listeners` from then on.

        `hand_over(listener, connection, received)` takes over a connection that speaks HTTP/2. `on_refused(reason)`
        counts a call that is refused here: "compression". `on_connection_refused(kind)` counts a connection, see KINDS.
        All are called on the accepting thread.
        """
        self._listeners = listeners
        self._hand_over = hand_over
        self._on_refused = on_refused
        self._on_connection_refused = on_connection_refused
        self._throttles = {kind: Throttle() for kind in _WARNINGS}
        self._here: dict[_Connection, None] = {}  # oldest first
        self._paused_until: float | None = None  # monotonic seconds; None: connections are accepted
        self._selector = selectors.DefaultSelector()
        self._closing, self._wake = socket.socketpair()
        self._close_once = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="grpc-accept", daemon=True)

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
        more. Blocks for a step of the thread; may be called again."""
        with self._close_once:
            self._wake.close()
            if self._thread.ident is not None:
                self._thread.join()
            for each in (*self._listeners, *(connection.socket for connection in self._here), self._closing):
                each.close()
            self._selector.close()

    def _run(self) -> None:
        while True:
            waits = self._here or self._paused_until is not None
            for key, _ in self._selector.select(_TICK_S if waits else None):
                if key.fileobj is self._closing:
                    return
                if isinstance(key.data, socket.socket):
                    self._accept(key.data)
                elif key.data in self._here:
                    self._guard(self._read, key.data)
            self._check_deadlines(time.monotonic())

    def _guard(self, step: Callable[[_Connection], None], connection: _Connection) -> None:
        """Take a step; where that fails, drop the connection: it must not end the thread."""
        try:
            step(connection)
        except Exception as error:
            self._drop(connection)
            if not isinstance(error, OSError):  # the client has gone
                with suppress(Exception):
                    log.error("grpc: a connection was dropped", error=type(error).__name__)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except OSError as error:  # gone again, or no descriptor: `DescriptorWatch` speaks of that
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._pause()
            return
        except MemoryError:
            self._pause()
            return
        connection = _Connection(listener, sock, address, time.monotonic() + SILENT_S)
        self._here[connection] = None
        self._guard(self._begin, connection)
        if len(self._here) > MAX_HERE:
            self._guard(self._end_waiting, next(iter(self._here)))

    def _begin(self, connection: _Connection) -> None:
        connection.socket.setblocking(False)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._read(connection)  # the first bytes come with the connection, more often than not

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self._drop(connection)
        elif connection.unreadable is not None:
            connection.socket.sendall(connection.unreadable.receive(data))
            if connection.unreadable.ended:
                self._drop(connection)
        elif not connection.lingers:
            self._inspect(connection, data)

    def _inspect(self, connection: _Connection, data: bytes) -> None:
        opening = connection.opening
        greeted, acknowledged = opening.greeted, opening.acknowledged
        opening.receive(data)
        if opening.greeted and not greeted:
            connection.socket.sendall(SETTINGS)
        if opening.acknowledged and not acknowledged:
            connection.deadline = time.monotonic() + INSPECT_S
        if opening.verdict == CORE:
            self._give_to_core(connection)
        elif opening.verdict == COMPRESSION:
            self._refuse_calls(connection)
        elif opening.verdict is not None:
            self._refuse(connection, opening.verdict)

    def _give_to_core(self, connection: _Connection) -> None:
        self._forget(connection)
        try:
            self._hand_over(connection.listener, connection.socket, connection.opening.received)
        finally:
            connection.socket.close()  # nothing happens once it has been handed over

    def _refuse_calls(self, connection: _Connection) -> None:
        self._warn(COMPRESSION, connection, encoding=connection.opening.encoding or "none named")
        refusal = grpc_status.UNKNOWN_COMPRESSION if connection.opening.encoding else grpc_status.NO_COMPRESSION
        connection.deadline = float("inf")  # it ends with its client, or when there are too many
        connection.unreadable = UnreadableCalls(refusal, lambda: self._on_refused("compression"))
        connection.socket.sendall(connection.unreadable.receive(connection.opening.received))

    def _refuse(self, connection: _Connection, kind: str) -> None:
        self._on_connection_refused(kind)
        self._warn(kind, connection)
        if kind == "http1":
            connection.lingers = True
            connection.deadline = time.monotonic() + LINGER_S
            connection.socket.sendall(_ANSWER)
            connection.socket.shutdown(socket.SHUT_WR)
        else:
            self._drop(connection)

    def _warn(self, kind: str, connection: _Connection, **more: str) -> None:
        if (held_back := self._throttles[kind].due()) is not None:
            log.warning(f"{_WARNINGS[kind]}{held_back}", peer=connection.peer, **more)

    def _check_deadlines(self, now: float) -> None:
        if self._paused_until is not None and now >= self._paused_until:
            self._resume()
        for connection in [each for each in self._here if now >= each.deadline]:
            self._guard(self._end_waiting, connection)

    def _end_waiting(self, connection: _Connection) -> None:
        if connection.opening.acknowledged and connection.unreadable is None:
            self._give_to_core(connection)
        elif connection.lingers or connection.unreadable is not None:
            self._drop(connection)
        else:
            self._refuse(connection, "silent")

    def _drop(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.socket.close()

    def _forget(self, connection: _Connection) -> None:
        if self._here.pop(connection, self) is None:
            with suppress(KeyError):  # accepted, and failed before it was registered
                self._selector.unregister(connection.socket)

    def _pause(self) -> None:
        if self._paused_until is not None:
            return
        for listener in self._listeners:
            self._selector.unregister(listener)
        self._paused_until = time.monotonic() + _PAUSE_S

    def _resume(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, listener)
        self._paused_until = None
