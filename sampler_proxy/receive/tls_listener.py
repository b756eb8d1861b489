"""Accepts the connections of a port on the event loop; with TLS, does so itself, and bounds their handshakes.

What asyncio's servers do with a connection until its handshake is done cannot be seen from outside: neither how many
there are, nor that one has failed. So each has a task here until then: HANDSHAKE_S at most, and of more than
MAX_HANDSHAKES at once the oldest ends, which a client that is still there has long finished. Who speaks plaintext is
told so; who fails is counted, and logged once a minute with the reason.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import structlog

from sampler_proxy.receive import client_hello
from sampler_proxy.receive.client_hello import PLAINTEXT
from sampler_proxy.receive.listeners import readable_address, unix_peer
from sampler_proxy.receive.opening import PREFACE_BYTES, classify
from sampler_proxy.receive.throttle import Throttle
from sampler_proxy.receive.tls import HANDSHAKE_S, Tls

FAILED = "tls_failed"
"""Why a connection is refused that speaks TLS, beside `client_hello.PLAINTEXT`."""

MAX_HANDSHAKES = 1024
"""Handshakes at once."""

SHUTDOWN_S = 2.0
"""How long a client may take to say goodbye."""

LINGER_S = 2.0
"""How long the rest of what a client of plaintext sends is read and dropped, so that it reads the answer."""

_ACCEPTED = 64
"""Connections that are accepted before the loop does something else."""

_PAUSE_S = 0.1
"""How long nothing is accepted once there is no descriptor or no memory for a connection."""

log = structlog.get_logger()


class Server(Protocol):
    """An open port."""

    def close(self) -> None:
        """Close the port; connections go on."""


async def open_servers(
    listening: list[socket.socket],
    make: Callable[[], asyncio.BaseProtocol],
    backlog: int,
    name: str,
    tls: Tls | None,
    on_refused: Callable[[str], None],
) -> list[Server]:
    """Accept connections on listening sockets. `make` makes a connection's protocol; `on_refused(kind)` is told of
    those that come to no TLS."""
    if tls is not None:
        return [TlsListener(listening, make, name, tls, on_refused)]
    loop = asyncio.get_running_loop()
    return [
        await loop.create_unix_server(make, sock=one, backlog=backlog)
        if one.family == socket.AF_UNIX
        else await loop.create_server(make, sock=one, backlog=backlog)
        for one in listening
    ]


class TlsListener:
    """The connections of a port that speaks TLS, until their handshakes are done. Used on one loop."""

    def __init__(
        self,
        listening: list[socket.socket],
        make: Callable[[], asyncio.BaseProtocol],
        name: str,
        tls: Tls,
        on_refused: Callable[[str], None],
    ) -> None:
        """Begin to accept."""
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._make = make
        self._name = name
        self._tls = tls
        self._on_refused = on_refused
        self._throttles = {kind: Throttle() for kind in (PLAINTEXT, FAILED)}
        # Oldest first, with the connection as long as it is ours and not its transport's.
        self._handshakes: dict[asyncio.Task[None], socket.socket | None] = {}
        self._closed = False
        for listener in listening:
            listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Close the port, and what has not done its handshake."""
        self._closed = True
        for listener in self._listening:
            self._loop.remove_reader(listener)
            listener.close()
        self._listening = []
        for task in self._handshakes:
            task.cancel()

    def _resume(self) -> None:
        for listener in self._listening:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except (OSError, MemoryError):  # no descriptor, most likely: `DescriptorWatch` speaks of that
                for each in self._listening:
                    self._loop.remove_reader(each)
                self._loop.call_later(_PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection, address))
            self._handshakes[task] = connection
            task.add_done_callback(self._done)
            if len(self._handshakes) > MAX_HANDSHAKES:
                next(iter(self._handshakes)).cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        connection = self._handshakes.pop(task)
        if connection is not None:
            connection.close()

    async def _serve(self, connection: socket.socket, address: Any) -> None:
        """See a connection through its handshake; its transport owns it from then on."""
        end_s = self._loop.time() + HANDSHAKE_S
        peer = unix_peer(connection) if connection.family == socket.AF_UNIX else readable_address(address)
        task = asyncio.current_task()
        assert task is not None
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout_at(end_s):
                first = await self._first_bytes(connection)
            if not first:
                return  # a probe
            if classify(first) != "tls":
                self._refuse(PLAINTEXT, peer)
                await self._answer_plaintext(connection, first)
                return
            self._handshakes[task] = None
            await self._loop.connect_accepted_socket(
                self._make,
                connection,
                ssl=self._tls.context,
                ssl_handshake_timeout=max(0.1, end_s - self._loop.time()),
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except TimeoutError:
            self._refuse(FAILED, peer, "nothing came")
        except ssl.SSLError as error:
            self._refuse(FAILED, peer, (error.reason or "unknown").lower().replace("_", " "))
        except ConnectionAbortedError:  # which asyncio raises when its time is over
            self._refuse(FAILED, peer, "it took too long")
        except OSError:
            if self._handshakes[task] is None:
                self._refuse(FAILED, peer, "the client has gone (does it trust the certificate?)")

    async def _first_bytes(self, connection: socket.socket) -> bytes:
        """Wait for the first bytes, and return them without taking them from the connection."""
        while True:
            try:
                return connection.recv(PREFACE_BYTES, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable(connection)

    async def _readable(self, connection: socket.socket) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(connection, _set, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(connection)

    async def _answer_plaintext(self, connection: socket.socket, first: bytes) -> None:
        answer = client_hello.answer(PLAINTEXT, first)
        if not answer:
            return
        connection.send(answer)
        connection.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await self._dropped(connection):
                    pass

    async def _dropped(self, connection: socket.socket) -> int:
        await self._readable(connection)
        return len(connection.recv(65536))

    def _refuse(self, kind: str, peer: str, reason: str = "") -> None:
        self._on_refused(kind)
        if (held_back := self._throttles[kind].due()) is None:
            return
        if kind == PLAINTEXT:
            log.warning(f"{self._name}: a client speaks plaintext to this port, which takes TLS{held_back}", peer=peer)
        else:
            log.warning(f"{self._name}: a TLS handshake has failed: {reason}{held_back}", peer=peer)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
