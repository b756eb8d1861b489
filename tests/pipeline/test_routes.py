"""Where traces go: the destinations of their rule, and those that take what was sampled out, too."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from sampler_proxy.errors import Overloaded
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.redact.policy import Policy
from sampler_proxy.redact.section import Redact
from tests.pipeline.driver import (
    ERRORS,
    SECOND,
    WAIT,
    WAIT_AFTER_ROOT,
    Destination,
    Driver,
    request,
    rules_of,
    trace_id,
)
from tests.support import nezha

KIB = 1 << 10


def numbers(traces: list[KeptTrace]) -> list[int]:
    return [int.from_bytes(trace.trace_id[:9]) for trace in traces]


def attributes(traces: list[KeptTrace]) -> list[dict[str, Any]]:
    """Return of each span, in order, the attributes of its decision."""
    message = ExportTraceServiceRequest.FromString(assemble(traces))
    return [
        {
            attribute.key.removeprefix("sampler_proxy."): getattr(
                attribute.value, str(attribute.value.WhichOneof("value"))
            )
            for attribute in span.attributes
            if attribute.key.startswith("sampler_proxy.")
        }
        for span in nezha.spans([message])
    ]


THREE = [
    ("errors", "{ status = error }", 1.0),
    ("checkout", '{ resource.service.name = "checkout" }', 1.0),
    ("rest", None, 0.0),
]


def test_a_rule_names_its_destinations() -> None:
    tempo, sentry, file = Destination(), Destination(), Destination()
    driver = Driver(THREE, destinations=[tempo, sentry, file], routes={"errors": [1], "checkout": [0, 2]})
    driver.send(request((1, 1), error=True))
    driver.send(request((2, 1), service="checkout"))
    driver.send(request((3, 1)))
    driver.tick(WAIT)
    assert [numbers(each.traces) for each in (tempo, sentry, file)] == [[2], [1], [2]]
    assert driver.total(metrics.SPANS_KEPT) == 2
    driver.check_ledger()


def test_only_a_destination_of_the_rule_holds_its_traces_up() -> None:
    tempo, sentry = Destination(room=0), Destination()
    driver = Driver(THREE, destinations=[tempo, sentry], routes={"errors": [1]})
    driver.send(request((1, 1), error=True))
    driver.send(request((2, 1), service="checkout"))
    driver.tick(WAIT)
    assert [numbers(each.traces) for each in (tempo, sentry)] == [[], [1, 2]]
    assert (driver.total(metrics.SPANS_KEPT), driver.total(metrics.BUFFER_SPANS)) == (1, 1)
    with driver.pipeline.lock:
        assert driver.pipeline.in_backlog(trace_id(1)) == [None, False]
        assert driver.pipeline.in_backlog(trace_id(2)) == [True, False]
    driver.check_ledger()


def test_routes_change_with_the_rules() -> None:
    ends = [Destination(), Destination()]
    driver = Driver(ERRORS, destinations=ends, routes={"errors": [0]})
    driver.send(request((1, 1), error=True))
    driver.tick(WAIT)
    driver.pipeline.replace_rules(rules_of(ERRORS), {"errors": [1]})
    driver.send(request((1, 2), error=True), WAIT)  # late
    driver.send(request((2, 1), error=True), WAIT)
    driver.tick(2 * WAIT)
    driver.pipeline.replace_rules(rules_of(ERRORS))
    driver.send(request((3, 1), error=True), 2 * WAIT)
    driver.tick(3 * WAIT)
    assert [numbers(end.traces) for end in ends] == [[1, 3], [1, 2, 3]]
    driver.check_ledger()


def test_what_a_rule_that_is_gone_has_decided_goes_where_it_said() -> None:
    ends = [Destination(), Destination(room=1)]
    driver = Driver(ERRORS, destinations=ends, routes={"errors": [1]})
    driver.send(request((1, 1), error=True))
    driver.send(request((2, 1), error=True))
    driver.tick(WAIT)  # one of them waits
    driver.pipeline.replace_rules(rules_of([("mistakes", "{ status = error }", 1.0), ("others", None, 0.0)]))
    driver.send(request((1, 2), error=True), WAIT)  # late
    driver.send(request((3, 1), error=True), WAIT)
    ends[1].room = None
    driver.tick(2 * WAIT)
    assert [numbers(end.traces) for end in ends] == [[3], [1, 2, 1, 3]]
    driver.check_ledger()


@pytest.mark.parametrize("stamped", [True, False])
def test_what_is_sampled_out_goes_to_an_archive_and_is_marked(stamped: bool) -> None:
    tempo, archive = Destination(), Destination()
    driver = Driver(
        ERRORS, destinations=[tempo, archive], archives=[1], stamp_decision=stamped, stamp_adjusted_count=True
    )
    driver.send(request((1, 1), error=True))
    driver.send(request((2, 1)))
    driver.tick(WAIT)
    assert [numbers(each.traces) for each in (tempo, archive)] == [[1], [1, 2]]
    assert [trace.sampled_out for trace in archive.traces] == [False, True]
    kept, dropped = attributes(archive.traces)
    words = {"rule": "errors", "reason": "wait", "incomplete": True} if stamped else {}
    assert kept == {**words, "adjusted_count": 1.0}
    words = {**words, "rule": "rest"} if stamped else {}
    assert dropped == {**words, "sampled_out": True, "adjusted_count": 0.0}
    assert (driver.total(metrics.SPANS_KEPT), driver.total(metrics.SPANS_SAMPLED_OUT)) == (1, 1)
    assert driver.values()[metrics.TRACES_DECIDED] == {("errors", "keep", "wait"): 1, ("rest", "drop", "wait"): 1}
    driver.check_ledger()


def test_the_threshold_of_what_was_sampled_out_stays_as_it_came() -> None:
    """It was not sampled with that of its decision; what another sampler has done to it holds."""
    archive = Destination()
    driver = Driver([("half", None, 0.5)], destinations=[archive], archives=[0])
    message = request((1, 1), (2, 1))
    plain, thinned = message.resource_spans[0].scope_spans[0].spans
    plain.trace_id = plain.trace_id[:9] + b"\x01" * 7
    thinned.trace_id = thinned.trace_id[:9] + b"\x61" * 7
    thinned.trace_state = "vendor=1,ot=th:4"
    driver.send(message)
    driver.tick(WAIT)
    assert [trace.sampled_out for trace in archive.traces] == [True, True]
    left = ExportTraceServiceRequest.FromString(assemble(archive.traces))
    assert sorted(span.trace_state for span in nezha.spans([left])) == ["", "vendor=1,ot=th:4"]


def test_late_spans_of_what_was_sampled_out_follow_and_revive() -> None:
    tempo, archive = Destination(), Destination()
    driver = Driver(native=rules_of(ERRORS, early=True), destinations=[tempo, archive], archives=[1])
    driver.send(request((1, 1), root=True))
    driver.tick(WAIT_AFTER_ROOT)
    driver.send(request((1, 2)), 6 * SECOND)
    driver.send(request((1, 3), error=True), 7 * SECOND)
    driver.tick(8 * SECOND)
    assert [trace.sampled_out for trace in archive.traces] == [True, True, False]
    assert [trace.sampled_out for trace in tempo.traces] == [False]
    assert driver.total(metrics.SPANS_SAMPLED_OUT) == 2
    assert driver.values()[metrics.LATE_SPANS] == {("drop",): 1, ("keep",): 1}
    driver.check_ledger()


def test_what_the_limit_drops_goes_to_the_archive() -> None:
    tempo, archive = Destination(), Destination()
    driver = Driver(
        [("all", None, 1.0)], destinations=[tempo, archive], archives=[1], limit=(10.0, "traces", 0.2), seed=1
    )
    for number in range(1, 201):
        driver.send(request((number, 1)))
    for step in range(40):
        driver.tick(WAIT + step * SECOND // 10)
    limited = int(sum(driver.values()[metrics.LIMITED_TRACES].values()))
    assert 0 < limited < 200
    assert sum(trace.sampled_out for trace in archive.traces) == limited
    assert len(tempo.traces) == 200 - limited
    assert len(archive.traces) == 200
    driver.check_ledger()


def test_an_archive_that_is_full_holds_up_what_is_sampled_out_within_the_bound() -> None:
    """As any destination does; one that drops instead (queue.when_full) always takes."""
    tempo, archive = Destination(), Destination(room=5)
    driver = Driver(ERRORS, destinations=[tempo, archive], archives=[1], max_bytes=200 * KIB)
    taken = 0
    with suppress(Overloaded):
        for number in range(1, 10_000):
            driver.send(request((number, 1), size=4 * KIB), number)
            taken = number
    assert 0 < taken < 100
    assert driver.pipeline.nbytes <= 200 * KIB * 17 / 16 + 17 * KIB
    driver.check_ledger()
    archive.room = None
    while driver.pipeline.drain(taken):
        pass
    assert len(archive.traces) == driver.total(metrics.SPANS_SAMPLED_OUT) == taken
    assert tempo.traces == []
    driver.check_ledger()


def test_redaction_holds_for_what_is_sampled_out() -> None:
    archive = Destination()
    policy = Policy(Redact(preset="common"), b"")
    driver = Driver([("none", None, 0.0)], destinations=[archive], archives=[0], redact=policy)
    message = request((1, 1))
    message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="password").value.string_value = "hunter2"
    driver.send(message)
    driver.tick(WAIT)
    assert b"password" in assemble(archive.traces)
    assert b"hunter2" not in assemble(archive.traces)
    assert driver.total(metrics.SPANS_SAMPLED_OUT) == 1
