"""The exposition, against a golden file and both official parsers.

`python tests/test_metrics.py` writes the golden file anew: read the difference before committing it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sampler_proxy import metrics
from sampler_proxy.errors import OutOfMemory
from sampler_proxy.export.queue import FULL
from sampler_proxy.metrics import METRICS, PREFIX, HistogramData, HistogramValue, LedgerCollector, Metric, Snapshot
from sampler_proxy.operate.reload import OUTCOMES, RELOADED
from sampler_proxy.pipeline.ledger import REASONS
from sampler_proxy.receive.grpc_status import KINDS
from sampler_proxy.redact.section import RESERVED

GOLDEN = Path(__file__).parent / "golden" / "metrics.txt"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def filled(metric: Metric, *values: float) -> HistogramValue:
    data = HistogramData(metric)
    for value in values:
        data.observe(value)
    return data.value()


FIXED: Snapshot = {
    metrics.SPANS_RECEIVED: {("grpc",): 1000},
    metrics.SPANS_SAMPLED_OUT: {("baseline",): 900},
    metrics.BUFFER_SPANS: {(): 60},
    metrics.SPANS_KEPT: {("errors",): 30, ('odd "name"\\ of a\nrule, ü',): 10},
    metrics.SPANS_ROUTED: {("tempo",): 40, ("local",): 40},
    metrics.SPANS_EXPORTED: {("tempo",): 25, ("local",): 40},
    metrics.QUEUE_SPANS: {("tempo",): 5, ("local",): 0},
    metrics.SPANS_REJECTED: {("tempo",): 4, ("local",): 0},
    metrics.SPANS_LOST: {("tempo", "shutdown"): 6},
    metrics.REQUESTS_RECEIVED: {("grpc",): 12},
    metrics.REQUESTS_REFUSED: {("grpc", "memory"): 1, ("http", "malformed"): 2},
    metrics.SPANS_REJECTED_INPUT: {("trace_id",): 3, ("span_id",): 0},
    metrics.UNKNOWN_FIELDS_DROPPED: {("request",): 0, ("resource_spans",): 8, ("scope_spans",): 0},
    metrics.CALLS_NOT_SERVED: {("logs",): 3, ("other",): 0},
    metrics.REDACTIONS: {("card", "mask"): 5, ("key", "delete"): 2},
    metrics.STRINGS_MENDED: {(): 0},
    metrics.REQUEST_SIZE_BYTES: {(): filled(metrics.REQUEST_SIZE_BYTES, 0, 256, 257, 225280, 1 << 27)},
    metrics.TRACES_DECIDED: {("errors", "keep", "root"): 2, ("baseline", "drop", "wait"): 45},
    metrics.TRACES_ROOTLESS: {(): 2},
    metrics.TRACES_PARTLY_READ: {(): 1},
    metrics.LATE_SPANS: {("drop",): 7},
    metrics.LATE_WOULD_KEEP: {(): 1},
    metrics.TRACES_REVIVED: {("errors",): 1},
    metrics.RULE_TYPE_MISMATCH: {("errors",): 0},
    metrics.LIMITED_TRACES: {("errors",): 4},
    metrics.LIMITED_SPANS: {("errors",): 80},
    metrics.TARGET_PER_SECOND: {("rest", "traces"): 100},
    metrics.TARGET_DEMAND_PER_SECOND: {("rest", "traces"): 812.5},
    metrics.TARGET_KEPT_PER_SECOND: {("rest", "traces"): 99.25},
    metrics.TARGET_PROBABILITY: {("rest",): 0.122},
    metrics.TARGET_KEYS: {("rest",): 17},
    metrics.TRACE_IDS_RANDOM: {(): 1},
    metrics.DECISION_DELAY_SECONDS: {(): filled(metrics.DECISION_DELAY_SECONDS, 5.01, 30.25)},
    metrics.BUFFER_TRACES: {(): 3},
    metrics.BUFFER_BYTES: {(): 33000},
    metrics.BUFFER_MAX_BYTES: {(): 1 << 30},
    metrics.BUFFER_OLDEST_SECONDS: {(): 12.5},
    metrics.DECISION_MEMORY_TRACES: {(): 47},
    metrics.DECISION_MEMORY_BYTES: {(): 1128},
    metrics.QUEUE_BYTES: {("tempo",): 2200},
    metrics.QUEUE_MAX_BYTES: {("tempo",): 64 << 20},
    metrics.EXPORT_LATENCY_SECONDS: {("tempo",): filled(metrics.EXPORT_LATENCY_SECONDS, 0.004, 0.02, 60)},
    metrics.EXPORT_FAILURES: {("tempo", "UNAVAILABLE"): 7, ("tempo", "HTTP 404"): 1},
    metrics.DESTINATION_UP: {("tempo",): 0, ("local",): 1},
    metrics.PASSTHROUGH_REQUESTS_RECEIVED: {("logs", "grpc"): 20, ("metrics", "http"): 3},
    metrics.PASSTHROUGH_REQUESTS_DISCARDED: {("logs",): 1, ("metrics",): 0},
    metrics.PASSTHROUGH_REQUESTS_ROUTED: {("tempo", "logs"): 19, ("tempo", "metrics"): 3},
    metrics.PASSTHROUGH_REQUESTS_EXPORTED: {("tempo", "logs"): 9, ("tempo", "metrics"): 0},
    metrics.PASSTHROUGH_QUEUE_REQUESTS: {("tempo", "logs"): 4, ("tempo", "metrics"): 0},
    metrics.PASSTHROUGH_REQUESTS_REJECTED: {("tempo", "logs"): 1, ("tempo", "metrics"): 0},
    metrics.PASSTHROUGH_REQUESTS_UNWANTED: {("tempo", "logs"): 0, ("tempo", "metrics"): 3},
    metrics.PASSTHROUGH_REQUESTS_LOST: {("tempo", "logs", "shutdown"): 5},
    metrics.PASSTHROUGH_REQUESTS_REFUSED: {("logs", "grpc", "queue_full"): 2},
    metrics.PASSTHROUGH_ITEMS_REJECTED: {("tempo", "logs"): 7},
    metrics.PASSTHROUGH_RECEIVED_BYTES: {("logs", "grpc"): 90000, ("metrics", "http"): 1000},
    metrics.PASSTHROUGH_EXPORTED_BYTES: {("tempo", "logs"): 40000},
    metrics.PASSTHROUGH_QUEUE_BYTES: {("tempo", "logs"): 20000},
    metrics.PASSTHROUGH_QUEUE_MAX_BYTES: {("tempo",): 64 << 20},
    metrics.PASSTHROUGH_FAILURES: {("tempo", "logs", "UNAVAILABLE"): 3},
    metrics.RULES_INFO: {("0123456789ab",): 1},
    metrics.RULES_LOADED_TIMESTAMP_SECONDS: {(): 1700000000.5},
    metrics.CONFIG_RELOADS: {("applied",): 2, ("unchanged",): 1, ("failed",): 3},
    metrics.CONFIG_LAST_RELOAD_SUCCESSFUL: {(): 0},
    metrics.TLS_CERTIFICATE_EXPIRES_TIMESTAMP_SECONDS: {("receive.grpc",): 1800000000},
    metrics.FILES_LAST_RELOAD_SUCCESSFUL: {("receive.grpc",): 1, ("admin",): 0},
    metrics.CREDENTIAL_REQUESTS: {("receive.grpc", "shop"): 12},
    metrics.CREDENTIALS_REFUSED: {("receive.grpc",): 3},
    metrics.BUILD_INFO: {("1.2.3", "completion_queue"): 1},
}


def registry_of(snapshot: Snapshot) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(lambda: snapshot))
    return registry


def expose(snapshot: Snapshot, accept: str = "") -> str:
    encode, _ = choose_encoder(accept)
    return encode(registry_of(snapshot)).decode()


def family_name(metric: Metric) -> str:
    """Both parsers name a family of counters without its suffix."""
    return metric.full_name.removesuffix("_total")


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        (metrics.TRACES_DECIDED, set(REASONS) - {"late"}),  # late spans decide no trace again
        (metrics.TRACES_DECIDED, {"keep", "drop"}),
        (metrics.LATE_SPANS, {"keep", "drop"}),
        (metrics.SPANS_LOST, {"shutdown", FULL, "internal"}),
        (metrics.PASSTHROUGH_REQUESTS_LOST, {"shutdown", FULL, "internal"}),
        (metrics.CALLS_NOT_SERVED, set(KINDS)),
        (metrics.CONFIG_RELOADS, set(OUTCOMES)),
        (metrics.SPANS_REJECTED_INPUT, {"trace_id", "span_id"}),
        (metrics.UNKNOWN_FIELDS_DROPPED, {"request", "resource_spans", "scope_spans"}),
        (metrics.REDACTIONS, set(RESERVED)),
        (metrics.CONFIG_RELOADS, set(RELOADED)),
        (metrics.REQUESTS_REFUSED, {OutOfMemory.reason}),  # of which something may have been taken
        (metrics.SPANS_REJECTED, {"retry.give_up"}),
        (metrics.SPANS_SAMPLED_OUT, {"limit"}),
    ],
)
def test_help_names_what_is_counted(metric: Metric, values: set[str]) -> None:
    words = set(re.findall(r"[a-z_]+(?:\.[a-z_]+)?", metric.help))
    assert values - words == set()


def test_exposition_is_the_golden_file() -> None:
    assert expose(FIXED) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
@pytest.mark.parametrize("snapshot", [FIXED, {}], ids=["full", "empty"])
def test_what_is_declared_is_what_is_exposed(accept: str, snapshot: Snapshot) -> None:
    parse = parse_openmetrics if accept == OPENMETRICS else parse_text
    families = {family.name: family for family in parse(expose(snapshot, accept))}
    assert list(families) == [family_name(metric) for metric in METRICS]
    for metric in METRICS:
        family = families[family_name(metric)]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        if accept == OPENMETRICS:
            assert family.unit == metric.unit
        series = snapshot.get(metric, {})
        exposed = {tuple(sample.labels[label] for label in metric.labels): sample.value for sample in family.samples}
        assert exposed.keys() == series.keys()
        if metric.kind != "histogram":
            assert exposed == series
            assert all(sample.name == metric.full_name for sample in family.samples)


def test_every_declaration_is_sound() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        constant = metric.name.removesuffix("_total").upper()
        assert getattr(metrics, constant) is metric
        assert re.fullmatch("[a-z][a-z0-9_]*", metric.name)
        assert not metric.name.startswith(PREFIX)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not metric.name.endswith(("_bucket", "_sum", "_count", "_created"))
        assert not metric.name.endswith("_info") or metric.kind == "gauge"
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
        assert len(set(metric.labels)) == len(metric.labels)
        assert "le" not in metric.labels
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert float("inf") not in metric.buckets


@pytest.mark.parametrize("value", ['"', "\\", "\n", '\\"\n\\n', "ü€😀", "", "a,b={}", " # {} "])
@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_label_values_survive(value: str, accept: str, parse: type) -> None:
    snapshot: Snapshot = {metrics.SPANS_LOST: {(value, "x" + value): 7}}
    samples = [sample for family in parse(expose(snapshot, accept)) for sample in family.samples]
    assert [(sample.labels, sample.value) for sample in samples] == [
        ({"destination": value, "reason": "x" + value}, 7.0)
    ]


def test_a_scrape_takes_one_snapshot() -> None:
    calls = 0

    def snapshot() -> Snapshot:
        nonlocal calls
        calls += 1
        return {metric: dict.fromkeys([("x",) * len(metric.labels)], calls) for metric in METRICS if not metric.buckets}

    registry = metrics.new_registry(snapshot)
    assert calls == 0
    for scrape in 1, 2, 3:
        own = [family for family in parse_text(generate_latest(registry).decode()) if family.name.startswith(PREFIX)]
        assert {sample.value for family in own for sample in family.samples} == {scrape}
        assert calls == scrape


def test_the_process_follows_the_ledger() -> None:
    names = [family.name for family in parse_text(generate_latest(metrics.new_registry(dict)).decode())]
    own = len(METRICS)
    assert all(name.startswith(PREFIX) for name in names[:own])
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= set(names[own:])
    assert not [name for name in names if "gc" in name.split("_")]


def test_a_value_on_a_bound_lies_in_its_bucket() -> None:
    bounds = metrics.DECISION_DELAY_SECONDS.buckets
    assert filled(metrics.DECISION_DELAY_SECONDS, *bounds).counts == (1,) * len(bounds) + (0,)
    assert filled(metrics.DECISION_DELAY_SECONDS, *(bound * 1.001 for bound in bounds)).counts == (0,) + (1,) * len(
        bounds
    )
    assert filled(metrics.DECISION_DELAY_SECONDS, 0, 1.5, 1e9) == HistogramValue(
        (1, 0, 0, 0, 1, *[0] * (len(bounds) - 5), 1), 1e9 + 1.5
    )


def test_buckets_are_exposed_cumulated() -> None:
    text = expose(
        {metrics.EXPORT_LATENCY_SECONDS: {("t",): filled(metrics.EXPORT_LATENCY_SECONDS, 0.001, 0.002, 0.002, 99)}}
    )
    line = f'{PREFIX}export_latency_seconds_bucket{{destination="t",le="%s"}} %s\n'
    for le, count in ("0.001", "1.0"), ("0.0025", "3.0"), ("30.0", "3.0"), ("+Inf", "4.0"):
        assert line % (le, count) in text
    assert f'{PREFIX}export_latency_seconds_count{{destination="t"}} 4.0\n' in text
    assert f'{PREFIX}export_latency_seconds_sum{{destination="t"}} 99.005\n' in text


def test_a_value_taken_does_not_change() -> None:
    data = HistogramData(metrics.REQUEST_SIZE_BYTES)
    before = data.value()
    data.observe(1)
    assert (sum(before.counts), before.sum) == (0, 0)
    assert (sum(data.value().counts), data.value().sum) == (1, 1)


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "b", "c")])
def test_a_wrong_number_of_labels_fails_the_scrape(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="spans_lost_total has 2 labels"):
        expose({metrics.SPANS_LOST: {labels: 1}})


if __name__ == "__main__":
    GOLDEN.write_text(expose(FIXED), encoding="utf-8")
