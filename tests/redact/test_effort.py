"""What redacting a trace takes is counted, all of it, and other threads get their turn meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.otlp.fragments import Envelopes
from sampler_proxy.pipeline import replay
from sampler_proxy.redact.walker import Redactor
from tests.support import wire
from tests.support.redacting import pairs, policy, request_of
from tests.support.secrets import SECRETS

MAIL = SECRETS["email"].text
COMMON = policy({"preset": "common"})
FILTERED = policy({"values": [{"detect": "email", "action": "mask", "only": "{ span.k = 1 }"}]})

TOTAL_BUDGET = 1 << 19


def raw_span(*attributes: bytes) -> bytes:
    """One trace of one span, whose attributes are given as they are encoded."""
    span = wire.field(1, wire.LEN, b"t" * 16) + wire.field(2, wire.LEN, b"s" * 8) + b"".join(attributes)
    return wire.field(1, wire.LEN, wire.field(2, wire.LEN, wire.field(2, wire.LEN, span)))


def attribute(key: bytes, value: bytes) -> bytes:
    return wire.field(9, wire.LEN, wire.field(1, wire.LEN, key) + wire.field(2, wire.LEN, value))


def array(element: bytes, number: int) -> bytes:
    return attribute(b"k", wire.field(5, wire.LEN, wire.field(1, wire.LEN, element) * number))


def effort(raw: bytes, redact: Any = COMMON) -> int:
    (one,) = replay.redact([raw], redact)
    return one.effort


def spans(number: int) -> bytes:
    made = request_of(Span())
    of = made.resource_spans[0].scope_spans[0].spans
    del of[:]
    for i in range(number):
        of.add(trace_id=b"t" * 16, span_id=(i + 1).to_bytes(8), attributes=pairs({"k": "v", "n": 1}))
    return made.SerializeToString()


def groups(number: int) -> bytes:
    made = ExportTraceServiceRequest()
    for i in range(number):
        one = request_of(Span(trace_id=b"t" * 16, span_id=(i + 1).to_bytes(8)), {"k": "v"})
        made.resource_spans.extend(one.resource_spans)
    return made.SerializeToString()


SHAPES: dict[str, Callable[[int], bytes]] = {
    "known values": lambda n: raw_span(array(wire.field(1, wire.LEN, b"known"), n)),
    "booleans": lambda n: raw_span(array(wire.field(2, wire.VARINT, b"\x01"), n)),
    "known keys": lambda n: raw_span(attribute(b"key", wire.field(2, wire.VARINT, b"\x01")) * n),
    "empty attributes": lambda n: raw_span(wire.field(9, wire.LEN, b"") * n),
    "unknown fields": lambda n: raw_span(wire.field(99, wire.VARINT, b"\x01") * n),
    "spans": spans,
    "groups": groups,
    "bytes of one new value": lambda n: raw_span(attribute(b"k", wire.field(1, wire.LEN, b"word " * (n // 5)))),
    "secrets of one kind": lambda n: raw_span(array(wire.field(1, wire.LEN, MAIL.encode()), n)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_effort_grows_with_the_trace_whatever_it_is_made_of(shape: str) -> None:
    n = 10_000
    once, twice = effort(SHAPES[shape](n)), effort(SHAPES[shape](2 * n))
    assert once > n / 500
    assert 1.7 * once < twice < 2.3 * once + 100


def test_filters_are_part_of_the_effort() -> None:
    assert effort(spans(20_000), FILTERED) > 20_000 / 4


def test_what_is_new_beyond_the_whole_budget_is_masked() -> None:
    """Though nothing was found by then, so that no close look was needed."""
    made = request_of(Span())
    of = made.resource_spans[0].scope_spans[0].spans
    del of[:]
    for i in range(40):
        values = [f"{j:x} words {i}" for j in range(100_000)]
        of.add(trace_id=b"t" * 16, span_id=(i + 1).to_bytes(8), attributes=pairs({"k": values}))
    (one,) = replay.redact([made.SerializeToString()], COMMON)
    assert one.redactions[("oversize", "mask")] > 0
    assert TOTAL_BUDGET / 2 < one.effort < 2 * TOTAL_BUDGET


def test_other_threads_run_while_a_trace_is_walked() -> None:
    """Between the redaction of its header and that of its last span, where nothing of Python runs."""
    resource = request_of(Span(), {"mail": MAIL}).resource_spans[0].resource.SerializeToString()
    mail = attribute(b"m", wire.field(1, wire.LEN, MAIL.encode()))
    ids = wire.field(1, wire.LEN, b"t" * 16) + wire.field(2, wire.LEN, b"s" * 8)
    large = wire.field(2, wire.LEN, ids + wire.field(9, wire.LEN, b"") * 15_000_000)  # stays as it is
    scope = wire.field(2, wire.LEN, large + wire.field(2, wire.LEN, ids + mail))
    request = wire.field(1, wire.LEN, wire.field(1, wire.LEN, resource) + scope)
    stop = threading.Event()
    ticks = 0
    seen: list[int] = []

    def count() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0)  # and wait for the next turn

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        list(replay.redact([request], COMMON, lambda *_: seen.append(ticks)))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    of_header, of_span = seen
    assert of_span - of_header > 50  # without giving way: the few turns that Python's own code gives


def test_what_is_kept_between_traces_is_told() -> None:
    assert COMMON is not None
    assert 0 < Redactor(COMMON, Envelopes(), {}).nbytes < 1 << 20
