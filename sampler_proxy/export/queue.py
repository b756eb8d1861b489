"""Queues kept traces in front of one destination: bounded in bytes, cut into batches, every span accounted for.

The ledger, at every instant seen under the pipeline's lock on the loop's thread:

    routed = exported + queued + rejected + lost

No I/O, no lock, no task. Two sides use it. The *offering* side is the pipeline: `offer` is called from any thread, but
never from two at once (the pipeline's lock is held). Everything else, `counters` included, belongs to the thread of
the event loop. Each number below is written by one side only, so neither waits for the other; quantities that both
change (bytes held, spans queued) are differences of two such numbers. `abandon`, at the very end, wants the offering
side at rest.

Bytes are those that requests will have: the traces', and each header of a resource or scope once a batch. That is no
less than the memory held, for in memory batches share them. The offering side cuts the batches, since it alone sees
each trace's headers in time for both bounds, that of a batch and that of the queue.

A trace counts as queued, and its bytes as held, until it is settled: exported, rejected or lost. The caller of `take`
settles each trace of the batch exactly once, at once or span by span, and then drops it, for traces hold native memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol

from sampler_proxy.config.model import Destination

FULL = "queue_full"
"""The reason of spans lost for want of room."""

BATCH_TRACES = 1024
"""Traces of one batch: to settle them takes some milliseconds, in which the loop does nothing else."""

DROPPED_REMEMBERED = 1024
"""Ids of traces that were lost for want of room."""


class KeptTrace(Protocol):
    """A trace on its way out. Immutable; several destinations may share it."""

    @property
    def trace_id(self) -> bytes: ...
    @property
    def metadata(self) -> bytes:
        """What its requests came with, as encoded by otlp/metadata.py; b"" for none."""

    @property
    def spans(self) -> int:
        """The number of spans."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory held; headers of resources and scopes, which traces share, apart."""

    def header_bytes(self, seen: set[int]) -> int:
        """Return the bytes that the trace's headers add to a request which has those in `seen` already, and add them to
        `seen`. A header is known by a number that is its own for as long as a trace with it lives. Raises MemoryError:
        `seen` is of no use then."""


class Counters(NamedTuple):
    """The ledger of one destination."""

    routed_spans: int
    exported_spans: int
    queued_spans: int  # with what is in flight
    rejected_spans: int
    lost_spans: Mapping[str, int]  # by reason
    queued_bytes: int


def _nothing() -> None:
    pass


class Queue:
    """A bounded queue that is emptied in batches: one is ready when `batch_bytes` are waiting or the oldest trace has
    waited `max_wait_ns`.

    `clock` tells monotonic nanoseconds. Two hooks, both to be set before the first offer and both cheap and without
    exceptions: `wake` is called by `offer`, on its thread, when a wait that `wait_ns` answered has become wrong, at
    most once per answer; too late where there was no memory for it, so that a wait should have an end. `on_room` is
    called on the loop's thread when a settled batch made room for a trace that `offer` had refused.
    """

    def __init__(
        self, *, max_bytes: int, batch_bytes: int, max_wait_ns: int, clock: Callable[[], int], drop: bool = False
    ) -> None:
        """Create an empty queue. `drop`: a trace for which there is no room is lost instead of refused."""
        self.max_bytes = max_bytes
        self.wake: Callable[[], object] = _nothing
        self.on_room: Callable[[], object] = _nothing
        self._batch_bytes = min(batch_bytes, max_bytes)
        self._max_wait_ns = max_wait_ns
        self._clock = clock
        self._traces: deque[KeptTrace] = deque()
        self._since: deque[int] = deque()  # when each of them came
        self._cuts: deque[int] = deque()  # numbers of the traces, counted from the first one ever, that begin a batch
        self._headers: dict[KeptTrace, int] = {}  # the bytes of headers that a trace was the first of its batch with
        # Written by the offering side:
        self._routed_traces = 0
        self._routed_spans = 0
        self._routed_bytes = 0
        self._open_first = -1  # the number of the first trace in the batch that is being filled; -1: none is
        self._open_bytes = 0
        self._open_headers: set[int] = set()
        self._drop = drop
        self._dropped_spans = 0
        self._dropped_ids: deque[bytes] = deque(maxlen=DROPPED_REMEMBERED)
        # Written by the loop:
        self._taken_traces = 0
        self._taken_bytes = 0
        self._settled_traces = 0
        self._settled_spans = 0
        self._settled_bytes = 0
        self._exported_spans = 0
        self._rejected_spans = 0
        self._lost_spans: dict[str, int] = {}
        self._flushing = False
        self._closed: str | None = None
        # Notes from one side to the other. The writer of a note looks again, afterwards, at the numbers that it depends
        # on, so that none is missed.
        self._wake_at_bytes: int | None = None  # None: nobody waits
        self._refused_bytes: int | None = None  # the smallest trace refused since there was room

    @classmethod
    def configured(cls, config: Destination, clock: Callable[[], int]) -> Queue:
        """Build the queue that a destination's configuration asks for."""
        return cls(
            max_bytes=config.queue.max_bytes,
            batch_bytes=config.batch.max_bytes,
            max_wait_ns=config.batch.max_wait_ns,
            clock=clock,
            drop=config.queue.when_full == "drop",
        )

    # The offering side.

    def offer(self, trace: KeptTrace) -> bool:
        """Take `trace` (True), or refuse it for want of room; lose it where the queue is to drop. A trace larger than
        the whole queue is taken when the queue is empty.

        After `abandon` there is no want of room: a trace is taken, and lost at once. Raises MemoryError, and has then
        not taken the trace.
        """
        nbytes = trace.nbytes
        headers = 0
        fits = self._fits(nbytes)
        if fits:
            headers = self._headers_in_batch(trace)
            if headers:
                nbytes += headers
                fits = self._fits(nbytes)
        if not fits:
            self._open_first = -1
            if self._drop:
                dropped = self._dropped_spans + trace.spans
                self._dropped_ids.append(trace.trace_id)
                self._dropped_spans = dropped
                return True
            self._refused_bytes = min(nbytes, self._refused_bytes or nbytes)
            return self._fits(nbytes) and self.offer(trace)
        try:
            self._append(trace, nbytes, headers)
        except BaseException:
            self._open_first = -1
            raise
        wake_at = self._wake_at_bytes
        if wake_at is not None:
            self._wake_up(wake_at)
        return True

    def _headers_in_batch(self, trace: KeptTrace) -> int:
        """Return the bytes of the headers that a trace brings into the batch that is being filled, which is another one
        from here on where the last was taken, or has no room for it."""
        try:
            if self._open_first >= self._taken_traces:
                headers = trace.header_bytes(self._open_headers)
                if self._open_bytes + trace.nbytes + headers <= self._batch_bytes:
                    return headers
            self._open_first = -1
            self._open_headers = set()
            return trace.header_bytes(self._open_headers)
        except BaseException:
            self._open_first = -1
            raise

    def _append(self, trace: KeptTrace, nbytes: int, headers: int) -> None:
        """Append a trace, of `nbytes` with its `headers`. After an exception nothing is changed."""
        routed_traces, routed_spans, routed_bytes = self._routed_traces, self._routed_spans, self._routed_bytes
        cut = timed = False
        try:
            self._routed_traces = routed_traces + 1
            self._routed_spans = routed_spans + trace.spans
            self._routed_bytes = routed_bytes + nbytes
            if headers:
                self._headers[trace] = headers
            if self._closed is not None:
                self._settle([trace], lost=trace.spans, reason=self._closed)
                return
            # What the other side looks for, once it sees the trace, comes first.
            if self._open_first < 0:
                self._cuts.append(routed_traces)
                cut = True
            self._since.append(self._clock())
            timed = True
            self._traces.append(trace)
        except BaseException:
            self._headers.pop(trace, None)
            self._routed_traces, self._routed_spans, self._routed_bytes = routed_traces, routed_spans, routed_bytes
            if timed:
                self._since.pop()
            if cut and self._cuts and self._cuts[-1] == routed_traces:  # else the loop has passed it
                self._cuts.pop()
            raise
        if cut:
            self._open_first, self._open_bytes = routed_traces, 0
        self._open_bytes += nbytes
        if self._open_bytes >= self._batch_bytes or routed_traces - self._open_first >= BATCH_TRACES - 1:
            self._open_first = -1
            self._open_headers = set()

    def _wake_up(self, wake_at: int) -> None:
        try:
            if self._routed_bytes - self._taken_bytes >= wake_at:
                self._wake_at_bytes = None
                self.wake()
        except MemoryError:  # the trace has been taken: who waits is woken by the next one, or looks by itself
            self._wake_at_bytes = wake_at

    def _fits(self, nbytes: int) -> bool:
        held = self._routed_bytes - self._settled_bytes
        return self._flushing or held <= 0 or held + nbytes <= self.max_bytes

    # The loop's side.

    def wait_ns(self, now_ns: int) -> int | None:
        """Return how long until a batch is ready if nothing more is offered: 0 is now, None is never. `wake` is called
        when that time gets shorter."""
        self._wake_at_bytes = self._batch_bytes if self._traces else 0
        if not self._traces:
            return None
        ready_ns = self._since[0] + self._max_wait_ns
        full = self._routed_bytes - self._taken_bytes >= self._batch_bytes
        if full or self._flushing or ready_ns <= now_ns:
            self._wake_at_bytes = None
            return 0
        return ready_ns - now_ns

    def take(self) -> list[KeptTrace]:
        """Take the oldest traces, as many as `batch_bytes` hold, and BATCH_TRACES at most, ready or not; at least one,
        unless none waits. Raises MemoryError, and has then taken none."""
        first = self._taken_traces
        while self._cuts and self._cuts[0] <= first:
            self._cuts.popleft()
        count = len(self._traces)
        if self._cuts:
            count = min(count, self._cuts[0] - first)
        batch = list(islice(self._traces, count))
        taken = first + count, self._taken_bytes + self._nbytes(batch)
        for _ in batch:
            self._traces.popleft()
            self._since.popleft()
        self._taken_traces, self._taken_bytes = taken
        return batch

    def flush(self) -> None:
        """Make every trace ready from now on, and refuse none for want of room: a refused trace would be held in memory
        anyway, by the pipeline, and would be missing in the count of lost spans."""
        self._flushing = True

    @property
    def empty(self) -> bool:
        """Tell whether nothing waits and nothing is in flight."""
        return self._settled_traces >= self._routed_traces

    def holds(self, trace_id: bytes) -> bool:
        """Tell whether a trace waits to be taken. With the offering side at rest; looks at every trace."""
        return any(trace.trace_id == trace_id for trace in self._traces)

    def dropped(self, trace_id: bytes) -> bool:
        """Tell whether a trace is one of the last that were lost for want of room. With the offering side at rest."""
        return trace_id in self._dropped_ids

    @property
    def dropped_spans(self) -> int:
        """The spans lost for want of room."""
        return self._dropped_spans

    @property
    def full(self) -> bool:
        """Tell whether a trace has been refused and there has been no room for it since."""
        return self._refused_bytes is not None

    def exported(self, traces: Sequence[KeptTrace], rejected_spans: int = 0) -> None:
        """Settle `traces` as taken by the destination, save `rejected_spans` of their spans (a number from outside: any
        may come). Like the methods below it raises MemoryError, and has then settled nothing."""
        spans = sum(trace.spans for trace in traces)
        rejected = min(max(rejected_spans, 0), spans)
        self._settle(traces, exported=spans - rejected, rejected=rejected)

    def rejected(self, traces: Sequence[KeptTrace]) -> None:
        """Settle `traces` as refused for good by the destination."""
        self._settle(traces, rejected=sum(trace.spans for trace in traces))

    def lost(self, traces: Sequence[KeptTrace], reason: str) -> None:
        """Settle `traces` as given up without a final answer."""
        self._settle(traces, lost=sum(trace.spans for trace in traces), reason=reason)

    def part_settled(
        self, trace: KeptTrace, last: bool, *, exported: int = 0, rejected: int = 0, lost: int = 0, reason: str = ""
    ) -> None:
        """Settle some spans of `trace`; with the `last` of them, the trace."""
        self._settle([trace] if last else [], exported=exported, rejected=rejected, lost=lost, reason=reason)

    def abandon(self, reason: str) -> None:
        """Settle every remaining trace as lost, in flight or not, and each that is offered from now on. Settle nothing
        afterwards."""
        self._closed = reason
        self._traces.clear()
        self._since.clear()
        self._headers.clear()
        self._lose(self._routed_spans - self._settled_spans, reason)
        self._taken_bytes = self._settled_bytes = self._routed_bytes
        self._settled_spans = self._routed_spans
        self._settled_traces = self._routed_traces
        self._tell_room()

    def counters(self) -> Counters:
        """Read the ledger."""
        lost = dict(self._lost_spans)
        if self._dropped_spans:
            lost[FULL] = self._dropped_spans
        return Counters(
            routed_spans=self._routed_spans + self._dropped_spans,
            exported_spans=self._exported_spans,
            queued_spans=self._routed_spans - self._settled_spans,
            rejected_spans=self._rejected_spans,
            lost_spans=lost,
            queued_bytes=self._routed_bytes - self._settled_bytes,
        )

    def _settle(
        self, traces: Sequence[KeptTrace], *, exported: int = 0, rejected: int = 0, lost: int = 0, reason: str = ""
    ) -> None:
        settled = (
            self._settled_traces + len(traces),
            self._settled_spans + exported + rejected + lost,
            self._settled_bytes + self._nbytes(traces),
            self._exported_spans + exported,
            self._rejected_spans + rejected,
        )
        self._lose(lost, reason)  # from here on nothing takes memory
        self._settled_traces, self._settled_spans, self._settled_bytes, self._exported_spans, self._rejected_spans = (
            settled
        )
        for trace in traces:
            self._headers.pop(trace, None)
        self._tell_room()

    def _nbytes(self, traces: Sequence[KeptTrace]) -> int:
        headers = self._headers
        return sum(trace.nbytes + headers.get(trace, 0) for trace in traces)

    def _lose(self, spans: int, reason: str) -> None:
        if spans:
            self._lost_spans[reason] = self._lost_spans.get(reason, 0) + spans

    def _tell_room(self) -> None:
        with suppress(MemoryError):  # what was refused is offered again all the same
            refused = self._refused_bytes
            if refused is not None and self._fits(refused):
                self._refused_bytes = None
                self.on_room()
