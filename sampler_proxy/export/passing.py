"""Passes requests of other signals on to the destinations, as bytes: batches, retries, an answer to each kind of fault.

The rules are those of `retry`. What fails is tried again with back-off, whole, as long as nothing of its signal passes:
then it is the destination, which gets one try at a time. Batches that failed and new ones have their turn alternately,
so that one which cannot pass holds up nobody; where others pass and it fails again and again, it is divided, and a
request that is alone and still fails is given up after `give_up_ns`.

A destination that does not know a signal has it discarded, and is asked again with what comes after ASK_AGAIN_NS. Each
signal is by itself, in its state as in its pace; nothing here says that a destination is down.

On one event loop. No task ends while it runs, and no request leaves without being counted (pass_queue.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from sampler_proxy import metrics
from sampler_proxy.config.model import Config, OtlpExport
from sampler_proxy.export.exporter import Exporter
from sampler_proxy.export.lasting import Lasting, is_to_end
from sampler_proxy.export.otlp import OtlpExporter
from sampler_proxy.export.pass_queue import SHARE, PassBatch, PassQueues, SignalQueue, Way
from sampler_proxy.export.queue import FULL
from sampler_proxy.export.reporter import Reporter
from sampler_proxy.export.retry import OUT_OF_MEMORY, Accepted, Backoff, Failed, Fault, lacks_memory
from sampler_proxy.otlp.metadata import Metadata, decode
from sampler_proxy.otlp.signals import PASSED_ON, Signal
from sampler_proxy.units import format_duration

log = logging.getLogger(__name__)

ASK_AGAIN_NS = 600 * 10**9
"""How long a signal is discarded for a destination that does not know it, before it is asked again."""

BATCH_BYTES = 3 << 20
"""The size of a batch, where `batch.max_bytes` is not set: gRPC servers take 4 MiB unless told otherwise, and what a
request costs by itself is spread over all that are in it. (That of traces, 1 MiB, is what may fail together.)"""

DOUBTS = 8
"""So many tries in succession have to fail before a signal is discarded that the destination has taken before."""

MAX_SLOTS = 4
"""Requests in flight to a destination for each signal, where `concurrency` allows so many."""

DIVIDE_AFTER = 3
"""So many failures of a batch have it divided: while others pass, or, as far as MAX_PROBES, while nothing does."""

MAX_PROBES = 2

HOPELESS = 32
"""After so many refusals for good, and nothing taken, batches are not divided any further."""

LEAST_BATCH_BYTES = 16 << 10
LEARNED_FOR_NS = 600 * 10**9
"""A size that was too large is forgotten after this: the destination's limit may have been raised."""

LOOK_AGAIN_NS = 5 * 10**9
"""Whoever waits looks again after this at the latest: nobody may have had the memory to wake it."""

_ITEMS = {Signal.LOGS: "log records", Signal.METRICS: "data points", Signal.PROFILES: "profiles"}


class Sending(Protocol):
    """The way to a destination (transport.py)."""

    place: str
    on_renewal: list[Callable[[], object]]

    async def send(self, signal: Signal, request: bytes, metadata: Metadata = ()) -> Accepted | Failed:
        """Try once to deliver a request."""


class Passing:
    """One signal on its way to one destination."""

    def __init__(
        self,
        config: OtlpExport,
        signal: Signal,
        queue: SignalQueue,
        transport: Sending,
        clock: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        """Create it, stopped. `clock` tells monotonic nanoseconds, `random` numbers from [0, 1)."""
        self.signal = signal
        self.queue = queue
        self._name = f"{config.name} ({signal.label})"
        self.report = Reporter(self._name, clock, signal.label)
        self._transport = transport
        self._clock = clock
        self._slots = min(MAX_SLOTS, config.concurrency)
        self._give_up_ns = config.retry.give_up_ns
        self._batch_bytes = queue.batch_bytes
        self._backoff = Backoff(config.retry.initial_ns, config.retry.max_ns, random)
        self._lasting = Lasting(self._name, self._backoff, self.report)
        self._turn = asyncio.Lock()  # of the slot that gets the next batch
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._aside: list[PassBatch] = []  # failed, to be tried again
        self._busy = 0  # slots that have a batch
        self._took_fresh = False
        self._failures = 0  # tries in succession, while nothing passes
        self._probes = MAX_PROBES
        self._refusals = 0  # for good, since something passed
        self._passed_ns: int | None = None  # when the last request that passed was sent
        self._rests_until_ns = 0
        self._silent_until_ns = 0  # the destination asked for it
        self._learned_ns = 0
        self._known = True  # the signal, to the destination
        self._told = [0, 0]  # requests refused, and dropped, for want of room
        self._draining = False

    def start(self) -> None:
        """Begin to send. On the loop, once the transport has been started."""
        loop = asyncio.get_running_loop()
        self.queue.wake = lambda: loop.call_soon_threadsafe(self._changed.set)
        self._transport.on_renewal.append(self._try_now)
        for _ in range(self._slots):
            self._lasting.begin(self._deliver_batches)

    async def drain(self, deadline_ns: int) -> bool:
        """Send without waiting for batches to fill, until nothing is left (True) or the clock says `deadline_ns`
        (False). May be called again; the first call ends every pause, once."""
        if not self._draining:
            self._draining = True
            self.queue.flush()
            self._try_now()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, deadline_ns - self._clock()) / 1e9):
                while self.queue.queued:
                    self._settled.clear()
                    await self._settled.wait()
        return not self.queue.queued

    async def stop(self) -> int:
        """End at once. Requests that are left are lost for reason `shutdown`; returns their number."""
        await self._lasting.end()
        lost = self.queue.abandon("shutdown")
        self._aside.clear()
        self._tell_full()
        self.report.final()
        if lost:
            log.error("export %s: %d requests lost at shutdown", self._name, lost)
        return lost

    def describe(self) -> dict[str, object]:
        """Describe, as JSON values, how the signal is doing, with its part of the ledger in requests."""
        queue = self.queue
        return {
            "known": self._known,
            "last_error": self.report.last_error,
            "requests": {
                "routed": queue.routed,
                "exported": queue.exported,
                "queued": queue.queued,
                "rejected": queue.rejected,
                "unwanted": queue.unwanted,
                "lost": dict(queue.lost),
            },
        }

    def _try_now(self) -> None:
        """End every pause, once."""
        self._rests_until_ns = 0
        for batch in self._aside:
            batch.not_before_ns = 0
        self._changed.set()

    async def _deliver_batches(self) -> None:
        """Use one slot: send one batch after the other."""
        while True:
            async with self._turn:
                batch = await self._next()
                self._busy += 1
            try:
                await self._deliver(batch)
            except (Exception, asyncio.CancelledError) as error:
                if is_to_end(error):
                    raise
                await self._lasting.once_there_is_memory(partial(self._lose, batch, error))
            finally:
                self._busy -= 1
                with suppress(MemoryError):  # who waits looks again
                    self._settled.set()
                    if self._aside or self._failures:
                        self._changed.set()

    async def _next(self) -> PassBatch:
        """Wait for a batch whose time has come."""
        while True:
            self._changed.clear()
            self._tell_full()
            now_ns = self._clock()
            wait_ns: int | None = max(self._silent_until_ns, self._rests_until_ns) - now_ns
            if wait_ns is not None and wait_ns <= 0:
                wait_ns = None
                if not (self._failures and self._busy):  # else one try at a time, until something passes
                    if (batch := self._due(now_ns)) is not None:
                        return batch
                    waits = [each.not_before_ns - now_ns for each in self._aside]
                    if (fresh_ns := self.queue.wait_ns(now_ns)) is not None:
                        waits.append(fresh_ns)
                    wait_ns = min(waits, default=None)
            await _set_within(self._changed, wait_ns)

    def _due(self, now_ns: int) -> PassBatch | None:
        """Take a batch that failed before, and a new one the next time; None: neither is due."""
        if self.queue.batch_bytes != self._batch_bytes and now_ns - self._learned_ns > LEARNED_FOR_NS:
            self.queue.batch_bytes = self._batch_bytes
        fresh = self.queue.wait_ns(now_ns) == 0
        if not fresh or self._took_fresh:
            for at, batch in enumerate(self._aside):
                if batch.not_before_ns <= now_ns:
                    self._took_fresh = False
                    del self._aside[at]
                    return batch
        if not fresh:
            return None
        self._took_fresh = True
        return self.queue.take()

    async def _deliver(self, batch: PassBatch) -> None:
        """Try a batch once, and settle it or set it aside."""
        started_ns = self._clock()
        outcome = await self._try(batch)

        async def after() -> None:
            if isinstance(outcome, Accepted):
                self._pass(batch, outcome, started_ns)
            elif outcome.not_served and (self._passed_ns is None or self._failures >= DOUBTS):
                self._discard(batch, outcome)
            elif outcome.not_served or outcome.fault.passes_by_itself:
                # It knew the signal before: a middleman may say that it does not, or it may for one sender only.
                self._try_again(batch, outcome, started_ns)
            else:
                self._refuse(batch, outcome)

        await self._lasting.once_there_is_memory(after)

    async def _try(self, batch: PassBatch) -> Accepted | Failed:
        try:
            metadata = decode(batch.metadata) if batch.metadata else ()
            return await self._transport.send(self.signal, batch.joined(), metadata)
        except Exception as error:
            if not lacks_memory(error):
                raise
            self._lasting.note_error(error)
            return OUT_OF_MEMORY

    def _pass(self, batch: PassBatch, outcome: Accepted, started_ns: int) -> None:
        self.queue.settle_exported(batch, outcome.rejected)
        self._failures = self._refusals = self._rests_until_ns = 0
        self._probes = MAX_PROBES
        self._passed_ns = max(started_ns, self._passed_ns or 0)
        if batch.part_of_nbytes:
            self._learn_size(batch.part_of_nbytes // 2)
        if self.report.succeeded():
            self._try_now()
        if not self._known:
            self._known = True
            log.info("export %s: it knows them now", self._name)
        if outcome.rejected > 0:
            items = _ITEMS[self.signal]
            self.report.complain("partial", outcome.rejected, f"{items} rejected by a partial success")

    def _discard(self, batch: PassBatch, outcome: Failed) -> None:
        """Discard what there is: the destination does not know the signal."""
        self.report.refused(outcome.code, f"{self._transport.place}{outcome.verdict}")
        batches = [batch, *self._aside]
        self._aside.clear()
        self.queue.discard(batches, self._clock() + ASK_AGAIN_NS)
        self._failures = 0
        self._passed_ns = None
        if self._known:
            self._known = False
            log.warning(
                "export %s: it does not know them (%s): they are discarded for it; it is asked again every %s",
                self._name,
                outcome.code,
                format_duration(ASK_AGAIN_NS),
            )

    def _try_again(self, batch: PassBatch, outcome: Failed, started_ns: int) -> None:
        """Set a batch aside, for the same bytes or parts of them to be tried again."""
        now_ns = self._clock()
        before_ns = started_ns if batch.tried_ns is None else batch.tried_ns
        clears = outcome.fault.clears_the_bytes
        others_pass = self._passed_ns is not None and self._passed_ns > before_ns and not clears
        why = f"{self._transport.place}{outcome.why}, {outcome.code}"
        # Silence is for this batch where the last one to be tried has passed: the next ones tell whether it is for all.
        alone = others_pass or (self._passed_ns is not None and not self._failures)
        batch.tried_ns = started_ns
        batch.failures += 1
        if not others_pass:
            batch.alone_since_ns = None
        elif batch.alone_since_ns is None:
            batch.alone_since_ns = started_ns
        elif len(batch.requests) == 1 and now_ns - batch.alone_since_ns >= self._give_up_ns:
            self._reject(batch, f"{outcome.verdict}, again and again, while others pass")
            return
        divides = batch.failures >= DIVIDE_AFTER and not clears and (others_pass or self._probes > 0)
        pieces = batch.halves() if divides else [batch]
        if divides and outcome.fault is Fault.EXHAUSTED:  # of which some servers speak where a request is too large
            for piece in pieces:
                piece.part_of_nbytes = batch.nbytes
        if others_pass:
            for piece in pieces:
                piece.not_before_ns = now_ns + self._backoff.delay_ns(batch.failures - 1)
            self.report.failed_alone(outcome.code, why)
        else:
            self._probes -= len(pieces) - 1
            self._rests_until_ns = now_ns + self._backoff.delay_ns(self._failures)
            self._failures += 1
            self.report.failed(outcome.code, why)
        if outcome.retry_after_ns and not alone:
            self._silent_until_ns = max(self._silent_until_ns, now_ns + outcome.retry_after_ns)
        elif outcome.retry_after_ns:
            for piece in pieces:
                piece.not_before_ns = max(piece.not_before_ns, now_ns + outcome.retry_after_ns)
        self._aside += pieces

    def _refuse(self, batch: PassBatch, outcome: Failed) -> None:
        """Divide a batch that was refused for good, where its parts may be welcome; else reject it."""
        self.report.refused(outcome.code or "refused", f"{self._transport.place}{outcome.verdict}")
        divisible = outcome.fault is Fault.SIZE or (outcome.fault is Fault.BYTES and self._refusals < HOPELESS)
        pieces = batch.halves() if divisible else [batch]
        if len(pieces) == 1:
            self._refusals += 1
            self._reject(batch, outcome.verdict)
            self._aside.sort(key=lambda each: -len(each.requests))  # so that single ones are found all over a batch
            return
        if outcome.fault is Fault.SIZE:
            self._learn_size(outcome.limit_bytes or batch.nbytes // 2)
        self._aside[:0] = pieces

    def _learn_size(self, size: int) -> None:
        """Make no larger batches, for a while."""
        size = max(size, LEAST_BATCH_BYTES)
        if size < self.queue.batch_bytes:
            self.queue.batch_bytes, self._learned_ns = size, self._clock()

    def _reject(self, batch: PassBatch, why: str) -> None:
        count = len(batch.requests)
        self.queue.settle_rejected(batch)
        with suppress(MemoryError):
            self.report.complain(f"rejected {why}", count, f"requests rejected: {why}")

    async def _lose(self, batch: PassBatch, error: BaseException) -> None:
        self.queue.settle_lost(batch, "internal")
        with suppress(MemoryError):
            count, kind = len(batch.requests), type(error).__name__
            self.report.complain("internal", count, f"requests lost to an internal error: {kind}")

    def _tell_full(self) -> None:
        """Report what had no room since this was called last."""
        refused, dropped = self.queue.refusals, self.queue.lost[FULL]
        more_refused, more_dropped = refused - self._told[0], dropped - self._told[1]
        self._told[:] = refused, dropped
        if more_refused:
            self.report.complain("refused", more_refused, "requests refused: its queue is full, senders come back")
        if more_dropped:
            self.report.complain("full", more_dropped, "requests dropped: its queue is full (when_full: drop)")


class PassThrough:
    """Passes signals on to destinations, each with the transport of its exporter. `max_bytes` tells how much traces may
    take: a share of it may be held here; `clock` tells monotonic nanoseconds, `random` numbers from [0, 1)."""

    signals: Sequence[Signal] = PASSED_ON
    """Those that are taken; others have to be refused."""
    _asked_for = False
    """Whether they are to be passed on, and nobody was told that they are not."""

    def __init__(
        self,
        destinations: Iterable[tuple[OtlpExport, Sending]],
        max_bytes: Callable[[], int],
        clock: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self.queues = PassQueues(lambda: max_bytes() // SHARE, clock)
        self._passing: list[tuple[str, Sequence[Passing]]] = []
        for config, transport in destinations:
            queues = self.queues.add(
                config.name,
                batch_bytes=config.batch.max_bytes if "max_bytes" in config.batch.model_fields_set else BATCH_BYTES,
                max_wait_ns=config.batch.max_wait_ns,
                drop=config.queue.when_full == "drop",
            )
            passing = [Passing(config, signal, queues.of[signal], transport, clock, random) for signal in PASSED_ON]
            self._passing.append((config.name, passing))

    @classmethod
    def configured(
        cls,
        config: Config,
        exporters: Iterable[Exporter],
        max_bytes: Callable[[], int],
        clock: Callable[[], int],
        random: Callable[[], float],
    ) -> PassThrough:
        """Make what a configuration asks for. File destinations take traces only."""
        found = [
            (export, exporter.transport)
            for export, exporter in zip(config.export, exporters, strict=True)
            if isinstance(export, OtlpExport) and isinstance(exporter, OtlpExporter)
        ]
        made = cls(found if config.passthrough == "all" else [], max_bytes, clock, random)
        if config.passthrough == "off":
            made.signals = ()
        made._asked_for = config.passthrough == "all"
        return made

    def start(self) -> None:
        """Begin to send. On the loop, once the exporters have been started."""
        for each in self._all():
            each.start()

    def look(self) -> None:
        """Log, once, that what has come goes nowhere though it is to be passed on."""
        if self._asked_for and not self._passing and self.queues.received:
            self._asked_for = False
            log.info("logs, metrics and profiles are taken, counted and discarded: all destinations take traces only")

    def way(self, signal: Signal, transport: str) -> Way:
        """Make the way of a signal that comes by a transport. Called before `start`."""
        return self.queues.way(signal, transport)

    async def drain(self, deadline_ns: int, hurry: asyncio.Event) -> None:
        """Send all that is left until the clock says `deadline_ns`, or `hurry` is set."""
        all_sent = asyncio.gather(*(each.drain(deadline_ns) for each in self._all()))
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait((all_sent, hurried), return_when=asyncio.FIRST_COMPLETED)
        for task in (all_sent, hurried):
            task.cancel()
        await asyncio.gather(all_sent, hurried, return_exceptions=True)

    async def stop(self) -> int:
        """End at once, before the exporters do; returns how many requests are lost."""
        self.queues.close()
        return sum([await each.stop() for each in self._all()])

    def values(self) -> dict[metrics.Metric, dict[tuple[str, ...], float]]:
        """Read all metrics of what is passed on."""
        failures: dict[tuple[str, ...], float] = {
            (name, each.signal.label, code): count
            for name, passing in self._passing
            for each in passing
            for code, count in each.report.failures.items()
        }
        return {**self.queues.values(), metrics.PASSTHROUGH_FAILURES: failures}

    def describe(self, name: str) -> dict[str, object]:
        """Describe, as JSON values, what has become of each signal at a destination; empty where none goes there."""
        return {
            each.signal.label: each.describe()
            for destination, passing in self._passing
            if destination == name
            for each in passing
        }

    def _all(self) -> list[Passing]:
        return [each for _, passing in self._passing for each in passing]


async def _set_within(event: asyncio.Event, wait_ns: int | None) -> None:
    """Wait until an event is set, for so long at most; None: as long as one waits without looking again."""
    wait_ns = LOOK_AGAIN_NS if wait_ns is None else min(wait_ns, LOOK_AGAIN_NS)
    with suppress(TimeoutError):
        # Whole milliseconds, upwards: uvloop's timers have no more, and would come back too soon.
        async with asyncio.timeout(-(-wait_ns // 10**6) / 1e3):
            await event.wait()
