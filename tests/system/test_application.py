"""A real application, instrumented by OpenTelemetry alone, through the proxy: what is kept of it arrives whole.

Three processes under `opentelemetry-instrument`, with nothing set but where to send, how, and their names. They live
through both tests; the proxy they send to does not.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from sampler_proxy.otlp.signals import Signal
from tests.support import reference, tracestate
from tests.support.processes import LOCAL, STARTED, Process, Proxy, environment, free_port, until
from tests.support.signal_sink import SignalSink
from tests.support.sink import Sink

SERVICES = ("frontend", "backend", "database")
SPANS = 5  # the server's in each service, the client's in the first two


class Shop(NamedTuple):
    url: str
    proxy_port: int

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and trace id."""
        try:
            with LOCAL.open(f"{self.url}/{path}", timeout=30) as answer:
                return answer.status, bytes.fromhex(json.load(answer)["trace"])
        except urllib.error.HTTPError as error:
            with error:
                return error.code, bytes.fromhex(json.load(error)["trace"])

    def visit(self, healthy: int, broken: int) -> tuple[set[bytes], set[bytes]]:
        """Trace ids of the visits that went well, and of those that did not; the latter spread over the former."""
        every = (healthy + broken) // broken
        paths = [
            f"broken/{n}" if n % every == every - 1 and n // every < broken else f"fine/{n}"
            for n in range(healthy + broken)
        ]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(self.get, paths))
        fine, failed = ({trace_id for status, trace_id in answers if status == wanted} for wanted in (200, 500))
        assert (len(fine), len(failed)) == (healthy, broken)
        return fine, failed


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    proxy_port = free_port()
    before = len(STARTED)
    url = ""
    for name in reversed(SERVICES):
        env = environment(
            OTEL_SERVICE_NAME=name,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{proxy_port}",
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            OTEL_BSP_SCHEDULE_DELAY="200",
        )
        command = [instrument(), sys.executable, str(Path(__file__).parent / "shop.py"), url]
        url = f"http://127.0.0.1:{Process(name, command, folder, env).line()}"
    processes = STARTED[before:]
    yield Shop(url, proxy_port)
    for process in processes:
        process.kill()
        STARTED.remove(process)


def instrument() -> str:
    """The script that instruments a program."""
    found = shutil.which(
        "opentelemetry-instrument", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    )
    assert found, "opentelemetry-instrument is not installed: pip install -e '.[dev]'"
    return found


def test_errors_arrive_whole_and_one_percent_of_the_rest(shop: Shop, sink: Sink, tmp_path: Path) -> None:
    """With the default rules."""
    fine, failed, _ = visited(shop, sink, tmp_path, {}, healthy=300, broken=20)
    check(sink, fine, failed, 0.01)


def test_the_share_that_is_configured_arrives(shop: Shop, sink: Sink, tmp_path: Path) -> None:
    rules = [
        {"name": "errors", "match": "{ status = error }", "keep": "all"},
        {"name": "baseline", "keep": "10%"},
    ]
    fine, failed, kept = visited(shop, sink, tmp_path, {"rules": rules}, healthy=120, broken=10)
    check(sink, fine, failed, 0.1)
    assert kept == {"errors": SPANS * len(failed), "baseline": SPANS * len(expected(fine, 0.1))}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("knows", [[*Signal], [Signal.TRACES]], ids=["a back end for all", "one for traces"])
def test_an_application_that_logs_and_counts_has_no_error(protocol: str, knows: list[Signal], tmp_path: Path) -> None:
    """With the line of the README, but for its default intervals: it exports ten times while this lasts."""
    sink = SignalSink(knows)
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "export": [{"name": "sink", "endpoint": sink.endpoint}],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
    )
    port = proxy.port if protocol == "grpc" else proxy.http_port
    env = environment(
        OTEL_SERVICE_NAME="counting",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
        OTEL_METRIC_EXPORT_INTERVAL="300",
        OTEL_BSP_SCHEDULE_DELAY="300",
        OTEL_BLRP_SCHEDULE_DELAY="300",
    )
    command = [instrument(), sys.executable, str(Path(__file__).parent / "counting.py")]
    application = Process("application", command, tmp_path, env)
    application.line()
    received = "passthrough_requests_received_total"
    proxy.await_metrics(
        lambda m: (
            all(m.total(received, signal=each) >= 10 for each in ("logs", "metrics"))
            and m.total("spans_received_total") > 0
        )
    )
    assert application.terminate() == 0
    said = application.stderr().splitlines()
    assert said
    assert all(line.startswith("INFO:counting:order ") for line in said), "\n".join(said[:20])
    metrics = proxy.metrics()
    assert not metrics.unbalanced()
    assert not metrics.total("requests_refused_total")
    if Signal.LOGS in knows:
        proxy.await_metrics(lambda m: not m.total("passthrough_queue_requests"))
        until(lambda: "orders" in str(ExportMetricsServiceRequest.FromString(sink.of(Signal.METRICS))))
        records = ExportLogsServiceRequest.FromString(sink.of(Signal.LOGS)).resource_logs
        bodies = [r.body.string_value for each in records for scope in each.scope_logs for r in scope.log_records]
        assert f"order {len(said)} was placed" in bodies
        assert len(bodies) == len(said)
    else:
        assert metrics.total("passthrough_requests_unwanted_total") > 0
    assert proxy.terminate() == 0
    sink.stop()


def visited(
    shop: Shop, sink: Sink, folder: Path, config: dict[str, Any], healthy: int, broken: int
) -> tuple[set[bytes], set[bytes], dict[str, int]]:
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": f"127.0.0.1:{shop.proxy_port}"}},
            "buffer": {"decision_wait": "20s", "decision_wait_after_root": "3s"},
            "export": [{"name": "sink", "endpoint": sink.endpoint}],
            "admin": {"endpoint": "127.0.0.1:0"},
            **config,
        },
        folder,
    )
    fine, failed = shop.visit(healthy, broken)
    spans = SPANS * (healthy + broken)
    proxy.await_metrics(lambda m: m.total("spans_received_total") == spans)
    settled = proxy.await_settled()
    assert not settled.unbalanced()
    assert settled.total("spans_received_total") == spans
    # The services export every 200 ms: 3 s after the root everything has long been there.
    assert settled.total("late_spans_total") == 0
    by_reason = settled.by("traces_decided_total", "reason")
    assert sum(by_reason.values()) == healthy + broken
    assert by_reason["early"] >= broken  # an error is kept when it is seen
    assert set(by_reason) <= {"early", "root"}
    assert settled.total("spans_exported_total") == settled.total("spans_kept_total")
    assert proxy.terminate() == 0
    return fine, failed, {rule: spans for rule, spans in settled.by("spans_kept_total", "rule").items() if spans}


def expected(trace_ids: set[bytes], share: float) -> set[bytes]:
    """Those whose randomness, the last 7 bytes, reaches the threshold."""
    threshold = reference.threshold_of(share)
    return {trace_id for trace_id in trace_ids if int.from_bytes(trace_id[9:]) >= threshold}


def check(sink: Sink, fine: set[bytes], failed: set[bytes], share: float) -> None:
    arrived = sink.traces
    # A machine in trouble may make a visit last longer than a second, which the default rules keep.
    slow = {i for i, trace in arrived.items() if i in fine and (reference.root_duration(trace) or 0) > 1_000_000_000}
    by_chance = expected(fine, share) - slow
    assert set(arrived) == failed | by_chance | slow
    for trace_id, trace in arrived.items():
        assert_whole(trace)
        rule = "errors" if trace_id in failed else "baseline" if trace_id in by_chance else "slow"
        state = f"ot=th:{tracestate.hex_threshold(reference.threshold_of(share))}" if rule == "baseline" else ""
        for one in trace:
            stamped = {a.key: a.value.string_value for a in one.span.attributes if a.key.startswith("sampler_proxy.")}
            assert stamped == {
                "sampler_proxy.rule": rule,
                "sampler_proxy.reason": "root" if rule == "baseline" else "early",
            }
            assert one.span.trace_state == state


def assert_whole(trace: list[reference.Seen]) -> None:
    """One chain from the first service's server span to the last one's, two spans in each service but the last."""
    by_id = {one.span.span_id: one for one in trace}
    assert len(trace) == len(by_id) == SPANS
    (leaf,) = set(by_id) - {one.span.parent_span_id for one in trace}
    chain = [by_id[leaf]]
    while parent := chain[-1].span.parent_span_id:
        chain.append(by_id[parent])
    names = [reference.plain(reference.last_value(one.resource.attributes, b"service.name")) for one in chain[::-1]]
    assert names == [b"frontend", b"frontend", b"backend", b"backend", b"database"]
