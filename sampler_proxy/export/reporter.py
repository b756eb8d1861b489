"""Reports on one destination: logs what happens, and keeps what metrics, `/readyz` and `/destinations` show of it.

Every change of state (fails, works again) is logged, up to MAX_CHANGES a minute. Repeats of one kind are logged once a
minute, with the sum of spans since the last line; what is held back leaves when the minute is over, or at the stop.
Texts are this side's own: never what a back end wrote, which may quote attribute values.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

INTERVAL_NS = 60 * 10**9

MAX_CHANGES = 10
"""A destination that fails and works by turns does not fill the log: further changes of a minute are only counted."""

NAMED_TRACES = 5
"""A line names so many trace ids."""


@dataclass(slots=True)
class _Kind:
    """Lines of one kind: the last one, and what has been held back since."""

    last_ns: int | None = None
    message: str = ""
    spans: int = 0
    times: int = 0
    traces: list[str] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Reporter:
    """State and log of one destination. On the loop; `clock` tells monotonic nanoseconds. `what`: is sent."""

    def __init__(self, name: str, clock: Callable[[], int], what: str = "traces") -> None:
        self.failures: Counter[str] = Counter()  # tries, by code
        self.last_error: str | None = None
        self.last_error_ns = 0
        self._name = name
        self._what = what
        self._clock = clock
        self._failing_since_ns: int | None = None
        self._failed_tries = 0  # since then
        self._changes: deque[int] = deque()  # when they were logged
        self._unlogged_changes = 0
        self._kinds: dict[str, _Kind] = {}
        self._outage: set[str] = set()  # kinds of lines about the present one

    @property
    def up(self) -> bool:
        """Tell whether the destination takes what it is sent: the last request that said something about it passed.
        Those of suspects do not, and of refusals for good only those of a batch that was refused whole, while nothing
        else passed."""
        return self._failing_since_ns is None

    def failed(self, code: str, why: str) -> None:
        """Report a try that failed, and says something about the destination."""
        self._note(code, why)
        self._fail(why, "trying again until it works")

    def refuses(self, why: str) -> None:
        """Report that a batch was refused, for good, while nothing passes; its tries have been counted."""
        self.last_error, self.last_error_ns = why, self._clock()
        self._fail(why, "nothing passes, and what it refuses is rejected")

    def hindered(self, code: str, why: str) -> None:
        """Report a try that this side could not make: that says nothing about the destination."""
        self.failures[code] += 1
        self._repeat(why, f"{why}; trying again until it works")

    def _fail(self, why: str, then: str) -> None:
        self._failed_tries += 1
        if self._failing_since_ns is not None:
            self._outage.add(why)
            self._repeat(why, f"{why}; {then}")
            return
        self._failing_since_ns = self._clock()
        self._failed_tries = 1
        if self._change():
            self._kinds.setdefault(why, _Kind()).last_ns = self._failing_since_ns
            log.warning("export %s: %s; %s%s", self._name, why, then, self._more_changes())

    def failed_alone(self, code: str, why: str) -> None:
        """Report a try that failed, while others pass."""
        self._note(code, why)
        self._repeat("alone", f"{why}; others pass, so these {self._what} are tried apart from them")

    def refused(self, code: str, why: str) -> None:
        """Count a try that got a final answer: what becomes of its spans is reported by itself."""
        self._note(code, why)

    def succeeded(self) -> bool:
        """Report a try that passed; returns whether that is news."""
        if self._failing_since_ns is None:
            return False
        seconds = (self._clock() - self._failing_since_ns) / 1e9
        self._failing_since_ns = None
        for kind in self._outage:  # the line below sums up their repeats
            self._kinds[kind].times = 0
        self._outage.clear()
        if self._change():
            log.info(
                "export %s: works again after %.1f s and %d failed tries%s",
                self._name,
                seconds,
                self._failed_tries,
                self._more_changes(),
            )
        return True

    def complain(self, kind: str, spans: int, message: str, traces: Iterable[bytes] = ()) -> None:
        """Report what has become of `spans` spans: at once, or with the next line of this kind."""
        entry = self._kinds.setdefault(kind, _Kind())
        entry.message = message
        entry.spans += spans
        entry.times += 1
        if len(entry.traces) <= NAMED_TRACES:
            entry.traces += [trace.hex() for trace in traces]
        self._when_due(entry)

    def final(self) -> None:
        """Log what has been held back."""
        for entry in self._kinds.values():
            if entry.times:
                self._flush(entry)

    def _note(self, code: str, why: str) -> None:
        self.failures[code] += 1
        self.last_error, self.last_error_ns = why, self._clock()

    def _repeat(self, kind: str, message: str) -> None:
        entry = self._kinds.setdefault(kind, _Kind())
        now_ns = self._clock()
        entry.message = message
        entry.times += 1
        if entry.last_ns is None or now_ns - entry.last_ns >= INTERVAL_NS:
            self._flush(entry)

    def _when_due(self, entry: _Kind) -> None:
        wait_ns = 0 if entry.last_ns is None else entry.last_ns + INTERVAL_NS - self._clock()
        if wait_ns <= 0:
            self._flush(entry)
        elif entry.timer is None:
            entry.timer = asyncio.get_running_loop().call_later(wait_ns / 1e9, self._flush, entry)

    def _flush(self, entry: _Kind) -> None:
        spans = f"{entry.spans} " if entry.spans else ""
        named = ", ".join(entry.traces[:NAMED_TRACES]) + (", ..." if len(entry.traces) > NAMED_TRACES else "")
        traces = f" (trace {named})" if named else ""
        more = f" ({entry.times} times since the last line)" if entry.times > 1 and not entry.spans else ""
        log.warning("export %s: %s%s%s%s", self._name, spans, entry.message, traces, more)
        if entry.timer is not None:
            entry.timer.cancel()
        entry.last_ns, entry.timer = self._clock(), None
        entry.spans = entry.times = 0
        entry.traces = []

    def _change(self) -> bool:
        """Tell whether a change of state may be logged."""
        now_ns = self._clock()
        while self._changes and now_ns - self._changes[0] >= INTERVAL_NS:
            self._changes.popleft()
        if len(self._changes) >= MAX_CHANGES:
            self._unlogged_changes += 1
            return False
        self._changes.append(now_ns)
        return True

    def _more_changes(self) -> str:
        more, self._unlogged_changes = self._unlogged_changes, 0
        return f" ({more} changes of state more since the last line)" if more else ""
