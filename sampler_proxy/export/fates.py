"""Remembers what has become of the last kept traces of a destination, for those who ask about one.

Spans of one trace may leave in several requests: a large one is cut, and late spans follow. So spans are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from sampler_proxy.export.queue import KeptTrace

REMEMBERED = 16_384
"""Traces of each kind, at least; twice as many at most, which is 4 MB."""


T = TypeVar("T")


class _Missed(NamedTuple):
    """Spans of a trace that were not exported. `unsure`: some of them may be other traces', of the same request."""

    rejected: int = 0
    lost: int = 0
    unsure: bool = False


class _Table(Generic[T]):
    """A bounded table in two generations: when the younger one is full it becomes the older one, which is forgotten."""

    def __init__(self) -> None:
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def put(self, values: dict[bytes, T]) -> None:
        self._young.update(values)
        if len(self._young) >= REMEMBERED:
            self._young, self._old = {}, self._young

    def knows_any(self, values: dict[bytes, T]) -> bool:
        return not (self._young.keys().isdisjoint(values) and self._old.keys().isdisjoint(values))

    def get(self, trace_id: bytes, default: T) -> T:
        return self._young.get(trace_id) or self._old.get(trace_id, default)


class Fates:
    """Counts of spans by trace: those exported apart, since they come in great numbers, and would push out the rest."""

    def __init__(self) -> None:
        self._exported: _Table[int] = _Table()
        self._missed: _Table[_Missed] = _Table()

    def exported(self, traces: Sequence[KeptTrace], spans: int | None = None) -> None:
        """Note that traces, or `spans` of each, were exported."""
        counts = {trace.trace_id: trace.spans if spans is None else spans for trace in traces}
        if len(counts) < len(traces) or self._exported.knows_any(counts):  # seldom: spans that came late
            counts = {trace_id: self._exported.get(trace_id, 0) for trace_id in counts}
            for trace in traces:
                counts[trace.trace_id] += trace.spans if spans is None else spans
        self._exported.put(counts)

    def rejected(self, traces: Sequence[KeptTrace], spans: int | None = None, *, unsure: bool = False) -> None:
        """Note that traces, or `spans` of each, were rejected; `unsure`: or those of another one of them."""
        for trace in traces:
            before = self._missed.get(trace.trace_id, _Missed())
            more = trace.spans if spans is None else spans
            missed = _Missed(before.rejected + more, before.lost, before.unsure or unsure)
            self._missed.put({trace.trace_id: missed})

    def lost(self, traces: Sequence[KeptTrace], spans: int | None = None) -> None:
        """Note that traces, or `spans` of each, were lost."""
        for trace in traces:
            before = self._missed.get(trace.trace_id, _Missed())
            more = trace.spans if spans is None else spans
            self._missed.put({trace.trace_id: before._replace(lost=before.lost + more)})

    def get(self, trace_id: bytes) -> str | None:
        """Say in words what has become of a trace; None: nothing yet, or that is too long ago."""
        exported = self._exported.get(trace_id, 0)
        rejected, lost, unsure = self._missed.get(trace_id, _Missed())
        if unsure:
            return "partly rejected"
        spans = exported + rejected + lost
        for word, some in (("exported", exported), ("rejected", rejected), ("lost", lost)):
            if some and some == spans:
                return word
        parts = [f"{some} of {spans} spans {word}" for word, some in (("rejected", rejected), ("lost", lost)) if some]
        return ", ".join(["exported", *parts] if exported else parts) or None
