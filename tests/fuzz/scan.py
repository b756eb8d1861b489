"""Requests: accepted is what the official parser accepts, and every span of it is accounted for to the end.

All that may escape is MalformedRequest. What is kept is what came in: as many valid spans, in bytes that the official
parser reads, strings and all. A second pipeline has rules that look at everything, drops some, and has to balance.
"""

from __future__ import annotations

from array import array

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from tests.otlp import official
from tests.pipeline.driver import KEEP_ALL, Driver, rules_of
from tests.pipeline.test_scanner import BUSY, IDLE
from tests.support import reference

ALL = rules_of(KEEP_ALL)
RULES = [
    ("errors", '{ status = error && (span.k = "x" || event.k != nil || name =~ "GET .*") }', 1.0),
    ("structure", '{ .k != nil } >> { kind = server } || { link.k = 2 } !< { resource.service.name = "shop" }', 1.0),
    ("aggregates", "{ span.k + 1 > duration / 1s } | avg(span.k) > 1.5", 0.5),
    ("many", "{ traceDuration > 1s } | count() > 2", 1.0),
    ("rest", None, 0.5),
]
SOME = rules_of(RULES, early=True)


DEPRECATED_SCOPE_SPANS = 1000


def one(data: bytes) -> None:
    message = official.structure(data)
    if message is not None and any(
        field.field_number == DEPRECATED_SCOPE_SPANS
        for outer in message.resource_spans
        for field in UnknownFieldSet(outer)
    ):
        return  # spans to the scan, unknown to the official classes: tests/pipeline has them
    exact = array("B", data)  # a block that ends where the bytes end, so that a sanitizer sees a read beyond them
    for scanner in (IDLE, BUSY):
        try:
            scanned = scanner.scan(exact)
        except MalformedRequest:
            assert message is None, "refused, but it is sound"
        else:
            assert message is not None, "accepted, but it is damaged"
            assert scanned.spans + scanned.invalid_trace_ids + scanned.invalid_span_ids == len(spans_of(message))
    valid = [span for span in spans_of(message) if reference.invalid(span) is None]
    assert _through(ALL, data, message is not None) == len(valid)
    _through(SOME, data, message is not None)


def spans_of(message: object) -> list[object]:
    if message is None:
        return []
    return [s for outer in message.resource_spans for inner in outer.scope_spans for s in inner.spans]  # type: ignore[attr-defined]


def _through(rules: tuple[object, ...], data: bytes, sound: bool) -> int:
    """Through a pipeline and out of it; the number of spans that were kept."""
    driver = Driver(native=rules)
    try:
        answer = driver.send(data, 1)
    except MalformedRequest:
        assert not sound
        return 0
    except RequestTooLarge:
        return 0
    assert sound
    ExportTraceServiceResponse.FromString(answer)
    driver.check_ledger()
    driver.send(data, 2)  # the same spans again: they are late, or join their trace
    while driver.pipeline.drain(3):
        pass
    driver.check_ledger()
    kept = len(spans_of(driver.kept()))
    assert kept % 2 == 0, "the same spans came twice, and left once"
    return kept // 2
