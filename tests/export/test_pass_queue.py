"""The queues of what is passed on: bounds, batches, and a ledger that holds after every step."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, QueueFull
from sampler_proxy.export.pass_queue import REQUEST_COST, DestinationQueues, PassQueues
from sampler_proxy.otlp.signals import PASSED_ON, Signal

MS = 10**6
LOGS, METRICS = Signal.LOGS, Signal.METRICS


class Bench:
    """Queues with a clock that stands still. Memory for `most` requests of 1000 bytes for each destination."""

    def __init__(self, *drops: bool, most: int = 8) -> None:
        self.now_ns = 0
        drops = drops or (False,)
        bound = most * (1000 + REQUEST_COST)
        self.queues = PassQueues(lambda: bound * len(drops), lambda: self.now_ns)
        self.destinations = [
            self.queues.add(f"d{n}", batch_bytes=3000, max_wait_ns=200 * MS, drop=drop) for n, drop in enumerate(drops)
        ]
        self.ways = {signal: self.queues.way(signal, "grpc") for signal in PASSED_ON}

    def take(self, size: int = 1000, signal: Signal = LOGS, *, joinable: bool = True) -> bool:
        try:
            self.ways[signal].take(bytes(size), joinable)
        except QueueFull:
            return False
        return True

    def count(self, metric: metrics.Metric, *labels: str) -> float:
        return self.queues.values()[metric].get(labels, 0)

    def check(self) -> None:
        unbalanced(self.queues)


def unbalanced(queues: PassQueues) -> None:
    """Assert both equations, for each signal and destination."""
    values = queues.values()
    for signal in PASSED_ON:
        received = sum(
            count for key, count in values[metrics.PASSTHROUGH_REQUESTS_RECEIVED].items() if key[0] == signal.label
        )
        discarded = values[metrics.PASSTHROUGH_REQUESTS_DISCARDED][signal.label,]
        for each in queues.destinations:
            key = each.name, signal.label
            routed = values[metrics.PASSTHROUGH_REQUESTS_ROUTED][key]
            lost = sum(n for one, n in values[metrics.PASSTHROUGH_REQUESTS_LOST].items() if one[:2] == key)
            parts = (
                metrics.PASSTHROUGH_REQUESTS_EXPORTED,
                metrics.PASSTHROUGH_QUEUE_REQUESTS,
                metrics.PASSTHROUGH_REQUESTS_REJECTED,
                metrics.PASSTHROUGH_REQUESTS_UNWANTED,
            )
            assert received == discarded + routed
            assert routed == lost + sum(values[part][key] for part in parts)
            queue = each.of[signal]
            assert queue.held >= 0
            assert bool(queue.held) == bool(queue.queued)


def first(bench: Bench) -> DestinationQueues:
    return bench.destinations[0]


def test_a_signal_alone_has_half_of_the_memory_and_leaves_the_others_room() -> None:
    bench = Bench()
    assert [bench.take() for _ in range(5)] == [True] * 4 + [False]
    assert [bench.take(signal=METRICS) for _ in range(3)] == [True] * 2 + [False]
    assert bench.take(signal=Signal.PROFILES)
    bench.check()
    assert bench.count(metrics.PASSTHROUGH_REQUESTS_RECEIVED, "logs", "grpc") == 4  # what was refused was not taken
    assert bench.count(metrics.PASSTHROUGH_QUEUE_BYTES, "d0", "logs") == 4 * (1000 + REQUEST_COST)


def test_a_request_larger_than_the_bound_is_taken_when_nothing_is_held() -> None:
    bench = Bench(most=2)
    assert bench.take(100_000)
    assert not bench.take(1)
    with pytest.raises(QueueFull) as caught:
        bench.ways[METRICS].take(b"\n\0", True)
    assert caught.value.retry_after_ns
    first(bench).of[LOGS].settle_exported(first(bench).of[LOGS].take(), 0)
    assert bench.take(1, METRICS)
    assert not bench.take(100_000)
    bench.check()


def test_requests_without_bytes_cost_memory_too() -> None:
    bench = Bench()
    taken = 0
    while bench.take(1):
        taken += 1
    assert 2 * taken - 1 == 8 * (1000 + REQUEST_COST) // (REQUEST_COST + 1)


def test_a_destination_that_waits_has_senders_refused_and_one_that_drops_has_not() -> None:
    bench = Bench(True, False)
    for _ in range(4):
        bench.take()
    assert not bench.take()
    assert bench.count(metrics.PASSTHROUGH_REQUESTS_LOST, "d0", "logs", "queue_full") == 0  # refused is not lost
    second = bench.destinations[1].of[LOGS]
    second.settle_exported(second.take(), 0)
    assert bench.take()
    assert bench.count(metrics.PASSTHROUGH_REQUESTS_LOST, "d0", "logs", "queue_full") == 1
    bench.check()


def test_a_batch_is_what_fits_and_what_may_be_joined() -> None:
    bench = Bench(most=100)
    queue = first(bench).of[LOGS]
    for size, joinable in (1000, True), (1500, True), (501, True), (9000, True), (10, False), (20, True):
        bench.take(size, joinable=joinable)
    assert [[len(one) for one in batch.requests] for batch in iter(queue.take, None)] == [
        [1000, 1500],
        [501],
        [9000],
        [10],
        [20],
    ]


def test_requests_of_several_senders_are_joined_by_sender() -> None:
    bench = Bench(most=1000)
    queue = first(bench).of[LOGS]
    for number in range(600):
        bench.ways[LOGS].take(b"%d," % (number % 3), True, b"tenant %d" % (number % 3))
    bench.ways[LOGS].take(b"alone,", False, b"tenant 0")
    batches = list(iter(queue.take, None))
    assert b"".join(batch.joined() for batch in batches if batch.metadata == b"tenant 1") == b"1," * 200
    assert sum(len(batch.requests) for batch in batches) == 601
    assert len(batches) <= 8
    for batch in batches:
        assert len({*batch.requests}) == 1
        queue.settle_exported(batch, 0)
    bench.check()
    assert not queue.held


def test_halves_are_settled_each_by_itself() -> None:
    bench = Bench()
    queue = first(bench).of[LOGS]
    for _ in range(4):
        bench.take()
    batch, last = queue.take(), queue.take()
    assert batch is not None
    assert last is not None
    assert batch.joined() == bytes(3000)
    one, other = batch.halves()
    queue.settle_rejected(one)
    bench.check()
    queue.settle_exported(other, 5)
    queue.settle_exported(last, -3)
    bench.check()
    assert bench.count(metrics.PASSTHROUGH_ITEMS_REJECTED, "d0", "logs") == 5
    assert (queue.exported, queue.rejected, queue.queued, queue.held) == (3, 1, 0, 0)


def test_a_batch_is_ready_when_it_is_full_or_old_enough() -> None:
    bench = Bench()
    queue = first(bench).of[LOGS]
    woken = []
    queue.wake = lambda: woken.append(bench.now_ns)
    assert queue.wait_ns(0) is None
    bench.take()
    assert len(woken) == 1  # nobody waited for a certain time
    assert queue.wait_ns(50 * MS) == 150 * MS
    bench.take()
    assert len(woken) == 1
    bench.take()
    assert len(woken) == 2  # 3000 bytes
    assert queue.wait_ns(50 * MS) == 0
    queue.take()
    bench.take()
    assert queue.wait_ns(0) == 200 * MS
    queue.flush()
    assert queue.wait_ns(0) == 0


def test_a_signal_that_nobody_knows_is_counted_until_it_is_asked_for_again() -> None:
    bench = Bench()
    queue = first(bench).of[LOGS]
    for _ in range(4):
        bench.take()
    batch = queue.take()
    assert queue.discard([batch], until_ns=100) == 4
    for _ in range(20):
        assert bench.take()
    assert (queue.unwanted, queue.queued, queue.held) == (24, 0, 0)
    bench.now_ns = 100
    assert bench.take()
    assert queue.queued == 1
    bench.check()


def test_nobody_takes_it_and_nothing_is_in_it() -> None:
    nobody = PassQueues(lambda: 1000, lambda: 0)
    nobody.way(LOGS, "http").take(b"\n\0", True)
    assert nobody.values()[metrics.PASSTHROUGH_REQUESTS_DISCARDED]["logs",] == 1
    bench = Bench()
    bench.take(0)
    assert bench.count(metrics.PASSTHROUGH_REQUESTS_DISCARDED, "logs") == 1
    assert not first(bench).of[LOGS].queued
    bench.check()


def test_what_is_left_is_lost_and_what_comes_then_is_refused() -> None:
    bench = Bench()
    queue = first(bench).of[LOGS]
    for _ in range(4):
        bench.take()
    queue.take()
    bench.queues.close()
    with pytest.raises(Draining) as caught:
        bench.take()
    assert caught.value.retry_after_ns
    assert queue.abandon("shutdown") == 4
    assert queue.abandon("shutdown") == 0
    bench.check()


def test_want_of_memory_leaves_no_queue_with_what_another_has_not(monkeypatch) -> None:
    bench = Bench(False, False)

    def poor(_: object) -> None:
        raise MemoryError

    second = bench.destinations[1].of[LOGS]
    monkeypatch.setattr(second, "append", poor)
    with pytest.raises(MemoryError):
        bench.take()
    bench.check()
    assert first(bench).of[LOGS].take() is None
    monkeypatch.undo()
    assert bench.take()
    bench.check()


def test_many_threads_lose_no_count() -> None:
    bench = Bench(False, True, most=10_000)

    def send() -> None:
        for _ in range(1000):
            bench.take(10)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    queue = first(bench).of[LOGS]
    while any(thread.is_alive() for thread in threads) or queue.queued:
        if (batch := queue.take()) is not None:
            queue.settle_exported(batch, 0)
        bench.check()
    assert queue.exported == 4000


Steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["take", "take", "take", "grab", "export", "reject", "lose", "halve", "discard", "pass time", "abandon"]
        ),
        st.sampled_from(PASSED_ON),
        st.integers(0, 1),
        st.sampled_from([0, 1, 500, 1000, 2999, 3000, 20_000]),
        st.booleans(),
    ),
    max_size=60,
)


@given(Steps, st.booleans())
def test_the_ledger_holds_after_every_step(steps: list, drop: bool) -> None:
    bench = Bench(drop, False)
    in_hand: dict = {}
    for step, signal, number, size, flag in steps:
        queue = bench.destinations[number].of[signal]
        batches = in_hand.setdefault((signal, number), [])
        if step == "take":
            bench.take(size, signal, joinable=flag)
        elif step == "grab" and (batch := queue.take()) is not None:
            batches.append(batch)
        elif step == "pass time":
            bench.now_ns += size
        elif step == "discard":
            queue.discard([batches.pop() for _ in range(len(batches))], bench.now_ns + size)
        elif step == "abandon" and size == 20_000:
            queue.abandon("shutdown")
            batches.clear()
        elif batches:
            batch = batches.pop()
            if step == "export":
                queue.settle_exported(batch, size)
            elif step == "reject":
                queue.settle_rejected(batch)
            elif step == "lose":
                queue.settle_lost(batch, "internal")
            else:
                batches += batch.halves()
        bench.check()
