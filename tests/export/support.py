"""What the tests of this folder share: kept traces made of genuine OTLP bytes, and real gRPC servers as back ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from sampler_proxy.export.exporter import Exporter
from tests.support import nezha
from tests.support.sink import serve


class Trace:
    """One trace: an ExportTraceServiceRequest of one ResourceSpans."""

    __slots__ = ("__weakref__", "data", "metadata", "spans", "trace_id")

    def __init__(self, number: int, spans: int = 2, padding: int = 0, metadata: bytes = b"") -> None:
        self.metadata = metadata
        self.trace_id = number.to_bytes(16, "big")
        self.spans = spans
        request = ExportTraceServiceRequest()
        scope_spans = request.resource_spans.add().scope_spans.add()
        for i in range(spans):
            span = scope_spans.spans.add(trace_id=self.trace_id, span_id=(i + 1).to_bytes(8, "big"), name="GET /")
            span.trace_state = "x" * padding
        self.data = request.SerializeToString()

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def header_bytes(self, _: set[int]) -> int:
        return 0  # in `nbytes`


def assemble(traces: Sequence[Trace]) -> bytes:
    """Messages that follow one another are one message."""
    return b"".join(trace.data for trace in traces)


class Kept:
    """A trace of any size, without the bytes. `headers`: their sizes by their numbers."""

    metadata = b""

    def __init__(self, nbytes: int, spans: int = 1, headers: Mapping[int, int] | None = None) -> None:
        self.trace_id = bytes(16)
        self.nbytes = nbytes
        self.spans = spans
        self.headers = headers or {}

    def header_bytes(self, seen: set[int]) -> int:
        new = self.headers.keys() - seen
        seen |= new
        return sum(self.headers[number] for number in new)


def request_bytes(batch: Iterable[Kept]) -> int:
    """What a request of these traces takes."""
    seen: set[int] = set()
    return sum(trace.nbytes + trace.header_bytes(seen) for trace in batch)


def numbers(request: ExportTraceServiceRequest) -> list[int]:
    """Which traces a request holds."""
    ids = dict.fromkeys(span.trace_id for span in nezha.spans([request]))
    return [int.from_bytes(trace_id, "big") for trace_id in ids]


@dataclass
class Received:
    traces: list[int]
    at: float
    nbytes: int
    metadata: dict[str, str | bytes]


Answer = Callable[[ExportTraceServiceRequest, grpc.ServicerContext], ExportTraceServiceResponse | None]


@dataclass
class Backend:
    """A gRPC server on loopback. `answer` may abort the call, return a response, or None for a plain success.

    `seen` are all requests, `stored` counts the spans of those that it answered with OK.
    """

    answer: Answer = lambda _request, _context: None
    port: int = 0
    host: str = "localhost"
    max_receive_bytes: int = -1
    credentials: grpc.ServerCredentials | None = None
    seen: list[Received] = field(default_factory=list)
    stored: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        self.server, self.port = serve(
            self._export,
            self.port,
            host=self.host,
            threads=16,
            max_receive_bytes=self.max_receive_bytes,
            credentials=self.credentials,
        )

    def stop(self) -> None:
        """At once: calls under way are cut off."""
        self.server.stop(None).wait(10)

    def _export(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = ExportTraceServiceRequest.FromString(data)
        metadata = {pair.key: pair.value for pair in context.invocation_metadata()}
        with self.lock:
            self.seen.append(Received(numbers(request), time.monotonic(), len(data), metadata))
        response = self.answer(request, context) or ExportTraceServiceResponse()
        with self.lock:
            self.stored.update(int.from_bytes(span.trace_id, "big") for span in nezha.spans([request]))
        return response.SerializeToString()


def retry_info(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    return RetryInfo(retry_delay=delay)


def status_details(*details: Any) -> bytes:
    status = Status(code=14)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status.SerializeToString()


@asynccontextmanager
async def running(exporter: Exporter) -> AsyncIterator[Exporter]:
    """Started, and stopped in the end; then the ledger must balance."""
    exporter.start()
    try:
        yield exporter
    finally:
        await exporter.stop()
        c = exporter.queue.counters()
        assert c.queued_spans == c.queued_bytes == 0
        assert c.routed_spans == c.exported_spans + c.rejected_spans + sum(c.lost_spans.values())


def in_seconds(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def offer(exporter: Exporter, numbers: Iterable[int], **kwargs: int) -> None:
    for number in numbers:
        assert exporter.queue.offer(Trace(number, **kwargs))


async def offer_until_rejected(exporter: Exporter, number: int) -> int:
    """Offer one trace after the other, numbered from the one behind `number`, until spans have been rejected; return
    the last number."""
    deadline = time.monotonic() + 60
    while not exporter.queue.counters().rejected_spans:
        assert time.monotonic() < deadline, "waited in vain"
        number += 1
        offer(exporter, [number])
        await asyncio.sleep(0.01)
    return number


def counts(exporter: Exporter) -> tuple[int, int, Mapping[str, int]]:
    """Spans exported, rejected, and lost by reason."""
    c = exporter.queue.counters()
    return c.exported_spans, c.rejected_spans, c.lost_spans


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
