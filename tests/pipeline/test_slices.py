"""The lock is held for a slice of a large request; what is kept is finished behind it; the accounts always balance."""

from __future__ import annotations

import threading

import pytest

from sampler_proxy import metrics
from sampler_proxy.errors import Overloaded
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline.turn_lock import TurnLock
from tests.pipeline.driver import (
    ERRORS,
    KEEP_ALL,
    KEEP_NONE,
    MIB,
    WAIT,
    Destination,
    Driver,
    request,
    rules_of,
    trace_id,
)
from tests.support.redacting import policy


def holds(driver: Driver) -> int:
    """Return how often the lock has been held."""
    with driver.pipeline.lock:
        return sum(driver.pipeline.lock.holds().counts)


def test_a_large_request_is_filed_slice_by_slice() -> None:
    driver = Driver(KEEP_ALL)
    small = request((0, 1)).SerializeToString()
    large = request(*((number, 1) for number in range(1, 10_001))).SerializeToString()
    before = holds(driver)
    driver.intake.accept(small, 0)
    assert holds(driver) - before == 2  # this question's own, too
    before = holds(driver)
    driver.intake.accept(large, 0)
    assert holds(driver) - before > 5
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == driver.total(metrics.BUFFER_TRACES) == 10_001


def test_large_headers_are_interned_without_the_lock() -> None:
    driver = Driver(KEEP_ALL)
    before = holds(driver)
    driver.intake.accept(request((1, 1), service="x" * MIB).SerializeToString(), 0)
    assert holds(driver) - before == 3
    assert driver.pipeline.nbytes > MIB
    driver.tick(WAIT)
    driver.check_ledger()
    driver.destinations[0].traces.clear()
    assert len(driver.pipeline.envelopes) == 0


def test_others_see_balanced_accounts_while_a_request_is_filed() -> None:
    driver = Driver(ERRORS)
    requests = [
        request(*((1_000_000 * n + i, 1) for i in range(20_000)), error=n == 1).SerializeToString() for n in (1, 2, 3)
    ]
    done = threading.Event()
    seen = set()

    def look() -> None:
        while not done.is_set():
            driver.check_ledger()
            seen.add(driver.total(metrics.SPANS_RECEIVED))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for each in requests:
            driver.intake.accept(each, 0)
    finally:
        done.set()
        looking.join()
    driver.check_ledger()
    assert driver.total(metrics.SPANS_RECEIVED) == 60_000
    assert seen <= {0, 20_000, 40_000, 60_000}  # a request is counted as a whole


def test_a_kept_trace_is_redacted_behind_the_lock_and_offered_under_it() -> None:
    """An observer of the redaction takes the lock itself: held, it would wait for ever."""
    buffered: list[int] = []
    offered: list[bool] = []

    class Watching(Destination):
        def offer(self, trace: KeptTrace) -> bool:
            other = threading.Thread(target=lambda: driver.values())
            other.start()
            offered.append(other.is_alive())
            waiting.append(other)
            return super().offer(trace)

    waiting: list[threading.Thread] = []
    driver = Driver(KEEP_ALL, destinations=[Watching()])

    def observe(*_: object) -> None:
        driver.check_ledger()
        buffered.append(driver.total(metrics.BUFFER_SPANS))
        with driver.pipeline.lock:
            assert driver.pipeline.in_backlog(trace_id(1)) == [True]

    driver.pipeline.replace_redaction(policy({"preset": "common"}), observe)
    message = request((1, 1))
    message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="password").value.string_value = "hunter2"
    driver.send(message)
    driver.tick(WAIT)
    for each in waiting:
        each.join()
    assert buffered == [1]  # until the destination has it
    assert offered == [True]
    assert driver.total(metrics.BUFFER_SPANS) == 0
    driver.check_ledger()


@pytest.mark.parametrize("rules", [KEEP_ALL, KEEP_NONE], ids=["kept", "dropped"])
def test_a_request_may_have_as_many_traces_decided_as_it_needs(rules: list[tuple[str, str | None, float]]) -> None:
    """As long as what is kept leaves, room is made, trace by trace, for thousands of them."""
    driver = Driver(rules, max_bytes=4 * MIB)
    for number in range(40):
        driver.intake.accept(request(*((5_000 * number + i, 1) for i in range(5_000))).SerializeToString(), number)
        driver.check_ledger()
        assert driver.pipeline.nbytes <= 5 * MIB  # the tables may have grown
    assert driver.total(metrics.SPANS_RECEIVED) == 200_000
    assert not driver.values()[metrics.REQUESTS_REFUSED]


def test_what_cannot_leave_is_found_out_at_once() -> None:
    driver = Driver(native=rules_of(KEEP_ALL), max_bytes=MIB, destinations=[Destination(room=0)])
    refused = 0
    for number in range(200):
        try:
            driver.intake.accept(request(*((100 * number + i, 1) for i in range(100))).SerializeToString(), number)
        except Overloaded:
            refused += 1
    assert refused > 100
    driver.check_ledger()
    assert driver.pipeline.nbytes <= MIB * 9 // 8


def test_a_backlog_leaves_as_soon_as_its_destination_has_room() -> None:
    """A round of the timer works until nothing more can leave, however much has gathered behind one destination."""
    slow, quick = Destination(room=0), Destination()
    driver = Driver(native=rules_of(KEEP_ALL), destinations=[slow, quick])
    driver.intake.accept(request(*((i, 1) for i in range(10_000))).SerializeToString(), 0)
    driver.tick(WAIT)
    assert len(quick.traces) == 10_000
    assert driver.total(metrics.BUFFER_SPANS) == 10_000
    slow.room = 9_000
    driver.tick(WAIT)
    assert len(slow.traces) == 9_000
    slow.room = None
    driver.tick(WAIT)
    assert slow.traces == quick.traces
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0


def test_what_can_leave_for_nowhere_is_not_finished() -> None:
    """A finished trace is an object, and larger: behind the only destination a few of them are there at a time."""
    finished = 0

    class Counting(Destination):
        def offer(self, trace: KeptTrace) -> bool:
            nonlocal finished
            finished += 1
            return super().offer(trace)

    only = Counting(room=0)
    driver = Driver(native=rules_of(KEEP_ALL), destinations=[only])
    driver.intake.accept(request(*((i, 1) for i in range(10_000))).SerializeToString(), 0)
    driver.tick(WAIT)
    assert finished < 100
    with driver.pipeline.lock:
        backlog = sum(driver.pipeline.in_backlog(trace_id(i))[0] for i in range(0, 10_000, 500))
    assert backlog == 20  # those that are not finished yet, too
    only.room = None
    driver.tick(WAIT)
    assert len(only.traces) == 10_000
    driver.check_ledger()


def test_the_lock_excludes_and_counts() -> None:
    lock = TurnLock()
    inside: list[int] = []

    def work() -> None:
        for _ in range(2_000):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with lock:
        assert sum(lock.holds().counts) == 6_000


def test_a_peak_is_remembered_until_somebody_asks() -> None:
    driver = Driver(KEEP_NONE)
    empty = driver.pipeline.peak_bytes()
    driver.send(request((1, 1), size=MIB))
    driver.tick(WAIT)
    assert driver.pipeline.nbytes < empty + 1024
    assert driver.pipeline.peak_bytes() > empty + MIB
    assert driver.pipeline.peak_bytes() < empty + 1024
