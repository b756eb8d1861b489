"""A real HTTP server as a back end for OTLP/HTTP, on the loop of the test."""

from __future__ import annotations

import gzip
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from backports import zstd
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support import nezha

DECODERS = {"gzip": gzip.decompress, "zstd": zstd.decompress, None: bytes}


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    nbytes: int
    peer: tuple[str, int]
    request: ExportTraceServiceRequest


Answer = Callable[[Request], web.StreamResponse | Awaitable[web.StreamResponse] | None]


@dataclass
class HttpBackend:
    """`answer` may return or raise a response, or return None for a plain success. `stored` counts the spans of those
    that were answered with a success."""

    answer: Answer = lambda _request: None
    port: int = 0
    seen: list[Request] = field(default_factory=list)
    stored: Counter[int] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        body = DECODERS[request.headers.get("Content-Encoding")](data)
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = ExportTraceServiceRequest.FromString(body) if request.path.endswith("traces") else None
        peer = request.transport.get_extra_info("peername")[:2] if request.transport else ("", 0)
        seen = Request(request.raw_path, headers, len(data), peer, message or ExportTraceServiceRequest())
        self.seen.append(seen)
        answer = self.answer(seen)
        response = await answer if isinstance(answer, Awaitable) else answer
        if response is None or response.status < 300:
            self.stored.update(int.from_bytes(span.trace_id, "big") for span in nezha.spans([seen.request]))
        return response or success()


def success(response: ExportTraceServiceResponse | None = None) -> web.Response:
    body = (response or ExportTraceServiceResponse()).SerializeToString()
    return web.Response(body=body, content_type="application/x-protobuf")


@asynccontextmanager
async def serving(
    answer: Answer | None = None, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpBackend]:
    backend = HttpBackend() if answer is None else HttpBackend(answer)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", backend.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls)
    await site.start()
    backend.port = site._server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        await runner.cleanup()
