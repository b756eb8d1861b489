"""Runs a destination, of whatever kind: waits for batches, keeps some in flight, splits the refused, stops in time.

An exporter lives on one event loop: `start` is called there. A destination that is down costs retries, never an
exception; only `start` may raise (`errors.StartError`, where a destination can be known to be unusable). Logs name the
destination and the kind of failure, at most once a minute each; never what a back end wrote, which may quote attribute
values.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sampler_proxy.config.model import FileExport, GrpcExport
from sampler_proxy.export.queue import KeptTrace, Queue
from sampler_proxy.export.retry import Backoff

log = logging.getLogger(__name__)

LOG_INTERVAL_NS = 60 * 10**9
"""Messages of one kind are logged this far apart; those in between are counted."""

HOPELESS = 32
"""After so many traces of a batch were refused one by one, spread over the batch, and none taken, its rest is not
divided any further: the back end refuses all there is, and a request per trace would only add load."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The functions that an exporter needs beside its settings."""

    assemble: Callable[[Sequence[Any]], bytes]  # makes one request of several traces, as they were offered to the queue
    clock: Callable[[], int]  # monotonic, nanoseconds
    random: Callable[[], float]  # from [0, 1), for the jitter of pauses
    observe_latency: Callable[[float], object]  # is told the seconds of each request, or write, that succeeded


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination's final answer: taken."""

    rejected_spans: int = 0  # of those sent: the destination noted and dropped them (partial success)


@dataclass(frozen=True, slots=True)
class Refused:
    """The destination's final answer: not these bytes. `divisible`: a part of the batch may be welcome."""

    why: str
    divisible: bool


class Exporter(ABC):
    """One destination: a queue, and the tasks that empty it. `failed_tries` counts the requests (or writes) that failed
    and were, or will be, tried again."""

    def __init__(
        self,
        config: GrpcExport | FileExport,
        dependencies: Dependencies,
        *,
        concurrency: int,
        backoff_ns: tuple[int, int],
    ) -> None:
        """`concurrency`: batches in flight at once. `backoff_ns`: the first and the longest pause between two tries."""
        self.name = config.name
        self.queue = Queue.configured(config, dependencies.clock)
        self.failed_tries = 0
        self._assemble = dependencies.assemble
        self._clock = dependencies.clock
        self._observe_latency = dependencies.observe_latency
        self._backoff = Backoff(*backoff_ns, dependencies.random)
        self._free = asyncio.Semaphore(concurrency)
        self._deliveries: set[asyncio.Task[None]] = set()
        self._dispatcher: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()
        self._settled = asyncio.Event()
        self._retry_now = asyncio.Event()  # set only for an instant, to end every pause there is
        self._not_before_ns = 0  # the destination asked for silence until then
        self._draining = False
        self._failing_since_ns: int | None = None
        self._logged: dict[str, tuple[int, int]] = {}  # kind -> when last, how many held back since

    def start(self) -> None:
        """Begin to deliver. On the loop; from here on the queue may be offered traces."""
        loop = asyncio.get_running_loop()
        self.queue.wake = lambda: loop.call_soon_threadsafe(self._wakeup.set)
        self._dispatcher = loop.create_task(self._dispatch(), name=f"export {self.name}")

    async def drain(self, deadline_ns: int) -> bool:
        """Send without waiting for batches to fill, until the queue is empty (True) or the clock says `deadline_ns`
        (False).

        May be called again, so that what is offered in the meantime gets out too. The first call ends every pause, once:
        there may not be time for a long one. From then on the back-off goes on as before; a back end in trouble is not
        helped by more tries.
        """
        if not self._draining:
            self._draining = True
            self.queue.flush()
            self._wakeup.set()
            self._end_pauses()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, deadline_ns - self._clock()) / 1e9):
                while not self.queue.empty:
                    self._settled.clear()
                    await self._settled.wait()
        return self.queue.empty

    async def stop(self) -> int:
        """End every delivery now. Spans not settled are lost for reason `shutdown`; returns their number."""
        tasks = [*self._deliveries, *([self._dispatcher] if self._dispatcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.queue.wake = lambda: None
        self.queue.abandon("shutdown")
        lost = self.queue.counters().lost_spans.get("shutdown", 0)
        if lost:
            log.error("export %s: %d spans lost at shutdown", self.name, lost)
        return lost

    @abstractmethod
    async def _send(self, traces: list[KeptTrace]) -> Accepted | Refused:
        """Deliver `traces` as one request, in as many tries as it takes. An exception (there should be none) loses the
        batch, not the exporter."""

    async def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            await self._batch_ready()
            delivery = loop.create_task(self._deliver(self.queue.take()))
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._delivered)
            del delivery

    async def _batch_ready(self) -> None:
        while True:
            self._wakeup.clear()
            wait_ns = self.queue.wait_ns(self._clock())
            if wait_ns == 0:
                return
            with suppress(TimeoutError):
                # Whole milliseconds, upwards: uvloop's timers have no more, and would come back too soon.
                async with asyncio.timeout(None if wait_ns is None else -(-wait_ns // 10**6) / 1e3):
                    await self._wakeup.wait()

    def _delivered(self, delivery: asyncio.Task[None]) -> None:
        self._deliveries.discard(delivery)
        self._free.release()
        self._settled.set()

    async def _deliver(self, traces: list[KeptTrace]) -> None:
        """Settle every one of `traces`. A refused batch is halved, depth first, taking every other trace, so that the
        first traces to be tried alone come from all over the batch."""
        parts = [traces]
        del traces  # settled parts must not be kept alive from here
        refused_alone = 0
        accepted = False
        try:
            while parts:
                part = parts[-1]
                outcome = await self._send(part)
                if isinstance(outcome, Accepted):
                    accepted = True
                    self.queue.exported(part, outcome.rejected_spans)
                    if outcome.rejected_spans > 0:
                        self._complain("partial", "%d spans rejected by a partial success", outcome.rejected_spans)
                elif outcome.divisible and len(part) > 1 and (accepted or refused_alone < HOPELESS):
                    parts[-1:] = [part[1::2], part[::2]]
                    continue
                else:
                    refused_alone += 1
                    self.queue.rejected(part)
                    spans = sum(trace.spans for trace in part)
                    self._complain(outcome.why, "%d spans rejected: %s", spans, outcome.why)
                parts.pop()
        except Exception as error:
            for part in parts:
                self.queue.lost(part, "internal")
            self._complain("internal", "a batch lost to an internal error: %s", type(error).__name__)

    async def _pause(self, delay_ns: int) -> None:
        """Wait before another try; ends early when another one succeeds, and when the drain begins."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_ns / 1e9):
                await self._retry_now.wait()

    def _end_pauses(self) -> None:
        self._retry_now.set()
        self._retry_now.clear()

    def _throttle(self, delay_ns: int) -> None:
        """Send nothing more to this destination, by any delivery, for `delay_ns`."""
        self._not_before_ns = max(self._not_before_ns, self._clock() + delay_ns)

    async def _unthrottled(self) -> None:
        while (wait_ns := self._not_before_ns - self._clock()) > 0:  # noqa: ASYNC110 (it may move on meanwhile)
            await asyncio.sleep(-(-wait_ns // 10**6) / 1e3)

    def _failed(self, why: str) -> None:
        self.failed_tries += 1
        if self._failing_since_ns is None:
            self._failing_since_ns = self._clock()
        self._complain("failing", "%s; trying again until it works", why)

    def _succeeded(self, started_ns: int) -> None:
        self._observe_latency((self._clock() - started_ns) / 1e9)
        if self._failing_since_ns is not None:
            log.info("export %s: works again after %.1f s", self.name, (self._clock() - self._failing_since_ns) / 1e9)
            self._failing_since_ns = None
            self._end_pauses()

    def _complain(self, kind: str, message: str, *details: object) -> None:
        """Log a warning, unless one of its kind was logged less than LOG_INTERVAL_NS ago."""
        now_ns = self._clock()
        last_ns, held_back = self._logged.get(kind, (None, 0))
        if last_ns is not None and now_ns - last_ns < LOG_INTERVAL_NS:
            self._logged[kind] = (last_ns, held_back + 1)
            return
        self._logged[kind] = (now_ns, 0)
        more = f" ({held_back} more like it since the last)" if held_back else ""
        log.warning(f"export %s: {message}%s", self.name, *details, more)
