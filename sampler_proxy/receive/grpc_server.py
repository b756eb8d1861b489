"""Puts the gRPC server behind a small interface: the part that its two engines have in common.

Beside calling handlers both bound the messages being received at once (below) and share them among connections
(places.py), inflate under the size limit and turn exceptions into statuses (grpc_status.py). A handler runs on the
engine's thread, one at a time. `grpc.py` chooses.
"""

from __future__ import annotations

import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from sampler_proxy.errors import EffortSpent, OutOfMemory, RequestError, RequestTooLarge, StartError
from sampler_proxy.receive import grpc_status, health, reflection
from sampler_proxy.receive.accepting import BACKLOG
from sampler_proxy.receive.connections import readable
from sampler_proxy.receive.credentials import Credentials, Lease
from sampler_proxy.receive.door import OPEN, Door
from sampler_proxy.receive.failures import FailureLog
from sampler_proxy.receive.grpc_status import Refusal
from sampler_proxy.receive.inflate import SIGNATURES, Inflation, inflate
from sampler_proxy.receive.keepalive import Keepalive
from sampler_proxy.receive.listeners import UnixListener, listen
from sampler_proxy.receive.refusal_counts import RefusalCounts
from sampler_proxy.receive.tls import HANDSHAKE_S

Handler = Callable[..., bytes]
"""What answers a request: called with its message, and with its metadata (otlp/metadata.py) where these are kept."""

Method = Callable[..., bytes | Refusal]
"""What answers a call: handlers, and methods of gRPC's own services."""


class Streaming(NamedTuple):
    """A method whose calls have more than one answer: one to each message; or, of one that `watches`, to its only
    message another one whenever that has changed."""

    answer: Callable[[bytes], bytes]
    watches: bool


PROBES = f"/{health.SERVICE}/"
"""The beginning of the methods that need no credentials."""

MAX_RECEIVING = 128
"""Messages being received at once, beside the first one of each connection. places.py shares them: one connection alone
has half of them. What they hold is bounded by IN_FLIGHT_BYTES."""

MAX_WAITING = 1024
"""Calls that wait for their turn to be received; beyond it one is told to come back, of the connection that has most of
them. Flow control keeps what has arrived of each below WINDOW_BYTES."""

IN_FLIGHT_BYTES = 192 * 1024 * 1024
"""What messages that are not handled yet may have received together, or three times `max_request_bytes` where that is
more; beyond it those of the connection that has most are refused."""

LOOK_S = 0.02
"""How often that is looked at while messages are being received: a fast network brings 20 MB meanwhile."""

LARGE_BYTES = 1024 * 1024
"""Messages above this, once inflated, are handled on a thread of their own where there is a handler for it: such a one
may take long, and others shall not wait for it."""

WINDOW_BYTES = 256 * 1024
"""Bytes of a message that a sender may send before we ask for more. A batch of 512 spans fits: on a 2-core VM it then
costs 0.27 ms of CPU instead of 0.45 with HTTP/2's 64 KiB, and a round trip less; smaller ones cost the same."""

MAX_STREAMS = 512
"""Calls that one connection may have open at once. A client that has more waits by itself, but for its first ones: what
it begins before it has read this number is refused as UNAVAILABLE beyond it. HTTP/2 recommends 100 at least; a burst of
hundreds on a new connection has room here."""

STALLED_S = 10.0
"""A message that takes longer than this (OTLP's default timeout: its sender has given up) loses its place, but only
where calls wait for one. All that have stalled lose theirs at once."""

RECHECK_S = 1.0
"""How often stalled calls are looked for while other calls wait and none arrives."""

CANCEL_S = 1.0
"""How long cancelled calls may take to end once `drain` is out of grace; a running handler cannot be interrupted."""

GOAWAY_S = 0.3
"""How long clients may take to close their connections (HTTP/2's GOAWAY asks them to) once all calls have ended."""

DEFAULT_KEEPALIVE = Keepalive()

_POLL_S = 0.01

_MAX_CORE_BYTES = 2**31 - 1


class GrpcEngine(ABC):
    """A gRPC server for unary methods on bytes, with gRPC's health and reflection services.

    `methods` maps full names ("/package.Service/Method") to handlers: request message (after decompression) to response
    message, or raise `RequestError`. `on_refused(reason)` is called for every request that the engine refuses itself:
    "too_large", "compression" (damaged data, or none named), "unknown_compression" (one that is not read here), "busy"
    (MAX_WAITING), "stalled" (STALLED_S), "in_flight" (IN_FLIGHT_BYTES), "out_of_memory" (MemoryError, wherever it was
    met; its sender is told to try again), "internal" (the handler raised something else).
    `on_not_served(kind)` is called for every call of another method, see `grpc_status.not_served`, and
    `on_connection_refused(kind)` for every connection that does not speak HTTP/2 or is closed for what it does, see
    `accepting.KINDS`. `large_methods` are handlers for messages above LARGE_BYTES, and for those for which the first
    handler raises EffortSpent, to be called on another thread at the same time as the first ones; where there is none
    for a method, all are handled alike. `door` says whether senders have to speak TLS, and show credentials:
    the others are refused before their messages are read. Handlers and hooks run on
    threads of the engine. `start` once; the rest from any thread.
    """

    name: ClassVar[str]

    def __init__(
        self,
        methods: Mapping[str, Handler],
        address: str,
        max_request_bytes: int,
        on_refused: Callable[[str], None],
        on_not_served: Callable[[str], None] = lambda _: None,
        on_connection_refused: Callable[[str], None] = lambda _: None,
        large_methods: Mapping[str, Handler] | None = None,
        keepalive: Keepalive = DEFAULT_KEEPALIVE,
        door: Door = OPEN,
    ) -> None:
        self.address = address
        self._door = door
        services = dict.fromkeys(method.split("/")[1] for method in methods)
        self._health = health.Health(services)
        self._methods: dict[str, Method] = {**self._health.methods(), **methods}
        self._large_methods = dict(large_methods or {})
        self._max_request_bytes = max_request_bytes
        self._on_refused = on_refused
        self._on_not_served = on_not_served
        self._on_connection_refused = on_connection_refused
        # A handshake may take two minutes by default.
        handshake = () if door.tls is None else (("grpc.server_handshake_timeout_ms", int(HANDSHAKE_S * 1000)),)
        self._connection_options = (*keepalive.options(), *handshake)
        self._failures = FailureLog("grpc")
        self._count_refused = RefusalCounts(on_refused).add
        self._thread: threading.Thread | None = None  # ends when the server has ended
        self._in_flight = 0  # calls begun and not answered; changed by that thread only

    @property
    def alive(self) -> bool:
        """Tell whether the engine's threads run: from `start` to the end of `drain`, or until one of them dies. One
        that stands still is not told from one that waits, but where the engine says so."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def _streaming(self) -> dict[str, Streaming]:
        """Make the streaming methods: once, for that of reflection takes its time."""
        answer = reflection.Reflection(dict.fromkeys(method.split("/")[1] for method in self._methods)).answer
        return {
            health.WATCH: Streaming(self._health.watch, True),
            **{method: Streaming(answer, False) for method in reflection.METHODS},
        }

    def peak_in_flight(self) -> int:
        """Return the most bytes that unfinished messages have held since this was asked last; 0 where the engine does
        not know, and before `start`."""
        return 0

    @property
    def _in_flight_bound(self) -> int:
        """Return what unfinished messages may hold together."""
        return max(IN_FLIGHT_BYTES, 3 * self._max_request_bytes)

    @abstractmethod
    def start(self) -> int:
        """Listen, and return the port (the one chosen, where the address says 0). Blocks for milliseconds.

        Raises StartError, with the reason, where the address is taken or cannot be listened on.
        """

    def drain(self, grace_s: float) -> bool:
        """Say that nothing is served any more (health.py), stop accepting (the port is closed, clients are told to go
        away), let calls in flight end, end the thread.

        Blocks: `grace_s` at most, then cancels what is left, for which CANCEL_S must do. From asyncio: `to_thread`.
        True if every call ended by itself. May be called again, with a shorter grace to cut short one that is waiting.
        """
        if self._thread is None or not self._thread.is_alive():
            return True
        end = time.monotonic() + grace_s
        self._health.drain(grace_s, self._tell_watchers)
        self._begin_shutdown()
        idle_s = 0.0
        # Core waits until every client has acknowledged the GOAWAY, for up to 20 s, but some have long gone.
        while self._thread.is_alive() and time.monotonic() < end and idle_s < GOAWAY_S:
            self._thread.join(_POLL_S)
            idle_s = 0.0 if self._in_flight else idle_s + _POLL_S
        complete = not self._in_flight
        if self._thread.is_alive():
            self._cancel_calls()
            self._thread.join(CANCEL_S)
        return complete

    @abstractmethod
    def _tell_watchers(self) -> None:
        """Tell those who watch the health what has changed; does not block."""

    @abstractmethod
    def _begin_shutdown(self) -> None:
        """Stop accepting calls; does not block, and may be called again."""

    @abstractmethod
    def _cancel_calls(self) -> None:
        """Cancel every call in flight; does not block."""

    def stop(self) -> None:
        """Cancel all calls and end; blocks for CANCEL_S at most."""
        self.drain(0)

    def _core_options(self, max_message_bytes: int) -> tuple[tuple[str, int], ...]:
        return (
            *self._connection_options,
            ("grpc.max_receive_message_length", min(max_message_bytes, _MAX_CORE_BYTES)),
            ("grpc.per_message_decompression", 0),  # inflate.py says why
            ("grpc.so_reuseport", 0),  # else a port that is taken is shared silently
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.http2.bdp_probe", 0),  # it would grow that window by its own measure, to megabytes
            # What one connection may have open; what it resets counts as long as we have not seen it. By default there
            # is no bound, and calls that are reset as soon as they are begun cost gigabytes.
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            # Senders may ping as they like; by default it disconnects them. Of a flood core reads no more than it can
            # answer. Ended for it, the connection comes back, which costs others more: a second instead of 20 ms.
            ("grpc.http2.max_ping_strikes", 0),
            # What core queues between two polls of ours: beyond the first it answers more and more calls, beyond the
            # second all, with RESOURCE_EXHAUSTED, which senders must not retry. A burst while a request is taken has
            # room; MAX_WAITING is the bound that counts. A queue without one grows by 10 kB a call.
            ("grpc.server.max_pending_requests", 2000),
            ("grpc.server.max_pending_requests_hard_limit", 4000),
        )

    def _admit(self, credentials: Credentials, metadata: Iterable[Any], peer: bytes) -> Lease | Refusal:
        """Let a call in, which holds what is returned until it has been answered; or refuse it, which is counted."""
        authorization = next((value for name, value in metadata if name == "authorization"), None)
        try:
            return credentials.admit(authorization, readable(peer))
        except RequestError as error:
            self._count_refused(error.reason)
            return grpc_status.refusal(error)

    def _noted(self, headers: Iterable[Any]) -> bytes | Refusal:
        """Return what is kept of a call's metadata, or refuse the call, which is counted."""
        assert self._door.metadata is not None
        try:
            return self._door.metadata.of(headers)
        except RequestError as error:
            self._count_refused(error.reason)
            return grpc_status.refusal(error)

    def _handle(self, handler: Method, message: bytes | Inflation) -> bytes | Refusal:
        """Answer one received message, which may be compressed: by its handler, or by a refusal. Raises EffortSpent if
        the handler does, and nothing else."""
        try:
            if isinstance(message, Inflation):
                message = message.finish()
            elif message.startswith(SIGNATURES):
                message = inflate(message, self._max_request_bytes)
            if len(message) > self._max_request_bytes:
                raise RequestTooLarge(f"more than {self._max_request_bytes} bytes")
        except RequestError as error:
            self._on_refused("too_large" if isinstance(error, RequestTooLarge) else "compression")
            return grpc_status.refusal(error)
        except MemoryError:
            return self._refuse_out_of_memory()
        return self._handle_plain(handler, message)

    def _handle_plain(self, handler: Method, message: bytes) -> bytes | Refusal:
        """Answer a message that is neither compressed nor too large, as `_handle` does."""
        try:
            return handler(message)
        except EffortSpent:
            raise
        except OutOfMemory as error:  # counted already
            self._failures.out_of_memory()
            return grpc_status.refusal(error)
        except RequestError as error:
            return grpc_status.refusal(error)
        except MemoryError:
            return self._refuse_out_of_memory()
        except Exception as error:
            self._failures.unexpected(error)
            return self._refuse_internal()

    def _refuse_out_of_memory(self) -> Refusal:
        """Count and log a request for which there was no memory."""
        self._count_refused("out_of_memory")
        self._failures.out_of_memory()
        return grpc_status.OUT_OF_MEMORY

    def _refuse_internal(self) -> Refusal:
        """Count a request that met an error of ours."""
        self._count_refused("internal")
        return grpc_status.INTERNAL


UNIX = "unix:"
"""What the address of a unix socket begins with; its path follows."""


def parse_address(address: str) -> tuple[str, int]:
    """Return host (without brackets) and port; StartError where `address` is not HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise StartError(f"grpc: cannot listen on {address!r}: expected HOST:PORT")
    return host.strip("[]"), int(port)


def open_listeners(address: str) -> list[socket.socket]:
    """Listen on `address`; StartError, with the system's reason, where that fails."""
    try:
        if address.startswith(UNIX):
            return [UnixListener(address.removeprefix(UNIX), BACKLOG)]
        return listen(*parse_address(address), BACKLOG)
    except OSError as error:
        raise StartError(f"grpc: cannot listen on {address}: {error.strerror}") from error
    except UnicodeError as error:
        raise StartError(f"grpc: cannot listen on {address}: not a host name") from error


def port_of(listener: socket.socket) -> int:
    """Return the port that is listened on; 0 of a unix socket."""
    port: int = 0 if listener.family == socket.AF_UNIX else listener.getsockname()[1]
    return port


def check_address(address: str) -> None:
    """Listen on `address` for an instant; StartError, with the system's reason, where that fails.

    gRPC core says only that it failed, and not even that where a name has several addresses and one of them is free.
    """
    for listener in open_listeners(address):
        listener.close()
