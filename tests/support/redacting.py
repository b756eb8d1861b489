"""A pipeline that keeps everything and redacts: requests in, one request and the counts out. Without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy import metrics
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.redact.policy import Policy

TRACE_ID = bytes(range(1, 17))
SPAN_ID = bytes(range(1, 9))


def policy(settings: Mapping[str, Any]) -> Policy | None:
    return load_config(Config.model_validate({"redact": settings}, by_alias=True, by_name=False)).redact


class Redacting:
    def __init__(self, settings: Mapping[str, Any] | Policy, seed: int = 1) -> None:
        self.kept: list[KeptTrace] = []
        redact = settings if isinstance(settings, Policy) else policy(settings)
        self.pipeline = Pipeline(
            rules=(["all"], [1.0], load_config(Config(rules=(Config.DEFAULT_RULES[-1],))).compiled),
            destinations=[self],
            max_bytes=1 << 30,
            max_trace_bytes=1 << 29,
            wait_ns=1,
            wait_after_root_ns=1,
            decision_memory_bytes=1 << 20,
            stamp_decision=False,
            stamp_adjusted_count=False,
            seed=seed,
            redact=redact,
        )

    def offer(self, trace: KeptTrace) -> bool:
        self.kept.append(trace)
        return True

    def run(self, requests: Iterable[bytes | ExportTraceServiceRequest]) -> bytes:
        """Each call is a time of its own: late spans do not come to it."""
        self.kept.clear()
        accept = self.pipeline.intake("grpc").accept
        for request in requests:
            accept(request if isinstance(request, bytes) else request.SerializeToString(), 1)
        while self.pipeline.drain(2):
            pass
        return assemble(self.kept)

    def counts(self) -> dict[tuple[str, ...], float]:
        return dict(self.pipeline.instant(2).values()[metrics.REDACTIONS])  # type: ignore[arg-type]


def redacted(settings: Mapping[str, Any], *requests: bytes | ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    raw = (request if isinstance(request, bytes) else request.SerializeToString() for request in requests)
    return ExportTraceServiceRequest.FromString(assemble([one.trace for one in replay.redact(raw, policy(settings))]))


def request_of(span: Span, resource: Mapping[str, Any] | None = None) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(pairs(resource or {}))
    if not span.trace_id:
        span.trace_id, span.span_id = TRACE_ID, SPAN_ID
    resource_spans.scope_spans.add().spans.append(span)
    return request


def any_value(value: Any) -> AnyValue:
    """Of str, bool, int, float, bytes, list, dict."""
    found = AnyValue()
    if isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, str):
        found.string_value = value
    elif isinstance(value, int):
        found.int_value = value
    elif isinstance(value, float):
        found.double_value = value
    elif isinstance(value, bytes):
        found.bytes_value = value
    elif isinstance(value, list):
        found.array_value.values.extend(map(any_value, value))
    else:
        found.kvlist_value.values.extend(pairs(value))
    return found


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {attribute.key: _plain(attribute.value) for attribute in attributes}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(element) for element in value.array_value.values]
    if kind == "kvlist_value":
        return plain(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def attributes_after(settings: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a span's attributes."""
    request = redacted(settings, request_of(Span(attributes=pairs(attributes))))
    return plain(request.resource_spans[0].scope_spans[0].spans[0].attributes)


def text_after(settings: Mapping[str, Any], text: str) -> str:
    """What becomes of an attribute's value."""
    found = attributes_after(settings, {"k": text})["k"]
    assert isinstance(found, str)
    return found
