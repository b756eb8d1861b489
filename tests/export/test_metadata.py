"""What spans came with goes out with them: a request has the metadata of one sender, over both protocols."""

from __future__ import annotations

import time
from collections import Counter

import grpc
import pytest
from aiohttp import web

from sampler_proxy.config.model import Batch as BatchConfig
from sampler_proxy.config.model import GrpcExport, HttpExport, Queue, Retry
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.otlp import OtlpExporter
from sampler_proxy.export.parcel import Batch, Parcel
from sampler_proxy.otlp.metadata import encode
from tests.export.http_backend import serving
from tests.export.support import Trace, assemble, counts, numbers, running, until

MS = 10**6
TENANT = "x-scope-orgid"
A, B = encode([(TENANT, "a")]), encode([(TENANT, "b"), ("x-zone", "eu")])
COMMON = {
    "name": "tempo",
    "batch": BatchConfig(max_wait_ns=5 * MS),
    "queue": Queue(max_bytes=64 << 20),
    "retry": Retry(initial_ns=20 * MS, max_ns=100 * MS),
    "headers": {TENANT: "nobody", "x-static": "1"},
}
TRACES = [(1, A), (2, b""), (3, B), (4, A), (5, B), (6, A)]


def exporter_of(settings: GrpcExport | HttpExport) -> OtlpExporter:
    return OtlpExporter(settings, Dependencies(assemble, time.monotonic_ns, lambda: 0.5, lambda _: None, {}))


def test_a_batch_is_parted_by_metadata():
    parcels = Parcel.by_metadata([Trace(number, metadata=metadata) for number, metadata in TRACES], Batch())
    assert [[int.from_bytes(trace.trace_id, "big") for trace in parcel.traces] for parcel in reversed(parcels)] == [
        *([1, 4, 6], [2], [3, 5])
    ]
    assert [parcel.metadata for parcel in parcels] == [B, b"", A]
    assert len({parcel.batch for parcel in parcels}) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_metadata_go_out_as_headers_before_configured_ones(run, backend, protocol):
    seen = []

    async def scenario():
        async with serving(lambda request: seen.append((request.headers, numbers(request.request)))) as http:
            if protocol == "grpc":
                server = backend(
                    lambda request, context: seen.append((dict(context.invocation_metadata()), numbers(request)))
                )
                settings = GrpcExport(endpoint=f"http://localhost:{server.port}", **COMMON)
            else:
                settings = HttpExport(endpoint=http.url, protocol=protocol, **COMMON)
            async with running(exporter_of(settings)) as exporter:
                for number, metadata in TRACES:
                    assert exporter.queue.offer(Trace(number, metadata=metadata))
                await until(lambda: counts(exporter) == (12, 0, {}))

    run(scenario())
    sent = {
        trace: (headers[TENANT], headers.get("x-zone"), headers["x-static"]) for headers, ids in seen for trace in ids
    }
    assert sent == {
        **dict.fromkeys((1, 4, 6), ("a", None, "1")),
        2: ("nobody", None, "1"),
        **dict.fromkeys((3, 5), ("b", "eu", "1")),
    }
    assert Counter(headers[TENANT] for headers, _ in seen) == {"a": 1, "b": 1, "nobody": 1}


def test_one_tenant_that_is_refused_holds_up_no_other(run):
    refused = 0

    def answer(request):
        nonlocal refused
        if request.headers[TENANT] == "a":
            refused += 1
            raise web.HTTPServiceUnavailable

    async def scenario():
        async with serving(answer) as server:
            settings = HttpExport(endpoint=server.url, protocol="http/protobuf", **COMMON)
            async with running(exporter_of(settings)) as exporter:
                for round_ in range(10):
                    for number, metadata in ((1, A), (2, B)):
                        assert exporter.queue.offer(Trace(10 * round_ + number, metadata=metadata))
                    await until(lambda done=round_: len(server.stored) == done + 1)
                assert refused
                assert {number % 10 for number in server.stored} == {2}

    run(scenario())


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_keeps_a_failing_batch_company_keeps_its_metadata(run, concurrency):
    """Where a tenant's traces hold all slots, others are tried beside them: as what they are."""
    seen = []

    def answer(request):
        tenant = request.headers[TENANT]
        seen.append((tenant, numbers(request.request)))
        if any(number < 10 for number in numbers(request.request)):
            raise web.HTTPServiceUnavailable

    async def scenario():
        async with serving(answer) as server:
            settings = HttpExport(endpoint=server.url, protocol="http/protobuf", concurrency=concurrency, **COMMON)
            async with running(exporter_of(settings)) as exporter:
                for number in range(1, concurrency + 1):  # each a batch of its own, which never passes
                    assert exporter.queue.offer(Trace(number, metadata=A))
                    await until(lambda wanted=number: any(wanted in ids for _, ids in seen))
                for number in range(10, 30):
                    assert exporter.queue.offer(Trace(number, metadata=(A, B)[number % 2]))
                await until(lambda: len(server.stored) == 20)

    run(scenario())
    assert {number: tenant for tenant, ids in seen for number in ids if number >= 10} == {
        number: "ab"[number % 2] for number in range(10, 30)
    }
    assert all(len({number % 2 for number in ids if number >= 10}) <= 1 for _, ids in seen)


def test_a_large_parcel_is_divided_within_its_metadata(run, backend):
    seen = []

    def answer(request, context):
        if request.ByteSize() > 20_000:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (1 vs. 20000)")
        seen.append((dict(context.invocation_metadata())[TENANT], numbers(request)))

    server = backend(answer)

    async def scenario():
        settings = GrpcExport(endpoint=f"http://localhost:{server.port}", **COMMON)
        async with running(exporter_of(settings)) as exporter:
            for number in range(1, 41):
                trace = Trace(number, spans=1, padding=1_000, metadata=(A, B)[number % 2])
                assert exporter.queue.offer(trace)
            await until(lambda: counts(exporter) == (40, 0, {}))

    run(scenario())
    assert {number: tenant for tenant, ids in seen for number in ids} == {n: "ab"[n % 2] for n in range(1, 41)}
