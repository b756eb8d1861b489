"""Counts what a connection does wrong, until it is too much: a leaky bucket for each. No I/O."""

from __future__ import annotations

from collections.abc import Hashable

_SWEEP_FROM = 1024
"""Buckets from which on those that have leaked empty are looked for."""


class Conduct:
    """The faults of all connections. `limit` faults may come at once, and `per_s` more in every second. Used by one
    thread."""

    def __init__(self, limit: float, per_s: float) -> None:
        self._limit = limit
        self._per_s = per_s
        self.levels: dict[Hashable, tuple[float, float]] = {}
        """Faults, and when that was (seconds): empty where all behave."""
        self._sweep_at = _SWEEP_FROM

    def fault(self, connection: Hashable, now_s: float) -> bool:
        """Count a fault; return whether it was one too many, from which on counting begins anew."""
        level = self._level(connection, now_s) + 1
        if level > self._limit:
            del self.levels[connection]
            return True
        self.levels[connection] = (level, now_s)
        if len(self.levels) > self._sweep_at:
            self.levels = {each: (self._level(each, now_s), now_s) for each in self.levels if self._level(each, now_s)}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self.levels))
        return False

    def good(self, connection: Hashable) -> None:
        """Make up for a fault, where there is one."""
        if connection in self.levels:
            level, at_s = self.levels[connection]
            if level > 1:
                self.levels[connection] = (level - 1, at_s)
            else:
                del self.levels[connection]

    def _level(self, connection: Hashable, now_s: float) -> float:
        level, at_s = self.levels.get(connection, (0.0, now_s))
        return max(0.0, level - (now_s - at_s) * self._per_s)
