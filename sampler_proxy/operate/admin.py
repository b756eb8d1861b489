"""Serves the admin port: metrics, health, rules and decisions over HTTP(S), on the loop that `start` is awaited on.

    GET /metrics   Prometheus text, or OpenMetrics where the scraper asks for it; one consistent snapshot
    GET /healthz   200 as long as this loop runs and requests are received: a failure means "restart me"
    GET /readyz    200 when ready, 503 while starting or draining: a failure means "send me nothing"
    GET /rules     the rules that decide, with their version
    GET /rates     demand, probability and keys of rules with a target; how much the limit removed from each rule
    GET /traces/ID the state of a trace: buffered, or decided and how; 404 if unknown, 400 if that is no trace id
    GET /destinations  how each destination is doing, its last error, its part of the ledger

A full buffer is not unreadiness: that would push the load onto the neighbours, which are as full. The buffer's metrics
show it, and senders are told to slow down one request at a time.

Who may ask is said in `roles.py` and `http_guard.py`, how long that may take in the latter.

`StartError` is all that escapes. A handler that fails answers 500 and harms no other request. There is no access log: a
probe every second would drown everything else. Of a failure only the class is logged: its text may quote the request.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import choose_encoder

from sampler_proxy import __version__
from sampler_proxy.errors import StartError
from sampler_proxy.metrics import Snapshot, new_registry
from sampler_proxy.operate.http_guard import IDLE_S, Connections, refuse_pages
from sampler_proxy.operate.roles import may_see_details, require_role
from sampler_proxy.receive.door import OPEN, Door
from sampler_proxy.receive.listeners import WILDCARDS, listen
from sampler_proxy.receive.tls_listener import Server, open_servers
from sampler_proxy.settings import Endpoint

_TRACE_ID = re.compile("[0-9a-f]{32}")
_STOP_TIMEOUT_S = 1.0  # for answers being written; idle connections are closed at once
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of `/readyz`: 200 if `status` is ready, else 503; `detail` (JSON values) is shown either way."""

    status: Literal["starting", "ready", "draining"]
    detail: Mapping[str, object] = field(default_factory=dict)


class Admin:
    """The HTTP server. The callables are called on the loop, once for each request that shows their result, and must
    not block.

    `instant` copies all metrics as they are, and returns what puts them together on another thread.

    `rules` describes the active rule set, `rates` its rules with a target, `find` the state of a trace id (None:
    unknown), `destinations` where kept traces go, all as JSON values. `failure` says why the process is of no use any
    more (None: it is). `door` says whether TLS has to be spoken, and which credentials let in.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        instant: Callable[[], Callable[[], Snapshot]],
        readiness: Callable[[], Readiness],
        rules: Callable[[], Mapping[str, object]],
        rates: Callable[[], Mapping[str, object]],
        find: Callable[[bytes], Mapping[str, object] | None],
        destinations: Callable[[], Mapping[str, object]],
        failure: Callable[[], str | None] = lambda: None,
        door: Door = OPEN,
    ) -> None:
        self._door = door
        self._endpoint = endpoint
        self._instant = instant
        self._readiness = readiness
        self._rules = rules
        self._rates = rates
        self._find = find
        self._destinations = destinations
        self._failure = failure
        self._runner: web.AppRunner | None = None
        self._servers: list[Server] = []
        self._connections: Connections | None = None

    async def start(self) -> tuple[str, int]:
        """Listen, and return the bound host and port. Raises StartError, and has then left nothing open."""
        connections = self._connections = Connections()
        guards = [connections.serve, refuse_pages(self._endpoint.host), require_role(self._door.credentials)]
        app = web.Application(middlewares=[*guards, _list_instead_of_404])
        app.add_routes(
            [
                web.get("/metrics", self._get_metrics),
                web.get("/healthz", self._get_health),
                web.get("/readyz", self._get_readiness),
                web.get("/rules", self._get_rules),
                web.get("/rates", self._get_rates),
                web.get("/destinations", self._get_destinations),
                web.get("/traces/{trace_id}", self._get_trace),
            ]
        )
        app.on_response_prepare.append(_hide_server_version)
        try:
            listening = listen(self._endpoint.host, self._endpoint.port, _BACKLOG)
        except (OSError, UnicodeError) as error:  # the latter where a host name cannot be one
            why = error.strerror if isinstance(error, OSError) else None
            raise StartError(f"admin: cannot listen on {self._endpoint}: {why or error}") from error
        host, port = listening[0].getsockname()[:2]
        self._runner = web.AppRunner(
            app, access_log=None, logger=_http_log, shutdown_timeout=_STOP_TIMEOUT_S, keepalive_timeout=IDLE_S
        )
        await self._runner.setup()
        connections.make = self._runner.server
        self._servers = await open_servers(
            listening, connections, _BACKLOG, "admin", self._door.tls, on_refused=lambda _: None
        )
        return self._endpoint.host if self._endpoint.host in WILDCARDS else host, port

    async def stop(self) -> None:
        """Close the port and every connection, within about a second. May be called at any time, and again."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for server in self._servers:
                server.close()
            await runner.cleanup()
            if self._connections is not None:
                self._connections.abort_all()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except TypeError:  # raised for a version that is not made of numbers
            encode, content_type = choose_encoder("")
        # Copied here and not on another thread: the exporters count on this loop, so that their side of the ledger is
        # at rest between two of its callbacks. Encoding costs 0.5 ms with three rules, half a second with 10 000.
        registry = new_registry(self._instant())
        body = await asyncio.to_thread(encode, registry)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _get_health(self, _: web.Request) -> web.Response:
        if (failure := self._failure()) is not None:
            return web.json_response({"status": failure, "version": __version__}, status=503)
        return web.json_response({"status": "ok", "version": __version__})

    async def _get_readiness(self, request: web.Request) -> web.Response:
        readiness = self._readiness()
        status = 200 if readiness.status == "ready" else 503
        detail = readiness.detail if may_see_details(self._door.credentials, request) else {}
        return web.json_response({"status": readiness.status, **detail}, status=status)

    async def _get_rules(self, _: web.Request) -> web.Response:
        return web.json_response(self._rules())

    async def _get_rates(self, _: web.Request) -> web.Response:
        return web.json_response(self._rates())

    async def _get_destinations(self, _: web.Request) -> web.Response:
        return web.json_response(self._destinations())

    async def _get_trace(self, request: web.Request) -> web.Response:
        trace_id = request.match_info["trace_id"].lower()
        if not _TRACE_ID.fullmatch(trace_id):
            return web.json_response({"error": "a trace id has 32 hexadecimal digits"}, status=400)
        found = self._find(bytes.fromhex(trace_id))
        if found is None:
            message = "this trace is neither buffered nor is its decision remembered"
            return web.json_response({"trace_id": trace_id, "error": message}, status=404)
        return web.json_response({"trace_id": trace_id, **found})


@web.middleware
async def _list_instead_of_404(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        paths = [resource.canonical for resource in request.app.router.resources()]
        return web.json_response({"error": "not found", "there is": paths}, status=404)


async def _hide_server_version(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "sampler-proxy"


def _class_only(record: logging.LogRecord) -> bool:
    """Reduce a failure in a log record to its class: aiohttp logs its text, which may quote the request, and its
    traceback."""
    if record.exc_info and record.exc_info[0]:
        record.msg, record.args = f"{record.getMessage()}: %s", (record.exc_info[0].__name__,)
        record.exc_info = None
    return True


_http_log = logging.getLogger(__name__)
_http_log.addFilter(_class_only)
