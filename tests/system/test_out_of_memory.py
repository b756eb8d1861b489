"""A buffer that may take more than the system gives: the process lives, senders are told to wait, and nothing that is
kept is lost."""

from __future__ import annotations

import resource
import sys
from collections import Counter, deque
from pathlib import Path
from random import Random

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import Proxy, until
from tests.support.sink import Sink
from tests.system.traffic import EXPORT, add_trace

MIB = 1 << 20
ADDRESS_SPACE = 520_000 * 1024
FLOOD = 400 * MIB
IN_FLIGHT = 8


def requests(random: Random) -> tuple[bytes, list[bytes]]:
    """Build a request of 50 traces of 10 spans of 2 kB, the first of them with an error; and the trace ids."""
    request = ExportTraceServiceRequest()
    ids = [add_trace(request, random, spans=10, error=n == 0, rooted=False, fill=1900) for n in range(50)]
    return request.SerializeToString(), ids


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited as Linux does it")
def test_less_memory_than_the_buffer_may_take(sink: Sink, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "buffer": {"decision_wait": "10m", "decision_wait_after_root": "10m", "max_bytes": "1GiB"},
            "rules": [
                {"name": "errors", "match": "{ status = error }", "keep": "all"},
                {"name": "rest", "keep": "1%"},
            ],
            "export": [{"name": "sink", "endpoint": sink.endpoint}],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
        preexec_fn=limit,
    )
    warned = proxy.await_event("memory: ulimit -v leaves room for ")
    assert "set buffer.max_bytes to" in warned["event"]
    random = Random(5)
    template, ids = requests(random)
    answers: Counter[str] = Counter()
    accepted: list[bytes] = []
    sent = 0
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(EXPORT)
        flying: deque[tuple[bytes, grpc.Future]] = deque()
        while sent < FLOOD or flying:
            while sent < FLOOD and len(flying) < IN_FLIGHT:
                data = template
                fresh = [random.randbytes(16) for _ in ids]
                for old, new in zip(ids, fresh, strict=True):
                    data = data.replace(old, new)
                flying.append((fresh[0], call.future(data, timeout=60)))
                sent += len(data)
            first, future = flying.popleft()
            answers[future.code().name] += 1
            if future.code() is grpc.StatusCode.OK:
                accepted.append(first)
    assert proxy.running, proxy.stderr()
    assert set(answers) <= {"OK", "UNAVAILABLE"}, answers
    proxy.await_event("out of memory: the buffer is bounded by ")
    metrics = proxy.metrics()
    assert 16 * MIB <= metrics.total("buffer_max_bytes") < 400 * MIB
    assert set(metrics.by("requests_refused_total", "reason")) <= {"memory", "out_of_memory"}
    assert metrics.total("requests_received_total") == sum(answers.values())
    assert metrics.total("requests_refused_total") == answers["UNAVAILABLE"]
    assert metrics.by("traces_decided_total", "reason")["memory"] > 0
    assert answers["OK"] > FLOOD // len(template) // 2
    until(lambda: proxy.metrics().total("buffer_bytes") <= proxy.metrics().total("buffer_max_bytes"))
    assert not proxy.metrics().unbalanced()
    assert proxy.terminate() == 0, proxy.stderr()
    assert set(accepted) <= set(sink.traces)
    assert "internal" not in proxy.stderr()
