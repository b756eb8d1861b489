"""The back end: an OTLP/gRPC server that accepts everything, and says afterwards what it got.

While it receives it only keeps the requests' bytes (gRPC has undone their gzip), so that it takes little of the core it
shares with the sender; spans are counted when asked for. So it holds all it got since the last tally in memory: the few
percent that a sampler lets through, or everything, where what is measured does not sample.

Logs are taken, too, and counted in requests and bytes.

It prints `{"ready": "HOST:PORT"}`, then answers each line it reads with a line of JSON, until its input ends:
    count   {"requests": …, "bytes": …}         so far; cheap
    tally   {"requests": …, "bytes": …, "spans": …, "duplicates": …, "traces": {"HEX ID": SPANS, …}}; forgets all;
            duplicates are spans whose trace and span ids had come before; they are not counted in `traces`
    forget  {}                                  forgets all

usage: python -m benchmarks.sink [--listen 127.0.0.1:0]
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_THREADS = 4


class Sink:
    """The requests received since the last tally."""

    def __init__(self) -> None:
        self._received: list[bytes] = []

    def export(self, request: bytes, _: Any) -> bytes:
        self._received.append(request)
        return b""

    def count(self) -> dict[str, Any]:
        received = self._received.copy()
        return {"requests": len(received), "bytes": sum(map(len, received))}

    def forget(self) -> dict[str, Any]:
        self._received = []
        return {}

    def tally(self) -> dict[str, Any]:
        received, self._received = self._received, []
        size = sum(map(len, received))
        seen: set[bytes] = set()
        traces: collections.Counter[bytes] = collections.Counter()
        spans = 0
        for message in received:
            for resource_spans in ExportTraceServiceRequest.FromString(message).resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    spans += len(scope_spans.spans)
                    for span in scope_spans.spans:
                        key = span.trace_id + span.span_id
                        if key not in seen:
                            seen.add(key)
                            traces[span.trace_id] += 1
        return {
            "requests": len(received),
            "bytes": size,
            "spans": spans,
            "duplicates": spans - len(seen),
            "traces": {trace_id.hex(): count for trace_id, count in traces.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.sink", description="Accept spans and count them.")
    parser.add_argument("--listen", default="127.0.0.1:0")
    listen = parser.parse_args().listen
    sink = Sink()
    handler = grpc.unary_unary_rpc_method_handler(sink.export)
    services = (f"opentelemetry.proto.collector.{name}" for name in ("trace.v1.TraceService", "logs.v1.LogsService"))
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        handlers=[grpc.method_handlers_generic_handler(service, {"Export": handler}) for service in services],
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    port = server.add_insecure_port(listen)
    server.start()
    print(json.dumps({"ready": f"{listen.rpartition(':')[0]}:{port}"}), flush=True)
    answers = {"count": sink.count, "tally": sink.tally, "forget": sink.forget}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)
    server.stop(None).wait()


if __name__ == "__main__":
    main()
