"""Sends requests over OTLP/gRPC. The meaning of answers is defined in `retry`."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from sampler_proxy import __version__
from sampler_proxy.config.model import GrpcExport
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.lasting import is_to_end
from sampler_proxy.export.reasons import LOST
from sampler_proxy.export.retry import Accepted, Failed, Fault, classify, retry_after_ns
from sampler_proxy.export.signals import rejected_items
from sampler_proxy.export.transport import Transport
from sampler_proxy.otlp.metadata import Metadata
from sampler_proxy.otlp.signals import Signal

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


class GrpcLink:
    """A channel to one address, with a call for each signal: bytes in, bytes out."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.calls = {signal: channel.unary_unary(signal.method) for signal in Signal}

    @property
    def ready(self) -> bool:
        """Tell whether the channel is connected, and have it connect if it is not."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def close(self, grace_s: float | None = None) -> None:
        """Close the channel once its calls have ended, or after `grace_s`; None: at once."""
        await self._channel.close(grace_s)


class GrpcTransport(Transport[GrpcLink]):
    """The way to one OTLP/gRPC back end."""

    default_ports = 4317, 4317

    def __init__(self, config: GrpcExport, dependencies: Dependencies) -> None:
        super().__init__(config, dependencies)
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._metadata = grpc.aio.Metadata()

    def start(self) -> None:
        # Now, while there are descriptors: without one for its wake-up socket grpcio ends the process, and channels are
        # opened at the first try only.
        grpc.aio.init_grpc_aio()
        super().start()

    def _use_headers(self) -> None:
        super()._use_headers()
        self._metadata = grpc.aio.Metadata(*self._headers_in_use)

    def _open_link(self, address: str | None) -> GrpcLink:
        authority = f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        target = authority if address is None else _target(address, self._port)
        name = self.certificates.server_name
        options: list[tuple[str, str | int]] = [*_OPTIONS, ("grpc.default_authority", name or authority)]
        # Decided here, and not by gRPC, which reads fewer variables, and would send addresses through a proxy that
        # names do not need.
        options.append(("grpc.http_proxy", self._proxy) if self._proxy else ("grpc.enable_http_proxy", 0))
        if not self._secure:
            return GrpcLink(grpc.aio.insecure_channel(target, options=options, compression=self._compression))
        options.append(("grpc.ssl_target_name_override", name or self._host))
        credentials = self.certificates.for_grpc()
        return GrpcLink(grpc.aio.secure_channel(target, credentials, options=options, compression=self._compression))

    async def _send_over(
        self, link: GrpcLink, signal: Signal, request: bytes, metadata: Metadata, timeout_s: float
    ) -> Accepted | Failed | None:
        sent = self._metadata
        if metadata:
            names = dict(metadata)
            sent = grpc.aio.Metadata(*(each for each in self._headers_in_use if each[0] not in names), *metadata)
        try:
            response = await link.calls[signal](request, timeout=timeout_s, metadata=sent)
        except grpc.aio.UsageError:  # the channel was given up before the call began: nothing was sent
            return None
        except asyncio.CancelledError as error:
            if is_to_end(error):
                raise
            # Nobody has cancelled this task: the channel was closed, which ends its calls in this way.
            return Failed(Fault.LOST, grpc.StatusCode.CANCELLED.name, LOST)
        except grpc.aio.AioRpcError as error:
            after_ns = retry_after_ns(error.trailing_metadata())
            return classify(error.code(), error.details(), len(request), after_ns, secure=self._secure)
        return Accepted(rejected_items(response or b""))  # a response may be missing, though its status was OK


def _target(address: str, port: int) -> str:
    """Write an address as a target of gRPC."""
    return f"ipv6:%5B{address}%5D:{port}" if ":" in address else f"ipv4:{address}:{port}"
