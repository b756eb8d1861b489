"""Attacks by connection. Each function prepares its bytes and returns what sends them: run(port, end) works until that
time and returns what came of it."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial

from tests.hostile.http2 import INITIAL_WINDOW_SIZE, Client, headers
from tests.receive.raw_http2 import CONTINUATION, DATA, PING, RST_STREAM, SETTINGS, frame, message

Run = Callable[[int, float], Counter[str]]
STREAMS = 1000  # a part of a flood


def each_again(count: int, work: Callable[[float], Counter[str]], end: float) -> Counter[str]:
    """Work so often at once, each again and again until the time is over."""
    found: Counter[str] = Counter()

    def repeat() -> None:
        while time.monotonic() < end:
            with suppress(OSError):
                found.update(work(end))
            time.sleep(0.01)

    threads = [threading.Thread(target=repeat) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def endless(connections: int, calls: int, announce: int, size: int) -> Run:
    """Calls whose messages stop after `size` of the `announce` bytes."""
    whole = message(bytes(size), announce=announce)

    def one(port: int, end: float) -> Counter[str]:
        with closing(Client(port)) as client:
            for _ in range(calls):
                client.start(whole, endless=True)
            client.run(end)
            return client.statuses

    return lambda port, end: each_again(connections, partial(one, port), end)


def flood(make: Callable[[int], bytes], reads: bool, connections: int = 4, settings: bytes = b"") -> Run:
    """`make(first stream)` over and over, anew where a connection is closed or has no stream ids left."""
    parts = [make(1 + 2 * STREAMS * number) for number in range(50)]

    def one(port: int, end: float) -> Counter[str]:
        with closing(Client(port, settings)) as client:
            for part in parts:
                if not client.flood(part, end, reads=reads):
                    break
            return Counter({"connections": 1})

    return lambda port, end: each_again(connections, partial(one, port), end)


def _streams(first: int) -> Iterator[int]:
    return iter(range(first, first + 2 * STREAMS, 2))


def resets(first: int) -> bytes:
    """Calls that are begun and reset at once."""
    return b"".join(headers(n) + frame(RST_STREAM, 0, n, struct.pack(">I", 8)) for n in _streams(first))


def begun(first: int) -> bytes:
    """Calls of which no more comes."""
    return b"".join(map(headers, _streams(first)))


def empty(first: int) -> bytes:
    """Whole calls, each with an empty request, which is answered with OK."""
    return b"".join(headers(n) + frame(DATA, 1, n, message(b"")) for n in _streams(first))


def pings(_: int) -> bytes:
    return frame(PING, 0, 0, b"12345678") * 10_000


def settings(_: int) -> bytes:
    return frame(SETTINGS, 0, 0) * 10_000


def continuations(first: int) -> bytes:
    """Headers that never end."""
    return headers(first, end=False) + frame(CONTINUATION, 0, first, b"\x00\x01a\x01b" * 2000) * 20


CLOSED = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)


def idle(connections: int) -> Run:
    """Connections on which nothing comes behind the first SETTINGS."""

    def run(port: int, end: float) -> Counter[str]:
        clients: list[Client] = []
        with suppress(OSError):
            for _ in range(connections):
                clients.append(Client(port))
                clients[-1].flood(b"", end, reads=False)
        time.sleep(max(0, end - time.monotonic()))
        for client in clients:
            client.close()
        return Counter({"connections": len(clients)})

    return run
