"""A buffer that may take more than the system gives: the process lives, senders are told to wait, and nothing that is
kept is lost."""

from __future__ import annotations

import gzip
import http.client
import re
import resource
import signal
import sys
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import reference
from tests.support.processes import Proxy, Scraper, free_port, until
from tests.support.sink import Sink, serve
from tests.system.traffic import EXPORT, Flood, add_trace, has_error, kept_span_ids

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
        limit=(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)),
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


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited as Linux does it")
def test_less_memory_than_the_buffer_may_take_over_http(sink: Sink, tmp_path: Path) -> None:
    """Every request is answered and counted, in gzip, too, which takes memory before anything is scanned."""
    proxy = Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": {"endpoint": "127.0.0.1:0"}},
            "buffer": {"decision_wait": "10m", "decision_wait_after_root": "10m", "max_bytes": "1GiB"},
            "rules": [{"name": "rest", "keep": "1%"}],
            "export": [{"name": "sink", "endpoint": sink.endpoint}],
            "admin": {"endpoint": "127.0.0.1:0"},
        },
        tmp_path,
        limit=(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)),
    )
    template, ids = requests(Random(5))
    statuses: Counter[int] = Counter()

    def send(seed: int) -> None:
        random = Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=60)
        for number in range(FLOOD // IN_FLIGHT // len(template)):
            data = template
            for old in ids:
                data = data.replace(old, random.randbytes(16))
            headers = {"Content-Type": "application/x-protobuf"}
            if number % 2:
                data = gzip.compress(data, 1)
                headers["Content-Encoding"] = "gzip"
            connection.request("POST", "/v1/traces", data, headers)
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        connection.close()

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(send, range(IN_FLIGHT)))
    assert proxy.running, proxy.stderr()
    assert set(statuses) <= {200, 503}, statuses
    metrics = proxy.metrics()
    assert metrics.total("requests_received_total") == sum(statuses.values())
    assert metrics.total("requests_refused_total") == statuses[503]
    assert set(metrics.by("requests_refused_total", "reason")) <= {"memory", "out_of_memory"}
    assert proxy.terminate() == 0, proxy.stderr()
    assert "Traceback" not in proxy.stderr()
    assert "internal" not in proxy.stderr()


POISON = "poisoned"


class Moody:
    """A back end that is overloaded now and then, refuses what is poisoned, and has gRPC's limit of 4 MiB."""

    def __init__(self) -> None:
        self.spans: Counter[bytes] = Counter()
        self.calls = 0
        self.server, self.port = serve(self.take, max_receive_bytes=4 * MIB)

    def take(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        if self.calls % 7 == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the memory limiter")
        if POISON.encode() in data:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        self.spans.update(one.span.span_id for one in reference.seen(ExportTraceServiceRequest.FromString(data)))
        return b""


def made(random: Random) -> ExportTraceServiceRequest:
    """Build a request of 800 kB; of fifty, one has a trace of 6 MB, and one has a poisoned trace."""
    request = ExportTraceServiceRequest()
    for _ in range(40):
        add_trace(request, random, spans=10, error=random.random() < 0.1, rooted=random.random() < 0.5, fill=1900)
    if random.random() < 0.02:
        add_trace(request, random, spans=20, error=True, fill=300_000)
    if random.random() < 0.02:
        add_trace(request, random, spans=3, error=True)
        request.resource_spans[0].scope_spans[0].spans[-1].name = POISON
    return request


def told(proxy: Proxy, pattern: str) -> int:
    """The sum of the spans in all log lines of this form."""
    matches = (re.fullmatch(pattern, line["event"]) for line in proxy.log())
    return sum(int(match[1]) for match in matches if match)


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited as Linux does it")
def test_a_dead_destination_that_drops_beside_a_moody_one_in_little_memory(tmp_path: Path) -> None:
    """The stop comes in the middle of a flood. What was acknowledged and is kept has arrived, or is named as rejected;
    and what one destination has taken or rejected is as much as the other has dropped or lost."""

    live = Moody()
    dead = {"name": "dead", "endpoint": f"http://127.0.0.1:{free_port()}"}
    retry = {"initial": "50ms", "max": "500ms"}
    settings = {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
        "buffer": {"decision_wait": "2s", "decision_wait_after_root": "1s", "max_bytes": "1GiB"},
        "rules": [
            {"name": "errors", "match": "{ status = error }", "keep": "all"},
            {"name": "rest", "keep": "1%"},
        ],
        "export": [
            {"name": "live", "endpoint": f"http://127.0.0.1:{live.port}", "retry": retry},
            {**dead, "queue": {"max_bytes": "8MiB", "when_full": "drop"}},
        ],
        "admin": {"endpoint": "127.0.0.1:0"},
        "shutdown_timeout": "6s",
    }
    proxy = Proxy(settings, tmp_path, limit=(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)))
    scraper = Scraper(proxy)
    flood = Flood(proxy.port, made, senders=2, cancels=True)
    proxy.await_metrics(
        lambda m: (
            m.total("spans_lost_total", destination="dead", reason="queue_full") > 1000
            and m.total("spans_rejected_total", destination="live") >= 3
            and m.total("spans_exported_total", destination="live") > 20_000
        ),
        120,
    )
    proxy.signal(signal.SIGTERM)
    proxy.await_event("stopping: no new requests")
    acknowledged = flood.stop()
    assert proxy.wait(60) == 3, proxy.stderr()  # kept spans were lost
    scraper.stop()
    live.server.stop(None).wait(10)
    kept = kept_span_ids(acknowledged, has_error)
    poisoned = kept_span_ids(acknowledged, lambda trace: any(one.span.name == POISON for one in trace))
    rejected = told(proxy, r"export live: (\d+) spans rejected: INVALID_ARGUMENT.*")
    assert kept - poisoned <= set(live.spans)
    assert not poisoned & set(live.spans)
    assert rejected >= len(poisoned)
    dropped = told(proxy, r"export dead: (\d+) spans dropped: .*")
    lost = told(proxy, r"export dead: (\d+) spans lost at shutdown")
    assert live.spans.total() + rejected == dropped + lost
    assert told(proxy, r"stopped: \d+ spans sent, (\d+) lost in .*") == lost
    assert "internal" not in proxy.stderr()
