"""Parcels: what one request carries, some whole traces or some spans of one, and what has become of it so far.

A parcel is settled once, as a whole: delivered, rejected or lost. Divided instead, it is replaced by parcels that hold
the same spans. A trace of which only spans travel is held, with its memory, until the last of them is settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampler_proxy.export.queue import KeptTrace, Queue
from sampler_proxy.export.split import split

PIECES = 16
"""A parcel that fails for reasons of its own is divided into so many: two steps find one trace among 256. A step may
cost a time-out, while parts that pass take milliseconds."""


@dataclass(slots=True)
class CutTrace:
    """A trace of which several parcels hold spans. `left`: spans not settled."""

    trace: KeptTrace
    left: int


@dataclass(slots=True, eq=False)
class Batch:
    """History that all parcels share which were taken from the queue as one."""

    failures: int = 0  # tries in succession, of any of them
    accepted: bool = False  # one of them has been
    refused: int = 0  # parcels, each for good
    probes: int = 0  # divisions while nothing passes
    exhausted_nbytes: int = 0  # of the request that was divided last, if it was refused for want of resources


@dataclass(slots=True, eq=False)
class Parcel:
    """The content of one request, with its history. Times are those of the exporter's clock."""

    traces: Sequence[KeptTrace]
    spans: int
    batch: Batch = field(default_factory=Batch)
    request: bytes | None = None  # of some spans of the only trace
    cut: CutTrace | None = None
    nbytes: int = 0  # of the request, once it has been made
    part_of_nbytes: int = 0  # of the request, refused for its size, of which this is a part: to pass shows a limit
    failures: int = 0  # tries in succession
    first_try_ns: int | None = None
    suspect_since_ns: int | None = None  # it fails while others pass
    not_before_ns: int = 0  # the next try

    @classmethod
    def of(cls, traces: Sequence[KeptTrace]) -> Parcel:
        return cls(traces, sum(trace.spans for trace in traces))

    @property
    def divisible(self) -> bool:
        """Tell whether there are several traces: what is wrong with one may leave the others alone."""
        return len(self.traces) > 1

    def assembled(self, assemble: Callable[[Sequence[Any]], bytes]) -> bytes:
        """Return the request."""
        return assemble(self.traces) if self.request is None else self.request

    def divided(self, pieces: int) -> list[Parcel]:
        """Divide into at most `pieces` parcels, by traces, each with traces from all over the parcel."""
        return [self._some(self.traces[number::pieces]) for number in range(min(pieces, len(self.traces)))]

    def cut_to(self, limit: int, assemble: Callable[[Sequence[Any]], bytes]) -> list[Parcel]:
        """Divide, with a request larger than `limit`, into parcels whose requests have at most so many bytes, or a
        single span, or spans whose headers alone are too large. Just this parcel, where it cannot be divided so."""
        if self.spans <= 1:
            return [self]
        if not self.divisible:
            return self._cut(limit, self.assembled(assemble))
        groups: list[list[KeptTrace]] = []
        size = limit  # without headers, which traces may share: a parcel that is still too large comes here again
        for trace in self.traces:
            size += trace.nbytes
            if size > limit:
                groups.append([])
                size = trace.nbytes
            groups[-1].append(trace)
        return [self._some(group) for group in groups] if len(groups) > 1 else self.divided(2)

    def exported(self, queue: Queue, rejected_spans: int) -> None:
        """Settle as taken by the destination, save `rejected_spans`."""
        if self.cut is None:
            queue.exported(self.traces, rejected_spans)
        else:
            rejected = min(max(rejected_spans, 0), self.spans)
            queue.part_settled(self.cut.trace, self._last(), exported=self.spans - rejected, rejected=rejected)

    def rejected(self, queue: Queue) -> None:
        """Settle as refused for good."""
        if self.cut is None:
            queue.rejected(self.traces)
        else:
            queue.part_settled(self.cut.trace, self._last(), rejected=self.spans)

    def lost(self, queue: Queue, reason: str) -> None:
        """Settle as given up without a final answer."""
        if self.cut is None:
            queue.lost(self.traces, reason)
        else:
            queue.part_settled(self.cut.trace, self._last(), lost=self.spans, reason=reason)

    def _last(self) -> bool:
        assert self.cut is not None
        self.cut.left -= self.spans
        return self.cut.left <= 0

    def _some(self, traces: Sequence[KeptTrace]) -> Parcel:
        parcel = Parcel.of(traces)
        parcel.batch, parcel.part_of_nbytes = self.batch, self.part_of_nbytes
        parcel.first_try_ns, parcel.suspect_since_ns = self.first_try_ns, self.suspect_since_ns
        return parcel

    def _cut(self, limit: int, request: bytes) -> list[Parcel]:
        cut = self.cut or CutTrace(self.traces[0], self.spans)
        parcels: list[Parcel] = []
        for part in split(request, limit):
            parcel = self._some(self.traces)
            parcel.spans, parcel.request, parcel.cut = part.spans, part.request, cut
            parcels.append(parcel)
        return parcels
