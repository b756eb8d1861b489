"""A request for which the system has no memory: refused, to be sent again; counted as it was filed; nothing leaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampler_proxy import metrics
from sampler_proxy.otlp.fragments import KeptTrace
from tests.pipeline.driver import SECOND, WAIT_AFTER_ROOT, Destination, Driver
from tests.pipeline.test_late import CHILD, HIGH, ROOT, driver_of, leaving, revived, send
from tests.rules.conformance.traces import ERROR, TRACE_ID, span

TOP = Path(__file__).parent.parent.parent

PROGRAM = r"""
import gc, resource, sys
from random import Random
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sampler_proxy import metrics
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config
from sampler_proxy.errors import OutOfMemory, Overloaded
from sampler_proxy.pipeline.pipeline import Pipeline

loaded = load_config(Config())
pipeline = Pipeline(
    rules=([rule.name for rule in loaded.config.rules], [0.0] * len(loaded.config.rules), loaded.compiled),
    destinations=[], max_bytes=1 << 40, max_trace_bytes=1 << 40, wait_ns=1 << 60, wait_after_root_ns=1 << 60,
    decision_memory_bytes=1 << 16, stamp_decision=False, stamp_adjusted_count=False, seed=1,
)
intake = pipeline.intake("grpc")
random = Random(7)

def made(traces, header=b""):
    request = ExportTraceServiceRequest()
    for number in range(traces):
        scopes = request.resource_spans.add()
        scopes.resource.attributes.add(key="n").value.bytes_value = random.randbytes(8) + header  # no header twice
        span = scopes.scope_spans.add().spans.add(trace_id=random.randbytes(16), span_id=b"12345678", name="x")
        span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
    return request.SerializeToString()

def limit(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, HARD))

def values(now_ns):
    with pipeline.lock:
        return pipeline.instant(now_ns).values()

def outcome(request):
    try:
        intake.accept(request, 1)
        pipeline.finish()
    except (OutOfMemory, Overloaded, MemoryError) as error:
        return type(error).__name__
    return "taken"

HARD = resource.getrlimit(resource.RLIMIT_AS)[1]
THREE_QUARTERS = 49152  # of the buffer's table, which then has to grow to 2 MiB
request = {"filing": made(400), "header": made(1, bytes(600_000)), "scan": made(1, bytes(4_000_000))}[sys.argv[1]]
while (left := THREE_QUARTERS - pipeline.buffer.traces) > 100:
    intake.accept(made(min(left - 100, 5000)), 1)
before, in_use = values(1)[metrics.SPANS_RECEIVED]["grpc",], values(1)[metrics.BUFFER_BYTES][()]
gc.collect()
limit(1 << 20)
first, bound = outcome(request), pipeline.max_bytes
resource.setrlimit(resource.RLIMIT_AS, (HARD, HARD))
assert first == sys.argv[2], first
assert 1 << 24 <= bound <= max(1 << 24, 0.81 * in_use), (bound, in_use)
filed = values(1)[metrics.SPANS_RECEIVED]["grpc",] - before  # the sender will make duplicates of them
assert filed == (100 if sys.argv[1] == "filing" else 0), filed
tries = 1
while (again := outcome(request)) == "Overloaded":  # until the oldest traces have been decided
    tries += 1
now = values(1)
assert again == "taken"
taken = before + filed + (400 if sys.argv[1] == "filing" else 1)
refused = dict(now[metrics.REQUESTS_REFUSED])
assert refused.pop(("grpc", "out_of_memory"), 0) == (1 if first == "OutOfMemory" else 0)
assert refused.pop(("grpc", "memory"), 0) == tries - 1 and not refused
assert now[metrics.SPANS_RECEIVED]["grpc",] == taken
assert now[metrics.BUFFER_SPANS][()] + sum(now[metrics.SPANS_SAMPLED_OUT].values()) == taken
assert now[metrics.BUFFER_MAX_BYTES][()] == pipeline.max_bytes == bound >= now[metrics.BUFFER_BYTES][()]
while pipeline.drain(2):
    pass
now = values(3)
assert sum(now[metrics.SPANS_SAMPLED_OUT].values()) == taken
assert (len(pipeline.envelopes), now[metrics.BUFFER_SPANS][()]) == (0, 0)
"""


@pytest.mark.parametrize(
    ("while_", "outcome"), [("filing", "OutOfMemory"), ("header", "OutOfMemory"), ("scan", "MemoryError")]
)
def test_nothing_leaks_and_the_ledger_holds_when_memory_runs_out(while_: str, outcome: str) -> None:
    """In a process of its own, whose memory is limited: while a request's spans are filed (the first hundred are, and
    count), while its header is, and while it is scanned. The bound of the buffer is lowered each time."""
    # Without a fixed threshold the allocator may serve large blocks from what was freed before.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", PROGRAM, while_, outcome]
    done = subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


class Failing(Destination):
    failing = False

    def offer(self, trace: KeptTrace) -> bool:
        if self.failing:
            raise MemoryError
        return super().offer(trace)


LATE = span("late", parent="root", status=ERROR)
LIMIT = (1000.0, "spans", 0.2)


def late_without_memory(driver: Driver, destination: Failing, at_ns: int, trace: bytes) -> None:
    """Send an error while the destination has no memory: taken, and finished once there is memory."""
    buffered = driver.total(metrics.BUFFER_SPANS)
    destination.failing = True
    send(driver, [LATE], at_ns, trace)
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) > buffered
    destination.failing = False


def test_a_late_span_waits_for_memory() -> None:
    destination = Failing()
    driver = driver_of(destinations=[destination])
    send(driver, [ROOT, CHILD], 0)
    driver.tick(WAIT_AFTER_ROOT)
    late_without_memory(driver, destination, 7 * SECOND, TRACE_ID)
    assert driver.pipeline.in_backlog(TRACE_ID) == [True]
    destination.failing = True
    with pytest.raises(MemoryError):
        driver.tick(8 * SECOND)
    destination.failing = False
    driver.tick(9 * SECOND)
    assert [letters for letters, *_ in leaving(driver)] == ["late"]
    assert (revived(driver), driver.total(metrics.LATE_SPANS)) == ({"errors": 1}, 1)
    assert driver.pipeline.in_backlog(TRACE_ID) == [False]
    driver.check_ledger()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("then", ["drain", "again", "no limit"])
def test_a_trace_of_the_limits_windows_waits_for_memory(closed: bool, then: str) -> None:
    """It leaves the window for a late error, whose rule keeps everything, and stays in the line until there is
    memory."""
    destination = Failing()
    driver = driver_of(
        [("errors", "{ status = error }", None, 1.0), ("baseline", None, None, 0.01)],
        limit=LIMIT,
        destinations=[destination],
    )
    other = bytes(8) + HIGH[8:]
    for trace in (HIGH, other):
        send(driver, [ROOT, CHILD], 0, trace)
    driver.tick(WAIT_AFTER_ROOT)
    at = WAIT_AFTER_ROOT + 1
    if closed:
        at = WAIT_AFTER_ROOT + SECOND
        driver.pipeline.tick(at, 1)  # one of both leaves
        assert len(destination.traces) == 1
    waiting = [trace for trace in (HIGH, other) if driver.pipeline.find(trace, at)["state"] == "buffered"]
    assert len(waiting) == (1 if closed else 2)
    for trace in waiting:
        late_without_memory(driver, destination, at, trace)
        assert driver.pipeline.find(trace, at)["state"] == "decided"
    if then == "no limit":
        driver.pipeline.replace_limit(None)
        for seconds in range(1, 5):
            driver.tick(at + seconds * SECOND)
        assert driver.pipeline.limit is None
    if then != "drain":
        for trace in waiting:
            send(driver, [LATE], at + 9 * SECOND if then == "no limit" else at, trace)
    assert revived(driver) == {"errors": len(waiting)}
    driver.pipeline.close()
    assert not all(driver.pipeline.drain(at + 10 * SECOND, hurry=True) for _ in range(1000))
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0
    assert len(leaving(driver)) == 4 + len(waiting) * (2 if then != "drain" else 1)


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("full", [None, 0, 1, 2])
def test_one_of_several_destinations_without_memory(failing: int, full: int | None) -> None:
    """Each gets the trace once, and the ledger and the backlog's bytes come out even."""
    destinations = [Failing() for _ in range(3)]
    driver = driver_of([("all", None, None, 1.0)], destinations=destinations)
    empty = driver.total(metrics.BUFFER_BYTES)
    if full is not None:
        destinations[full].room = 0
    destinations[failing].failing = True
    send(driver, [ROOT, CHILD], 0)
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 2  # until every destination has it
    for destination in destinations:
        destination.failing, destination.room = False, None
    driver.tick(WAIT_AFTER_ROOT)
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0
    assert driver.total(metrics.BUFFER_BYTES) <= empty + 1024
    assert [len(destination.traces) for destination in destinations] == [1, 1, 1]
