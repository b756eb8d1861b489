"""Logs, metrics and profiles through the whole process: by both protocols, to back ends that know them or do not."""

from __future__ import annotations

import gzip
import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.otlp.signals import PASSED_ON, Signal
from tests.support import otlp_json
from tests.support.processes import Proxy, Scraper, free_port, until
from tests.support.signal_sink import SignalSink
from tests.system.test_run import config
from tests.system.traffic import one_trace, retry_after_s

LOGS, METRICS, PROFILES = PASSED_ON
REQUESTS: dict[Signal, type[Message]] = {
    LOGS: ExportLogsServiceRequest,
    METRICS: ExportMetricsServiceRequest,
    PROFILES: ExportProfilesServiceRequest,
}
MIB = 1 << 20


@pytest.fixture
def signal_sink() -> Iterator[Callable[..., SignalSink]]:
    """Makes back ends, and stops them in the end."""
    made: list[SignalSink] = []

    def make(*args: Any, **settings: Any) -> SignalSink:
        made.append(SignalSink(*args, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def logs(*bodies: str) -> bytes:
    request = ExportLogsServiceRequest()
    for body in bodies:
        request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = body
    return request.SerializeToString()


def bodies(sink: SignalSink) -> list[str]:
    found = ExportLogsServiceRequest.FromString(sink.of(LOGS)).resource_logs
    return [each.scope_logs[0].log_records[0].body.string_value for each in found]


class Sender:
    """Sends to one proxy by both protocols."""

    def __init__(self, proxy: Proxy, compression: grpc.Compression = grpc.Compression.NoCompression) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{proxy.port}", options, compression)
        self._connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)

    def grpc(self, signal: Signal, request: bytes) -> bytes:
        answer: bytes = self._channel.unary_unary(signal.method)(request, timeout=20)
        return answer

    def refusal(self, signal: Signal, request: bytes) -> tuple[grpc.StatusCode, float | None]:
        with pytest.raises(grpc.RpcError) as caught:
            self.grpc(signal, request)
        return caught.value.code(), retry_after_s(caught.value)

    def http(self, signal: Signal, body: bytes, kind: str = "x-protobuf", **headers: str) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        head = {"Content-Type": f"application/{kind}", **named}
        self._connection.request("POST", f"/{signal.path}", body, head)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._channel.close()
        self._connection.close()


@pytest.fixture
def sender() -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def make(proxy: Proxy, **options: Any) -> Sender:
        made.append(Sender(proxy, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def exported(proxy: Proxy, signal: Signal, count: int, name: str = "sink") -> None:
    proxy.await_metrics(
        lambda m: m.total("passthrough_requests_exported_total", signal=signal.label, destination=name) == count
    )


def test_every_signal_arrives_as_it_was_by_every_way(
    signal_sink: Callable[..., SignalSink], sender: Callable[..., Sender], tmp_path: Path
) -> None:
    """Any message of each type: over gRPC, plain and gzip; over HTTP as protobuf and as JSON, plain and gzip."""
    sink = signal_sink()
    proxy = Proxy(config(sink.endpoint), tmp_path)
    scraper = Scraper(proxy)
    plain, zipped = sender(proxy), sender(proxy, compression=grpc.Compression.Gzip)
    random = Random(7)
    sent: dict[Signal, list[bytes]] = {signal: [] for signal in PASSED_ON}
    for signal, kind in REQUESTS.items():
        for _ in range(5):
            message = any_message(kind, random)
            data = message.SerializeToString(deterministic=True)
            text = otlp_json.write(message, random).encode()
            assert plain.grpc(signal, data) == zipped.grpc(signal, data) == b""
            assert plain.http(signal, data) == (200, b"")
            assert plain.http(signal, gzip.compress(data), Content_Encoding="gzip") == (200, b"")
            assert plain.http(signal, text, "json") == (200, b"{}")
            assert plain.http(signal, gzip.compress(text), "json", Content_Encoding="gzip") == (200, b"{}")
            sent[signal] += [data] * 6
        exported(proxy, signal, 30)
    scraper.stop()
    for signal, kind in REQUESTS.items():
        if signal is PROFILES:  # each by itself: their dictionaries must not be joined
            got = [kind.FromString(request) for request in sink.requests(signal)]
            want = [kind.FromString(request) for request in sent[signal]]
            assert sorted(map(str, got)) == sorted(map(str, want))
        else:
            got_elements = elements(kind.FromString(sink.of(signal)))
            assert got_elements == elements(kind.FromString(b"".join(sent[signal])))
    metrics = proxy.metrics()
    assert metrics.by("passthrough_requests_received_total", "transport") == {"grpc": 30, "http": 60}
    assert not metrics.total("requests_received_total")
    assert proxy.terminate() == 0


def any_message(kind: type[Message], random: Random) -> Message:
    """Not empty, nor larger than most; profiles with a dictionary, as they are sent."""
    while True:
        message = otlp_json.message(kind, random)
        if 0 < message.ByteSize() < 100_000 and (kind is not REQUESTS[PROFILES] or message.HasField("dictionary")):
            return message


def elements(request: Message) -> list[str]:
    """What a request consists of, in any order."""
    (field,) = request.DESCRIPTOR.fields
    return sorted(map(str, getattr(request, field.name)))


def test_each_destination_gets_everything_and_one_that_takes_traces_only_no_error(
    signal_sink: Callable[..., SignalSink], sender: Callable[..., Sender], tmp_path: Path
) -> None:
    both, traces = signal_sink(), signal_sink([Signal.TRACES])
    settings = config(both.endpoint, rules=[{"name": "all", "keep": "all"}])
    settings["export"] += [
        {**settings["export"][0], "name": "traces", "endpoint": traces.endpoint},
        {"name": "file", "protocol": "file", "path": str(tmp_path / "traces.jsonl")},
    ]
    proxy = Proxy(settings, tmp_path)
    to = sender(proxy)
    for number in range(20):
        to.grpc(LOGS, logs(str(number)))
    to.grpc(Signal.TRACES, one_trace(Random(1)).SerializeToString())
    exported(proxy, LOGS, 20)
    settled = proxy.await_metrics(
        lambda m: m.total("passthrough_requests_unwanted_total", destination="traces", signal="logs") == 20
    )
    assert not settled.unbalanced()
    assert settled.by("passthrough_requests_routed_total", "destination") == {"sink": 20, "traces": 20}
    until(lambda: all(sink.requests(Signal.TRACES) for sink in (both, traces)))
    assert settled.by("destination_up", "destination") == {"sink": 1, "traces": 1, "file": 1}
    assert sorted(map(int, bodies(both))) == list(range(20))
    assert len([line for line in proxy.log() if "does not know them" in line["event"]]) == 1
    assert proxy.terminate() == 0


class HttpBackend(ThreadingHTTPServer):
    """Knows traces and metrics, over HTTP."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        super().__init__(("127.0.0.1", 0), HttpAnswers)


class HttpAnswers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, HttpBackend)
        known = self.path in ("/v1/traces", "/v1/metrics")
        if known:
            self.server.stored[self.path] = self.server.stored.get(self.path, b"") + body
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_destination_over_http(sender: Callable[..., Sender], tmp_path: Path) -> None:
    backend = HttpBackend()
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    settings = config(f"http://127.0.0.1:{backend.server_port}")
    settings["export"][0]["protocol"] = "http/protobuf"
    proxy = Proxy(settings, tmp_path)
    to = sender(proxy)
    to.grpc(LOGS, logs("a"))
    for _ in range(3):
        to.grpc(METRICS, b"\n\x02\n\0")
    exported(proxy, METRICS, 3)
    settled = proxy.await_metrics(lambda m: m.total("passthrough_requests_unwanted_total", signal="logs") == 1)
    assert not settled.unbalanced()
    assert settled.total("passthrough_failures_total", signal="logs", code="HTTP 404") == 1
    assert backend.stored == {"/v1/metrics": b"\n\x02\n\0" * 3}
    assert settled.total("destination_up") == 1
    backend.shutdown()
    backend.server_close()


@pytest.mark.parametrize("passthrough", ["all", "discard"])
def test_what_nobody_takes_is_counted_and_the_sender_gets_ok(
    sender: Callable[..., Sender], tmp_path: Path, passthrough: str
) -> None:
    file = {"name": "file", "protocol": "file", "path": str(tmp_path / "traces.jsonl")}
    proxy = Proxy({**config(""), "export": [file], "passthrough": passthrough}, tmp_path)
    to = sender(proxy)
    assert to.grpc(LOGS, logs("a")) == b""
    assert to.http(METRICS, b"") == (200, b"")
    metrics = proxy.metrics()
    assert metrics.by("passthrough_requests_discarded_total", "signal") == {"logs": 1, "metrics": 1, "profiles": 0}
    assert not metrics.unbalanced()
    said = [line["event"] for line in proxy.log() if "discarded" in line["event"]]
    assert len(said) == (passthrough == "all")
    assert proxy.terminate() == 0


def test_off_refuses_every_signal_but_traces(
    signal_sink: Callable[..., SignalSink], sender: Callable[..., Sender], tmp_path: Path
) -> None:
    sink = signal_sink()
    proxy = Proxy(config(sink.endpoint, passthrough="off"), tmp_path)
    to = sender(proxy)
    for signal in PASSED_ON:
        assert to.refusal(signal, b"") == (grpc.StatusCode.UNIMPLEMENTED, None)
        assert to.http(signal, b"")[0] == 404
    metrics = proxy.metrics()
    assert all(metrics.total("calls_not_served_total", kind=signal.label) == 2 for signal in PASSED_ON)
    assert not metrics.total("passthrough_requests_received_total")


def test_refusals_are_those_of_traces(
    signal_sink: Callable[..., SignalSink], sender: Callable[..., Sender], tmp_path: Path
) -> None:
    """`max_request_bytes` is 256 KiB here."""
    proxy = Proxy(config(signal_sink().endpoint), tmp_path)
    to = sender(proxy)
    assert to.refusal(LOGS, b"\n\x09abc") == (grpc.StatusCode.INVALID_ARGUMENT, None)
    assert to.refusal(LOGS, b"\n" + bytes(MIB)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    assert to.refusal(LOGS, gzip.compress(bytes(MIB))) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    assert to.refusal(LOGS, gzip.compress(logs("a"))[:-4]) == (grpc.StatusCode.INVALID_ARGUMENT, None)
    assert to.http(LOGS, b"\n\x09abc")[0] == 400
    assert to.http(LOGS, b'{"resourceLogs": [{"scopeLogs": 5}]}', "json")[0] == 400
    assert to.http(LOGS, gzip.compress(bytes(MIB)), Content_Encoding="gzip")[0] == 413
    assert to.http(LOGS, b"", "plain")[0] == 415
    metrics = proxy.metrics()
    assert metrics.by("passthrough_requests_refused_total", "reason") == {"malformed": 2}
    assert metrics.by("requests_refused_total", "reason") == {
        "too_large": 3,
        "compression": 1,
        "malformed": 1,
        "content_type": 1,
    }
    assert not metrics.total("passthrough_requests_received_total")
    assert to.grpc(LOGS, logs("good")) == b""


def test_a_full_queue_refuses_its_signal_and_neither_others_nor_traces(
    signal_sink: Callable[..., SignalSink], sender: Callable[..., Sender], tmp_path: Path
) -> None:
    """A sixteenth of 16 MiB is what is passed on may take, and a signal alone half of that."""
    port = free_port()
    settings = config(f"http://127.0.0.1:{port}", rules=[{"name": "all", "keep": "all"}])
    settings["buffer"] |= {"max_bytes": "16MiB", "max_trace_bytes": "1MiB"}
    proxy = Proxy(settings, tmp_path)
    scraper = Scraper(proxy)
    to = sender(proxy)
    taken = 0
    with suppress(grpc.RpcError):
        while True:
            to.grpc(LOGS, logs(f"{taken:06}" + "x" * 10_000))
            taken += 1
    assert 48 <= taken <= 53
    assert to.refusal(LOGS, logs("x" * 10_000)) == (grpc.StatusCode.UNAVAILABLE, 1.0)
    status, body = to.http(LOGS, logs("x" * 10_000))
    assert (status, b"queue of logs is full" in body) == (503, True)
    assert to.grpc(METRICS, b"\n\x02\n\0") == b""
    to.grpc(Signal.TRACES, one_trace(Random(1)).SerializeToString())
    metrics = proxy.metrics()
    assert metrics.by("passthrough_requests_refused_total", "reason") == {"queue_full": 3}
    assert metrics.total("passthrough_queue_bytes") <= metrics.total("passthrough_queue_max_bytes") == MIB
    sink = signal_sink(port=port)
    exported(proxy, LOGS, taken)
    assert [body[:6] for body in sorted(bodies(sink))] == [f"{number:06}" for number in range(taken)]
    to.grpc(LOGS, logs("there is room again"))
    exported(proxy, LOGS, taken + 1)
    scraper.stop()
    assert proxy.terminate() == 0


def test_a_stop_sends_what_is_queued(
    signal_sink: Callable[..., SignalSink], sender: Callable[..., Sender], tmp_path: Path
) -> None:
    sink = signal_sink()
    settings = config(sink.endpoint, rules=[{"name": "all", "keep": "all"}])
    settings["buffer"] |= {"decision_wait": "60s", "decision_wait_after_root": "60s"}
    settings["export"][0]["batch"] = {"max_wait": "60s"}
    proxy = Proxy(settings, tmp_path)
    to = sender(proxy)
    for number in range(30):
        to.grpc(LOGS, logs(str(number)))
    to.grpc(Signal.TRACES, one_trace(Random(1)).SerializeToString())
    assert not sink.asked
    assert proxy.terminate() == 0
    assert sorted(map(int, bodies(sink))) == list(range(30))
    assert ExportTraceServiceRequest.FromString(sink.of(Signal.TRACES)).resource_spans


def test_a_stop_says_what_could_not_be_sent(sender: Callable[..., Sender], tmp_path: Path) -> None:
    proxy = Proxy(config(f"http://127.0.0.1:{free_port()}", shutdown_timeout="1s"), tmp_path)
    to = sender(proxy)
    for _ in range(3):
        to.grpc(METRICS, b"\n\x02\n\0")
    assert proxy.terminate() == 0  # no kept span was lost
    assert proxy.await_event("export sink (metrics): 3 requests lost at shutdown")["level"] == "error"
