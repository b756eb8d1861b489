"""Measures the transcoder of OTLP/JSON by plain calls: microseconds per span, from JSON text to protobuf.

usage: python -m benchmarks.json_wire [--rounds N] [--spans N]

The corpus is the other benchmarks' (corpus.py): spans of 440 bytes as protobuf with 11 attributes, some 950 as JSON.
The goal is 12 µs per span. Official: protobuf's own conversion of the same texts, for comparison; its ids would be
wrong, since it reads Base64. Every round is measured beside a calibration (calibrate.py); the best is scaled by the
best calibration of all, which can only overstate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import corpus
from benchmarks.calibrate import calibrate
from sampler_proxy.otlp.json import json_line
from sampler_proxy.otlp.json_wire import to_wire

decode = ExportTraceServiceRequest.FromString
NAME = ExportTraceServiceRequest.DESCRIPTOR.full_name
SHAPES = (512, 8)  # spans a request


def native(text: bytes) -> bytes:
    return to_wire(text, NAME)


def official(text: bytes) -> ExportTraceServiceRequest:
    return Parse(text, ExportTraceServiceRequest())


def us_per_span(texts: list[bytes], spans: int, read: Callable[[bytes], object]) -> float:
    start = time.perf_counter()
    for text in texts:
        read(text)
    return (time.perf_counter() - start) / spans * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.json_wire", description="Microseconds per span.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=20_000)
    arguments = parser.parse_args()
    speeds: list[float] = []
    times: dict[str, list[float]] = {}
    for shape in SHAPES:
        requests = list(corpus.generate(corpus.Corpus(arguments.spans, 20, shape, seed=1)))
        texts = [json_line(message) for message, _ in requests]
        for (message, _), text in zip(requests, texts, strict=True):
            if ExportTraceServiceRequest.FromString(to_wire(text, NAME)) != ExportTraceServiceRequest.FromString(
                message
            ):
                raise SystemExit("what was read is not what was written")
        few = texts[: max(1, len(texts) // 10)]
        spans_of_few = sum(spans for _, spans in requests[: len(few)])
        for _ in range(arguments.rounds):
            speeds.append(calibrate())
            for name, each, spans, read in (
                (f"to_wire, {shape} spans a request", texts, arguments.spans, native),
                (
                    f"official, {shape} spans a request",
                    few,
                    spans_of_few,
                    official,
                ),
            ):
                times.setdefault(name, []).append(us_per_span(each, spans, read))
    print(f"speed of this machine {min(speeds):.2f} to {max(speeds):.2f} of the reference\n")
    print("| work | µs per span on the reference, best | rounds |\n|---|---|---|")
    for name, found in times.items():
        scaled = [each * max(speeds) for each in found]
        print(f"| {name} | {min(scaled):.2f} | {' '.join(f'{each:.2f}' for each in scaled)} |")


if __name__ == "__main__":
    main()
