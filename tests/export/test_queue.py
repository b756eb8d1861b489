"""The queue: batches, bounds, the ledger, and its two sides on two threads."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sampler_proxy.export.queue import BATCH_TRACES, Queue
from tests.export.support import Kept, request_bytes

MAX, BATCH, WAIT = 1000, 300, 50


class Now:
    ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def queue(now):
    return Queue(max_bytes=MAX, batch_bytes=BATCH, max_wait_ns=WAIT, clock=now)


def calls_of(queue, hook):
    calls = []
    setattr(queue, hook, lambda: calls.append(None))
    return calls


def assert_ledger(queue):
    c = queue.counters()
    assert c.routed_spans == c.exported_spans + c.queued_spans + c.rejected_spans + sum(c.lost_spans.values())


def test_a_batch_is_ready_by_bytes(queue):
    assert queue.wait_ns(0) is None
    queue.offer(Kept(200))
    assert queue.wait_ns(0) == WAIT
    queue.offer(Kept(99))
    assert queue.wait_ns(0) == WAIT
    queue.offer(Kept(1))
    assert queue.wait_ns(0) == 0
    assert [t.nbytes for t in queue.take()] == [200, 99, 1]
    assert queue.wait_ns(0) is None


def test_a_batch_is_ready_by_age_of_its_oldest(queue, now):
    now.ns = 10
    queue.offer(Kept(1))
    now.ns = 40
    queue.offer(Kept(2))
    assert queue.wait_ns(40) == 20
    assert queue.wait_ns(59) == 1
    assert queue.wait_ns(60) == 0
    assert len(queue.take()) == 2


def test_what_a_batch_leaves_keeps_its_age(queue, now):
    queue.offer(Kept(250))
    now.ns = 30
    queue.offer(Kept(100))
    assert [t.nbytes for t in queue.take()] == [250]
    assert queue.wait_ns(40) == 40


def test_a_batch_has_at_least_one_trace(queue):
    queue.offer(Kept(900))
    queue.offer(Kept(5))
    assert [t.nbytes for t in queue.take()] == [900]
    assert [t.nbytes for t in queue.take()] == [5]
    assert queue.take() == []


@pytest.mark.parametrize(
    ("offered", "batches"),
    [
        ([{}, {}, {}], [[10, 10, 10]]),
        ([{1: 100}, {1: 100}, {1: 100}], [[10, 10, 10]]),  # a header counts once: 130
        ([{1: 100}, {2: 100}, {3: 100}], [[10, 10], [10]]),  # 220, and 330 would be too much
        ([{1: 100, 2: 90}, {1: 100, 3: 80}, {1: 100, 4: 1}], [[10, 10], [10]]),  # 290; 301 would be too much
        ([{1: 100}, {2: 100}, {3: 100}, {1: 100}], [[10, 10], [10, 10]]),  # another batch has them all again
        ([{1: 900}, {1: 900}, {2: 1}], [[10], [10], [10]]),  # larger than a batch: alone
        ([{1: 280}, {1: 280}, {1: 280}], [[10, 10], [10]]),  # 300 is full
    ],
)
def test_a_batch_counts_each_header_once(now, offered, batches):
    queue = Queue(max_bytes=10_000, batch_bytes=BATCH, max_wait_ns=WAIT, clock=now)
    for headers in offered:
        assert queue.offer(Kept(10, headers=headers))
    taken = [queue.take() for _ in batches]
    assert [[trace.nbytes for trace in batch] for batch in taken] == batches
    assert queue.take() == []
    assert queue.counters().queued_bytes == sum(map(request_bytes, taken))
    for batch in taken:
        queue.exported(batch)
    assert queue.counters().queued_bytes == 0


def test_a_batch_is_ready_by_the_bytes_of_headers(queue):
    queue.offer(Kept(10, headers={1: 280}))
    assert queue.wait_ns(0) == WAIT
    queue.offer(Kept(10, headers={2: 280}))
    assert queue.wait_ns(0) == 0


def test_headers_fill_the_queue(queue):
    for number in range(3):
        assert queue.offer(Kept(10, headers={number: 300}))
    assert not queue.offer(Kept(10, headers={3: 300}))
    assert queue.full
    assert queue.offer(Kept(10, headers={4: 50}))
    assert queue.counters().queued_bytes == 990
    queue.exported(queue.take())
    assert not queue.full
    assert queue.offer(Kept(10, headers={3: 300}))


def test_a_batch_that_was_taken_by_age_is_filled_no_more(queue, now):
    """What comes later brings the header again."""
    queue.offer(Kept(10, headers={1: 200}))
    now.ns = WAIT
    first = queue.take()
    queue.offer(Kept(10, headers={1: 200}))
    queue.offer(Kept(10, headers={2: 90}))
    assert [len(first), len(queue.take()), len(queue.take())] == [1, 1, 1]
    assert queue.counters().queued_bytes == 210 + 210 + 100


def test_a_refused_trace_leaves_no_header_behind(queue):
    """It is another one, with another header, that has the same number by then."""
    queue.offer(Kept(900))
    batch = queue.take()
    queue.offer(Kept(10))
    assert not queue.offer(Kept(10, headers={1: 200}))
    queue.exported(batch)
    queue.offer(Kept(10, headers={1: 250}))
    queue.take()
    assert queue.counters().queued_bytes == 270


def test_bytes_are_held_until_settled(queue):
    assert queue.offer(Kept(600))
    assert queue.offer(Kept(400))
    assert not queue.offer(Kept(1))
    batch = queue.take()
    assert not queue.offer(Kept(1))
    queue.exported(batch)
    assert queue.offer(Kept(600))
    assert queue.counters().queued_bytes == 1000


def test_a_trace_larger_than_the_queue_is_taken_when_it_is_empty(queue):
    assert queue.offer(Kept(1))
    assert not queue.offer(Kept(5000))
    queue.exported(queue.take())
    assert queue.offer(Kept(5000))
    assert queue.wait_ns(0) == 0
    assert not queue.offer(Kept(1))
    assert not queue.offer(Kept(5000))


def test_on_room_once_when_what_was_refused_fits(queue):
    told = calls_of(queue, "on_room")
    for size in (300, 300, 300):
        queue.offer(Kept(size))
    assert not queue.offer(Kept(500))
    first, second, third = queue.take(), queue.take(), queue.take()
    queue.exported(first)
    assert not told  # 400 are free
    queue.lost(second, "x")
    assert len(told) == 1
    queue.rejected(third)
    assert len(told) == 1  # nothing was refused since
    assert queue.offer(Kept(500))


def test_room_made_while_a_trace_is_being_refused_is_not_missed(queue):
    """The other thread settles between the look at the room and the note of the refusal: too early for `on_room`."""
    told = calls_of(queue, "on_room")
    queue.offer(Kept(1000))
    batch = queue.take()
    fits = queue._fits

    def settled_in_between(nbytes):
        queue._fits = fits
        result = fits(nbytes)
        queue.exported(batch)
        return result

    queue._fits = settled_in_between
    assert queue.offer(Kept(1000)) or told


def test_on_room_goes_by_the_smallest_refused(queue):
    told = calls_of(queue, "on_room")
    for _ in range(3):
        queue.offer(Kept(300))
    assert not queue.offer(Kept(900))
    assert not queue.offer(Kept(200))
    queue.exported(queue.take())
    assert len(told) == 1


def test_wake_at_the_first_trace_and_at_a_full_batch_only(queue):
    woken = calls_of(queue, "wake")
    assert queue.wait_ns(0) is None
    queue.offer(Kept(1))
    assert len(woken) == 1
    queue.offer(Kept(1))
    assert len(woken) == 1  # nobody has looked since
    assert queue.wait_ns(0) == WAIT
    for _ in range(5):
        queue.offer(Kept(100))
    assert len(woken) == 2
    assert queue.wait_ns(0) == 0
    queue.offer(Kept(300))
    assert len(woken) == 2  # nobody waits


def test_a_queue_smaller_than_a_batch_is_ready_when_full(now):
    queue = Queue(max_bytes=100, batch_bytes=10**6, max_wait_ns=WAIT, clock=now)
    queue.offer(Kept(100))
    assert queue.wait_ns(0) == 0


def test_a_queue_that_drops_refuses_nothing(now):
    queue = Queue(max_bytes=MAX, batch_bytes=BATCH, max_wait_ns=WAIT, clock=now, drop=True)
    told = calls_of(queue, "on_room")
    assert queue.offer(Kept(MAX, 3))
    assert queue.offer(Kept(1, 4))
    assert queue.offer(Kept(MAX, 5))
    assert queue.counters() == (12, 0, 3, 0, {"queue_full": 9}, MAX)
    assert_ledger(queue)
    assert queue.dropped_spans == 9
    assert not queue.full
    queue.exported(queue.take())
    assert queue.empty
    assert queue.offer(Kept(1, 1))
    assert queue.counters()[:5] == (13, 3, 1, 0, {"queue_full": 9})
    assert told == []


def test_a_queue_is_full_from_a_refusal_until_there_is_room(queue):
    assert not queue.full
    queue.offer(Kept(MAX))
    assert not queue.full
    assert not queue.offer(Kept(1))
    assert queue.full
    queue.exported(queue.take())
    assert not queue.full


def test_flush_makes_all_ready(queue):
    queue.offer(Kept(1))
    queue.flush()
    assert queue.wait_ns(0) == 0
    queue.take()
    assert queue.wait_ns(0) is None
    queue.offer(Kept(1))
    assert queue.wait_ns(0) == 0


def test_counters_balance(queue):
    for spans in (1, 2, 4, 8, 16, 32):
        queue.offer(Kept(200, spans))
    assert queue.counters().routed_spans == 31  # the last was refused
    a, b, c, d = (queue.take() for _ in range(4))
    queue.exported(a)
    queue.exported(b, rejected_spans=1)
    queue.rejected(c)
    queue.lost(d, "internal")
    assert queue.counters() == (31, 2, 16, 5, {"internal": 8}, 200)
    assert_ledger(queue)


@pytest.mark.parametrize(("claimed", "rejected"), [(-5, 0), (0, 0), (3, 3), (7, 7), (1 << 40, 7)])
def test_partial_success_cannot_claim_more_than_was_sent(queue, claimed, rejected):
    queue.offer(Kept(1, 7))
    queue.exported(queue.take(), claimed)
    assert queue.counters()[:4] == (7, 7 - rejected, 0, rejected)


def test_abandon_loses_what_is_not_settled(queue):
    told = calls_of(queue, "on_room")
    queue.offer(Kept(900, 3))
    in_flight = queue.take()
    queue.offer(Kept(100, 4))
    assert not queue.offer(Kept(1, 5))
    queue.abandon("shutdown")
    assert queue.empty
    assert queue.counters() == (7, 0, 0, 0, {"shutdown": 7}, 0)
    assert len(told) == 1
    assert queue.offer(Kept(1, 5))  # lost, but accounted for
    assert queue.counters() == (12, 0, 0, 0, {"shutdown": 12}, 0)
    assert queue.wait_ns(0) is None
    assert in_flight


def test_the_queue_keeps_no_settled_trace_alive(queue):
    trace = Kept(1)
    alive = weakref.ref(trace)
    queue.offer(trace)
    del trace
    queue.exported(queue.take())
    gc.collect()
    assert alive() is None


class QueueMachine(RuleBasedStateMachine):
    """Against a model that counts every trace by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Now()
        self.queue = Queue(max_bytes=MAX, batch_bytes=BATCH, max_wait_ns=WAIT, clock=self.now)
        self.waiting: list[tuple[Kept, int]] = []
        self.open: list[Kept] = []  # the last of these, to which another one may be added for one request
        self.charged: dict[Kept, int] = {}
        self.flying: list[list[Kept]] = []
        self.spans = dict.fromkeys(["routed", "exported", "rejected", "lost"], 0)
        self.refused: list[int] = []
        self.told = 0
        self.woken = False
        self.queue.on_room = self._on_room
        self.queue.wake = self._wake
        self.answered = self.queue.wait_ns(0)

    def _on_room(self) -> None:
        self.told += 1

    def _wake(self) -> None:
        assert not self.woken, "woken twice without having looked"
        self.woken = True

    def held(self) -> int:
        return sum(self.charged.values())

    def charge(self, trace: Kept) -> int:
        if self.open and request_bytes([*self.open, trace]) > BATCH:
            self.open = []
        return request_bytes([*self.open, trace]) - request_bytes(self.open)

    def wait(self) -> int | None:
        if not self.waiting:
            return None
        if sum(self.charged[t] for t, _ in self.waiting) >= BATCH:
            return 0
        return max(0, self.waiting[0][1] + WAIT - self.now.ns)

    @rule(
        nbytes=st.integers(1, 400) | st.integers(1, 3000),
        spans=st.integers(0, 5),
        headers=st.sets(st.sampled_from([1, 20, 99, 150, 500])),
    )
    def offer(self, nbytes: int, spans: int, headers: set[int]) -> None:
        trace = Kept(nbytes, spans, dict(zip(headers, headers, strict=True)))
        fits = not self.held() or self.held() + nbytes <= MAX
        if fits:
            nbytes = self.charge(trace)
            fits = not self.held() or self.held() + nbytes <= MAX
        assert self.queue.offer(trace) is fits
        if fits:
            self.waiting.append((trace, self.now.ns))
            self.charged[trace] = nbytes
            self.open.append(trace)
            self.spans["routed"] += spans
        else:
            self.refused.append(nbytes)
            self.open = []

    @rule(ns=st.integers(0, 60))
    def time_passes(self, ns: int) -> None:
        self.now.ns += ns

    @rule()
    def look(self) -> None:
        self.answered = self.queue.wait_ns(self.now.ns)
        self.woken = False
        assert self.answered == self.wait()

    @rule()
    def take(self) -> None:
        batch = self.queue.take()
        assert batch == [t for t, _ in self.waiting[: len(batch)]]
        assert len(batch) <= 1 or request_bytes(batch) <= BATCH
        assert sum(self.charged[t] for t in batch) == request_bytes(batch)
        if not set(batch).isdisjoint(self.open):
            self.open = []
        assert batch or not self.waiting
        del self.waiting[: len(batch)]
        if batch:
            self.flying.append(batch)
            self.look()

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), how=st.sampled_from(["exported", "rejected", "lost"]), partly=st.integers(-1, 9))
    def settle(self, data: st.DataObject, how: str, partly: int) -> None:
        batch = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        spans = sum(t.spans for t in batch)
        for trace in batch:
            del self.charged[trace]
        before = self.told
        if how == "exported":
            self.queue.exported(batch, partly)
            partly = min(max(partly, 0), spans)
            self.spans["exported"] += spans - partly
            self.spans["rejected"] += partly
        elif how == "rejected":
            self.queue.rejected(batch)
            self.spans["rejected"] += spans
        else:
            self.queue.lost(batch, "reason")
            self.spans["lost"] += spans
        room = bool(self.refused) and (not self.held() or self.held() + min(self.refused) <= MAX)
        assert self.told - before == room
        if room:
            self.refused.clear()

    @invariant()
    def ledger(self) -> None:
        counters = self.queue.counters()
        queued = sum(t.spans for t, _ in self.waiting) + sum(t.spans for batch in self.flying for t in batch)
        assert counters.routed_spans == self.spans["routed"]
        assert counters.exported_spans == self.spans["exported"]
        assert counters.rejected_spans == self.spans["rejected"]
        assert sum(counters.lost_spans.values()) == self.spans["lost"]
        assert counters.queued_spans == queued
        assert counters.queued_bytes == self.held()
        assert_ledger(self.queue)
        assert self.queue.empty is (not self.waiting and not self.flying)

    @invariant()
    def no_wake_is_missed(self) -> None:
        if self.answered is None and self.waiting:
            assert self.woken
        if self.answered and sum(self.charged[t] for t, _ in self.waiting) >= BATCH:
            assert self.woken


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_two_threads_miss_no_note():
    """One side offers under a lock, as the pipeline does; the other waits, takes, settles and looks. Nothing is missed:
    the queue is not asked again before it has woken the loop's side, or the time that it named is over."""
    queue = Queue(max_bytes=20_000, batch_bytes=2_000, max_wait_ns=2_000_000, clock=time.monotonic_ns)
    lock = threading.Lock()
    event = threading.Event()
    room = threading.Event()
    queue.wake = event.set
    queue.on_room = room.set
    total = 20_000

    def pipeline() -> None:
        for i in range(total):
            while True:
                room.clear()
                with lock:
                    if queue.offer(Kept(i % 300 + 1, i % 7)):
                        break
                assert room.wait(10), "not told about room"

    offering = threading.Thread(target=pipeline)
    offering.start()
    taken = 0
    deadline = time.monotonic() + 20
    while taken < total and time.monotonic() < deadline:
        event.clear()
        wait = queue.wait_ns(time.monotonic_ns())
        if wait is None or wait > 0:
            assert event.wait(10 if wait is None else wait / 1e9) or wait is not None, "not woken"
            continue
        batch = queue.take()
        taken += len(batch)
        queue.exported(batch)
        with lock:
            assert_ledger(queue)
    offering.join()
    assert queue.empty
    assert queue.counters().exported_spans == sum(i % 7 for i in range(total))
    assert queue.counters().queued_bytes == 0


def test_a_batch_has_a_bounded_number_of_traces(now):
    queue = Queue(max_bytes=1 << 30, batch_bytes=1 << 20, max_wait_ns=WAIT, clock=now)
    for _ in range(2 * BATCH_TRACES + 5):
        queue.offer(Kept(1))
    queue.flush()
    sizes = []
    while batch := queue.take():
        sizes.append(len(batch))
        queue.exported(batch)
    assert sizes == [BATCH_TRACES, BATCH_TRACES, 5]
    assert queue.empty
    assert_ledger(queue)


def test_an_offer_that_fails_behind_the_other_side_changes_nothing():
    """The loop looks for a batch while a trace is appended, and there is no memory for the trace."""
    failing = False

    def clock():
        if failing:
            assert queue.take() == []
            raise MemoryError
        return 0

    queue = Queue(max_bytes=MAX, batch_bytes=BATCH, max_wait_ns=WAIT, clock=clock)
    before = queue.counters()
    failing = True
    with pytest.raises(MemoryError):
        queue.offer(Kept(10))
    failing = False
    assert queue.counters() == before
    assert queue.offer(Kept(20))
    assert [t.nbytes for t in queue.take()] == [20]
    assert_ledger(queue)
