"""The bytes that kept traces say they add to a request, against the requests that are made of them."""

from __future__ import annotations

from itertools import count

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from sampler_proxy.export.queue import Queue
from sampler_proxy.pipeline.stamp import assemble
from tests.pipeline.driver import MIB, WAIT, Driver, rules_of
from tests.pipeline.driver import request as one_trace
from tests.support.redacting import policy

KIB = 1024
FRAME = 1 + 5


def request(*traces: tuple[int, str, str]) -> ExportTraceServiceRequest:
    """A span of each of these traces, under a resource and a scope of these names."""
    found = ExportTraceServiceRequest()
    for number, resource, scope in traces:
        resource_spans = found.resource_spans.add(schema_url=resource)
        scope_spans = resource_spans.scope_spans.add(schema_url=scope)
        scope_spans.spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="x" * 100)
    return found


@pytest.mark.parametrize(
    ("traces", "headers"),
    [
        ([(1, "", "")], [2 * FRAME]),
        ([(1, "r" * 100, "s" * 50)], [102 + 52 + 2 * FRAME]),
        ([(1, "r" * 100, "s" * 50), (2, "r" * 100, "s" * 50)], [102 + 52 + 2 * FRAME, 0]),
        ([(1, "r" * 100, "s" * 50), (2, "r" * 100, "t" * 50)], [102 + 52 + 2 * FRAME, 52 + FRAME]),
        ([(1, "r" * 100, "s" * 50), (2, "u" * 100, "s" * 50)], [102 + 52 + 2 * FRAME] * 2),
        ([(1, "r" * 100, "s" * 50), (1, "r" * 100, "t" * 50)], [102 + 52 + 52 + 3 * FRAME]),
        ([(1, "r" * 100, "s"), (1, "r" * 100, "t"), (1, "r" * 100, "s")], [102 + 3 + 3 + 3 * FRAME]),
    ],
)
def test_a_header_counts_for_the_first_trace_of_a_request(traces, headers):
    driver = Driver(stamp_decision=False)
    driver.send(request(*traces))
    driver.tick(WAIT)
    kept = driver.destinations[0].traces
    seen: set[int] = set()
    assert [trace.header_bytes(seen) for trace in kept] == headers
    assert [trace.header_bytes(seen) for trace in kept] == [0] * len(kept)
    content = sum(len(span.SerializeToString()) for _, span in spans(driver.kept()))
    assert content + sum(headers) - len(traces) * 2 * FRAME <= len(assemble(kept))
    assert len(assemble(kept)) <= sum(trace.nbytes for trace in kept) + sum(headers)


def spans(message):
    return [
        (scope_spans, span)
        for resource_spans in message.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def test_requests_have_the_bytes_of_a_batch_however_large_the_headers_are():
    clock = count()
    queue = Queue(max_bytes=64 << 20, batch_bytes=1 << 20, max_wait_ns=0, clock=clock.__next__)
    driver = Driver(destinations=[queue])
    for first in range(1, 501, 100):
        driver.send(request(*((number, f"{number} {'r' * 60 * KIB}", "") for number in range(first, first + 100))))
    driver.tick(WAIT)
    held = queue.counters().queued_bytes
    assert held >= 500 * 60 * KIB
    sizes = []
    while batch := queue.take():
        sizes.append(len(assemble(batch)))
        queue.exported(batch)
    assert max(sizes) <= 1 << 20
    assert len(sizes) == 32  # of 16 traces
    assert held * 0.99 <= sum(sizes) <= held
    assert queue.counters().queued_bytes == 0
    assert len(driver.pipeline.envelopes) == 0


def test_the_headers_of_a_trace_with_thousands_of_groups_are_summed_once():
    """Under the lock that would take long, for each destination, and again whenever it has no room."""
    driver = Driver(stamp_decision=False)
    driver.send(request(*((1, "r", f"s{number}") for number in range(3000))))
    driver.tick(WAIT)
    (kept,) = driver.destinations[0].traces
    seen: set[int] = set()
    total = kept.header_bytes(seen)
    assert total == 3 + FRAME + sum(2 + len(f"s{number}") + FRAME for number in range(3000))
    assert kept.header_bytes(seen) == total
    assert not seen


def test_what_headers_become_is_remembered_as_far_as_memory_reaches():
    """Four policies by span, each of which makes a large header another one."""
    settings = {
        "values": [
            {"detect": "email", "action": {"keep_last": 4 + number}, "only": f"{{ span.k{number} = 1 }}"}
            for number in range(4)
        ]
    }
    rules = rules_of([("errors", "{ status = error }", 1.0), ("rest", None, 0.0)], early=True)
    driver = Driver(native=rules, max_bytes=6 * MIB, redact=policy(settings))

    def send(trace: int, service: int, key: int | None) -> None:
        message = one_trace((trace, 1), service=f"s{service}", error=key is not None)
        attributes = message.resource_spans[0].resource.attributes
        for number in range(20):
            attributes.add(key=f"x{number}").value.string_value = f"a{number}@example.com " + "word " * 2000
        if key is not None:
            span = message.resource_spans[0].scope_spans[0].spans[0]
            span.attributes.add(key=f"k{key}").value.int_value = 1
        driver.send(message)

    for service in range(20):
        send(100 + service, service, None)
    before = driver.pipeline.nbytes
    assert before > 3.8 * MIB
    for service in range(20):
        for key in range(4):
            send(1000 + 10 * service + key, service, key)
            driver.destinations[0].traces.clear()
    assert before + MIB < driver.pipeline.nbytes < 6.2 * MIB
    assert not driver.values()[metrics.REQUESTS_REFUSED]
