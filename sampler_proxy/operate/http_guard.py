"""Guards the admin port: against connections that hold on to it, and against web pages that read it through a browser.

How long a connection may take, and what becomes of too many, is said in `receive/http_connections.py`; here are the
figures: HEAD_S, IDLE_S, MAX_CONNECTIONS.

Credentials, where they are wanted, are asked for in `roles.py`. Without, what is served here is not secret to those who
reach the port. Pages of other sites are not among these, though a browser on this machine is:

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

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from sampler_proxy.operate.this_machine import is_here
from sampler_proxy.receive.http_connections import HttpConnections, Limits

HEAD_S = 10.0
IDLE_S = 75.0
MAX_CONNECTIONS = 256

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_RESERVED = ("localhost", "local", "internal")  # top-level domains that nobody can register a name in


class Connections(HttpConnections):
    """The connections of the admin port. Used on its loop only."""

    def __init__(self) -> None:
        super().__init__(Limits(HEAD_S, IDLE_S, MAX_CONNECTIONS))

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request, during which its connection waits for nothing."""
        connection = self.enter(request.transport)
        try:
            return await handler(request)
        finally:
            if connection is not None:
                self.leave(connection)


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
