"""Bounds the bytes of messages that are still arriving, by what their connections have received. No I/O.

gRPC core gathers a message where nobody sees it, and how much of it has come is told to nobody; what a connection has
received in all is known to the kernel (`Connections.bytes_received`). So a connection's bytes in flight are at most
what it has received since its oldest unfinished call was first seen, but for messages that have been handled since.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, TypeVar


class Unfinished(Protocol):
    """A call of which nothing has been handled yet."""

    peer: bytes
    whole: bool
    """Whether its message has arrived: it holds bytes, and cannot be ended any more."""
    mark: tuple[int, int] | None
    """What its connection had received, and what had been handled of that, when the call was first seen."""


Call = TypeVar("Call", bound=Unfinished)


class BytesInFlight:
    """The account of all connections. `bytes_received(peer)` tells what a connection has received, None where nobody
    knows. Used by one thread."""

    def __init__(self, bytes_received: Callable[[bytes], int | None], bound: int) -> None:
        self._bytes_received = bytes_received
        self._bound = bound
        self._peak = 0
        self._handled: dict[Hashable, int] = {}  # of connections that have unfinished calls, since that was first seen

    def peak(self) -> int:
        """Return the most that was in flight at a look since this was asked last. From any thread."""
        peak, self._peak = self._peak, 0
        return peak

    def handled(self, peer: bytes, size: int) -> None:
        """Count a message that is no longer in flight."""
        if peer in self._handled:
            self._handled[peer] += size

    def look(self, calls: Iterable[Call]) -> list[Call]:
        """Look at all unfinished calls, oldest first; return those that have to be ended since there is more in flight
        than the bound: all of the connection that has most, and so on. Calls of connections that have less than their
        share of the bound are left alone."""
        by_peer: dict[bytes, list[Call]] = {}
        for call in calls:
            by_peer.setdefault(call.peer, []).append(call)
        self._handled = {peer: self._handled.get(peer, 0) for peer in by_peer}
        sizes = {peer: self._size(peer, its) for peer, its in by_peer.items()}
        total = sum(sizes.values())
        self._peak = max(self._peak, total)
        ended: list[Call] = []
        for peer, size in sorted(sizes.items(), key=lambda each: -each[1]):
            if total <= self._bound or size * len(sizes) < self._bound:
                break
            if unfinished := [call for call in by_peer[peer] if not call.whole]:
                ended += unfinished
                total -= size
        return ended

    def _size(self, peer: bytes, calls: list[Call]) -> int:
        received = self._bytes_received(peer)
        if received is None:
            return 0
        handled = self._handled[peer]
        for call in calls:
            if call.mark is None:
                call.mark = (received, handled)
        then_received, then_handled = calls[0].mark or (received, handled)
        return max(0, received - then_received - (handled - then_handled))
