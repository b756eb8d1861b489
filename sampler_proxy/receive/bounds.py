"""Bounds what one connection may do to a server of the completion-queue engine, and closes those that go on.

Two kinds of fault count: calls that are broken off before their messages have arrived, and messages that never end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sampler_proxy.receive import grpc_server
from sampler_proxy.receive.conduct import Conduct
from sampler_proxy.receive.connections import BROKEN_OFF, UNFINISHED, Connections
from sampler_proxy.receive.in_flight import BytesInFlight

MAX_BROKEN_OFF, BROKEN_OFF_PER_S = 600, 100.0
"""Calls that one connection may break off before their messages have arrived: at once, and in every second. Whole
messages make up for them. A client whose calls all pass their deadlines breaks off MAX_STREAMS of them, once in a
deadline."""

MAX_UNFINISHED, UNFINISHED_PER_S = 200, 1.0
"""The same of messages that have stalled, or held too many bytes."""

_LOOK_SHARE = 10.0
"""Of the thread's time, looking at connections may take an eleventh."""


class Bounds:
    """The bounds of all connections of a server, each asked for itself. `max_bytes`: of messages that are in flight.
    `on_closed(kind)` is told of connections that are closed. Used by one thread."""

    def __init__(self, max_bytes: int, on_closed: Callable[[str], None]) -> None:
        self.connections = Connections()
        self.bytes = BytesInFlight(self.connections.bytes_received, max_bytes)
        self.broken_off = Conduct(MAX_BROKEN_OFF, BROKEN_OFF_PER_S)
        self._unfinished = Conduct(MAX_UNFINISHED, UNFINISHED_PER_S)
        self._on_closed = on_closed
        self.next_look_s = 0.0
        """When calls are to be looked at again, by the clock that only goes forward."""
        self.next_look_time_s = 0.0
        """The same by the clock on the wall, which is what core waits by."""

    def looked(self, since_s: float) -> None:
        """Take note that calls have been looked at, from `since_s` until now."""
        now_s = time.monotonic()
        pause_s = max(grpc_server.LOOK_S, _LOOK_SHARE * (now_s - since_s))
        self.next_look_s, self.next_look_time_s = now_s + pause_s, time.time() + pause_s

    def broke_off(self, peer: bytes, now_s: float) -> None:
        """Count a call that was broken off before its message had arrived."""
        if self.broken_off.fault(peer, now_s):
            self._close(peer, BROKEN_OFF)

    def did_not_finish(self, peer: bytes, now_s: float) -> None:
        """Count a call that was ended since its message did not."""
        if self._unfinished.fault(peer, now_s):
            self._close(peer, UNFINISHED)

    def _close(self, peer: bytes, kind: str) -> None:
        """Close a connection. Its calls end as those of any that is lost."""
        if self.connections.close(peer, kind):
            self._on_closed(kind)
