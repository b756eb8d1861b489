"""Receives OTLP over HTTP/1.1 on the event loop it is started on.

Small requests are handled on the loop; larger ones, those whose scan is costly, and for a while those that follow one
that has kept the loop waiting, on a thread of their own, connections in turn. Nothing of a request is taken before all
of it is here; an answer of 200 means taken.

What connections may do is bounded in http_connections.py, what bodies may be in http_bodies.py.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import structlog
from aiohttp import HttpVersion10, web

from sampler_proxy.errors import (
    EffortSpent,
    MalformedRequest,
    OutOfMemory,
    RequestError,
    RequestTooLarge,
    StartError,
)
from sampler_proxy.otlp.signals import Signal
from sampler_proxy.receive import http_answers, http_bodies
from sampler_proxy.receive.cors import Cors
from sampler_proxy.receive.credentials import Lease
from sampler_proxy.receive.door import OPEN, Door
from sampler_proxy.receive.failures import FailureLog
from sampler_proxy.receive.grpc_lane import Lane
from sampler_proxy.receive.grpc_server import IN_FLIGHT_BYTES, Handler
from sampler_proxy.receive.http_answers import JSON, PROTOBUF, TYPES, Answer, Refused
from sampler_proxy.receive.http_connections import HTTP2, HttpConnection, HttpConnections, Limits
from sampler_proxy.receive.http_plain import Heads, PlainReader, PlainRequest
from sampler_proxy.receive.listeners import WILDCARDS, UnixListener, listen_at
from sampler_proxy.receive.metadata import bind
from sampler_proxy.receive.refusal_counts import RefusalCounts
from sampler_proxy.receive.throttle import Throttle
from sampler_proxy.receive.tls_listener import FAILED, Server, open_servers
from sampler_proxy.settings import Endpoint

KINDS = (HTTP2, FAILED)
"""Why a connection is refused, beside the kinds that the gRPC port knows, too."""

HEAD_S, IDLE_S = 10.0, 75.0
"""How long a head may take, and a connection be idle: longer than the minute at which metrics are sent."""

MAX_CONNECTIONS = 8192
"""Connections at once, or half of the descriptors that this process may have, where that is less."""

INLINE_BYTES = 256 * 1024
"""Requests up to this, inflated, are handled on the loop; a batch of 512 spans is smaller."""

BLOCKED_S, AWAY_S = 0.01, 1.0
"""A request that kept the loop for BLOCKED_S, most likely since the buffer is full, sends those of the next AWAY_S to
the other thread."""

LINGER_S = 2.0
"""How long the rest of a refused request is read and dropped, so that its sender reads the answer."""

BACKLOG = 1024
"""Connections that may wait to be accepted. The loop accepts all of them at once, while everybody else waits."""

_PAUSE_S = 0.1

_WARNINGS = {
    HTTP2: "http: a sender speaks HTTP/2 (most likely gRPC) to this port; at the sender, set "
    "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or the port of receive.grpc in OTEL_EXPORTER_OTLP_ENDPOINT",
    "tls": "http: a sender speaks TLS to this port, which takes plaintext; at the sender, write http:// in "
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "proxy_protocol": "http: a load balancer speaks the PROXY protocol to this port; switch it off for this port",
    "other": "http: a connection began with something that is not HTTP; was another port meant?",
}
# HTTP/2: GOAWAY with HTTP_1_1_REQUIRED and what to set (RFC 9113, 6.8 and 7). Without the SETTINGS that HTTP/2 wants in
# front: gRPC's clients come back at once to who has greeted them, hundreds of times a second, and else after a pause.
_TEXT = b"This port takes OTLP over HTTP/1.1: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or send to the gRPC port"
_GOAWAY = (8 + len(_TEXT)).to_bytes(3, "big") + b"\x07" + bytes(12) + b"\x0d" + _TEXT

_silent = logging.getLogger(f"{__name__}.aiohttp")  # any sender can cause what aiohttp logs, and it quotes the sender
_silent.disabled = True

log = structlog.get_logger()


class Route(NamedTuple):
    """The handlers of a signal: `handler` takes a message on the loop and may raise EffortSpent; `large_handler` takes
    one on another thread, and does not."""

    signal: Signal
    handler: Handler
    large_handler: Handler

    def bound(self, metadata: bytes) -> Route:
        """Return the route of requests with these metadata."""
        return Route(self.signal, bind(self.handler, metadata), bind(self.large_handler, metadata))


class _Large:
    """A request for the thread of large ones, and who waits for its answer."""

    def __init__(self, work: Callable[[], Answer], done: asyncio.Future[Answer]) -> None:
        self._work = work
        self._done = done
        self._loop = asyncio.get_running_loop()

    def handle(self) -> None:
        answer = self._work()
        while True:
            try:
                self._loop.call_soon_threadsafe(self._finish, answer)
            except MemoryError:  # who waits would wait for ever
                time.sleep(_PAUSE_S)
            except RuntimeError:  # the loop has ended
                return
            else:
                return

    def _finish(self, answer: Answer) -> None:
        if not self._done.done():
            self._done.set_result(answer)


class HttpReceiver:
    """The HTTP server.

    `handler` and `large_handler` take traces, see Route; `others` has the way of other signals. `on_refused(reason)` is
    called for every request that is refused here: the reasons of
    GrpcEngine, "malformed" (chunks that are none) and "content_type"; `on_not_served(kind)` for other paths, see
    `http_answers.not_served`; `on_connection_refused(kind)` for connections that do not begin with HTTP/1, or come
    to no TLS. `door` says whether senders have to speak TLS, and show credentials: the others are refused before their
    bodies are read. The hooks run on either thread.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cors: Cors,
        max_request_bytes: int,
        handler: Handler,
        large_handler: Handler,
        on_refused: Callable[[str], None],
        on_not_served: Callable[[str], None] = lambda _: None,
        on_connection_refused: Callable[[str], None] = lambda _: None,
        door: Door = OPEN,
        others: Sequence[Route] = (),
    ) -> None:
        self._door = door
        self._endpoint = endpoint
        self._cors = cors
        self._max_request_bytes = max_request_bytes
        routes = (Route(Signal.TRACES, handler, large_handler), *others)
        self._routes: Mapping[str, Route] = {f"/{route.signal.path}": route for route in routes}
        self._on_refused = RefusalCounts(on_refused).add
        self._on_not_served = on_not_served
        self._on_connection_refused = on_connection_refused
        self._throttles = {kind: Throttle() for kind in _WARNINGS}
        self._failures = FailureLog("http")
        self._listening: list[socket.socket] = []
        self._servers: list[Server] = []
        self._server: web.Server | None = None
        self._lane: Lane[_Large] = Lane(_Large.handle, "http-large")
        self._away_until = 0.0
        self._draining = False
        self._in_hand = 0
        self._answered = asyncio.Event()  # all of them, since it was told to drain
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)
        self._connections = HttpConnections(
            Limits(HEAD_S, IDLE_S, most, max(IN_FLIGHT_BYTES, 3 * max_request_bytes)), self._refuse_connection
        )

    @property
    def alive(self) -> bool:
        """Tell whether the thread of large requests runs: from `start` to `stop`."""
        return self._lane.alive

    def peak_in_flight(self) -> int:
        """Return the most bytes that unanswered requests have held since this was asked last."""
        return self._connections.peak()

    async def start(self) -> Endpoint:
        """Listen, and return the address. Raises StartError, and has then left nothing open."""
        try:
            listening = listen_at(self._endpoint, BACKLOG)
        except (OSError, UnicodeError) as error:  # the latter where a host name cannot be one
            why = error.strerror if isinstance(error, OSError) else "not a host name"
            raise StartError(f"http: cannot listen on {self._endpoint}: {why}") from error
        self._listening = listening
        self._server = web.Server(
            self._serve,
            access_log=None,
            logger=_silent,
            keepalive_timeout=2 * IDLE_S,  # the connections see to that before
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._connections.make = self._server
        heads = Heads()
        self._connections.reader = partial(PlainReader, heads, self._respond)
        self._lane.start()
        self._servers = await open_servers(
            listening, self._connections, BACKLOG, "http", self._door.tls, self._on_connection_refused
        )
        if self._endpoint.path:
            return self._endpoint
        host, port = listening[0].getsockname()[:2]
        return Endpoint(self._endpoint.host if self._endpoint.host in WILDCARDS else host, port)

    async def drain(self, grace_s: float) -> None:
        """Close the port and what is idle, and answer what is in hand, as far as `grace_s` reaches; each answer is its
        connection's last."""
        self._draining = True
        for server in self._servers:
            server.close()
        for one in self._listening:
            if isinstance(one, UnixListener):
                one.remove()
        self._connections.close_idle()
        if not self._in_hand:
            self._answered.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._answered.wait()

    async def stop(self) -> None:
        """End everything, answered or not. May be called at any time, and again."""
        await self.drain(0)
        if self._server is not None:
            server, self._server = self._server, None
            await server.shutdown(0.1)
            self._connections.abort_all()
        if self._lane.alive:
            self._lane.close()

    def _refuse_connection(self, kind: str, connection: HttpConnection) -> None:
        self._on_connection_refused(kind)
        if (held_back := self._throttles[kind].due()) is not None:
            log.warning(f"{_WARNINGS[kind]}{held_back}", peer=connection.peer)
        if kind == HTTP2:
            connection.transport.write(_GOAWAY)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self._respond(request)
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if answer.last:
            response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest | PlainRequest) -> Answer:
        """Answer a request, whoever has read it."""
        connection = self._connections.enter(request.transport)
        if connection is None:  # it has gone
            return Answer(400, b"", {}, last=True)
        self._in_hand += 1
        last = True
        try:
            admitted = self._admit(request, connection)  # kept until there is an answer
            answer = admitted if isinstance(admitted, Answer) else await self._answer(request, connection)
            last = answer.last or self._draining
        except http_bodies.Lost:
            return Answer(400, b"", {}, last=True)
        except MemoryError:
            answer = self._out_of_memory(PROTOBUF)
        finally:
            self._in_hand -= 1
            if self._draining and not self._in_hand:
                self._answered.set()
            self._connections.leave(connection, last, unread=not request.content.is_eof())
        headers = {**answer.headers, "Server": "sampler-proxy"}
        if self._cors.on:
            headers.update(self._cors.headers(request.headers.get("Origin")))
        return Answer(answer.status, answer.body, headers, last)

    def _admit(self, request: web.BaseRequest | PlainRequest, connection: HttpConnection) -> Lease | Answer | None:
        """Let a request in by its credentials, or refuse it. Browsers send none with a preflight."""
        credentials = self._door.credentials
        if credentials is None or (request.method == "OPTIONS" and self._cors.on):
            return None
        try:
            return credentials.admit(request.headers.get("Authorization"), connection.peer)
        except RequestError as error:
            refused = http_answers.refusal(error, last=not request.content.is_eof())
            if error.http_status == 401:
                refused = refused._replace(headers=(("WWW-Authenticate", credentials.challenge),))
            return self._refuse(error.reason, refused, _content_type(request))

    async def _answer(self, request: web.BaseRequest | PlainRequest, connection: HttpConnection) -> Answer:
        headers = request.headers
        content_type = _content_type(request)
        path = request.raw_path.partition("?")[0]
        route = self._routes.get(path) or self._routes.get(request.path)  # the second is a target in absolute form
        if route is None:
            kind, refused = http_answers.not_served(path)
            self._on_not_served(kind)
            return refused.answer(content_type)
        if request.method == "OPTIONS" and self._cors.on:
            return self._preflight(request)
        if request.method != "POST":
            return http_answers.NOT_ALLOWED.answer(content_type)
        if content_type not in TYPES:
            return self._refuse("content_type", http_answers.UNKNOWN_TYPE, content_type)
        encoding = headers.get("Content-Encoding", "").strip().lower().removeprefix("x-")
        if encoding not in ("", "identity", *http_bodies.ENCODINGS):
            return self._refuse("unknown_compression", http_answers.UNKNOWN_ENCODING, content_type)
        try:
            if (request.content_length or 0) > self._max_request_bytes:
                raise http_bodies.too_large(self._max_request_bytes)
            if "Expect" in headers and not request.content.is_eof():
                if headers["Expect"].lower() != "100-continue":
                    return http_answers.UNKNOWN_EXPECTATION.answer(content_type)
                if request.version > HttpVersion10:
                    connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            parts = await http_bodies.read(request.content, self._max_request_bytes, self._connections, connection)
        except http_bodies.Stalled:
            return self._refuse("stalled", http_answers.STALLED, content_type)
        except http_bodies.Crowded:
            return self._refuse("in_flight", http_answers.TOO_MANY_BYTES, content_type)
        except (RequestTooLarge, MalformedRequest) as error:
            return self._refuse(error.reason, http_answers.refusal(error, last=True), content_type)
        try:
            metadata = b"" if self._door.metadata is None else self._door.metadata.of(headers.items())
        except MalformedRequest as error:
            return self._refuse(error.reason, http_answers.refusal(error), content_type)
        route = route.bound(metadata) if metadata else route
        return await self._handle(route, connection, parts, encoding.replace("identity", ""), content_type)

    def _preflight(self, request: web.BaseRequest | PlainRequest) -> Answer:
        origin = request.headers.get("Origin")
        allowed = self._cors.preflight(origin, request.headers.get("Access-Control-Request-Headers", ""))
        return Answer(204, b"", allowed) if allowed else http_answers.NO_PAGES.answer(JSON)

    async def _handle(
        self, route: Route, connection: HttpConnection, parts: list[bytes], encoding: str, content_type: str
    ) -> Answer:
        """Answer a request that is here: on the loop, where that will not take long."""
        now = time.monotonic()
        size = sum(map(len, parts))
        small = min(INLINE_BYTES, self._max_request_bytes)
        if now >= self._away_until and size <= (small // 4 if encoding else small):
            with suppress(EffortSpent, _Larger):
                answer = self._take(route, route.handler, parts, encoding, content_type, small)
                if time.monotonic() - now > BLOCKED_S:
                    self._away_until = time.monotonic() + AWAY_S
                return answer
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        most = self._max_request_bytes

        def work() -> Answer:
            try:
                return self._take(route, route.large_handler, parts, encoding, content_type, most)
            except MemoryError:  # for the refusal
                return self._out_of_memory(content_type)
            finally:
                parts.clear()

        self._lane.add(connection, _Large(work, done))
        return await done

    def _take(
        self, route: Route, handler: Handler, parts: list[bytes], encoding: str, content_type: str, most: int
    ) -> Answer:
        """Answer a request of `most` bytes at most, once inflated. Raises EffortSpent if the handler does, and _Larger
        where it has more bytes than that, though not more than a request may have."""
        try:
            try:
                message = http_bodies.decode(parts, encoding, most)
                if content_type == JSON:
                    message = http_bodies.from_json(message, route.signal, self._max_request_bytes)
            except RequestTooLarge as error:
                if most < self._max_request_bytes:
                    raise _Larger from None
                return self._refuse(error.reason, http_answers.refusal(error), content_type)
            except http_bodies.Damaged as error:
                return self._refuse("compression", http_answers.refusal(error), content_type)
            except MalformedRequest as error:
                return self._refuse(error.reason, http_answers.refusal(error), content_type)
            return http_answers.taken(handler(message), content_type)
        except (EffortSpent, _Larger):
            raise
        except OutOfMemory as error:  # counted already
            self._failures.out_of_memory()
            return http_answers.refusal(error).answer(content_type)
        except RequestError as error:  # counted, too
            return http_answers.refusal(error).answer(content_type)
        except MemoryError:
            return self._out_of_memory(content_type)
        except Exception as error:
            self._failures.unexpected(error)
            return self._refuse("internal", http_answers.INTERNAL, content_type)

    def _out_of_memory(self, content_type: str) -> Answer:
        """Count and log a request for which there was no memory, and return the answer, which takes none."""
        self._failures.out_of_memory()
        return self._refuse("out_of_memory", http_answers.OUT_OF_MEMORY, content_type)

    def _refuse(self, reason: str, refused: Refused, content_type: str) -> Answer:
        """Count a request that is refused here, and return the answer."""
        self._on_refused(reason)
        return refused.answer(content_type)


def _content_type(request: web.BaseRequest | PlainRequest) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class _Larger(Exception):
    """A message that is too large for the loop, but not for this proxy."""
