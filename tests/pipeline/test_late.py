"""Late spans are judged: one that fulfils a rule which keeps everything, and stands before the rule that decided its
trace, has all that still comes of the trace kept with certainty."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from sampler_proxy import metrics
from sampler_proxy.otlp.sampling import adjusted_count
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import SECOND, WAIT, WAIT_AFTER_ROOT, Driver, request, trace_id
from tests.rules.conformance.traces import ERROR, TRACE_ID, event, span
from tests.rules.conformance.traces import request as request_of
from tests.support import reference
from tests.support.reference import Seen
from tests.support.tracestate import parse as parse_tracestate

HIGH = TRACE_ID[:9] + b"\xff" * 7  # the randomness that every percentage keeps
DEFAULT = (
    ("errors", "{ status = error }", None, 1.0),
    ("slow", "{ rootDuration > 1s }", None, 1.0),
    ("baseline", None, None, 0.01),
)
Rule = tuple[str, str | None, str | None, float]  # name, match, unless, probability


def native(rules: Sequence[Rule]) -> tuple[Any, ...]:
    compiled = compile_rules(
        [(parse(match) if match else None, parse(unless) if unless else None) for _, match, unless, _ in rules]
    )
    return [name for name, *_ in rules], [keep for *_, keep in rules], compiled


def driver_of(rules: Sequence[Rule] = DEFAULT, **settings: Any) -> Driver:
    return Driver(native=native(rules), **settings)


def send(driver: Driver, spans: Sequence[Seen], at_ns: int, trace: bytes = TRACE_ID) -> None:
    message = request_of(spans)
    for one in reference.seen(message):
        one.span.trace_id = trace
    driver.send(message, at_ns)


def leaving(driver: Driver) -> list[tuple[str, str, str, bool, float]]:
    """Return of each kept span, in order: its letters, rule, reason, whether it is incomplete, and its count."""
    found = []
    for one in reference.seen(driver.kept()):
        stamps = {attribute.key: attribute.value for attribute in one.span.attributes}
        found.append(
            (
                one.span.span_id.lstrip(b"\0").decode(),
                stamps["sampler_proxy.rule"].string_value,
                stamps["sampler_proxy.reason"].string_value,
                stamps["sampler_proxy.incomplete"].bool_value if "sampler_proxy.incomplete" in stamps else False,
                round(adjusted_count(parse_tracestate(one.span.trace_state.encode()).threshold or 0)),
            )
        )
    return found


def revived(driver: Driver) -> dict[str, int]:
    return {rule: int(count) for (rule,), count in driver.values()[metrics.TRACES_REVIVED].items()}


CHILD = span("child", parent="root", ms=(0, 20))
ROOT = span("root", "GET /", ms=(0, 30))
LATE = span("late", parent="root", ms=(10, 20))


@pytest.mark.parametrize("trace", [TRACE_ID, HIGH], ids=["dropped", "kept by chance"])
def test_an_error_after_the_decision_revives_its_trace(trace: bytes) -> None:
    driver = driver_of()
    send(driver, [ROOT, CHILD], 0, trace)
    driver.tick(WAIT_AFTER_ROOT)
    send(driver, [span("a", parent="root", ms=(10, 20))], 6 * SECOND, trace)
    send(driver, [span("b", parent="root", status=ERROR), span("c", parent="root")], 7 * SECOND, trace)
    send(driver, [span("d", parent="root")], 8 * SECOND, trace)
    certain = [(letter, "errors", "late", True, 1) for letter in "bcd"]
    by_chance = [(letter, "baseline", "root", False, 100) for letter in ("root", "child", "a")]
    assert leaving(driver) == (by_chance if trace == HIGH else []) + certain
    assert revived(driver) == {"errors": 1}
    assert driver.total(metrics.LATE_WOULD_KEEP) == 2
    assert driver.values()[metrics.LATE_SPANS] == (
        {("keep",): 4, ("drop",): 0} if trace == HIGH else {("keep",): 3, ("drop",): 1}
    )
    found = driver.pipeline.find(trace, 9 * SECOND)
    assert found is not None
    assert (found["rule"], found["keep"], found["reason"], found["threshold"]) == ("errors", True, "late", 0)
    driver.check_ledger()


def test_a_late_root_makes_its_trace_slow() -> None:
    """Children at t = 1 s, the root of 40 s at t = 41 s, with the default rules."""
    driver = driver_of()
    send(driver, [CHILD], SECOND)
    driver.tick(SECOND + WAIT)
    send(driver, [span("root", "GET /", ms=(0, 40_000))], 41 * SECOND)
    assert leaving(driver) == [("root", "slow", "late", True, 1)]


def test_what_a_late_span_completes_is_seen_by_the_remembered_times() -> None:
    """No span takes long, and each late one adds to what is remembered of its trace."""
    driver = driver_of()
    send(driver, [CHILD], 0)
    driver.tick(WAIT)
    for number, letter in enumerate("abcd"):
        send(driver, [span(letter, parent="root", ms=(400 * number, 400 * number + 10))], WAIT + 1)
    assert leaving(driver) == [("d", "slow", "late", True, 1)]
    send(driver, [span("e", parent="root", ms=(-9000, -8000))], WAIT + 2)
    assert leaving(driver)[1:] == [("e", "slow", "late", True, 1)]


def test_times_before_the_first_count_too() -> None:
    driver = driver_of()
    send(driver, [CHILD], 0)
    driver.tick(WAIT)
    send(driver, [span("first", parent="root", ms=(-990, -900))], WAIT + 1)
    assert leaving(driver) == [("first", "slow", "late", True, 1)]


NONE, ALL = 0.0, 1.0
HEALTH: Rule = ("health", '{ rootName = "/healthz" }', None, NONE)
REST: Rule = ("rest", None, None, NONE)
ERROR_RULE: Rule = ("errors", "{ status = error }", None, ALL)
HEALTHZ = span("root", "/healthz", ms=(0, 5))
BROKEN = span("late", parent="root", status=ERROR, attrs={"n": 3}, events=[event("exception", 1, x="y")])
TENANT = span("a", attrs={"tenant": "test"})
THREE, ANOTHER, NINE = span("b", attrs={"n": 3}), span("d", attrs={"n": 3}), span("root", attrs={"n": 9})
BELOW, BROKEN_BELOW = span("mid", parent="root"), span("low", parent="mid", status=ERROR)
BY_NONE = None


def rule(match: str, unless: str | None = None) -> list[Rule]:
    """Return the rule under test, and one that drops the rest."""
    return [("x", match, unless, ALL), REST]


@pytest.mark.parametrize(
    ("rules", "first", "late", "by"),
    [
        # The first match decides: what stands behind the rule that decided is not asked.
        ([HEALTH, ERROR_RULE, REST], [HEALTHZ], [BROKEN], BY_NONE),
        ([ERROR_RULE, HEALTH, REST], [HEALTHZ], [BROKEN], "errors"),
        ([HEALTH, ERROR_RULE, REST], [CHILD], [HEALTHZ, BROKEN], BY_NONE),  # it is a health check, as is seen now
        ([("half", "{ name = `x` }", None, 0.5), ERROR_RULE, REST], [CHILD], [BROKEN], "errors"),
        ([("half", "{ status = error }", None, 0.5), *rule("{ .n = 3 }")], [CHILD], [BROKEN], BY_NONE),
        # What late spans tell.
        (rule("{ .n = 3 && status = error }"), [CHILD], [BROKEN], "x"),
        (rule("{ event.x = `y` }"), [CHILD], [BROKEN], "x"),
        (rule("{ rootName =~ `GET.*` }"), [CHILD], [ROOT], "x"),
        (rule("{ rootName != `a` }"), [CHILD], [ROOT], "x"),
        (rule("{ rootName != `a` }"), [CHILD], [LATE], BY_NONE),
        (rule("{ name = `GET /` } >> { status = error }"), [CHILD], [ROOT, BROKEN], "x"),
        (rule("{ name = `GET /` } >> { status = error }"), [ROOT], [BROKEN], BY_NONE),
        (rule("{ .n > 1 } | count() > 1"), [CHILD], [BROKEN, span("o", attrs={"n": 9})], "x"),
        (rule("{ .n > 1 } | max(.n) > 2"), [CHILD], [BROKEN], "x"),
        (rule("{ traceDuration > 1s && status = error }"), [CHILD], [BROKEN], BY_NONE),
        (rule("{ traceDuration > 1s && status = error }"), [span("s", ms=(-2000, 0))], [BROKEN], "x"),
        (rule("{ duration > traceDuration / 2 && .n = 3 }"), [span("s", parent="p")], [BROKEN], "x"),
        # What they do not: an absence, or a number, that the spans before may have made untrue.
        (rule("{ .n = 3 } | count() < 3"), [BROKEN, THREE, ANOTHER], [BROKEN], BY_NONE),
        (rule("{ .n = 9 } !>> { status = error }"), [NINE], [BELOW, BROKEN_BELOW], BY_NONE),
        (rule("{ .n = 3 } | avg(.n) > 2"), [CHILD], [BROKEN], BY_NONE),
        (rule("{ status = error } && { !(rootName = `GET /`) }"), [ROOT], [BROKEN], BY_NONE),
        # `unless`, of the late spans and of what was seen before.
        (rule("{ status = error }", "{ .tenant = `test` }"), [CHILD], [BROKEN], "x"),
        (rule("{ status = error }", "{ .tenant = `test` }"), [TENANT], [BROKEN], BY_NONE),
        (rule("{ status = error }", "{ .tenant = `test` }"), [CHILD], [BROKEN, TENANT], BY_NONE),
        (rule("{ status = error }", "{ rootName = `/healthz` }"), [HEALTHZ], [BROKEN], BY_NONE),
        (rule("{ status = error }", "{ rootName = `/healthz` }"), [ROOT], [BROKEN], "x"),
        ([("no", "{ .n = 3 }", "{ status = error }", NONE), ERROR_RULE, REST], [CHILD], [BROKEN], "errors"),
    ],
)  # fmt: skip
def test_which_rules_late_spans_fulfil(rules: list[Rule], first: list[Seen], late: list[Seen], by: str | None) -> None:
    driver = driver_of(rules if rules[-1] is REST else [*rules, REST])
    send(driver, first, 0)
    driver.tick(WAIT)
    send(driver, late, WAIT + 1)
    assert revived(driver) == ({} if by is None else {by: 1})
    assert {rule for _, rule, *_ in leaving(driver)} == ({by} if by else set())
    driver.check_ledger()


def test_an_exclusion_that_comes_late_is_remembered() -> None:
    driver = driver_of(rule("{ status = error }", "{ .tenant = `test` }"))
    send(driver, [CHILD], 0)
    driver.tick(WAIT)
    send(driver, [TENANT], WAIT + 1)
    send(driver, [BROKEN], WAIT + 2)
    assert not leaving(driver)
    assert revived(driver) == {}


@pytest.mark.parametrize("reason", ["root", "wait", "size", "memory"])
def test_whatever_triggered_the_decision(reason: str) -> None:
    driver = driver_of([ERROR_RULE, REST], max_bytes=1 << 18, max_trace_bytes=1 << 14)
    driver.send(request((1, 1), root=reason == "root", size=1 << 15 if reason == "size" else 0), 0)
    if reason == "memory":
        for number in range(2, 40):
            driver.send(request((number, 1), size=12_000), 0)
    driver.tick({"root": WAIT_AFTER_ROOT, "wait": WAIT}.get(reason, 0))
    found = driver.pipeline.find(trace_id(1), 0)
    assert found is not None
    assert found["reason"] == reason
    driver.send(request((1, 2), error=True), WAIT + 1)
    assert revived(driver) == {"errors": 1}
    driver.check_ledger()


def test_rules_are_known_by_name_after_a_reload() -> None:
    driver = driver_of([REST])
    send(driver, [CHILD], 0)
    driver.tick(WAIT)
    send(driver, [BROKEN], WAIT + 1)
    assert not leaving(driver)
    driver.pipeline.replace_rules(native([ERROR_RULE, REST]))  # a rule has come before the one that decided
    send(driver, [BROKEN], WAIT + 2)
    assert [rule for _, rule, *_ in leaving(driver)] == ["errors"]


def test_a_decision_of_a_rule_that_is_gone_stays() -> None:
    driver = driver_of([REST])
    send(driver, [CHILD], 0)
    driver.tick(WAIT)
    driver.pipeline.replace_rules(native([ERROR_RULE, ("new rest", None, None, NONE)]))
    send(driver, [BROKEN], WAIT + 1)
    assert not leaving(driver)


@pytest.mark.parametrize(("unit", "owed"), [("traces", 1), ("spans", 3), ("bytes", None)])
def test_the_limit_is_charged(unit: str, owed: int | None) -> None:
    driver = driver_of([ERROR_RULE, REST], limit=(1000.0, unit, 0.2))
    send(driver, [CHILD], 0)
    driver.tick(WAIT)
    send(driver, [BROKEN], WAIT)
    send(driver, [LATE, span("x", parent="root")], WAIT)
    assert driver.pipeline.limit is not None
    assert driver.pipeline.limit.owed == owed if owed is not None else driver.pipeline.limit.owed > 100


def test_an_error_that_joins_a_trace_in_the_limits_window() -> None:
    """Chosen by chance, the trace leaves with its threshold, before the error, which leaves with certainty."""
    driver = driver_of([ERROR_RULE, ("baseline", None, None, 0.01)], limit=(1000.0, "spans", 0.2))
    send(driver, [ROOT], 0, HIGH)
    driver.tick(WAIT_AFTER_ROOT)
    found = driver.pipeline.find(HIGH, WAIT_AFTER_ROOT)
    assert found is not None
    assert found["chosen"]
    send(driver, [LATE], WAIT_AFTER_ROOT + 1, HIGH)
    assert driver.total(metrics.BUFFER_SPANS) == 2
    send(driver, [BROKEN], WAIT_AFTER_ROOT + 2, HIGH)
    assert leaving(driver) == [
        ("root", "baseline", "root", False, 100),
        ("late", "baseline", "root", False, 100),
        ("late", "errors", "late", True, 1),
    ]
    assert driver.total(metrics.BUFFER_SPANS) == 0
    driver.tick(WAIT_AFTER_ROOT + 3 * SECOND)
    driver.check_ledger()


@pytest.mark.parametrize("health_first", [True, False])
def test_late_spans_are_only_judged_where_that_can_revive(health_first: bool) -> None:
    """The expensive rule is asked of a late span only where it stands before the rule that decided."""
    asked = []
    health, late = ("health", "{ name = `GET /` }", None, NONE), ("x", "{ rootName =~ `y.*` }", None, ALL)
    names, keeps, compiled = native([health, late, REST] if health_first else [late, health, REST])
    (condition,) = compiled.trace_conditions
    counting = condition._replace(value=lambda text: asked.append(text) or False)
    driver = Driver(native=(names, keeps, replace(compiled, trace_conditions=(counting,))))
    send(driver, [ROOT], 0)
    driver.tick(WAIT_AFTER_ROOT)
    asked.clear()
    send(driver, [span("root2", "POST /")], WAIT)
    assert asked == ([] if health_first else [b"POST /"])
    assert revived(driver) == {}


def test_ten_thousand_late_errors_are_counted_right() -> None:
    """Counts of the error spans and of all others, each within three standard errors of what was sent."""
    driver, random, count = driver_of(), Random(5), 10_000
    ids = [random.randbytes(16) for _ in range(count)]
    for spans, now_ns in (([ROOT, CHILD], 0), ([BROKEN], WAIT), ([LATE], 2 * WAIT)):
        for at in range(0, count, 500):
            message = request_of(spans * 500)
            for number, one in enumerate(reference.seen(message)):
                one.span.trace_id = ids[at + number // len(spans)]
            driver.send(message, now_ns)
        driver.tick(now_ns + WAIT)
    counts, variance = Counter[bytes](), 0.0
    for one in reference.seen(driver.kept()):
        weight = adjusted_count(parse_tracestate(one.span.trace_state.encode()).threshold or 0)
        name = b"error" if one.span.status.code == ERROR else one.span.span_id.lstrip(b"\0")
        counts[name] += round(weight)
        variance += weight * (weight - 1) if name == b"root" else 0
    assert (counts[b"error"], counts[b"late"]) == (count, count)
    assert 0 < abs(counts[b"root"] - count) <= 3 * math.sqrt(variance)
    assert counts[b"child"] == counts[b"root"]
    assert revived(driver) == {"errors": count}
    driver.check_ledger()


@pytest.mark.parametrize("per_second", [1e6, 500.0])
@pytest.mark.parametrize("closed", [False, True])
def test_errors_that_come_while_their_traces_wait_in_the_limits_windows_count_once(
    closed: bool, per_second: float
) -> None:
    """Also with the closed window's own thresholds, and traces that it has rejected."""
    random, count = Random(5), 4000
    driver = driver_of([ERROR_RULE, ("baseline", None, None, 0.25)], limit=(per_second, "spans", 0.2))
    traces = [random.randbytes(16) for _ in range(count)]
    for trace in traces:
        send(driver, [ROOT], 0, trace)
    driver.tick(WAIT_AFTER_ROOT)
    at = WAIT_AFTER_ROOT + 1
    if closed:
        at = WAIT_AFTER_ROOT + SECOND
        driver.pipeline.tick(at, 1)  # close the window, and let one trace leave
    for trace in traces:
        send(driver, [span("e", parent="root", status=ERROR)], at, trace)
    for seconds in range(8):
        driver.tick(at + seconds * SECOND)
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0
    counts = Counter[str]()
    for letters, *_, adjusted in leaving(driver):
        counts[letters] += int(adjusted)
    assert counts["e"] == count
    assert abs(counts["root"] - count) < 0.25 * count


# Other rules

ONLY_REST: Rule = ("baseline", None, None, 0.01)
BASELINE: Rule = ("baseline", "{ true }", None, 0.01)
EXCLUDING: Rule = ("errors", "{ status = error }", '{ span.x = "y" }', ALL)


@pytest.mark.parametrize("where", ["decided", "open window", "closed window"])
@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        # A rule that was not there, or not before the one that decided.
        ([ONLY_REST], [ERROR_RULE, ONLY_REST], "errors"),
        ([ONLY_REST], [HEALTH, ERROR_RULE, ONLY_REST], "errors"),
        # A rule that is no longer there, or behind, or keeps less.
        ([ERROR_RULE, ONLY_REST], [ONLY_REST], None),
        ([ERROR_RULE, BASELINE, REST], [BASELINE, ERROR_RULE, REST], None),
        ([ERROR_RULE, ONLY_REST], [("errors", "{ status = error }", None, 0.5), ONLY_REST], None),
        # The one that decided is gone.
        ([ERROR_RULE, ONLY_REST], [ERROR_RULE, REST], None),
        # What the trace held before, nobody has asked for the sake of the new rules.
        ([ONLY_REST], [EXCLUDING, ONLY_REST], None),
        ([ERROR_RULE, ONLY_REST], [EXCLUDING, ONLY_REST], None),
    ],
)
def test_late_spans_are_judged_by_the_rules_in_force(
    where: str, before: list[Rule], after: list[Rule], rule: str | None
) -> None:
    limit = None if where == "decided" else (1000.0, "spans", 0.2)
    driver = driver_of(before, limit=limit)
    other = bytes(8) + HIGH[8:]
    send(driver, [ROOT, CHILD], 0, HIGH)
    send(driver, [ROOT, CHILD], 0, other)
    driver.tick(WAIT_AFTER_ROOT)
    at = 7 * SECOND
    if where == "closed window":
        driver.pipeline.tick(at, 1)
    trace = next(
        one for one in (HIGH, other) if (driver.pipeline.find(one, at)["state"] == "decided") == (where == "decided")
    )
    driver.pipeline.replace_rules(native(after))
    send(driver, [span("late", parent="root", status=ERROR)], at, trace)
    driver.tick(at + 5 * SECOND)
    driver.tick(at + 10 * SECOND)
    assert revived(driver) == ({} if rule is None else {rule: 1})
    late = [stamps for letters, *stamps in leaving(driver) if letters == "late"]
    assert late == [["errors", "late", True, 1] if rule else ["baseline", "root", False, 100]]
    driver.check_ledger()


def test_traces_decided_by_the_new_rules_know_what_these_exclude() -> None:
    driver = driver_of([ONLY_REST])
    driver.pipeline.replace_rules(native([EXCLUDING, ONLY_REST]))
    send(driver, [ROOT, CHILD], SECOND)
    driver.tick(SECOND + WAIT_AFTER_ROOT)
    send(driver, [span("late", parent="root", status=ERROR)], 7 * SECOND)
    assert revived(driver) == {"errors": 1}


# The limit's windows


def test_each_of_many_traces_is_found_in_the_limits_windows() -> None:
    """Late errors come in any order, while both windows hold traces: each revives its own trace and no other."""
    random = Random(3)
    driver = driver_of(
        [ERROR_RULE, ("rest", None, None, 0.999)], limit=(1e6, "spans", 0.2), max_trace_bytes=3000, max_bytes=64 << 20
    )
    traces = [random.randbytes(9) + b"\xff" + random.randbytes(6) for _ in range(400)]
    for trace in traces[:200]:
        send(driver, [ROOT, CHILD], 0, trace)
    driver.tick(WAIT_AFTER_ROOT)
    at = WAIT_AFTER_ROOT + SECOND
    driver.pipeline.tick(at, 50)  # the window is closed, and partly collected
    for trace in traces[200:]:  # decided at once, by their size: they wait in the next window
        send(driver, [ROOT, span("large", "x" * 3000, parent="root")], at, trace)
    limit = driver.pipeline.limit
    assert limit is not None
    assert (limit.count, len(driver.destinations[0].traces)) == (200, 50)
    late = random.sample(traces, 300)
    for trace in late:
        send(driver, [span("late", parent="root", status=ERROR)], at + 1, trace)
        driver.check_ledger()
    assert limit.count == 200 - len({*late} & {*traces[200:]})
    driver.tick(at + 9 * SECOND)
    driver.tick(at + 19 * SECOND)
    assert driver.total(metrics.BUFFER_SPANS) == 0
    assert revived(driver) == {"errors": 300}
    stamped: dict[bytes, list[str]] = {trace: [] for trace in traces}
    for one in reference.seen(driver.kept()):
        rule = next(each.value.string_value for each in one.span.attributes if each.key == "sampler_proxy.rule")
        stamped[one.span.trace_id].append(rule)
    for trace, rules in stamped.items():
        assert sorted(rules) == (["errors"] if trace in late else []) + ["rest", "rest"]
