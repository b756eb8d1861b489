"""The pipeline's behaviour over time: waits, limits, late spans, overload, several destinations, the end. Each test
checks the span ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, MalformedRequest, Overloaded, RequestTooLarge
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.rules.rule_set import RuleSet
from sampler_proxy.traceql.compiler import Compiled
from sampler_proxy.traceql.program import AND, FALSE, TRUE, Condition, Field, Kind, Op
from tests.pipeline.driver import (
    ERRORS,
    KEEP_ALL,
    KEEP_NONE,
    MIB,
    SECOND,
    WAIT,
    WAIT_AFTER_ROOT,
    Destination,
    Driver,
    request,
    trace_id,
)
from tests.support import reference

KIB = 1 << 10
INCOMPLETE = ("sampler_proxy.incomplete", "True")


def decided(driver: Driver) -> dict[tuple[str, ...], int]:
    """Count decided traces by (rule, decision, reason)."""
    return dict(driver.values()[metrics.TRACES_DECIDED])


def spans_in(request: ExportTraceServiceRequest) -> list[tuple[int, int]]:
    """List (trace number, span number) of each span, sorted."""
    return sorted(
        (int.from_bytes(one.span.trace_id[:9]), int.from_bytes(one.span.span_id)) for one in reference.seen(request)
    )


def attributes(driver: Driver) -> set[tuple[str, str]]:
    return {
        (attribute.key, attribute.value.string_value or str(attribute.value.bool_value))
        for one in reference.seen(driver.kept())
        for attribute in one.span.attributes
        if attribute.key.startswith("sampler_proxy.")
    }


# Waits


def test_a_trace_is_decided_when_the_wait_after_its_first_span_is_over() -> None:
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1)), 7)
    driver.send(request((1, 2)), 20 * SECOND)
    driver.tick(7 + WAIT - 1)
    assert not decided(driver)
    driver.check_ledger()
    driver.tick(7 + WAIT)
    assert decided(driver) == {("all", "keep", "wait"): 1}
    assert spans_in(driver.kept()) == [(1, 1), (1, 2)]
    assert attributes(driver) == {("sampler_proxy.rule", "all"), ("sampler_proxy.reason", "wait"), INCOMPLETE}
    driver.check_ledger()


def test_a_trace_is_decided_when_the_wait_after_its_root_is_over() -> None:
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1)), 0)
    driver.send(request((1, 2), root=True), 3 * SECOND)
    driver.send(request((1, 3), root=True), 7 * SECOND)  # a second root, or another span, changes nothing
    driver.tick(3 * SECOND + WAIT_AFTER_ROOT - 1)
    assert not decided(driver)
    driver.tick(3 * SECOND + WAIT_AFTER_ROOT)
    assert decided(driver) == {("all", "keep", "root"): 1}
    assert attributes(driver) == {("sampler_proxy.rule", "all"), ("sampler_proxy.reason", "root")}


def test_a_root_that_comes_late_does_not_prolong_the_wait() -> None:
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1)), 0)
    driver.send(request((1, 2), root=True), WAIT - 1)
    driver.tick(WAIT)
    assert decided(driver) == {("all", "keep", "wait"): 1}


def test_each_trace_has_its_own_waits() -> None:
    """Traces whose deadlines come in another order than their spans."""
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1)), 0)  # due at 30 s
    driver.send(request((2, 1), root=True), 10 * SECOND)  # at 15 s
    driver.send(request((3, 1)), 11 * SECOND)  # at 17 s, by the root that comes at 12 s
    driver.send(request((3, 2), root=True), 12 * SECOND)
    driver.send(request((4, 1), root=True), 13 * SECOND)  # at 18 s
    order: list[tuple[int, int]] = []
    for at in range(14, 45):
        driver.tick(at * SECOND)
        order += [(at, int.from_bytes(trace.trace_id[:9])) for trace in driver.destinations[0].traces[len(order) :]]
    assert order == [(15, 2), (17, 3), (18, 4), (30, 1)]


def test_waits_of_zero_decide_at_the_next_tick() -> None:
    driver = Driver(KEEP_ALL, wait_ns=0, wait_after_root_ns=0)
    driver.send(request((1, 1)), 5)
    driver.send(request((1, 2)), 5)
    driver.tick(5)
    assert spans_in(driver.kept()) == [(1, 1), (1, 2)]


def test_a_tick_decides_a_slice_at_a_time() -> None:
    driver = Driver(KEEP_NONE)
    driver.send(request(*((n, 1) for n in range(1, 11))))
    more = [driver.pipeline.tick(WAIT, 4) for _ in range(3)]
    assert more == [True, True, False]
    assert decided(driver) == {("none", "drop", "wait"): 10}
    assert [driver.pipeline.tick(WAIT), driver.pipeline.tick(WAIT, 1)] == [False, False]


def test_time_that_goes_backwards_stands_still() -> None:
    """Two threads read the clock and then take the lock in the other order."""
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1), root=True), 10 * SECOND)
    driver.send(request((2, 1)), 0)  # as at 10 s
    driver.tick(0)
    driver.tick(10 * SECOND + WAIT_AFTER_ROOT)
    driver.tick(0)
    assert decided(driver) == {("all", "keep", "root"): 1}
    driver.tick(10 * SECOND + WAIT - 1)
    assert sum(decided(driver).values()) == 1
    driver.tick(10 * SECOND + WAIT)
    assert decided(driver) == {("all", "keep", "root"): 1, ("all", "keep", "wait"): 1}
    driver.check_ledger()


def test_age_and_delay_are_measured() -> None:
    driver = Driver(KEEP_ALL)
    assert driver.values(SECOND)[metrics.BUFFER_OLDEST_SECONDS] == {(): 0}
    driver.send(request((1, 1)), SECOND)
    driver.send(request((2, 1), root=True), 4 * SECOND)
    assert driver.values(5 * SECOND)[metrics.BUFFER_OLDEST_SECONDS] == {(): 4.0}
    driver.tick(4 * SECOND + WAIT_AFTER_ROOT)
    driver.tick(SECOND + WAIT)
    delays = driver.values()[metrics.DECISION_DELAY_SECONDS][()]
    bounds = metrics.DECISION_DELAY_SECONDS.buckets
    assert delays.sum == 35.0
    assert [(bounds[n], count) for n, count in enumerate(delays.counts) if count] == [(5, 1), (30, 1)]


# Size


def test_a_trace_that_grows_too_large_is_decided_at_once() -> None:
    driver = Driver(ERRORS, max_trace_bytes=10 * KIB)
    driver.send(request((1, 1), (2, 1), size=4 * KIB))
    driver.send(request((1, 2), size=4 * KIB))
    assert not decided(driver)
    driver.send(request((1, 3), size=4 * KIB, error=True))
    assert decided(driver) == {("errors", "keep", "size"): 1}
    driver.send(request((1, 4)))
    assert spans_in(driver.kept()) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert attributes(driver) == {("sampler_proxy.rule", "errors"), ("sampler_proxy.reason", "size"), INCOMPLETE}
    assert driver.total(metrics.BUFFER_SPANS) == 1
    driver.check_ledger()


# Memory


def test_when_memory_runs_out_the_oldest_traces_are_decided_by_the_same_rules() -> None:
    driver = Driver(ERRORS, max_bytes=100 * KIB)
    sent = 0
    while not decided(driver):
        sent += 1
        driver.send(request((sent, 1), size=4 * KIB, error=sent % 2 == 1), sent)
        driver.check_ledger()
        assert driver.pipeline.buffer.nbytes <= 100 * KIB
    driver.send(request((1000, 1), size=40 * KIB))
    early = sum(decided(driver).values())
    assert early > 8
    assert {reason for _, _, reason in decided(driver)} == {"memory"}
    assert spans_in(driver.kept()) == [(n, 1) for n in range(1, early + 1, 2)]
    assert driver.total(metrics.BUFFER_TRACES) == sent + 1 - early
    assert not driver.values()[metrics.REQUESTS_REFUSED]
    counted, refused, oldest_s = driver.pipeline.memory_signs(sent + 3 * SECOND)
    assert (counted, refused) == (early, 0)
    assert oldest_s == driver.values(sent + 3 * SECOND)[metrics.BUFFER_OLDEST_SECONDS][()] > 2
    driver.send(request((2, 2)))  # it was decided early, and dropped
    assert driver.values()[metrics.LATE_SPANS] == {("drop",): 1, ("keep",): 0}


def fill(driver: Driver, begin: int = 1, size: int = 4 * KIB) -> tuple[int, Overloaded]:
    """Send traces until one is refused; return its number, and the refusal."""
    for number in range(begin, begin + 10_000):
        try:
            driver.send(request((number, 1), size=size, service=f"service {number}"), number)
        except Overloaded as refusal:
            return number, refusal
        driver.check_ledger()
    raise AssertionError("never refused")


def test_a_request_is_refused_when_no_room_can_be_made() -> None:
    driver = Driver(KEEP_ALL, max_bytes=200 * KIB, destinations=[Destination(room=0)])
    number, refusal = fill(driver)
    assert refusal.retry_after_ns is not None
    assert 0 < refusal.retry_after_ns <= 2 * SECOND
    driver.check_ledger()
    before = driver.values()
    for _ in range(5):
        with pytest.raises(Overloaded):
            driver.send(request((number, 1), size=4 * KIB))
    after = driver.values()
    assert after[metrics.SPANS_RECEIVED] == before[metrics.SPANS_RECEIVED] == {("grpc",): number - 1}
    assert after[metrics.BUFFER_SPANS] == {(): number - 1}
    assert after[metrics.REQUESTS_REFUSED] == {("grpc", "memory"): 6}
    early = sum(count for (_, _, reason), count in decided(driver).items() if reason == "memory")
    assert driver.pipeline.memory_signs(0)[:2] == (early, 6)
    assert after[metrics.BUFFER_BYTES][()] == driver.pipeline.nbytes
    assert after[metrics.BUFFER_BYTES][()] <= 200 * KIB * 17 / 16 + 5 * KIB

    driver.destinations[0].room = None
    driver.tick(number)
    driver.send(request((number, 1)))
    driver.tick(number + WAIT)
    assert spans_in(driver.kept()) == [(n, 1) for n in range(1, number + 1)]
    driver.check_ledger()


def test_room_is_made_by_dropping_while_what_is_kept_cannot_leave() -> None:
    """Every second trace is kept and stays; the others make room, for as long as there are any."""
    driver = Driver(ERRORS, max_bytes=200 * KIB, destinations=[Destination(room=0)])
    for number in range(1, 10_000):
        try:
            driver.send(request((number, 1), size=4 * KIB, error=number % 2 == 1))
        except Overloaded:
            break
    dropped = driver.total(metrics.SPANS_SAMPLED_OUT)
    assert dropped >= 38
    assert dropped == (number - 1) // 2
    assert driver.total(metrics.BUFFER_SPANS) == number - 1 - dropped


def test_what_can_be_dropped_is_found_behind_what_must_stay() -> None:
    """The older half is kept and grows a little as it is finished; that must not stop the search for room."""
    driver = Driver(ERRORS, max_bytes=200 * KIB, destinations=[Destination(room=0)])
    for number in range(1, 41):
        driver.send(request((number, 1), size=4 * KIB, error=number <= 20))
    for number in range(41, 61):
        driver.send(request((number, 1), size=4 * KIB))
    assert driver.total(metrics.SPANS_SAMPLED_OUT) >= 15
    driver.check_ledger()


def test_memory_stays_bounded_while_nothing_can_leave() -> None:
    """Finished traces are larger than they were: small spans grow by half when they are stamped."""
    driver = Driver(KEEP_ALL, max_bytes=256 * KIB, destinations=[Destination(room=0)])
    refused = 0
    for number in range(1, 2_000):
        try:
            driver.send(request(*((number, span) for span in range(1, 21))), number * SECOND // 10)
        except Overloaded:
            refused += 1
        driver.tick(number * SECOND // 10)
        assert driver.values()[metrics.BUFFER_BYTES][()] <= 256 * KIB * 17 / 16 + 5 * KIB
    driver.check_ledger()
    assert refused > 1_000


def test_envelopes_count_before_they_are_taken() -> None:
    """Small spans under large resources: the bound holds, and what cannot leave is refused with a retry, not for
    good."""
    driver = Driver(KEEP_ALL, max_bytes=256 * KIB, destinations=[Destination(room=0)])
    refusals = []
    for number in range(1, 50):
        try:
            driver.send(request((number, 1), service=f"{number:020000}"))
        except (Overloaded, RequestTooLarge) as refusal:
            refusals.append(type(refusal))
        assert driver.values()[metrics.BUFFER_BYTES][()] <= 256 * KIB * 17 / 16
    assert set(refusals) == {Overloaded}
    assert len(refusals) > 30


def test_a_request_larger_than_the_buffer_is_refused_for_good() -> None:
    driver = Driver(ERRORS, max_bytes=100 * KIB)
    driver.send(request((1, 1)))
    for large in (
        request((2, 1), size=100 * KIB),
        request(*((n, 1) for n in range(3, 303))),
        request((2, 1), service="x" * 100 * KIB),
    ):
        with pytest.raises(RequestTooLarge) as refusal:
            driver.send(large)
        assert refusal.value.retry_after_ns is None
    assert driver.values()[metrics.REQUESTS_REFUSED] == {("grpc", "too_large"): 3}
    assert not decided(driver)  # nobody had to go for what could not be taken anyway
    assert driver.total(metrics.SPANS_RECEIVED) == 1
    driver.check_ledger()


def test_nothing_stays_when_everything_has_left() -> None:
    driver = Driver(ERRORS)
    empty = driver.pipeline.buffer.nbytes
    envelopes = driver.pipeline.envelopes.cost
    for number in range(1, 101):
        driver.send(request((number, 1), (number + 1, 2), service=f"service {number}", error=number % 3 == 0, size=100))
    assert len(driver.pipeline.envelopes) == 200
    assert driver.pipeline.buffer.nbytes > empty + 100 * 100
    driver.tick(WAIT)
    driver.send(request((1, 3), (4, 3), service="late"))
    assert driver.pipeline.buffer.traces == driver.pipeline.buffer.spans == 0
    assert len(driver.pipeline.envelopes) > 0  # what has been kept still points to its own
    driver.destinations[0].traces.clear()
    assert len(driver.pipeline.envelopes) == 0
    assert driver.pipeline.envelopes.cost == envelopes
    assert driver.pipeline.buffer.nbytes == empty


def test_what_is_kept_outlives_the_pipeline() -> None:
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1)))
    driver.send(request((2, 1), size=1000))
    driver.tick(WAIT - 1)
    traces = driver.destinations[0].traces
    driver.pipeline.drain(WAIT)
    del driver
    assert spans_in(ExportTraceServiceRequest.FromString(assemble(traces))) == [(1, 1), (2, 1)]


# Late spans


def test_late_spans_follow_the_decision() -> None:
    driver = Driver([("half", "{ span.a = 1 }", 0.5), *ERRORS])
    first = request((1, 1), root=True)
    for span in first.resource_spans[0].scope_spans[0].spans:
        span.attributes.add(key="a").value.int_value = 1
    driver.send(first)
    driver.send(request((2, 1), root=True))
    driver.tick(WAIT_AFTER_ROOT)
    assert decided(driver) == {("half", "keep", "root"): 1, ("rest", "drop", "root"): 1}

    driver.send(request((1, 2), error=True))  # the rule that keeps all errors stands behind the one that decided
    driver.send(request((2, 2), (2, 3), (1, 3)))
    assert driver.values()[metrics.LATE_SPANS] == {("keep",): 2, ("drop",): 2}
    assert driver.values()[metrics.LATE_WOULD_KEEP] == {(): 0}
    assert driver.values()[metrics.SPANS_SAMPLED_OUT][("rest",)] == 3
    assert driver.values()[metrics.SPANS_KEPT][("half",)] == 3
    assert decided(driver) == {("half", "keep", "root"): 1, ("rest", "drop", "root"): 1}
    assert spans_in(driver.kept()) == [(1, 1), (1, 2), (1, 3)]
    assert attributes(driver) == {("sampler_proxy.rule", "half"), ("sampler_proxy.reason", "root")}
    assert {one.span.trace_state for one in reference.seen(driver.kept())} == {"ot=th:8"}
    driver.check_ledger()


def test_late_spans_of_a_partly_kept_rule_would_not_be_kept_for_sure() -> None:
    driver = Driver([("some", "{ status = error }", 0.9), ("none", None, 0.0)])
    driver.send(request((1, 1), root=True))
    driver.tick(WAIT_AFTER_ROOT)
    driver.send(request((1, 2), error=True))
    assert driver.values()[metrics.LATE_SPANS] == {("drop",): 1, ("keep",): 0}
    assert driver.total(metrics.LATE_WOULD_KEEP) == 0


def test_late_spans_wait_for_their_destination_too() -> None:
    driver = Driver(KEEP_ALL, destinations=[Destination(room=1)])
    driver.send(request((1, 1), root=True))
    driver.tick(WAIT_AFTER_ROOT)
    driver.send(request((1, 2)))
    assert driver.total(metrics.BUFFER_SPANS) == 1
    driver.check_ledger()
    driver.destinations[0].room = None
    driver.tick(WAIT_AFTER_ROOT)
    assert spans_in(driver.kept()) == [(1, 1), (1, 2)]
    driver.check_ledger()


def test_a_forgotten_trace_starts_anew() -> None:
    driver = Driver(ERRORS, decision_memory_bytes=1, max_trace_bytes=1)
    driver.send(request((1, 1), error=True))
    number, remembered = 1, 0
    while driver.pipeline.decisions.count > remembered:
        remembered = driver.pipeline.decisions.count
        number += 1
        driver.send(request((number, 1)))
    assert number == remembered + 1
    # The last decision has pushed the first out: its spans are decided by themselves now.
    driver.send(request((1, 2)))
    assert spans_in(driver.kept()) == [(1, 1)]
    assert driver.values()[metrics.LATE_SPANS] == {("drop",): 0, ("keep",): 0}
    driver.send(request((number, 2)))
    assert driver.values()[metrics.LATE_SPANS] == {("drop",): 1, ("keep",): 0}
    driver.check_ledger()


# Destinations


def test_a_full_destination_holds_up_its_own_traces_only() -> None:
    fast, slow = Destination(), Destination(room=2)
    driver = Driver(KEEP_ALL, destinations=[slow, fast])
    for number in range(1, 6):
        driver.send(request((number, 1), (number, 2)))
    driver.tick(WAIT)
    assert (len(slow.traces), len(fast.traces)) == (2, 5)
    assert driver.total(metrics.SPANS_KEPT) == 4  # taken by both
    assert driver.total(metrics.BUFFER_SPANS) == 6
    assert driver.values()[metrics.BUFFER_BYTES][()] > driver.pipeline.buffer.nbytes
    driver.check_ledger()
    slow.room = 3
    driver.tick(WAIT)
    assert (len(slow.traces), driver.total(metrics.SPANS_KEPT)) == (3, 6)
    driver.send(request((6, 1)), WAIT)
    slow.room = 5
    driver.tick(2 * WAIT)
    assert (len(slow.traces), len(fast.traces)) == (5, 6)
    slow.room = None
    driver.tick(2 * WAIT)
    assert [trace.trace_id for trace in slow.traces] == [trace.trace_id for trace in fast.traces]  # in order, once each
    assert driver.total(metrics.BUFFER_SPANS) == 0
    assert driver.values()[metrics.BUFFER_BYTES][()] == driver.pipeline.buffer.nbytes
    driver.check_ledger()


def test_several_full_destinations() -> None:
    ends = [Destination(room=n) for n in (0, 1, 2)]
    driver = Driver(KEEP_ALL, destinations=ends)
    for number in range(1, 4):
        driver.send(request((number, 1)))
    driver.tick(WAIT)
    for room in range(4):
        for end in ends:
            end.room = max(room, end.room or 0)
        driver.tick(WAIT)
        driver.check_ledger()
        assert driver.total(metrics.SPANS_KEPT) == room
    assert all(len(end.traces) == 3 for end in ends)


def test_a_request_that_needs_room_asks_the_destinations_again() -> None:
    driver = Driver(KEEP_ALL, max_bytes=200 * KIB, destinations=[Destination(room=0)])
    number, _ = fill(driver)
    driver.destinations[0].room = None
    driver.send(request((number, 1), size=4 * KIB))
    assert driver.total(metrics.SPANS_KEPT) > 0
    driver.check_ledger()


def test_without_destinations_what_is_kept_counts_as_kept() -> None:
    driver = Driver(KEEP_ALL, destinations=[])
    driver.send(request((1, 1)))
    driver.tick(WAIT)
    assert driver.total(metrics.SPANS_KEPT) == 1
    driver.check_ledger()


# The end


def test_draining_decides_everything_by_the_rules() -> None:
    driver = Driver(ERRORS)
    for number in range(1, 11):
        driver.send(request((number, 1), error=number % 2 == 0))
    driver.pipeline.close()
    with pytest.raises(Draining) as refusal:
        driver.send(request((11, 1)))
    assert refusal.value.retry_after_ns is not None
    assert driver.pipeline.drain(SECOND, 4) is True
    driver.check_ledger()
    assert driver.pipeline.drain(SECOND, 6) is False
    assert driver.pipeline.drain(SECOND) is False
    assert decided(driver) == {("errors", "keep", "shutdown"): 5, ("rest", "drop", "shutdown"): 5}
    assert attributes(driver) == {("sampler_proxy.rule", "errors"), ("sampler_proxy.reason", "shutdown"), INCOMPLETE}
    assert driver.values()[metrics.REQUESTS_REFUSED] == {("grpc", "draining"): 1}
    assert driver.total(metrics.SPANS_RECEIVED) == 10
    driver.check_ledger()


def test_draining_waits_for_the_destinations() -> None:
    driver = Driver(KEEP_ALL, destinations=[Destination(), Destination(room=1)])
    for number in range(1, 4):
        driver.send(request((number, 1)))
    assert driver.pipeline.drain(0) is True
    assert driver.total(metrics.BUFFER_SPANS) == 2
    driver.destinations[1].room = None
    assert driver.pipeline.drain(0) is False
    assert [len(end.traces) for end in driver.destinations] == [3, 3]
    driver.check_ledger()


# Requests that are refused or partly refused, and what is counted


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a", b"\x0a\x05abc"])
def test_a_malformed_request_is_counted_and_harms_nothing(raw: bytes) -> None:
    driver = Driver(KEEP_ALL)
    good = request((1, 1), (2, 1)).SerializeToString()
    for at, damaged in enumerate((raw, good + raw, good[:-1]), start=1):
        with pytest.raises(MalformedRequest) as refusal:
            driver.send(damaged)
        assert refusal.value.retry_after_ns is None
        assert driver.send(request((at, 1), (at, 2))) == b""
        driver.check_ledger()
    driver.tick(WAIT)
    assert spans_in(driver.kept()) == [(n, s) for n in (1, 2, 3) for s in (1, 2)]
    values = driver.values()
    assert values[metrics.REQUESTS_RECEIVED] == {("grpc",): 6}
    assert values[metrics.REQUESTS_REFUSED] == {("grpc", "malformed"): 3}
    assert values[metrics.SPANS_RECEIVED] == {("grpc",): 6}
    assert sum(values[metrics.REQUEST_SIZE_BYTES][()].counts) == 6
    driver.check_ledger()


def test_empty_requests_are_accepted() -> None:
    driver = Driver(KEEP_ALL)
    for raw in (b"", b"\x0a\x00", b"\x0a\x02\x12\x00"):
        assert driver.send(raw) == b""
    assert driver.values()[metrics.REQUESTS_RECEIVED] == {("grpc",): 3}
    assert len(driver.pipeline.envelopes) == 0


@pytest.mark.parametrize("bad", [1, 130, 20_000])
def test_spans_without_valid_ids_are_rejected_alone(bad: int) -> None:
    driver = Driver(KEEP_ALL)
    message = request((1, 1))
    spans = message.resource_spans[0].scope_spans[0].spans
    for _ in range(bad):
        spans.add(trace_id=bytes(16), span_id=b"\x01" * 8)
    spans.add(trace_id=trace_id(1), span_id=b"")
    answer = ExportTraceServiceResponse.FromString(driver.send(message)).partial_success
    assert answer.rejected_spans == bad + 1
    assert answer.error_message == f"rejected: {bad} spans with an invalid trace id, 1 with an invalid span id"
    assert driver.values()[metrics.SPANS_REJECTED_INPUT] == {
        ("trace_id",): bad,
        ("span_id",): 1,
        ("deprecated_field",): 0,
    }
    assert driver.total(metrics.SPANS_RECEIVED) == 1
    driver.tick(WAIT)
    assert spans_in(driver.kept()) == [(1, 1)]
    driver.check_ledger()


def test_each_intake_counts_for_its_transport() -> None:
    driver = Driver(KEEP_NONE)
    other = driver.pipeline.intake("http")
    driver.send(request((1, 1), (1, 2)))
    other.accept(request((1, 3)).SerializeToString(), 0)
    driver.pipeline.count_refused("http", "too_large")
    values = driver.values()
    assert values[metrics.SPANS_RECEIVED] == {("grpc",): 2, ("http",): 1}
    assert values[metrics.REQUESTS_RECEIVED] == {("grpc",): 1, ("http",): 2}
    assert values[metrics.REQUESTS_REFUSED] == {("http", "too_large"): 1}
    assert driver.total(metrics.BUFFER_TRACES) == 1


def test_the_snapshot_names_declared_metrics_only() -> None:
    driver = Driver(ERRORS)
    driver.send(request((1, 1), error=True))
    driver.tick(WAIT)
    for metric, series in driver.values().items():
        assert metric in metrics.METRICS
        for labels in series:
            assert len(labels) == len(metric.labels)


# Rule sets that make no sense


def rule_set(**changes: object) -> RuleSet:
    error = Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)
    compiled = Compiled(
        conditions=(error,),
        comparisons=(),
        trace_conditions=(),
        filters=((0,),),
        deferred=frozenset(),
        queries=(),
        programs=((0,), (TRUE,)),
        monotone=(True, True),
        late=(True, True),
        exclusions=((FALSE,), (FALSE,)),
    )
    parts: dict[str, Any] = {
        "names": ["errors", "rest"],
        "keeps": [1.0, 0.0],
        "ledger_id": lambda name: {"errors": 0, "rest": 1}[name],
    }
    of_compiled = {key: value for key, value in changes.items() if hasattr(compiled, key)}
    others = {key: value for key, value in changes.items() if key not in of_compiled}
    return RuleSet(**{**parts, **others}, compiled=replace(compiled, **of_compiled))


LONG = Condition(Field.TRACE_DURATION, b"", Op.GT, Kind.INT, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": [], "keeps": [], "programs": []},
        {"names": ["rest"]},
        {"keeps": [1.0]},
        {"programs": [(TRUE,)]},
        {"programs": [(0,), (0,)]},
        {"programs": [(0, AND), (TRUE,)]},
        {"programs": [(2,), (TRUE,)]},
        {"programs": [(1,), (TRUE,)]},
        {"programs": [(2,), (TRUE,)], "trace_conditions": (LONG, LONG)},
        {"programs": [(3,), (TRUE,)], "trace_conditions": (LONG,)},
    ],
)
def test_nonsensical_rule_sets_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        rule_set(**changes)


def test_a_rule_set_says_what_it_is() -> None:
    rules = rule_set()
    assert rules.names == ("errors", "rest")
    assert rules.count == 2
    assert rules.plan.serial > 0


def test_bytes_are_counted_as_configured() -> None:
    driver = Driver(KEEP_ALL, max_bytes=3 * MIB)
    assert driver.values()[metrics.BUFFER_MAX_BYTES] == {(): 3 * MIB}
    assert driver.values()[metrics.DECISION_MEMORY_TRACES] == {(): 0}
    driver.send(request((1, 1)))
    driver.tick(WAIT)
    assert driver.values()[metrics.DECISION_MEMORY_TRACES] == {(): 1}
    assert 0 < driver.values()[metrics.DECISION_MEMORY_BYTES][()] <= MIB
