"""The exporter against real gRPC servers. After each test the ledger must balance and agree with what they saw."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import random
import socket
import subprocess
import threading
import time
import weakref
from contextlib import asynccontextmanager

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sampler_proxy.config.model import Batch, GrpcExport, Queue, Retry, Tls
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import HOPELESS, Dependencies
from sampler_proxy.export.otlp import OtlpExporter
from sampler_proxy.export.queue import BATCH_TRACES
from sampler_proxy.export.retry import Backoff
from sampler_proxy.export.transport import address_of
from tests.export.support import (
    Trace,
    assemble,
    counts,
    in_seconds,
    numbers,
    offer,
    retry_info,
    running,
    status_details,
    until,
)

MS = 10**6
CODES = grpc.StatusCode
SECRET = "4111-1111-1111-1111"


def config(port, *, batch_bytes=1 << 20, wait_ms=5, queue_bytes=64 << 20, initial_ms=20, max_ms=100, **settings):
    return GrpcExport(
        name="tempo",
        endpoint=f"http://localhost:{port}",
        batch=Batch(max_bytes=batch_bytes, max_wait_ns=wait_ms * MS),
        queue=Queue(max_bytes=queue_bytes),
        retry=Retry(initial_ns=initial_ms * MS, max_ns=max_ms * MS),
        **settings,
    )


@asynccontextmanager
async def exporting(settings, *, assemble=assemble, observe=lambda _seconds: None):
    dependencies = Dependencies(assemble, time.monotonic_ns, random.Random(1).random, observe)
    exporter = OtlpExporter(settings, dependencies)
    async with running(exporter):
        yield exporter


def test_success(run, backend):
    server = backend()
    latencies = []

    async def scenario():
        headers = {"Authorization": "Bearer x", "X-Scope-OrgID": "7", "x-empty": ""}
        async with exporting(config(server.port, headers=headers), observe=latencies.append) as exporter:
            offer(exporter, range(1, 101), spans=3)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (300, 0, {})
            assert exporter.failed_tries == 0

    run(scenario())
    assert server.stored == dict.fromkeys(range(1, 101), 3)
    assert len(latencies) == len(server.seen)
    assert all(0 < seconds < 10 for seconds in latencies)
    for request in server.seen:
        assert request.metadata["authorization"] == "Bearer x"
        assert request.metadata["x-scope-orgid"] == "7"
        assert request.metadata["x-empty"] == ""
        assert request.metadata["user-agent"].startswith("sampler-proxy/")


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_compression_is_seen_on_the_wire(run, compression):
    """The bytes themselves, caught by a listener that only accepts."""
    payload = assemble([Trace(1, padding=5000)])

    async def scenario():
        caught = bytearray()

        async def accept(reader, writer):
            writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # SETTINGS
            while data := await reader.read(65536):
                caught.extend(data)
            writer.close()

        server = await asyncio.start_server(accept, "localhost", 0)
        port = server.sockets[0].getsockname()[1]
        async with exporting(config(port, compression=compression)) as exporter:
            offer(exporter, [1], padding=5000)
            message = gzip.compress(payload)[:2] if compression == "gzip" else payload[:5000]
            await until(lambda: message in caught)
            assert (b"x" * 1000 in caught) is (compression == "none")
        server.close()
        await server.wait_closed()

    run(scenario())


def test_batches_are_filled_in_a_steady_flow(run, backend):
    server = backend()

    async def scenario():
        one = Trace(0).nbytes
        async with exporting(config(server.port, batch_bytes=one * 50, wait_ms=30_000, concurrency=2)) as exporter:
            thread = threading.Thread(target=offer, args=(exporter, range(1, 1001)))  # as the gRPC thread does
            thread.start()
            await until(lambda: len(server.seen) == 20)
            thread.join()
            assert exporter.queue.empty or await exporter.drain(in_seconds(5))
            assert counts(exporter) == (2000, 0, {})

    run(scenario())
    assert {len(request.traces) for request in server.seen} == {50}


def test_a_small_batch_waits_no_longer_than_it_must(run, backend):
    server = backend()

    async def scenario():
        async with exporting(config(server.port, wait_ms=200)) as exporter:
            offer(exporter, [1])
            await until(lambda: server.seen)  # connected
            start = time.monotonic()
            offer(exporter, [2])
            await asyncio.sleep(0.1)
            offer(exporter, [3])
            await until(lambda: len(server.seen) == 2)
            assert server.seen[1].traces == [2, 3]
            assert 0.19 < server.seen[1].at - start < 2

    run(scenario())


def test_concurrency_is_used_and_kept(run, backend):
    release = threading.Event()
    server = backend(lambda *_: release.wait(20) and None)

    async def scenario():
        async with exporting(config(server.port, batch_bytes=1, concurrency=3)) as exporter:
            offer(exporter, range(1, 11))
            await until(lambda: len(server.seen) == 3)
            await asyncio.sleep(0.1)
            assert len(server.seen) == 3
            assert exporter.queue.counters().queued_spans == 20
            release.set()
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (20, 0, {})

    try:
        run(scenario())
    finally:
        release.set()


def test_settled_traces_are_let_go(run, backend):
    server = backend()

    async def scenario():
        async with exporting(config(server.port)) as exporter:
            trace = Trace(1)
            alive = weakref.ref(trace)
            exporter.queue.offer(trace)
            del trace
            await until(lambda: exporter.queue.empty and not exporter._under_way)
            gc.collect()
            assert alive() is None

    run(scenario())


def test_the_settled_part_of_a_batch_is_let_go_while_the_rest_is_tried_again(run, backend):
    def answer(request, context):
        if len(numbers(request)) > 1:
            context.abort(CODES.INVALID_ARGUMENT, "")
        if numbers(request) == [2]:
            context.abort(CODES.UNAVAILABLE, "")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            trace = Trace(1)
            alive = weakref.ref(trace)
            exporter.queue.offer(trace)
            del trace
            offer(exporter, [2])
            await until(lambda: exporter.failed_tries)
            gc.collect()
            assert counts(exporter) == (2, 0, {})
            assert alive() is None

    run(scenario())


def unused_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def test_down_at_start_and_up_later(run, backend, caplog):
    caplog.set_level(logging.INFO, "sampler_proxy")
    port = unused_port()

    async def scenario():
        async with exporting(config(port, batch_bytes=1, max_ms=30_000)) as exporter:
            offer(exporter, range(1, 21))
            await until(lambda: exporter.failed_tries >= 8)
            server = backend(port=port)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (40, 0, {})
            return server

    server = run(scenario())
    assert server.stored == dict.fromkeys(range(1, 21), 2)
    messages = [r.getMessage() for r in caplog.records]
    assert sum("UNAVAILABLE; trying again" in m for m in messages) == 1  # once, though it failed often
    assert sum("works again" in m for m in messages) == 1


def test_one_success_ends_the_pauses_of_all(run, backend):
    refused = set()

    def answer(request, context):
        if numbers(request) == [1] and not refused:
            refused.add(1)
            context.abort(CODES.UNAVAILABLE, "")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, initial_ms=300_000, max_ms=300_000)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries)
            offer(exporter, [2])
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (4, 0, {})

    run(scenario())
    assert [request.traces for request in server.seen] == [[1], [2], [1]]


def test_killed_midway_and_restarted(run, backend):
    """What was in flight is sent again; nothing is lost or counted twice."""
    hold = threading.Event()
    reached = threading.Event()

    def answer(_request, context):
        if not hold.is_set():
            reached.set()
            hold.wait(20)
            context.abort(CODES.CANCELLED, "the server is gone")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, batch_bytes=Trace(0).nbytes * 10)) as exporter:
            offer(exporter, range(1, 101))
            await until(reached.is_set)
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            await until(lambda: exporter.failed_tries >= 4)
            hold.set()
            await stopping
            offer(exporter, range(101, 201))
            again = backend(port=server.port)
            assert await exporter.drain(in_seconds(20))
            assert counts(exporter) == (400, 0, {})
            return again

    try:
        again = run(scenario())
    finally:
        hold.set()
    assert again.stored == dict.fromkeys(range(1, 201), 2)


@pytest.mark.parametrize(
    ("code", "trailer"),
    [
        (CODES.UNAVAILABLE, ("grpc-status-details-bin", status_details(retry_info(0.5)))),
        (CODES.RESOURCE_EXHAUSTED, ("google.rpc.retryinfo-bin", retry_info(0.5).SerializeToString())),
    ],
)
def test_throttling_silences_the_whole_destination(run, backend, code, trailer):
    refused_at = []

    def answer(_request, context):
        if not refused_at:
            refused_at.append(time.monotonic())
            context.set_trailing_metadata((trailer,))
            context.abort(code, "slow down")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, batch_bytes=1, initial_ms=1, max_ms=1)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries)
            offer(exporter, range(2, 11))  # these never met the refusal themselves
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (20, 0, {})
            assert exporter.failed_tries == 1

    run(scenario())
    gaps = [request.at - refused_at[0] for request in server.seen[1:]]
    assert min(gaps) > 0.48
    assert max(gaps) < 5
    assert server.stored == dict.fromkeys(range(1, 11), 2)


@pytest.mark.parametrize(
    "code", [CODES.CANCELLED, CODES.DEADLINE_EXCEEDED, CODES.ABORTED, CODES.OUT_OF_RANGE, CODES.DATA_LOSS]
)
def test_retryable_statuses(run, backend, code):
    left = [3]

    def answer(_request, context):
        if left[0]:
            left[0] -= 1
            context.abort(code, SECRET)

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, concurrency=1)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (2, 0, {})
            assert exporter.failed_tries == 3

    run(scenario())
    assert len(server.seen) == 4


def test_a_request_that_takes_too_long_is_sent_again(run, backend):
    release = threading.Event()
    first = [True]

    def answer(_request, _context):
        if first:
            first.clear()
            release.wait(20)

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, timeout_ns=200 * MS)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (2, 0, {})
            assert exporter.failed_tries == 1

    try:
        run(scenario())
    finally:
        release.set()
    assert server.seen[1].at - server.seen[0].at > 0.15


@pytest.mark.parametrize("code", [CODES.INVALID_ARGUMENT, CODES.INTERNAL, CODES.UNKNOWN])
@pytest.mark.parametrize("poison", [1, 37, 64])
def test_one_offending_trace_in_64_is_rejected_alone(run, backend, caplog, code, poison):
    def answer(request, context):
        if poison in numbers(request):
            context.abort(code, SECRET)

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, 65))
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (63 * 2, 2, {})

    run(scenario())
    assert server.stored == dict.fromkeys(set(range(1, 65)) - {poison}, 2)
    assert len(server.seen) == 13  # the batch, and two halves on each of six levels
    assert f"2 spans rejected: {code.name}, it answers with an error (trace {poison:032x})" in caplog.text
    assert SECRET not in caplog.text


def test_several_offending_traces(run, backend):
    poison = {3, 4, 5, 77, 200}

    def answer(request, context):
        if poison & set(numbers(request)):
            context.abort(CODES.INVALID_ARGUMENT, "")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, 257), spans=1)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (251, 5, {})

    run(scenario())
    assert set(server.stored) == set(range(1, 257)) - poison
    assert len(server.seen) <= 1 + 2 * 8 * len(poison)


def test_a_back_end_that_refuses_everything_is_not_asked_about_every_trace(run, backend):
    server = backend(lambda _, context: context.abort(CODES.INVALID_ARGUMENT, "no tenant"))

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, BATCH_TRACES + 1), spans=1)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (0, BATCH_TRACES, {})

    run(scenario())
    assert len(server.seen) < 3 * HOPELESS


def test_a_cluster_of_offending_traces_costs_its_neighbours_nothing(run, backend):
    """More of them in a row than HOPELESS: the search samples the whole batch, so it meets welcome ones in time."""
    poison = set(range(1, 4 * HOPELESS))

    def answer(request, context):
        if poison & set(numbers(request)):
            context.abort(CODES.INVALID_ARGUMENT, "")

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, 8 * HOPELESS + 1), spans=1)
            assert await exporter.drain(in_seconds(20))
            assert counts(exporter) == (8 * HOPELESS - len(poison), len(poison), {})

    run(scenario())
    assert set(server.stored) == set(range(4 * HOPELESS, 8 * HOPELESS + 1))


def test_a_batch_above_the_limit_of_the_back_end_is_split(run, backend):
    """A real limit: RESOURCE_EXHAUSTED by gRPC itself, without RetryInfo. One trace is too large even alone, the spans
    of another one are."""
    server = backend(max_receive_bytes=20_000)

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, 31), padding=1000)
            offer(exporter, [98], padding=11_000)
            offer(exporter, [99], padding=21_000)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (62, 2, {})

    run(scenario())
    assert server.stored == dict.fromkeys([*range(1, 31), 98], 2)


def test_no_limit_on_this_side(run, backend):
    server = backend()

    async def scenario():
        async with exporting(config(server.port)) as exporter:
            offer(exporter, [1], spans=1, padding=6 << 20)  # gRPC's default limit is 4 MiB
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (1, 0, {})

    run(scenario())
    assert server.seen[0].nbytes > 6 << 20


@pytest.mark.parametrize(
    "code",
    [
        CODES.UNIMPLEMENTED,
        CODES.NOT_FOUND,
        CODES.FAILED_PRECONDITION,
    ],
)
def test_what_is_not_about_the_bytes_is_not_split(run, backend, caplog, code):
    server = backend(lambda _, context: context.abort(code, SECRET))

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, 65))
            await until(lambda: exporter.queue.empty)
            offer(exporter, range(65, 129))
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (0, 256, {})

    run(scenario())
    assert len(server.seen) == 2
    assert caplog.text.count(f"128 spans rejected: {code.name}, it answers") == 2  # the second at the stop
    assert SECRET not in caplog.text


REFUSALS = [
    CODES.UNIMPLEMENTED,
    CODES.NOT_FOUND,
    CODES.FAILED_PRECONDITION,
    CODES.ALREADY_EXISTS,
    CODES.INVALID_ARGUMENT,
    CODES.INTERNAL,
    CODES.UNKNOWN,
    CODES.PERMISSION_DENIED,
    CODES.UNAUTHENTICATED,
    CODES.UNAVAILABLE,
    CODES.RESOURCE_EXHAUSTED,
    None,  # OK, and a partial success that rejects all there is
]


@pytest.mark.parametrize("code", REFUSALS)
def test_a_destination_that_takes_nothing_is_not_up(run, backend, caplog, code):
    """Whatever it says, and whether that is for good. One request that passes is enough to be up again."""
    caplog.set_level(logging.INFO, "sampler_proxy")
    works = True

    def answer(request, context):
        if works:
            return None
        if code is not None:
            context.abort(code, SECRET)
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = sum(1 for _ in numbers(request)) * 2
        return response

    server = backend(answer)

    async def scenario():
        nonlocal works
        async with exporting(config(server.port, wait_ms=20)) as exporter:
            assert exporter.report.up
            offer(exporter, range(1, 4))
            await until(lambda: exporter.queue.empty)
            assert exporter.report.up
            for round_ in range(1, 4):
                works = False
                offer(exporter, range(10 * round_, 10 * round_ + 5))
                await until(lambda: not exporter.report.up)
                works = True
                offer(exporter, range(10 * round_ + 5, 10 * round_ + 8))
                await until(lambda: exporter.report.up and exporter.queue.empty)

    run(scenario())
    assert sum("works again" in record.getMessage() for record in caplog.records) == 3
    assert SECRET not in caplog.text


@pytest.mark.parametrize("code", [CODES.INVALID_ARGUMENT, CODES.UNIMPLEMENTED, CODES.UNAVAILABLE])
def test_a_destination_that_refuses_a_few_while_others_pass_is_up(run, backend, code):
    def answer(request, context):
        if 77 in numbers(request):
            context.abort(code, "")

    server = backend(answer)

    async def scenario():
        one = Trace(0).nbytes
        async with exporting(config(server.port, batch_bytes=8 * one)) as exporter:
            number, downs, was_up = 1000, 0, True
            offer(exporter, [*range(1, 8), 77])
            while number < 1200:
                number += 8
                offer(exporter, range(number, number + 8))
                await asyncio.sleep(0.01)
                downs += was_up and not exporter.report.up
                was_up = exporter.report.up
            await until(lambda: exporter.queue.counters().queued_spans <= 16)
            assert exporter.report.up
            assert downs <= 1

    run(scenario())


@pytest.mark.parametrize(("claimed", "rejected"), [(0, 0), (5, 5), (1000, 20), (-1, 0)])
def test_partial_success(run, backend, caplog, claimed, rejected):
    def answer(_request, _context):
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = claimed
        response.partial_success.error_message = f"card {SECRET} refused"
        return response

    server = backend(answer)

    async def scenario():
        async with exporting(config(server.port, wait_ms=50)) as exporter:
            offer(exporter, range(1, 11))
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (20 - rejected, rejected, {})

    run(scenario())
    assert len(server.seen) == 1  # never sent again
    assert SECRET not in caplog.text


def test_an_answer_that_is_no_message_is_a_success(run):
    async def scenario():
        handler = grpc.unary_unary_rpc_method_handler(lambda *_: b"\xff\xff\xff")
        sink = grpc.aio.server()
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        sink.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        port = sink.add_insecure_port("localhost:0")
        await sink.start()
        async with exporting(config(port)) as exporter:
            offer(exporter, [1])
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (2, 0, {})
        await sink.stop(None)

    run(scenario())


def test_stop_with_a_dead_back_end(run, caplog):
    async def scenario():
        async with exporting(config(unused_port(), batch_bytes=1)) as exporter:
            offer(exporter, range(1, 101))
            await until(lambda: exporter.failed_tries)
            start = time.monotonic()
            assert not await exporter.drain(in_seconds(0.3))
            assert await exporter.stop() == 200
            assert 0.25 < time.monotonic() - start < 3
            assert counts(exporter) == (0, 0, {"shutdown": 200})
            assert exporter.queue.offer(Trace(101))  # what comes too late is accounted for as well
            assert counts(exporter) == (0, 0, {"shutdown": 202})

    run(scenario())
    assert "200 spans lost at shutdown" in caplog.text


def test_stop_with_a_back_end_that_never_answers(run):
    """It accepts connections and says nothing at all."""

    async def scenario():
        with socket.create_server(("localhost", 0)) as mute:
            async with exporting(config(mute.getsockname()[1], batch_bytes=1)) as exporter:
                offer(exporter, range(1, 11))
                await asyncio.sleep(0.1)
                start = time.monotonic()
                assert not await exporter.drain(in_seconds(0.2))
                assert await exporter.stop() == 20
                assert time.monotonic() - start < 3

    run(scenario())


def test_drain_does_not_sit_out_a_long_backoff(run, backend):
    port = unused_port()

    async def scenario():
        async with exporting(config(port, initial_ms=300_000, max_ms=300_000)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries == 1)
            server = backend(port=port)
            await asyncio.sleep(0.3)  # gRPC's own pause before it connects again
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (2, 0, {})
            return server

    assert run(scenario()).stored == {1: 2}


def test_the_drain_keeps_the_backoff(run, backend):
    """Called again and again, as the service does, it ends the pauses of four batches once, and not at every call."""
    server = backend(lambda _, context: context.abort(CODES.UNAVAILABLE, "not yet"))

    async def scenario():
        async with exporting(config(server.port, batch_bytes=1, initial_ms=400, max_ms=60_000)) as exporter:
            exporter._backoff = Backoff(400 * MS, 60_000 * MS, lambda: 0.999)
            offer(exporter, range(1, 5))
            await until(lambda: exporter.failed_tries == 4)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                assert not await exporter.drain(in_seconds(0.05))
            # The first pause was cut short; then they were 0.8 s and 1.6 s long.
            assert 4 + 4 <= exporter.failed_tries <= 4 + 2 * 4

    run(scenario())


def test_drain_sends_what_is_offered_meanwhile(run, backend):
    """The pipeline holds what the queue refuses, and offers it again when it is told about room."""
    server = backend()

    async def scenario():
        one = Trace(0).nbytes
        settings = config(server.port, batch_bytes=one * 10, queue_bytes=one * 10, wait_ms=60_000)
        async with exporting(settings) as exporter:
            held = [Trace(number) for number in range(1, 501)]

            def more():
                while held and exporter.queue.offer(held[0]):
                    del held[0]

            exporter.queue.on_room = more
            more()
            assert held
            assert await exporter.drain(in_seconds(10))
            assert not held
            assert counts(exporter) == (1000, 0, {})

    run(scenario())
    assert server.stored == dict.fromkeys(range(1, 501), 2)


def test_a_fault_in_assembling_costs_one_batch_and_shows_no_values(run, backend, caplog):
    server = backend()

    def faulty(traces):
        if any(trace.trace_id == bytes(15) + b"\x01" for trace in traces):
            raise ValueError(SECRET)
        return assemble(traces)

    async def scenario():
        async with exporting(config(server.port, batch_bytes=1), assemble=faulty) as exporter:
            offer(exporter, [1, 2, 3])
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (4, 0, {"internal": 2})

    run(scenario())
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text


def test_nothing_runs_while_nothing_happens(run, backend):
    server = backend()

    async def scenario():
        asked = []
        async with exporting(config(server.port)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty and not exporter._under_way)
            wait_ns = exporter.queue.wait_ns
            exporter.queue.wait_ns = lambda now_ns: (asked.append(now_ns), wait_ns(now_ns))[1]
            await asyncio.sleep(0.3)
            assert asked == []
            offer(exporter, range(2, 100))
            await until(lambda: len(server.seen) == 2)
            assert len(asked) <= 4

    run(scenario())


@pytest.fixture
def authority(tmp_path):
    """A self-signed certificate for localhost."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_trusts_whom_the_system_trusts(run, backend, monkeypatch, authority, trusted):
    key, certificate = authority
    server = backend(credentials=grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())]))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def scenario():
        settings = config(server.port).model_copy(update={"endpoint": f"https://localhost:{server.port}"})
        async with exporting(settings) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty if trusted else exporter.failed_tries >= 2)
            assert counts(exporter) == (2 * trusted, 0, {})

    run(scenario())
    assert server.stored == ({1: 2} if trusted else {})


def test_tls_trusts_an_authority_of_one_s_own(run, backend, monkeypatch, tmp_path, authority, caplog):
    """Its certificate is in no list of the system. The file changes to a stranger's, to nonsense, and back: a new
    connection goes by the last one that could be used."""
    caplog.set_level(logging.INFO, "sampler_proxy")
    monkeypatch.setattr("sampler_proxy.export.transport.FILES_EVERY_S", 0.02)
    key, certificate = authority
    server = backend(credentials=grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())]))
    stranger, ca_file = tmp_path / "stranger.pem", tmp_path / "ca.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=stranger"
    subprocess.run([*command.split(), "-keyout", tmp_path / "k", "-out", stranger], check=True, capture_output=True)
    ca_file.write_bytes(certificate.read_bytes())

    def log():
        return [record.getMessage() for record in caplog.records]

    async def scenario():
        endpoint = {"endpoint": f"https://localhost:{server.port}", "tls": Tls(ca_file=str(ca_file))}
        async with exporting(config(server.port).model_copy(update=endpoint)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            ca_file.write_bytes(stranger.read_bytes())
            await until(lambda: sum("certificates read again" in line for line in log()) == 1)
            offer(exporter, [2])
            await until(lambda: exporter.failed_tries >= 2)
            assert exporter.report.last_error.endswith("its certificate is not trusted, UNAVAILABLE")
            ca_file.write_text("nonsense")
            await until(lambda: any("tls.ca_file stays as it was" in line for line in log()))
            assert counts(exporter) == (2, 0, {})
            ca_file.write_bytes(stranger.read_bytes() + certificate.read_bytes())
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (4, 0, {})

    run(scenario())
    assert server.stored == {1: 2, 2: 2}


def test_tls_with_a_file_that_went_bad_is_refused_at_start(run, tmp_path):
    (tmp_path / "ca.pem").write_text("nonsense")

    async def scenario():
        tls = Tls(ca_file=str(tmp_path / "ca.pem"))
        settings = config(1).model_copy(update={"endpoint": "https://localhost:1", "tls": tls})
        with pytest.raises(StartError, match=r"export tempo: tls\.ca_file .*ca\.pem: holds no certificates"):
            async with exporting(settings):
                pass

    run(scenario())


def test_tls_without_readable_roots_is_refused_at_start(run, monkeypatch, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.mkdir()
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: type("Paths", (), {"cafile": str(bundle)}))

    async def scenario():
        settings = config(1).model_copy(update={"endpoint": "https://localhost:1"})
        with pytest.raises(StartError, match=r"export tempo: cannot read .*bundle\.pem: Is a directory"):
            async with exporting(settings):
                pass

    run(scenario())


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://localhost:14317", ("localhost", 14317, False)),
        ("https://tempo.example", ("tempo.example", 4317, True)),
        ("http://[::1]:5", ("::1", 5, False)),
        ("http://127.0.0.1:80/", ("127.0.0.1", 80, False)),
    ],
)
def test_address(endpoint, address):
    assert address_of(endpoint, (4317, 4317)) == address
