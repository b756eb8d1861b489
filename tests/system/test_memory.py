"""The bound of the buffer bounds the process: traces that never end fill it many times over, and nobody is refused."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from random import Random

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import Proxy
from tests.support.sink import Sink
from tests.system.traffic import EXPORT, add_trace

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
    requests = Requests(Random(5))
    base = proxy.rss_bytes()
    peak, sent = base, 0
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(EXPORT)
        flying: deque[grpc.Future] = deque()
        while sent < FLOOD or flying:
            while sent < FLOOD and len(flying) < IN_FLIGHT:
                data = requests.next()
                flying.append(call.future(data, timeout=30))
                sent += len(data)
            assert flying.popleft().result() == b""  # raises where it was refused
            peak = max(peak, proxy.rss_bytes())
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
    assert proxy.terminate() == 0
    assert sum(len(trace) for trace in sink.traces.values()) % 20 == 0
