"""Parcels: what one request carries, some whole traces or some spans of one, and what has become of it so far.

A parcel is settled once, as a whole: delivered, rejected or lost. Divided instead, it is replaced by parcels that hold
the same spans. A trace of which only spans travel is held, with its memory, until the last of them is settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampler_proxy.export.queue import KeptTrace, Queue
from sampler_proxy.export.retry import Failed
from sampler_proxy.export.split import Layout

PIECES = 16
"""A parcel that fails for reasons of its own is divided into so many: two steps find one trace among 256. A step may
cost a time-out, while parts that pass take milliseconds."""


@dataclass(slots=True)
class CutTrace:
    """A trace of which several parcels hold spans. `left`: spans not settled."""

    trace: KeptTrace
    left: int
    layout: Layout  # of its request, from which theirs are made


@dataclass(slots=True, eq=False)
class Batch:
    """History that all parcels share which were taken from the queue as one."""

    failures: int = 0  # tries in succession, of any of them
    first_try_ns: int | None = None
    accepted: bool = False  # one of them has been
    passed: bool = False  # and not only to have all its spans rejected
    refused: int = 0  # parcels, each for good
    refusal: Failed | None = None  # of the last one of these, where it says something about the destination
    probes: int = 0  # divisions while nothing passes
    exhausted_nbytes: int = 0  # of the request that was divided last, if it was refused for want of resources


@dataclass(slots=True, eq=False)
class Parcel:
    """The content of one request, with its history. Times are those of the exporter's clock."""

    traces: Sequence[KeptTrace]
    spans: int
    batch: Batch = field(default_factory=Batch)
    cut: CutTrace | None = None  # the only trace, of which only some spans are meant
    first: int = 0  # of these
    nbytes: int = 0  # of the request, once it has been made
    part_of_nbytes: int = 0  # of the request, refused for its size, of which this is a part: to pass shows a limit
    failures: int = 0  # tries in succession
    first_try_ns: int | None = None
    suspect_since_ns: int | None = None  # it fails while others pass
    not_before_ns: int = 0  # the next try
    failed: Failed | None = None  # how the last try did, if it did
    settled: bool = False

    @classmethod
    def of(cls, traces: Sequence[KeptTrace]) -> Parcel:
        return cls(traces, sum(trace.spans for trace in traces))

    @classmethod
    def by_metadata(cls, traces: Sequence[KeptTrace], batch: Batch) -> list[Parcel]:
        """Make the parcels of what was taken from the queue at once, the last of them for those traces that came with
        what the first one came with, and so on: a request has one sender's metadata."""
        groups: dict[bytes, list[KeptTrace]] = {}
        for trace in traces:
            groups.setdefault(trace.metadata, []).append(trace)
        parcels = [cls.of(group) for group in reversed(groups.values())]
        for parcel in parcels:
            parcel.batch = batch
        return parcels

    @property
    def metadata(self) -> bytes:
        """Return what all of its traces came with."""
        return self.traces[0].metadata

    @property
    def divisible(self) -> bool:
        """Tell whether there are several traces: what is wrong with one may leave the others alone."""
        return len(self.traces) > 1

    def assembled(self, assemble: Callable[[Sequence[Any]], bytes]) -> bytes:
        """Make the request. It is not kept: a parcel may wait for long until it is tried again."""
        if self.cut is None:
            return assemble(self.traces)
        return self.cut.layout.request(range(self.first, self.first + self.spans))

    def divided(self, pieces: int) -> list[Parcel]:
        """Divide into at most `pieces` parcels, by traces, each with traces from all over the parcel."""
        return [self._some(self.traces[number::pieces]) for number in range(min(pieces, len(self.traces)))]

    def cut_to(self, limit: int, assemble: Callable[[Sequence[Any]], bytes]) -> list[Parcel]:
        """Divide, with a request larger than `limit`, into parcels whose requests have at most so many bytes, or a
        single span, or spans whose headers alone are too large. Just this parcel, where it cannot be divided so.

        A trace's request is read for it, which takes its time; a thread of its own may do that."""
        if self.spans <= 1:
            return [self]
        if not self.divisible:
            return self._cut(limit, assemble)
        groups: list[list[KeptTrace]] = []
        size = 0
        seen: set[int] = set()
        for trace in self.traces:
            more = trace.nbytes + trace.header_bytes(seen)
            if not groups or size + more > limit:
                groups.append([])
                size, seen = 0, set()
                more = trace.nbytes + trace.header_bytes(seen)
            groups[-1].append(trace)
            size += more
        return [self._some(group) for group in groups] if len(groups) > 1 else self.divided(2)

    def exported(self, queue: Queue, rejected_spans: int) -> int:
        """Settle as taken by the destination, save `rejected_spans` (any number may come from there); returns how many
        spans these are. Like the methods below it raises MemoryError, and has then settled nothing."""
        rejected = min(max(rejected_spans, 0), self.spans)
        self._settle(queue, exported=self.spans - rejected, rejected=rejected)
        return rejected

    def rejected(self, queue: Queue) -> None:
        """Settle as refused for good."""
        self._settle(queue, rejected=self.spans)

    def lost(self, queue: Queue, reason: str) -> None:
        """Settle as given up without a final answer."""
        self._settle(queue, lost=self.spans, reason=reason)

    def _settle(self, queue: Queue, *, exported: int = 0, rejected: int = 0, lost: int = 0, reason: str = "") -> None:
        if self.cut is not None:
            left = self.cut.left - self.spans
            trace = self.cut.trace
            queue.part_settled(trace, left <= 0, exported=exported, rejected=rejected, lost=lost, reason=reason)
            self.cut.left = left
        elif lost:
            queue.lost(self.traces, reason)
        elif exported:
            queue.exported(self.traces, rejected)
        else:
            queue.rejected(self.traces)
        self.settled = True

    def _some(self, traces: Sequence[KeptTrace]) -> Parcel:
        parcel = Parcel.of(traces)
        parcel.batch, parcel.part_of_nbytes = self.batch, self.part_of_nbytes
        parcel.first_try_ns, parcel.suspect_since_ns = self.first_try_ns, self.suspect_since_ns
        return parcel

    def _cut(self, limit: int, assemble: Callable[[Sequence[Any]], bytes]) -> list[Parcel]:
        cut = self.cut or CutTrace(self.traces[0], self.spans, Layout(assemble(self.traces)))
        parcels: list[Parcel] = []
        for spans in cut.layout.parts(self.first, self.first + self.spans, limit):
            parcel = self._some(self.traces)
            parcel.spans, parcel.first, parcel.cut = len(spans), spans.start, cut
            parcels.append(parcel)
        return parcels
