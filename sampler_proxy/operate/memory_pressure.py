"""Says when the buffer runs out of memory, what that costs, and when it is over.

The signs are the pipeline's own counts: traces that were decided early for want of memory, requests that were refused
for it. One line says that it has begun, one more that senders are refused, too, if they are, and one that it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import structlog

from sampler_proxy.units import format_duration

OVER_AFTER_NS = 10 * 10**9
"""It is over when there was no sign of it for so long: a buffer that is full now and then stays full to the reader."""

log = structlog.get_logger()


class Signs(NamedTuple):
    """Hold what the pipeline has counted until now, and the age of its oldest undecided trace."""

    decided_early: int
    refused: int
    oldest_s: float


class MemoryPressure:
    """Looks at the signs about once a second, on the loop's thread. `clock` tells monotonic nanoseconds, `wait_ns` is
    `buffer.decision_wait`."""

    def __init__(self, read: Callable[[], Signs], clock: Callable[[], int], wait_ns: int) -> None:
        self._read = read
        self._clock = clock
        self._wait_ns = wait_ns
        self._last = Signs(0, 0, 0.0)
        self._before = self._last  # the counts when it began
        self._began_ns: int | None = None  # None: there is no pressure
        self._seen_ns = 0  # the last sign
        self._refusing = False  # and that was told

    def look(self) -> None:
        """Log what has begun or ended."""
        now_ns = self._clock()
        signs, last = self._read(), self._last
        self._last = signs
        early, refused = signs.decided_early > last.decided_early, signs.refused > last.refused
        if early or refused:
            self._seen_ns = now_ns
            if self._began_ns is None:
                self._began_ns, self._before = now_ns, last
                self._refusing = refused
                remedy = "Raise buffer.max_bytes, shorten the waits, or see whether a destination takes too little"
                if not signs.oldest_s:
                    remedy = "See which destination takes too little, or raise buffer.max_bytes"
                log.warning(f"memory: the buffer is full: {self._effect(refused)}; {self._held(signs)}. {remedy}")
            elif refused and not self._refusing:
                self._refusing = True
                log.warning(f"memory: deciding early makes too little room: {self._effect(True)}; {self._held(signs)}")
        elif self._began_ns is not None and now_ns - self._seen_ns >= OVER_AFTER_NS:
            self._end("has room again, after")

    def end(self) -> None:
        """Log that it lasted until the process stops, if it had begun and is not over."""
        self._end("was full until the stop, for")

    def _end(self, how: str) -> None:
        if self._began_ns is None:
            return
        early, refused = (now - before for now, before in zip(self._last[:2], self._before[:2], strict=True))
        seconds = (self._seen_ns - self._began_ns) / 1e9
        self._began_ns = None
        log.info(
            f"memory: the buffer {how} {seconds:.0f} s: {early} trace{'' if early == 1 else 's'} "
            f"decided early, {refused} request{'' if refused == 1 else 's'} refused"
        )

    @staticmethod
    def _effect(refused: bool) -> str:
        return "senders are refused, to send again" if refused else "traces are decided early"

    def _held(self, signs: Signs) -> str:
        if not signs.oldest_s:
            return "all that it holds is decided, and waits to be sent"
        return f"traces are held for {signs.oldest_s:.1f} s now instead of up to {format_duration(self._wait_ns)}"
