"""Composes the service: builds every part, starts them in order, keeps time, and takes them down without losing a span.

Five threads matter. The gRPC engine has two, on which requests are scanned and buffered, large ones on the second; the
HTTP receiver has one for its large ones, and handles small ones on the event loop;
deciding what is due, and finishing what is kept, is another one's, which works each time the timer asks it to;
everything else (exporters, admin port, the timer itself) lives on the event loop's. Only this module knows all parts.
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
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog
import uvloop

from sampler_proxy import __version__, metrics
from sampler_proxy.config.check import Loaded, check
from sampler_proxy.config.model import Config, ConsoleExport, Export, OtlpExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.console import ConsoleExporter
from sampler_proxy.export.exporter import Dependencies, Exporter
from sampler_proxy.export.file import FileExporter
from sampler_proxy.export.otlp import OtlpExporter
from sampler_proxy.export.pass_queue import SHARE
from sampler_proxy.export.passing import PassThrough
from sampler_proxy.operate import allocator, memory_limit
from sampler_proxy.operate.admin import Admin, Readiness
from sampler_proxy.operate.descriptors import DescriptorWatch, raise_file_limit
from sampler_proxy.operate.doors import Doors
from sampler_proxy.operate.full_queues import FullQueues
from sampler_proxy.operate.learned_rates import Prepared, Rates
from sampler_proxy.operate.memory_pressure import MemoryPressure, Signs
from sampler_proxy.operate.messages import log_faults
from sampler_proxy.operate.reload import Reloader
from sampler_proxy.operate.status import Status, log_introduction
from sampler_proxy.operate.this_machine import is_here, memory_bytes
from sampler_proxy.otlp.signals import Signal
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.receive import accepting, grpc_status
from sampler_proxy.receive import grpc as receive_grpc
from sampler_proxy.receive import http as receive_http
from sampler_proxy.receive.cors import Cors
from sampler_proxy.receive.grpc_server import GrpcEngine, Handler
from sampler_proxy.receive.http import HttpReceiver, Route
from sampler_proxy.receive.keepalive import Keepalive
from sampler_proxy.receive.passthrough import handler as passing_handler
from sampler_proxy.receive.throttle import Throttle
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.settings import Endpoint
from sampler_proxy.storage.learned import Storage, UnusableError
from sampler_proxy.traceql.compiler import Compiled
from sampler_proxy.units import format_size

TICK_S = 0.05
"""The longest delay of a decision beyond the configured wait."""

MAX_WITHOUT_MEMORY = 200
"""How often in a row, a tick apart, deciding may fail for want of memory, before the process ends."""

INLINE_EFFORT = 20_000
"""What scanning a request may cost the thread that receives all of them, in microseconds, about."""

LOOK_S = 1.0
"""How often it is looked whether file descriptors and memory are left, and whether free memory can be given back."""

SUMMARY_S = 5.0
"""How often the summary is logged, if it is."""

SAVE_S = 30.0
"""How often learned rates are saved: a crash costs so much of them at most."""

SPANS_LOST = 3
"""The exit code where a destination has not taken all kept spans in time."""

SWITCH_INTERVAL_S = 0.0005
"""How often two busy threads hand over the GIL. The default is 5 ms, which a request would wait at every tick."""

log = structlog.get_logger()


def run(loaded: Loaded, summary: bool) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. Raises StartError where something cannot be started.

    `summary`: log a line every few seconds, for somebody who looks at a terminal.
    """
    allocator.tune()
    raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return uvloop.run(Service(loaded, summary).run())


class Service:
    """The parts of one process, and their life: build, start, keep time, drain."""

    def __init__(self, loaded: Loaded, summary: bool) -> None:
        config = self._config = loaded.config
        self._warnings = loaded.warnings
        self._summary = summary
        self._readiness = Readiness("starting")
        self._stopping = asyncio.Event()
        self._failed: str | None = None
        self._without_memory = 0  # times in a row
        self._out_of_memory = Throttle()
        self._warned_of_ids = False
        self._descriptors = DescriptorWatch(time.monotonic)
        self._latencies = {
            export.name: metrics.HistogramData(metrics.EXPORT_LATENCY_SECONDS) for export in config.export
        }
        self._exporters = [self._new_exporter(export) for export in config.export]
        self._rates = Rates(secrets.randbits(64))
        self._doors = Doors(config)
        self._storage = self._open_storage(config.storage.path)
        self._pipeline = self._new_pipeline(loaded)
        kinds = {
            metrics.CALLS_NOT_SERVED: dict.fromkeys(grpc_status.KINDS, 0),
            metrics.CONNECTIONS_REFUSED: dict.fromkeys((*accepting.KINDS, *receive_http.KINDS), 0),
        }
        self._passing = PassThrough.configured(
            config, self._exporters, lambda: self._pipeline.max_bytes // SHARE, time.monotonic_ns, random.random
        )
        self._engine = self._new_engine(config, kinds)
        self._http = self._new_http(config, kinds)
        self._reloader = Reloader(
            loaded, partial(check, loaded.path or "", os.environ, is_here, memory_bytes()), self._apply, time.time
        )
        self._status = Status(
            self._pipeline,
            self._rates,
            self._reloader,
            self._exporters,
            self._latencies,
            self._engine.name,
            kinds,
            self._passing.values,
            self._doors,
            clock=time.monotonic_ns,
            time=time.time,
        )
        signs = self._pipeline.memory_signs
        self._pressure = MemoryPressure(
            lambda: Signs(*signs(time.monotonic_ns())), time.monotonic_ns, config.buffer.decision_wait_ns
        )
        self._admin = self._new_admin(config)

    def _new_admin(self, config: Config) -> Admin:
        return Admin(
            config.admin.endpoint,
            self._status.instant,
            lambda: replace(self._readiness, detail=self._unusual()),
            lambda: self._reloader.active.describe(),
            self._status.rates,
            self._status.find,
            self._status.destinations,
            self._failure,
            self._doors.admin,
        )

    def _unusual(self) -> dict[str, object]:
        """Describe, as JSON values, all that is not as it should be."""
        return {**self._reloader.detail(), **self._doors.detail(), **self._status.unwell()}

    def _new_engine(self, config: Config, kinds: dict[metrics.Metric, dict[str, int]]) -> GrpcEngine:
        transport = config.receive.grpc.endpoint.transport("grpc")
        passed = {each.method: self._passing_handler(each, transport) for each in self._passing.signals}
        return receive_grpc.create(
            {Signal.TRACES.method: self._handler(INLINE_EFFORT, transport), **passed},
            str(config.receive.grpc.endpoint),
            config.receive.max_request_bytes,
            partial(self._pipeline.count_refused, transport),
            partial(_count, kinds[metrics.CALLS_NOT_SERVED]),
            partial(_count, kinds[metrics.CONNECTIONS_REFUSED]),
            {Signal.TRACES.method: self._handler(0, transport), **passed},
            Keepalive(**dict(config.receive.grpc.keepalive)),
            self._doors.grpc,
        )

    def _new_http(self, config: Config, kinds: dict[metrics.Metric, dict[str, int]]) -> HttpReceiver | None:
        if config.receive.http.endpoint is None:
            return None
        cors, transport = config.receive.http.cors, config.receive.http.endpoint.transport("http")
        headers = (*cors.allowed_headers, *(["authorization"] if self._doors.http.credentials is not None else []))
        return HttpReceiver(
            config.receive.http.endpoint,
            Cors(cors.allowed_origins, headers, cors.max_age_ns // 1_000_000_000),
            config.receive.max_request_bytes,
            self._handler(INLINE_EFFORT, transport),
            self._handler(0, transport),
            partial(self._pipeline.count_refused, transport),
            partial(_count, kinds[metrics.CALLS_NOT_SERVED]),
            partial(_count, kinds[metrics.CONNECTIONS_REFUSED]),
            [Route(each, *2 * (self._passing_handler(each, transport),)) for each in self._passing.signals],
            self._doors.http,
        )

    def _handler(self, effort: int, transport: str) -> Handler:
        """Return a way into the pipeline, for one thread. `effort`: what scanning one request may cost it."""
        accept, clock = self._pipeline.intake(transport, effort).accept, time.monotonic_ns
        return lambda request, metadata=b"", /: accept(request, clock(), metadata)

    def _passing_handler(self, signal: Signal, transport: str) -> Handler:
        """Return a way in for requests that are passed on, for any threads."""
        return passing_handler(self._passing.queues.way(signal, transport))

    def _failure(self) -> str | None:
        """Say why this process has to end though nobody has told it to, from then on until it has; None: it has not."""
        if self._failed is None and self._readiness.status == "ready" and not self._receives():
            self._failed = "the thread that receives requests has ended, or stands still"
        return self._failed

    def _receives(self) -> bool:
        return self._engine.alive and (self._http is None or self._http.alive)

    def _new_exporter(self, config: Export) -> Exporter:
        observe_latency = self._latencies[config.name].observe
        dependencies = Dependencies(assemble, time.monotonic_ns, random.random, observe_latency, os.environ)
        if isinstance(config, OtlpExport):
            return OtlpExporter(config, dependencies)
        if isinstance(config, ConsoleExport):
            return ConsoleExporter(config, dependencies)
        return FileExporter(config, dependencies)

    def _routes(self, config: Config) -> dict[str, list[int]]:
        """Return the numbers of the destinations that rules name; a rule that names none of those which run (a new one
        runs after a restart) is left out, so that its traces go to all."""
        numbers = {exporter.name: number for number, exporter in enumerate(self._exporters)}
        routes = {rule.name: [numbers[name] for name in rule.to or () if name in numbers] for rule in config.rules}
        return {rule: route for rule, route in routes.items() if route}

    def _open_storage(self, path: str | None) -> Storage | None:
        """Open the folder and restore the learned rates from it; None where none is configured. Raises StartError."""
        if path is None:
            return None
        storage = Storage(path)
        try:
            self._rates.restore(storage.load(time.time()), storage.fingerprint)
        except UnusableError as error:
            log.warning(f"storage: the learned rates are not used, and learned anew: {error}")
        return storage

    def _new_pipeline(self, loaded: Loaded) -> Pipeline:
        config = loaded.config
        prepared = self._rates.prepare(loaded)
        self._rates.adopt(prepared)
        try:
            return Pipeline(
                rules=_rule_set(loaded, prepared),
                routes=self._routes(config),
                archives=[number for number, export in enumerate(config.export) if export.dropped],
                destinations=[exporter.queue for exporter in self._exporters],
                max_bytes=config.buffer.max_bytes,
                max_trace_bytes=config.buffer.max_trace_bytes,
                wait_ns=config.buffer.decision_wait_ns,
                wait_after_root_ns=config.buffer.decision_wait_after_root_ns,
                decision_memory_bytes=config.buffer.decision_memory_bytes,
                local_roots=config.buffer.root == "local",
                stamp_decision=config.stamp.decision,
                stamp_adjusted_count=config.stamp.adjusted_count,
                seed=secrets.randbits(64),
                limit=_limit(config),
                redact=loaded.redact,
            )
        except MemoryError:  # the decision memory has its size from the start
            asked = format_size(config.buffer.decision_memory_bytes)
            raise StartError(f"buffer.decision_memory: the system does not give {asked}: write less") from None

    def _apply(self, loaded: Loaded, changed: Collection[str]) -> None:
        """Put what has changed in a file into force, as far as a running service can. Raises what
        `Pipeline.replace_rules` does, and has then changed nothing."""
        if "rules" in changed:  # else all that is buffered would be read again
            prepared = self._rates.prepare(loaded)
            self._pipeline.replace_rules(_rule_set(loaded, prepared), self._routes(loaded.config))
            self._rates.adopt(prepared)
        if "redact" in changed:  # else what the cache has learned would be lost
            self._pipeline.replace_redaction(loaded.redact)
        if "limit" in changed:
            self._pipeline.replace_limit(_limit(loaded.config))

    async def run(self) -> int:
        """Start, decide what is due until a signal comes or something fails for good, and drain; returns the exit code:
        0, SPANS_LOST where kept spans were lost, 1 where something has failed. Raises StartError."""
        deadline_ns: int | None = None
        lost = 0
        host, port = await self._admin.start()
        try:
            await self._start(str(Endpoint(host, port)))
            await self._work()
            failure = self._failure()
            if failure is not None:
                log.error(f"stopping, so that a supervisor can start this anew: {failure}")
            deadline_ns = time.monotonic_ns() + self._config.shutdown_timeout_ns
            await self._save_learned()  # before all that is buffered is decided at once
            stopping_ns, sent = time.monotonic_ns(), self._exported_spans()
            await self._drain(deadline_ns)
        finally:
            if deadline_ns is None:
                await asyncio.to_thread(self._engine.stop)
            if self._http is not None:
                await self._http.stop()
            lost = await self._stop()
        seconds = (time.monotonic_ns() - stopping_ns) / 1e9
        log.info(f"stopped: {self._exported_spans() - sent} spans sent, {lost} lost in {seconds:.1f} s")
        if failure is not None:
            return 1
        return SPANS_LOST if lost else 0

    def _exported_spans(self) -> int:
        return sum(exporter.queue.counters().exported_spans for exporter in self._exporters)

    async def _start(self, admin_address: str) -> None:
        loop = asyncio.get_running_loop()
        for exporter in self._exporters:
            exporter.start()
        self._passing.start()
        port = self._engine.start()
        http = {} if self._http is None else {"http": str(await self._http.start())}
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
        # What exists by now stays; the cyclic collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        self._readiness = Readiness("ready")
        log.info(
            "ready",
            grpc=str(self._config.receive.grpc.endpoint.at(port)),
            **http,
            admin=admin_address,
            export=[exporter.name for exporter in self._exporters],
            version=__version__,
        )
        log_faults("warning", self._warnings)
        memory_limit.warn(self._config)
        self._passing.introduce()
        if self._summary:
            log_introduction(self._config)

    async def _work(self) -> None:
        """Keep time, reload and save until it is time to stop."""
        loop = asyncio.get_running_loop()
        running = (self._reloader.run(), self._keep_learned(), self._doors.follow())
        tasks = [loop.create_task(each) for each in running]
        try:
            await self._keep_time()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _keep_time(self) -> None:
        """Decide what is due, until it is time to stop, or nothing can be received or decided any more."""
        next_summary = time.monotonic() + SUMMARY_S
        full_queues = FullQueues(self._exporters, time.monotonic_ns)
        bound = memory_limit.BoundWatch(self._pipeline)
        trimmer = allocator.Trimmer(self._bytes_held, time.monotonic_ns)
        next_look = time.monotonic()
        while not self._stopping.is_set() and self._failure() is None:
            await asyncio.to_thread(self._decide_due)
            full_queues.look()
            with suppress(MemoryError):
                bound.look()
            if not self._pipeline.uniformity.random and not self._warned_of_ids:
                self._warned_of_ids = True
                log.warning(
                    "trace ids do not look random: sampling by them is skewed (are they made by hand, or thinned out "
                    "by a sampler that leaves no ot=th?)"
                )
            if time.monotonic() >= next_look:
                next_look += LOOK_S
                self._descriptors.check()
                self._pressure.look()
                if trimmer.due():
                    await asyncio.to_thread(allocator.trim)
            if self._summary and time.monotonic() >= next_summary:
                next_summary += SUMMARY_S
                self._status.log_summary()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def _decide_due(self) -> None:
        """Decide all that is due, and finish what is kept of it, or until it is time to stop."""
        while self._decide(self._pipeline.tick) and not self._stopping.is_set():
            pass

    def _bytes_held(self) -> int:
        """Return the most bytes of spans and of arriving requests that were here since this was asked last: what comes
        and goes between two looks leaves memory behind, too."""
        queued = sum(exporter.queue.counters().queued_bytes for exporter in self._exporters)
        arriving = self._engine.peak_in_flight() + (0 if self._http is None else self._http.peak_in_flight())
        return self._pipeline.peak_bytes() + queued + arriving + self._passing.queues.held

    def _decide(self, step: Callable[[int], bool]) -> bool | None:
        """Do one step of deciding, and return what it returns; None where there was no memory for it. What it was at is
        as it was: try again after a pause."""
        try:
            more = step(time.monotonic_ns())
        except MemoryError:
            self._pipeline.ran_out_of_memory()
            self._without_memory += 1
            if self._without_memory == MAX_WITHOUT_MEMORY:
                self._failed = "there is no memory to decide traces with"
            with suppress(MemoryError):
                if (held_back := self._out_of_memory.due()) is not None:
                    log.error(
                        f"out of memory: traces cannot be decided; trying again until it works{held_back}; lower "
                        "buffer.max_bytes, or allow this process more memory"
                    )
            return None
        self._without_memory = 0
        return more

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
        self._readiness = Readiness("draining")
        self._pressure.look()
        self._pressure.end()
        log.info("stopping: no new requests, deciding and sending what is buffered")
        loop = asyncio.get_running_loop()
        hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, hurry.set)
        left_s = (deadline_ns - time.monotonic_ns()) / 1e9
        http = [] if self._http is None else [self._http.drain(left_s / 2)]
        await asyncio.gather(asyncio.to_thread(self._engine.drain, left_s / 2), *http)
        self._pipeline.close()
        self._passing.queues.close()
        while time.monotonic_ns() < deadline_ns and not hurry.is_set():
            more = await asyncio.to_thread(self._decide, self._pipeline.drain)
            if more is None:
                await asyncio.sleep(TICK_S)
                more = True
            if self._pipeline.only_limit_left:  # exporters that have nothing to do do not wait
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await hurry.wait()
            slice_ns = min(deadline_ns, time.monotonic_ns() + (0 if more else int(TICK_S * 1e9)))
            empty = [await exporter.drain(slice_ns) for exporter in self._exporters]
            if not more and all(empty):
                break
        while time.monotonic_ns() < deadline_ns and not hurry.is_set():  # what is passed on comes after traces
            if await self._passing.drain(min(deadline_ns, time.monotonic_ns() + int(TICK_S * 1e9))):
                break

    async def _stop(self) -> int:
        """End every part. Whatever is still buffered is decided first, so that lost spans are counted and logged;
        returns their number."""
        self._pipeline.close()
        for exporter in self._exporters:
            exporter.queue.flush()
        while await asyncio.to_thread(self._decide, partial(self._pipeline.drain, hurry=True)) is not False:
            if self._without_memory >= MAX_WITHOUT_MEMORY:
                break
        await self._passing.stop()
        lost = sum([await exporter.stop() for exporter in self._exporters])
        if self._storage is not None:
            self._storage.close()
        await self._admin.stop()
        # There is nothing left to cut short. Without its handler another signal would end us as if killed.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        return lost


def _count(counts: dict[str, int], kind: str) -> None:
    counts[kind] += 1


def _rule_set(loaded: Loaded, prepared: Prepared) -> tuple[list[str], list[float | Keep], Compiled]:
    return [rule.name for rule in loaded.config.rules], prepared.keeps, loaded.compiled


def _limit(config: Config) -> tuple[float, str, float] | None:
    rate = config.limit.rate
    return None if rate is None else (rate.per_second, rate.unit, config.limit.floor)
