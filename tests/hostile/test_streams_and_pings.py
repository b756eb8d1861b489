"""What one connection may have of gRPC core's memory: calls that are reset at once, answers and pings unread.

An attack is a row: bytes that are sent over and over, on a few connections that read nothing. Beside it one client
goes on calling. What is asserted is memory, which must not grow by more than 64 MiB, and that it is served afterwards.
Without the bounds in `grpc_server.py` calls take gigabytes; of pings core bounds the answers by itself. The figures are
printed (pytest -s): memory, the client's 99th percentile and what it was refused meanwhile.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.receive.raw_http2 import END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, Connection
from tests.support.processes import Proxy, until

SECONDS = 5.0
CONNECTIONS = 4
ROOM = 64 << 20
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int) -> bytes:
    def text(string: str) -> bytes:
        return bytes([len(string)]) + string.encode()

    fields = {":method": "POST", ":scheme": "http", ":path": EXPORT, ":authority": "x", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    block = b"".join(b"\x00" + text(name) + text(value) for name, value in fields.items())
    return frame(HEADERS, END_HEADERS, stream, block)


def rapid_reset(first: int) -> bytes:
    """Calls that are begun and reset at once."""
    streams = range(first, first + 2000, 2)
    return b"".join(headers(stream) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8)) for stream in streams)


def calls_without_end(first: int) -> bytes:
    return b"".join(map(headers, range(first, first + 2000, 2)))


def pings(_: int) -> bytes:
    return frame(PING, 0, 0, b"12345678") * 10_000


def settings(_: int) -> bytes:
    return frame(SETTINGS, 0, 0) * 10_000


def attack(port: int, make: Callable[[int], bytes], reads: bool, end: float) -> None:
    """Send it over and over, on a new connection where one is closed or has no stream ids left."""
    parts = [make(1 + 2000 * number) for number in range(100)]
    while time.monotonic() < end:
        with suppress(OSError), Connection(port, patient=True) as connection:
            connection.settimeout(0.2)
            for part in parts:
                rest = memoryview(part)
                while rest and time.monotonic() < end:
                    with suppress(TimeoutError):
                        rest = rest[connection.send_raw(rest) :]
                    if reads:
                        connection.receive_raw()


def until_served(call: Callable[..., bytes]) -> None:
    def is_served() -> bool:
        with suppress(grpc.RpcError):
            call(b"", timeout=60)
            return True
        return False

    until(is_served)


@pytest.mark.parametrize("reads", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("make", [rapid_reset, calls_without_end, pings, settings])
def test_memory_is_bounded(tmp_path: Path, make: Callable[[int], bytes], reads: bool) -> None:
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "admin": {"endpoint": "127.0.0.1:0"},
            "export": [{"name": "file", "protocol": "file", "path": str(tmp_path / "out.jsonl")}],
        },
        tmp_path / "proxy",
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
            call = channel.unary_unary(EXPORT)
            call(b"", timeout=10)
            before = peak = proxy.rss_bytes()
            end = time.monotonic() + SECONDS
            attackers = [
                threading.Thread(target=attack, args=(proxy.port, make, reads, end)) for _ in range(CONNECTIONS)
            ]
            for attacker in attackers:
                attacker.start()
            times: list[float] = []
            refused: Counter[str] = Counter()
            while any(attacker.is_alive() for attacker in attackers):
                begun = time.monotonic()
                try:
                    call(b"", timeout=60)
                    times.append(time.monotonic() - begun)
                except grpc.RpcError as error:
                    refused[error.code().name] += 1
                peak = max(peak, proxy.rss_bytes())
                time.sleep(0.02)
            until_served(call)
            peak = max(peak, proxy.rss_bytes())
    finally:
        proxy.kill()
    p99 = sorted(times)[len(times) * 99 // 100]
    row = f"{make.__name__}, {'read' if reads else 'unread'}"
    print(f"{row}: {before >> 20} MB -> {peak >> 20} MB, p99 {1000 * p99:.0f} ms of {len(times)}", dict(refused))
    assert peak < before + ROOM
    assert set(refused) <= {"UNAVAILABLE"}  # which senders try again
