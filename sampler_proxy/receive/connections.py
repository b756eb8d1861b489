"""Knows the connections that gRPC core has been given: what they have received, and how to end one.

Core owns their descriptors, and closes them when it likes. So a descriptor is duplicated for the moment in which it is
used, and then asked for its peer: whatever the number stands for by now, the duplicate stays with it. A connection that
has gone is found out when it is looked for, or when its descriptor's number comes back; nothing has to watch for that,
and no duplicate holds up the end of a connection that core has closed.
"""

from __future__ import annotations

import os
import socket
import struct
import weakref
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import structlog

from sampler_proxy.receive.relay import Relayed
from sampler_proxy.receive.throttle import Throttle

BROKEN_OFF, UNFINISHED = "calls_broken_off", "unfinished"
KINDS = (BROKEN_OFF, UNFINISHED)
"""Why a connection is closed: its calls end before their messages have arrived, or their messages never end."""

_REASONS = {
    BROKEN_OFF: "too many of its calls were broken off before their messages had arrived",
    UNFINISHED: "too many of its messages did not arrive in time, or held too many bytes",
}

_TCP_INFO_RECEIVED = struct.Struct("=128xQ")
"""struct tcp_info of linux/tcp.h, to the end of tcpi_bytes_received (since Linux 4.1)."""

_GOAWAY = 7
_ENHANCE_YOUR_CALM = 0xB
_LAST_STREAM = 2**31 - 1
"""Which calls have been taken is core's to know: all may have been."""


log = structlog.get_logger()


def peer_of(address: Any) -> bytes:
    """Return a socket address as core names a call's peer: a URI (RFC 3986) of the scheme ipv4 or ipv6, or of a unix
    socket with an abstract address, as relay.py makes them."""
    if isinstance(address, bytes):
        return b"unix-abstract:" + address[1:]
    host, port = address[0].removeprefix("::ffff:"), address[1]
    if ":" not in host:
        return f"ipv4:{host}:{port}".encode()
    scope = f"%25{address[3]}" if address[3] else ""
    return f"ipv6:%5B{host.partition('%')[0]}{scope}%5D:{port}".encode()


def readable(peer: bytes) -> str:
    """Return the address of a call's peer, to be logged."""
    return unquote(peer.decode("ascii", "replace")).partition(":")[2]


def goaway(text: str) -> bytes:
    """Return the HTTP/2 frame that tells a client why it is sent away (RFC 9113, 6.8)."""
    payload = struct.pack(">II", _LAST_STREAM, _ENHANCE_YOUR_CALM) + text.encode()
    return struct.pack(">IBI", len(payload) << 8 | _GOAWAY, 0, 0) + payload


class Connections:
    """The connections of one server. From any thread; they are closed by one."""

    encrypted = False
    """Whether they are TLS, so that nothing can be sent over them here."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, tuple[int, int]] = {}  # peer -> descriptor and family
        self._peers: dict[int, bytes] = {}  # and the reverse: as many as there are descriptors, at most
        self._relayed: weakref.WeakValueDictionary[bytes, Relayed] = weakref.WeakValueDictionary()
        self._throttles = {kind: Throttle() for kind in KINDS}

    def add(self, connection: socket.socket, relayed: Relayed | None = None) -> None:
        """Take note of a connection that core is about to be given, which may be one that is relayed. OSError where its
        client has gone."""
        number, peer = connection.fileno(), peer_of(connection.getpeername())
        gone = self._peers.get(number)
        if gone is not None and self._numbers.get(gone, (-1, 0))[0] == number:  # else its port is another connection's
            del self._numbers[gone]
        self._numbers[peer] = (number, connection.family)
        self._peers[number] = peer
        if relayed is not None:
            self._relayed[peer] = relayed

    def bytes_received(self, peer: bytes) -> int | None:
        """Return what a connection has received since it began; None where that, or the connection, is not known."""
        if (relayed := self._relayed.get(peer)) is not None:
            return relayed.received
        connection = self.duplicate(peer)
        if connection is None:
            return None
        with connection:
            try:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RECEIVED.size)
                received: int = _TCP_INFO_RECEIVED.unpack(info)[0]
            except (OSError, AttributeError, struct.error):
                return None
            return received

    def duplicate(self, peer: bytes) -> socket.socket | None:
        """Return a socket of its own for a connection, to be closed soon; None where the connection has gone."""
        number, family = self._numbers.get(peer, (-1, 0))
        connection = None
        with suppress(OSError):
            copy = os.dup(number)
            try:
                connection = socket.socket(family, socket.SOCK_STREAM, 0, copy)
            except BaseException:
                os.close(copy)
                raise
            if peer_of(connection.getpeername()) == peer:
                return connection
        if connection is not None:
            connection.close()
        if self._numbers.pop(peer, None) is not None and self._peers.get(number) == peer:
            self._peers.pop(number, None)
        return None

    def close(self, peer: bytes, kind: str) -> bool:
        """Tell a client why, and close its connection, of which core hears as of any that has ended; log that. Return
        whether the connection was there."""
        connection = self.duplicate(peer)
        if connection is None:
            return False
        relayed = self._relayed.get(peer)  # now: it goes with the connection
        name = readable(peer) if relayed is None else relayed.peer
        with connection, suppress(OSError):  # the client has gone, or reads nothing
            with suppress(BlockingIOError):
                if not self.encrypted:
                    connection.send(goaway(_REASONS[kind]), socket.MSG_DONTWAIT)
            connection.shutdown(socket.SHUT_RDWR)
        self._numbers.pop(peer, None)  # core may take a while; it must not be closed twice
        if (held_back := self._throttles[kind].due()) is not None:
            log.warning(f"grpc: a connection was closed: {_REASONS[kind]}{held_back}", peer=name)
        return True
