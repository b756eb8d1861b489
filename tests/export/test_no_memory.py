"""A want of memory, wherever it comes: the batch is tried again after a pause, is counted once, and no task ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampler_proxy.export.exporter import Exporter
from sampler_proxy.export.fates import Fates
from sampler_proxy.export.parcel import Parcel
from sampler_proxy.export.queue import Queue
from sampler_proxy.export.recent import Recent
from sampler_proxy.export.reporter import Reporter
from sampler_proxy.export.retry import Accepted, Backoff, Failed, Fault
from sampler_proxy.export.split import Layout
from sampler_proxy.export.suspects import Suspects
from tests.export.support import Trace, counts, offer, offer_until_rejected, running, until
from tests.export.test_poison import MIB, Scripted

TOP = Path(__file__).parent.parent.parent
POISON, REFUSED, LARGE = Trace(40).trace_id, Trace(50).trace_id, Trace(60).trace_id

PLACES = [
    (Parcel, "of"),
    (Parcel, "assembled"),
    (Parcel, "divided"),
    (Parcel, "cut_to"),
    (Parcel, "_some"),
    (Layout, "__init__"),
    (Layout, "parts"),
    (Layout, "request"),
    (Scripted, "_send"),
    (Queue, "take"),
    (Queue, "wait_ns"),
    (Queue, "exported"),
    (Queue, "rejected"),
    (Queue, "part_settled"),
    (Queue, "_lose"),
    (Queue, "_fits"),
    (Fates, "exported"),
    (Fates, "rejected"),
    (Recent, "record"),
    (Recent, "record_retry"),
    (Recent, "passed_since"),
    (Reporter, "succeeded"),
    (Reporter, "failed"),
    (Reporter, "failed_alone"),
    (Reporter, "refused"),
    (Reporter, "complain"),
    (Backoff, "delay_ns"),
    (Exporter, "_try"),
    (Exporter, "_probed"),
    (Exporter, "_smaller"),
    (Exporter, "_next_suspect"),
    (Suspects, "accuses"),
    (Suspects, "add"),
    (Suspects, "take_due"),
    (Suspects, "next_step"),
    (Suspects, "overdue"),
    (Exporter, "_after_verdict"),
    (Exporter, "_note_refusal"),
]


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=lambda value: getattr(value, "__name__", value))
def test_a_want_of_memory_costs_time_and_nothing_else(run, monkeypatch, owner, name):
    """One trace is refused, another never answered, and no more than 100 kB taken at once: the same counts come out
    with memory and without. Each place fails before it does anything, then a few times after it has begun anew."""
    calls = 0
    genuine = getattr(owner, name)
    passed: list[bytes] = []

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls in (1, 2, 3, 5, 8, 13, 21):
            return bytearray(1 << 62)  # a real MemoryError
        return genuine(*args, **kwargs)

    def answer(request):
        if POISON in request:
            return Failed(Fault.OVERLOAD, "UNAVAILABLE", "no")
        if len(request) > 100_000:
            return Failed(Fault.SIZE, "RESOURCE_EXHAUSTED", "no", limit_bytes=100_000)
        if REFUSED in request:
            return Failed(Fault.BYTES, "INVALID_ARGUMENT", "no")
        passed.append(request)
        return Accepted()

    async def scenario():
        exporter = Scripted(answer, batch_bytes=MIB, give_up_ms=300, max_ms=20)
        monkeypatch.setattr(owner, name, failing)
        async with running(exporter):
            number = 100
            offer_ignoring(exporter, [1, 2, 3, 40, 50])
            offer_ignoring(exporter, [60], spans=400, padding=1000)

            def done():
                nonlocal number
                number += 1
                offer_ignoring(exporter, [number])  # others, which pass
                return exporter.queue.counters().rejected_spans >= 4 and calls

            await until(done, 20)
            await until(lambda: exporter.queue.empty, 20)
            others = 2 * (number - 100)
            assert counts(exporter) == (6 + 400 + others, 4, {})
            assert not any(task.done() for task in exporter._lasting.tasks)

    def offer_ignoring(exporter, numbers, **kwargs):
        for number in numbers:
            while True:
                try:
                    offer(exporter, [number], **kwargs)
                    break
                except MemoryError:
                    pass

    run(scenario())
    whole = b"".join(passed)
    assert all(Trace(number).data in whole for number in (1, 2, 3))


@pytest.mark.parametrize(
    "error", [MemoryError, ValueError, asyncio.CancelledError, RuntimeError("can't start new thread")]
)
def test_an_error_in_an_exporter_s_task_is_not_its_end(run, monkeypatch, caplog, error):
    genuine = Exporter._batch_ready
    left = 3

    async def failing(self):
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        await genuine(self)

    async def scenario():
        monkeypatch.setattr(Exporter, "_batch_ready", failing)
        async with running(Scripted(lambda _request: Accepted(), concurrency=1)) as exporter:
            offer(exporter, range(1, 11))
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (20, 0, {})

    run(scenario())
    foreseen = error is MemoryError or isinstance(error, RuntimeError)
    assert ("out of memory" if foreseen else f"internal error: {error.__name__}; going on") in caplog.text


def test_the_neighbours_of_poison_meet_a_want_of_memory_at_their_first_try(run):
    """They have not failed by themselves then: nothing may count on it."""
    tried: set[bytes] = set()

    def answer(request):
        if POISON in request:
            return Failed(Fault.OVERLOAD, "UNAVAILABLE", "no")
        if len(request) > Trace(1).nbytes and request not in tried:
            tried.add(request)
            raise MemoryError
        return Accepted()

    async def scenario():
        settings = {"batch_bytes": 256 * Trace(1).nbytes, "give_up_ms": 1000, "initial_ms": 200, "max_ms": 200}
        async with running(Scripted(answer, **settings)) as exporter:
            offer(exporter, range(1, 257))
            number = await offer_until_rejected(exporter, 1000)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (2 * (255 + number - 1000), 2, {})
            assert len(tried) > 10

    run(scenario())


def test_an_error_after_a_trace_is_settled_does_not_settle_it_again(run, monkeypatch):
    def failing(*_args, **_kwargs):
        raise ValueError

    async def scenario():
        monkeypatch.setattr(Fates, "exported", failing)
        async with running(Scripted(lambda _request: Accepted())) as exporter:
            offer(exporter, range(1, 11))
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (20, 0, {})

    run(scenario())


PROGRAM = r"""
import asyncio, resource, sys
from sampler_proxy.export.retry import Accepted
from tests.export.support import Trace, counts, offer, until
from tests.export.test_poison import Scripted

HARD = resource.getrlimit(resource.RLIMIT_AS)[1]

def limit(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, HARD))

async def main():
    exporter = Scripted(lambda request: Accepted(), batch_bytes=1 << 26)
    exporter._assemble = lambda traces: b"".join([b"", *(trace.data for trace in traces)])  # copies, as ours does
    exporter._limit_bytes = exporter._default_limit_bytes = 1 << 22
    await asyncio.to_thread(int)
    one = Trace(1, spans=64, padding=500_000)
    limit(16 << 20)
    exporter.start()
    exporter.queue.offer(one)
    await until(lambda: exporter.failed_tries >= 3)
    assert counts(exporter) == (0, 0, {}), counts(exporter)
    resource.setrlimit(resource.RLIMIT_AS, (HARD, HARD))
    await until(lambda: exporter.queue.empty)
    assert counts(exporter) == (64, 0, {}), counts(exporter)
    assert exporter.report.failures == {"out_of_memory": exporter.failed_tries}
    assert exporter.report.up
    await exporter.stop()

asyncio.run(main())
"""


def test_a_large_trace_waits_for_memory():
    """In a process of its own, whose memory is limited: 32 MB cannot be assembled, and are sent when they can."""
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this process is out of memory: lower buffer.max_bytes, or allow it more memory" in done.stderr
