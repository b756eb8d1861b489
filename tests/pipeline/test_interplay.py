"""What the limit's windows, roots, late spans, a reload and a want of memory do to each other."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from sampler_proxy import metrics
from sampler_proxy.errors import OutOfMemory, Overloaded
from tests.pipeline.driver import MIB, SECOND, WAIT, WAIT_AFTER_ROOT, Driver, request
from tests.pipeline.test_late import BROKEN, HIGH, ROOT, Rule, driver_of, leaving, revived, send
from tests.pipeline.test_out_of_memory import Failing
from tests.pipeline.test_roots import API, BANK, CALL, IN_PROCESS, REMOTE, UNKNOWN, decided, in_time, rootless, span
from tests.pipeline.test_targets import native as with_keeps
from tests.pipeline.test_targets import target
from tests.rules.conformance.traces import ERROR
from tests.support import reference
from tests.support.tracestate import parse as parse_tracestate

WIDE = (1e9, "spans", 0.2)
NARROW = (1e-9, "spans", 0.2)
BANK_RULE: Rule = ("bank", '{ rootName = "POST /pay" }', None, 1.0)
HALF: Rule = ("half", None, None, 0.5)
ORPHAN = span("x", "x", UNKNOWN, parent="y")
PARENTLESS = span("r", "GET /", UNKNOWN, ms=(0, 1))


def found(driver: Driver, at_ns: int, trace: bytes = HIGH) -> dict[str, Any]:
    return driver.pipeline.find(trace, at_ns) or {}


def close_window(driver: Driver, at_ns: int) -> None:
    """Close the limit's window, and leave all of it uncollected."""
    driver.pipeline.tick(at_ns, 0)


# A root in the window of the limit


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("when", ["in the window", "behind it"])
@pytest.mark.parametrize("root", [None, PARENTLESS, API], ids=["no root", "parentless", "local"])
def test_a_root_that_joins_in_the_window_leaves_no_room_for_a_later_one(closed: bool, when: str, root: Any) -> None:
    """The parent of the late span may be the root that came in the window; it is none where no root came."""
    driver = driver_of([BANK_RULE, HALF], limit=WIDE)
    send(driver, [ORPHAN], 0, HIGH)
    driver.tick(WAIT)
    at = WAIT + SECOND if closed else WAIT + 1
    if closed:
        close_window(driver, at)
    assert found(driver, at)["chosen"]
    if root is not None:
        send(driver, [root], at, HIGH)
        assert found(driver, at)["chosen"]
    if when == "behind it":
        driver.tick(at + 2 * SECOND)
        driver.tick(at + 2 * SECOND)
        assert found(driver, at)["state"] == "decided"
    send(driver, [BANK], at + 3 * SECOND, HIGH)
    driver.tick(at + 5 * SECOND)
    driver.tick(at + 5 * SECOND)
    assert revived(driver) == ({} if root is not None else {"bank": 1})
    assert rootless(driver) == 1  # it was decided without one, and is stamped so
    assert [stamp[3] for stamp in leaving(driver) if stamp[1] == "half"] == [True] * (3 if root is not None else 1)
    driver.check_ledger()


@pytest.mark.parametrize("closed", [False, True])
def test_what_excludes_a_rule_is_remembered_in_the_windows(closed: bool) -> None:
    errors: Rule = ("errors", "{ status = error }", "{ name = `probe` }", 1.0)
    driver = driver_of([errors, HALF], limit=WIDE)
    send(driver, [ROOT], 0, HIGH)
    driver.tick(WAIT_AFTER_ROOT)
    at = WAIT_AFTER_ROOT + 1
    if closed:
        at = WAIT_AFTER_ROOT + SECOND
        close_window(driver, at)
    send(driver, [span("p", "probe", parent="root")], at, HIGH)
    send(driver, [BROKEN], at, HIGH)
    driver.tick(at + 2 * SECOND)
    driver.tick(at + 2 * SECOND)
    send(driver, [BROKEN], at + 3 * SECOND, HIGH)
    assert revived(driver) == {}
    assert {stamp[1] for stamp in leaving(driver)} == {"half"}
    driver.check_ledger()


@pytest.mark.parametrize("spans", [[PARENTLESS], [API, CALL]], ids=["parentless", "local"])
def test_a_trace_in_the_window_says_that_the_wait_after_its_root_has_begun(spans: Any) -> None:
    driver = driver_of([HALF], limit=WIDE)
    send(driver, spans, 0, HIGH)
    driver.tick(WAIT_AFTER_ROOT)
    assert (found(driver, WAIT_AFTER_ROOT)["chosen"], found(driver, WAIT_AFTER_ROOT)["root_seen"]) == (True, True)


# A reload while the windows are full


@pytest.mark.parametrize("closed", [False, True])
def test_a_limit_in_another_unit_owes_nothing_for_what_was_measured_in_the_old_one(closed: bool) -> None:
    driver = driver_of([HALF], limit=(1e9, "traces", 0.2))
    send(driver, [ROOT], 0, HIGH)
    driver.tick(WAIT_AFTER_ROOT)
    at = WAIT_AFTER_ROOT + SECOND
    if closed:
        close_window(driver, at)
    driver.pipeline.replace_limit((1e9, "bytes", 0.2))
    driver.tick(at)
    driver.tick(at)
    assert len(leaving(driver)) == 1
    assert driver.pipeline.limit is not None
    assert driver.pipeline.limit.owed == 0
    driver.check_ledger()


@pytest.mark.parametrize("closed", [False, True])
def test_other_rules_and_no_limit_while_rootless_traces_wait(closed: bool) -> None:
    """The late root of a trace in the window is judged by the new rules, and the trace leaves once."""
    driver = driver_of([("gone", '{ name = "nothing" }', None, 1.0), HALF], limit=WIDE)
    send(driver, [ORPHAN], 0, HIGH)
    driver.tick(WAIT)
    at = WAIT + SECOND if closed else WAIT + 1
    if closed:
        close_window(driver, at)
    driver.pipeline.replace_rules(in_time(BANK_RULE, HALF))
    driver.pipeline.replace_limit(None)
    send(driver, [BANK], at, HIGH)
    driver.tick(at + 2 * SECOND)
    driver.tick(at + 2 * SECOND)
    assert driver.pipeline.limit is None
    assert [stamp[1:3] for stamp in leaving(driver)] == [("half", "wait"), ("bank", "late")]
    driver.check_ledger()


# Memory


def counting(rule: str) -> tuple[Any, ...]:
    return with_keeps(("r", None, target(1000.0) if rule == "target" else 0.5))


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("rule", ["fixed", "target"])
def test_a_trace_that_is_finished_again_is_learned_once(limited: bool, rule: str) -> None:
    """Where there was no memory for it: by the demand that the controller shows, and by its threshold."""
    shown, thresholds = [], []
    for tries in (1, 4):
        destination = Failing()
        settings: dict[str, Any] = {"limit": WIDE} if limited else {}
        driver = Driver(native=counting(rule), destinations=[destination], **settings)
        send(driver, [ROOT], 0, HIGH)
        if limited:  # the trace that leaves the window was learned before
            driver.tick(WAIT_AFTER_ROOT)
        for number in range(tries):
            destination.failing = number < tries - 1
            if destination.failing:
                with pytest.raises(MemoryError):
                    driver.tick(WAIT_AFTER_ROOT + 2 * SECOND)
        driver.tick(WAIT_AFTER_ROOT + 2 * SECOND)
        driver.tick(WAIT_AFTER_ROOT + 2 * SECOND)
        assert len(leaving(driver)) == 1
        (one,) = reference.seen(driver.kept())
        thresholds.append(parse_tracestate(one.span.trace_state.encode()).threshold)
        shown.append(driver.pipeline.rules.controllers[0].stats(WAIT_AFTER_ROOT + 2 * SECOND).demand_per_s)
        driver.check_ledger()
    assert shown[0] == shown[1] > 0
    assert thresholds[0] == thresholds[1]


def test_ids_of_decisions_that_are_tried_again_are_no_pattern() -> None:
    destination = Failing()
    driver = driver_of([("all", None, None, 1.0)], destinations=[destination])
    driver.pipeline.replace_rules(in_time(("all", None, None, 1.0)))
    send(driver, [ROOT], 0, HIGH)
    destination.failing = True
    for _ in range(300):
        with pytest.raises(MemoryError):
            driver.tick(WAIT)
    assert driver.pipeline.uniformity.random


def test_the_bound_is_lowered_no_further_than_the_tables_are_large() -> None:
    """Tables never shrink: a bound below them would refuse everything for ever."""
    driver = Driver(wait_ns=1 << 60, max_bytes=1 << 30)
    for begin in range(0, 800_000, 20_000):
        driver.send(request(*((begin + number, 1) for number in range(20_000))), 0)
    for _ in range(60):
        driver.pipeline.ran_out_of_memory()
    while driver.pipeline.drain(1, 1 << 20):
        pass
    driver.destinations[0].traces.clear()
    for _ in range(60):
        driver.pipeline.ran_out_of_memory()
    driver.send(request((1_000_000, 1)), 2)
    driver.check_ledger()


def test_what_has_no_room_below_the_lowered_bound_ends_no_waits() -> None:
    driver = Driver(max_bytes=1 << 30)
    for _ in range(100):
        driver.pipeline.ran_out_of_memory()
    driver.send(request((1, 1), (2, 1)), 0)
    with pytest.raises(Overloaded):
        driver.send(request(*((number, 1) for number in range(10, 30)), size=MIB), 1)
    assert driver.total(metrics.BUFFER_SPANS) == 2
    driver.check_ledger()


@pytest.mark.parametrize("seed", range(6))
def test_everything_at_once_adds_up(seed: int) -> None:
    """Traces with all kinds of roots, errors and roots that come late, a limit, destinations that have no memory or no
    room, bounds that are lowered, reloads: each span that was taken leaves once, sampled out or kept."""
    random = Random(seed)
    destination = Failing()
    rules: list[Rule] = [("errors", "{ status = error }", None, 1.0), BANK_RULE, HALF]
    driver = driver_of(rules, limit=(60.0, "spans", 0.2), destinations=[destination], max_bytes=MIB)
    traces = [random.randbytes(9) + random.choice([b"\xff", b"\x01"]) + random.randbytes(6) for _ in range(150)]
    taken: Counter[tuple[bytes, bytes]] = Counter()
    kinds = (
        lambda n: span(f"s{n}", "x", UNKNOWN, parent="y"),
        lambda n: span(f"s{n}", "x", IN_PROCESS, parent="api"),
        lambda n: span(f"s{n}", "GET /", UNKNOWN),
        lambda n: span(f"s{n}", "POST /pay", REMOTE, parent=random.choice(["zz", f"s{n - 40}"])),
        lambda n: span(f"s{n}", "z" * 3000, UNKNOWN, parent="y"),
    )
    now = 0
    for number in range(40, 1600):
        trace = random.choice(traces)
        one = random.choice(kinds)(number)
        if random.random() < 0.05:
            one.span.status.code = ERROR
        before = driver.total(metrics.SPANS_RECEIVED)
        with suppress(OutOfMemory, Overloaded):
            send(driver, [one], now, trace)
        if driver.total(metrics.SPANS_RECEIVED) > before:
            taken[trace, one.span.span_id] += 1
        match random.randrange(30):
            case 0:
                destination.failing = not destination.failing
            case 1:
                destination.room = random.choice([None, len(destination.traces) + random.randrange(3)])
            case 2:
                driver.pipeline.replace_limit(random.choice([None, NARROW, WIDE, (60.0, "bytes", 0.0)]))
            case 3:
                driver.pipeline.replace_rules(in_time(*rules) if random.random() < 0.5 else in_time(BANK_RULE, HALF))
            case 4:
                driver.pipeline.ran_out_of_memory()
        now += random.choice([0, SECOND // 100, SECOND // 3])
        try:
            driver.pipeline.tick(now, random.choice([0, 1, 256]))
        except MemoryError:
            assert destination.failing
        driver.check_ledger()
    destination.failing, destination.room = False, None
    driver.pipeline.close()
    while driver.pipeline.drain(now, random.choice([1, 50]), hurry=True):
        now += SECOND // 10
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0
    kept = Counter((one.span.trace_id, one.span.span_id) for one in reference.seen(driver.kept()))
    assert kept <= taken
    assert kept.total() == driver.total(metrics.SPANS_KEPT) == taken.total() - driver.total(metrics.SPANS_SAMPLED_OUT)
    assert {reason for _, reason in decided(driver)} >= {"root", "wait"}
    destination.traces.clear()
    assert len(driver.pipeline.envelopes) == 0
