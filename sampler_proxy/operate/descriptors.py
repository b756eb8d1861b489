"""Looks after file descriptors: how many there may be, and whether they have run out."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class DescriptorWatch:
    """Notices that this process has run out of file descriptors: what is connected goes on, what is new has to wait,
    and neither gRPC core nor uvloop says a word."""

    PERIOD_S = 60.0
    """How often it is said, as long as it lasts."""

    SPARE = 8
    """Descriptors that have to be free, so that the lack is over..."""

    OVER_S = 5.0
    """... and for how long: near the limit each connection that comes or goes would be a change."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Make it; `clock` tells seconds, monotonic."""
        self._clock = clock
        self._exhausted = False
        self._next_s = 0.0
        self._free_since_s: float | None = None

    def check(self) -> None:
        """Log where a descriptor cannot be had, and once more when some can again. Costs two system calls."""
        spare: list[int] = []
        try:
            for _ in range(self.SPARE if self._exhausted else 1):
                spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self._free_since_s = None
            if not spare and error.errno in (errno.EMFILE, errno.ENFILE):
                self._complain("this process" if error.errno == errno.EMFILE else "the machine")
            return
        finally:
            for descriptor in spare:
                os.close(descriptor)
        if self._exhausted:
            now = self._clock()
            self._free_since_s = now if self._free_since_s is None else self._free_since_s
            if now - self._free_since_s >= self.OVER_S:
                self._exhausted = False
                log.info("there are file descriptors again: new connections are taken")

    def _complain(self, who: str) -> None:
        self._exhausted = True
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + self.PERIOD_S
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.error(
                f"{who} is out of file descriptors (limit of this process: {soft}): new connections have to wait, "
                "those that exist go on; raise the limit (ulimit -n, LimitNOFILE) or let fewer senders connect"
            )


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard one: each sender's connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        log.warning(f"the limit on open files stays at {soft}: the system does not let it be raised")
