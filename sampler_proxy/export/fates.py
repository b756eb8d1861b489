"""Remembers what has become of the last kept traces of a destination, for those who ask about one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sampler_proxy.export.queue import KeptTrace

Fate = Literal["exported", "rejected", "partly rejected", "lost"]

REMEMBERED = 16_384
"""Traces of each kind, at least; twice as many at most, which is 4 MB."""


class _Table:
    """A bounded table in two generations: when the younger one is full it becomes the older one, which is forgotten."""

    def __init__(self) -> None:
        self._young: dict[bytes, Fate] = {}
        self._old: dict[bytes, Fate] = {}

    def add(self, fates: dict[bytes, Fate]) -> None:
        self._young.update(fates)
        if len(self._young) >= REMEMBERED:
            self._young, self._old = {}, self._young

    def get(self, trace_id: bytes) -> Fate | None:
        return self._young.get(trace_id) or self._old.get(trace_id)


class Fates:
    """Spans of one trace may leave in several parts, late ones for example: what was not exported holds, then."""

    def __init__(self) -> None:
        self._exported = _Table()
        self._others = _Table()

    def note(self, traces: Sequence[KeptTrace], fate: Fate) -> None:
        table = self._exported if fate == "exported" else self._others
        table.add(dict.fromkeys([trace.trace_id for trace in traces], fate))

    def get(self, trace_id: bytes) -> Fate | None:
        return self._others.get(trace_id) or self._exported.get(trace_id)
