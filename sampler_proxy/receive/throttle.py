"""Throttles a log line that any sender can cause: once a period, with the number of those held back."""

from __future__ import annotations

import time


class Throttle:
    """Decides whether a line of one kind is due. Used on one thread."""

    def __init__(self, period_s: float = 60.0) -> None:
        self._period_s = period_s
        self._next = 0.0
        self._held_back = 0

    def due(self) -> str | None:
        """Return what to append to the line (nothing, or how many were held back since the last one), or None where it
        must not be logged."""
        now = time.monotonic()
        if now < self._next:
            self._held_back += 1
            return None
        self._next = now + self._period_s
        held_back, self._held_back = self._held_back, 0
        return f" ({held_back} more like it since the last)" if held_back else ""
