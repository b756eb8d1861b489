"""Attacks over HTTP/1.1, by connection and by content. Each function prepares its bytes and returns what sends them:
run(port, end) works until that time and returns what came of it: the statuses, and how many connections there were."""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial

from sampler_proxy.receive import http_bodies
from tests.hostile.connections import each_again
from tests.hostile.contents import MIB, attribute, field, text

Run = Callable[[int, float], Counter[str]]
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, compresslevel=9),
    "deflate": partial(zlib.compress, level=9),
    "zstd": http_bodies.zstd.compress,
}
ENDLESS = 1 << 24


def head(length: int, content_type: str = "application/x-protobuf", **more: str) -> bytes:
    """Return the head of a request with a body of so many bytes."""
    fields = {"Host": "x", "Content-Type": content_type, "Content-Length": str(length)}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = ["POST /v1/traces HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def slowly(connections: int, beginning: bytes, drop: bytes, every_s: float) -> Run:
    """So many connections that send a beginning, and then a drop now and then; closed ones are opened again."""

    def run(port: int, end: float) -> Counter[str]:
        found: Counter[str] = Counter()
        held: list[socket.socket] = []
        try:
            while time.monotonic() < end:
                begun = time.monotonic()
                for one in held.copy():
                    try:
                        one.send(drop)
                    except BlockingIOError:
                        pass
                    except OSError:
                        held.remove(one)
                        one.close()
                        found["closed"] += 1
                while len(held) < connections and time.monotonic() < end:
                    with suppress(OSError):
                        held.append(_connected(port))
                        held[-1].send(beginning)
                        held[-1].setblocking(False)
                        found["connections"] += 1
                time.sleep(max(0, begun + every_s - time.monotonic()))
        finally:
            for one in held:
                one.close()
        return found

    return run


def slow_heads(connections: int) -> Run:
    """Heads of which a byte comes every 100 ms."""
    return slowly(connections, head(10)[:-2] + b"X: ", b"x", 0.1)


def slow_bodies(connections: int, at_once: int) -> Run:
    """Bodies of which a part comes at once, and then a byte every 100 ms."""
    return slowly(connections, head(ENDLESS) + bytes(at_once), b"x", 0.1)


def idle(connections: int) -> Run:
    """Connections on which nothing comes."""

    def run(port: int, end: float) -> Counter[str]:
        held: list[socket.socket] = []
        with suppress(OSError):
            while len(held) < connections and time.monotonic() < end:
                held.append(_connected(port))
        time.sleep(max(0, end - time.monotonic()))
        for one in held:
            one.close()
        return Counter({"connections": len(held)})

    return run


def headers(connections: int, line: bytes) -> Run:
    """Heads that go on for ever, line by line."""
    lines = line * (MIB // len(line))

    def one(port: int, end: float) -> Counter[str]:
        with closing(_connected(port)) as connection:
            connection.sendall(head(10)[:-2])
            with suppress(OSError):
                while time.monotonic() < end:
                    connection.sendall(lines)
            return Counter({"connections": 1})

    return lambda port, end: each_again(connections, partial(one, port), end)


def broken_off(connections: int) -> Run:
    """Requests that are broken off in their bodies, each with its connection."""
    begun = head(ENDLESS) + bytes(10_000)

    def one(port: int, end: float) -> Counter[str]:
        count = 0
        while time.monotonic() < end:
            with closing(_connected(port)) as connection:
                connection.sendall(begun)
                count += 1
        return Counter({"connections": count})

    return lambda port, end: each_again(connections, partial(one, port), end)


def unread(connections: int) -> Run:
    """Whole requests, one behind the other, whose answers are not read."""
    many = (head(0)) * 1000

    def one(port: int, end: float) -> Counter[str]:
        with closing(_connected(port)) as connection:
            connection.settimeout(0.2)
            with suppress(OSError):
                while time.monotonic() < end:
                    connection.sendall(many)
            time.sleep(max(0, end - time.monotonic()))
            return Counter({"connections": 1})

    return lambda port, end: each_again(connections, partial(one, port), end)


def bombs(encoding: str, nbytes: int, every_s: float) -> Run:
    """An unknown field of zeros, which is not taken but has to be decompressed."""
    body = field(1, field(1, attribute(1, "k", text(bytes(nbytes)))))
    return repeated(head, COMPRESSORS[encoding](body), every_s, Content_Encoding=encoding)


def json(kind: str, nbytes: int) -> Run:
    """A body of JSON of that size: spans with nothing in them, one long string, or arrays in arrays."""
    spans = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}'
    bodies = {
        "empty spans": lambda: spans % (b"{}," * (nbytes // 3))[:-1],
        "a string": lambda: spans % (b'{"name":"' + b"\\u00e9" * (nbytes // 6) + b'"}'),
        "unknown arrays": lambda: b'{"a":' + b"[" * (nbytes // 2) + b"]" * (nbytes // 2) + b"}",
        "unknown members": lambda: b"{" + b'"a":0,' * (nbytes // 6) + b'"a":0}',
    }
    return repeated(partial(head, content_type="application/json"), bodies[kind](), 0)


def repeated(make_head: Callable[..., bytes], body: bytes, every_s: float, **more: str) -> Run:
    """Send a request again and again, at that interval or when the one before has been answered."""
    whole = make_head(len(body), **more) + body

    def run(port: int, end: float) -> Counter[str]:
        found: Counter[str] = Counter()
        at = time.monotonic()
        with closing(_Client(port)) as client:
            while (now := time.monotonic()) < end:
                found[client.ask(whole)] += 1
                at += every_s
                time.sleep(max(0, at - now) if every_s else 0)
        return found

    return run


class _Client:
    """A connection that is opened again where it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = _connected(port)

    def ask(self, whole: bytes) -> str:
        """Send a request, and return the status of its answer."""
        answer = b""
        try:
            with suppress(ConnectionError):  # the answer may be there all the same
                self._socket.sendall(whole)
            while b"\r\n\r\n" not in answer:
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionError
                answer += data
        except OSError as error:
            self._socket.close()
            self._socket = _connected(self._port)
            return type(error).__name__
        if b"connection: close" in answer.lower():
            self._socket.close()
            self._socket = _connected(self._port)
        return answer[9:12].decode()

    def close(self) -> None:
        self._socket.close()


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)
