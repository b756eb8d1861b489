"""The composition root: builds every part, starts them in order, keeps time, and takes them down without losing a span.

Two threads matter. The gRPC engine has one, on which requests are scanned and filed; everything else (exporters, admin
port, the timer that decides what is due) lives on the event loop's. Only this module knows them all; none of them knows
another.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog
import uvloop

from sampler_proxy import __version__, metrics
from sampler_proxy.config.check import Loaded, check
from sampler_proxy.config.model import Adaptive, Config, FileExport, GrpcExport
from sampler_proxy.export.exporter import Exporter
from sampler_proxy.export.file import FileExporter
from sampler_proxy.export.otlp_grpc import GrpcExporter
from sampler_proxy.operate import allocator
from sampler_proxy.operate.admin import Admin, Readiness
from sampler_proxy.operate.learned_rates import Prepared, Rates
from sampler_proxy.operate.reload import Reloader, iso_time, log_faults
from sampler_proxy.otlp.sampling import probability_of, shown_threshold
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.receive import grpc as receive_grpc
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.storage.learned import Storage, UnusableError
from sampler_proxy.traceql.compiler import Compiled
from sampler_proxy.units import format_probability

TRACE_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

TICK_S = 0.05
"""How late a decision may be, at most, beside the wait that is configured."""

SUMMARY_S = 5.0

SAVE_S = 30.0
"""How often what has been learned is saved: a crash costs so much of it at most."""

SWITCH_INTERVAL_S = 0.0005
"""Two busy threads hand over the GIL this often. By default it is 5 ms, which a request would wait at every tick."""

log = structlog.get_logger()


def run(loaded: Loaded, summary: bool) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. Raises StartError where something cannot be started.

    `summary`: log a line every few seconds, for somebody who looks at a terminal.
    """
    allocator.tune()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return uvloop.run(Service(loaded, summary).run())


class Service:
    def __init__(self, loaded: Loaded, summary: bool) -> None:
        config = self._config = loaded.config
        self._summary = summary
        self._status: Readiness = Readiness("starting")
        self._stopping = asyncio.Event()
        self._told_of_ids = False
        self._latencies = {
            export.name: metrics.HistogramData(metrics.EXPORT_LATENCY_SECONDS) for export in config.export
        }
        self._exporters = [self._exporter(export) for export in config.export]
        self._rates = Rates(secrets.randbits(64))
        self._storage = self._open_storage(config.storage.path)
        prepared = self._rates.prepare(loaded)
        self._rates.adopt(prepared)
        self._pipeline = Pipeline(
            rules=_rule_set(loaded, prepared),
            destinations=[exporter.queue for exporter in self._exporters],
            max_bytes=config.buffer.max_bytes,
            max_trace_bytes=config.buffer.max_trace_bytes,
            wait_ns=config.buffer.decision_wait_ns,
            wait_after_root_ns=config.buffer.decision_wait_after_root_ns,
            decision_memory_bytes=config.buffer.decision_memory_bytes,
            stamp_decision=config.stamp.decision,
            stamp_adjusted_count=config.stamp.adjusted_count,
            seed=secrets.randbits(64),
            limit=_limit(config),
            redact=loaded.redact,
        )
        accept, clock = self._pipeline.intake("grpc").accept, time.monotonic_ns
        self._engine = receive_grpc.create(
            {TRACE_EXPORT: lambda request: accept(request, clock())},
            str(config.receive.grpc.endpoint),
            config.receive.max_request_bytes,
            partial(self._pipeline.count_refused, "grpc"),
        )
        self._warnings = loaded.warnings
        self._reloader = Reloader(
            loaded,
            partial(check, loaded.path or "", os.environ),
            self._apply,
            time.time,
        )
        self._admin = Admin(
            config.admin.endpoint,
            metrics.new_registry(self.snapshot),
            lambda: replace(self._status, detail=self._reloader.detail()),
            lambda: self._reloader.active.describe(),
            self._describe_rates,
            self._find,
        )

    def _open_storage(self, path: str | None) -> Storage | None:
        if path is None:
            return None
        storage = Storage(path)
        try:
            self._rates.restore(storage.load(time.time()), storage.fingerprint)
        except UnusableError as error:
            log.warning(f"storage: the learned rates are not used, and learned anew: {error}")
        return storage

    def _apply(self, loaded: Loaded) -> None:
        """What a running service takes over from a changed file. Raises what replace_rules does, and has then changed
        nothing."""
        if loaded.config.rules != self._reloader.applied.rules:  # else all that is buffered would be read again
            prepared = self._rates.prepare(loaded)
            self._pipeline.replace_rules(_rule_set(loaded, prepared))
            self._rates.adopt(prepared)
        self._pipeline.replace_redaction(loaded.redact)
        self._pipeline.replace_limit(_limit(loaded.config))

    def _exporter(self, config: GrpcExport | FileExport) -> Exporter:
        build: Callable[..., Exporter] = GrpcExporter if isinstance(config, GrpcExport) else FileExporter
        return build(
            config,
            assemble,
            clock=time.monotonic_ns,
            random=random.random,
            observe_latency=self._latencies[config.name].observe,
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        deadline_ns: int | None = None
        admin_address = await self._admin.start()
        try:
            for exporter in self._exporters:
                exporter.start()
            port = self._engine.start()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
            # What exists by now stays; the cyclic collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            self._status = Readiness("ready")
            log.info(
                "ready",
                grpc=f"{self._config.receive.grpc.endpoint.host}:{port}",
                admin=f"{admin_address[0]}:{admin_address[1]}",
                export=[exporter.name for exporter in self._exporters],
                version=__version__,
            )
            log_faults("warning", self._warnings)
            if self._summary:
                self._log_introduction()
            tasks = [loop.create_task(self._reloader.run()), loop.create_task(self._keep_learned())]
            try:
                await self._keep_time()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            deadline_ns = time.monotonic_ns() + self._config.shutdown_timeout_ns
            await self._save_learned()  # before all that is buffered is decided at once
            await self._drain(deadline_ns)
            return 0
        finally:
            if deadline_ns is None:
                await asyncio.to_thread(self._engine.stop)
            # Whatever has not been decided by now is, so that what is lost is counted and said.
            self._pipeline.close()
            for exporter in self._exporters:
                exporter.queue.flush()
            while self._pipeline.drain(time.monotonic_ns(), hurry=True):
                pass
            for exporter in self._exporters:
                await exporter.stop()
            if self._storage is not None:
                self._storage.close()
            await self._admin.stop()
            # There is nothing left to cut short. Without its handler another signal would end us as if killed.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    async def _keep_time(self) -> None:
        """Decide what is due, until it is time to stop."""
        next_summary = time.monotonic() + SUMMARY_S
        while not self._stopping.is_set():
            while self._pipeline.tick(time.monotonic_ns()):  # noqa: ASYNC110 (others get their turn between slices)
                await asyncio.sleep(0)
            if not self._pipeline.uniformity.random and not self._told_of_ids:
                self._told_of_ids = True
                log.warning(
                    "trace ids do not look random: sampling by them is skewed (are they made by hand, or thinned out "
                    "by a sampler that leaves no ot=th?)"
                )
            if self._summary and time.monotonic() >= next_summary:
                next_summary += SUMMARY_S
                self._log_summary()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _keep_learned(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            await self._save_learned()

    async def _save_learned(self) -> None:
        storage = self._storage
        if storage is None:
            return
        with self._pipeline.lock:
            learned = self._rates.learned()
        if not learned.seen:
            return  # nothing new: what is in the file is as good as it was

        def save() -> None:
            storage.save(learned.hashed(storage.fingerprint), time.time())

        try:
            await asyncio.to_thread(save)
        except OSError as error:
            log.error(f"storage: the learned rates cannot be saved: {error.strerror}")

    async def _drain(self, deadline_ns: int) -> None:
        """Take nothing more, decide everything, and send it, as far as the time reaches."""
        self._status = Readiness("draining")
        log.info("stopping: no new requests, deciding and sending what is buffered")
        loop = asyncio.get_running_loop()
        hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, hurry.set)
        left_s = (deadline_ns - time.monotonic_ns()) / 1e9
        await asyncio.to_thread(self._engine.drain, left_s / 2)
        self._pipeline.close()
        while time.monotonic_ns() < deadline_ns and not hurry.is_set():
            more = self._pipeline.drain(time.monotonic_ns())
            if self._pipeline.only_limit_left:  # exporters that have nothing to do do not wait
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await hurry.wait()
            slice_ns = min(deadline_ns, time.monotonic_ns() + (0 if more else int(TICK_S * 1e9)))
            empty = [await exporter.drain(slice_ns) for exporter in self._exporters]
            if not more and all(empty):
                break

    def _log_introduction(self) -> None:
        """For a start without a configuration file."""
        rules = ", ".join(
            f"{rule.name} {rule.keep.target if isinstance(rule.keep, Adaptive) else format_probability(rule.keep)}"
            for rule in self._config.rules
        )
        files = ", ".join(export.path for export in self._config.export if isinstance(export, FileExport))
        log.info(f"no configuration file: by default these traces are kept, in {files}: {rules}")

    def _log_summary(self) -> None:
        values = self.snapshot()

        def total(metric: metrics.Metric) -> int:
            return int(sum(value for value in values[metric].values() if isinstance(value, int | float)))

        received, kept, buffered = (
            total(metric) for metric in (metrics.SPANS_RECEIVED, metrics.SPANS_KEPT, metrics.BUFFER_SPANS)
        )
        traces = total(metrics.TRACES_DECIDED)
        log.info(
            f"{received} spans received, {kept} kept, {total(metrics.SPANS_SAMPLED_OUT)} sampled out, "
            f"{buffered} waiting; {traces} traces decided"
        )

    def _describe_rates(self) -> dict[str, object]:
        with self._pipeline.lock:
            rules = self._rates.describe(time.monotonic_ns(), self._reloader.redact)
            values = self._pipeline.snapshot(time.monotonic_ns())
        limit = self._reloader.applied.limit
        removed = {
            rule: {"traces": traces, "spans": values[metrics.LIMITED_SPANS][rule,]}
            for (rule,), traces in values[metrics.LIMITED_TRACES].items()
        }
        return {
            "rules": rules,
            "limit": limit.model_dump(mode="json", exclude_none=True) if limit.rate else None,
            "removed_by_limit": removed,
            "trace_ids_random": bool(values[metrics.TRACE_IDS_RANDOM][()]),
        }

    def _find(self, trace_id: bytes) -> dict[str, object] | None:
        found: dict[str, object] | None = self._pipeline.find(trace_id, time.monotonic_ns())
        if found is not None and found["state"] == "decided":
            threshold, ago_s = found["threshold"], found.pop("ago_seconds")
            assert isinstance(threshold, int)
            assert isinstance(ago_s, int | float)
            found["threshold"] = shown_threshold(threshold)
            found["probability"] = probability_of(threshold)
            found["decided_at"] = iso_time(time.time() - ago_s)
        return found

    def snapshot(self) -> metrics.Snapshot:
        """All values at one instant. On the loop's thread, as the exporters expect; the lock holds the rest still."""
        values: dict[metrics.Metric, dict[tuple[str, ...], float | metrics.HistogramValue]]
        with self._pipeline.lock:
            values = self._pipeline.snapshot(time.monotonic_ns())
            values.update(self._rates.values(time.monotonic_ns()))
            counters = [(exporter, exporter.queue.counters()) for exporter in self._exporters]
        values[metrics.SPANS_ROUTED] = {(exporter.name,): c.routed_spans for exporter, c in counters}
        values[metrics.SPANS_EXPORTED] = {(exporter.name,): c.exported_spans for exporter, c in counters}
        values[metrics.QUEUE_SPANS] = {(exporter.name,): c.queued_spans for exporter, c in counters}
        values[metrics.SPANS_REJECTED] = {(exporter.name,): c.rejected_spans for exporter, c in counters}
        values[metrics.SPANS_LOST] = {
            (exporter.name, reason): spans for exporter, c in counters for reason, spans in c.lost_spans.items()
        }
        values[metrics.QUEUE_BYTES] = {(exporter.name,): c.queued_bytes for exporter, c in counters}
        values[metrics.QUEUE_MAX_BYTES] = {(exporter.name,): exporter.queue.max_bytes for exporter, _ in counters}
        values[metrics.EXPORT_LATENCY_SECONDS] = {(name,): data.value() for name, data in self._latencies.items()}
        reloader = self._reloader
        values[metrics.RULES_INFO] = {(reloader.active.version,): 1}
        values[metrics.RULES_LOADED_TIMESTAMP_SECONDS] = {(): reloader.active.loaded_s}
        values[metrics.CONFIG_RELOADS] = {(outcome,): count for outcome, count in reloader.reloads.items()}
        values[metrics.CONFIG_LAST_RELOAD_SUCCESSFUL] = {(): 0 if reloader.faults else 1}
        values[metrics.BUILD_INFO] = {(__version__, self._engine.name): 1}
        return values


def _rule_set(loaded: Loaded, prepared: Prepared) -> tuple[list[str], list[float | Keep], Compiled]:
    return [rule.name for rule in loaded.config.rules], prepared.keeps, loaded.compiled


def _limit(config: Config) -> tuple[float, str, float] | None:
    rate = config.limit.rate
    return None if rate is None else (rate.per_second, rate.unit, config.limit.floor)
