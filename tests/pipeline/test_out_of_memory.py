"""A request for which the system has no memory: refused, to be sent again; counted as it was filed; nothing leaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PROGRAM = r"""
import gc, resource, sys
from random import Random
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sampler_proxy import metrics
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config
from sampler_proxy.errors import OutOfMemory
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
        return pipeline.snapshot(now_ns)

def outcome(request):
    try:
        intake.accept(request, 1)
    except (OutOfMemory, MemoryError) as error:
        return type(error).__name__
    return "taken"

HARD = resource.getrlimit(resource.RLIMIT_AS)[1]
THREE_QUARTERS = 49152  # of the buffer's table, which then has to grow to 2 MiB
many, large = [made(400) for _ in range(2)], made(1, bytes(600_000))
scan_only = made(1, bytes(4_000_000))
while (left := THREE_QUARTERS - pipeline.buffer.traces) > 100:
    intake.accept(made(min(left - 100, 5000)), 1)
gc.collect()
limit(1 << 20)
outcomes = {
    "filing": [outcome(request) for request in many],
    "header": outcome(large),
    "scan": outcome(scan_only),
    "afterwards": None,
}
resource.setrlimit(resource.RLIMIT_AS, (HARD, HARD))
outcomes["afterwards"] = [outcome(request) for request in (*many, large, scan_only)]
now = values(1)
taken = THREE_QUARTERS + 800 + 2
assert outcomes == {
    "filing": ["OutOfMemory"] * 2, "header": "OutOfMemory", "scan": "MemoryError", "afterwards": ["taken"] * 4
}, outcomes
assert now[metrics.SPANS_RECEIVED]["grpc",] == now[metrics.BUFFER_SPANS][()] == taken, now
assert now[metrics.REQUESTS_REFUSED] == {("out_of_memory",): 3}
while pipeline.drain(2):
    pass
now = values(3)
assert sum(now[metrics.SPANS_SAMPLED_OUT].values()) == taken
assert (len(pipeline.envelopes), now[metrics.BUFFER_SPANS][()]) == (0, 0)
"""


def test_nothing_leaks_and_the_ledger_holds_when_memory_runs_out() -> None:
    """In a process of its own, whose memory is limited: while a request's spans are filed (the first hundred are, and
    count), while its header is, and while it is scanned."""
    # Without a fixed threshold the allocator may serve large blocks from what was freed before.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
