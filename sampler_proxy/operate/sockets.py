"""Opens the admin port's listening sockets, and looks after file descriptors.

gRPC core makes one socket for both families of a wildcard address, `0.0.0.0` as well as `[::]`; the admin port does
the same, so that a probe reaches both ports over the same addresses.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import structlog

WILDCARDS = ("0.0.0.0", "::")
_BACKLOG = 128
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

log = structlog.get_logger()


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host (a wildcard: on all addresses of both families), on one port. Addresses of a
    family that this machine has not, or that are not its own, are passed over where another one works.

    Raises OSError, and UnicodeError where the host cannot be a name; nothing is left open then.
    """
    if host in WILDCARDS and socket.has_dualstack_ipv6():
        try:
            return [_server(("::", port), socket.AF_INET6, dualstack_ipv6=True)]
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise  # else there is no IPv6 here after all
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    not_here: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            if port == 0 and sockets:  # the port that the first one was given
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_server(address, family))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                not_here = error
        if not sockets and not_here is not None:
            raise not_here
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _server(address: Any, family: int, *, dualstack_ipv6: bool = False) -> socket.socket:
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dualstack_ipv6)
    except OSError as error:  # its text repeats the address
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None


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
