"""Sends requests over OTLP/HTTP, in protobuf. The meaning of answers is defined in `http_statuses`.

Source: OTLP specification, "OTLP/HTTP". Connections are kept and used again. Redirects are not followed: the headers,
which hold credentials, are for the host that is configured.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sampler_proxy import __version__
from sampler_proxy.config.model import HttpExport
from sampler_proxy.export.compression import compressed
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.http_statuses import classify_status, rejected_by
from sampler_proxy.export.proxies import HTTP, HTTPS, Variables
from sampler_proxy.export.reasons import (
    CONNECTING,
    CUT_OFF_PLAIN,
    HTTP_CREDENTIALS,
    LOST,
    NO_ANSWER,
    NOT_HTTP,
    PROXY_REFUSES,
    TRACES_ONLY,
    why_broken,
    why_unreachable,
)
from sampler_proxy.export.retry import Accepted, Failed, Fault
from sampler_proxy.export.transport import NOT_REACHED, TIMED_OUT, Transport
from sampler_proxy.otlp.metadata import Metadata
from sampler_proxy.otlp.signals import Signal

CONNECT_S = 5.0
"""How long connecting may take, at most, with the TLS handshake."""

KEEP_ALIVE_S = 30.0
"""An idle connection is closed after this: before most servers would do so, which could meet a request under way."""

MAX_RESPONSE_BYTES = 64 * 1024
"""Of the body of an answer so much is read; what is larger is none of OTLP."""

WRITE_AT_ONCE_BYTES = 1 << 20
"""A larger body is written to its connection piece by piece."""

_PROXY_AUTHENTICATION = 407

_TLS_ALERT = "\\x15\\x03"
"""How an error of aiohttp shows the first bytes of an alert: TLS was met by plaintext."""


class HttpLink:
    """Connections to one address: as many as requests are under way."""

    ready = True  # whether one can be made is only known by trying

    def __init__(self, session: aiohttp.ClientSession, server_name: str | None) -> None:
        self.closing = False
        self._session = session
        self._server_name = server_name  # that a certificate has to be for; None: that of the URL
        self._under_way = 0
        self._done = asyncio.Event()

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str], seen: _Seen) -> None:
        """Send a request, and note in `seen` its answer, as far as it has come, and what is known of the connection.
        Raises what aiohttp does."""
        data = body if len(body) <= WRITE_AT_ONCE_BYTES else io.BytesIO(body)
        self._under_way += 1
        try:
            async with self._session.post(
                url,
                data=data,
                headers=headers,
                allow_redirects=False,
                server_hostname=self._server_name,
                trace_request_ctx=seen,
            ) as answer:
                seen.status, seen.headers = answer.status, answer.headers
                while len(seen.body) < MAX_RESPONSE_BYTES and (more := await answer.content.readany()):
                    seen.body += more
        finally:
            self._under_way -= 1
            self._done.set()

    async def close(self, grace_s: float | None = None) -> None:
        """Close the connections once the requests under way have ended, or after `grace_s`; None: at once."""
        self.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s or 0):
                while self._under_way:
                    self._done.clear()
                    await self._done.wait()
        await self._session.close()


class HttpTransport(Transport[HttpLink]):
    """The way to one OTLP/HTTP back end."""

    default_ports = 80, 443

    def __init__(self, config: HttpExport, dependencies: Dependencies) -> None:
        super().__init__(config, dependencies)
        self._encoding = None if config.compression == "none" else config.compression
        if config.traces_endpoint is not None:
            self._urls = {Signal.TRACES: URL(config.traces_endpoint, encoded=True)}
        else:
            self._urls = {signal: URL(f"{config.endpoint}/{signal.path}", encoded=True) for signal in Signal}
        self._headers_sent: dict[str, str] = {}

    def _proxy_variables(self) -> Variables:
        return HTTPS if self._secure else HTTP

    def _use_headers(self) -> None:
        super()._use_headers()
        self._headers_sent = {
            "user-agent": f"sampler-proxy/{__version__}",
            **dict(self._headers_in_use),
            "content-type": "application/x-protobuf",
            "accept-encoding": "identity",
            **({"content-encoding": self._encoding} if self._encoding else {}),
        }

    def _open_link(self, address: str | None) -> HttpLink:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=self.certificates.for_http() if self._secure else True,
            resolver=aiohttp.ThreadedResolver() if address is None else _Known(address),
            use_dns_cache=False,
            keepalive_timeout=KEEP_ALIVE_S,
        )
        return HttpLink(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                trace_configs=[_tracing()],
            ),
            self.certificates.server_name if self._secure else None,
        )

    async def _send_over(
        self, link: HttpLink, signal: Signal, request: bytes, metadata: Metadata, timeout_s: float
    ) -> Accepted | Failed | None:
        url = self._urls.get(signal)
        if url is None:
            return Failed(Fault.UNWANTED, "UNIMPLEMENTED", TRACES_ONLY)
        headers = {**self._headers_sent, **dict(metadata)} if metadata else self._headers_sent
        seen = _Seen()
        try:
            async with asyncio.timeout(timeout_s):
                body = await compressed(request, self._encoding) if self._encoding else request
                if not await self._post(link, url, body, headers, seen):
                    return None
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if seen.status is None:  # else it says what matters, though not all of the answer has come
                return _without_answer(error, seen)
        except RuntimeError:
            if link.closing:  # between the look and the call
                return None
            raise
        assert seen.status is not None
        if 200 <= seen.status < 300:
            return Accepted(rejected_by(seen.headers.get("Content-Type", ""), seen.body))
        return classify_status(seen.status, seen.headers.get("Retry-After"), time.time())

    async def _post(self, link: HttpLink, url: URL, body: bytes, headers: Mapping[str, str], seen: _Seen) -> bool:
        """Send a request over one connection after the other that the server has closed while it was idle; return
        whether it was sent, and the link not given up before. Raises what aiohttp does."""
        while not link.closing:
            seen.made = seen.reused = False
            try:
                await link.post(url, body, headers, seen)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if seen.status is None and seen.reused:
                    continue
                raise
            return True
        return False


@dataclass
class _Seen:
    """Notes what has been seen of a request: its connection, and its answer as far as that has come."""

    made: bool = False  # there was a connection
    reused: bool = False  # which has carried others before
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def _tracing() -> aiohttp.TraceConfig:
    """Have requests note on which kind of connection they went."""

    async def made(_session: object, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.made = True

    async def reused(_session: object, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.made = context.trace_request_ctx.reused = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(made)
    tracing.on_connection_reuseconn.append(reused)
    return tracing


def _without_answer(error: Exception, seen: _Seen) -> Failed:
    """Classify a request that got no answer that can be read."""
    if isinstance(error, TimeoutError):
        if seen.made:
            return Failed(Fault.TIMEOUT, TIMED_OUT, NO_ANSWER)
        return Failed(Fault.UNREACHABLE, NOT_REACHED, CONNECTING)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == _PROXY_AUTHENTICATION:
            return Failed(Fault.CREDENTIALS, f"HTTP {error.status}", HTTP_CREDENTIALS)
        return Failed(Fault.UNREACHABLE, f"HTTP {error.status}", PROXY_REFUSES)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Failed(Fault.UNREACHABLE, NOT_REACHED, PROXY_REFUSES)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Failed(Fault.UNREACHABLE, NOT_REACHED, why_unreachable(str(error.certificate_error), secure=True))
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = f"{os.strerror(error.os_error.errno or 0)}: {error.os_error}"
        secure = isinstance(error, aiohttp.ClientSSLError)
        return Failed(Fault.UNREACHABLE, NOT_REACHED, why_unreachable(reason, secure))
    if isinstance(error, aiohttp.ClientResponseError):
        tls = _TLS_ALERT in error.message
        return Failed(Fault.UNREACHABLE, NOT_REACHED, CUT_OFF_PLAIN if tls else NOT_HTTP)
    if (broken := why_broken(str(error))) is not None:
        return Failed(Fault.UNREACHABLE, NOT_REACHED, broken)
    return Failed(Fault.LOST, NOT_REACHED, LOST)


class _Known(AbstractResolver):
    """Resolves every name into one address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the address, whatever is asked for."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        """Do nothing."""
