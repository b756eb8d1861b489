"""`sampler-proxy run` as a newcomer, an operator and a careless sender meet it."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import select
import signal
import socket
import sys
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import nezha, reference
from tests.support.processes import Process, Proxy, free_port, until
from tests.support.sink import Sink
from tests.system.traffic import Client, add_trace, one_trace, span_ids

RUN = [sys.executable, "-m", "sampler_proxy", "run"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # of every HTTP/2 connection
Connect = Callable[..., Client]


def config(endpoint: str, **more: Any) -> dict[str, Any]:
    return {
        "receive": {
            "grpc": {"endpoint": "127.0.0.1:0"},
            "http": {"endpoint": "127.0.0.1:0"},
            "max_request_bytes": "256KiB",
        },
        "buffer": {"decision_wait": "200ms", "decision_wait_after_root": "100ms"},
        "export": [
            {
                "name": "sink",
                "endpoint": endpoint,
                "batch": {"max_wait": "20ms"},
                "retry": {"initial": "50ms", "max": "100ms"},
            }
        ],
        "admin": {"endpoint": "127.0.0.1:0"},
        "shutdown_timeout": "15s",
        **more,
    }


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def test_without_configuration(client: Connect, tmp_path: Path) -> None:
    if not all(map(free, (4317, 4318, 8888))):
        pytest.skip("a default port, 4317, 4318 or 8888, is in use on this machine")
    folder = tmp_path / "empty"
    proxy = Proxy(None, folder)
    assert (proxy.port, proxy.http_port, proxy.admin_port) == (4317, 4318, 8888)
    assert proxy.get("/healthz")[0] == proxy.get("/readyz")[0] == 200
    random = Random(1)
    failed = one_trace(random, error=True)
    fine = ExportTraceServiceRequest()
    fine_ids = [add_trace(fine, random) for _ in range(5)]
    assert all(int.from_bytes(trace_id[9:]) < reference.threshold_of(0.01) for trace_id in fine_ids)
    client(proxy.port).export(failed)
    client(proxy.port).export(fine)

    summary = proxy.await_event("18 spans received", 15)["event"]
    assert re.fullmatch(r"18 spans received, \d+ kept, \d+ sampled out, \d+ waiting; \d+ traces? decided", summary)
    traces = folder / "sampler-proxy-traces.jsonl"
    until(lambda: traces.stat().st_size, what=proxy.stderr)  # by the wait after the root, 5 s
    proxy.await_event("18 spans received, 3 kept, 15 sampled out, 0 waiting; 6 traces decided", 15)
    assert proxy.metrics().by("traces_decided_total", "rule") == {"errors": 1, "baseline": 5}
    assert proxy.terminate() == 0

    assert [path.name for path in folder.iterdir()] == [traces.name]
    (line,) = traces.read_text().splitlines()
    (resource_spans,) = json.loads(line)["resourceSpans"]
    (scope_spans,) = resource_spans["scopeSpans"]
    assert resource_spans["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "made"}}]
    for written, sent in zip(scope_spans["spans"], nezha.spans([failed]), strict=True):
        assert written["traceId"] == sent.trace_id.hex()
        assert written["spanId"] == sent.span_id.hex()
        assert written.get("parentSpanId", "") == sent.parent_span_id.hex()
        assert written["name"] == sent.name
        assert written["startTimeUnixNano"] == str(sent.start_time_unix_nano)
        assert {"key": "sampler_proxy.rule", "value": {"stringValue": "errors"}} in written["attributes"]
        assert written.get("status", {}).get("code", 0) == sent.status.code


def test_a_wrong_configuration_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "buffer:\n  decision_wait: 30\n"
        "rules:\n  - {name: a, match: '{ status = eror }', keep: all}\n  - {name: b, keep: none}\n"
    )
    proxy = Process("proxy", [*RUN, "--config", str(file)], tmp_path)
    assert proxy.wait() == 1
    lines = proxy.stderr().splitlines()
    positions = [line.removeprefix(f"{file}:").split(":")[:2] for line in lines if line.startswith(f"{file}:")]
    assert positions == [["2", "18"], ["4", "34"]], proxy.stderr()
    assert "Traceback" not in proxy.stderr()
    assert proxy.stdout() == ""


@pytest.mark.parametrize("taken", ["grpc", "http", "admin"])
def test_a_port_that_is_taken_ends_it(taken: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        settings = config("http://127.0.0.1:1")
        (settings["admin"] if taken == "admin" else settings["receive"][taken])["endpoint"] = address
        file = tmp_path / "c.yaml"
        file.write_text(json.dumps(settings))
        proxy = Process("proxy", [*RUN, "--config", str(file)], tmp_path)
        assert proxy.wait() == 1
    (line,) = proxy.stderr().splitlines()
    assert f"cannot listen on {address}: " in line
    assert "address already in use" in line.lower()


def test_a_back_end_that_is_down_at_start(client: Connect, tmp_path: Path) -> None:
    port = free_port()
    proxy = Proxy(config(f"http://127.0.0.1:{port}"), tmp_path)
    request = one_trace(Random(2), error=True)
    client(proxy.port).export(request)
    proxy.await_event("UNAVAILABLE; trying again")
    assert proxy.get("/readyz")[0] == proxy.get("/healthz")[0] == 200
    assert proxy.metrics().total("queue_spans") == 3
    sink = Sink(port)
    try:
        proxy.await_metrics(lambda m: m.total("spans_exported_total") == 3)
        assert {span.span_id for span in sink.spans} == span_ids(request)
        assert proxy.terminate() == 0
    finally:
        sink.stop()


def test_what_an_operator_sees_of_a_dead_back_end(client: Connect, tmp_path: Path) -> None:
    port = free_port()
    proxy = Proxy(config(f"http://127.0.0.1:{port}", shutdown_timeout="1s"), tmp_path)
    request = one_trace(Random(5), error=True)
    client(proxy.port).export(request)
    event = proxy.await_event("trying again until it works")["event"]
    assert "nothing listens there: connection refused, UNAVAILABLE" in event
    status, body = proxy.get("/readyz")
    assert status == 200
    assert "connection refused" in json.loads(body)["destinations"]["sink"]["last_error"]
    (destination,) = json.loads(proxy.get("/destinations")[1])["destinations"]
    assert (destination["up"], destination["spans"]["queued"]) == (False, 3)
    trace_id = request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex()
    assert json.loads(proxy.get(f"/traces/{trace_id}")[1])["destinations"] == {"sink": "queued"}
    metrics = proxy.metrics()
    assert metrics.total("export_failures_total") >= 1
    assert metrics.total("destination_up") == 0
    assert proxy.terminate() == 3
    assert re.fullmatch(r"stopped: 0 spans sent, 3 lost in [\d.]+ s", proxy.await_event("stopped:")["event"])


def test_a_dead_second_destination_that_may_drop_holds_up_nobody(sink: Sink, client: Connect, tmp_path: Path) -> None:
    settings = config(sink.endpoint, buffer={"decision_wait": "100ms", "max_bytes": "1MiB"}, shutdown_timeout="1s")
    dead = {"name": "dead", "endpoint": f"http://127.0.0.1:{free_port()}"}
    settings["export"].append({**dead, "queue": {"max_bytes": "64KiB", "when_full": "drop"}})
    proxy = Proxy(settings, tmp_path)
    sender, random = client(proxy.port), Random(7)
    total = 0
    for _ in range(100):
        request = ExportTraceServiceRequest()
        for _ in range(20):
            add_trace(request, random, error=True)
        total += sum(len(scope.spans) for one in request.resource_spans for scope in one.scope_spans)
        sender.export(request)
    proxy.await_metrics(lambda m: m.total("spans_exported_total", destination="sink") == total)
    proxy.await_metrics(lambda m: m.total("spans_lost_total", destination="dead", reason="queue_full") > 0)
    assert not proxy.metrics().unbalanced()
    assert "spans dropped" in proxy.await_event("its queue is full")["event"]
    assert proxy.terminate() == 3  # what was still queued for the dead one


def test_what_is_damaged_is_refused_and_harms_nothing_else(sink: Sink, client: Connect, tmp_path: Path) -> None:
    """After every kind of damage the next request, on the same connection and on a new one, is as good as ever."""
    random = Random(3)
    proxy = Proxy(config(sink.endpoint), tmp_path)
    sender = client(proxy.port)
    zipping = client(proxy.port, compression=grpc.Compression.Gzip)
    sent: set[bytes] = set()

    def good(*clients: Client) -> None:
        fresh = Client(proxy.port)
        try:
            for each in (*clients, fresh):
                request = one_trace(random, error=True)
                assert not each.export(request).HasField("partial_success")
                sent.update(span_ids(request))
        finally:
            fresh.close()

    good(sender, zipping)

    # Bytes that are not gRPC
    for garbage in (
        random.randbytes(10_000),
        b"\x00" * 100,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        PREFACE + random.randbytes(10_000),
        PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x00" + b"x" * 1000,
        PREFACE[:10],
        b"",
    ):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as raw:
            raw.sendall(garbage)
        good(sender)

    # Requests that end too soon, and random bytes: refused if and only if the official parser cannot read them
    request = ExportTraceServiceRequest()
    for _ in range(2):
        request.MergeFrom(one_trace(random, error=True))
    whole = request.SerializeToString()
    malformed = 0
    for data in (
        *(whole[:length] for length in range(1, len(whole), 7)),
        *(random.randbytes(n) for n in range(1, 60, 7)),
        whole + b"\x00",
        b"\xff" * 20,
    ):
        try:
            parsed = ExportTraceServiceRequest.FromString(data)
        except DecodeError:
            assert sender.refusal(data) == (grpc.StatusCode.INVALID_ARGUMENT, None)
            malformed += 1
        else:
            sender.export(data)
            sent.update(span_ids(parsed))
    assert malformed > 30
    good(sender)

    # Larger than allowed, as it is and inflated
    large = one_trace(random, spans=1, fill=300 * 1024)
    too_large = (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    assert sender.refusal(large) == too_large
    good(sender)
    assert len(gzip.compress(large.SerializeToString())) < 10_000
    assert zipping.refusal(large) == too_large
    good(zipping)

    # Spans without valid ids, alone and among others
    mixed = ExportTraceServiceRequest()
    add_trace(mixed, random, spans=6, error=True)
    spans = mixed.resource_spans[0].scope_spans[0].spans
    spans[0].trace_id = b""
    spans[1].trace_id = bytes(16)
    spans[2].span_id = b"short"
    sent.update(span.span_id for span in spans[3:])
    answer = sender.export(mixed)
    assert answer.partial_success.rejected_spans == 3
    assert answer.partial_success.error_message
    good(sender, zipping)
    assert not sender.export(b"").HasField("partial_success")

    proxy.await_metrics(lambda m: m.total("spans_exported_total") == len(sent))
    metrics = proxy.metrics()
    assert metrics.by("requests_refused_total", "reason") == {"malformed": malformed, "too_large": 2}
    assert metrics.by("spans_rejected_input_total", "reason") == {"trace_id": 2, "span_id": 1, "deprecated_field": 0}
    assert metrics.total("spans_received_total") == len(sent)
    assert not metrics.unbalanced()
    assert {span.span_id for span in sink.spans} == sent
    ready, *others = [line["event"] for line in proxy.log()]
    assert ready == "ready"
    assert len(set(others)) == len(others)  # each kind once a minute: nobody can fill the log from outside
    assert all(event.startswith("grpc: a ") for event in others)
    assert proxy.terminate() == 0


def test_sighup_does_not_end_it(sink: Sink, client: Connect, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint), tmp_path)
    sender = client(proxy.port)
    sender.export(one_trace(Random(4), error=True))
    proxy.signal(signal.SIGHUP)
    proxy.await_event("nothing to reload")
    sender.export(one_trace(Random(5), error=True))
    proxy.await_metrics(lambda m: m.total("spans_exported_total") == 6)
    assert proxy.terminate() == 0


def test_draining_is_not_ready_and_a_second_signal_hurries(client: Connect, tmp_path: Path) -> None:
    proxy = Proxy(config(f"http://127.0.0.1:{free_port()}", shutdown_timeout="10m"), tmp_path)
    sender = client(proxy.port)
    sender.export(one_trace(Random(6), error=True))
    assert proxy.get("/readyz")[0] == 200
    proxy.signal(signal.SIGTERM)
    until(lambda: proxy.get("/readyz")[0] == 503, what=proxy.stderr)
    assert json.loads(proxy.get("/readyz")[1])["status"] == "draining"
    assert proxy.get("/healthz")[0] == 200
    until(lambda: unavailable(sender), what="requests are still taken")
    drained = proxy.await_metrics(lambda m: m.total("queue_spans") == 3)  # decided, and waiting for the back end
    assert drained.total("traces_decided_total", rule="errors", decision="keep") == 1
    assert not drained.unbalanced()
    assert proxy.running
    asked_at = time.monotonic()
    assert proxy.terminate() == 3
    assert time.monotonic() - asked_at < 5
    assert "3 spans lost" in proxy.await_event("lost")["event"]


def unavailable(sender: Client) -> bool:
    try:
        sender.export(b"")
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


def test_hurried_it_still_says_what_is_lost(sink: Sink, client: Connect, tmp_path: Path) -> None:
    """A connection that does not go away holds up the end of receiving; the second signal comes meanwhile."""
    waits = {"decision_wait": "10m", "decision_wait_after_root": "10m"}
    proxy = Proxy(config(sink.endpoint, buffer=waits), tmp_path)
    client(proxy.port).export(one_trace(Random(8), error=True))
    with socket.create_connection(("127.0.0.1", proxy.port)) as stubborn:
        stubborn.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        assert stubborn.recv(1)  # it is known
        proxy.signal(signal.SIGTERM)
        proxy.await_event("stopping")
        code = proxy.terminate()
    said = [int(n) for line in proxy.log() for n in re.findall(r"(\d+) spans lost", line["event"])]
    assert len(sink.spans) + sum(said) == 3
    assert code == (3 if said else 0)


def test_what_is_buffered_leaves_at_the_end(sink: Sink, client: Connect, tmp_path: Path) -> None:
    waits = {"decision_wait": "10m", "decision_wait_after_root": "10m"}
    # An error without an exception to it would be kept as soon as it is seen, and not be buffered.
    rules = [
        {"name": "errors", "match": "{ status = error }", "unless": '{ name = "expected" }', "keep": "all"},
        {"name": "rest", "keep": "none"},
    ]
    proxy = Proxy(config(sink.endpoint, buffer=waits, rules=rules), tmp_path)
    request = one_trace(Random(7), error=True)
    client(proxy.port).export(request)
    assert proxy.metrics().total("buffer_spans") == 3
    assert proxy.terminate() == 0
    assert {span.span_id for span in sink.spans} == span_ids(request)
    reasons = {a.value.string_value for s in sink.spans for a in s.attributes if a.key == "sampler_proxy.reason"}
    assert reasons == {"shutdown"}
    with pytest.raises(urllib.error.URLError):
        proxy.get("/readyz")


def test_logs_are_text_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(config("http://127.0.0.1:1")))
    terminal, theirs = pty.openpty()
    shown = b""

    def read() -> bytes:
        nonlocal shown
        if select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 1 << 16)
        return shown

    try:
        proxy = Process("proxy", [*RUN, "--config", str(file)], tmp_path, stderr=theirs)
        until(lambda: b"ready" in read() and shown.endswith(b"\n"), 30, lambda: shown)
        assert proxy.terminate() == 0
        read()
    finally:
        os.close(terminal)
        os.close(theirs)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.decode().splitlines()]
    assert re.fullmatch(
        r"\S+ \[info *\] ready +admin=127\.0\.0\.1:\d+ export=\['sink'\] grpc=127\.0\.0\.1:\d+ .*", lines[0]
    )
    assert not any(line.startswith("{") for line in lines)
