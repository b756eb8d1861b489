"""Rules replaced while traces are buffered: a trace is decided by those that are active at that moment, as if they had
always been, and what has been decided stays so."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler_proxy import metrics
from sampler_proxy.pipeline import replay
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.program import AND, FALSE, TRUE
from tests.pipeline.driver import (
    ERRORS,
    KEEP_ALL,
    KEEP_NONE,
    SECOND,
    WAIT,
    WAIT_AFTER_ROOT,
    Destination,
    Driver,
    request,
    rules_of,
    trace_id,
)
from tests.rules.conformance.traces import cut
from tests.support import reference, strategies, traceql_strategies
from tests.support.reference import Seen


def decided(driver: Driver) -> dict[tuple[str, ...], int]:
    """Count decided traces by (rule, decision, reason)."""
    return dict(driver.values()[metrics.TRACES_DECIDED])


def replace_rules(driver: Driver, listed: list[tuple[str, str | None, float]], *, early: bool = False) -> None:
    driver.pipeline.replace_rules(rules_of(listed, early=early))
    driver.check_ledger()


def rule_of(driver: Driver, number: int) -> tuple[str, bool, int]:
    found = driver.pipeline.find(trace_id(number), 0)
    assert found is not None
    return found["rule"], found["keep"], found["threshold"]


# Which rules decide


def test_the_rules_at_the_moment_of_the_decision_count() -> None:
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1), (2, 1)), 0)
    driver.send(request((1, 2), root=True), 0)
    driver.tick(WAIT_AFTER_ROOT)
    replace_rules(driver, KEEP_NONE)
    driver.tick(WAIT)
    assert decided(driver) == {("all", "keep", "root"): 1, ("none", "drop", "wait"): 1}
    assert driver.pipeline.rules.names == ("none",)
    driver.check_ledger()


def test_fragments_of_other_rules_are_read_again() -> None:
    """The new rules ask for what the old ones did not look for."""
    driver = Driver([("named", '{ name = "nothing" }', 1.0), ("rest", None, 0.0)])
    for n in (1, 2, 3):
        driver.send(request((n, 1)), 0)
    driver.send(request((2, 2), error=True), 0)
    replace_rules(driver, ERRORS)
    driver.send(request((3, 2), error=True), 1)  # fragments of both rule sets
    driver.send(request((3, 3)), 2)
    driver.tick(WAIT)
    assert [rule_of(driver, n)[0] for n in (1, 2, 3)] == ["rest", "errors", "errors"]
    driver.check_ledger()


def test_rules_that_come_back_read_their_fragments_again() -> None:
    driver = Driver(ERRORS)
    driver.send(request((1, 1), error=True), 0)
    for listed in (KEEP_NONE, ERRORS):
        replace_rules(driver, listed)
        driver.send(request((1, 2)), 1)
    driver.tick(WAIT)
    assert rule_of(driver, 1)[0] == "errors"


def test_early_decisions_begin_with_the_new_rules() -> None:
    """Traces that were buffered before are decided in their time."""
    driver = Driver(KEEP_NONE)
    driver.send(request((1, 1), error=True), 0)
    replace_rules(driver, ERRORS, early=True)
    driver.send(request((1, 2), error=True), 1)
    driver.send(request((2, 1), error=True), 1)
    driver.tick(WAIT)
    assert decided(driver) == {("errors", "keep", "wait"): 1, ("errors", "keep", "early"): 1}
    assert driver.total(metrics.SPANS_KEPT) == 3
    driver.check_ledger()


@given(
    texts=traceql_strategies.expressions(9),
    spans=traceql_strategies.traces(),
    random=strategies.seeds,
    early=st.booleans(),
)
@settings(max_examples=2 * settings().max_examples)
def test_replaced_rules_decide_as_if_they_had_always_been(
    texts: list[str], spans: list[Seen], random: Random, early: bool
) -> None:
    sets = []
    for some in (texts[:2], texts[2:5], texts[5:]):
        listed: list[tuple[str, str | None, float]] = [
            (text, text, random.choice([1.0, 1.0, 0.5, 0.0])) for text in dict.fromkeys(some)
        ]
        sets.append([*listed, ("rest", None, 0.0)])
    pieces = cut(spans, random)
    changed, always = Driver(sets[0]), Driver(sets[-1])
    changes = sorted(random.randint(0, len(pieces)) for _ in sets[1:])
    for n, piece in enumerate([*pieces, None]):
        for change, listed in zip(changes, sets[1:], strict=True):
            if change == n:
                replace_rules(changed, listed, early=early and listed is sets[-1])
        if piece is not None:
            changed.send(piece, n)
            always.send(piece, n)
    outcomes = []
    for driver in (changed, always):
        driver.tick(WAIT + len(pieces))
        found = driver.pipeline.find(spans[0].span.trace_id, 0)
        assert found is not None
        outcomes.append((None if early else found["rule"], found["keep"], found["threshold"]))
        assert driver.total(metrics.BUFFER_SPANS) == driver.total(metrics.LATE_SPANS) == 0
        driver.check_ledger()
    assert outcomes[0] == outcomes[1]
    (replayed,) = replay.decide(*rules_of(sets[-1]), [piece.SerializeToString() for piece in pieces])
    assert outcomes[0][1:] == (replayed.keep, replayed.threshold)


# What stays


def test_counters_go_on_under_the_names_of_rules() -> None:
    driver = Driver(ERRORS)
    driver.send(request((1, 1), error=True), 0)
    driver.send(request((2, 1)), 0)
    driver.tick(WAIT)
    replace_rules(
        driver, [("new", '{ name = "GET /x" }', 1.0), ("errors", "{ status = error }", 0.0), ("all", None, 1.0)]
    )
    driver.send(request((3, 1), error=True), WAIT)
    driver.send(request((4, 1)), WAIT)
    driver.tick(2 * WAIT)
    assert decided(driver) == {
        ("errors", "keep", "wait"): 1,
        ("errors", "drop", "wait"): 1,
        ("rest", "drop", "wait"): 1,
        ("all", "keep", "wait"): 1,
    }
    values = driver.values()
    assert values[metrics.SPANS_KEPT] == {("errors",): 1, ("rest",): 0, ("new",): 0, ("all",): 1}
    assert values[metrics.SPANS_SAMPLED_OUT] == {("errors",): 1, ("rest",): 1, ("new",): 0, ("all",): 0}
    driver.check_ledger()


def test_late_spans_follow_the_old_decision() -> None:
    driver = Driver([("half", None, 0.5)])
    driver.send(request((1, 1)), 0)
    driver.tick(WAIT)
    replace_rules(driver, KEEP_NONE)
    driver.send(request((1, 2)), WAIT)
    driver.send(request((2, 1)), WAIT)
    driver.tick(2 * WAIT)
    replace_rules(driver, [("half", "{ status = error }", 0.1), ("all", None, 1.0)])
    driver.send(request((1, 3), error=True), 2 * WAIT)
    driver.send(request((2, 2)), 2 * WAIT)
    stamped = Counter(
        (one.span.trace_state, *sorted(a.value.string_value for a in one.span.attributes if a.value.string_value))
        for one in reference.seen(driver.kept())
    )
    assert stamped == {("ot=th:8", "half", "wait"): 3}
    assert rule_of(driver, 1) == ("half", True, 1 << 55)
    assert rule_of(driver, 2)[:2] == ("none", False)
    assert driver.values()[metrics.LATE_SPANS] == {("keep",): 2, ("drop",): 1}
    assert driver.total(metrics.LATE_WOULD_KEEP) == 0  # their rules are gone, and what stood before them
    assert driver.values()[metrics.SPANS_KEPT] == {("half",): 3, ("none",): 0, ("all",): 0}
    driver.check_ledger()


def test_late_spans_of_early_decisions_follow_them() -> None:
    driver = Driver(native=rules_of(ERRORS, early=True))
    driver.send(request((1, 1), error=True), 0)
    replace_rules(driver, KEEP_NONE)
    driver.send(request((1, 2)), 1)
    assert rule_of(driver, 1) == ("errors", True, 0)
    assert driver.total(metrics.SPANS_KEPT) == 2
    assert driver.total(metrics.LATE_SPANS) == 0
    driver.check_ledger()


def test_what_is_kept_and_waits_keeps_its_rule() -> None:
    driver = Driver([("first", None, 1.0)], destinations=[Destination(room=0)])
    driver.send(request((1, 1)), 0)
    driver.tick(WAIT)
    replace_rules(driver, KEEP_NONE)
    driver.destinations[0].room = None
    driver.tick(WAIT + 1)
    assert driver.values()[metrics.SPANS_KEPT] == {("first",): 1, ("none",): 0}
    driver.check_ledger()


# Bad rules


def damaged(**changes: Any) -> Callable[[], tuple[Any, ...]]:
    def make() -> tuple[Any, ...]:
        names, keeps, compiled = rules_of([("bad-a", "{ status = error }", 1.0), ("bad-b", None, 0.5)])
        return (
            changes.get("names", names),
            changes.get("keeps", keeps),
            replace(compiled, **{key: value for key, value in changes.items() if key not in ("names", "keeps")}),
        )

    return make


@pytest.mark.parametrize(
    "make",
    [
        damaged(names=["bad-a"]),
        damaged(keeps=[1.0]),
        damaged(keeps=[1.0, float("nan")]),
        damaged(monotone=()),
        damaged(late=()),
        damaged(exclusions=((FALSE,),)),
        damaged(exclusions=((7,), (FALSE,))),
        damaged(programs=((0,), (0,))),
        damaged(programs=((2,), (TRUE,))),
        damaged(programs=((1,), (TRUE,))),
        damaged(programs=((AND,), (TRUE,))),
        damaged(filters=((7,),)),
        lambda: ([], [], compile_rules([])),
        lambda: (["bad"], [1.0], compile_rules([(parse("{ status = error }"), None)])),
    ],
)
def test_bad_rules_change_nothing(make: Callable[[], tuple[Any, ...]]) -> None:
    driver = Driver(ERRORS)
    driver.send(request((1, 1), error=True), 0)
    before, values = driver.pipeline.rules, driver.values()
    with pytest.raises(ValueError, match=r"."):
        driver.pipeline.replace_rules(make())
    assert driver.pipeline.rules is before
    assert driver.values() == values
    driver.send(request((1, 2)), 1)
    driver.tick(WAIT)
    assert decided(driver) == {("errors", "keep", "wait"): 1}
    driver.check_ledger()


# From other threads


def test_requests_and_changes_at_the_same_time() -> None:
    """All of the rule sets keep traces with errors and drop the others, each by other filters and another plan: so what
    is kept is known, whatever decides and whatever the fragments were scanned for."""
    errors: tuple[str, str | None, float] = ("errors", "{ status = error }", 1.0)
    rest: tuple[str, str | None, float] = ("rest", None, 0.0)
    never: list[tuple[str, str | None, float]] = [(f"n{n}", f'{{ .n{n} = "{n}" }}', 1.0) for n in range(100)]
    sets = [
        rules_of([errors, rest]),
        rules_of([*never, errors, rest]),
        rules_of([("tree", "{ status = error } >> { .a = 1 }", 1.0), *never[:3], errors, rest]),
        rules_of([errors, rest], early=True),
        rules_of([*never, ("counted", "{ status = error } | count() > 1", 1.0), errors, rest], early=True),
    ]
    driver = Driver(native=sets[0], wait_ns=3, decision_memory_bytes=16 << 20)
    traces = 1600
    rounds = 4  # spans of each trace
    faults: list[BaseException] = []
    done = threading.Event()

    def send(first: int) -> None:
        intake = driver.pipeline.intake("grpc")
        try:
            for start in range(first, first + traces, 8):
                for part in range(1, rounds + 1):
                    plain = request(*((n, part) for n in range(start, start + 8, 2)))
                    failing = request(*((n, part) for n in range(start + 1, start + 8, 2)), error=True)
                    plain.MergeFrom(failing)
                    intake.accept(plain.SerializeToString(), 0)
        except BaseException as fault:
            faults.append(fault)

    def change() -> None:
        number = 0
        try:
            while not done.is_set():
                driver.pipeline.replace_rules(sets[number % len(sets)])
                number += 1
        except BaseException as fault:
            faults.append(fault)

    senders = [threading.Thread(target=send, args=(first,)) for first in (0, 10_000)]
    changer = threading.Thread(target=change)
    for thread in (changer, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    done.set()
    changer.join()
    assert not faults
    driver.check_ledger()
    driver.tick(SECOND)
    driver.check_ledger()
    kept = Counter((one.span.trace_id, one.span.span_id) for one in reference.seen(driver.kept()))
    assert kept == {
        (trace_id(n), part.to_bytes(8)): 1
        for first in (0, 10_000)
        for n in range(first + 1, first + traces, 2)
        for part in range(1, rounds + 1)
    }
    assert sum(decided(driver).values()) == 2 * traces
    assert driver.total(metrics.SPANS_RECEIVED) == 2 * traces * rounds


# find()


def test_find_tells_what_is_buffered() -> None:
    driver = Driver(ERRORS)
    driver.send(request((1, 1), (1, 2), (2, 1)), 5 * SECOND)
    found = driver.pipeline.find(trace_id(1), 7 * SECOND)
    assert found is not None
    assert found.pop("bytes") > 0
    assert found == {
        "state": "buffered",
        "spans": 2,
        "fragments": 1,
        "age_seconds": 2,
        "root_seen": False,
        "chosen": False,
    }
    driver.send(request((1, 3), root=True), 8 * SECOND)
    replace_rules(driver, KEEP_NONE)
    found = driver.pipeline.find(trace_id(1), 8 * SECOND)
    assert found is not None
    assert found.pop("bytes") > 0
    assert found == {
        "state": "buffered",
        "spans": 3,
        "fragments": 2,
        "age_seconds": 3,
        "root_seen": True,
        "chosen": False,
    }
    assert driver.pipeline.find(trace_id(1), 0)["age_seconds"] == 0  # type: ignore[index]  # a clock that went back


def test_find_tells_what_was_decided() -> None:
    driver = Driver([("half", None, 0.5)])
    driver.send(request((1, 1)), 0)
    driver.tick(WAIT)
    replace_rules(driver, KEEP_NONE)
    assert driver.pipeline.find(trace_id(1), WAIT + 90 * SECOND) == {
        "state": "decided",
        "rule": "half",
        "keep": True,
        "reason": "wait",
        "threshold": 1 << 55,
        "incomplete": True,
        "limited": False,
        "ago_seconds": 90,
    }


def test_find_does_not_know_other_traces() -> None:
    driver = Driver(KEEP_ALL)
    driver.send(request((1, 1)), 0)
    assert driver.pipeline.find(trace_id(2), 0) is None
    for wrong in (b"", bytes(15), bytes(17)):
        with pytest.raises(ValueError, match="16 bytes"):
            driver.pipeline.find(wrong, 0)
