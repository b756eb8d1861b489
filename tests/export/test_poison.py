"""Overload is waited out, what is too large is cut, what fails though others pass is set aside: real gRPC servers."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
import tracemalloc

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.config.model import Batch, GrpcExport, Queue, Retry
from sampler_proxy.export.exporter import LEAST_LIMIT_BYTES, Dependencies, Exporter, Persistence
from sampler_proxy.export.recent import LARGEST_FOR_NS, RETRIES_FOR_NS, Recent, Try
from sampler_proxy.export.retry import Accepted, Failed, Fault, classify
from sampler_proxy.export.split import Layout
from tests.export.support import (
    Trace,
    assemble,
    counts,
    in_seconds,
    numbers,
    offer,
    offer_until_rejected,
    retry_info,
    running,
    status_details,
    until,
)
from tests.export.test_otlp_grpc import exporting

MS, MIB = 10**6, 1 << 20
CODES = grpc.StatusCode
SPANS = 3


def config(port, *, batch_bytes=MIB, give_up_ms=1500, timeout_ms=300, initial_ms=20, max_ms=200, concurrency=4):
    return GrpcExport(
        name="tempo",
        endpoint=f"http://localhost:{port}",
        batch=Batch(max_bytes=batch_bytes, max_wait_ns=20 * MS),
        queue=Queue(max_bytes=256 * MIB),
        retry=Retry(initial_ns=initial_ms * MS, max_ns=max_ms * MS, give_up_ns=give_up_ms * MS),
        timeout_ns=timeout_ms * MS,
        concurrency=concurrency,
    )


def hex_id(number):
    return number.to_bytes(16, "big").hex()


@pytest.mark.parametrize("code", [CODES.RESOURCE_EXHAUSTED, CODES.UNAVAILABLE, CODES.UNAUTHENTICATED])
def test_an_overload_is_waited_out(run, backend, code):
    """A memory limiter that refuses everything for a while, without RetryInfo: few tries, and nothing is lost."""
    end = time.monotonic() + 2.5

    def answer(_request, context):
        if time.monotonic() < end:
            context.abort(code, "data refused due to high memory usage")

    server = backend(answer)

    async def scenario():
        one = Trace(0, SPANS).nbytes
        settings = config(server.port, batch_bytes=one * 50, initial_ms=100, max_ms=3000, give_up_ms=500)
        async with exporting(settings) as exporter:
            offer(exporter, range(1, 1001), spans=SPANS)
            await until(lambda: exporter.queue.empty, 25)
            assert counts(exporter) == (1000 * SPANS, 0, {})
            assert exporter.failed_tries < 60

    run(scenario())
    assert len(server.stored) == 1000


def test_a_throttled_back_end_is_nobody_s_fault(run, backend):
    """Of ten requests it takes three: nothing is given up, though much fails for longer than `give_up`."""
    chance = random.Random(3)

    def answer(_request, context):
        if chance.random() < 0.7:
            context.abort(CODES.RESOURCE_EXHAUSTED, "rate limit")

    server = backend(answer)

    async def scenario():
        one = Trace(0, SPANS).nbytes
        async with exporting(config(server.port, batch_bytes=one * 20, give_up_ms=1000)) as exporter:
            for first in range(1, 1001, 100):
                offer(exporter, range(first, first + 100), spans=SPANS)
                await asyncio.sleep(0.1)
            await until(lambda: exporter.queue.empty, 25)
            assert counts(exporter) == (1000 * SPANS, 0, {})

    run(scenario())


POISONS = [
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
    "hangs",
    "RetryInfo",
    "ABORTED",
    "PERMISSION_DENIED",
    "INVALID_ARGUMENT",
]


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_four_batches_with_one_poisoned_trace_each(run, backend, caplog, poison, concurrency):
    """There is nothing but these: the others get out all the same, soon, and the four are given up by name."""
    poisoned = {30, 150, 260, 400}
    release = threading.Event()

    def answer(request, context):
        if poisoned.isdisjoint(numbers(request)):
            return
        if poison == "hangs":
            release.wait(1)
        elif poison == "RetryInfo":
            context.set_trailing_metadata((("grpc-status-details-bin", status_details(retry_info(0.3))),))
            context.abort(CODES.UNAVAILABLE, "secret")
        else:
            context.abort(CODES[poison], "secret")

    server = backend(answer)

    async def scenario():
        one = Trace(0, SPANS).nbytes
        settings = config(server.port, batch_bytes=one * 112, concurrency=concurrency)
        async with exporting(settings) as exporter:
            offer(exporter, range(1, 447), spans=SPANS)
            await until(lambda: len(set(server.stored) - poisoned) == 442, 12)
            await until(lambda: exporter.queue.empty, 12)
            # The first answer to come too late may have been a success all the same.
            assert counts(exporter) == (442 * SPANS, 4 * SPANS, {})

    try:
        run(scenario())
    finally:
        release.set()
    rejected = re.findall(r"spans rejected: .*\(trace ([0-9a-f]+)", caplog.text)
    assert set(rejected) <= {hex_id(number) for number in poisoned}
    assert rejected
    assert "secret" not in caplog.text


def test_poison_holds_up_nobody(run, backend):
    """While a poisoned trace is tried and tried, batches pass at their usual pace."""
    release = threading.Event()

    def answer(request, _context):
        if 7 in numbers(request):
            release.wait(1)

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, give_up_ms=60_000)) as exporter:
            slow = 0
            for first in range(1, 3000, 50):
                offer(exporter, range(first, first + 50), spans=1)
                start = time.monotonic()
                await until(lambda last=first + 49: last in server.stored)
                slow += time.monotonic() - start > 0.25
            assert slow <= 4  # until it was known to be poison
            await until(lambda: exporter.queue.counters().queued_spans == 1)
            assert counts(exporter)[1] == 0

    try:
        run(scenario())
    finally:
        release.set()


def test_a_retry_info_silences_the_one_that_gets_it(run, backend):
    """One trace is told to wait for an hour; the others go on. It is not given up before its time."""

    def answer(request, context):
        if 7 in numbers(request):
            context.set_trailing_metadata((("grpc-status-details-bin", status_details(retry_info(3600))),))
            context.abort(CODES.UNAVAILABLE, "")

    server = backend(answer)

    async def scenario():
        one = Trace(0, 1).nbytes
        async with exporting(config(server.port, batch_bytes=one, give_up_ms=60_000)) as exporter:
            offer(exporter, range(1, 2), spans=1)
            await until(lambda: exporter.queue.empty)
            offer(exporter, [7], spans=1)
            await until(lambda: exporter.failed_tries)
            offer(exporter, range(10, 200), spans=1)
            await until(lambda: exporter.queue.counters().queued_spans == 1)
            assert counts(exporter) == (191, 0, {})
            assert [exporter.fate_of(Trace(number).trace_id) for number in (7, 10, 8)] == ["queued", "exported", None]
            assert exporter.failed_tries <= 2

    run(scenario())


def test_nothing_is_given_up_while_nothing_passes(run, backend):
    works = threading.Event()
    works.set()

    def answer(_request, context):
        if not works.is_set():
            context.abort(CODES.UNAVAILABLE, "")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, batch_bytes=1000, give_up_ms=50)) as exporter:
            offer(exporter, range(1, 50), spans=1)
            await until(lambda: exporter.queue.empty)
            works.clear()
            offer(exporter, range(50, 100), spans=1)
            await asyncio.sleep(2)
            assert counts(exporter) == (49, 0, {})
            works.set()
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (99, 0, {})

    run(scenario())


def test_a_limit_that_nobody_names(run, backend):
    """Smaller parts of what was refused pass: then it was the size. Later batches are small enough at once."""
    limit = 100_000

    def answer(request, context):
        if request.ByteSize() > limit:
            context.abort(CODES.RESOURCE_EXHAUSTED, "no")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, batch_bytes=4 * limit)) as exporter:
            for round_ in range(3):
                offer(exporter, range(round_ * 1000, round_ * 1000 + 300), padding=500)
                await until(lambda: exporter.queue.empty, 15)
            assert counts(exporter) == (1800, 0, {})
            before = exporter.failed_tries
            offer(exporter, range(5000, 5300), padding=500)
            await until(lambda: exporter.queue.empty, 15)
            assert counts(exporter) == (2400, 0, {})
            assert exporter.failed_tries == before

    run(scenario())


def sizes(server):
    return [request.nbytes for request in server.seen]


@pytest.mark.parametrize("named", [True, False])
def test_a_trace_over_the_default_limit_goes_out_in_parts(run, backend, named):
    """12 000 spans of 6 MiB against 4 MiB, refused by gRPC itself or by a server that says nothing of sizes."""

    def answer(request, context):
        if request.ByteSize() > 4 * MIB:
            context.abort(CODES.RESOURCE_EXHAUSTED, "no")

    server = backend(None if named else answer, max_receive_bytes=4 * MIB if named else -1)

    async def scenario():
        async with exporting(config(server.port, timeout_ms=10_000)) as exporter:
            offer(exporter, [1], spans=12_000, padding=480)
            await until(lambda: exporter.queue.empty, 20)
            assert counts(exporter) == (12_000, 0, {})
            assert exporter.failed_tries == 0

    run(scenario())
    assert server.stored == {1: 12_000}
    assert max(sizes(server)) <= 4 * MIB
    assert len(server.seen) <= 3


def test_a_trace_is_cut_to_the_limit_that_a_refusal_names(run, backend):
    server = backend(max_receive_bytes=50_000)

    async def scenario():
        async with exporting(config(server.port)) as exporter:
            offer(exporter, [1], spans=500, padding=500)
            await until(lambda: exporter.queue.empty)
            offer(exporter, [2], spans=500, padding=500)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (1000, 0, {})

    run(scenario())
    assert server.stored == {1: 500, 2: 500}


def test_only_a_span_that_is_too_large_is_rejected(run, backend, caplog):
    """One span of 5 MiB does not take its nine small neighbours along, nor another trace of the batch."""
    server = backend(max_receive_bytes=4 * MIB)

    class Uneven(Trace):
        def __init__(self):
            request = ExportTraceServiceRequest()
            scope_spans = request.resource_spans.add().scope_spans.add()
            self.trace_id, self.spans, self.metadata = bytes(15) + b"\x63", 10, b""
            for i in range(10):
                span = scope_spans.spans.add(trace_id=self.trace_id, span_id=(i + 1).to_bytes(8, "big"))
                span.trace_state = "x" * (5 * MIB if i == 4 else 10)
            self.data = request.SerializeToString()

    async def scenario():
        async with exporting(config(server.port, batch_bytes=32 * MIB, timeout_ms=10_000)) as exporter:
            assert exporter.queue.offer(Uneven())
            offer(exporter, range(1, 11))
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (29, 1, {})

    run(scenario())
    assert server.stored == {0x63: 9, **dict.fromkeys(range(1, 11), 2)}
    assert f"1 spans rejected: RESOURCE_EXHAUSTED, larger than it takes (trace {hex_id(0x63)})" in caplog.text


def test_spans_of_a_cut_trace_are_accounted_for_when_the_time_is_up(run, backend):
    """Half of a trace is stored when the exporter stops: only the other half is lost."""
    first = threading.Event()

    def answer(_request, context):
        if first.is_set():
            context.abort(CODES.UNAVAILABLE, "")
        first.set()

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, timeout_ms=10_000)) as exporter:
            offer(exporter, [1], spans=12_000, padding=480)
            await until(lambda: exporter.failed_tries)
            assert not await exporter.drain(in_seconds(0.1))
            await exporter.stop()
            exported, rejected, lost = counts(exporter)
            assert exported == server.stored[1] > 0
            assert (rejected, lost) == (0, {"shutdown": 12_000 - exported})

    run(scenario())


class Scripted(Exporter):
    """An exporter whose destination is a function: the answers that no real server gives at will."""

    def __init__(self, answer, *, batch_bytes=MIB, initial_ms=10, max_ms=300, give_up_ms=3000, concurrency=4):
        settings = config(1, batch_bytes=batch_bytes)
        dependencies = Dependencies(assemble, time.monotonic_ns, random.Random(1).random, lambda _seconds: None)
        persistence = Persistence(initial_ms * MS, max_ms * MS, give_up_ms * MS)
        super().__init__(settings, dependencies, persistence, concurrency=concurrency, limit_bytes=4 * MIB)
        self.answer = answer
        self.tries = 0
        self.sizes = []

    async def _send(self, request, _metadata):
        self.tries += 1
        self.sizes.append(len(request))
        await asyncio.sleep(0.001)
        return self.answer(request)


TOO_LARGE = [
    (CODES.UNKNOWN, "Received http2 header with status: 413"),
    (CODES.RESOURCE_EXHAUSTED, "grpc: received message larger than max (4096 vs. 1)"),
]


@pytest.mark.parametrize(("code", "details"), TOO_LARGE)
def test_a_destination_that_calls_everything_too_large_is_waited_out(run, code, details):
    """Nothing shows that smaller ones pass: few tries, no limit below the least one, and nothing is rejected."""
    works = False

    def answer(request):
        return Accepted() if works else classify(code, details, len(request), None)

    async def scenario():
        nonlocal works
        async with running(Scripted(answer)) as exporter:
            offer(exporter, range(1, 1001), spans=5)
            await asyncio.sleep(3)
            assert counts(exporter) == (0, 0, {})
            assert exporter.tries < 150
            assert exporter._limit_bytes >= LEAST_LIMIT_BYTES
            assert min(exporter.sizes) >= 20
            works = True
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (5000, 0, {})

    run(scenario())


def test_an_unnamed_limit_is_learned_when_a_smaller_part_passes(run):
    def answer(request):
        if len(request) <= 100_000:
            return Accepted()
        return classify(*TOO_LARGE[0], len(request), None)

    async def scenario():
        async with running(Scripted(answer, batch_bytes=4 * MIB)) as exporter:
            offer(exporter, range(1, 1001), spans=2, padding=500)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (2000, 0, {})
            assert 50_000 <= exporter._limit_bytes <= 100_000

    run(scenario())


@pytest.mark.parametrize("retry_after_ms", [None, 20])
def test_innocent_neighbours_are_not_given_up_with_the_poison(run, retry_after_ms):
    """A third of all requests is refused at random, so that parts are not told from the whole at once."""
    chance = random.Random(2)
    poison = Trace(200).trace_id

    def answer(request):
        if poison in request:
            return Failed(Fault.OVERLOAD, "UNAVAILABLE", "no", retry_after_ms and retry_after_ms * MS)
        return Failed(Fault.EXHAUSTED, "RESOURCE_EXHAUSTED", "no") if chance.random() < 0.3 else Accepted()

    async def scenario():
        one = Trace(1).nbytes
        async with running(Scripted(answer, batch_bytes=256 * one, give_up_ms=300, max_ms=50)) as exporter:
            number = 0
            end = time.monotonic() + 5
            while time.monotonic() < end:
                offer(exporter, range(number + 1, number + 21))
                number += 20
                await asyncio.sleep(0.01)
            await until(lambda: exporter.queue.counters().queued_spans <= 2, 20)
            exported, rejected, _ = counts(exporter)
            assert exported == 2 * number - 2
            assert rejected in (0, 2)

    run(scenario())


def test_neighbours_of_modest_poison_do_not_wait(run):
    """A poisoned trace every 50 ms, each with many innocent ones around: these get out within moments all the same."""
    poison = b"\xfa" * 8

    def answer(request):
        return Failed(Fault.OVERLOAD, "UNAVAILABLE", "no") if poison in request else Accepted()

    async def scenario():
        one = Trace(1).nbytes
        async with running(Scripted(answer, batch_bytes=64 * one)) as exporter:
            number = 0
            waiting = []
            end = time.monotonic() + 6
            next_poison = 0.0
            while time.monotonic() < end:
                offer(exporter, range(number + 1, number + 11))
                number += 10
                if time.monotonic() >= next_poison:
                    next_poison = time.monotonic() + 0.05
                    offer(exporter, [int.from_bytes(poison + number.to_bytes(8, "big"), "big")])
                await asyncio.sleep(0.01)
                held = [trace for parcel in exporter._suspects._waiting for trace in parcel.traces]
                waiting.append(sum(not trace.trace_id.startswith(poison) for trace in held))
            assert max(waiting[len(waiting) // 2 :]) < 150
            await until(lambda: exporter.queue.counters().exported_spans == 2 * number)

    run(scenario())


def test_poison_does_not_hold_the_only_slot(run):
    """Poison costs a long time-out: batches have at least half of the time."""
    poison = b"\xfa" * 8

    class Slow(Scripted):
        async def _send(self, request, _metadata):
            if poison in request:
                await asyncio.sleep(0.2)
                return Failed(Fault.TIMEOUT, "DEADLINE_EXCEEDED", "no")
            await asyncio.sleep(0.01)
            return Accepted()

    async def scenario():
        one = Trace(1).nbytes
        async with running(Slow(None, batch_bytes=one, concurrency=1, give_up_ms=60_000, max_ms=20)) as exporter:
            offer(exporter, [int.from_bytes(poison + bytes([0] * 7 + [n]), "big") for n in range(1, 6)])
            await until(lambda: exporter.failed_tries >= 1)
            offer(exporter, range(1, 1001))
            await until(lambda: len(list(exporter._suspects)) == 5)
            before = counts(exporter)[0]
            await asyncio.sleep(3)
            assert counts(exporter)[0] - before > 2 * 80

    run(scenario())


def test_poison_is_given_up_though_others_recover_by_chance(run):
    """Half of what is tried again passes by chance, for ever: there is an end to the doubt, twice `give_up`."""
    poison = Trace(200).trace_id

    def answer(request):
        return Failed(Fault.OVERLOAD, "UNAVAILABLE", "no") if poison in request else Accepted()

    async def scenario():
        one = Trace(1).nbytes
        async with running(Scripted(answer, batch_bytes=one, give_up_ms=500, max_ms=50)) as exporter:
            exporter._recent.is_chance = lambda _failures: True
            offer(exporter, range(199, 202))
            start, number = time.monotonic(), 1000
            while not exporter.queue.counters().rejected_spans:
                number += 1
                offer(exporter, [number])
                await asyncio.sleep(0.01)
                assert time.monotonic() - start < 5
            assert time.monotonic() - start >= 1

    run(scenario())


def slow(answer_after_s, poison):
    class Slow(Scripted):
        async def _send(self, request, _metadata):
            if poison in request:
                await asyncio.sleep(answer_after_s)
                return Failed(Fault.TIMEOUT, "DEADLINE_EXCEEDED", "no")
            await asyncio.sleep(0.001)
            return Accepted()

    return Slow


@pytest.mark.parametrize("recover", [False, True])
@pytest.mark.parametrize("poisons", [1, 30])
def test_slow_poison_lives_for_its_time_and_a_try_more(run, monkeypatch, poisons, recover):
    """Each try lasts, so that there are few, and where there are many of them each waits for its turn; others may
    recover by chance. Counted from when it was known to be poison."""
    if recover:
        monkeypatch.setattr(Recent, "recoveries", 0.5)
        monkeypatch.setattr(Recent, "is_chance", lambda *_: True)
    poison = b"\xfa" * 8
    try_s, give_up_s = 0.3, 1.0

    async def scenario():
        one = Trace(1).nbytes
        made = slow(try_s, poison)(None, batch_bytes=one, give_up_ms=give_up_s * 1000, max_ms=100)
        since = []
        rejected = made._reject

        def reject(parcel, why):
            since.append((time.monotonic_ns() - parcel.suspect_since_ns) / 1e9)
            rejected(parcel, why)

        made._reject = reject
        async with running(made) as exporter:
            offer(exporter, range(1, 20))
            offer(exporter, [int.from_bytes(poison + bytes([0] * 7 + [n]), "big") for n in range(1, poisons + 1)])
            number = 1000
            while len(since) < poisons:
                number += 1
                offer(exporter, [number])
                await asyncio.sleep(0.01)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter)[1] == 2 * poisons
        assert min(since) >= give_up_s
        assert max(since) < give_up_s + 2 * try_s + 0.5

    run(scenario())


def test_neighbours_of_slow_poison_get_out_though_others_recover_by_chance(run, monkeypatch):
    monkeypatch.setattr(Recent, "recoveries", 0.5)
    monkeypatch.setattr(Recent, "is_chance", lambda *_: True)
    poison = Trace(20).trace_id

    async def scenario():
        one = Trace(1).nbytes
        async with running(slow(0.05, poison)(None, batch_bytes=64 * one, give_up_ms=1500, max_ms=50)) as exporter:
            offer(exporter, range(1, 65))
            await offer_until_rejected(exporter, 100)
            await until(lambda: exporter.queue.empty)
            assert exporter.queue.counters().rejected_spans == 2

    run(scenario())


def test_a_trace_in_parts_says_how_many_of_its_spans_were_rejected(run):
    """One span of twenty is refused, for its size or its bytes; the trace is queued until its last part is settled."""
    hold = asyncio.Event()

    class Held(Scripted):
        async def _send(self, request, metadata):
            await hold.wait()
            return await super()._send(request, metadata)

    class Uneven(Trace):
        def __init__(self):
            request = ExportTraceServiceRequest()
            scope_spans = request.resource_spans.add().scope_spans.add()
            self.trace_id, self.spans, self.metadata = bytes(15) + b"\x63", 20, b""
            for i in range(20):
                span = scope_spans.spans.add(trace_id=self.trace_id, span_id=(i + 1).to_bytes(8, "big"))
                span.trace_state = "x" * (300_000 if i == 7 else 10_000)
            self.data = request.SerializeToString()

    def answer(request):
        if len(request) > 100_000:
            return Failed(Fault.SIZE, "RESOURCE_EXHAUSTED", "no", limit_bytes=100_000)
        return Accepted()

    async def scenario():
        async with running(Held(answer)) as exporter:
            trace = Uneven()
            assert exporter.queue.offer(trace)
            assert exporter.fate_of(trace.trace_id) == "queued"
            await until(lambda: exporter._under_way)
            assert exporter.fate_of(trace.trace_id) == "queued"
            hold.set()
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (19, 1, {})
            assert exporter.fate_of(trace.trace_id) == "exported, 1 of 20 spans rejected"

    run(scenario())


def test_headers_just_below_the_limit_cost_one_part_at_a_time(run):
    """40 spans under 1.9 MiB of resource attributes, of which 2 MiB hold one or two: 76 MiB in all, never at once; and
    the loop is free meanwhile."""

    class Headed(Trace):
        def __init__(self):
            request = ExportTraceServiceRequest()
            resource_spans = request.resource_spans.add()
            resource_spans.resource.attributes.add(key="k").value.string_value = "x" * (1900 << 10)
            scope_spans = resource_spans.scope_spans.add()
            self.trace_id, self.spans, self.metadata = bytes(15) + b"\x63", 40, b""
            for i in range(self.spans):
                span = scope_spans.spans.add(trace_id=self.trace_id, span_id=(i + 1).to_bytes(8, "big"))
                span.trace_state = "y" * (100 << 10)
            self.data = request.SerializeToString()

    async def scenario():
        exporter = Scripted(lambda _request: Accepted())
        exporter._limit_bytes = exporter._default_limit_bytes = 2 * MIB
        tracemalloc.start()
        try:
            async with running(exporter):
                assert exporter.queue.offer(Headed())
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                await until(lambda: exporter.queue.empty, 20)
                peak = tracemalloc.get_traced_memory()[1] - before
            assert counts(exporter) == (40, 0, {})
            assert sum(exporter.sizes) > 70 * MIB
            assert peak < 20 * MIB
        finally:
            tracemalloc.stop()

    run(scenario())


def test_a_large_trace_is_read_beside_the_loop(run, monkeypatch):
    """Where its spans stand is found out by a thread: nothing of it may run on the loop's."""
    threads = []
    read = Layout.__init__

    def noted(self, request):
        threads.append(threading.current_thread())
        read(self, request)

    monkeypatch.setattr(Layout, "__init__", noted)

    async def scenario():
        async with running(Scripted(lambda _request: Accepted())) as exporter:
            offer(exporter, [1], spans=12_000, padding=480)
            await until(lambda: exporter.queue.empty, 20)
            assert counts(exporter) == (12_000, 0, {})

    run(scenario())
    assert threads
    assert threading.current_thread() not in threads


def test_old_evidence_is_forgotten():
    recent = Recent()
    recent.record_retry(0, True)
    recent.record_retry(RETRIES_FOR_NS, False)
    assert recent.recoveries == 0.5
    recent.record_retry(RETRIES_FOR_NS + 1, False)
    assert recent.recoveries == 0


def test_the_largest_that_passed_is_remembered_for_a_whole_period():
    recent = Recent()
    recent.record(Try(0, MIB, True))
    recent.record(Try(LARGEST_FOR_NS, MIB, True))
    recent.record(Try(LARGEST_FOR_NS + 1, 500, True))
    assert recent.passed_with(MIB)
    recent.record(Try(2 * LARGEST_FOR_NS + 2, 500, True))
    assert not recent.passed_with(MIB)
    assert recent.passed_with(500)


def test_headers_over_the_limit_are_rejected_with_their_own_reason(run, caplog):
    """2000 spans under 40 KiB of resource attributes against 32 KiB: one request, not 2000; the neighbours get out."""

    class Headed(Trace):
        def __init__(self):
            request = ExportTraceServiceRequest()
            resource_spans = request.resource_spans.add()
            resource_spans.resource.attributes.add(key="k").value.string_value = "x" * (40 << 10)
            scope_spans = resource_spans.scope_spans.add()
            self.trace_id, self.spans, self.metadata = bytes(15) + b"\x63", 2000, b""
            for i in range(self.spans):
                scope_spans.spans.add(trace_id=self.trace_id, span_id=(i + 1).to_bytes(8, "big"))
            self.data = request.SerializeToString()

    def answer(request):
        if len(request) <= 32 << 10:
            return Accepted()
        details = f"grpc: received message larger than max ({len(request)} vs. {32 << 10})"
        return classify(CODES.RESOURCE_EXHAUSTED, details, len(request), None)

    async def scenario():
        async with running(Scripted(answer)) as exporter:
            offer(exporter, range(1, 11))
            assert exporter.queue.offer(Headed())
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (20, 2000, {})
            assert exporter.tries < 10

    run(scenario())
    assert "2000 spans rejected: " in caplog.text
    assert "the attributes of the resource or scope alone are larger than it takes (trace " in caplog.text


def test_who_waits_for_a_slot_heeds_a_silence_asked_for_meanwhile(run):
    """Four batches are in flight and more wait for their turn, suspects for example, when the first RetryInfo comes."""

    async def scenario():
        async with running(Scripted(lambda _request: Accepted(), batch_bytes=Trace(1).nbytes)) as exporter:
            for _ in range(4):
                await exporter._in_flight.acquire()
            offer(exporter, range(1, 5))
            await asyncio.sleep(0.1)  # they wait for a slot
            exporter._throttle(500 * MS)
            for _ in range(4):
                exporter._in_flight.release()
            await asyncio.sleep(0.3)
            assert exporter.tries == 0
            await until(lambda: exporter.queue.empty)
            assert exporter.tries == 4

    run(scenario())


def test_only_the_lone_trace_is_given_up_where_others_recover_by_chance(run, monkeypatch):
    """Nothing is divided at once then; when the time is up, neighbours are parted from the poison all the same."""
    monkeypatch.setattr(Recent, "recoveries", 0.5)
    monkeypatch.setattr(Recent, "is_chance", lambda *_: False)
    poison = Trace(20).trace_id

    def answer(request):
        return Failed(Fault.OVERLOAD, "UNAVAILABLE", "no") if poison in request else Accepted()

    async def scenario():
        one = Trace(1).nbytes
        async with running(Scripted(answer, batch_bytes=64 * one, give_up_ms=100, max_ms=20)) as exporter:
            offer(exporter, range(1, 65))
            await offer_until_rejected(exporter, 100)
            await until(lambda: exporter.queue.empty)
            assert exporter.queue.counters().rejected_spans == 2

    run(scenario())


def test_a_call_that_somebody_else_cancels_is_tried_again(run):
    """Of a batch, and of a suspect: neither is queued for ever, and the worker lives on."""
    poison = Trace(3).trace_id
    cancelled = 0

    def answer(request):
        nonlocal cancelled
        if poison in request and cancelled < 8:
            cancelled += 1
            raise asyncio.CancelledError
        return Accepted()

    async def scenario():
        one = Trace(1).nbytes
        async with running(Scripted(answer, batch_bytes=4 * one)) as exporter:
            for number in range(1, 200):
                offer(exporter, [number])
                await asyncio.sleep(0.005)
            await until(lambda: exporter.queue.empty)
            assert cancelled == 8
            assert counts(exporter) == (398, 0, {})

    run(scenario())
