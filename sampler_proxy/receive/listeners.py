"""Opens listening sockets for the ports of this process.

A wildcard, `0.0.0.0` as well as `[::]`, is one socket for both families, so that every port is reached over the same
addresses.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

WILDCARDS = ("0.0.0.0", "::")
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # a family or an address that this machine has not


_PORT_TRIES = 10


def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address of a host (a wildcard: on all addresses of both families) that this machine has, on one
    port (0: one that is free on all of them). Raises OSError, and UnicodeError where the host cannot be a name; nothing
    is left open then."""
    for _ in range(_PORT_TRIES if port == 0 else 1):
        try:
            return _listen(host, port, backlog)
        except OSError as error:
            failure = error
            if error.errno != errno.EADDRINUSE:
                break
    raise failure


def _listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    if host in WILDCARDS and socket.has_dualstack_ipv6():
        try:
            return [_server(("::", port), socket.AF_INET6, backlog, dualstack_ipv6=True)]
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise  # else there is no IPv6 here after all
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            if port == 0 and sockets:  # the port that the first one was given
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_server(address, family, backlog))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                absent = error
        if absent is not None and not sockets:
            raise absent
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _server(address: Any, family: int, backlog: int, *, dualstack_ipv6: bool = False) -> socket.socket:
    try:
        return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=dualstack_ipv6)
    except OSError as error:  # its text repeats the address
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None
