"""A server that speaks as much HTTP/2 as it takes to answer a gRPC call in ways that no gRPC server would.

    with Http2Server(answer) as server: server.port; server.calls

`answer(call)` is called when a request has been read to its end, on a thread of the connection's own.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
GRPC = ((":status", "200"), ("content-type", "application/grpc"))

Headers = Sequence[tuple[str, str]]


@dataclass
class Call:
    """A request that has arrived whole: `message` without gRPC's prefix."""

    message: bytes
    _connection: socket.socket
    _stream: int

    def headers(self, fields: Headers, end: bool = False) -> None:
        block = b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)
        self._send(HEADERS, END_HEADERS | (END_STREAM if end else 0), self._stream, block)

    def data(self, payload: bytes, end: bool = False) -> None:
        self._send(DATA, END_STREAM if end else 0, self._stream, payload)

    def succeed(self) -> None:
        self.headers(GRPC)
        self.data(bytes(5))
        self.headers([("grpc-status", "0")], end=True)

    def status(self, code: int, text: str = "") -> None:
        """Trailers-Only."""
        self.headers([*GRPC, ("grpc-status", str(code)), ("grpc-message", text)], end=True)

    def http(self, status: int, body: bytes = b"<html>no</html>") -> None:
        """What a middleman says that knows nothing of gRPC."""
        self.headers([(":status", str(status)), ("content-type", "text/html")])
        self.data(body, end=True)

    def reset(self, error: int) -> None:
        self._send(RST_STREAM, 0, self._stream, struct.pack(">I", error))

    def go_away(self, error: int) -> None:
        """Nothing of this connection has been processed."""
        self._send(GOAWAY, 0, 0, struct.pack(">II", 0, error))

    def hang_up(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        _send(self._connection, kind, flags, stream, payload)


@dataclass
class Http2Server:
    answer: Callable[[Call], object]
    host: str = "127.0.0.1"
    port: int = 0
    calls: list[bytes] = field(default_factory=list)  # the messages of all calls so far

    def __post_init__(self) -> None:
        self._listener = socket.create_server((self.host, self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # else accept() would go on
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        bodies: dict[int, bytearray] = {}
        with connection, connection.makefile("rb") as stream:
            try:
                stream.read(24)  # the preface
                _send(connection, SETTINGS, 0, 0, b"")
                while len(head := stream.read(9)) == 9:
                    kind, flags, number = struct.unpack(">BBI", head[3:])
                    payload = stream.read(int.from_bytes(head[:3], "big"))
                    if kind in (SETTINGS, PING) and not flags & ACK:
                        _send(connection, kind, ACK, 0, payload if kind == PING else b"")
                    elif kind == DATA:
                        bodies.setdefault(number, bytearray()).extend(payload)
                        for opened in (0, number):
                            _send(connection, WINDOW_UPDATE, 0, opened, struct.pack(">I", max(len(payload), 1)))
                        if flags & END_STREAM:
                            message = bytes(bodies.pop(number)[5:])
                            self.calls.append(message)
                            self.answer(Call(message, connection, number))
            except OSError:
                return


def _send(connection: socket.socket, kind: int, flags: int, stream: int, payload: bytes) -> None:
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
    connection.sendall(head + payload)


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
