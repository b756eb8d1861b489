"""Work that a few bytes can ask for is counted, bounded, and said to be so. Effort is asserted on, never time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy import metrics
from sampler_proxy.errors import EffortSpent, RequestTooCostly
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.scanner import Scanner
from sampler_proxy.rules.plan import Plan
from sampler_proxy.rules.rule_set import RuleSet
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import MIB, SECOND, WAIT, Driver, request, rules_of, trace_id
from tests.support.wire import LEN, field

BASE = 50_000


def many(spans: int, **fields: Any) -> ExportTraceServiceRequest:
    return request(*((1, number) for number in range(1, spans + 1)), **fields)


def spans_of(message: ExportTraceServiceRequest) -> Iterable[Span]:
    return message.resource_spans[0].scope_spans[0].spans


def scanner(*matches: str) -> Scanner:
    compiled = compile_rules([*((parse(match), None) for match in matches), (None, None)])
    return Scanner(Plan(compiled.conditions, compiled.filters, comparisons=compiled.comparisons))


def with_text(message: ExportTraceServiceRequest, values: int = 1) -> bytes:
    """Give each span an attribute `k` with texts that no other has."""
    for number, span in enumerate(spans_of(message)):
        value = span.attributes.add(key="k").value
        for index in range(values):
            text = f"{number}.{index}"
            if values == 1:
                value.string_value = text
            else:
                value.array_value.values.add().string_value = text
    return message.SerializeToString()


REGEXES = [f"{{ span.k =~ `x{number}.*y` }}" for number in range(100)]


# The scan.


def costly_regexes() -> tuple[Scanner, bytes]:
    return scanner(*REGEXES), with_text(many(2000))


def costly_array_of_texts() -> tuple[Scanner, bytes]:
    return scanner(*REGEXES), with_text(many(1), values=2000)


def costly_array() -> tuple[Scanner, bytes]:
    elements = field(5, LEN, field(1, LEN, b"") * 400_000)
    span = trace_of(field(9, LEN, field(1, LEN, b"k") + field(2, LEN, elements)))
    return scanner(*(f"{{ span.k = {number} }}" for number in range(200))), span


def costly_comparisons() -> tuple[Scanner, bytes]:
    elements = field(5, LEN, field(1, LEN, b"") * 400_000)
    span = trace_of(field(9, LEN, field(1, LEN, b"k") + field(2, LEN, elements)))
    return scanner(*(f"{{ span.k != duration + {number} }}" for number in range(200))), span


def costly_keys() -> tuple[Scanner, bytes]:
    span = trace_of(field(9, LEN, field(1, LEN, b"k") + field(2, LEN, b"\x18\x01")) * 100_000)
    return scanner(*(f"{{ span.k = {number} }}" for number in range(10, 400))), span


def costly_pairs() -> tuple[Scanner, bytes]:
    events = field(11, LEN, field(3, LEN, field(1, LEN, b"k") + field(2, LEN, b"\x18\x01"))) * 4096
    link = field(1, LEN, b"k") + field(2, LEN, field(5, LEN, field(1, LEN, b"") * 50_000))
    return scanner("{ event.k = link.k }"), trace_of(events + field(13, LEN, field(4, LEN, link)))


def trace_of(fields: bytes) -> bytes:
    """A request with one span: its ids, times, and these encoded fields."""
    span = field(1, LEN, trace_id(1)) + field(2, LEN, b"12345678") + fields
    return field(1, LEN, field(2, LEN, field(2, LEN, span)))


@pytest.mark.parametrize(
    "attack", [costly_regexes, costly_array_of_texts, costly_array, costly_comparisons, costly_keys, costly_pairs]
)
def test_a_scan_stops_where_it_costs_more_than_its_bytes_allow(attack: Any) -> None:
    one, raw = attack()
    budget = BASE + len(raw) // 10
    with pytest.raises(RequestTooCostly):
        one.scan(raw)
    # The last piece may pass the budget; it is a small one.
    assert budget <= one.effort < budget + 10_000
    before = one.effort
    with pytest.raises(EffortSpent):
        one.scan(raw, effort=1000)
    assert one.effort - before < 11_000
    with pytest.raises(RequestTooCostly):  # more than the budget is never granted
        one.scan(raw, effort=10 * budget)


def test_a_scan_that_was_stopped_leaves_no_wrong_answer_behind() -> None:
    """Neither in the cache of texts nor in that of regular expressions."""
    native = rules_of([("match", "{ span.k =~ `1.*` || span.k = `nothing` }", 1.0), ("rest", None, 0.0)])
    compiled = native[2]
    one = Scanner(Plan(compiled.conditions, compiled.filters))
    raw = with_text(many(300))
    for _ in range(3):
        with pytest.raises(EffortSpent):
            one.scan(raw, effort=50)
    whole = one.scan(raw)
    misses = one.regex_misses
    assert (whole.spans, misses) == (300, 300)
    one.scan(raw)
    assert one.regex_misses == misses


def test_effort_is_enough_for_an_ordinary_request() -> None:
    raw = with_text(many(1000, size=200))
    one = scanner(*REGEXES[:10])
    one.scan(raw, effort=20_000)
    assert 10_000 < one.effort < 20_000
    before = one.effort
    one.scan(raw)  # all answers are in the cache
    assert one.effort - before < 1000


def test_a_refused_request_is_counted_and_nothing_of_it_is_taken() -> None:
    driver = Driver([*((match, match, 1.0) for match in REGEXES), ("rest", None, 0.0)])
    with pytest.raises(RequestTooCostly) as refused:
        driver.send(with_text(many(2000)))
    assert refused.value.retry_after_ns is None
    assert driver.values()[metrics.REQUESTS_REFUSED] == {("grpc", "effort"): 1}
    assert driver.total(metrics.SPANS_RECEIVED) == 0
    driver.send(many(3))  # the next is as ever
    driver.check_ledger()
    assert driver.total(metrics.SPANS_RECEIVED) == 3


# Events and links.


def selects(match: str, message: ExportTraceServiceRequest | bytes) -> tuple[bool, int]:
    """Whether the trace of a request is decided by a rule, and the number of traces decided by a part of them."""
    driver = Driver([("match", match, 1.0), ("rest", None, 0.0)], max_bytes=256 * MIB, max_trace_bytes=256 * MIB)
    driver.send(message)
    driver.tick(2 * WAIT)
    decided = driver.values()[metrics.TRACES_DECIDED]
    return any(rule == "match" for rule, *_ in decided), driver.pipeline.rules.partly_read


@pytest.mark.parametrize(
    ("match", "events", "links", "at", "expected"),
    [
        ("{ event.k = link.k }", 64, 64, (63, 63), (True, 0)),
        ("{ event.k = link.k }", 128, 128, (31, 127), (True, 0)),  # found before the bound
        ("{ event.k = link.k }", 128, 128, (32, 0), (False, 1)),
        ("{ event.k = link.k }", 1, 4096, (0, 4095), (True, 0)),
        ("{ event.k = link.k }", 1, 4097, (0, 4096), (False, 1)),
        ("{ event.k = link.k }", 4096, 1, (4095, 0), (True, 0)),
        ("{ event.k = link.k }", 4096, 1, None, (False, 0)),
        ("{ event.k = -1 }", 5000, 5000, (4999, 0), (True, 0)),  # events alone are all tried
        ("{ link.k = -1 }", 5000, 5000, (0, 4999), (True, 0)),
    ],
)
def test_pairs_of_events_and_links(
    match: str, events: int, links: int, at: tuple[int, int] | None, expected: tuple[bool, int]
) -> None:
    message = many(1)
    (span,) = spans_of(message)
    for number in range(events):
        span.events.add().attributes.add(key="k").value.int_value = number + 10
    for number in range(links):
        span.links.add().attributes.add(key="k").value.int_value = -number - 10
    if at is not None:
        span.events[at[0]].attributes[0].value.int_value = -1
        span.links[at[1]].attributes[0].value.int_value = -1
    assert selects(match, message) == expected


@pytest.mark.parametrize(("count", "expected"), [(65_535, (True, 0)), (65_536, (False, 1))])
def test_events_of_one_span_beyond_the_bound_are_not_looked_at(count: int, expected: tuple[bool, int]) -> None:
    empty, last = field(11, LEN, b""), field(11, LEN, field(2, LEN, b"x"))
    assert selects('{ event:name = "x" }', trace_of(empty * count + last)) == expected


# Traces that are read again.


def linked(spans: int, name: str = "a", last: str = "b") -> ExportTraceServiceRequest:
    message = many(spans, root=True)
    for one in spans_of(message):
        one.name = name
    list(spans_of(message))[-1].name = last
    return message


def decided(matches: list[str], message: ExportTraceServiceRequest) -> tuple[int, RuleSet]:
    driver = Driver([*((match, match, 0.0) for match in matches), ("rest", None, 1.0)], max_bytes=256 * MIB)
    driver.send(message)
    before = driver.pipeline.rules.effort
    driver.tick(2 * WAIT)
    return driver.pipeline.rules.effort - before, driver.pipeline.rules


def test_an_ordinary_trace_is_read_whole() -> None:
    effort, rules = decided(["{ name = `a` } ~ { name = `b` }"], linked(10_000))
    assert 100 < effort < 10_000
    assert (rules.beyond, rules.partly_read) == (False, 0)


def test_a_decision_without_a_table_costs_next_to_nothing() -> None:
    effort, rules = decided(["{ name = `c` } ~ { name = `b` }"], linked(10_000))
    assert effort < 10
    assert rules.partly_read == 0


@pytest.mark.parametrize(
    "matches",
    [
        ["{ name = `a` } ~ { name = `b` }"],
        [f"{{ }} | sum(span.k{number}) > 1" for number in range(20)],
        [f"{{ name = `a` }} >> {{ name = `{letter}` }} | count() > 1" for letter in "ab" * 30],
    ],
)
def test_a_trace_that_is_too_large_to_be_read_again_is_decided_by_a_part(matches: list[str]) -> None:
    effort, rules = decided(matches, linked(90_000))
    assert 10_000 <= effort < 13_000
    assert (rules.beyond, rules.partly_read) == (True, 1)


def test_what_the_scan_knows_is_complete_for_a_trace_that_is_too_large() -> None:
    driver = Driver(
        [("table", "{ name = `a` } ~ { name = `a` } | count() = 0", 0.0), ("last", "{ name = `b` }", 1.0),
         ("rest", None, 0.0)],
        max_bytes=256 * MIB,
    )  # fmt: skip
    driver.send(linked(90_000))
    driver.tick(2 * WAIT)
    assert [rule for rule, *_ in driver.values()[metrics.TRACES_DECIDED]] == ["last"]


def test_large_headers_are_not_read_again_without_end() -> None:
    message = ExportTraceServiceRequest()
    for number in range(200):
        part = request((1, number + 1), root=True)
        for index in range(10_000):
            part.resource_spans[0].resource.attributes.add(key=str(index))
        part.resource_spans[0].resource.attributes.add(key="n").value.int_value = number % 2
        message.MergeFrom(part)
    effort, rules = decided(["{ } | sum(resource.n) > 1000"], message)
    assert effort < 11_000
    assert rules.partly_read == 1


def test_the_search_for_a_local_root_is_bounded() -> None:
    message = many(90_000)
    for one in spans_of(message):
        one.flags = 0x300
    effort, rules = decided(["{ rootName = `x` }"], message)
    assert 16_000 <= effort < 17_000  # twice: when the wait for the root is over, and for the decision
    assert rules.partly_read == 1


def test_a_span_that_is_very_large_is_read_again_up_to_a_mebibyte() -> None:
    message = linked(3)
    first, second, _ = spans_of(message)
    first.attributes.add(key="pad").value.bytes_value = bytes(MIB)
    first.attributes.add(key="n").value.int_value = 5
    second.attributes.add(key="n").value.int_value = 1
    _, rules = decided(["{ } | sum(span.n) > 5"], message)
    assert rules.partly_read == 1
    (found,) = replay.decide(*rules_of([("six", "{ } | sum(span.n) > 5", 1.0), ("rest", None, 0.0)]), [
        message.SerializeToString()
    ])  # fmt: skip
    assert found.rule == 1


# Fragments.


def test_a_long_trace_in_one_request_meets_the_limit_on_traces() -> None:
    driver = Driver([("all", None, 1.0)], max_bytes=256 * MIB, max_trace_bytes=2 * MIB)
    driver.send(many(60, size=100_000, root=True))
    decided = driver.values()[metrics.TRACES_DECIDED]
    assert dict(decided) == {("all", "keep", "size"): 1}
    assert driver.total(metrics.LATE_SPANS) > 0  # they follow the decision
    driver.check_ledger()
    assert sum(trace.spans for trace in driver.destinations[0].traces) == 60
    assert [span.span_id for part in driver.kept().resource_spans for scope in part.scope_spans for span in scope.spans]


def test_parts_of_a_trace_are_read_as_one() -> None:
    """Times, root, filter bits and groups of several fragments from one request; other traces stand between."""
    message = ExportTraceServiceRequest()
    for number in range(1, 50):
        message.MergeFrom(request((1, number), (2, number), size=100_000, root=number == 40))
    spans = [span for part in message.resource_spans for span in part.scope_spans[0].spans]
    spans[0].name, spans[-2].name = "first", "last"
    spans[-2].end_time_unix_nano = 9 * SECOND
    rules = [("match", "{ name = `first` } && { name = `last` && duration > 5s }", 1.0), ("rest", None, 0.0)]
    found = {one.trace_id: one for one in replay.decide(*rules_of(rules), [message.SerializeToString()])}
    assert {number: (found[trace_id(number)].rule, found[trace_id(number)].spans) for number in (1, 2)} == {
        1: (0, 49),
        2: (1, 49),
    }
    assert found[trace_id(1)].root == (40).to_bytes(8)
    driver = Driver(rules, max_bytes=256 * MIB)
    driver.send(message)
    assert driver.pipeline.find(trace_id(1), 0)["fragments"] == 5
    driver.tick(2 * WAIT)
    kept = [span for part in driver.kept().resource_spans for scope in part.scope_spans for span in scope.spans]
    assert [span.span_id for span in kept] == [number.to_bytes(8) for number in range(1, 50)]
    driver.check_ledger()
