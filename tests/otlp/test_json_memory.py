"""What the transcoder of OTLP/JSON takes of memory, and what it does where there is none."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from sampler_proxy.otlp.json import json_line
from sampler_proxy.otlp.json_wire import to_wire
from tests.support import nezha


def test_memory_is_bounded_by_the_text() -> None:
    """Beside the text itself, and of ordinary requests less than another one."""
    texts = [json_line(request.SerializeToString()) for request in nezha.load(nezha.TRAIN_TICKET, 10_000)]
    text = max(texts, key=len)
    escaped = b'{"stringValue": "' + b"\\u0041" * 100_000 + b'"}'
    documents: list[tuple[bytes, type[Message]]] = [(text, ExportTraceServiceRequest), (escaped, AnyValue)]
    for document, name in documents:
        to_wire(b"{}", name.DESCRIPTOR.full_name)
        tracemalloc.start()
        try:
            wire = to_wire(document, name.DESCRIPTOR.full_name)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < len(wire) + 1000
        assert peak < 1.2 * len(document)


def test_want_of_memory_is_told() -> None:
    """While the result grows, and before it is begun."""
    script = """
import resource
from opentelemetry.proto.metrics.v1 import metrics_pb2
from sampler_proxy.otlp.json_wire import to_wire

name = "opentelemetry.proto.metrics.v1.HistogramDataPoint"
text = b'{"bucketCounts":[' + b"0," * (20 << 20) + b"0]}"
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
for room in (60 << 20, 10 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
    try:
        to_wire(text, name, 1 << 40)
    except MemoryError:
        print("told")
print(to_wire(b'{"sum": 0}', name))
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["told", "told", r"b')\x00\x00\x00\x00\x00\x00\x00\x00'"]
