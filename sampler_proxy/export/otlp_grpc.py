"""Exports kept traces over OTLP/gRPC.

The meaning of answers is defined in `retry`. Any try may have been stored by the back end although no answer came, so
duplicates are possible, as OTLP allows.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from urllib.parse import urlsplit

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sampler_proxy import __version__
from sampler_proxy.config.model import GrpcExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies, Exporter, Persistence
from sampler_proxy.export.headers import Headers, UnusableError
from sampler_proxy.export.retry import DEFAULT_LIMIT_BYTES, Accepted, Failed, classify, retry_after_ns

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEFAULT_PORT = 4317

HEADERS_EVERY_S = 1.0
"""How often the files of headers are looked at."""

log = logging.getLogger(__name__)

_OPTIONS = (
    ("grpc.primary_user_agent", f"sampler-proxy/{__version__}"),
    ("grpc.enable_retries", 0),  # ours are counted, and know RetryInfo
    # A connection of its own: one destination's reconnect backoff does not hold up another to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own backoff would grow to two minutes, and our tries fail at once while it lasts.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5000),  # which is how long connecting may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Not for the pings (Go servers punish those that come more often than every five minutes), but because keepalive
    # makes gRPC set TCP_USER_TIMEOUT to this timeout: a peer that vanished is given up after that, not after the
    # kernel's quarter hour.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class GrpcExporter(Exporter):
    """One OTLP/gRPC back end as a destination, over a channel of its own."""

    def __init__(self, config: GrpcExport, dependencies: Dependencies) -> None:
        persistence = Persistence(config.retry.initial_ns, config.retry.max_ns, config.retry.give_up_ns)
        # Whoever asks for larger batches knows of a larger limit.
        limit_bytes = max(DEFAULT_LIMIT_BYTES, config.batch.max_bytes)
        super().__init__(config, dependencies, persistence, concurrency=config.concurrency, limit_bytes=limit_bytes)
        self.place = f"{config.endpoint}: "
        self._target, self._secure = _target(config.endpoint)
        self._timeout = config.timeout_ns / 1e9
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._headers = Headers(config.headers)
        self._channel: grpc.aio.Channel | None = None

    def start(self) -> None:
        try:
            self._headers.read()
        except UnusableError as error:
            raise StartError(f"export {self.name}: {error}") from error
        self._metadata = grpc.aio.Metadata(*self._headers.items())
        if self._secure:
            try:
                credentials = grpc.ssl_channel_credentials(_system_roots())
            except OSError as error:
                raise StartError(f"export {self.name}: cannot read {error.filename}: {error.strerror}") from error
            self._channel = grpc.aio.secure_channel(
                self._target, credentials, options=_OPTIONS, compression=self._compression
            )
        else:
            self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS, compression=self._compression)
        self._export = self._channel.unary_unary(EXPORT)  # bytes in, bytes out
        super().start()
        if self._headers.from_files:
            self._tasks.append(asyncio.get_running_loop().create_task(self._follow_headers()))

    async def _follow_headers(self) -> None:
        """Read the files of headers again when they change. What was refused for its credentials is tried at once."""
        while True:
            await asyncio.sleep(HEADERS_EVERY_S)
            try:
                changed = await asyncio.to_thread(self._headers.read)
            except UnusableError as error:
                self.report.complain("headers", 0, f"headers stay as they were: {error}")
                continue
            if changed:
                self._metadata = grpc.aio.Metadata(*self._headers.items())
                log.info("export %s: headers read again from %s", self.name, ", ".join(changed))
                self._try_all_now()

    async def stop(self) -> int:
        lost = await super().stop()
        if self._channel is not None:
            await self._channel.close()
        return lost

    async def _send(self, request: bytes) -> Accepted | Failed:
        try:
            response = await self._export(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            after_ns = retry_after_ns(error.trailing_metadata())
            return classify(error.code(), error.details(), len(request), after_ns, secure=self._secure)
        return Accepted(_rejected_spans(response))


def _rejected_spans(response: bytes | None) -> int:
    """Return how many spans a partial success rejects; 0 for a response that is missing or cannot be read, since its
    status was OK. The message of a partial success stays unread: it may quote attribute values."""
    try:
        return ExportTraceServiceResponse.FromString(response or b"").partial_success.rejected_spans
    except DecodeError:
        return 0


def _target(endpoint: str) -> tuple[str, bool]:
    """Split `http[s]://host[:port]` into what gRPC dials and whether by TLS."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{url.port or DEFAULT_PORT}", url.scheme == "https"


def _system_roots() -> bytes | None:
    """Read the certificates that the system, or SSL_CERT_FILE, trusts. gRPC's own list, which lacks every company's own
    authority, remains for a system without any (None). Raises OSError."""
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
