"""Passing on to real gRPC back ends: what is tried again, divided, rejected, discarded, and what each costs others."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from sampler_proxy import metrics
from sampler_proxy.config.model import Batch, GrpcExport, Retry
from sampler_proxy.export import passing
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.otlp_grpc import GrpcTransport
from sampler_proxy.export.pass_queue import PassBatch
from sampler_proxy.export.passing import PassThrough
from sampler_proxy.otlp.joining import joinable
from sampler_proxy.otlp.signals import Signal
from tests.export.support import assemble, retry_info, status_details, until
from tests.export.test_pass_queue import unbalanced

LOGS, METRICS = Signal.LOGS, Signal.METRICS
MS = 10**6
ways = {}  # of the one that runs


def logs(body: str) -> bytes:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = body
    return request.SerializeToString()


def bodies(request: bytes) -> list[str]:
    read = ExportLogsServiceRequest.FromString(request)
    return [each.scope_logs[0].log_records[0].body.string_value for each in read.resource_logs]


Answer = Callable[[list[str], grpc.ServicerContext], ExportLogsServiceResponse | None]


class LogsBackend:
    """Knows logs alone. `seen`: the bodies of every request; `stored`: of those it answered with OK."""

    def __init__(self, answer: Answer = lambda _bodies, _context: None, port: int = 0) -> None:
        self.seen: list[list[str]] = []
        self.times: list[float] = []
        self.stored: list[str] = []
        self.answer = answer
        self.lock = threading.Lock()
        self.server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        method = grpc.unary_unary_rpc_method_handler(self.export)
        service, _, name = LOGS.method[1:].partition("/")
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        read = bodies(request)
        with self.lock:
            self.seen.append(read)
            self.times.append(time.monotonic())
        response = self.answer(read, context)
        with self.lock:
            self.stored += read
        return (response or ExportLogsServiceResponse()).SerializeToString()


@pytest.fixture
def logs_backend():
    made: list[LogsBackend] = []

    def make(*args, **settings) -> LogsBackend:
        made.append(LogsBackend(*args, **settings))
        return made[-1]

    yield make
    for each in made:
        each.server.stop(None).wait(10)


@asynccontextmanager
async def passing_to(*ports: int, **settings) -> AsyncIterator[PassThrough]:
    retry = settings.pop("retry", Retry(initial_ns=20 * MS, max_ns=100 * MS, give_up_ns=500 * MS))
    batch = settings.pop("batch", Batch(max_wait_ns=20 * MS))
    dependencies = Dependencies(assemble, time.monotonic_ns, random.random, lambda _seconds: None, {})
    configs = [
        GrpcExport(name=f"d{n}", endpoint=f"http://127.0.0.1:{port}", retry=retry, batch=batch, **settings)
        for n, port in enumerate(ports)
    ]
    transports = [GrpcTransport(config, dependencies) for config in configs]
    made = PassThrough(zip(configs, transports, strict=True), lambda: 256 << 20, time.monotonic_ns, random.random)
    for transport in transports:
        transport.start()
    made.start()
    ways.update({signal: made.way(signal, "grpc") for signal in made.signals})
    try:
        yield made
    finally:
        await made.stop()
        for transport in transports:
            await transport.close()
        unbalanced(made.queues)


def take(_: PassThrough, *texts: str, signal: Signal = LOGS) -> None:
    for text in texts:
        request = logs(text)
        ways[signal].take(request, joinable(request))


def count(made: PassThrough, metric: metrics.Metric, *labels: str) -> float:
    return sum(value for key, value in made.values()[metric].items() if key[: len(labels)] == labels)


def exported(made: PassThrough, name: str = "d0") -> float:
    return count(made, metrics.PASSTHROUGH_REQUESTS_EXPORTED, name, "logs")


def rejected(made: PassThrough) -> float:
    return count(made, metrics.PASSTHROUGH_REQUESTS_REJECTED, "d0", "logs")


def test_requests_of_a_short_time_are_one_request(run, logs_backend):
    backend = logs_backend()

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *map(str, range(50)))
            await until(lambda: exported(made) == 50)

    run(scenario())
    assert backend.stored == [str(n) for n in range(50)]
    assert len(backend.seen) < 5


@pytest.mark.parametrize(("batch", "expected"), [(Batch(), 3 << 20), (Batch(max_bytes=1 << 20), 1 << 20)])
def test_a_batch_is_as_large_as_it_is_configured(run, logs_backend, batch, expected):
    backend = logs_backend()

    async def scenario():
        async with passing_to(backend.port, batch=batch) as made:
            assert {each.batch_bytes for each in made.queues.destinations[0].of.values()} == {expected}

    run(scenario())


def test_every_destination_gets_everything_at_its_own_pace(run, logs_backend):
    good, late = logs_backend(), logs_backend(lambda _bodies, context: context.abort(grpc.StatusCode.UNAVAILABLE, ""))

    async def scenario():
        async with passing_to(good.port, late.port) as made:
            take(made, *"abc")
            await until(lambda: exported(made) == 3)
            await until(lambda: count(made, metrics.PASSTHROUGH_FAILURES, "d1", "logs", "UNAVAILABLE") >= 2)
            assert exported(made, "d1") == 0
            late.answer = lambda _bodies, _context: None
            await until(lambda: exported(made, "d1") == 3)

    run(scenario())
    assert good.stored == late.stored == ["a", "b", "c"]


def test_a_destination_that_is_down_gets_it_when_it_is_back(run, logs_backend):
    first = logs_backend()
    port = first.port
    first.server.stop(None).wait(10)

    async def scenario():
        async with passing_to(port) as made:
            take(made, *"abc")
            await until(lambda: count(made, metrics.PASSTHROUGH_FAILURES) >= 2)
            take(made, "d")
            second = logs_backend(port=port)
            await until(lambda: exported(made) == 4, 20)
            return second

    assert sorted(run(scenario()).stored) == ["a", "b", "c", "d"]


def test_silence_that_a_back_end_asks_for_is_kept(run, logs_backend):
    def answer(_bodies, context):
        if len(backend.seen) == 1:
            context.set_trailing_metadata((("grpc-status-details-bin", status_details(retry_info(0.5))),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "")

    backend = logs_backend(answer)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, "a")
            await until(lambda: backend.seen)
            take(made, "b")
            await until(lambda: exported(made) == 2)

    run(scenario())
    assert backend.times[1] - backend.times[0] >= 0.49


def test_an_unknown_signal_is_discarded_with_one_line_and_asked_for_again(run, logs_backend, caplog, monkeypatch):
    monkeypatch.setattr(passing, "ASK_AGAIN_NS", 300 * MS)
    caplog.set_level(logging.INFO)
    backend = logs_backend()
    knows = threading.Event()

    def metrics_too(_bodies, context):
        if not knows.is_set():
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service")

    backend.answer = metrics_too

    async def scenario():
        async with passing_to(backend.port) as made:
            caplog.clear()
            unwanted = lambda: count(made, metrics.PASSTHROUGH_REQUESTS_UNWANTED, "d0", "logs")  # noqa: E731
            take(made, *"abc")
            await until(lambda: unwanted() == 3)
            asked = len(backend.seen)
            take(made, *"defg")
            assert unwanted() == 7  # at once, without a try
            assert len(backend.seen) == asked
            await asyncio.sleep(0.35)
            take(made, "h")
            await until(lambda: len(backend.seen) > asked)  # asked again, in vain
            await until(lambda: unwanted() == 8)
            knows.set()
            await asyncio.sleep(0.35)
            take(made, "i")
            await until(lambda: exported(made) == 1)
            take(made, "j")
            await until(lambda: exported(made) == 2)

    run(scenario())
    assert backend.stored == ["i", "j"]
    lines = [record.getMessage() for record in caplog.records if "know" in record.getMessage()]
    assert [line.partition(" (U")[0] for line in lines] == [
        "export d0 (logs): it does not know them",
        "export d0 (logs): it knows them now",
    ]


def test_a_signal_that_was_known_is_not_given_up_for_one_answer(run, logs_backend):
    """A middleman says so while a back end is exchanged, and a back end may to one sender only."""
    backend = logs_backend()
    gone = threading.Event()

    def answer(_bodies, context):
        if gone.is_set():
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such service")

    backend.answer = answer

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, "a")
            await until(lambda: exported(made) == 1)
            gone.set()
            take(made, "b")
            await until(lambda: len(backend.seen) >= 3)
            gone.clear()
            take(made, "c")
            await until(lambda: exported(made) == 3)
            gone.set()
            take(made, "d")  # for good
            await until(lambda: count(made, metrics.PASSTHROUGH_REQUESTS_UNWANTED, "d0", "logs") == 1)

    run(scenario())
    assert sorted(backend.stored) == ["a", "b", "c"]


def test_silence_for_one_sender_is_none_for_others(run, logs_backend):
    backend = logs_backend()

    def answer(read, context):
        if read == ["slow"]:
            context.set_trailing_metadata((("grpc-status-details-bin", status_details(retry_info(60))),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "")

    backend.answer = answer

    async def scenario():
        async with passing_to(backend.port, retry=Retry(initial_ns=20 * MS, max_ns=100 * MS)) as made:
            for number in range(3):  # while others pass
                take(made, f"before {number}")
                await until(lambda done=number: exported(made) == done + 1)
            ways[LOGS].take(logs("slow"), True, b"")
            ways[LOGS].take(logs("other"), False, b"")
            await until(lambda: exported(made) == 4)
            await until(lambda: ["slow"] in backend.seen)
            for number in range(5):
                take(made, f"after {number}")
            await until(lambda: {f"after {number}" for number in range(5)} <= set(backend.stored))

    run(scenario())


def test_a_signal_that_is_not_known_leaves_the_others_alone(run, logs_backend):
    backend = logs_backend()

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, "a", signal=METRICS)
            take(made, "b")
            await until(lambda: exported(made) == 1)
            await until(lambda: count(made, metrics.PASSTHROUGH_REQUESTS_UNWANTED, "d0", "metrics") == 1)
            assert count(made, metrics.PASSTHROUGH_FAILURES, "d0", "metrics", "UNIMPLEMENTED") == 1

    run(scenario())


def test_bytes_that_are_refused_are_found_among_good_ones(run, logs_backend):
    def answer(read, context):
        if "bad" in read:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "secret")

    backend = logs_backend(answer)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *map(str, range(20)), "bad", *map(str, range(20, 40)))
            await until(lambda: exported(made) == 40)
            await until(lambda: rejected(made) == 1)

    run(scenario())
    assert sorted(map(int, backend.stored)) == list(range(40))


def test_a_run_of_bad_requests_costs_its_neighbours_nothing(run, logs_backend):
    def answer(read, context):
        if any(int(body) < 80 for body in read):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "")

    backend = logs_backend(answer)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *map(str, range(200)))
            await until(lambda: exported(made) + rejected(made) == 200)

    run(scenario())
    assert sorted(map(int, backend.stored)) == list(range(80, 200))


def test_a_back_end_that_refuses_everything_is_not_asked_for_each_request(run, logs_backend):
    backend = logs_backend(lambda _bodies, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, ""))

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *map(str, range(1000)))
            await until(lambda: rejected(made) == 1000)

    run(scenario())
    assert len(backend.seen) < 600


def test_what_fails_while_others_pass_is_given_up_alone(run, logs_backend, caplog):
    def answer(read, context):
        if "poison" in read:
            context.abort(grpc.StatusCode.UNAVAILABLE, "")

    backend = logs_backend(answer)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *map(str, range(10)), "poison")
            deadline, more = time.monotonic() + 25, 10
            while not rejected(made):
                assert time.monotonic() < deadline
                take(made, str(more))
                more += 1
                await asyncio.sleep(0.02)
            await until(lambda: exported(made) == more)
            return more

    more = run(scenario())
    assert sorted(map(int, backend.stored)) == list(range(more))
    assert any("1 requests rejected: UNAVAILABLE" in record.getMessage() for record in caplog.records)


def test_nothing_is_given_up_while_nothing_passes(run, logs_backend):
    backend = logs_backend(lambda _bodies, context: context.abort(grpc.StatusCode.UNAVAILABLE, ""))

    async def scenario():
        retry = Retry(initial_ns=5 * MS, max_ns=20 * MS, give_up_ns=50 * MS)
        async with passing_to(backend.port, retry=retry) as made:
            take(made, *"abcdefgh")
            await asyncio.sleep(0.6)
            take(made, "i")
            await until(lambda: len(backend.seen) > 20)
            assert rejected(made) == 0
            backend.answer = lambda _bodies, _context: None
            await until(lambda: exported(made) == 9)

    run(scenario())
    assert sorted(backend.stored) == list("abcdefghi")


def test_one_try_at_a_time_while_nothing_passes(run, logs_backend):
    under_way, most = [], []

    def answer(_bodies, context):
        under_way.append(None)
        most.append(len(under_way))
        time.sleep(0.03)
        under_way.pop()
        context.abort(grpc.StatusCode.UNAVAILABLE, "")

    backend = logs_backend(answer)

    async def scenario():
        batch = Batch(max_bytes=100, max_wait_ns=MS)
        async with passing_to(backend.port, batch=batch) as made:
            take(made, *("x" * 60 for _ in range(30)))
            await until(lambda: len(backend.seen) > 10)

    run(scenario())
    assert max(most[5:]) == 1


def test_what_is_too_large_is_divided_and_smaller_batches_follow(run, logs_backend):
    def answer(read, context):
        if len(read) > 4:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max (900 vs. 200)")

    backend = logs_backend(answer)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *map(str, range(64)))
            await until(lambda: exported(made) == 64)

    run(scenario())
    assert sorted(map(int, backend.stored)) == list(range(64))


def test_a_limit_that_is_called_overload_is_learned(run, logs_backend):
    """A server that has a limit of its own, and another text for it than gRPC's."""

    def answer(read, context):
        if sum(map(len, read)) > 100_000:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota")

    backend = logs_backend(answer)

    async def scenario():
        async with passing_to(backend.port, batch=Batch(max_bytes=200_000, max_wait_ns=20 * MS)) as made:
            take(made, *("x" * 10_000 for _ in range(40)))
            await until(lambda: exported(made) == 40)
            assert made.queues.destinations[0].of[LOGS].batch_bytes <= 100_000
            refused = len(backend.seen)
            take(made, *("x" * 10_000 for _ in range(40)))
            await until(lambda: exported(made) == 80)
            assert len(backend.seen) - refused <= 6

    run(scenario())


def test_a_partial_success_is_counted_in_items(run, logs_backend):
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = 2
    backend = logs_backend(lambda _bodies, _context: response)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *"abc")
            await until(lambda: exported(made) == 3)
            assert count(made, metrics.PASSTHROUGH_ITEMS_REJECTED, "d0", "logs") >= 2

    run(scenario())


def test_want_of_memory_loses_nothing(run, logs_backend, monkeypatch):
    backend = logs_backend()
    left = [3]
    joined = PassBatch.joined

    def poor(batch: PassBatch) -> bytes:
        if left[0]:
            left[0] -= 1
            raise MemoryError
        return joined(batch)

    monkeypatch.setattr(PassBatch, "joined", poor)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *"abc")
            await until(lambda: exported(made) == 3)
            assert rejected(made) == 0

    run(scenario())
    assert backend.stored == ["a", "b", "c"]


def test_an_error_of_ours_costs_the_batch_and_not_the_rest(run, logs_backend, monkeypatch):
    backend = logs_backend()
    send = GrpcTransport.send

    async def odd(transport, signal, request, metadata):
        if b"odd" in request:
            raise KeyError("secret")
        return await send(transport, signal, request, metadata)

    monkeypatch.setattr(GrpcTransport, "send", odd)

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, "odd")
            await until(lambda: count(made, metrics.PASSTHROUGH_REQUESTS_LOST, "d0", "logs", "internal") == 1)
            take(made, "even")
            await until(lambda: exported(made) == 1)

    run(scenario())


def test_a_drain_sends_what_is_left_without_waiting(run, logs_backend):
    backend = logs_backend()

    async def scenario():
        async with passing_to(backend.port, batch=Batch(max_wait_ns=60_000 * MS)) as made:
            take(made, *"abc")
            assert not exported(made)
            await made.drain(time.monotonic_ns() + 10_000 * MS, asyncio.Event())
            assert exported(made) == 3

    run(scenario())


def test_a_stop_counts_what_is_lost(run, logs_backend, caplog):
    backend = logs_backend(lambda _bodies, context: context.abort(grpc.StatusCode.UNAVAILABLE, ""))

    async def scenario():
        async with passing_to(backend.port) as made:
            take(made, *"abc")
            await until(lambda: backend.seen)
            before = time.monotonic()
            await made.drain(time.monotonic_ns() + 100 * MS, asyncio.Event())
            assert time.monotonic() - before >= 0.09
            hurry = asyncio.Event()
            hurry.set()
            await made.drain(time.monotonic_ns() + 60_000 * MS, hurry)
            assert await made.stop() == 3
            assert count(made, metrics.PASSTHROUGH_REQUESTS_LOST, "d0", "logs", "shutdown") == 3

    run(scenario())
    assert any("export d0 (logs): 3 requests lost at shutdown" in one.getMessage() for one in caplog.records)
