"""OTLP/HTTP against real servers: where a request goes and as what, what becomes of each answer, and of none."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import socket
import ssl
import time
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sampler_proxy.config.model import Batch, HttpExport, Queue, Retry, Tls
from sampler_proxy.export import compression, peers, reasons
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.http_statuses import classify_status, rejected_by, retry_after_ns
from sampler_proxy.export.otlp import OtlpExporter
from sampler_proxy.export.otlp_http import HttpTransport
from sampler_proxy.export.retry import MAX_RETRY_AFTER_NS, Accepted, Failed, Fault
from sampler_proxy.otlp.signals import Signal
from sampler_proxy.settings import HeaderFile
from tests.export.http_backend import serving, success
from tests.export.support import Trace, assemble, counts, numbers, offer, running, until

MS = 10**6
SECRET = "s3cr3t-t0ken"


def config(endpoint, *, batch_bytes=1 << 20, initial_ms=20, max_ms=100, **settings):
    return HttpExport(
        name="tempo",
        protocol="http/protobuf",
        **({} if "traces_endpoint" in settings else {"endpoint": endpoint}),
        batch=Batch(max_bytes=batch_bytes, max_wait_ns=5 * MS),
        queue=Queue(max_bytes=64 << 20),
        retry=Retry(initial_ns=initial_ms * MS, max_ns=max_ms * MS),
        **settings,
    )


def dependencies(environ=None):
    return Dependencies(assemble, time.monotonic_ns, random.Random(1).random, lambda _seconds: None, environ or {})


@asynccontextmanager
async def exporting(settings, environ=None):
    async with running(OtlpExporter(settings, dependencies(environ))) as exporter:
        yield exporter


@asynccontextmanager
async def sending(settings, environ=None):
    transport = HttpTransport(settings, dependencies(environ))
    transport.start()
    try:
        yield transport
    finally:
        await transport.close()


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("path", ["", "/", "/otlp", "/api/4/integration/otlp/"])
def test_where_traces_go_and_as_what(run, path, encoding):
    async def scenario():
        async with serving() as server:
            headers = {"Authorization": f"Bearer {SECRET}", "X-Scope-OrgID": "7", "x-empty": ""}
            settings = config(server.url + path, compression=encoding, headers=headers)
            async with exporting(settings) as exporter:
                offer(exporter, range(1, 101), spans=3, padding=200)
                await until(lambda: exporter.queue.empty)
                assert counts(exporter) == (300, 0, {})
                assert exporter.failed_tries == 0
            assert server.stored == dict.fromkeys(range(1, 101), 3)
            for one in server.seen:
                assert one.path == f"{path.rstrip('/')}/v1/traces"
                assert one.headers["content-type"] == "application/x-protobuf"
                assert one.headers.get("content-encoding") == (None if encoding == "none" else encoding)
                assert one.headers["authorization"] == f"Bearer {SECRET}"
                assert one.headers["x-scope-orgid"] == "7"
                assert one.headers["x-empty"] == ""
                assert one.headers["user-agent"].startswith("sampler-proxy/")
                assert (one.nbytes < 20_000) is (encoding != "none")

    run(scenario())


def test_every_signal_has_its_path(run):
    async def scenario():
        async with serving() as server, sending(config(f"{server.url}/otlp")) as transport:
            assert [await transport.send(signal, b"") for signal in Signal] == [Accepted()] * 4
            assert [one.path for one in server.seen] == [
                "/otlp/v1/traces",
                "/otlp/v1/logs",
                "/otlp/v1/metrics",
                "/otlp/v1development/profiles",
            ]

    run(scenario())


def test_a_traces_endpoint_is_used_as_it_stands_for_traces_only(run):
    async def scenario():
        async with (
            serving() as server,
            sending(config("", traces_endpoint=f"{server.url}/in%2Fgest/t?x=%41")) as transport,
        ):
            assert await transport.send(Signal.TRACES, b"") == Accepted()
            refused = await transport.send(Signal.LOGS, b"")
            assert refused.fault is Fault.UNWANTED
            assert refused.not_served
            assert [one.path for one in server.seen] == ["/in%2Fgest/t?x=%41"]

    run(scenario())


def test_connections_are_used_again(run):
    async def scenario():
        async with serving() as server, sending(config(server.url)) as transport:
            for _ in range(20):
                assert await transport.send(Signal.TRACES, b"") == Accepted()
            assert len({one.peer for one in server.seen}) == 1

    run(scenario())


def test_an_idle_connection_that_the_server_has_closed_costs_no_try(run):
    """It closes the connection with the second request on it unread, as a server does whose idle time is over."""
    answered = 0

    async def scenario():
        async def answer(reader, writer):
            nonlocal answered
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            answered += 1
            await reader.read(1)  # the next request begins
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with sending(config(f"http://127.0.0.1:{port}", compression="none")) as transport:
            for number in range(3):
                assert await transport.send(Signal.TRACES, b"") == Accepted(), number
        assert answered == 3
        server.close()

    run(scenario())


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (301, Fault.OVERLOAD),
        (308, Fault.OVERLOAD),
        (400, Fault.BYTES),
        (401, Fault.CREDENTIALS),
        (403, Fault.CREDENTIALS),
        (404, Fault.UNWANTED),
        (405, Fault.UNWANTED),
        (407, Fault.CREDENTIALS),
        (408, Fault.UNWANTED),
        (413, Fault.SIZE),
        (415, Fault.UNWANTED),
        (422, Fault.BYTES),
        (429, Fault.OVERLOAD),
        (431, Fault.UNWANTED),
        (500, Fault.BYTES),
        (501, Fault.UNWANTED),
        (502, Fault.OVERLOAD),
        (503, Fault.OVERLOAD),
        (504, Fault.OVERLOAD),
        (521, Fault.OVERLOAD),
    ],
)
def test_the_meaning_of_a_status(run, status, fault):
    async def scenario():
        def answer(_request):
            return web.Response(status=status, text=SECRET, headers={"Location": "/elsewhere", "Retry-After": "7"})

        async with serving(answer) as server, sending(config(server.url)) as transport:
            outcome = await transport.send(Signal.TRACES, b"")
            assert (outcome.fault, outcome.code) == (fault, f"HTTP {status}")
            assert outcome.retry_after_ns == (7 * 10**9 if status in (429, 502, 503, 504) else None)
            assert outcome.not_served is (status == 404)
            assert SECRET not in outcome.why
            assert len(server.seen) == 1  # no redirect is followed

    run(scenario())


def test_retry_after(run):
    now_s = 1_700_000_000.0
    for text, seconds in [
        ("0", 0),
        (" 12 ", 12),
        ("99999999999999999999", 300),
        (formatdate(now_s + 30, usegmt=True), 30),
        (formatdate(now_s - 30, usegmt=True), 0),
        (formatdate(now_s + 10**6, usegmt=True), 300),
    ]:
        assert retry_after_ns(text, now_s) == seconds * 10**9, text
    for text in (None, "", "soon", "-1", "1.5", "١٢", "Fri, 99 Nov 9999"):
        assert retry_after_ns(text, now_s) is None, text
    assert MAX_RETRY_AFTER_NS == 300 * 10**9
    assert classify_status(503, "3", now_s).retry_after_ns == 3 * 10**9

    async def scenario():
        refuse = True

        def answer(_request):
            return web.Response(status=503, headers={"Retry-After": "1"}) if refuse else None

        async with serving(answer) as server, exporting(config(server.url)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries)
            refuse = False
            failed = time.monotonic()
            await until(lambda: exporter.queue.empty)
            assert time.monotonic() - failed > 0.5
            assert len(server.seen) == 2

    run(scenario())


def test_partial_success(run):
    answers = [
        (b"", "application/x-protobuf", 0),
        (b'{"partialSuccess":{"rejectedSpans":"3"}}', "application/json; charset=utf-8", 3),
        (b'{"partialSuccess":{"rejectedLogRecords":2}}', "application/json", 2),
        (b'{"partialSuccess":null}', "application/json", 0),
        (b'{"partialSuccess":{"rejectedSpans":"x"}}', "application/json", 0),
        (b"[" * 10**6, "application/json", 0),
        (b"ok", "text/plain", 0),
        (b"\xff\xff", "application/x-protobuf", 0),
    ]
    for body, kind, rejected in answers:
        assert rejected_by(kind, body) == rejected

    async def scenario():
        def answer(request):
            response = ExportTraceServiceResponse()
            response.partial_success.rejected_spans = len(numbers(request.request))
            return success(response)

        async with serving(answer) as server, exporting(config(server.url)) as exporter:
            offer(exporter, range(1, 11), spans=2)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (10, 10, {})

    run(scenario())


@given(
    st.sampled_from(["application/x-protobuf", "application/json", "text/html", "", ";"]),
    st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()),
)
def test_any_body_of_a_success_is_a_number_of_items(kind, body):
    assert isinstance(rejected_by(kind, body), int)
    for value in (body, b'{"partialSuccess":' + body + b"}", b'{"partialSuccess":{"rejectedSpans":' + body + b"}}"):
        assert isinstance(rejected_by("application/json", value), int)
    assert rejected_by("application/json", b'{"partialSuccess":{"rejectedSpans":Infinity}}') == 0


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d+:\d+:\d+ [A-Z]+"))
def test_any_retry_after_is_a_delay_or_none(text):
    delay_ns = retry_after_ns(text, time.time())
    assert delay_ns is None or 0 <= delay_ns <= MAX_RETRY_AFTER_NS


def test_an_answer_that_does_not_end_is_a_success_all_the_same(run):
    """Its status has come: sending the spans again would store them twice."""

    async def scenario():
        async def endless(_reader, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            with suppress(ConnectionError):
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            writer.close()

        async def torn(_reader, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
            writer.close()

        async def trickling(reader, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
            await reader.read()
            writer.close()

        for answer in (endless, torn, trickling):
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            async with sending(config(f"http://127.0.0.1:{port}", timeout_ns=300 * MS)) as transport:
                assert await transport.send(Signal.TRACES, b"") == Accepted()
            server.close()

    run(scenario())


def test_a_limit_is_learned_from_413(run):
    async def scenario():
        def answer(request):
            return web.Response(status=413) if request.nbytes > 40_000 else None

        async with serving(answer) as server:
            settings = config(server.url, batch_bytes=1 << 20, compression="none", concurrency=1)
            async with exporting(settings) as exporter:
                offer(exporter, range(1, 201), spans=2, padding=500)
                await until(lambda: exporter.queue.empty, 20)
                assert counts(exporter) == (400, 0, {})
                refused = sum(one.nbytes > 40_000 for one in server.seen)
                offer(exporter, range(201, 401), spans=2, padding=500)
                await until(lambda: exporter.queue.empty, 20)
                assert counts(exporter) == (800, 0, {})
                assert sum(one.nbytes > 40_000 for one in server.seen) == refused

    run(scenario())


def test_one_poisonous_trace_is_rejected_alone(run):
    async def scenario():
        def answer(request):
            return web.Response(status=400) if 13 in numbers(request.request) else None

        async with serving(answer) as server, exporting(config(server.url)) as exporter:
            offer(exporter, range(1, 101))
            await until(lambda: exporter.queue.empty, 20)
            assert counts(exporter) == (198, 2, {})
            assert 13 not in server.stored

    run(scenario())


def test_credentials_from_a_file_that_changes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sampler_proxy.export.transport.FILES_EVERY_S", 0.02)
    token = tmp_path / "token"
    token.write_text("wr0ng")

    async def scenario():
        def answer(request):
            return None if request.headers["authorization"] == f"Bearer {SECRET}" else web.Response(status=401)

        async with serving(answer) as server:
            headers = {"authorization": HeaderFile(str(token), "Bearer ")}
            async with exporting(config(server.url, headers=headers, initial_ms=60_000, max_ms=60_000)) as exporter:
                offer(exporter, [1])
                await until(lambda: exporter.failed_tries)
                token.write_text(SECRET)
                await until(lambda: exporter.queue.empty)
                assert counts(exporter) == (2, 0, {})

    run(scenario())


def test_three_addresses_are_used_and_one_where_nothing_listens_costs_no_try(run, monkeypatch):
    async def resolve(_host, _port):
        return [f"127.0.0.{last}" for last in (1, 2, 3, 4)]

    monkeypatch.setattr(peers, "resolve", resolve)

    async def scenario():
        port = unused_port()
        async with (
            serving(host="127.0.0.1", port=port) as one,
            serving(host="127.0.0.2", port=port) as two,
            serving(host="127.0.0.3", port=port) as three,
            exporting(config(f"http://tempo.example:{port}", batch_bytes=1)) as exporter,
        ):
            offer(exporter, range(1, 301))
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (600, 0, {})
            assert exporter.failed_tries == 0
            assert min(len(server.seen) for server in (one, two, three)) > 50
            assert one.seen[0].headers["host"] == f"tempo.example:{port}"

    run(scenario())


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(run, tmp_path, trusted):
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    (authority if trusted else stranger).cert_pem.write_to_path(ca_file)

    async def scenario():
        async with serving(tls=context) as server:
            url = f"https://localhost:{server.port}"
            async with sending(config(url, tls=Tls(ca_file=str(ca_file)))) as transport:
                outcome = await transport.send(Signal.TRACES, b"")
                if trusted:
                    assert outcome == Accepted()
                else:
                    assert outcome == Failed(Fault.UNREACHABLE, "UNAVAILABLE", "its certificate is not trusted")
            if trusted:
                by_address = config(f"https://127.0.0.1:{server.port}", tls=Tls(ca_file=str(ca_file)))
                async with sending(by_address) as transport:
                    outcome = await transport.send(Signal.TRACES, b"")
                    assert outcome.why == "its certificate is for another name"
                async with sending(config(f"http://127.0.0.1:{server.port}")) as transport:
                    outcome = await transport.send(Signal.TRACES, b"")
                    assert outcome.fault in (Fault.UNREACHABLE, Fault.LOST)

    run(scenario())


def test_certificates_that_change_are_used(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sampler_proxy.export.transport.FILES_EVERY_S", 0.02)
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    stranger.cert_pem.write_to_path(ca_file)

    async def scenario():
        async with serving(tls=context) as server:
            tls = Tls(ca_file=str(ca_file))
            settings = config(f"https://localhost:{server.port}", tls=tls, initial_ms=60_000, max_ms=60_000)
            async with exporting(settings) as exporter:
                offer(exporter, [1])
                await until(lambda: exporter.failed_tries)
                authority.cert_pem.write_to_path(ca_file)
                await until(lambda: exporter.queue.empty)
                assert counts(exporter) == (2, 0, {})

    run(scenario())


def test_reasons_of_no_answer(run):
    async def scenario():
        async def speak(first, then_read):
            async def answer(reader, writer):
                writer.write(first)
                if then_read:
                    await reader.read(65536)
                writer.close()

            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            return server, server.sockets[0].getsockname()[1]

        async def outcome_at(endpoint, **settings):
            async with sending(config(endpoint, **settings)) as transport:
                return await transport.send(Signal.TRACES, b"x" * 10)

        refused = await outcome_at(f"http://127.0.0.1:{unused_port()}")
        assert (refused.fault, refused.why) == (Fault.UNREACHABLE, "nothing listens there: connection refused")
        nameless = await outcome_at("http://nowhere.invalid:4318")
        assert (nameless.fault, nameless.why) == (Fault.UNREACHABLE, reasons.NO_NAME)

        settings_frame = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00"
        grpc_port, port = await speak(settings_frame, True)
        outcome = await outcome_at(f"http://127.0.0.1:{port}")
        assert (outcome.fault, outcome.why) == (Fault.UNREACHABLE, reasons.NOT_HTTP)
        tls_port, port = await speak(b"\x15\x03\x01\x00\x02\x02\x46", True)
        outcome = await outcome_at(f"http://127.0.0.1:{port}")
        assert (outcome.fault, outcome.why) == (Fault.UNREACHABLE, reasons.CUT_OFF_PLAIN)
        silent, port = await speak(b"", True)
        outcome = await outcome_at(f"http://127.0.0.1:{port}")
        assert (outcome.fault, outcome.why) == (Fault.LOST, reasons.LOST)
        plain, port = await speak(b"HTTP/1.1 400 no\r\n\r\n", True)
        outcome = await outcome_at(f"https://127.0.0.1:{port}")
        assert outcome.fault is Fault.UNREACHABLE
        assert outcome.why == "TLS is met by plaintext: write http://, or the port that speaks TLS"

        async def hang(reader, writer):
            await reader.read()  # to the end
            writer.close()

        hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = hanging.sockets[0].getsockname()[1]
        outcome = await outcome_at(f"http://127.0.0.1:{port}", timeout_ns=200 * MS)
        assert (outcome.fault, outcome.why) == (Fault.TIMEOUT, reasons.NO_ANSWER)
        for server in (grpc_port, tls_port, silent, plain, hanging):
            server.close()

    run(scenario())


class ForwardingProxy:
    """An HTTP proxy: forwards http:// requests, connects for https:// ones."""

    def __init__(self, credentials=None):
        self.seen = []
        self.credentials = credentials

    async def __call__(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        self.seen.append((method.decode(), target.decode()))
        if self.credentials and self.credentials.encode() not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        where = target if method == b"CONNECT" else target.split(b"/")[2]
        host, port = where.decode().rsplit(":", 1)
        there_reader, there = await asyncio.open_connection(host, int(port))
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            there.write(head.replace(b"http://" + where, b"", 1))

        async def copy(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, there), copy(there_reader, writer), return_exceptions=True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_of_the_environment(run, tmp_path, caplog, scheme):
    caplog.set_level(logging.INFO, "sampler_proxy")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def scenario():
        proxy = ForwardingProxy("cHJveHk6cGFzcw==")  # proxy:pass
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with serving(tls=context if scheme == "https" else None) as backend:
            url = f"{scheme}://localhost:{backend.port}"
            tls = {"tls": Tls(ca_file=str(tmp_path / "ca.pem"))} if scheme == "https" else {}
            variable = f"{scheme}_proxy"
            other = "https_proxy" if scheme == "http" else "http_proxy"
            async with sending(config(url, **tls), {other: "http://127.0.0.1:1"}) as transport:
                assert await transport.send(Signal.TRACES, b"") == Accepted()  # directly
            assert proxy.seen == []
            named = {variable: f"http://proxy:pass@127.0.0.1:{port}"}
            async with sending(config(url, **tls), named) as transport:
                assert await transport.send(Signal.TRACES, b"") == Accepted()
            method = "CONNECT" if scheme == "https" else "POST"
            assert [seen[0] for seen in proxy.seen] == [method]
            async with sending(config(url, **tls), {**named, "NO_PROXY": "localhost"}) as transport:
                assert await transport.send(Signal.TRACES, b"") == Accepted()
            assert len(proxy.seen) == 1
            async with sending(config(url, **tls), {variable: f"http://127.0.0.1:{port}"}) as transport:
                assert (await transport.send(Signal.TRACES, b"")).fault is Fault.CREDENTIALS
            async with sending(config(url, **tls), {variable: f"http://127.0.0.1:{unused_port()}"}) as transport:
                outcome = await transport.send(Signal.TRACES, b"")
                assert (outcome.fault, outcome.why) == (Fault.UNREACHABLE, reasons.PROXY_REFUSES)
        server.close()

    run(scenario())
    assert "proxy:pass" not in caplog.text


def test_large_bodies(run):
    """Compressed on a thread, and written piece by piece."""

    async def scenario():
        for encoding in ("gzip", "none"):
            async with serving() as server, sending(config(server.url, compression=encoding)) as transport:
                request = assemble([Trace(1, spans=10, padding=300_000)])
                assert len(request) > compression.INLINE_BYTES
                assert await transport.send(Signal.TRACES, request) == Accepted()
                assert server.stored == {1: 10}

    run(scenario())


def test_a_link_that_is_given_up_finishes_what_is_under_way(run):
    async def scenario():
        release = asyncio.Event()

        async def slow(_request):
            await release.wait()
            return success()

        async with serving(slow) as server, sending(config(server.url)) as transport:
            under_way = asyncio.create_task(transport.send(Signal.TRACES, b""))
            await until(lambda: server.seen)
            transport._peers.renew()
            release.set()
            assert await under_way == Accepted()
            assert await transport.send(Signal.TRACES, b"") == Accepted()
            assert len({one.peer for one in server.seen}) == 2

    run(scenario())


def test_without_isal_gzip_is_the_standard_library_s(monkeypatch):
    import builtins
    import importlib

    genuine = builtins.__import__

    def without_isal(name, *args, **kwargs):
        if name.startswith("isal"):
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(builtins, "__import__", without_isal)
            fallback = importlib.reload(compression)
            assert fallback._gzip is gzip.compress
            assert gzip.decompress(fallback.gzip(b"x" * 1000)) == b"x" * 1000
    finally:
        importlib.reload(compression)
    assert gzip.decompress(compression.gzip(b"x" * 1000)) == b"x" * 1000
