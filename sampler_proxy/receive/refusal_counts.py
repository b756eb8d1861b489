"""Counts the requests that a receiver refuses itself, also where there is no memory to count with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from sampler_proxy.errors import TooManyInFlight, Unauthenticated

REASONS = (
    *("out_of_memory", "internal", "busy", "stalled", "in_flight", "too_large", "draining", "unknown_compression"),
    *(Unauthenticated.reason, TooManyInFlight.reason),
)


class RefusalCounts:
    """Passes each refusal on to `on_refused(reason)`, which may raise MemoryError, and has then not counted it. From
    any thread."""

    def __init__(self, on_refused: Callable[[str], None]) -> None:
        self._on_refused = on_refused
        self._uncounted = dict.fromkeys(REASONS, 0)
        self._counting = threading.Lock()

    def add(self, reason: str) -> None:
        """Count a refusal; later on, with the next one, where there is no memory for it now."""
        with self._counting, suppress(MemoryError):
            self._uncounted[reason] = self._uncounted.get(reason, 0) + 1
            for each in self._uncounted:
                while self._uncounted[each]:
                    self._on_refused(each)
                    self._uncounted[each] -= 1
