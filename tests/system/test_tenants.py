"""Headers of requests stay with what these carry through the whole process, over both protocols, in and out."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from sampler_proxy.otlp.signals import Signal
from tests.receive import raw_http2
from tests.support import nezha
from tests.support.processes import Proxy, until
from tests.system.test_passthrough import Sender, logs
from tests.system.test_run import config
from tests.system.traffic import one_trace

TENANT = "x-scope-orgid"
RULES = [
    {"name": "unwanted", "match": f'{{ metadata.{TENANT} = "unwanted" }}', "keep": "none"},
    {"name": "rest", "keep": "all"},
]


class Backend:
    """An OTLP/HTTP server that keeps the tenant, the path and the body of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str | None, str, bytes]] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                backend.seen.append((self.headers[TENANT], self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, path: str) -> dict[str | None, list[bytes]]:
        """Bodies by tenant."""
        found: dict[str | None, list[bytes]] = {}
        for tenant, at, body in list(self.seen):
            if at == path:
                found.setdefault(tenant, []).append(body)
        return found

    def spans(self) -> dict[str | None, set[str]]:
        """Names of spans by tenant."""
        requests = {
            tenant: [ExportTraceServiceRequest.FromString(body) for body in bodies]
            for tenant, bodies in self.of("/v1/traces").items()
        }
        return {tenant: {span.name for span in nezha.spans(each)} for tenant, each in requests.items()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def http_backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.close()


def configuration(endpoint: str, **more: Any) -> dict[str, Any]:
    settings = config(endpoint, rules=RULES, **more)
    settings["receive"]["metadata"] = ["X-Scope-OrgID"]
    settings["export"][0] |= {"compression": "none", "headers": {TENANT: "nobody"}}
    return settings


def test_spans_of_sdks_leave_with_the_headers_that_they_came_with(http_backend: Backend, tmp_path: Path) -> None:
    settings = configuration(http_backend.endpoint)
    settings["export"][0]["protocol"] = "http/protobuf"
    proxy = Proxy(settings, tmp_path)
    grpc_url, http_url = f"http://127.0.0.1:{proxy.port}", f"http://127.0.0.1:{proxy.http_port}/v1/traces"
    exporters = {
        "a": GrpcSpanExporter(grpc_url, insecure=True, headers={TENANT: "a"}),
        "b": HttpSpanExporter(http_url, headers={TENANT: "b"}),
        "unwanted": HttpSpanExporter(http_url, headers={TENANT: "unwanted"}),
        "nobody": GrpcSpanExporter(grpc_url, insecure=True),
    }
    for name, exporter in exporters.items():
        provider = TracerProvider(resource=Resource({"service.name": "one"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        for number in range(3):
            provider.get_tracer("t").start_span(f"{name} {number}").end()
        provider.shutdown()
    expected = {name: {f"{name} {number}" for number in range(3)} for name in ("a", "b", "nobody")}
    until(lambda: http_backend.spans() == expected)
    proxy.await_metrics(lambda m: m.total("spans_sampled_out_total", rule="unwanted") == 3)
    assert not any(TENANT.encode() in body for _, _, body in http_backend.seen)


def test_json_pages_and_logs_have_tenants_too(http_backend: Backend, tmp_path: Path) -> None:
    settings = configuration(http_backend.endpoint)
    settings["export"][0]["protocol"] = "http/protobuf"
    proxy = Proxy(settings, tmp_path)
    sender = Sender(proxy)
    document = {
        "resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "1" * 32, "spanId": "2" * 16, "name": "j"}]}]}]
    }
    assert sender.http(Signal.TRACES, json.dumps(document).encode(), "json", X_Scope_OrgID="j")[0] == 200
    for tenant in ("a", "b", "a"):
        assert sender.http(Signal.LOGS, logs(tenant), X_SCOPE_ORGID=tenant)[0] == 200
    assert sender.http(Signal.LOGS, logs("none"))[0] == 200
    until(lambda: sum(map(len, http_backend.of("/v1/logs").values())) >= 3 and http_backend.spans() == {"j": {"j"}})
    proxy.await_metrics(lambda m: m.total("passthrough_requests_exported_total", signal="logs") == 4)
    found = {tenant: b"".join(bodies) for tenant, bodies in http_backend.of("/v1/logs").items()}
    assert found == {"a": logs("a", "a"), "b": logs("b"), "nobody": logs("none")}
    sender.close()


def test_over_grpc_to_a_back_end_and_through_a_restart_of_it(tmp_path: Path) -> None:
    """What the queue holds while the back end is away has not lost its headers when it is back."""
    seen: dict[bytes, str] = {}

    def serve(port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])

        def export(request: bytes, context: grpc.ServicerContext) -> bytes:
            tenant = str(dict(context.invocation_metadata())[TENANT])
            for span in nezha.spans([ExportTraceServiceRequest.FromString(request)]):
                seen[span.trace_id] = tenant
            return b""

        service, _, name = Signal.TRACES.method[1:].partition("/")
        handler = grpc.unary_unary_rpc_method_handler(export)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server, port

    server, port = serve(0)
    proxy = Proxy(configuration(f"http://127.0.0.1:{port}"), tmp_path)
    random = Random(5)
    expected: dict[bytes, str] = {}
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        export = channel.unary_unary(Signal.TRACES.method)

        def send() -> None:
            for number in range(30):
                request = one_trace(random)
                tenant = f"tenant {number % 7}"
                export(request.SerializeToString(), metadata=[(TENANT, tenant)], timeout=20)
                expected.update(dict.fromkeys((span.trace_id for span in nezha.spans([request])), tenant))

        send()
        until(lambda: seen == expected)
        server.stop(None).wait(10)
        send()
        proxy.await_metrics(lambda m: m.total("queue_spans") > 0)
        server, _ = serve(port)
        until(lambda: seen == expected, 30)
    server.stop(None).wait(10)


@pytest.mark.parametrize("value", [b"caf\xc3\xa9", b"\x01", b"\xff"])
def test_a_header_that_cannot_go_out_is_refused(sink_less: Proxy, value: bytes) -> None:
    before = sink_less.metrics().total("requests_refused_total", reason="malformed")
    connection = http.client.HTTPConnection("127.0.0.1", sink_less.http_port, timeout=20)
    connection.putrequest("POST", "/v1/traces")
    connection.putheader("Content-Type", "application/x-protobuf")
    connection.putheader("Content-Length", "0")
    connection.putheader(TENANT, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 400
    assert value not in body
    if value[0] >= 32:  # others are refused with the head
        assert sink_less.metrics().total("requests_refused_total", reason="malformed") == before + 1


@pytest.mark.parametrize("value", [b"\xff\xe4", "\u00fc".encode(), b"a\tb"])
def test_a_header_that_cannot_go_out_is_refused_over_grpc(sink_less: Proxy, value: bytes) -> None:
    before = sink_less.metrics().total("requests_refused_total", transport="grpc")
    fields = [(":method", "POST"), (":scheme", "http"), (":path", raw_http2.EXPORT), (":authority", "x")]
    fields += [("te", "trailers"), ("content-type", "application/grpc")]
    tenant = b"\0" + bytes([len(TENANT)]) + TENANT.encode() + bytes([len(value)]) + value
    with raw_http2.Connection(sink_less.port) as connection:
        connection.send(raw_http2.HEADERS, raw_http2.END_HEADERS, 1, raw_http2.block(fields) + tenant)
        connection.send(raw_http2.DATA, raw_http2.END_STREAM, 1, raw_http2.message(b""))
        answer = b""
        while b"grpc-status" not in answer:
            answer += connection.read().payload
    assert b"visible ASCII" in answer
    assert value not in answer
    assert answer.split(b"grpc-status")[1][1:2] == b"3"  # INVALID_ARGUMENT
    after = sink_less.metrics()
    assert after.total("requests_refused_total", transport="grpc", reason="malformed") == before + 1
    assert after.total("requests_refused_total", transport="grpc", reason="internal") == 0


@pytest.fixture(scope="module")
def sink_less(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(configuration("http://127.0.0.1:1"), tmp_path_factory.mktemp("tenants"))
    yield proxy
    proxy.kill()
