"""Opens listening sockets for the ports of this process, and unix sockets.

A wildcard, `0.0.0.0` as well as `[::]`, is one socket for both families, so that every port is reached over the same
addresses; where a machine has one family only, that of this family.

Who may connect to a unix socket is for its folder and the process's umask to say. The file of one that nobody listens
on any more, such as that of a process that was killed, is replaced.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from typing import Any

from sampler_proxy.settings import Endpoint

WILDCARDS = ("0.0.0.0", "::")
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # a family or an address that this machine has not


_PORT_TRIES = 10


class UnixListener(socket.socket):
    """A listening unix socket, which has a file."""

    _file: tuple[str, int, int] | None = None

    def __init__(self, path: str, backlog: int) -> None:
        """Listen. Raises OSError: FileExistsError where `path` is something else, EADDRINUSE where a process listens
        there."""
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_stale(path)
            self.bind(path)
            made = os.stat(path)
            self._file = (path, made.st_dev, made.st_ino)
            self.listen(backlog)
        except BaseException:
            self.close()
            raise

    def remove(self) -> None:
        """Remove the file, so that who connects is told at once that nobody listens; not that of a process that has
        taken its place. May be called again."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                found = os.stat(file[0])
                if (found.st_dev, found.st_ino) == file[1:]:
                    os.unlink(file[0])

    def close(self) -> None:
        """Close the socket, and remove the file."""
        self.remove()
        super().close()


def _remove_stale(path: str) -> None:
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, "there is a file of that name, which is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # one whose queue is full is there, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def listen_at(endpoint: Endpoint, backlog: int) -> list[socket.socket]:
    """Listen on a unix socket, or as `listen` does. Raises what that does, and what UnixListener does."""
    if endpoint.path:
        return [UnixListener(endpoint.path, backlog)]
    return listen(endpoint.host, endpoint.port, backlog)


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
    host = "0.0.0.0" if host == "::" else host
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


def readable_address(address: Any) -> str:
    """Return the address of a client, to be logged."""
    host, port = address[0].removeprefix("::ffff:"), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_CREDENTIALS = struct.Struct("=3i")
"""struct ucred of unix(7): the process, its user and group."""


def unix_peer(connection: Any) -> str:
    """Return which process has connected over a unix socket, to be logged. OSError where the system does not say."""
    process, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return f"unix:process {process}" if process else "unix"  # 0: one that this process cannot see
