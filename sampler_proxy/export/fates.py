"""Remembers what has become of the last kept traces of a destination, for those who ask about one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sampler_proxy.export.queue import KeptTrace

Fate = Literal["queued", "exported", "rejected", "partly rejected", "lost"]

REMEMBERED = 16_384
"""Traces; about 2 MB."""

_WORSE: dict[Fate, int] = {"queued": 0, "exported": 1, "partly rejected": 2, "rejected": 3, "lost": 3}


class Fates:
    """A bounded table, the oldest entry of which gives way. Spans of one trace may leave in several parts, late ones
    for example: then the worst holds."""

    def __init__(self) -> None:
        self._fates: dict[bytes, Fate] = {}

    def note(self, traces: Sequence[KeptTrace], fate: Fate) -> None:
        fates = self._fates
        for trace in traces:
            trace_id = trace.trace_id
            before = fates.pop(trace_id, None)
            worse = before is not None and _WORSE[before] > max(_WORSE[fate], 1)
            fates[trace_id] = before if worse and before is not None else fate
        while len(fates) > REMEMBERED:
            del fates[next(iter(fates))]

    def get(self, trace_id: bytes) -> Fate | None:
        return self._fates.get(trace_id)
