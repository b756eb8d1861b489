"""As much HTTP/2 as it takes to send what no gRPC client would, and to see the frames of the answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple, Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block that needs no table."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def message(payload: bytes, compressed: bool = False, announce: int | None = None) -> bytes:
    """A message. `announce`: the length that is said, instead of the true one."""
    return struct.pack(">BI", compressed, len(payload) if announce is None else announce) + payload


class Connection:
    """A client connection. Reading times out after 10 s: a missing answer fails a test and does not hang it.

    Like most clients it waits for the server's SETTINGS before it calls; `patient` ones wait until the server has
    acknowledged theirs, too.
    """

    def __init__(self, port: int, patient: bool = False) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._buffer = b""
        try:
            self._greet(patient)
        except BaseException:
            self.close()
            raise

    def _greet(self, patient: bool) -> None:
        self._socket.sendall(PREFACE)
        self.send(SETTINGS, 0, 0)
        waits_for = {(SETTINGS, 0), (SETTINGS, ACK)} if patient else {(SETTINGS, 0)}
        while waits_for:
            received = self.read()
            waits_for.discard((received.kind, received.flags))
            self._acknowledge(received)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self._socket.sendall(frame(kind, flags, stream, payload))

    def begin(self, stream: int, path: str = EXPORT, encoding: str = "", padding: int = 0) -> None:
        """Open a call, with `padding` bytes of metadata; none of its message yet."""
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        if encoding:
            headers.append(("grpc-encoding", encoding))
        headers += [(f"x-{number}", "p" * 100) for number in range(padding // 100)]
        self.send(HEADERS, END_HEADERS, stream, block(headers))

    def data(self, stream: int, payload: bytes, end: bool = True) -> None:
        parts = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
        for part in parts[:-1]:
            self.send(DATA, 0, stream, part)
        self.send(DATA, END_STREAM if end else 0, stream, parts[-1])

    def read(self) -> Frame:
        head = self._exactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return Frame(kind, flags, stream, self._exactly(int.from_bytes(head[:3], "big")))

    def _acknowledge(self, frame: Frame) -> None:
        if frame.kind == SETTINGS and not frame.flags & ACK:
            self.send(SETTINGS, ACK, 0)

    def answer(self, stream: int) -> list[Frame]:
        """The HEADERS and DATA frames of a call's answer, to its end (none if it was reset before there were any)."""
        frames: list[Frame] = []
        while True:
            frame = self.read()
            self._acknowledge(frame)
            if frame.kind == GOAWAY:
                raise ConnectionError("GOAWAY")
            if frame.stream == stream and frame.kind in (HEADERS, DATA):
                frames.append(frame)
            if frame.stream == stream and (frame.kind == RST_STREAM or (frames and frame.flags & END_STREAM)):
                return frames

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("closed")
            self._buffer += received
        result, self._buffer = self._buffer[:count], self._buffer[count:]
        return result


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
