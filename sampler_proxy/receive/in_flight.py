"""Bounds the bytes of messages that are still arriving, or wait to be handled. No I/O.

gRPC core gathers a message where nobody sees it, and how much of it has come is told to nobody; what a connection has
received in all is known to the kernel (`Connections.bytes_received`). So of a connection with an unfinished call there
is at most in flight what it has received since that call was first seen, but for messages that have arrived whole
since. Those are known by their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class Unfinished(Protocol):
    """A call that has not been handled yet."""

    peer: bytes
    whole: bool
    """Whether its message has arrived: it holds bytes, and cannot be ended any more."""
    size: int
    """Of the whole message, in bytes."""
    mark: tuple[int, int] | None
    """What its connection had received, and what of that had arrived whole, when the call was first seen."""


Call = TypeVar("Call", bound=Unfinished)


class BytesInFlight:
    """The account of all connections. `bytes_received(peer)` tells what a connection has received, None where nobody
    knows. Used by one thread."""

    def __init__(self, bytes_received: Callable[[bytes], int | None], bound: int) -> None:
        self._bytes_received = bytes_received
        self._bound = bound
        self._peak = 0
        self.watched: dict[bytes, int] = {}
        """What has arrived whole by the connections that have unfinished calls, since that was first seen."""

    def peak(self) -> int:
        """Return the most that was in flight at a look since this was asked last. From any thread."""
        peak, self._peak = self._peak, 0
        return peak

    def arrived(self, peer: bytes, size: int) -> None:
        """Count a message that is whole; needless while `watched` is empty."""
        if peer in self.watched:
            self.watched[peer] += size

    def look(self, calls: Iterable[Call], whole: Iterable[Call]) -> list[Call]:
        """Look at the calls that have been there for a while, oldest first, and those whose messages are whole; return
        the unfinished ones that have to be ended since there is more in flight than the bound: all of the connection
        that has most, and so on. Connections that have less than their share of the bound are left alone."""
        sizes: dict[bytes, int] = {}
        for call in whole:
            sizes[call.peer] = sizes.get(call.peer, 0) + call.size
        by_peer: dict[bytes, list[Call]] = {}
        for call in calls:
            if not call.whole:
                by_peer.setdefault(call.peer, []).append(call)
        self.watched = {peer: self.watched.get(peer, 0) for peer in by_peer}
        for peer, its in by_peer.items():
            sizes[peer] = sizes.get(peer, 0) + self._unfinished(peer, its)
        total = sum(sizes.values())
        self._peak = max(self._peak, total)
        ended: list[Call] = []
        for peer, size in sorted(sizes.items(), key=lambda each: -each[1]):
            if total <= self._bound or size * len(sizes) < self._bound:
                break
            if peer in by_peer:
                ended += by_peer[peer]
                total -= size
        return ended

    def _unfinished(self, peer: bytes, calls: list[Call]) -> int:
        received = self._bytes_received(peer)
        if received is None:
            return 0
        arrived = self.watched[peer]
        for call in calls:
            if call.mark is None:
                call.mark = (received, arrived)
        then_received, then_arrived = calls[0].mark or (received, arrived)
        return max(0, received - then_received - (arrived - then_arrived))
