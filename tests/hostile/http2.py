"""A client that sends bytes prepared beforehand: as a well-behaved one does, under flow control, or as none would.

It works at most until `end` (a time of time.monotonic) and raises nothing for what the server does.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from hpack import Decoder

from tests.receive.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    EXPORT,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
)

INITIAL_WINDOW_SIZE = 4
FRAME = 16384  # bytes of data in one


def headers(stream: int, encoding: str = "", end: bool = True) -> bytes:
    fields = {":method": "POST", ":scheme": "http", ":path": EXPORT, ":authority": "x", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    if encoding:
        fields["grpc-encoding"] = encoding
    return frame(HEADERS, END_HEADERS if end else 0, stream, block(fields.items()))


class Client:
    """One connection. `statuses` counts the answers by their gRPC status, what else ended a call by a word."""

    def __init__(self, port: int, settings: bytes = b"") -> None:
        """Connect. `settings`: the payload of the first SETTINGS."""
        self.statuses: Counter[str] = Counter()
        self.open = True
        self.stream = 1  # the next one
        self._left: dict[int, memoryview] = {}  # of messages that are being sent
        self._endless: set[int] = set()  # those among them that end without END_STREAM
        self._windows: dict[int, int] = {}
        self._window = self._initial = 65535
        self._in = bytearray()
        self._out = bytearray()
        self._decoder = Decoder()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._out += PREFACE + frame(SETTINGS, 0, 0, settings)

    def close(self) -> None:
        self.open = False
        self._socket.close()

    def start(self, whole: bytes, *, encoding: str = "", endless: bool = False) -> int:
        """Begin a call with a message; return its stream. `endless`: more of it is to come, and never does."""
        stream = self.stream
        self.stream += 2
        self._out += headers(stream, encoding)
        self._left[stream] = memoryview(whole)
        self._windows[stream] = self._initial
        if endless:
            self._endless.add(stream)
        return stream

    def call(self, messages: Iterable[bytes], end: float, *, encoding: str = "") -> None:
        """Send one after the other, each when the one before has been answered."""
        for whole in messages:
            if time.monotonic() > end or not self.open:
                return
            self.start(whole, encoding=encoding)
            self.run(end, until_answered=True)

    def run(self, end: float, *, until_answered: bool = False) -> None:
        """Send and read until `end`, or until all calls have been answered."""
        while self.open and (left := end - time.monotonic()) > 0 and not (until_answered and not self._windows):
            with suppress(OSError, ValueError):
                self._fill()
                readable, writable, _ = select.select(
                    [self._socket], [self._socket] if self._out else [], [], min(left, 0.2)
                )
                if writable:
                    with suppress(BlockingIOError):
                        del self._out[: self._socket.send(self._out)]
                if readable:
                    self._read()
                continue
            self.statuses["closed"] += 1
            self.close()

    def flood(self, part: bytes, end: float, *, reads: bool) -> bool:
        """Send all of it, flow control or not; return whether it was taken before `end`."""
        rest = memoryview(bytes(self._out) + part)
        self._out.clear()
        while rest and self.open and (left := end - time.monotonic()) > 0:
            try:
                _, writable, _ = select.select([], [self._socket], [], min(left, 0.2))
                if writable:
                    rest = rest[self._socket.send(rest) :]
                while reads and self._socket.recv(1 << 16):
                    pass
                if reads:
                    self.close()
            except BlockingIOError:
                pass
            except (OSError, ValueError):
                self.close()
        return not rest

    def _fill(self) -> None:
        for stream in list(self._left):
            left = self._left[stream]
            while left and len(self._out) < 1 << 20:
                size = min(len(left), FRAME, self._window, self._windows[stream])
                if size <= 0:
                    break
                self._window -= size
                self._windows[stream] -= size
                last = size == len(left) and stream not in self._endless
                self._out += struct.pack(">I", size)[1:] + struct.pack(">BBI", DATA, last, stream)
                self._out += left[:size]
                left = left[size:]
            if left:
                self._left[stream] = left
            else:
                del self._left[stream]
            if self._window <= 0 or len(self._out) >= 1 << 20:
                return

    def _read(self) -> None:
        received = self._socket.recv(1 << 18)
        if not received:
            raise ConnectionError
        self._in += received
        at = 0
        while len(self._in) - at >= 9:
            size = int.from_bytes(self._in[at : at + 3], "big")
            if len(self._in) - at < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._in, at + 3)
            self._take(kind, flags, stream, bytes(self._in[at + 9 : at + 9 + size]))
            at += 9 + size
        del self._in[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == INITIAL_WINDOW_SIZE:
                    for each in self._windows:
                        self._windows[each] += value - self._initial
                    self._initial = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if not stream:
                self._window += more
            elif stream in self._windows:
                self._windows[stream] += more
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == DATA:
            self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))) if payload else b""
        elif kind == HEADERS:
            fields = {str(name): str(value) for name, value in self._decoder.decode(payload)}
            if flags & END_STREAM:
                self._answered(stream, fields.get("grpc-status", "none"))
        elif kind == RST_STREAM:
            self._answered(stream, "reset")
        elif kind == GOAWAY:
            self.statuses[f"goaway {payload[8:].decode(errors='replace')}".strip()] += 1

    def _answered(self, stream: int, status: str) -> None:
        if self._windows.pop(stream, None) is not None:
            self.statuses[status] += 1
        self._left.pop(stream, None)
