"""The bound of the buffer bounds the process: traces that never end fill it many times over, and nobody is refused.

The log says when it is full and when no longer; memory that is free again goes back to the system.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import Proxy, free_port, until
from tests.support.sink import Sink
from tests.system.traffic import EXPORT, Client, add_trace

MIB = 1 << 20
BOUND = 32 * MIB
FLOOD = 300 * MIB
IN_FLIGHT = 8


class Requests:
    """The same request of 25 traces of 20 spans of about 440 bytes again and again, each time with other trace ids."""

    def __init__(self, random: Random) -> None:
        request = ExportTraceServiceRequest()
        self._random = random
        self._ids = [add_trace(request, random, spans=20, rooted=False, fill=340) for _ in range(25)]
        self._data = request.SerializeToString()

    def next(self) -> bytes:
        data = self._data
        for old in self._ids:
            data = data.replace(old, self._random.randbytes(16))
        return data


def flood(proxy: Proxy, size: int) -> int:
    """Send so many bytes; returns the most resident memory that was seen meanwhile."""
    requests = Requests(Random(5))
    peak = sent = 0
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(EXPORT)
        flying: deque[grpc.Future] = deque()
        while sent < size or flying:
            while sent < size and len(flying) < IN_FLIGHT:
                data = requests.next()
                flying.append(call.future(data, timeout=30))
                sent += len(data)
            assert flying.popleft().result() == b""  # raises where it was refused
            peak = max(peak, proxy.rss_bytes())
    return peak


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_stays_bounded_and_nobody_is_refused(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "buffer": {
                "decision_wait": "10m",
                "decision_wait_after_root": "10m",
                "max_bytes": BOUND,
                "max_trace_bytes": "8MiB",
            },
            "export": [{"name": "sink", "endpoint": sink.endpoint}],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
    )
    base = proxy.rss_bytes()
    peak = flood(proxy, FLOOD)
    metrics = proxy.metrics()
    assert metrics.total("requests_refused_total") == 0
    assert metrics.total("buffer_bytes") <= BOUND
    assert metrics.total("buffer_bytes") > 0.9 * BOUND
    decided = metrics.by("traces_decided_total", "reason")
    traces = metrics.total("requests_received_total") * 25
    assert decided == {"memory": traces - metrics.total("buffer_traces")}
    assert decided["memory"] > 0.8 * traces
    assert not metrics.unbalanced()
    assert peak - base < 1.5 * BOUND + 8 * MIB, f"base {base / MIB:.1f} MiB, peak {peak / MIB:.1f} MiB"
    full = proxy.await_event("memory: the buffer is full: traces are decided early; traces are held for ")["event"]
    assert "s now instead of up to 10m. Raise buffer.max_bytes" in full
    assert proxy.terminate() == 0
    begun, over = [entry["event"] for entry in proxy.log() if entry["event"].startswith("memory: ")]
    assert begun == full
    counted = rf"{decided['memory']} traces decided early, 0 requests refused"
    assert re.fullmatch(rf"memory: the buffer was full until the stop, for \d+ s: {counted}", over)
    assert sum(len(trace) for trace in sink.traces.values()) % 20 == 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc gives free memory back")
def test_memory_that_is_free_again_goes_back_to_the_system(tmp_path: Path) -> None:
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "buffer": {"decision_wait": "8s"},
            "rules": [{"name": "nothing", "keep": "none"}],
            "export": [{"name": "file", "protocol": "file", "path": str(tmp_path / "out")}],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
    )
    base = proxy.rss_bytes()
    flood(proxy, 150 * MIB)
    full = proxy.rss_bytes()
    assert full > base + 130 * MIB
    until(lambda: proxy.rss_bytes() < base + 40 * MIB, 60, lambda: f"{proxy.rss_bytes() / MIB:.0f} MiB")
    assert proxy.metrics().total("buffer_traces") == 0


def test_senders_that_are_refused_are_told_of(tmp_path: Path, client: Callable[..., Client]) -> None:
    """Nobody takes what is kept, so that deciding early makes no room; in the end somebody does."""
    port = free_port()
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "buffer": {"max_bytes": "1MiB", "max_trace_bytes": "256KiB"},
            "rules": [
                {"name": "all of them", "match": "{} | count() < 1000", "keep": "all"},
                {"name": "r", "keep": "none"},
            ],
            "export": [
                {
                    "name": "sink",
                    "endpoint": f"http://127.0.0.1:{port}",
                    "queue": {"max_bytes": "64KiB"},
                    "retry": {"initial": "100ms", "max": "500ms"},
                }
            ],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
    )
    requests, sender = Requests(Random(6)), client(proxy.port)

    def fill() -> None:
        for _ in range(1000):
            sender.export(requests.next())

    with pytest.raises(grpc.RpcError, match="the buffer is full"):
        fill()
    proxy.await_event("senders are refused, to send again; ")
    sink = Sink(port)
    try:
        over = proxy.await_event("memory: the buffer has room again", 60)["event"]
        decided = proxy.metrics().by("traces_decided_total", "reason")
        assert over.partition(" s: ")[2] == f"{decided['memory']} traces decided early, 1 request refused"
        assert len([entry for entry in proxy.log() if "the buffer is full" in entry["event"]]) == 1
    finally:
        sink.stop()
