"""Listening sockets: which addresses of a host are listened on."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from sampler_proxy.receive import listeners


@pytest.mark.parametrize("kind", ["no dual stack", "no family", "no address"])
@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_a_wildcard_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch, host: str, kind: str) -> None:
    if kind == "no dual stack":
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    server = listeners._server

    def without(address: Any, family: int, *more: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            number = errno.EAFNOSUPPORT if kind == "no family" else errno.EADDRNOTAVAIL
            raise OSError(number, os.strerror(number))
        return server(address, family, *more, **options)

    monkeypatch.setattr(listeners, "_server", without)
    (listening,) = listeners.listen(host, 0, 128)
    with listening:
        assert listening.getsockname()[0] == "0.0.0.0"
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=10).close()


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ({"::1": errno.EADDRNOTAVAIL}, ["127.0.0.1"]),
        ({"127.0.0.1": errno.EAFNOSUPPORT}, ["::1"]),
        ({"127.0.0.1": errno.EADDRNOTAVAIL, "::1": errno.EAFNOSUPPORT}, errno.EAFNOSUPPORT),
        ({"127.0.0.1": errno.EADDRINUSE}, errno.EADDRINUSE),
        ({"::1": errno.EACCES}, errno.EACCES),
    ],
)
def test_addresses_that_are_not_here_are_passed_over_where_another_works(
    monkeypatch: pytest.MonkeyPatch, missing: dict[str, int], left: list[str] | int
) -> None:
    opened: list[Any] = []

    class Listening:
        def __init__(self, address: Any) -> None:
            self.address, self.closed = address, False
            opened.append(self)

        def getsockname(self) -> Any:
            return (self.address[0], 4321)

        def close(self) -> None:
            self.closed = True

    def server(address: Any, *_: int) -> Any:
        if (number := missing.get(address[0])) is not None:
            raise OSError(number, os.strerror(number))
        return Listening(address)

    found = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(listeners, "_server", server)
    if isinstance(left, int):
        with pytest.raises(OSError, match=r".") as caught:
            listeners.listen("localhost", 0, 128)
        assert caught.value.errno == left
        assert all(each.closed for each in opened)
    else:
        listeners.listen("localhost", 0, 128)
        assert [each.address[0] for each in opened] == left
        assert not any(each.closed for each in opened)
