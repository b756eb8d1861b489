"""Drives a pipeline by hand: rules in, requests at given times in, kept traces out, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from sampler_proxy import metrics
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.parse import parse

SECOND = 1_000_000_000
WAIT = 30 * SECOND
WAIT_AFTER_ROOT = 5 * SECOND
MIB = 1 << 20

KEEP_ALL: list[tuple[str, str | None, float]] = [("all", None, 1.0)]
KEEP_NONE: list[tuple[str, str | None, float]] = [("none", None, 0.0)]
ERRORS: list[tuple[str, str | None, float]] = [("errors", "{ status = error }", 1.0), ("rest", None, 0.0)]


class Destination:
    """Takes traces until it holds `room` of them; None: without end."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.traces: list[KeptTrace] = []

    def offer(self, trace: KeptTrace) -> bool:
        if self.room is not None and len(self.traces) >= self.room:
            return False
        self.traces.append(trace)
        return True


def rules_of(rules: Iterable[tuple[str, str | None, float]], early: bool = False) -> tuple[Any, ...]:
    """Compile (name, TraceQL or None, probability) of each rule to the `rules` of a Pipeline. Unless `early`, no rule
    decides before its time, so that the other triggers can be seen with rules that keep everything."""
    rules = list(rules)
    compiled = compile_rules([(None if match is None else parse(match), None) for _, match, _ in rules])
    if not early:
        compiled = replace(compiled, monotone=(False,) * len(rules))
    names, keeps = [name for name, _, _ in rules], [keep for _, _, keep in rules]
    return names, keeps, compiled


class Driver:
    def __init__(
        self,
        rules: Iterable[tuple[str, str | None, float]] | None = None,
        *,
        native: tuple[Any, ...] | None = None,
        destinations: Iterable[Destination] | None = None,
        **settings: Any,
    ) -> None:
        """Build a pipeline of rules as text, or already compiled (`native`); `settings` as a Pipeline has them."""
        self.destinations = [Destination()] if destinations is None else list(destinations)
        self.pipeline = Pipeline(
            rules=native if native is not None else rules_of(KEEP_ALL if rules is None else rules),
            destinations=self.destinations,
            **{
                "max_bytes": 64 * MIB,
                "max_trace_bytes": 32 * MIB,
                "wait_ns": WAIT,
                "wait_after_root_ns": WAIT_AFTER_ROOT,
                "decision_memory_bytes": MIB,
                "stamp_decision": True,
                "stamp_adjusted_count": False,
                "seed": 12345,
                **settings,
            },
        )
        self.intake = self.pipeline.intake("grpc")

    def send(self, request: ExportTraceServiceRequest | bytes, at_ns: int = 0) -> bytes:
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        answer = self.intake.accept(raw, at_ns)
        try:
            while self.pipeline.finish():
                pass
        except MemoryError:  # what is left stays in the line
            pass
        return answer

    def tick(self, at_ns: int) -> None:
        while self.pipeline.tick(at_ns):
            pass

    def kept(self) -> ExportTraceServiceRequest:
        """Join all traces that the first destination has taken to one request, read by the official parser."""
        return ExportTraceServiceRequest.FromString(assemble(self.destinations[0].traces))

    def values(self, now_ns: int = 0) -> Mapping[metrics.Metric, Mapping[tuple[str, ...], Any]]:
        with self.pipeline.lock:
            instant = self.pipeline.instant(now_ns)
        return instant.values()

    def total(self, metric: metrics.Metric) -> int:
        return int(sum(self.values()[metric].values()))

    def check_ledger(self) -> None:
        """Assert that received = sampled out + buffered + kept."""
        values = self.values()
        received, sampled_out, buffered, kept = (
            sum(values[metric].values())
            for metric in (
                metrics.SPANS_RECEIVED,
                metrics.SPANS_SAMPLED_OUT,
                metrics.BUFFER_SPANS,
                metrics.SPANS_KEPT,
            )
        )
        assert received == sampled_out + buffered + kept


def request(
    *spans: tuple[int, int],
    root: bool = False,
    error: bool = False,
    size: int = 0,
    service: str = "shop",
    trace_state: str = "",
) -> ExportTraceServiceRequest:
    """Build a request with a span for each (trace number, span number). `root`: spans have no parent; `size`: bytes of
    padding in each."""
    message = ExportTraceServiceRequest()
    resource_spans = message.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "test"
    for trace, span in spans:
        one = scope_spans.spans.add(
            trace_id=trace_id(trace),
            span_id=span.to_bytes(8),
            parent_span_id=b"" if root else b"\xff" * 8,
            name="GET /",
            start_time_unix_nano=SECOND,
            end_time_unix_nano=2 * SECOND,
            trace_state=trace_state,
        )
        if error:
            one.status.code = Status.STATUS_CODE_ERROR
        if size:
            one.attributes.add(key="padding").value.string_value = "x" * size
    return message


def trace_id(number: int) -> bytes:
    """Return a trace id whose randomness (the low 7 bytes) is 2^55: a 50 % rule keeps it, and a 49 % rule does not."""
    return number.to_bytes(9) + b"\x80" + bytes(6)
