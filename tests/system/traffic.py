"""Traffic for the proxy: traces made to measure, a client that says how it was answered, and senders that flood it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

import grpc
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status as RpcStatus  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support import nezha, reference

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
START_NS = 1_700_000_000_000_000_000


class Client:
    """One connection, which comes back quickly. Bytes or messages out, parsed responses back; grpc.RpcError else."""

    def __init__(self, port: int, compression: grpc.Compression = grpc.Compression.NoCompression) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options, compression)
        self._call = self._channel.unary_unary(EXPORT)

    def export(self, request: ExportTraceServiceRequest | bytes, timeout: float = 20.0) -> ExportTraceServiceResponse:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return ExportTraceServiceResponse.FromString(self._call(data, timeout=timeout))

    def refusal(self, request: ExportTraceServiceRequest | bytes) -> tuple[grpc.StatusCode, float | None]:
        """Status and RetryInfo of a request that must be refused."""
        try:
            answer = self.export(request)
        except grpc.RpcError as error:
            return error.code(), retry_after_s(error)
        raise AssertionError(f"was not refused: {answer}")

    def close(self) -> None:
        self._channel.close()


def retry_after_s(error: grpc.RpcError) -> float | None:
    """The RetryInfo of a refusal, which must be the same in both trailers."""
    trailers = dict(error.trailing_metadata() or ())
    infos = []
    if "google.rpc.retryinfo-bin" in trailers:
        infos.append(RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]))
    if "grpc-status-details-bin" in trailers:
        for detail in RpcStatus.FromString(trailers["grpc-status-details-bin"]).details:
            info = RetryInfo()
            if detail.Unpack(info):
                infos.append(info)
    if not infos:
        return None
    first, second = infos
    assert first == second
    return float(first.retry_delay.ToNanoseconds() / 1e9)


def add_trace(
    request: ExportTraceServiceRequest,
    random: Random,
    *,
    spans: int = 3,
    error: bool = False,
    rooted: bool = True,
    fill: int = 0,
) -> bytes:
    """One more trace, 10 ms long, and its id. `fill`: bytes of an attribute of every span."""
    trace_id = random.randbytes(16)
    resource_spans = request.resource_spans[0] if request.resource_spans else request.resource_spans.add()
    if not resource_spans.scope_spans:
        resource_spans.resource.attributes.add(key="service.name").value.string_value = "made"
        resource_spans.scope_spans.add().scope.name = "traffic"
    parent = b"" if rooted else random.randbytes(8)
    for number in range(spans):
        span = resource_spans.scope_spans[0].spans.add(
            trace_id=trace_id,
            span_id=random.randbytes(8),
            parent_span_id=parent,
            name=f"step {number}",
            start_time_unix_nano=START_NS,
            end_time_unix_nano=START_NS + 10_000_000,
        )
        if fill:
            span.attributes.add(key="fill").value.string_value = "x" * fill
        parent = span.span_id
    if error:
        resource_spans.scope_spans[0].spans[-1].status.code = Status.STATUS_CODE_ERROR
    return trace_id


def one_trace(random: Random, **settings: object) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    add_trace(request, random, **settings)  # type: ignore[arg-type]
    return request


def span_ids(request: ExportTraceServiceRequest) -> set[bytes]:
    return {span.span_id for span in nezha.spans([request])}


class Flood:
    """`senders` threads, each with a client of its own, send without pause what `make` makes; what is refused is sent
    again until it is taken. `stop` ends them.

    `acknowledged` are the requests that were answered with OK, each after all that its sender had sent before, and
    `answers` counts them by sender. `refused` counts UNAVAILABLE with RetryInfo; `broken` are the senders that met it
    without (the connection is gone), or, with `cancels`, whose request was on its way when the proxy was stopped.
    Anything else is in `faults`.
    """

    PAUSE_S = 0.02  # instead of what RetryInfo says: the more who knock the better

    def __init__(
        self, port: int, make: Callable[[Random], ExportTraceServiceRequest], senders: int = 4, cancels: bool = False
    ) -> None:
        self.acknowledged: list[ExportTraceServiceRequest] = []
        self.answers = [0] * senders
        self.refused = 0
        self.broken: set[int] = set()
        self.faults: list[str] = []
        self._make = make
        self._cancels = cancels
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(senders)]
        for thread in self._threads:
            thread.start()

    def _run(self, sender: int) -> None:
        random = Random(sender)
        client = Client(self._port)
        try:
            while not self._stop.is_set():
                request = self._make(random)
                while not self._sent(sender, client, request) and not self._stop.wait(self.PAUSE_S):
                    pass
        finally:
            client.close()

    def _sent(self, sender: int, client: Client, request: ExportTraceServiceRequest) -> bool:
        try:
            answer = client.export(request)
        except grpc.RpcError as error:
            retry_s = retry_after_s(error)
            with self._lock:
                if self._cancels and error.code() is grpc.StatusCode.CANCELLED:
                    self.broken.add(sender)
                elif error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.faults.append(f"{error.code()} {error.details()}")
                elif retry_s is None:
                    self.broken.add(sender)
                else:
                    self.refused += 1
                    if not 0 < retry_s <= 2:
                        self.faults.append(f"RetryInfo of {retry_s} s")
            return False
        with self._lock:
            self.acknowledged.append(request)
            self.answers[sender] += 1
            if answer.HasField("partial_success"):
                self.faults.append("a partial success")
        return True

    def stop(self) -> list[ExportTraceServiceRequest]:
        """The acknowledged requests."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        assert not self.faults, self.faults[:10]
        return self.acknowledged


def kept_span_ids(requests: list[ExportTraceServiceRequest], keep: Callable[[reference.Trace], bool]) -> set[bytes]:
    return {one.span.span_id for trace in reference.traces(requests).values() if keep(trace) for one in trace}


def has_error(trace: reference.Trace) -> bool:
    return any(one.span.status.code == Status.STATUS_CODE_ERROR for one in trace)
