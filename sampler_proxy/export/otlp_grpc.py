"""Exports kept traces over OTLP/gRPC.

The meaning of answers is defined in `retry`. Any try may have been stored by the back end although no answer came, so
duplicates are possible, as OTLP allows.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sampler_proxy import __version__
from sampler_proxy.config.authorities import read_authorities
from sampler_proxy.config.model import GrpcExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies, Exporter, Persistence
from sampler_proxy.export.headers import Headers, UnusableError
from sampler_proxy.export.peers import Peers
from sampler_proxy.export.proxies import proxy_for, usable, without_credentials
from sampler_proxy.export.reasons import LOST, NO_NAME, UNCONNECTED
from sampler_proxy.export.retry import DEFAULT_LIMIT_BYTES, Accepted, Failed, Fault, classify, retry_after_ns

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEFAULT_PORT = 4317

FILES_EVERY_S = 1.0
"""How often the files of headers and certificates are looked at."""

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
    """One OTLP/gRPC back end as a destination, over channels of its own, one for each address."""

    def __init__(self, config: GrpcExport, dependencies: Dependencies) -> None:
        persistence = Persistence(config.retry.initial_ns, config.retry.max_ns, config.retry.give_up_ns)
        # Whoever asks for larger batches knows of a larger limit.
        limit_bytes = max(DEFAULT_LIMIT_BYTES, config.batch.max_bytes)
        super().__init__(config, dependencies, persistence, concurrency=config.concurrency, limit_bytes=limit_bytes)
        self.place = f"{config.endpoint}: "
        self._host, self._port, self._secure = _address(config.endpoint)
        self._named_proxy = proxy_for(self._host, self._port, dependencies.environ)
        self._proxy = self._named_proxy if self._named_proxy and usable(self._named_proxy) else None
        self._timeout = config.timeout_ns / 1e9
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._headers = Headers(config.headers)
        self._ca_file = config.tls.ca_file
        self._roots: bytes | None = None
        self._peers: Peers | None = None

    def start(self) -> None:
        try:
            self._headers.read()
        except UnusableError as error:
            raise StartError(f"export {self.name}: {error}") from error
        self._use_headers()
        if self._secure:
            self._roots = self._read_roots()
        authority = f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        options = [*_OPTIONS, *self._proxy_options(), ("grpc.default_authority", authority)]
        if self._secure:
            options.append(("grpc.ssl_target_name_override", self._host))

        def open_channel(target: str) -> grpc.aio.Channel:
            if not self._secure:
                return grpc.aio.insecure_channel(target, options=options, compression=self._compression)
            credentials = grpc.ssl_channel_credentials(self._roots)
            return grpc.aio.secure_channel(target, credentials, options=options, compression=self._compression)

        # Now, while there are descriptors: without one for its wake-up socket grpcio ends the process, and channels are
        # opened at the first try only.
        grpc.aio.init_grpc_aio()
        self._peers = Peers(
            self._host,
            self._port,
            EXPORT,
            open_channel,
            self._clock,
            linger_s=self._timeout + 1,
            fixed_target=authority if self._proxy else None,
        )
        super().start()
        loop = asyncio.get_running_loop()
        self._tasks.append(self._lasting(loop, self._peers.follow))
        if self._headers.from_files:
            self._tasks.append(self._lasting(loop, self._follow_headers))
        if self._ca_file is not None:
            self._tasks.append(self._lasting(loop, self._follow_roots))

    def _proxy_options(self) -> list[tuple[str, str | int]]:
        """Decide for gRPC, which reads fewer variables, and would send addresses through a proxy that names do not
        need."""
        if self._named_proxy and not self._proxy:
            log.warning(
                "export %s: %s:%d is reached without the proxy of the environment, %s: only http://HOST:PORT is "
                "supported",
                self.name,
                self._host,
                self._port,
                without_credentials(self._named_proxy),
            )
        if self._proxy is None:
            return [("grpc.enable_http_proxy", 0)]
        log.info(
            "export %s: %s:%d is reached through the HTTP proxy %s",
            self.name,
            self._host,
            self._port,
            without_credentials(self._proxy),
        )
        return [("grpc.http_proxy", self._proxy)]

    async def _follow_headers(self) -> None:
        """Read the files of headers again when they change. What was refused for its credentials is tried at once."""
        while True:
            await asyncio.sleep(FILES_EVERY_S)
            try:
                await asyncio.to_thread(self._headers.read)
            except UnusableError as error:  # of some of the files
                self.report.complain("headers", 0, f"headers stay as they were: {error}")
            if changed := self._headers.changed_since(self._headers_in_use):
                self._use_headers()
                log.info("export %s: headers read again from %s", self.name, ", ".join(changed))
                self._try_all_now()

    def _read_roots(self) -> bytes | None:
        """Read the certificates to trust; None: those that gRPC brings along. Raises StartError."""
        try:
            return _system_roots() if self._ca_file is None else read_authorities(self._ca_file)
        except OSError as error:
            raise StartError(f"export {self.name}: cannot read {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise StartError(f"export {self.name}: tls.ca_file {self._ca_file}: {error}") from error

    async def _follow_roots(self) -> None:
        """Read the file of certificates again and again; when it has changed, connect anew and try at once."""
        assert self._ca_file is not None
        assert self._peers is not None
        while True:
            await asyncio.sleep(FILES_EVERY_S)
            try:
                roots = await asyncio.to_thread(read_authorities, self._ca_file)
            except ValueError as error:
                self.report.complain("roots", 0, f"tls.ca_file stays as it was: {self._ca_file}: {error}")
                continue
            if roots != self._roots:
                self._roots = roots
                self._peers.renew()
                log.info("export %s: certificates read again from %s", self.name, self._ca_file)
                self._try_all_now()

    def _use_headers(self) -> None:
        self._headers_in_use = self._headers.items()
        self._metadata = grpc.aio.Metadata(*self._headers_in_use)

    async def stop(self) -> int:
        lost = await super().stop()
        if self._peers is not None:
            await self._peers.close()
        return lost

    async def _send(self, request: bytes) -> Accepted | Failed:
        assert self._peers is not None
        deadline_ns = self._clock() + int(self._timeout * 1e9)
        peers = []
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):  # the name may have to be resolved
                peers = await self._peers.candidates()
        failed = Failed(Fault.UNREACHABLE, grpc.StatusCode.UNAVAILABLE.name, UNCONNECTED if peers else NO_NAME)
        for peer in peers:
            if not self._peers.uses(peer):  # given up while another one was tried
                continue
            left_s = (deadline_ns - self._clock()) / 1e9
            if left_s <= 0:
                break
            channel = peer.channel
            try:
                response = await peer.call(request, timeout=left_s, metadata=self._metadata)
            except grpc.aio.UsageError:  # the channel was given up before the call began: nothing was sent
                continue
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody has cancelled this task: the channel was closed, which ends its calls in this way.
                failed = Failed(Fault.LOST, grpc.StatusCode.CANCELLED.name, LOST)
            except grpc.aio.AioRpcError as error:
                after_ns = retry_after_ns(error.trailing_metadata())
                failed = classify(error.code(), error.details(), len(request), after_ns, secure=self._secure)
            else:
                self._peers.answered(peer, channel)
                return Accepted(_rejected_spans(response))
            if failed.fault is Fault.TIMEOUT and left_s < self._timeout / 2:
                pass  # most of the time went to other addresses: that is not this one's fault
            elif failed.fault in (Fault.UNREACHABLE, Fault.LOST, Fault.TIMEOUT):
                self._peers.failed(peer, channel, timeout=failed.fault is Fault.TIMEOUT)
            else:
                self._peers.answered(peer, channel)
            if failed.fault is not Fault.UNREACHABLE:  # else nothing was sent: another address may be better
                break
        return failed


def _rejected_spans(response: bytes | None) -> int:
    """Return how many spans a partial success rejects; 0 for a response that is missing or cannot be read, since its
    status was OK. The message of a partial success stays unread: it may quote attribute values."""
    try:
        return ExportTraceServiceResponse.FromString(response or b"").partial_success.rejected_spans
    except DecodeError:
        return 0


def _address(endpoint: str) -> tuple[str, int, bool]:
    """Split `http[s]://host[:port]` into host and port, and whether it is TLS."""
    url = urlsplit(endpoint)
    return url.hostname or "", url.port or DEFAULT_PORT, url.scheme == "https"


def _system_roots() -> bytes | None:
    """Read the certificates that the system, or SSL_CERT_FILE, trusts. gRPC's own list, which lacks every company's own
    authority, remains for a system without any (None). Raises OSError."""
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
