"""Answers what operators and scrapers ask of a running service: its metrics, its rates, what is known of a trace.

Nothing here changes anything. Everything is asked on the loop's thread, on which the exporters count; the pipeline's
lock is held while its numbers are read, so that one answer shows one instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from sampler_proxy import __version__, metrics
from sampler_proxy.config.model import Adaptive, Config, FileExport, OtlpExport
from sampler_proxy.export.exporter import Exporter
from sampler_proxy.export.queue import Counters
from sampler_proxy.operate.doors import Doors
from sampler_proxy.operate.learned_rates import Rates
from sampler_proxy.operate.messages import iso_time
from sampler_proxy.operate.reload import Reloader
from sampler_proxy.otlp.sampling import probability_of, shown_threshold
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.units import format_probability

_SUMMED_UP = (
    metrics.SPANS_RECEIVED,
    metrics.SPANS_KEPT,
    metrics.SPANS_SAMPLED_OUT,
    metrics.BUFFER_SPANS,
    metrics.TRACES_DECIDED,
)

_Values = dict[metrics.Metric, dict[tuple[str, ...], float | metrics.HistogramValue]]

log = structlog.get_logger()


class Status:
    """The parts of a service, as far as questions are answered from them.

    `latencies` has the histogram of each destination by name, `kinds` the counts of metrics that have a kind for their
    only label, `passing` reads what is passed on. `clock` tells monotonic nanoseconds, `time` seconds since the epoch.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        rates: Rates,
        reloader: Reloader,
        exporters: Sequence[Exporter],
        latencies: Mapping[str, metrics.HistogramData],
        grpc_engine: str,
        kinds: Mapping[metrics.Metric, Mapping[str, int]],
        passing: Callable[[], Mapping[metrics.Metric, Mapping[tuple[str, ...], float]]],
        doors: Doors,
        *,
        clock: Callable[[], int],
        time: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._rates = rates
        self._reloader = reloader
        self._exporters = exporters
        self._latencies = latencies
        self._grpc_engine = grpc_engine
        self._kinds = kinds
        self._passing = passing
        self._doors = doors
        self._last_totals: tuple[int, ...] = (0,) * len(_SUMMED_UP)
        self._clock = clock
        self._time = time

    def snapshot(self) -> metrics.Snapshot:
        """Read all metrics at one instant."""
        return self.instant()()

    def instant(self) -> Callable[[], metrics.Snapshot]:
        """Copy all metrics as they are; return what puts them together, on any thread, once: with thousands of rules
        that takes its time."""
        with self._pipeline.lock:
            instant = self._pipeline.instant(self._clock())
            rates = self._rates.values(self._clock())
            holds = self._pipeline.lock.holds()
            counters = {exporter.name: exporter.queue.counters() for exporter in self._exporters}
        others: _Values = {**rates, metrics.LOCK_HELD_SECONDS: {(): holds}, **self._destinations(counters)}
        for metric, counts in self._kinds.items():
            others[metric] = {(kind,): count for kind, count in counts.items()}
        others.update(self._configuration())
        others.update({metric: {**series} for metric, series in self._passing().items()})
        others.update(self._doors.values())
        others[metrics.TLS_CERTIFICATE_EXPIRES_TIMESTAMP_SECONDS].update(
            {
                (f"export.{exporter.name}",): exporter.certificate_expires_s
                for exporter in self._exporters
                if exporter.certificate_expires_s is not None
            }
        )
        return lambda: {**instant.values(), **others}

    def _destinations(self, counters: Mapping[str, Counters]) -> _Values:
        return {
            metrics.SPANS_ROUTED: {(name,): c.routed_spans for name, c in counters.items()},
            metrics.SPANS_EXPORTED: {(name,): c.exported_spans for name, c in counters.items()},
            metrics.QUEUE_SPANS: {(name,): c.queued_spans for name, c in counters.items()},
            metrics.SPANS_REJECTED: {(name,): c.rejected_spans for name, c in counters.items()},
            metrics.SPANS_LOST: {
                (name, reason): spans for name, c in counters.items() for reason, spans in c.lost_spans.items()
            },
            metrics.QUEUE_BYTES: {(name,): c.queued_bytes for name, c in counters.items()},
            metrics.QUEUE_MAX_BYTES: {(exporter.name,): exporter.queue.max_bytes for exporter in self._exporters},
            metrics.EXPORT_LATENCY_SECONDS: {(name,): data.value() for name, data in self._latencies.items()},
            metrics.EXPORT_FAILURES: {
                (exporter.name, code): count
                for exporter in self._exporters
                for code, count in exporter.report.failures.items()
            },
            metrics.DESTINATION_UP: {(exporter.name,): int(exporter.report.up) for exporter in self._exporters},
        }

    def destinations(self) -> dict[str, object]:
        """Describe, as JSON values, how each destination is doing, with its last error."""
        with self._pipeline.lock:
            counters = {exporter.name: exporter.queue.counters() for exporter in self._exporters}
        return {
            "destinations": [
                {
                    "name": exporter.name,
                    **self._health_of(exporter),
                    "spans": {
                        "routed": c.routed_spans,
                        "exported": c.exported_spans,
                        "queued": c.queued_spans,
                        "rejected": c.rejected_spans,
                        "lost": dict(c.lost_spans),
                    },
                    "queue_bytes": c.queued_bytes,
                    "queue_max_bytes": exporter.queue.max_bytes,
                    "failures": dict(exporter.report.failures),
                }
                for exporter in self._exporters
                for c in (counters[exporter.name],)
            ]
        }

    def unwell(self) -> dict[str, object]:
        """Describe, as JSON values, the destinations that fail; empty where none does."""
        failing = {exporter.name: self._health_of(exporter) for exporter in self._exporters if not exporter.report.up}
        return {"destinations": failing} if failing else {}

    def _health_of(self, exporter: Exporter) -> dict[str, object]:
        report = exporter.report
        health: dict[str, object] = {"up": report.up, "last_error": report.last_error}
        if report.last_error is not None:
            health["last_error_at"] = iso_time(self._time() - (self._clock() - report.last_error_ns) / 1e9)
        return health

    def _configuration(self) -> _Values:
        active = self._reloader.active
        return {
            metrics.RULES_INFO: {(active.version,): 1},
            metrics.RULES_LOADED_TIMESTAMP_SECONDS: {(): active.loaded_s},
            metrics.CONFIG_RELOADS: {(outcome,): count for outcome, count in self._reloader.reloads.items()},
            metrics.CONFIG_LAST_RELOAD_SUCCESSFUL: {(): 0 if self._reloader.faults else 1},
            metrics.BUILD_INFO: {(__version__, self._grpc_engine): 1},
        }

    def log_summary(self) -> None:
        """Log the ledger's totals in one line, for somebody who looks at a terminal; nothing where nothing changed."""
        values = self.snapshot()

        def total(metric: metrics.Metric) -> int:
            return int(sum(value for value in values[metric].values() if isinstance(value, int | float)))

        totals = tuple(map(total, _SUMMED_UP))
        if totals == self._last_totals:
            return
        self._last_totals = totals
        received, kept, sampled_out, waiting, traces = totals
        log.info(
            f"{received} span{'' if received == 1 else 's'} received, {kept} kept, {sampled_out} sampled out, "
            f"{waiting} waiting; {traces} trace{'' if traces == 1 else 's'} decided"
        )

    def rates(self) -> dict[str, object]:
        """Describe, as JSON values, the rules with a target and what the limit removed from each rule."""
        with self._pipeline.lock:
            rules = self._rates.describe(self._clock(), self._reloader.redact)
            instant = self._pipeline.instant(self._clock())
        values = instant.values()
        limit = self._reloader.applied.limit
        removed = {
            rule: {"traces": traces, "spans": values[metrics.LIMITED_SPANS][rule,]}
            for (rule,), traces in values[metrics.LIMITED_TRACES].items()
        }
        answer: dict[str, object] = {
            "rules": rules,
            "limit": limit.model_dump(mode="json", exclude_none=True) if limit.rate else None,
            "removed_by_limit": removed,
            "trace_ids_random": bool(values[metrics.TRACE_IDS_RANDOM][()]),
        }
        if not rules:
            answer["note"] = "no rule has a target: /rules lists the rules, /metrics what each has kept"
        return answer

    def find(self, trace_id: bytes) -> dict[str, object] | None:
        """Say, as JSON values, what is known of a trace, buffered or decided; None: nothing, or no longer."""
        found: dict[str, object] | None = self._pipeline.find(trace_id, self._clock())
        if found is not None and found["state"] == "decided":
            threshold, ago_s = found["threshold"], found.pop("ago_seconds")
            assert isinstance(threshold, int)
            assert isinstance(ago_s, int | float)
            found["threshold"] = shown_threshold(threshold)
            found["probability"] = probability_of(threshold)
            found["decided_at"] = iso_time(self._time() - ago_s)
            with self._pipeline.lock:
                destinations = {
                    exporter.name: "queued" if waits else exporter.fate_of(trace_id) or "unknown"
                    for exporter, waits in zip(self._exporters, self._pipeline.in_backlog(trace_id), strict=True)
                    if waits is not None
                }
            if destinations or found["keep"]:
                found["destinations"] = destinations
        return found


def log_introduction(config: Config) -> None:
    """Log what a start without a configuration file keeps, and where."""
    rules = ", ".join(
        f"{rule.name} ({rule.keep.target if isinstance(rule.keep, Adaptive) else format_probability(rule.keep)} of "
        f"{rule.match or 'the rest'})"
        for rule in config.rules
    )
    where = ", ".join(
        f"in {export.path}" if isinstance(export, FileExport) else f"for {export.url}"
        for export in config.export
        if isinstance(export, FileExport | OtlpExport)
    )
    log.info(f"no configuration file: by default these traces are kept, {where}: {rules}")
