"""Declares every metric of sampler-proxy, once: name, kind, unit, help, labels. Nothing else names a metric.

The ledger holds in every single scrape, because a scrape takes one `Snapshot` and renders nothing but that:

    spans_received = spans_sampled_out + buffer_spans + spans_kept                    summed over their labels
    spans_routed = spans_exported + queue_spans + spans_rejected + spans_lost         for each destination

What is passed on as it is has a ledger of its own, in requests, for each signal and destination:

    received = discarded + routed
    routed = exported + queue + rejected + unwanted + lost

Declaring and rendering live here; counting does not. The stages count in plain integers of their own and
`operate/status.py` assembles the snapshot, so that no metric object stands on the path of a span. A metric is a key,
compared by identity: the constants below, each named like its metric without `_total`, are all there are. A metric that
the snapshot leaves out still shows its HELP and TYPE.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PREFIX = "sampler_proxy_"
_UNITS = ("seconds", "bytes")  # the base units of OpenMetrics that we use; a name ends with its unit


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The declaration of a metric. `buckets`: the upper bounds (inclusive, ascending, no +Inf) of a histogram, else
    empty."""

    name: str  # without the prefix
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        return PREFIX + self.name

    @property
    def unit(self) -> str:
        """The base unit that the name ends with; empty for counts (of spans, traces, requests)."""
        suffix = self.name.removesuffix("_total").rpartition("_")[2]
        return suffix if suffix in _UNITS else ""


class HistogramValue(NamedTuple):
    """The values of a histogram: one count per bucket (not cumulative), the last one for +Inf, and the sum observed."""

    counts: tuple[int, ...]
    sum: float


class HistogramData:
    """A histogram that is being filled. Not thread-safe: it is read under the lock, or on the loop, of the stage that
    fills it."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, metric: Metric) -> None:
        self._bounds = metric.buckets
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value`, in the metric's unit. One that equals a bound belongs to that bound's bucket, as `le` says."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def value(self) -> HistogramValue:
        """Copy the values."""
        return HistogramValue(tuple(self._counts), self._sum)


Series = Mapping[tuple[str, ...], float | HistogramValue]
"""Label values, in the order of `Metric.labels`, to the value. A metric without labels has the one key `()`."""

Snapshot = Mapping[Metric, Series]
"""All values at one instant. The receiver owns the snapshot: nothing changes it once it has been returned."""


_declared: list[Metric] = []


def _declare(metric: Metric) -> Metric:
    _declared.append(metric)
    return metric


def _counter(name: str, help: str, *labels: str) -> Metric:
    return _declare(Metric(name, "counter", help, labels))


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return _declare(Metric(name, "gauge", help, labels))


def _histogram(name: str, help: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return _declare(Metric(name, "histogram", help, labels, buckets))


# The ledger, receiving side.
SPANS_RECEIVED = _counter("spans_received_total", "Valid spans of accepted requests.", "transport")
SPANS_SAMPLED_OUT = _counter(
    "spans_sampled_out_total",
    "Spans dropped by the rule, or by the limit though the rule would have kept them.",
    "rule",
)
BUFFER_SPANS = _gauge(
    "buffer_spans", "Spans held: undecided, waiting for the limit, or kept and not yet taken by every destination."
)
SPANS_KEPT = _counter("spans_kept_total", "Spans kept by the rule and handed to every destination.", "rule")

# The ledger, for each destination.
SPANS_ROUTED = _counter(
    "spans_routed_total",
    "Kept spans handed to the destination, those it had no room for (when_full: drop) included.",
    "destination",
)
SPANS_EXPORTED = _counter("spans_exported_total", "Spans that the destination has acknowledged.", "destination")
QUEUE_SPANS = _gauge("queue_spans", "Spans waiting for the destination, requests in flight included.", "destination")
SPANS_REJECTED = _counter(
    "spans_rejected_total",
    "Spans that the destination refused for good, also in a partial success; that are larger than it takes; or that "
    "failed for retry.give_up while others passed.",
    "destination",
)
SPANS_LOST = _counter(
    "spans_lost_total",
    "Spans given up without a final answer; reason is shutdown (not sent in time), queue_full (when_full: drop) or "
    "internal (an error of sampler-proxy).",
    "destination",
    "reason",
)

# Requests.
REQUESTS_RECEIVED = _counter("requests_received_total", "Export requests received, refused ones included.", "transport")
REQUESTS_REFUSED = _counter(
    "requests_refused_total",
    "Requests refused whole; nothing of them was taken, save that with out_of_memory some spans may have been.",
    "transport",
    "reason",
)
SPANS_REJECTED_INPUT = _counter(
    "spans_rejected_input_total",
    "Spans of accepted requests that were left out; the reason is the faulty field, trace_id or span_id, or "
    "deprecated_field: they stood in field 1000 of a ResourceSpans that has spans in field 2, too.",
    "reason",
)
UNKNOWN_FIELDS_DROPPED = _counter(
    "unknown_fields_dropped_total",
    "Fields that OTLP does not define, dropped with what they held; message is the one they stood in: request, "
    "resource_spans or scope_spans. Those of spans, resources and scopes are kept.",
    "message",
)
CALLS_NOT_SERVED = _counter(
    "calls_not_served_total",
    "Calls of methods that are not served: kind is metrics, logs, profiles or other.",
    "kind",
)
CONNECTIONS_REFUSED = _counter(
    "connections_refused_total",
    "Connections that were closed since they did not begin with what their port takes: kind is http1 (to the gRPC "
    "port), http2 (to the HTTP port), tls, proxy_protocol, other, silent (nothing came) or unacknowledged (the client "
    "does not answer); or for what they did: calls_broken_off (again and again before their messages had arrived) or "
    "unfinished (messages that stall or hold too many bytes).",
    "kind",
)
REDACTIONS = _counter(
    "redactions_total",
    "What was redacted in kept spans and their headers; detector is also key, allow_only, sql, urls, unknown_field, or "
    "why nothing could be said of a value: oversize, failure.",
    "detector",
    "action",
)
STRINGS_MENDED = _counter("strings_mended_total", "Strings of kept spans that were not UTF-8 and left mended.")
REQUEST_SIZE_BYTES = _histogram(
    "request_size_bytes",
    "Size, after decompression, of the export requests that were read whole, refused ones included.",
    buckets=(256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
)

# Decisions.
TRACES_DECIDED = _counter(
    "traces_decided_total",
    "Traces decided; decision is keep or drop, reason (root, wait, size, early, memory, shutdown) what triggered it.",
    "rule",
    "decision",
    "reason",
)
TRACES_ROOTLESS = _counter(
    "traces_rootless_total",
    "Traces that waited for decision_wait and were decided without a root: their root is not sent here, or later, or "
    "belongs to somebody else and the senders do not say so (buffer.root).",
)
TRACES_PARTLY_READ = _counter(
    "traces_partly_read_total",
    "Traces that were decided by a part of what they hold, since reading all of it again takes too long.",
)
LATE_SPANS = _counter(
    "late_spans_total",
    "Spans that came after their trace was decided, save where it was kept early; decision is what became of them, "
    "keep or drop, by the remembered decision or the one that they have changed it to.",
    "decision",
)
LATE_WOULD_KEEP = _counter(
    "late_would_keep_total",
    "Late spans that match a keep-all rule though their trace was dropped: the waits are too short. They are kept, and "
    "revive their trace; so do those of a trace that was kept by chance, which are counted, too.",
)
TRACES_REVIVED = _counter(
    "traces_revived_total",
    "Traces of which late spans were kept by this keep-all rule, though another rule had decided the trace.",
    "rule",
)
RULE_TYPE_MISMATCH = _gauge(
    "rule_type_mismatch",
    "1 where the rule has met an attribute that it compares, and only with a type that it cannot be compared with; "
    "else 0.",
    "rule",
)
LIMITED_TRACES = _counter("limited_traces_total", "Traces that the rule would have kept and the limit did not.", "rule")
LIMITED_SPANS = _counter("limited_spans_total", "Spans of limited_traces.", "rule")
TARGET_PER_SECOND = _gauge(
    "target_per_second", "What the rule aims to keep; unit is traces, spans or bytes.", "rule", "unit"
)
TARGET_DEMAND_PER_SECOND = _gauge(
    "target_demand_per_second",
    "What there is of it for the rule: traffic before any sampling, estimated over the last seconds.",
    "rule",
    "unit",
)
TARGET_KEPT_PER_SECOND = _gauge(
    "target_kept_per_second",
    "What the rule is expected to keep of it, over the last seconds and before the limit.",
    "rule",
    "unit",
)
TARGET_PROBABILITY = _gauge("target_probability", "The share of its demand that the rule keeps.", "rule")
TARGET_KEYS = _gauge("target_keys", "Different keys among which the rule shares its target.", "rule")
TRACE_IDS_RANDOM = _gauge(
    "trace_ids_random", "0 while trace ids do not look random, so that sampling by them is skewed; else 1."
)
TRACES_UNEQUAL_THRESHOLD = _counter(
    "traces_unequal_threshold_total", "Decided traces whose spans came with different sampling thresholds (ot=th)."
)
SPANS_INCONSISTENT_THRESHOLD = _counter(
    "spans_inconsistent_threshold_total", "Kept spans whose randomness lies below their own threshold; it was erased."
)
LOCK_HELD_SECONDS = _histogram(
    "lock_held_seconds",
    "Time for which the pipeline's lock was held at a stretch; requests wait for it.",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.5),
)
DECISION_DELAY_SECONDS = _histogram(
    "decision_delay_seconds",
    "Time from the first span of a trace to its decision.",
    # Fine around the default waits (5 s after the root, 30 s after the first span).
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 6, 7.5, 10, 15, 20, 30, 31, 45, 60, 120, 300),
)

# Memory.
BUFFER_TRACES = _gauge(
    "buffer_traces",
    "Traces held: undecided, or waiting for the limit; not those of buffer_spans that are kept already.",
)
BUFFER_BYTES = _gauge("buffer_bytes", "Memory held by buffer_spans, overhead included.")
BUFFER_MAX_BYTES = _gauge("buffer_max_bytes", "Bound of buffer_bytes: as configured, or less where memory ran out.")
BUFFER_OLDEST_SECONDS = _gauge("buffer_oldest_seconds", "Age of the oldest undecided trace; 0 when there is none.")
DECISION_MEMORY_TRACES = _gauge("decision_memory_traces", "Traces whose decision is remembered.")
DECISION_MEMORY_BYTES = _gauge("decision_memory_bytes", "Memory held by remembered decisions.")

# Export.
QUEUE_BYTES = _gauge("queue_bytes", "Memory held by queue_spans.", "destination")
QUEUE_MAX_BYTES = _gauge("queue_max_bytes", "Configured bound of queue_bytes.", "destination")
EXPORT_LATENCY_SECONDS = _histogram(
    "export_latency_seconds",
    "Time from sending a request to its answer or failure, or of a write; every try counts by itself.",
    "destination",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
EXPORT_FAILURES = _counter(
    "export_failures_total",
    "Requests, or writes, that failed, every try; code is a gRPC status, HTTP with its status, or a system error.",
    "destination",
    "code",
)
DESTINATION_UP = _gauge(
    "destination_up",
    "1, or 0 while the destination takes nothing: the last request failed or was refused.",
    "destination",
)

# The ledger of what is passed on; signal is logs, metrics or profiles.
PASSTHROUGH_REQUESTS_RECEIVED = _counter(
    "passthrough_requests_received_total", "Requests of the signal that were taken.", "signal", "transport"
)
PASSTHROUGH_REQUESTS_DISCARDED = _counter(
    "passthrough_requests_discarded_total",
    "Requests that were taken and have no destination: passthrough is discard, or all destinations take traces only; "
    "also those that hold nothing.",
    "signal",
)
PASSTHROUGH_REQUESTS_ROUTED = _counter(
    "passthrough_requests_routed_total",
    "Requests meant for the destination, those it had no room for (when_full: drop) included.",
    "destination",
    "signal",
)
PASSTHROUGH_REQUESTS_EXPORTED = _counter(
    "passthrough_requests_exported_total", "Requests that the destination has acknowledged.", "destination", "signal"
)
PASSTHROUGH_QUEUE_REQUESTS = _gauge(
    "passthrough_queue_requests",
    "Requests waiting for the destination, those in flight included.",
    "destination",
    "signal",
)
PASSTHROUGH_REQUESTS_REJECTED = _counter(
    "passthrough_requests_rejected_total",
    "Requests that the destination refused for good, or that failed for retry.give_up while others passed.",
    "destination",
    "signal",
)
PASSTHROUGH_REQUESTS_UNWANTED = _counter(
    "passthrough_requests_unwanted_total",
    "Requests discarded since the destination does not know their signal.",
    "destination",
    "signal",
)
PASSTHROUGH_REQUESTS_LOST = _counter(
    "passthrough_requests_lost_total",
    "Requests given up without a final answer; reason is shutdown (not sent in time), queue_full (when_full: drop) or "
    "internal (an error of sampler-proxy).",
    "destination",
    "signal",
    "reason",
)
PASSTHROUGH_REQUESTS_REFUSED = _counter(
    "passthrough_requests_refused_total",
    "Requests refused by what they hold, or for want of room; those refused before that, in requests_refused_total.",
    "signal",
    "transport",
    "reason",
)
PASSTHROUGH_ITEMS_REJECTED = _counter(
    "passthrough_items_rejected_total",
    "Log records, data points or profiles of acknowledged requests that the destination has rejected by a partial "
    "success.",
    "destination",
    "signal",
)
PASSTHROUGH_RECEIVED_BYTES = _counter(
    "passthrough_received_bytes_total", "Size, after decompression, of the requests taken.", "signal", "transport"
)
PASSTHROUGH_EXPORTED_BYTES = _counter(
    "passthrough_exported_bytes_total",
    "Size, before compression, of the requests that the destination has acknowledged.",
    "destination",
    "signal",
)
PASSTHROUGH_QUEUE_BYTES = _gauge(
    "passthrough_queue_bytes", "Memory held by passthrough_queue_requests.", "destination", "signal"
)
PASSTHROUGH_QUEUE_MAX_BYTES = _gauge(
    "passthrough_queue_max_bytes", "Bound of passthrough_queue_bytes, all signals together.", "destination"
)
PASSTHROUGH_FAILURES = _counter(
    "passthrough_failures_total",
    "Tries to pass on that failed; code is a gRPC status, or HTTP with its status.",
    "destination",
    "signal",
    "code",
)

# Configuration.
RULES_INFO = _gauge("rules_info", "Always 1; version is a hash of the active rules, equal for equal rules.", "version")
RULES_LOADED_TIMESTAMP_SECONDS = _gauge(
    "rules_loaded_timestamp_seconds", "When the active rules came into force, since the epoch."
)
CONFIG_RELOADS = _counter(
    "config_reloads_total",
    "Reloads of the configuration file; outcome is applied (rules, limit or redact have changed), unchanged or failed.",
    "outcome",
)
CONFIG_LAST_RELOAD_SUCCESSFUL = _gauge(
    "config_last_reload_successful", "1, or 0 while the configuration file is at fault and the former rules decide."
)

# Certificates and credentials.
TLS_CERTIFICATE_EXPIRES_TIMESTAMP_SECONDS = _gauge(
    "tls_certificate_expires_timestamp_seconds",
    "When the certificate in use expires, since the epoch; section is that of the configuration.",
    "section",
)
FILES_LAST_RELOAD_SUCCESSFUL = _gauge(
    "files_last_reload_successful",
    "1, or 0 while a file of a certificate, a key or a secret cannot be used, and what it held before is in use.",
    "section",
)
CREDENTIAL_REQUESTS = _counter(
    "credential_requests_total", "Requests that came in by a credential, by its name.", "section", "credential"
)
CREDENTIALS_REFUSED = _counter(
    "credentials_refused_total", "Requests without a credential that is known: none at all, or a wrong one.", "section"
)

BUILD_INFO = _gauge("build_info", "Always 1; the labels say what is running.", "version", "grpc_engine")

METRICS = tuple(_declared)
"""All declarations, in the order of exposition."""


class LedgerCollector(Collector):
    """The collector that prometheus-client calls at a scrape; calls `snapshot` exactly once for each."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        values = self._snapshot()
        for metric in METRICS:
            yield _family(metric, values.get(metric, {}))


def new_registry(snapshot: Callable[[], Snapshot]) -> CollectorRegistry:
    """Make a registry: the ledger first, then memory, CPU and file descriptors of this process.

    Nothing about Python's garbage collector: it is frozen after start and would only invite questions.
    """
    registry = CollectorRegistry()
    registry.register(LedgerCollector(snapshot))
    ProcessCollector(registry=registry)
    return registry


def _family(metric: Metric, series: Series) -> Family:
    for labels in series:
        if len(labels) != len(metric.labels):  # prometheus-client would zip, and drop what is left over
            raise ValueError(f"{metric.name} has {len(metric.labels)} labels, not {len(labels)}")
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)
        bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
        for labels, value in series.items():
            assert isinstance(value, HistogramValue)
            histogram.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.sum)
        return histogram
    family_of = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = family_of(metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, value in series.items():
        assert not isinstance(value, HistogramValue)
        family.add_metric(labels, value)
    return family
