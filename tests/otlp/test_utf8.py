"""Strings that are not UTF-8 are let in, and repaired where they leave: U+FFFD as Python's "replace" has it, nothing
else changes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from tests.otlp import official
from tests.pipeline.driver import KEEP_ALL, WAIT, Driver, request, trace_id
from tests.support import reference, wire

MARK = "@@@@@@"
"""As long, in bytes, as what stands in its place on the wire."""


def _span(message: ExportTraceServiceRequest):  # type: ignore[no-untyped-def]
    return message.resource_spans[0].scope_spans[0].spans[0]


def _resource(message: ExportTraceServiceRequest):  # type: ignore[no-untyped-def]
    return message.resource_spans[0].resource


def _scope(message: ExportTraceServiceRequest):  # type: ignore[no-untyped-def]
    return message.resource_spans[0].scope_spans[0].scope


def _nested(message: ExportTraceServiceRequest, text: str) -> None:
    value = _span(message).attributes.add(key="k").value
    inner = value.array_value.values.add().kvlist_value.values.add(key="inner")
    inner.value.array_value.values.add().string_value = text


PLACES: dict[str, Callable[[ExportTraceServiceRequest, str], object]] = {
    "span.name": lambda m, text: setattr(_span(m), "name", text),
    "span.trace_state": lambda m, text: setattr(_span(m), "trace_state", text),
    "span.status.message": lambda m, text: setattr(_span(m).status, "message", text),
    "span.attributes.key": lambda m, text: _span(m).attributes.add(key=text),
    "span.attributes.value": lambda m, text: setattr(_span(m).attributes.add(key="k").value, "string_value", text),
    "span.attributes.value, nested": _nested,
    "event.name": lambda m, text: _span(m).events.add(name=text),
    "event.attributes.key": lambda m, text: _span(m).events.add().attributes.add(key=text),
    "link.trace_state": lambda m, text: _span(m).links.add(trace_state=text),
    "link.attributes.value": lambda m, text: setattr(_span(m).links.add().attributes.add().value, "string_value", text),
    "resource.attributes.key": lambda m, text: _resource(m).attributes.add(key=text),
    "resource.attributes.value": lambda m, text: setattr(_resource(m).attributes.add().value, "string_value", text),
    "resource.entity_refs.type": lambda m, text: _resource(m).entity_refs.add(type=text),
    "resource.entity_refs.id_keys": lambda m, text: _resource(m).entity_refs.add(id_keys=["a", text]),
    "resource_spans.schema_url": lambda m, text: setattr(m.resource_spans[0], "schema_url", text),
    "scope.name": lambda m, text: setattr(_scope(m), "name", text),
    "scope.version": lambda m, text: setattr(_scope(m), "version", text),
    "scope.attributes.value": lambda m, text: setattr(_scope(m).attributes.add().value, "string_value", text),
    "scope_spans.schema_url": lambda m, text: setattr(m.resource_spans[0].scope_spans[0], "schema_url", text),
}

BROKEN = [
    b"\xff\xffabcd",  # never in UTF-8
    b"abc\x80de",  # a continuation without a lead
    b"abcd\xc3\x28",  # a lead without its continuation
    b"abcde\xc3",  # a lead at the end
    b"\xc0\xafabcd",  # overlong, 2 bytes
    b"\xe0\x9f\xbfabc",  # overlong, 3 bytes
    b"\xf0\x8f\xbf\xbfab",  # overlong, 4 bytes
    b"\xed\xa0\x80abc",  # a surrogate
    b"\xf4\x90\x80\x80ab",  # above U+10FFFF
    b"\xf5\x80\x80\x80ab",
    b"ab\xe2\x82cd",  # cut short
    b"ab\xf0\x9f\x98c",
    b"abc\xe2\x82\x28",  # the last continuation is none
    b"ab\xf0\x9f\x98\x28",
    b"ab\xf0\x9f\x28\x98",
]
WHOLE = [
    "\u00e9\u00df\u00fc".encode(),
    "\u07ff\u0080ab".encode(),
    "\u0800\uffff".encode(),
    "\ud7ff\ue000".encode(),
    "\U00010000ab".encode(),
    "\U0010ffffab".encode(),
]


def leaving(raw: bytes) -> Driver:
    driver = Driver(KEEP_ALL, stamp_decision=False)
    driver.send(raw)
    driver.tick(WAIT)
    return driver


def source(place: str, text: str, noise: wire.Noise = wire.CALM) -> bytes:
    """A request with a neighbour in the same envelopes; `text` at that place."""
    message = request((1, 1), (2, 1))
    PLACES[place](message, text)
    return wire.encode(message, Random(1), noise)


@pytest.mark.parametrize("place", PLACES)
def test_invalid_utf8_is_repaired(place: str) -> None:
    for text in BROKEN:
        for noise in (wire.CALM, wire.ALL):
            raw = source(place, MARK, noise).replace(MARK.encode(), text)
            assert official.structure(raw) is not None
            assert not official.accepts(raw)
            driver = leaving(raw)
            repaired = source(place, text.decode("utf-8", "replace"), noise)
            expected = ExportTraceServiceRequest.FromString(repaired)
            assert reference.spans_of(driver.kept()) == reference.spans_of(expected), text
            assert driver.total(metrics.STRINGS_MENDED) == (1 if place.startswith(("span.", "event.", "link.")) else 0)


@pytest.mark.parametrize("place", PLACES)
def test_valid_utf8_is_unchanged(place: str) -> None:
    for text in WHOLE:
        assert len(text) == len(MARK)
        raw = source(place, MARK).replace(MARK.encode(), text)
        assert official.accepts(raw)
        driver = leaving(raw)
        assert reference.spans_of(driver.kept()) == reference.spans_of(ExportTraceServiceRequest.FromString(raw))
        assert driver.total(metrics.STRINGS_MENDED) == 0


@given(st.binary(max_size=24))
def test_any_bytes(text: bytes) -> None:
    """At any distance from the start: eight bytes are looked at together where they are ASCII."""
    body = wire.field(1, wire.LEN, trace_id(1)) + wire.field(2, wire.LEN, b"\x01" * 8) + wire.field(5, wire.LEN, text)
    raw = wire.field(1, wire.LEN, wire.field(2, wire.LEN, wire.field(2, wire.LEN, body)))
    (one,) = leaving(raw).kept().resource_spans[0].scope_spans[0].spans
    assert one.name == text.decode("utf-8", "replace")


def test_an_invalid_tracestate_is_repaired_before_it_is_rewritten() -> None:
    raw = request((1, 1), trace_state=f"a={MARK},b=1").SerializeToString().replace(MARK.encode(), b"\xff\xffabcd")
    driver = Driver([("half", None, 0.5)], stamp_decision=False)
    driver.send(raw)
    driver.tick(WAIT)
    (one,) = driver.kept().resource_spans[0].scope_spans[0].spans
    assert one.trace_state == "ot=th:8,b=1"


def test_bytes_values_are_unchanged() -> None:
    message = request((1, 1))
    _span(message).attributes.add(key="k").value.bytes_value = BROKEN[0]
    raw = message.SerializeToString() + wire.field(99, wire.LEN, BROKEN[0])
    driver = leaving(raw)
    assert reference.spans_of(driver.kept()) == reference.spans_of(message)
    assert driver.total(metrics.STRINGS_MENDED) == 0


def test_headers_that_are_equal_once_repaired_merge() -> None:
    driver = Driver(KEEP_ALL, stamp_decision=False)
    for text in (b"\xff\xffabcd", b"\xfe\xfeabcd", "\ufffd\ufffdabcd".encode()):
        outer = request((1, 1)).resource_spans[0].SerializeToString()
        driver.send(wire.field(1, wire.LEN, wire.field(3, wire.LEN, text) + outer))
    driver.tick(WAIT)
    assert len(driver.kept().resource_spans) == 1


@given(st.lists(st.binary(max_size=12), max_size=4), st.integers(min_value=0, max_value=44))
def test_bad_text_in_deep_nests(texts: list[bytes], depth: int) -> None:
    """Several texts at each level, the outer ones before and behind what is inside."""

    def nested(repair: bool) -> bytes:
        value = b""
        for level in range(depth + 1):
            leaves = [text.decode("utf-8", "replace").encode() if repair else text for text in texts[level % 2 :]]
            elements = [wire.field(1, wire.LEN, wire.field(1, wire.LEN, leaf)) for leaf in leaves]
            elements.insert(len(elements) // 2, wire.field(1, wire.LEN, value))
            value = wire.field(5, wire.LEN, b"".join(elements))
        return value

    raw, repaired = (
        request((1, 1)).SerializeToString()
        + wire.field(
            1,
            wire.LEN,
            wire.field(
                2,
                wire.LEN,
                wire.field(
                    2,
                    wire.LEN,
                    wire.field(1, wire.LEN, trace_id(1))
                    + wire.field(2, wire.LEN, b"\x02" * 8)
                    + wire.field(9, wire.LEN, wire.field(2, wire.LEN, nested(repair))),
                ),
            ),
        )
        for repair in (False, True)
    )
    expected = ExportTraceServiceRequest.FromString(repaired)
    assert reference.spans_of(leaving(raw).kept()) == reference.spans_of(expected)
