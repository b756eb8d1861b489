"""What a service answers about itself: metrics, rates and traces, from real parts that are not running."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import structlog

from sampler_proxy import metrics
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Adaptive, Config, FileExport, Limit, Rule
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.file import FileExporter
from sampler_proxy.export.passing import PassThrough
from sampler_proxy.operate.doors import Doors
from sampler_proxy.operate.learned_rates import Rates
from sampler_proxy.operate.reload import Reloader
from sampler_proxy.operate.status import Status, log_introduction
from sampler_proxy.otlp.sampling import probability_of
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.units import Rate
from tests.operate.traces import HIGH, LOW, request, span

SECOND = 1_000_000_000
RULES = (
    Rule(name="busy", match='{ name = "step 1" }', keep=Adaptive(target=Rate(100.0, "spans"))),
    Rule(name="half", keep=0.5),
)


class Bench:
    """A status, and the pipeline that it is about, at `now_ns`."""

    def __init__(self, folder: Path, *rules: Rule) -> None:
        rules = rules or RULES
        self.now_ns = 0
        export = FileExport(name="local", protocol="file", path=str(folder / "out"))
        loaded = load_config(Config(rules=rules, limit=Limit(spans=50.0), export=(export,)))
        rates = Rates(1)
        prepared = rates.prepare(loaded)
        rates.adopt(prepared)
        self.latency = metrics.HistogramData(metrics.EXPORT_LATENCY_SECONDS)
        dependencies = Dependencies(assemble, lambda: self.now_ns, random.random, self.latency.observe)
        self.exporter = FileExporter(export, dependencies)
        self.pipeline = Pipeline(
            rules=([rule.name for rule in rules], prepared.keeps, loaded.compiled),
            destinations=[self.exporter.queue],
            max_bytes=1 << 30,
            max_trace_bytes=1 << 20,
            wait_ns=SECOND,
            wait_after_root_ns=SECOND,
            decision_memory_bytes=1 << 20,
            stamp_decision=False,
            stamp_adjusted_count=False,
            seed=1,
        )
        self.status = Status(
            self.pipeline,
            rates,
            Reloader(loaded, lambda: loaded, lambda *_: None, lambda: 7.0),
            [self.exporter],
            {"local": self.latency},
            "an engine",
            {metrics.CALLS_NOT_SERVED: {"logs": 3, "other": 0}, metrics.CONNECTIONS_REFUSED: {"tls": 1}},
            PassThrough([], lambda: 1 << 20, lambda: self.now_ns, random.random).values,
            Doors(Config()),
            clock=lambda: self.now_ns,
            time=lambda: 1_700_000_000.0,
        )

    def accept(self, *spans: Any) -> None:
        self.pipeline.intake("grpc").accept(request(*spans).SerializeToString(), self.now_ns)


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    async def made() -> Bench:
        return Bench(tmp_path)

    return asyncio.run(made())


def test_a_snapshot_has_every_metric(bench: Bench) -> None:
    bench.accept(span(HIGH, 1), span(LOW, 2))
    bench.latency.observe(0.5)
    values = bench.status.snapshot()
    assert set(values) == set(metrics.METRICS)
    assert values[metrics.SPANS_RECEIVED] == {("grpc",): 2}
    assert values[metrics.CALLS_NOT_SERVED] == {("logs",): 3, ("other",): 0}
    assert values[metrics.QUEUE_MAX_BYTES] == {("local",): 64 << 20}
    assert values[metrics.EXPORT_LATENCY_SECONDS]["local",] == bench.latency.value()
    assert values[metrics.RULES_LOADED_TIMESTAMP_SECONDS] == {(): 7.0}
    assert values[metrics.CONFIG_RELOADS] == {("applied",): 0, ("unchanged",): 0, ("failed",): 0}
    ((_, engine),) = values[metrics.BUILD_INFO]
    assert engine == "an engine"


def test_the_queue_of_a_destination_is_seen(bench: Bench) -> None:
    bench.accept(span(HIGH, 2))
    bench.now_ns = 2 * SECOND
    bench.pipeline.tick(bench.now_ns)
    values = bench.status.snapshot()
    assert values[metrics.SPANS_ROUTED] == values[metrics.QUEUE_SPANS] == {("local",): 1}
    assert values[metrics.QUEUE_BYTES]["local",] == bench.exporter.queue.counters().queued_bytes > 0


def test_a_trace_is_buffered_then_decided_then_unknown(bench: Bench) -> None:
    assert bench.status.find(LOW) is None
    bench.accept(span(LOW, 2))
    found = bench.status.find(LOW)
    assert found is not None
    assert (found["state"], found["spans"]) == ("buffered", 1)
    bench.now_ns = 2 * SECOND
    bench.pipeline.tick(bench.now_ns)
    bench.now_ns = 5 * SECOND
    found = bench.status.find(LOW)
    assert found is not None
    assert (found["state"], found["rule"], found["keep"]) == ("decided", "half", False)
    assert (found["threshold"], found["probability"]) == ("8", probability_of(1 << 55))
    assert found["decided_at"] == "2023-11-14T22:13:17.000Z"  # 3 s ago
    assert "ago_seconds" not in found


def test_a_kept_trace_is_followed_to_its_destinations(bench: Bench) -> None:
    def fates() -> Any:
        found = bench.status.find(HIGH)
        assert found is not None
        return found.get("destinations")

    bench.accept(span(HIGH, 2))
    assert fates() is None
    bench.now_ns = 2 * SECOND
    bench.pipeline.tick(bench.now_ns)
    assert fates() == {"local": "queued"}
    traces = bench.exporter.queue.take()
    assert fates() == {"local": "unknown"}
    bench.exporter.fates.exported(traces)
    assert fates() == {"local": "exported"}


def test_a_kept_trace_that_a_full_queue_refuses_is_queued(bench: Bench) -> None:
    """It waits in the pipeline's backlog: kept, and not in the queue yet."""
    queue = bench.exporter.queue
    queue.max_bytes = 1
    other = bytes(8) + HIGH[8:]
    bench.accept(span(other, 1), span(HIGH, 2))
    bench.now_ns = 2 * SECOND
    bench.pipeline.tick(bench.now_ns)
    assert queue.counters().queued_spans == 1
    for trace in (other, HIGH):
        found = bench.status.find(trace)
        assert found is not None
        assert found["destinations"] == {"local": "queued"}
    for trace in (other, HIGH):
        taken = queue.take()
        queue.exported(taken)
        bench.exporter.fates.exported(taken)
        bench.pipeline.tick(bench.now_ns)
        found = bench.status.find(trace)
        assert found is not None
        assert found["destinations"] == {"local": "exported"}


def test_a_destination_that_fails_is_named_with_its_last_error(bench: Bench) -> None:
    assert bench.status.unwell() == {}
    bench.now_ns = 10 * SECOND
    bench.exporter.report.failed("ENOSPC", "cannot write the file, ENOSPC")
    bench.now_ns = 12 * SECOND
    health = {
        "up": False,
        "last_error": "cannot write the file, ENOSPC",
        "last_error_at": "2023-11-14T22:13:18.000Z",
    }
    assert bench.status.unwell() == {"destinations": {"local": health}}
    described: Any = bench.status.destinations()
    (local,) = described["destinations"]
    assert local["name"] == "local"
    assert health.items() <= local.items()
    assert local["failures"] == {"ENOSPC": 1}
    assert local["spans"]["queued"] == 0
    values = bench.status.snapshot()
    assert values[metrics.DESTINATION_UP] == {("local",): 0}
    assert values[metrics.EXPORT_FAILURES] == {("local", "ENOSPC"): 1}
    bench.exporter.report.succeeded()
    assert bench.status.unwell() == {}


def test_rates_describe_targets_and_the_limit(bench: Bench) -> None:
    described: Any = bench.status.rates()
    assert [rule["rule"] for rule in described["rules"]] == ["busy"]
    assert described["limit"] == {"spans": "50/s", "floor": "20%"}
    assert described["removed_by_limit"] == {}
    assert "note" not in described
    assert described["trace_ids_random"] is True


def test_rates_without_a_target_say_so(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, Rule(name="half", keep=0.5))
        described: Any = bench.status.rates()
        assert described["rules"] == []
        assert described["note"].startswith("no rule has a target")

    asyncio.run(main())


def test_the_summary_counts_one_span_as_one_and_is_silent_where_nothing_changes(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        bench.status.log_summary()
        bench.accept(span(HIGH, 1))
        for _ in range(3):
            bench.status.log_summary()
        bench.now_ns = 2 * SECOND
        bench.pipeline.tick(bench.now_ns)
        for _ in range(3):
            bench.status.log_summary()
    assert [line["event"] for line in logs] == [
        "1 span received, 0 kept, 0 sampled out, 1 waiting; 0 traces decided",
        "1 span received, 1 kept, 0 sampled out, 0 waiting; 1 trace decided",
    ]


def test_the_log_sums_up_for_a_terminal(bench: Bench) -> None:
    bench.accept(span(HIGH, 2), span(LOW, 2), span(LOW, 3))
    bench.now_ns = 2 * SECOND
    bench.pipeline.tick(bench.now_ns)
    bench.accept(span(b"\x01" * 16, 1))
    with structlog.testing.capture_logs() as logs:
        bench.status.log_summary()
        log_introduction(Config(rules=RULES))
    assert [line["event"] for line in logs] == [
        "4 spans received, 1 kept, 2 sampled out, 1 waiting; 2 traces decided",
        "no configuration file: by default these traces are kept, in sampler-proxy-traces.jsonl: "
        'busy (100 spans/s of { name = "step 1" }), half (50% of the rest)',
    ]
