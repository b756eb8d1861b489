"""What counts as the root of a trace: a span without a parent, or one whose parent belongs to somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sampler_proxy import metrics
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.rules.trace_key import values_of
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import MIB, SECOND, WAIT, WAIT_AFTER_ROOT, Driver
from tests.pipeline.test_late import Rule, leaving, native, send
from tests.pipeline.test_targets import native as keyed
from tests.pipeline.test_targets import target
from tests.rules.conformance.traces import TRACE_ID, request
from tests.rules.conformance.traces import span as plain_span
from tests.support.reference import Seen

UNKNOWN, IN_PROCESS, REMOTE = 0, 0x100, 0x300  # SpanFlags, beside the W3C flags


def span(letters: str, name: str = "", flags: int = IN_PROCESS, **settings: Any) -> Seen:
    one = plain_span(letters, name, **settings)
    one.span.flags = flags | 1
    return one


# A customer's span calls `api`, which calls `bank`; a span of ours calls all of it, in the last.
API = span("api", "GET /pay", REMOTE, parent="theirs", ms=(0, 400), res={"service.name": "api"})
CALL = span("call", parent="api", ms=(100, 300), res={"service.name": "api"})
BANK = span("bank", "POST /pay", REMOTE, parent="call", ms=(150, 250), res={"service.name": "bank"})
THEIRS = span("theirs", "checkout", parent="page", ms=(-10, 410), res={"service.name": "shop"})
PAGE = span("page", "page", UNKNOWN, ms=(-20, 9000), res={"service.name": "shop"})

RULES: list[Rule] = [
    ("ours", '{ rootName = "GET /pay" && rootServiceName = "api" }', None, 1.0),
    ("bank", '{ rootName = "POST /pay" }', None, 1.0),
    ("page", '{ rootName = "page" }', None, 1.0),
    ("rest", None, None, 1.0),
]


def in_time(*rules: Rule) -> tuple[Any, ...]:
    """Rules that decide nothing early."""
    names, keeps, compiled = native(rules)
    return names, keeps, replace(compiled, monotone=(False,) * len(rules))


def decided(driver: Driver) -> list[tuple[str, str]]:
    """Rule and reason of each decision."""
    return [(rule, reason) for (rule, _, reason), count in driver.values()[metrics.TRACES_DECIDED].items() if count]


def rootless(driver: Driver) -> int:
    return driver.total(metrics.TRACES_ROOTLESS)


# Arrivals (after how many seconds, which spans); when the trace is decided, and not before; the rule, and the reason.
CASES: dict[str, tuple[list[tuple[float, list[Seen]]], float, tuple[str, str]]] = {
    "no parent": ([(0, [PAGE])], 5, ("page", "root")),
    "a parent elsewhere": ([(0, [API])], 5, ("ours", "root")),
    "with what it calls": ([(0, [API, CALL, BANK])], 5, ("ours", "root")),
    "what it calls comes first": ([(0, [BANK]), (1, [CALL]), (2, [API])], 7, ("ours", "root")),
    "what it calls comes last": ([(0, [API]), (1, [CALL]), (2, [BANK])], 7, ("ours", "root")),
    "its other spans do not delay it": ([(0, [API]), (4, [CALL])], 5, ("ours", "root")),
    "the true root comes in time": ([(0, [API, CALL]), (4.9, [PAGE])], 9.9, ("page", "root")),
    "its caller comes, and the root late": ([(0, [API]), (2, [THEIRS]), (20, [PAGE])], 25, ("page", "root")),
    "its caller comes, and no root": ([(0, [API]), (2, [THEIRS])], 30, ("rest", "wait")),
    "the same, and another service at last": ([(0, [API, THEIRS]), (28, [CALL, BANK])], 30, ("rest", "wait")),
    "a span waits for its parent": ([(0, [API]), (1, [span("x", parent="y")])], 30, ("ours", "wait")),
    "that parent comes late": (
        [(0, [API]), (1, [span("x", parent="y")]), (9, [span("y", parent="api")])],
        14,
        ("ours", "root"),
    ),
    "the topmost is what starts the wait": ([(0, [BANK]), (4.9, [CALL, API])], 9.9, ("ours", "root")),
    "whatever comes, decision_wait is the end": ([(n, [BANK]) for n in range(0, 30, 4)], 30, ("bank", "wait")),
    "a sender that does not say": ([(0, [span("api", "GET /pay", UNKNOWN, parent="theirs")])], 30, ("rest", "wait")),
    "one that says half of it": ([(0, [span("api", "GET /pay", 0x200, parent="theirs")])], 30, ("rest", "wait")),
    "a parent in the process": ([(0, [span("api", "GET /pay", IN_PROCESS, parent="x")])], 30, ("rest", "wait")),
    "its own parent": ([(0, [span("api", "GET /pay", REMOTE, parent="api")])], 30, ("rest", "wait")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trace_is_decided_after_the_wait_for_its_root(case: str) -> None:
    arrivals, due, expected = CASES[case]
    driver = Driver(native=in_time(*RULES))
    times = sorted({*(at for at, _ in arrivals), *range(31), due})
    for at in times:
        now = round(at * SECOND)
        if at <= due:
            driver.tick(now - 1)
            assert decided(driver) == [], at
        for when, spans in arrivals:
            if when == at:
                driver.send(request(spans), now)
        driver.tick(now)
    assert decided(driver) == [expected]
    assert {stamp[3] for stamp in leaving(driver) if stamp[2] != "late"} == {expected[0] == "rest"}  # incomplete
    assert rootless(driver) == (expected[0] == "rest")
    driver.check_ledger()


def test_where_only_spans_without_a_parent_are_roots() -> None:
    driver = Driver(native=in_time(*RULES), local_roots=False)
    driver.send(request([API, CALL, BANK]), 0)
    driver.tick(WAIT - 1)
    assert decided(driver) == []
    driver.tick(WAIT)
    assert (decided(driver), rootless(driver)) == ([("rest", "wait")], 1)


def test_no_wait_goes_on_for_ever_where_there_is_none() -> None:
    driver = Driver(native=in_time(*RULES), wait_after_root_ns=0)
    driver.send(request([API, span("x", parent="y")]), 0)
    driver.tick(0)
    assert decided(driver) == []
    driver.tick(WAIT)
    assert decided(driver) == [("ours", "wait")]


def test_waits_that_are_broken_off_leave_the_others_in_order() -> None:
    """The list by root loses its head, its middle and its end, and gets them back."""
    driver = Driver(native=in_time(("rest", None, None, 1.0)))
    traces = [bytes([n]) * 16 for n in range(1, 6)]
    for number, trace in enumerate(traces):
        send(driver, [API] if number % 2 else [API, span("x", parent="y")], number * SECOND, trace)
    for number, trace in enumerate(traces):
        driver.tick(number * SECOND + WAIT_AFTER_ROOT)
        assert (driver.pipeline.find(trace, 0) or {})["state"] == ("decided" if number % 2 else "buffered")
    for number, waiting in enumerate((traces[:1], traces[2::2])):  # one alone, then two
        for place, trace in enumerate(waiting):
            send(driver, [span("y", parent="api")], (10 + 6 * number + place) * SECOND, trace)
        for place, trace in enumerate(waiting):
            driver.tick((10 + 6 * number + place) * SECOND + WAIT_AFTER_ROOT - 1)
            assert (driver.pipeline.find(trace, 0) or {})["state"] == "buffered"
            driver.tick((10 + 6 * number + place) * SECOND + WAIT_AFTER_ROOT)
            assert (driver.pipeline.find(trace, 0) or {})["state"] == "decided"
    driver.check_ledger()


# Slow: the root's duration.

SLOW: list[Rule] = [
    ("errors", "{ status = error }", None, 1.0),
    ("slow", "{ rootDuration > 1s }", None, 1.0),
    ("baseline", None, None, 0.0),
]
HOUSE = span("house", "GET /", UNKNOWN, ms=(0, 30))
LOCAL = span("house", "GET /", REMOTE, parent="theirs", ms=(0, 30))
ASYNC = span("mail", parent="house", ms=(20, 5000))


@pytest.mark.parametrize("root", [HOUSE, LOCAL], ids=["parentless", "local"])
@pytest.mark.parametrize("after", [0, 6], ids=["in time", "late"])
def test_an_asynchronous_span_after_the_response_does_not_make_a_trace_slow(root: Seen, after: int) -> None:
    driver = Driver(native=native(SLOW))
    send(driver, [root], 0)
    send(driver, [ASYNC], after * SECOND) if not after else None
    driver.tick(WAIT_AFTER_ROOT)
    send(driver, [ASYNC], after * SECOND) if after else None
    assert leaving(driver) == []
    driver.check_ledger()


@pytest.mark.parametrize("flags", [UNKNOWN, REMOTE])
@pytest.mark.parametrize("late", [False, True])
def test_a_slow_root_is(flags: int, late: bool) -> None:
    """A root of 40 s comes 11 s after the decision on its children."""
    driver = Driver(native=native(SLOW))
    root = span("root", "GET /", flags, parent="theirs" if flags else "", ms=(0, 40_000))
    send(driver, [span("child", parent="root", ms=(0, 20))], SECOND)
    if not late:
        send(driver, [root], 2 * SECOND)
    driver.tick(SECOND + WAIT)
    send(driver, [root], 41 * SECOND) if late else None
    assert [stamp[:3] for stamp in leaving(driver)] == (
        [("root", "slow", "late")] if late else [("child", "slow", "root"), ("root", "slow", "root")]
    )


def test_a_trace_without_a_root_is_slow_by_what_has_come() -> None:
    driver = Driver(native=native(SLOW))
    send(driver, [span("a", UNKNOWN_NAME, UNKNOWN, parent="x", ms=(0, 10))], 0)
    send(driver, [span("b", UNKNOWN_NAME, UNKNOWN, parent="x", ms=(1500, 1510))], 1)
    driver.tick(WAIT)
    assert [stamp[1:4] for stamp in leaving(driver)] == [("slow", "wait", True)] * 2


UNKNOWN_NAME = "?"


@pytest.mark.parametrize("limited", [False, True])
def test_late_spans_of_other_services_are_no_roots_of_a_trace_that_had_one(limited: bool) -> None:
    """The parent of a late span with the remote flag may have been among the spans before."""
    rules: list[Rule] = [
        ("bank", '{ rootName = "POST /pay" }', None, 1.0),
        ("slow", "{ rootDuration > 50ms }", None, 1.0),
        ("baseline", None, None, 0.5),  # the randomness of TRACE_ID is below
    ]
    settings: dict[str, Any] = {"limit": (1e9, "spans", 0.2)} if limited else {}
    driver = Driver(native=native(rules), **settings)
    trace = TRACE_ID[:9] + b"\xff" * 7
    root = span("api", "GET /pay", UNKNOWN, ms=(0, 20))
    send(driver, [root, CALL], 0, trace)
    driver.tick(WAIT_AFTER_ROOT)
    send(driver, [BANK], 6 * SECOND if not limited else WAIT_AFTER_ROOT + 1, trace)
    driver.tick(WAIT_AFTER_ROOT + 2 * SECOND)
    driver.tick(WAIT_AFTER_ROOT + 2 * SECOND)
    assert {stamp[1] for stamp in leaving(driver)} == {"baseline"}
    assert len(leaving(driver)) == 3


def test_a_late_local_root_is_believed_once() -> None:
    rules: list[Rule] = [("bank", '{ rootName = "POST /pay" }', None, 1.0), ("baseline", None, None, 0.0)]
    driver = Driver(native=native(rules))
    send(driver, [span("x", parent="y")], 0)
    driver.tick(WAIT)
    send(driver, [API], WAIT + 1)
    send(driver, [BANK], WAIT + 2)
    assert leaving(driver) == []


# nestedSetParent, in Tempo's numbers.


def selects(expression: str, spans: Sequence[Seen], **settings: Any) -> bool:
    compiled = compile_rules([(parse(expression), None), (None, None)])
    (found,) = replay.decide(["match", "rest"], [1.0, 0.0], compiled, [request(spans).SerializeToString()], **settings)
    return found.rule == 0


@pytest.mark.parametrize(
    ("expression", "spans", "expected"),
    [
        ("{ nestedSetParent < 0 && duration > 350ms }", [API, CALL, BANK], True),
        ("{ nestedSetParent < 0 && duration < 350ms }", [API, CALL, BANK], False),
        ("{ nestedSetParent = -1 && duration < 350ms }", [BANK], True),
        ("{ nestedSetParent < 0 && name = `page` }", [PAGE, THEIRS, API], True),
        ("{ nestedSetParent < 0 && name != `page` }", [PAGE, THEIRS, API], False),
        ("{ nestedSetParent < 0 && name = `GET /pay` }", [PAGE, API], False),  # not while there is a root
        ("{ nestedSetParent >= 0 && name = `GET /pay` }", [PAGE, API], True),
        ("{ nestedSetParent < 0 }", [THEIRS], False),
        ("{ nestedSetParent < 0 } >> { name = `POST /pay` }", [API, CALL, BANK], True),
        ("{ nestedSetParent < 0 } | count() = 2", [API, span("other", "", REMOTE, parent="theirs")], True),
        ("{ span:parentID = `` }", [API], False),
        ("{ rootDuration = 400ms }", [BANK, CALL, API], True),
        ("{ rootDuration = 9020ms && rootName = `page` }", [API, THEIRS, PAGE], True),
        ("{ rootDuration = duration && name = `GET /pay` }", [API, CALL], True),
        ("{ trace:rootDuration = 420ms }", [THEIRS], True),
        ("{ rootDuration != nil }", [span("api", flags=REMOTE, parent="t", ms=(5, 4)), CALL], False),
        ("{ rootDuration != nil }", [span("page", ms=(5, 4)), CALL], False),
        ("{ traceDuration = 200ms }", [span("page", ms=(5, 4)), CALL], True),
        # Of several local roots the first is meant, then that with the smallest id.
        (
            "{ rootName = `a` }",
            [span("a", "a", REMOTE, parent="t", ms=(5, 9)), span("b", "b", REMOTE, parent="t", ms=(6, 7))],
            True,
        ),
        (
            "{ rootName = `a` }",
            [span("b", "b", REMOTE, parent="t", ms=(5, 9)), span("a", "a", REMOTE, parent="t", ms=(5, 7))],
            True,
        ),
        (
            "{ rootName = `b` }",
            [span("a", "a", REMOTE, parent="t", ms=(5, 9)), span("b", "b", REMOTE, parent="t", ms=(4, 7))],
            True,
        ),
    ],
)
def test_roots_in_rules(expression: str, spans: list[Seen], expected: bool) -> None:
    assert selects(expression, spans) == expected
    assert selects(expression, list(reversed(spans))) == expected


def test_a_parent_id_of_an_odd_size_is_elsewhere() -> None:
    one = span("api", "GET /pay", REMOTE, parent="theirs")
    one.span.parent_span_id = b"\x01\x02\x03"
    assert selects("{ rootName = `GET /pay` }", [one])
    one.span.parent_span_id = bytes(3)  # zeros are no id: it has no parent
    assert selects("{ rootName = `GET /pay` }", [one], local_roots=False)


def test_a_large_trace_among_small_ones() -> None:
    """The memory of the search grows, and is used again."""
    many = [span(f"{number:07}", parent="api") for number in range(40_000)]
    compiled = compile_rules([(parse("{ rootName = `GET /pay` }"), None), (None, None)])
    small = [API, CALL, BANK]
    middle = [[*many[: 1 << power], API] for power in range(3, 12)]
    for spans in (small, *middle, small, [*many, API], small, *middle, small):
        raw = request(spans).SerializeToString()
        (found,) = replay.decide(["match", "rest"], [1.0, 0.0], compiled, [raw])
        assert (found.rule, found.root, found.local_root) == (0, API.span.span_id, True)


def test_a_root_that_is_sought_in_a_part_of_a_trace_is_not_taken_for_the_whole() -> None:
    driver = Driver(max_bytes=256 * MIB)
    many = [span(f"{number:06}", "x", REMOTE, parent="a") for number in range(60_000)]
    driver.send(request(many), 0)
    driver.tick(2 * WAIT)
    assert driver.total(metrics.TRACES_PARTLY_READ) == 1
    assert b"sampler_proxy.incomplete" in assemble(driver.destinations[0].traces)


# What else asks for the root.


@pytest.mark.parametrize("local", [True, False])
def test_targets_are_shared_by_the_local_root(local: bool) -> None:
    """Else by the span that starts first."""
    keep = target(1000, ["rootName", "resource.service.name"])
    driver = Driver(native=keyed(("rest", None, keep)), local_roots=local)
    early = span("x", "early", parent="api", ms=(-50, 0), res={"service.name": "x"})
    driver.send(request([early, BANK, CALL, API]), 0)
    driver.tick(WAIT)
    expected = [["GET /pay", "api"] if local else ["early", "x"]]
    assert [values_of(key.text) for key in keep.controller.top(5)] == expected
    send(driver, [early, PAGE], WAIT, bytes([7]) * 16)
    driver.tick(2 * WAIT)
    assert sorted(values_of(key.text) for key in keep.controller.top(5)) == sorted([*expected, ["page", "shop"]])


def test_other_rules_while_a_trace_waits_for_its_local_root() -> None:
    driver = Driver(native=in_time(("before", None, None, 1.0)))
    driver.send(request([API, CALL]), 0)
    new: Rule = ("slow", "{ rootDuration = 400ms && rootName = `GET /pay` }", None, 1.0)
    driver.pipeline.replace_rules(in_time(new, *RULES))
    driver.tick(WAIT_AFTER_ROOT)
    assert decided(driver) == [("slow", "root")]


@pytest.mark.parametrize("reason", ["early", "size", "shutdown"])
def test_traces_decided_before_their_time_are_not_counted_as_rootless(reason: str) -> None:
    settings = {"max_trace_bytes": 100} if reason == "size" else {}
    rules = native([("all", None, None, 1.0)]) if reason == "early" else in_time(("all", None, None, 1.0))
    driver = Driver(native=rules, **settings)
    driver.send(request([CALL]), 0)
    if reason == "shutdown":
        driver.pipeline.drain(0)
    assert (decided(driver), rootless(driver)) == ([("all", reason)], 0)
    assert [stamp[3] for stamp in leaving(driver)] == [reason != "early"]


@pytest.mark.parametrize("rooted", [True, False])
def test_a_late_local_root_of_a_trace_in_the_window_of_the_limit(rooted: bool) -> None:
    """It revives the trace before the limit has decided, if no root was there before."""
    rules: list[Rule] = [("bank", '{ rootName = "POST /pay" }', None, 1.0), ("baseline", None, None, 0.5)]
    driver = Driver(native=native(rules), limit=(1e9, "spans", 0.2))
    trace = TRACE_ID[:9] + b"\xff" * 7
    send(driver, [span("x", "", UNKNOWN, parent="" if rooted else "y")], 0, trace)
    driver.tick(WAIT)
    assert (driver.pipeline.find(trace, WAIT) or {})["chosen"]
    send(driver, [BANK], WAIT + 1, trace)
    driver.tick(WAIT + SECOND)
    driver.tick(WAIT + 2 * SECOND)
    assert [stamp[1] for stamp in leaving(driver)] == ["baseline", "baseline" if rooted else "bank"]
    driver.check_ledger()


@pytest.mark.parametrize("local", [True, False])
def test_a_trace_that_is_held_says_whether_the_wait_after_its_root_has_begun(local: bool) -> None:
    driver = Driver(native=in_time(*RULES), local_roots=local)
    driver.send(request([API, span("x", parent="y")]), 0)
    assert (driver.pipeline.find(TRACE_ID, 0) or {})["root_seen"] == local
    driver.tick(WAIT_AFTER_ROOT)
    assert not (driver.pipeline.find(TRACE_ID, 0) or {})["root_seen"]
