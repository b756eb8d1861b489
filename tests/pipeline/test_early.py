"""Early decisions: a trace that is bound to be kept whole is decided as soon as that is known, and what follows of it
streams through. That changes when a trace is decided and by which rule, never whether it is kept nor its threshold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from sampler_proxy.pipeline import replay
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import KEEP_ALL, SECOND, WAIT, WAIT_AFTER_ROOT, Driver, request, rules_of, trace_id
from tests.rules.conformance.traces import ERROR, TRACE_ID, cut, span
from tests.rules.conformance.traces import request as request_of
from tests.support import reference, strategies, traceql_strategies
from tests.support.reference import Seen

KIB = 1 << 10
ERRORS: list[tuple[str, str | None, float]] = [("errors", "{ status = error }", 1.0), ("rest", None, 0.0)]
Rule = tuple[str | None, str | None, float]  # match, unless, probability


def driver_of(listed: Sequence[tuple[str, str | None, float]], **settings: Any) -> Driver:
    return Driver(native=rules_of(listed, early=True), **settings)


def native(listed: Sequence[Rule], *, early: bool) -> tuple[Any, ...]:
    """Compile rules with `unless`, and behind them one that takes the rest."""
    compiled = compile_rules(
        [(parse(match) if match else None, parse(unless) if unless else None) for match, unless, _ in listed]
        + [(None, None)]
    )
    if not early:
        compiled = replace(compiled, monotone=(False,) * len(compiled.monotone))
    return [str(number) for number in range(len(listed) + 1)], [*(keep for _, _, keep in listed), 0.0], compiled


def decided(driver: Driver) -> dict[tuple[str, ...], int]:
    """Count decided traces by (rule, decision, reason)."""
    return dict(driver.values()[metrics.TRACES_DECIDED])


def kept_spans(driver: Driver) -> Counter[tuple[bytes, bytes]]:
    return Counter((one.span.trace_id, one.span.span_id) for one in reference.seen(driver.kept()))


def stamps(driver: Driver) -> set[tuple[str, ...]]:
    """Collect the tracestate of each kept span and the attributes that say how it was decided."""
    return {
        (
            one.span.trace_state,
            *(
                f"{attribute.key}={attribute.value.string_value or attribute.value.bool_value}"
                for attribute in one.span.attributes
                if attribute.key.startswith("sampler_proxy.")
            ),
        )
        for one in reference.seen(driver.kept())
    }


EARLY_ERRORS = {("", "sampler_proxy.rule=errors", "sampler_proxy.reason=early")}


# When and how


def test_a_trace_is_decided_with_the_fragment_that_matches() -> None:
    driver = driver_of(ERRORS)
    driver.send(request((1, 1), (2, 1)), 0)
    assert not decided(driver)
    driver.send(request((1, 2), error=True), 1)
    assert decided(driver) == {("errors", "keep", "early"): 1}
    assert kept_spans(driver) == {(trace_id(1), n.to_bytes(8)): 1 for n in (1, 2)}
    assert stamps(driver) == EARLY_ERRORS  # no root was seen, but nothing will be missing
    assert driver.total(metrics.BUFFER_SPANS) == 1
    driver.check_ledger()


def test_later_spans_stream_through_with_the_same_stamps() -> None:
    driver = driver_of(ERRORS)
    driver.send(request((1, 1), error=True), 0)
    driver.send(request((1, 2)), SECOND)
    driver.send(request((1, 3), root=True), 2 * SECOND)
    assert kept_spans(driver) == {(trace_id(1), n.to_bytes(8)): 1 for n in (1, 2, 3)}
    assert stamps(driver) == EARLY_ERRORS
    assert decided(driver) == {("errors", "keep", "early"): 1}
    driver.tick(WAIT + 2 * SECOND)
    assert decided(driver) == {("errors", "keep", "early"): 1}
    assert driver.total(metrics.LATE_SPANS) == 0
    assert driver.total(metrics.BUFFER_SPANS) == 0
    driver.check_ledger()


def test_spans_that_come_after_another_reason_are_still_late() -> None:
    driver = driver_of(ERRORS)
    driver.send(request((1, 1)), 0)
    driver.tick(WAIT)
    driver.send(request((1, 2), error=True), WAIT + 1)
    assert decided(driver) == {("rest", "drop", "wait"): 1}
    assert driver.total(metrics.LATE_SPANS) == driver.total(metrics.LATE_WOULD_KEEP) == 1
    driver.check_ledger()


def test_a_rule_without_match_that_keeps_everything_streams() -> None:
    driver = driver_of(KEEP_ALL)
    for n in range(1, 51):
        driver.send(request((n % 7, n)), n)
        assert driver.total(metrics.BUFFER_SPANS) == 0
    assert decided(driver) == {("all", "keep", "early"): 7}
    assert driver.total(metrics.SPANS_KEPT) == kept_spans(driver).total() == 50
    assert driver.total(metrics.LATE_SPANS) == 0
    driver.check_ledger()


def test_a_flood_of_errors_does_not_fill_the_buffer() -> None:
    driver = driver_of(ERRORS, max_bytes=256 * KIB, max_trace_bytes=64 * KIB)
    empty = driver.pipeline.buffer.nbytes
    for n in range(1, 201):
        driver.send(request((n, 1), (n, 2), error=True, size=8 * KIB), n)
        driver.send(request((n, 3), size=8 * KIB), n)
        values = driver.values()
        assert values[metrics.BUFFER_SPANS][()] == values[metrics.BUFFER_TRACES][()] == 0
        assert driver.pipeline.buffer.nbytes < empty + KIB  # the header that what was kept shares
    assert decided(driver) == {("errors", "keep", "early"): 200}
    assert driver.total(metrics.SPANS_KEPT) == 600
    driver.check_ledger()


def test_find_says_early() -> None:
    driver = driver_of(ERRORS)
    driver.send(request((1, 1), error=True), 0)
    found = driver.pipeline.find(trace_id(1), 3 * SECOND)
    assert found == {
        "state": "decided",
        "rule": "errors",
        "keep": True,
        "reason": "early",
        "threshold": 0,
        "incomplete": False,
        "limited": False,
        "ago_seconds": 3,
    }


# Which rules

TREE = [
    span("root", "checkout", ms=(0, 2000), res={"service.name": "shop"}),
    span("pay", "charge", parent="root", ms=(100, 1500), attrs={"n": 3}),
    span("sql", "query", parent="pay", ms=(200, 1300), status=ERROR, attrs={"n": 4}),
]


@pytest.mark.parametrize(
    "match",
    [
        "{}",
        "{ status = error }",
        "{ status != ok }",  # not "no span": some span
        "{ traceDuration > 1s }",
        "{ traceDuration >= 2s && name = `checkout` }",
        "{ name = `checkout` } && { name = `query` }",
        "{} | count() > 2",
        "{} | count() >= 3",
        "{ .n > 1 } | count() > 1",
        "{ name = `checkout` } >> { status = error }",
        "{ status = error } < { name = `charge` }",
        "({ name = `checkout` } > { .n = 3 }) && { status = error }",
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_decided_early(match: str, together: bool) -> None:
    driver = driver_of([("rule", match, 1.0), ("rest", None, 0.0)])
    for n, part in enumerate([TREE] if together else [[one] for one in TREE]):
        driver.send(request_of(part), n)
    assert decided(driver) == {("rule", "keep", "early"): 1}
    assert driver.total(metrics.SPANS_KEPT) == 3
    driver.check_ledger()


@pytest.mark.parametrize(
    ("match", "unless"),
    [
        ("{ rootName = `checkout` }", None),
        ("{ rootServiceName = `shop` }", None),
        ("{ rootServiceName = `shop` } || { name = `nothing` }", None),
        ("{ traceDuration < 1m }", None),
        ("{ traceDuration = 2s }", None),
        ("{} | count() < 9", None),
        ("{} | count() = 3", None),
        ("{} | avg(span.n) > 3", None),
        ("{} | max(span.n) < 9", None),
        ("{ name = `query` } !>> { name = `checkout` }", None),
        ("{ name = `query` } !< { name = `checkout` }", None),
        ("{ status = error }", "{ name = `nothing` }"),
        (None, "{ name = `nothing` }"),
    ],
)
def test_not_decided_early(match: str | None, unless: str | None) -> None:
    """All of these match, and would not for other spans that may come."""
    driver = Driver(native=native([(match, unless, 1.0)], early=True))
    for n, one in enumerate(TREE):
        driver.send(request_of([one]), n)
    assert not decided(driver)
    driver.tick(WAIT_AFTER_ROOT)
    assert decided(driver) == {("0", "keep", "root"): 1}
    driver.check_ledger()


def test_a_rule_behind_one_that_keeps_less_does_not_decide_early() -> None:
    listed = [("slow", "{ traceDuration > 1m }", 1.0), ("half", "{ name = `rare` }", 0.5), *ERRORS]
    driver = driver_of(listed)
    driver.send(request((1, 1), error=True), 0)
    assert not decided(driver)  # a span with the rare name may come, and then half of them are kept
    driver.tick(WAIT)
    assert decided(driver) == {("errors", "keep", "wait"): 1}
    driver.check_ledger()


def test_a_rule_before_it_that_cannot_decide_early_does_not_matter_if_it_keeps_everything() -> None:
    """Which of both rules would have decided is open; that the trace is kept is not."""
    driver = driver_of([("root", "{ rootName = `GET /` }", 1.0), *ERRORS])
    driver.send(request((1, 1), error=True), 0)
    assert decided(driver) == {("errors", "keep", "early"): 1}
    driver.send(request((2, 1), root=True), 0)
    driver.send(request((2, 2), error=True), 0)
    assert decided(driver) == {("errors", "keep", "early"): 1, ("root", "keep", "early"): 1}
    driver.check_ledger()


def test_a_rule_that_keeps_less_is_never_early() -> None:
    driver = driver_of([("most", "{ status = error }", 0.9), ("rest", None, 0.0)])
    driver.send(request((1, 1), error=True), 0)
    assert not decided(driver)


def test_more_than_64_rules() -> None:
    listed: list[tuple[str, str | None, float]] = [(f"n{n}", f"{{ .n = {n} }}", 1.0) for n in range(200)]
    driver = driver_of([*listed, ("rest", None, 0.0)])
    driver.send(request_of([span("a", attrs={"n": 3000})]), 0)
    assert not decided(driver)
    driver.send(request_of([span("b", attrs={"n": 150})]), 1)
    assert decided(driver) == {("n150", "keep", "early"): 1}


def test_large_traces_are_checked_again_as_they_grow() -> None:
    """A rule that reads the spans again is evaluated whenever a trace has grown by an eighth, and may decide so much
    later."""
    driver = driver_of([("large", "{} | count() > 500", 1.0), ("rest", None, 0.0)])
    for n in range(1, 501):
        driver.send(request((1, n)), n)
    assert not decided(driver)
    n = 500
    while not decided(driver):
        n += 1
        assert n <= 501 * 9 // 8 + 1
        driver.send(request((1, n)), n)
    assert decided(driver) == {("large", "keep", "early"): 1}
    assert driver.total(metrics.SPANS_KEPT) == n
    driver.check_ledger()


def test_spans_that_arrive_twice_count_once() -> None:
    driver = driver_of([("three", "{} | count() >= 3", 1.0), ("rest", None, 0.0)])
    for _ in range(5):
        driver.send(request((1, 1), (1, 2)), 0)
    assert not decided(driver)
    driver.send(request((1, 3)), 0)
    assert decided(driver) == {("three", "keep", "early"): 1}
    assert driver.total(metrics.SPANS_KEPT) == 11
    driver.check_ledger()


# The outcome is the same


def some_rules(texts: Sequence[str], random: Random) -> list[Rule]:
    return [
        (
            text if random.random() < 0.9 else None,
            random.choice(texts) if random.random() < 0.2 else None,
            random.choice([1.0, 1.0, 1.0, 1.0, 0.5, 0.0]),
        )
        for text in texts
    ]


def dealt(traces: Sequence[Sequence[Seen]], random: Random) -> list[ExportTraceServiceRequest]:
    """Cut traces into requests, in any order, of one trace or of several. Each trace gets an id of its own."""
    pieces = []
    for number, spans in enumerate(traces):
        for one in spans:
            one.span.trace_id = trace_id(number + 1)
        pieces += cut(spans, random)
    random.shuffle(pieces)
    requests: list[ExportTraceServiceRequest] = []
    for piece in pieces:
        if requests and random.random() < 0.3:
            requests[-1].MergeFrom(piece)
        else:
            requests.append(piece)
    return requests


@given(
    texts=traceql_strategies.expressions(4),
    traces=st.lists(traceql_strategies.traces(), min_size=3, max_size=3),
    random=strategies.seeds,
)
@settings(max_examples=2 * settings().max_examples)
def test_early_decisions_do_not_change_the_outcome(texts: list[str], traces: list[list[Seen]], random: Random) -> None:
    listed = some_rules(texts, random)
    requests = dealt(traces, random)
    hasty, patient = (Driver(native=native(listed, early=early)) for early in (True, False))
    for driver in (hasty, patient):
        for n, message in enumerate(requests):
            driver.send(message, n)
            driver.check_ledger()
        driver.tick(WAIT + len(requests))
        driver.check_ledger()
        assert driver.total(metrics.BUFFER_SPANS) == driver.total(metrics.LATE_SPANS) == 0
    replayed = replay.decide(*native(listed, early=True), [message.SerializeToString() for message in requests])
    assert len(replayed) == len(traces)
    for one in replayed:
        outcomes = []
        for driver in (hasty, patient):
            found = driver.pipeline.find(one.trace_id, 0)
            assert found is not None
            event(found["reason"])
            outcomes.append((found["keep"], found["threshold"]))
        assert outcomes == [(one.keep, one.threshold)] * 2
    assert kept_spans(hasty) == kept_spans(patient)
    assert not any(reason == "early" for _, _, reason in decided(patient))


def test_traces_of_one_id_in_one_request() -> None:
    """The spans of a trace are one fragment, whatever lies between them."""
    driver = driver_of(ERRORS)
    message = request((1, 1), (2, 1))
    message.MergeFrom(request((1, 2), error=True))
    driver.send(message, 0)
    assert decided(driver) == {("errors", "keep", "early"): 1}
    assert {key for key, _ in kept_spans(driver)} == {trace_id(1)} != {TRACE_ID}
    driver.check_ledger()
