"""A finished request cut between its spans, against the official parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.export.split import Layout
from tests.support import reference


class Part(NamedTuple):
    request: bytes
    spans: int


def split(request: bytes, limit: int) -> Iterator[Part]:
    layout = Layout(request)
    for spans in layout.parts(0, len(layout), limit):
        yield Part(layout.request(spans), len(spans))


def request_of(shape: list[list[list[int]]], header: int = 20) -> ExportTraceServiceRequest:
    """Resources of scopes of spans, each span given by the length of its name."""
    request = ExportTraceServiceRequest()
    number = 0
    for r, scopes in enumerate(shape):
        resource_spans = request.resource_spans.add(schema_url=f"https://schema/{r}")
        resource_spans.resource.attributes.add(key="service.name").value.string_value = f"{r}" * header
        for s, spans in enumerate(scopes):
            scope_spans = resource_spans.scope_spans.add(schema_url=f"https://scope/{s}")
            scope_spans.scope.name = f"scope {s}"
            for length in spans:
                number += 1
                span = scope_spans.spans.add(trace_id=bytes(15) + b"\1", span_id=number.to_bytes(8, "big"))
                span.name = "n" * length
                span.start_time_unix_nano = number
    return request


def headers_of(request: ExportTraceServiceRequest) -> int:
    """Bytes of what each span of a request repeats; 0 where it has several scopes."""
    if len(request.resource_spans) != 1 or len(request.resource_spans[0].scope_spans) != 1:
        return 0
    bare = ExportTraceServiceRequest.FromString(request.SerializeToString())
    scope_spans = bare.resource_spans[0].scope_spans[0]
    del scope_spans.spans[:]
    scope = scope_spans.ByteSize()
    del bare.resource_spans[0].scope_spans[:]
    return scope + bare.resource_spans[0].ByteSize()


SHAPES = st.lists(
    st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=6), min_size=1, max_size=3), min_size=1, max_size=3
)


@given(SHAPES, st.integers(1, 3000), st.integers(0, 300))
def test_every_span_once_under_its_headers(shape, limit, header):
    request = request_of(shape, header)
    parts = list(split(request.SerializeToString(), limit))
    parsed = [ExportTraceServiceRequest.FromString(part.request) for part in parts]
    spans = [reference.spans_of(one) for one in parsed]
    assert [sum(one.values()) for one in spans] == [part.spans for part in parts]
    assert sum(spans, start=type(spans[0])()) == reference.spans_of(request)
    ids = [
        int.from_bytes(span.span_id, "big")
        for one in parsed
        for resource in one.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert ids == list(range(1, len(ids) + 1))
    for part, one in zip(parts, parsed, strict=True):
        assert len(part.request) <= limit or part.spans == 1 or headers_of(one) + 12 >= limit
        for resource in one.resource_spans:
            assert resource.scope_spans
            assert all(scope.spans for scope in resource.scope_spans)


def test_headers_between_spans_are_no_part_of_them():
    """No request of ours has them there; protobuf allows it."""
    (resource_spans,) = request_of([[[10] * 4]]).resource_spans
    between = b"".join(
        b"\x12" + bytes([span.ByteSize()]) + span.SerializeToString() + (b"\x1a\x01s" if number == 1 else b"")
        for number, span in enumerate(resource_spans.scope_spans[0].spans)
    )

    def message(tag: int, content: bytes) -> bytes:
        return bytes([tag, len(content) & 0x7F | 0x80, len(content) >> 7]) + content

    parts = list(split(message(0x0A, message(0x12, between)), 100))
    assert len(parts) > 1
    parsed = [ExportTraceServiceRequest.FromString(part.request) for part in parts]
    assert sum(len(scope.spans) for one in parsed for scope in one.resource_spans[0].scope_spans) == 4
    assert {one.resource_spans[0].scope_spans[0].schema_url for one in parsed} == {"s"}


def test_neighbours_stay_together():
    """Parts are as large as the limit allows, but for the bytes that lengths may take."""
    request = request_of([[[100] * 100]]).SerializeToString()
    parts = list(split(request, 1000))
    assert len(parts) <= len(request) // 1000 + 4
    assert sum(part.spans for part in parts) == 100


def test_what_fits_stays_as_it_is():
    request = request_of([[[1, 2], [3]], [[4]]])
    (part,) = split(request.SerializeToString(), request.ByteSize() + 100)
    assert ExportTraceServiceRequest.FromString(part.request) == request


def test_one_large_span_goes_alone():
    parts = split(request_of([[[10, 10, 5000, 10, 10]]]).SerializeToString(), 1000)
    assert [part.spans for part in parts] == [2, 1, 2]


def test_spans_whose_headers_do_not_fit_stay_together():
    """A request per span would repeat them, and be too large all the same."""
    request = request_of([[[10] * 100], [[10] * 5]], header=2000)
    request.resource_spans[1].resource.Clear()
    parts = list(split(request.SerializeToString(), 1000))
    assert [part.spans for part in parts] == [100, 5]


@given(SHAPES, st.integers(1, 3000), st.integers(1, 500), st.integers(0, 300))
def test_a_part_is_cut_again(shape, limit, smaller, header):
    """As when the destination names a smaller limit: the same spans in the same order, of any range."""
    request = request_of(shape, header)
    layout = Layout(request.SerializeToString())
    again = [
        piece for part in layout.parts(0, len(layout), limit) for piece in layout.parts(part.start, part.stop, smaller)
    ]
    assert [number for piece in again for number in piece] == list(range(len(layout)))
    parsed = [ExportTraceServiceRequest.FromString(layout.request(piece)) for piece in again]
    spans = [reference.spans_of(one) for one in parsed]
    assert sum(spans, start=type(spans[0])()) == reference.spans_of(request)
