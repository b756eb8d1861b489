"""Says which destination holds up which others, and which one drops what it has no room for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sampler_proxy.export.exporter import Exporter

log = logging.getLogger(__name__)

INTERVAL_NS = 60 * 10**9
"""While a queue stays full, that is said again after this."""

OVER_AFTER_NS = 5 * 10**9
"""A queue that takes a trace now and then is still full: it must have had room for so long."""


class FullQueues:
    """Looks at the queues of all destinations. On the loop's thread, a few times a second."""

    def __init__(self, exporters: Sequence[Exporter], clock: Callable[[], int]) -> None:
        self._exporters = exporters
        self._clock = clock
        self._told_ns: dict[str, int] = {}  # of queues that are full: when that was said
        self._full_ns: dict[str, int] = {}  # and seen last

    def look(self) -> None:
        """Log what has changed."""
        now_ns = self._clock()
        for exporter in self._exporters:
            name, queue = exporter.name, exporter.queue
            exporter.tell_dropped()
            if queue.full:
                self._full_ns[name] = now_ns
                if name not in self._told_ns or now_ns - self._told_ns[name] >= INTERVAL_NS:
                    self._told_ns[name] = now_ns
                    log.warning(
                        f"export %s: its queue is full: kept traces wait in the buffer{self._held_up_by(name)}", name
                    )
            elif name in self._told_ns and now_ns - self._full_ns[name] >= OVER_AFTER_NS:
                del self._told_ns[name]
                log.info("export %s: its queue has room again", name)

    def _held_up_by(self, name: str) -> str:
        others = [exporter.name for exporter in self._exporters if exporter.name != name]
        others += ["the senders"]
        return f", and hold up {', '.join(others[:-1])}{' and ' if others[1:] else ''}{others[-1]} once that is full"
