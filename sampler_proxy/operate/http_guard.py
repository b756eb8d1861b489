"""Guards the admin port: against connections that hold on to it, and against web pages that read it through a browser.

Every connection has HEAD_S to send the whole head of a request, from its first byte on, and IDLE_S between requests, in
which an answer has to be read, too. Of MAX_CONNECTIONS that are open the one that has been waited for the longest makes
room for the next: who is served at once, as probes and scrapers are, is never refused for the sake of those that wait.

What is served here is not secret to those who reach the port, and changes nothing. Pages of other sites are not among
these, though a browser on this machine is:

- A request from a page of another site says so (`Origin`, `Sec-Fetch-Site`), and is refused. A link that is followed is
  not: no page sees where it leads.
- Where a page's own name is made to lead to 127.0.0.1 (DNS rebinding) the browser takes our answers for the page's own,
  and sends nothing that tells, but that name as `Host`. So over loopback the names are answered that nobody can
  register: addresses, names without a dot, those that end in localhost, local and internal, this machine's, and the
  configured one.
  A request without a Host is no browser's.

Elsewhere any `Host` is answered: probes come by a pod's address, scrapers by whatever name the service has, and nothing
in a request tells such a name from another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from sampler_proxy.operate.this_machine import is_here

HEAD_S = 10.0
IDLE_S = 75.0
MAX_CONNECTIONS = 256

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_RESERVED = ("localhost", "local", "internal")  # top-level domains that nobody can register a name in


class Connections:
    """The connections of a server; a factory of protocols for `create_server`. Used on its loop only.

    `make` has to be set before the first one: it makes the protocol that speaks HTTP.
    """

    make: Callable[[], asyncio.BaseProtocol] | None = None

    def __init__(self) -> None:
        self._open: dict[asyncio.BaseTransport, _Connection] = {}
        self._waiting: dict[_Connection, None] = {}  # for a request, the longest wait first

    def __call__(self) -> asyncio.Protocol:
        assert self.make is not None
        return _Connection(self, cast(asyncio.Protocol, self.make()))

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request, during which its connection waits for nothing."""
        connection = self._open.get(request.transport) if request.transport is not None else None
        if connection is not None:
            self._waiting.pop(connection, None)
            connection.expect(None)
        try:
            return await handler(request)
        finally:
            if connection is not None and connection.transport in self._open:
                connection.idle = True
                self._wait(connection, IDLE_S)

    def _add(self, connection: _Connection) -> None:
        self._open[connection.transport] = connection
        self._wait(connection, HEAD_S)
        if len(self._open) > MAX_CONNECTIONS:
            next(iter(self._waiting)).abort()

    def _wait(self, connection: _Connection, seconds: float) -> None:
        self._waiting[connection] = None
        connection.expect(seconds)

    def _remove(self, connection: _Connection) -> None:
        self._open.pop(connection.transport, None)
        self._waiting.pop(connection, None)


class _Connection(asyncio.Protocol):
    """Passes everything on to the protocol that speaks HTTP, and ends the connection when its time is over."""

    transport: asyncio.Transport

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections = connections
        self._inner = inner
        self._timer: asyncio.TimerHandle | None = None
        self.idle = False  # since the last request was handled, nothing has come

    def expect(self, seconds: float | None) -> None:
        """Give the next request so many seconds to come; None: as long as it takes."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.abort)

    def abort(self) -> None:
        """End the connection, whatever has not been read."""
        self._connections._remove(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)
        self._connections._add(self)

    def data_received(self, data: bytes) -> None:
        if self.idle:
            self.idle = False
            self.expect(HEAD_S)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self.expect(None)
        self._connections._remove(self)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def refuse_pages(configured_host: str) -> Any:
    """Return a middleware that refuses what a page of another site asks for."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_cross_site(request):
            return web.json_response({"error": "not for pages of other sites"}, status=403)
        hosts = request.headers.getall("Host", [])
        if _is_loopback(request) and not all(_is_safe(host, configured_host) for host in hosts):
            message = "not known by this name: write localhost, an address, or this machine's name"
            return web.json_response({"error": message}, status=421)
        return await handler(request)

    return guard


def _is_cross_site(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
        return True
    site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode", "")
    return site not in ("same-origin", "none") and mode != "navigate"


def _is_loopback(request: web.Request) -> bool:
    """Tell whether a request has come over loopback."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not name:
        return False
    address = ip_address(name[0].partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_safe(host: str, configured_host: str) -> bool:
    """Tell whether a Host is an address, or a name that no stranger can have."""
    found = _HOST.fullmatch(host)
    name = found[1].lower().removesuffix(".") if found else host
    with suppress(ValueError):
        ip_address(name.strip("[]").partition("%")[0])
        return True
    return "." not in name or name.rpartition(".")[2] in _RESERVED or name == configured_host.lower() or is_here(name)
