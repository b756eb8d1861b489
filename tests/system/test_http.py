"""OTLP over HTTP to the whole process: by the official exporter, by curl, under load and at a stop."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.processes import Proxy, Scraper, until
from tests.support.sink import Sink
from tests.system.test_run import config
from tests.system.traffic import one_trace, span_ids

PROTOBUF = {"Content-Type": "application/x-protobuf"}
MIB = 1 << 20


def post(connection: http.client.HTTPConnection, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection.request("POST", "/v1/traces", body, {**PROTOBUF, **{k.replace("_", "-"): v for k, v in headers.items()}})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("compression", list(Compression), ids=lambda each: each.value)
def test_the_official_exporter(compression: Compression, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint), tmp_path)
    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{proxy.http_port}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), tracer.start_as_current_span("failing"):
            raise ZeroDivisionError
    until(lambda: len(sink.traces) == 3)
    metrics = proxy.metrics()
    assert metrics.by("spans_received_total", "transport") == {"http": 3}
    assert metrics.by("requests_received_total", "transport") == {"http": 3}
    provider.shutdown()
    assert proxy.terminate() == 0


def test_curl(sink: Sink, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    proxy = Proxy(config(sink.endpoint), tmp_path)
    (tmp_path / "body").write_bytes(one_trace(Random(1), error=True).SerializeToString())
    for more in ((), ("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked")):
        done = subprocess.run(
            [
                *("curl", "-sS", "--noproxy", "*", "-m", "20", "-w", "%{http_code}"),
                *("-H", "Content-Type: application/x-protobuf", *more, "--data-binary", f"@{tmp_path}/body"),
                f"http://127.0.0.1:{proxy.http_port}/v1/traces",
            ],
            capture_output=True,
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (0, b"200"), done.stderr
    until(lambda: len(sink.traces) == 1)


def test_it_can_be_switched_off(sink: Sink, tmp_path: Path) -> None:
    settings = config(sink.endpoint)
    settings["receive"]["http"] = {"endpoint": "off"}
    proxy = Proxy(settings, tmp_path)
    assert "http" not in proxy.await_event("ready")
    assert proxy.terminate() == 0


def test_other_signals_and_other_protocols_are_counted_and_named(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint, passthrough="off"), tmp_path)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
    connection.request("POST", "/v1/logs", b"", PROTOBUF)
    answer = connection.getresponse()
    assert (answer.status, b"traces only" in answer.read()) == (404, True)
    connection.close()
    with grpc.insecure_channel(f"127.0.0.1:{proxy.http_port}") as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(b"", timeout=5)
    assert proxy.await_event("http: a sender speaks HTTP/2")["peer"].startswith("127.0.0.1:")
    metrics = proxy.metrics()
    assert metrics.by("calls_not_served_total", "kind")["logs"] == 1
    assert metrics.by("connections_refused_total", "kind")["http2"] >= 1
    assert "Traceback" not in proxy.stderr()


def test_a_full_buffer_is_said_with_a_time_to_come_back(tmp_path: Path) -> None:
    settings = config("http://127.0.0.1:1", rules=[{"name": "all", "keep": "all"}], shutdown_timeout="1s")
    settings["buffer"] = {"max_bytes": "1MiB", "max_trace_bytes": "1MiB", "decision_wait": "60s"}
    settings["export"][0]["queue"] = {"max_bytes": "64KiB"}
    proxy = Proxy(settings, tmp_path)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
    random = Random(1)
    statuses = set()
    for _ in range(50):
        body = one_trace(random, spans=20, fill=2000).SerializeToString()
        connection.request("POST", "/v1/traces", body, PROTOBUF)
        answer = connection.getresponse()
        answer.read()
        statuses.add((answer.status, answer.getheader("Retry-After")))
    assert statuses == {(200, None), (503, "1")}
    assert proxy.metrics().by("requests_refused_total", "reason").keys() == {"memory"}
    connection.close()


def test_bombs_leave_the_memory_alone(sink: Sink, tmp_path: Path) -> None:
    settings = config(sink.endpoint)
    settings["receive"]["max_request_bytes"] = "64MiB"
    proxy = Proxy(settings, tmp_path)
    bomb = gzip.compress(bytes(512 * MIB), 9)
    before, peak = proxy.rss_bytes(), 0
    statuses: list[int] = []

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=60)
        statuses.append(post(connection, bomb, Content_Encoding="gzip")[0])
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, proxy.rss_bytes())
        time.sleep(0.02)
    assert statuses == [413] * 8
    assert peak - before < 200 * MIB
    assert proxy.metrics().by("requests_refused_total", "reason") == {"too_large": 8}


def test_a_stop_under_load_loses_nothing_that_was_acknowledged(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint, rules=[{"name": "all", "keep": "all"}]), tmp_path)
    scraper = Scraper(proxy)
    acknowledged: list[set[bytes]] = []
    faults: list[Any] = []

    def send(seed: int) -> None:
        random = Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
        while True:
            request = one_trace(random, spans=30)
            try:
                status, _ = post(connection, request.SerializeToString())
            except (OSError, http.client.HTTPException):
                connection.close()
                return
            if status == 200:
                acknowledged.append(span_ids(request))
            elif status != 503:
                faults.append(status)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 300)
    assert proxy.terminate() == 0
    for thread in threads:
        thread.join(20)
    scraper.stop()
    assert not faults
    exported = {span.span_id for span in sink.spans}
    assert not set().union(*acknowledged) - exported
    assert "Traceback" not in proxy.stderr()


def test_json(sink: Sink, tmp_path: Path) -> None:
    """Out come the spans that went in, ids in hexadecimal digits."""
    proxy = Proxy(config(sink.endpoint), tmp_path)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
    spans = [
        {"traceId": "0A" * 16, "spanId": "0b" * 8, "name": "a", "kind": "SPAN_KIND_SERVER", "status": {"code": 2}},
        {"trace_id": "0a" * 16, "span_id": "0c" * 8, "parentSpanId": "0B" * 8, "startTimeUnixNano": "1", "kind": 3},
        {"traceId": "0a", "spanId": "0d" * 8},
    ]
    text = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    for encoding, body in (("identity", text), ("gzip", gzip.compress(text))):
        status, answer = post(
            connection, body, Content_Type="application/json; charset=utf-8", Content_Encoding=encoding
        )
        assert status == 200
        message = "rejected: 1 spans with an invalid trace id, 0 with an invalid span id"
        assert json.loads(answer)["partialSuccess"]["rejectedSpans"] == "1"
        assert json.loads(answer)["partialSuccess"]["errorMessage"][:20] == message[:20]
    until(lambda: len(sink.spans) == 4)
    assert {(span.trace_id, span.span_id, span.kind) for span in sink.spans} == {
        (b"\x0a" * 16, b"\x0b" * 8, 2),
        (b"\x0a" * 16, b"\x0c" * 8, 3),
    }
    assert post(connection, b"{}", Content_Type="application/json") == (200, b"{}")
    wrong = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "s3cret"}]}]}]}
    status, answer = post(connection, json.dumps(wrong).encode(), Content_Type="application/json")
    assert (status, json.loads(answer)["code"]) == (400, 3)
    assert "resourceSpans[0].scopeSpans[0].spans[0].traceId" in json.loads(answer)["message"]
    assert b"s3cret" not in answer
    assert proxy.metrics().by("requests_refused_total", "reason") == {"malformed": 1}
    connection.close()


def test_slow_and_idle_connections_hold_up_nobody(sink: Sink, tmp_path: Path) -> None:
    """Hundreds of half heads, half bodies and silent connections, beside a sender: all of its requests are answered at
    once, and the memory stays."""
    proxy = Proxy(config(sink.endpoint), tmp_path)
    head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100000\r\n"
    before = proxy.rss_bytes()
    with ExitStack() as stack:
        for number in range(600):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.http_port)))
            one.sendall((b"", head[:50], head + b"\r\n" + bytes(50_000))[number % 3])
        connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
        took = []
        for seed in range(100):
            begun = time.monotonic()
            assert post(connection, one_trace(Random(seed), error=True).SerializeToString())[0] == 200
            took.append(time.monotonic() - begun)
        assert sorted(took)[98] < 0.5
        assert proxy.rss_bytes() - before < 100 * MIB
        assert proxy.get("/healthz")[0] == 200
        connection.close()
    assert proxy.terminate() == 0
    assert "Traceback" not in proxy.stderr()
