"""OpenTelemetry's own SDK, with roots that end before their trace does, and with parents that are never sent here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import RandomIdGenerator, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.support.processes import Proxy
from tests.support.sink import Sink

MS = 1_000_000
START = 1_760_000_000 * 1000 * MS
THEIRS = "00f067aa0ba902b7"  # a span of a customer's


class _Unlucky(RandomIdGenerator):
    """Traces that no percentage keeps."""

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() >> 56 << 56 | 1


class Application:
    """One process: a span's times are given, as the proxy's decision depends on them."""

    def __init__(self, service: str, port: int) -> None:
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": service}), id_generator=_Unlucky(), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}", insecure=True)
        self.provider.add_span_processor(SimpleSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("test")

    def handle(self, headers: dict[str, str], *, ms: int, mail_ms: int = 0) -> tuple[str, dict[str, str]]:
        """Answer a request in `ms`, and send a mail that takes `mail_ms` after it; return the trace id, and the headers
        of a request that is made meanwhile."""
        context = TraceContextTextMapPropagator().extract(headers)
        root = self.tracer.start_span("GET /", context, start_time=START)
        inside = trace.set_span_in_context(root)
        child = self.tracer.start_span("SELECT", inside, start_time=START)
        sent: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(sent, trace.set_span_in_context(child))
        child.end(START + ms * MS)
        root.end(START + ms * MS)
        if mail_ms:
            self.tracer.start_span("mail", inside, start_time=START + ms * MS).end(START + (ms + mail_ms) * MS)
        return f"{root.get_span_context().trace_id:032x}", sent


@pytest.fixture
def proxy(sink: Sink, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """With the default rules."""
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "buffer": {"decision_wait": "10m", "decision_wait_after_root": "1s", **getattr(request, "param", {})},
            "export": [{"name": "sink", "endpoint": sink.endpoint, "batch": {"max_wait": "20ms"}}],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
    )
    yield proxy
    assert proxy.terminate() == 0


def decided(proxy: Proxy, traces: int) -> Any:
    return proxy.await_metrics(lambda m: m.total("traces_decided_total") == traces)


@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{1:032x}-{THEIRS}-01"}], ids=["ours", "a customer's"])
def test_a_mail_after_the_response_is_not_slow_and_a_slow_response_is(
    headers: dict[str, str], proxy: Proxy, sink: Sink
) -> None:
    application = Application("shop", proxy.port)
    first = {"traceparent": headers["traceparent"].replace("00-00", "00-01")} if headers else {}
    healthy, _ = application.handle(first, ms=100, mail_ms=60_000)
    slow, _ = application.handle(headers, ms=1_200)
    metrics = decided(proxy, 2)
    assert metrics.by("traces_decided_total", "reason") == {"root": 2}
    assert metrics.by("spans_kept_total", "rule")["slow"] == 2
    assert metrics.total("traces_rootless_total") == 0
    proxy.await_metrics(lambda m: m.total("spans_exported_total") == 2)
    assert {trace_id.hex() for trace_id in sink.traces} == {slow} != {healthy}
    (kept,) = sink.traces.values()
    assert not any(a.key == "sampler_proxy.incomplete" for one in kept for a in one.span.attributes)
    application.provider.shutdown()


def test_services_of_one_trace_whose_first_parent_is_never_sent(proxy: Proxy) -> None:
    """What the called service says of its parent is no reason to take it as the root: that one is there."""
    shop, bank = Application("shop", proxy.port), Application("bank", proxy.port)
    parent = {"traceparent": f"00-{1:032x}-{THEIRS}-01"}
    slow, headers = shop.handle(parent, ms=1_500)
    assert bank.handle(headers, ms=200)[0] == slow
    metrics = decided(proxy, 1)
    assert metrics.by("traces_decided_total", "reason") == {"root": 1}
    assert metrics.by("spans_kept_total", "rule")["slow"] == 4
    for application in (shop, bank):
        application.provider.shutdown()


@pytest.mark.parametrize("proxy", [{"root": "parentless", "decision_wait": "2s"}], indirect=True)
def test_where_a_root_has_no_parent_such_a_trace_waits_in_vain(proxy: Proxy) -> None:
    application = Application("shop", proxy.port)
    application.handle({"traceparent": f"00-{1:032x}-{THEIRS}-01"}, ms=100)
    metrics = decided(proxy, 1)
    assert metrics.by("traces_decided_total", "reason") == {"wait": 1}
    assert metrics.total("traces_rootless_total") == 1
    application.provider.shutdown()
