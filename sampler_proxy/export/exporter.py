"""Runs a destination, of whatever kind: waits for batches, keeps some in flight, tries again, divides, stops in time.

An exporter lives on one event loop: `start` is called there. A destination that is down costs retries, never an
exception; only `start` may raise (`errors.StartError`, where a destination can be known to be unusable).

A batch holds one slot until it is settled. What fails is tried again with back-off, whole, as long as nothing passes:
then it is the destination. While all slots fail, one of them, the probe, tries parts of its batch instead, at the same
pace, so that a batch which cannot pass is told from a destination which does not work. A parcel that fails again though
others have passed gives its slot back and becomes a suspect: suspects are tried in smaller and smaller parts by a few
workers of their own, and one that is alone and still fails is given up after `give_up_ns`.

No task ends while the exporter runs. What meets a want of memory is tried again after a pause: a step changes all of
the counters that it is about or, with MemoryError, none. Any other exception costs the spans in hand, and is logged.

Long: one state machine. Slots, probe, suspects and the drain decide by the same few counters, which only stay right
while every step that changes them stands beside the others.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sampler_proxy.config.model import Destination
from sampler_proxy.export.fates import Fates
from sampler_proxy.export.lasting import Lasting, is_to_end
from sampler_proxy.export.parcel import PIECES, Batch, Parcel
from sampler_proxy.export.queue import KeptTrace, Queue
from sampler_proxy.export.reasons import LOST
from sampler_proxy.export.recent import Recent, Try
from sampler_proxy.export.reporter import Reporter
from sampler_proxy.export.retry import OUT_OF_MEMORY, Accepted, Backoff, Failed, Fault, lacks_memory
from sampler_proxy.export.suspects import Step, Suspects

log = logging.getLogger(__name__)

HOPELESS = 32
"""After so many traces of a batch were refused one by one, spread over the batch, and none taken, its rest is not
divided any further: the back end refuses all there is, and a request per trace would only add load."""

PROBE_AFTER = 3
"""So many failures of a batch, while nothing passes, make it a probe; one, if they are time-outs, which last."""

MAX_PROBES = 2
"""A probe is divided so often: its parts are still few when the destination works again."""

NOTHING_TAKEN = Failed(Fault.BYTES, "", "it rejects all spans by a partial success")

HEADER_TOO_LARGE = "the attributes of the resource or scope alone are larger than it takes"

LEARNED_FOR_NS = 600 * 10**9
"""A limit that was learned is forgotten after this: the destination's may have been raised."""

LEAST_LIMIT_BYTES = 16 << 10
"""No smaller limit is learned: that only small requests have passed may be chance. What is no larger, and is called too
large though nothing passes, meets a destination that refuses whatever comes."""

LOOK_AGAIN_NS = 5 * 10**9
"""Whoever waits looks again after this at the latest: nobody may have had the memory to wake it."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The functions that an exporter needs beside its settings."""

    assemble: Callable[[Sequence[Any]], bytes]  # makes one request of several traces, as they were offered to the queue
    clock: Callable[[], int]  # monotonic, nanoseconds
    random: Callable[[], float]  # from [0, 1), for the jitter of pauses
    observe_latency: Callable[[float], object]  # is told the seconds of each request, or write
    environ: Mapping[str, str] = field(default_factory=dict)  # names HTTP proxies


@dataclass(frozen=True, slots=True)
class Persistence:
    """Time and pauses of the tries of a destination."""

    initial_ns: int  # the first pause
    max_ns: int  # the longest one
    give_up_ns: int  # for a trace that fails while others pass


class Exporter(ABC):
    """One destination: a queue, and the tasks that empty it. `failed_tries` counts the requests (or writes) that failed
    and were, or will be, tried again."""

    place = ""  # stands before a reason in the log

    def __init__(
        self,
        config: Destination,
        dependencies: Dependencies,
        persistence: Persistence,
        *,
        concurrency: int,
        limit_bytes: int,
    ) -> None:
        """Create a stopped exporter. `concurrency`: requests in flight at once. `limit_bytes`: the largest request that
        the destination takes, as far as is known before it was asked."""
        self.name = config.name
        self.queue = Queue.configured(config, dependencies.clock)
        self.failed_tries = 0
        self._assemble = dependencies.assemble
        self._clock = dependencies.clock
        self._observe_latency = dependencies.observe_latency
        self._backoff = Backoff(persistence.initial_ns, persistence.max_ns, dependencies.random)
        self._limit_bytes = self._default_limit_bytes = limit_bytes
        self._learned_ns = 0
        self._recent = Recent()
        self._slots = concurrency
        self._turn = asyncio.Lock()  # of the slot that gets the next batch
        self._in_flight = asyncio.Semaphore(concurrency)
        self._workers = max(1, concurrency // 2)  # for suspects
        self._under_way: dict[Batch, list[Parcel]] = {}  # of each slot that has a batch
        self._suspects = Suspects(
            self._recent, self._backoff, self._clock, persistence.give_up_ns, share_slot=concurrency == 1
        )
        self._probe: Batch | None = None
        self._passed_ns: int | None = None  # the last request of which something was taken: when it was sent
        self._large_nbytes = 0  # of a request that was refused, though parts of it passed
        self._wakeup = asyncio.Event()
        self._settled = asyncio.Event()
        self._retry_now = asyncio.Event()  # set only for an instant, to end every pause there is
        self._not_before_ns = 0  # the destination asked for silence until then
        self._draining = False
        self._dropped_told = 0  # spans
        self.report = Reporter(config.name, dependencies.clock)
        self._lasting = Lasting(config.name, self._backoff, self.report, self._pause)
        self.fates = Fates()

    @property
    def certificate_expires_s(self) -> float | None:
        """The end of the certificate that is shown to the destination, in seconds since the epoch; None: none is."""
        return None

    def start(self) -> None:
        """Begin to deliver. On the loop; from here on the queue may be offered traces."""
        loop = asyncio.get_running_loop()
        self.queue.wake = lambda: loop.call_soon_threadsafe(self._wakeup.set)
        for _ in range(self._slots):
            self._lasting.begin(self._deliver_batches)
        for number in range(self._workers):
            self._lasting.begin(partial(self._try_suspects, number == 0))

    async def drain(self, deadline_ns: int) -> bool:
        """Send without waiting for batches to fill, until the queue is empty (True) or the clock says `deadline_ns`
        (False).

        May be called again, so that what is offered in the meantime gets out too. The first call ends every pause,
        once: there may not be time for a long one. From then on the back-off goes on as before: more tries would not
        help a back end in trouble.
        """
        if not self._draining:
            self._draining = True
            self.queue.flush()
            self._wakeup.set()
            self._try_all_now()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, deadline_ns - self._clock()) / 1e9):
                while not self.queue.empty:
                    self._settled.clear()
                    await self._settled.wait()
        return self.queue.empty

    async def stop(self) -> int:
        """End every delivery now. Spans not settled are lost for reason `shutdown`; returns their number."""
        await self._lasting.end()
        self._suspects.clear()
        self.queue.wake = lambda: None
        self.queue.abandon("shutdown")
        self.tell_dropped()
        self.report.final()
        lost = self.queue.counters().lost_spans.get("shutdown", 0)
        if lost:
            log.error("export %s: %d spans lost at shutdown", self.name, lost)
        return lost

    def tell_dropped(self) -> None:
        """Report the spans that were lost for want of room in the queue since the last call."""
        dropped = self.queue.dropped_spans
        if dropped > self._dropped_told:
            more = dropped - self._dropped_told
            self.report.complain("full", more, "spans dropped: its queue is full (when_full: drop)")
            self._dropped_told = dropped

    def fate_of(self, trace_id: bytes) -> str | None:
        """Say what has become of a kept trace: queued, exported, rejected, lost, how many of its spans were not
        exported, or partly rejected (nobody knows how many); None: it was not offered yet, or that is too long ago.
        With the offering side at rest."""
        in_hand: list[Iterable[Parcel]] = [self._suspects, *self._under_way.values()]
        if self.queue.holds(trace_id) or any(
            trace.trace_id == trace_id for parcels in in_hand for parcel in parcels for trace in parcel.traces
        ):
            return "queued"
        return "lost" if self.queue.dropped(trace_id) else self.fates.get(trace_id)

    @abstractmethod
    async def _send(self, request: bytes, metadata: bytes) -> Accepted | Failed:
        """Try once to deliver `request`, whose traces came with `metadata`. An exception (there should be none) loses
        its spans, not the exporter."""

    async def _deliver_batches(self) -> None:
        """Use one slot: deliver one batch after the other."""
        while True:
            async with self._turn:
                await self._batch_ready()
                taken = [self.queue.take()]
            await self._deliver(taken)

    async def _batch_ready(self) -> None:
        while True:
            self._wakeup.clear()
            wait_ns = self.queue.wait_ns(self._clock())
            if wait_ns == 0:
                return
            await _set_within(self._wakeup, wait_ns)

    async def _deliver(self, taken: list[list[KeptTrace]]) -> None:
        """Settle every trace of the only batch in `taken`, from which it is removed, or make suspects of them."""

        async def begun() -> list[Parcel]:
            parcels = Parcel.by_metadata(taken[0], Batch())
            self._under_way[parcels[0].batch] = parcels
            return parcels

        parcels = await self._lasting.once_there_is_memory(begun)
        batch = parcels[0].batch
        taken.clear()  # settled parts must not be kept alive from here
        try:
            while parcels:
                outcome = await self._lasting.once_there_is_memory(partial(self._try, parcels[-1]))
                await self._lasting.once_there_is_memory(partial(self._after_try, parcels, outcome))
            self._note_refusal(batch)
        except (Exception, asyncio.CancelledError) as error:
            if is_to_end(error):
                raise
            for parcel in parcels:
                await self._lose(parcel, error)
        finally:
            del self._under_way[batch]
            if self._probe is batch:
                self._probe = None
            _set(self._settled)

    async def _after_try(self, parcels: list[Parcel], outcome: Accepted | Failed) -> None:
        """Settle the last parcel of a batch, which was tried, or put what is left to be tried in its place."""
        parcel = parcels[-1]
        batch = parcel.batch
        if isinstance(outcome, Accepted):
            self._accepted(parcel, outcome)
            parcels.pop()
        elif not outcome.fault.passes_by_itself:
            if self._without_evidence(parcel, outcome):
                batch.failures += 1
                await self._pause(self._backoff.delay_ns(batch.failures - 1))
            parcels[-1:] = (await self._after_verdict(parcel, outcome))[::-1]
        elif self._suspects.accuses(parcel, outcome):
            parcel.suspect_since_ns = self._clock()
            self._suspects.add(await self._smaller(parcel, outcome))
            parcels.pop()
            _set(self._suspects.changed)
        else:
            # A RetryInfo takes the place of the first pause.
            if batch.failures > 1 or not outcome.retry_after_ns:
                await self._pause(self._backoff.delay_ns(batch.failures - 1))
            others = parcels[:-1]
            parcels[:] = self._probed(parcel, outcome) + others  # another part's turn, where there is one
            if all(other.failures for other in others):
                await self._add_company(parcels, parcel, outcome)

    async def _try_suspects(self, patient: bool) -> None:
        """Try one suspect after the other, at its time, for as long as the exporter runs."""
        rest_until_ns = 0
        while True:
            parcel = await self._next_suspect(patient, rest_until_ns)
            started_ns = self._clock()
            passes_by_itself = False
            try:
                outcome = await self._lasting.once_there_is_memory(partial(self._try, parcel))
                await self._lasting.once_there_is_memory(partial(self._after_suspect, parcel, outcome))
                if isinstance(outcome, Accepted):
                    self._suspects.passed()
                else:
                    passes_by_itself = outcome.fault.passes_by_itself
            except (Exception, asyncio.CancelledError) as error:
                if is_to_end(error):
                    raise
                await self._lose(parcel, error)
            self._suspects.tried(parcel)
            del parcel  # a settled one must not be kept alive
            _set(self._suspects.changed)
            _set(self._settled)
            if passes_by_itself:
                rest_until_ns = self._suspects.failed(started_ns, bool(self._under_way))

    async def _next_suspect(self, patient: bool, rest_until_ns: int) -> Parcel:
        """Wait for a suspect whose time has come. Those whose time is over are given up on the way."""
        while True:
            self._suspects.changed.clear()
            now_ns = self._clock()
            for overdue in self._suspects.overdue(now_ns):
                self._reject_suspect(overdue)
                self._suspects.give_up(overdue)
                _set(self._settled)
                del overdue  # settled ones must not be kept alive
            silent_ns = self._not_before_ns - now_ns
            if silent_ns > 0:  # the destination asked for it
                await _set_within(self._suspects.changed, silent_ns)
                continue
            parcel, wait_ns = self._suspects.take_due(now_ns, patient, rest_until_ns)
            if parcel is not None:
                return parcel
            await _set_within(self._suspects.changed, wait_ns)

    async def _try(self, parcel: Parcel) -> Accepted | Failed:
        """Send a parcel once, unless it is known to be too large, and note how it went."""
        try:
            return await self._sent_and_noted(parcel)
        except Exception as error:
            if not lacks_memory(error):
                raise
            self._lasting.note_error(error)
        self.failed_tries += 1
        parcel.batch.failures += 1
        return OUT_OF_MEMORY

    async def _sent_and_noted(self, parcel: Parcel) -> Accepted | Failed:
        request = parcel.assembled(self._assemble)
        parcel.nbytes = len(request)
        if parcel.nbytes > self._limit() and parcel.spans > 1:
            return Failed(Fault.SIZE, "", "", limit_bytes=self._limit_bytes)
        await self._unthrottled()
        async with self._in_flight:
            await self._unthrottled()  # the answer to another one may have asked for silence meanwhile
            started_ns = self._clock()
            if parcel.first_try_ns is None:
                parcel.first_try_ns = started_ns
            if parcel.batch.first_try_ns is None:
                parcel.batch.first_try_ns = started_ns
            outcome = await self._sent(request, parcel.metadata)
        if parcel.nbytes <= LEAST_LIMIT_BYTES and self._without_evidence(parcel, outcome):
            assert isinstance(outcome, Failed)
            outcome = replace(outcome, fault=Fault.OVERLOAD)
        self._observe_latency((self._clock() - started_ns) / 1e9)
        if parcel.suspect_since_ns is not None and parcel.failures:
            self._recent.record_retry(started_ns, isinstance(outcome, Accepted))
        if isinstance(outcome, Accepted):
            parcel.batch.failures = 0
            self._recent.record(Try(started_ns, parcel.nbytes, passed=True))
            if parcel.nbytes >= self._large_nbytes:
                self._large_nbytes = 0
            self._probe_passed(parcel.batch)
            if parcel.nbytes < parcel.part_of_nbytes and not self._recent.passed_with(parcel.part_of_nbytes):
                self._learn_limit(parcel.part_of_nbytes // 2)
            if outcome.rejected < parcel.spans:
                self._passed_ns = max(started_ns, self._passed_ns or 0)
                if self.report.succeeded():
                    self._end_pauses()
        elif outcome.fault.passes_by_itself:
            self.failed_tries += 1
            parcel.failures += 1
            parcel.failed = outcome
            parcel.batch.failures += 1
            self._heed_retry_info(parcel, outcome)
            if self._tells_of_all(parcel, outcome):
                self._recent.record(Try(started_ns, parcel.nbytes, passed=False))
            report = self.report.failed if self._tells_of_all(parcel, outcome) else self.report.failed_alone
            report(outcome.code, f"{self.place}{outcome.why}, {outcome.code}")
        elif outcome.why:
            self.report.refused(outcome.code or "refused", f"{self.place}{outcome.verdict}")
        return outcome

    async def _sent(self, request: bytes, metadata: bytes) -> Accepted | Failed:
        """Send; a call that was cancelled, but not by this side, counts as lost."""
        try:
            return await self._send(request, metadata)
        except asyncio.CancelledError as error:
            if is_to_end(error):
                raise
            return Failed(Fault.LOST, "CANCELLED", LOST)

    def _without_evidence(self, parcel: Parcel, outcome: Accepted | Failed) -> bool:
        """Tell whether a destination calls a parcel too large, while nothing shows that it takes smaller ones: nothing
        has passed since the batch was first tried."""
        if not isinstance(outcome, Failed) or outcome.fault is not Fault.SIZE or not outcome.code:
            return False  # without a code it is this side that says so, and knows
        since_ns = parcel.first_try_ns
        return not parcel.batch.accepted and not (since_ns is not None and self._recent.passed_since(since_ns))

    @staticmethod
    def _tells_of_all(parcel: Parcel, outcome: Failed) -> bool:
        """Tell whether a failed try says something about the destination; that of a suspect, if it got there, does
        not."""
        return parcel.suspect_since_ns is None or outcome.fault is Fault.UNREACHABLE

    def _heed_retry_info(self, parcel: Parcel, outcome: Failed) -> None:
        """Silence the destination, or only this parcel where the last one to be tried has passed: then the next ones
        tell whether it is alone with that."""
        parcel.not_before_ns = 0
        if not outcome.retry_after_ns:
            return
        if parcel.suspect_since_ns is not None or self._recent.last_passed:
            parcel.not_before_ns = self._clock() + outcome.retry_after_ns
        else:
            self._throttle(outcome.retry_after_ns)

    def _accepted(self, parcel: Parcel, outcome: Accepted) -> None:
        parcel.batch.accepted = True
        if parcel.settled:
            return
        rejected = parcel.exported(self.queue, outcome.rejected)
        if rejected < parcel.spans:
            parcel.batch.passed = True
        else:
            parcel.batch.refusal = NOTHING_TAKEN
        with suppress(MemoryError):
            if rejected and parcel.divisible:
                self.fates.exported(parcel.traces)
                self.fates.rejected(parcel.traces, 0, unsure=True)
            else:
                self.fates.exported(parcel.traces, None if parcel.divisible else parcel.spans - rejected)
                if rejected:
                    self.fates.rejected(parcel.traces, rejected)
            if rejected:
                self.report.complain("partial", rejected, "spans rejected by a partial success")

    async def _after_verdict(self, parcel: Parcel, outcome: Failed) -> list[Parcel]:
        """Divide a parcel that was refused, so far as its parts may be welcome; else settle it (none is left)."""
        batch = parcel.batch
        if parcel.settled:
            return []
        if outcome.fault is Fault.SIZE:
            limit = outcome.limit_bytes or parcel.nbytes // 2
            if outcome.limit_bytes is None:
                parcel.part_of_nbytes = parcel.nbytes
            elif outcome.code:
                limit = max(limit, LEAST_LIMIT_BYTES)
                self._learn_limit(limit)
                limit = limit if limit < parcel.nbytes else parcel.nbytes // 2
            pieces = await self._cut(parcel, limit)
            if len(pieces) == 1 and parcel.spans > 1:  # its headers do not fit, or not into half of it
                if limit == parcel.nbytes // 2:
                    pieces = await self._cut(parcel, parcel.nbytes * 7 // 8)
                outcome = replace(outcome, why=HEADER_TOO_LARGE)
        elif outcome.fault is Fault.BYTES and (batch.accepted or batch.refused < HOPELESS):
            pieces = parcel.divided(2)
        else:
            pieces = [parcel]
        if len(pieces) > 1:
            return pieces
        self._reject(parcel, outcome.verdict)
        batch.refused += 1
        if outcome.code and outcome.fault is not Fault.SIZE:
            batch.refusal = outcome
        return []

    def _note_refusal(self, batch: Batch) -> None:
        """Report that the destination fails, where it has refused a whole batch and takes nothing else either."""
        others_pass = self._passed_ns is not None and self._passed_ns >= (batch.first_try_ns or 0)
        if batch.refusal is not None and not batch.passed and not others_pass:
            self.report.refuses(f"{self.place}{batch.refusal.verdict}")

    async def _cut(self, parcel: Parcel, limit: int) -> list[Parcel]:
        """Divide a parcel by size, without holding up the loop."""
        if parcel.divisible:
            return parcel.cut_to(limit, self._assemble)
        return await asyncio.to_thread(parcel.cut_to, limit, self._assemble)

    async def _after_suspect(self, parcel: Parcel, outcome: Accepted | Failed) -> None:
        """Settle a suspect that was tried, or add what is left to be tried of it to the suspects."""
        now_ns = self._clock()
        if isinstance(outcome, Accepted):
            self._accepted(parcel, outcome)
            return
        if not outcome.fault.passes_by_itself:
            self._suspects.add(await self._after_verdict(parcel, outcome))
            return
        step = self._suspects.next_step(parcel, outcome, now_ns)
        if step is Step.DIVIDE:
            pieces = await self._smaller(parcel, outcome)
            if len(pieces) > 1:
                self._suspects.add(pieces)
                return
            step = self._suspects.next_step(parcel, outcome, now_ns, alone=True)
        if step is Step.GIVE_UP:
            self._reject_suspect(parcel)
        else:
            self._suspects.add([parcel])

    def _reject_suspect(self, parcel: Parcel) -> None:
        assert parcel.failed is not None
        self._reject(parcel, f"{parcel.failed.verdict}, again and again, while others pass")

    async def _smaller(self, parcel: Parcel, outcome: Failed) -> list[Parcel]:
        """Divide a suspect; just itself where that is not possible. The parts wait for a pause, or
        the time of a RetryInfo, like any other try."""
        pieces = [parcel]
        by_size = outcome.fault is Fault.EXHAUSTED and not self._recent.passed_with(parcel.nbytes)
        if by_size:  # though smaller ones do
            parcel.part_of_nbytes = parcel.nbytes
        if parcel.divisible:
            pieces = parcel.divided(PIECES)
        elif by_size:
            pieces = await self._cut(parcel, parcel.nbytes // 2)
        not_before_ns = max(self._clock() + self._backoff.delay_ns(0), parcel.not_before_ns)  # of a RetryInfo
        for piece in pieces:
            piece.not_before_ns = not_before_ns
        return pieces

    def _probed(self, parcel: Parcel, outcome: Failed) -> list[Parcel]:
        """Divide a parcel if it is the one to show whether smaller ones pass while nothing does; else just itself."""
        batch = parcel.batch
        enough = 1 if outcome.fault is Fault.TIMEOUT else PROBE_AFTER
        if (
            not parcel.divisible
            or batch.failures < enough
            or batch.probes >= MAX_PROBES
            or (self._probe or batch) is not batch
            or outcome.fault.clears_the_bytes
        ):
            return [parcel]
        self._probe = batch
        batch.probes += 1
        batch.exhausted_nbytes = parcel.nbytes if outcome.fault is Fault.EXHAUSTED else 0
        return parcel.divided(PIECES)

    async def _add_company(self, parcels: list[Parcel], parcel: Parcel, outcome: Failed) -> None:
        """Take another batch beside one that fails and is not to be divided any further, where no slot is free for it:
        else a few traces that never pass would hold all slots for ever, with nothing to tell that others would pass."""
        batch = parcel.batch
        if (
            (parcel.divisible and batch.probes < MAX_PROBES)
            or batch.failures < PROBE_AFTER
            or (self._probe or batch) is not batch
            or outcome.fault.clears_the_bytes
            or len(self._under_way) < self._slots
        ):
            return
        try:
            traces = self.queue.take()
        except MemoryError:
            return  # another time

        async def added() -> None:
            parcels.extend(Parcel.by_metadata(traces, batch))

        if traces:
            self._probe = batch
            await self._lasting.once_there_is_memory(added)

    def _probe_passed(self, batch: Batch) -> None:
        """Learn a limit where a part passes of what was refused, for the second time, and nothing as large has passed
        in between: once may have been the end of an overload."""
        nbytes, batch.exhausted_nbytes = batch.exhausted_nbytes, 0
        if nbytes and not self._recent.passed_with(nbytes):
            if self._large_nbytes:
                self._learn_limit(min(nbytes, self._large_nbytes) // 2)
            self._large_nbytes = nbytes

    def _limit(self) -> int:
        if self._limit_bytes != self._default_limit_bytes and self._clock() - self._learned_ns > LEARNED_FOR_NS:
            self._limit_bytes = self._default_limit_bytes
        return self._limit_bytes

    def _learn_limit(self, limit: int) -> None:
        limit = max(limit, LEAST_LIMIT_BYTES)
        if limit < self._limit():
            self._limit_bytes = limit
            self._learned_ns = self._clock()

    async def _pause(self, delay_ns: int) -> None:
        """Wait before another try; ends early when another one succeeds, and when the drain begins."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_ns / 1e9):
                await self._retry_now.wait()

    def _end_pauses(self) -> None:
        self._retry_now.set()
        self._retry_now.clear()

    def _try_all_now(self) -> None:
        """End every pause, those of suspects too."""
        self._end_pauses()
        self._suspects.try_now()

    def _throttle(self, delay_ns: int) -> None:
        """Send nothing more to this destination, by any delivery, for `delay_ns`."""
        self._not_before_ns = max(self._not_before_ns, self._clock() + delay_ns)

    async def _unthrottled(self) -> None:
        while (wait_ns := self._not_before_ns - self._clock()) > 0:  # noqa: ASYNC110 (it may move on meanwhile)
            await asyncio.sleep(-(-wait_ns // 10**6) / 1e3)

    def _reject(self, parcel: Parcel, why: str) -> None:
        if parcel.settled:
            return
        parcel.rejected(self.queue)
        with suppress(MemoryError):
            self.fates.rejected(parcel.traces, None if parcel.divisible else parcel.spans)
            ids = [trace.trace_id for trace in parcel.traces]
            self.report.complain(f"rejected {why}", parcel.spans, f"spans rejected: {why}", ids)

    async def _lose(self, parcel: Parcel, error: BaseException) -> None:
        async def lost() -> None:
            parcel.lost(self.queue, "internal")

        if parcel.settled:
            return
        await self._lasting.once_there_is_memory(lost)
        with suppress(MemoryError):
            self.fates.lost(parcel.traces, None if parcel.divisible else parcel.spans)
            self.report.complain("internal", parcel.spans, f"spans lost to an internal error: {type(error).__name__}")


def _set(event: asyncio.Event) -> None:
    """Set an event. Without memory for waking those who wait, they see it when they look again."""
    with suppress(MemoryError):
        event.set()


async def _set_within(event: asyncio.Event, wait_ns: int | None) -> None:
    """Wait until an event is set, for so long at most; None: as long as one waits without looking again."""
    wait_ns = LOOK_AGAIN_NS if wait_ns is None else min(wait_ns, LOOK_AGAIN_NS)
    with suppress(TimeoutError):
        # Whole milliseconds, upwards: uvloop's timers have no more, and would come back too soon.
        async with asyncio.timeout(-(-wait_ns // 10**6) / 1e3):
            await event.wait()
