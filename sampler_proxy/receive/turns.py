"""Serves connections in turn by what they cost: start-time fair queueing (Goyal, Vin and Cheng, 1996). No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_SWEEP_FROM = 1024
"""Connections from which on those that owe nothing are forgotten."""


class Turns(Generic[Item]):
    """Work that waits, a queue for each connection. Of the connections it is the turn of the one that has cost least
    lately; one that had nothing waiting gains no credit by that. Used by one thread, or under a lock."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Item]] = {}  # never empty
        self._starts: dict[Hashable, float] = {}  # when, in virtual time, a connection has its next turn
        self._now = 0.0
        self._sweep_at = _SWEEP_FROM

    def __bool__(self) -> bool:
        """Tell whether anything waits."""
        return bool(self._queues)

    def add(self, connection: Hashable, item: Item) -> None:
        """Let an item wait behind those of its connection."""
        queue = self._queues.get(connection)
        if queue is None:
            self._starts[connection] = max(self._now, self._starts.get(connection, 0.0))
            self._queues[connection] = deque((item,))
        else:
            queue.append(item)

    def take(self) -> tuple[Hashable, Item]:
        """Return the next item and its connection, which is to be charged for it. Something must wait."""
        connection = min(self._queues, key=self._starts.__getitem__)
        self._now = self._starts[connection]
        queue = self._queues[connection]
        item = queue.popleft()
        if not queue:
            del self._queues[connection]
        return connection, item

    def charge(self, connection: Hashable, cost: float) -> None:
        """Put back the next turn of a connection by what an item of it has cost."""
        if self._queues:
            self._starts[connection] = self._starts.get(connection, self._now) + cost
            if len(self._starts) > self._sweep_at:  # of connections that may have gone, those that owe nothing
                kept = {each: at for each, at in self._starts.items() if at > self._now or each in self._queues}
                self._starts, self._sweep_at = kept, max(_SWEEP_FROM, 2 * len(kept))
        else:  # nobody has waited for it
            self._starts.clear()
            self._now = 0.0
