"""Exports kept traces to an OTLP back end, over the transport of its protocol."""

from __future__ import annotations

from typing import Any

from sampler_proxy.config.model import GrpcExport, HttpExport, OtlpExport
from sampler_proxy.export.exporter import Dependencies, Exporter, Persistence
from sampler_proxy.export.otlp_grpc import GrpcTransport
from sampler_proxy.export.otlp_http import HttpTransport
from sampler_proxy.export.retry import DEFAULT_LIMIT_BYTES, Accepted, Failed
from sampler_proxy.export.transport import Transport
from sampler_proxy.otlp.metadata import decode
from sampler_proxy.otlp.signals import Signal


class OtlpExporter(Exporter):
    """One OTLP back end as a destination. `transport` may be used by others from `start` to `stop`."""

    def __init__(self, config: OtlpExport, dependencies: Dependencies) -> None:
        persistence = Persistence(config.retry.initial_ns, config.retry.max_ns, config.retry.give_up_ns)
        # Whoever asks for larger batches knows of a larger limit.
        limit_bytes = max(DEFAULT_LIMIT_BYTES, config.batch.max_bytes)
        super().__init__(config, dependencies, persistence, concurrency=config.concurrency, limit_bytes=limit_bytes)
        self.transport = transport_of(config, dependencies)
        self.transport.on_renewal.append(self._try_all_now)
        self.place = self.transport.place

    @property
    def certificate_expires_s(self) -> float | None:
        return self.transport.certificates.expires_s

    def start(self) -> None:
        self.transport.start()
        super().start()

    async def stop(self) -> int:
        lost = await super().stop()
        await self.transport.close()
        return lost

    async def _send(self, request: bytes, metadata: bytes) -> Accepted | Failed:
        return await self.transport.send(Signal.TRACES, request, decode(metadata) if metadata else ())


def transport_of(config: OtlpExport, dependencies: Dependencies) -> Transport[Any]:
    """Make the transport that a destination's protocol asks for."""
    if isinstance(config, HttpExport):
        return HttpTransport(config, dependencies)
    assert isinstance(config, GrpcExport)
    return GrpcTransport(config, dependencies)
