"""Recorded traces of two microservice systems as OTLP requests.

Source: the Nezha data set (IntelligentDDS, MIT License, see tests/data/nezha/LICENSE), one minute each of
`2022-08-23-12_18` (OnlineBoutique: 495 traces, 23,444 spans) and `2023-01-29-08_43` (TrainTicket: 53 traces, 4,445
spans), as CSV: TraceID, SpanID, ParentID ("root" for none), PodName, OperationName, StartTimeUnixNano, EndTimeUnixNano,
Duration (µs). Every trace has one root, every parent is there.

What is recorded: ids, names, times, and the pod (resource attribute `k8s.pod.name`). What was added:
  service.name  the pod's name without its last two parts (the ids of replica set and pod)
  kind          SERVER for a root and for a span whose parent is of another pod, INTERNAL for all others
  scope         named "nezha"
  status        none; `add_errors` sets some
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

FOLDER = Path(__file__).parent.parent / "data" / "nezha"
ONLINE_BOUTIQUE = "2022-08-23-12_18"
TRAIN_TICKET = "2023-01-29-08_43"


def load(recording: str, spans_per_request: int = 100) -> list[ExportTraceServiceRequest]:
    """Build the requests as the exporters of the pods would have sent them: one pod each, spans as they ended, at most
    `spans_per_request`, ordered by the end of the last span in them."""
    with gzip.open(FOLDER / f"{recording}_trace.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    pod_of = {(row["TraceID"], row["SpanID"]): row["PodName"] for row in rows}
    by_pod: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: int(row["EndTimeUnixNano"])):
        by_pod.setdefault(row["PodName"], []).append(row)
    sent: list[tuple[int, ExportTraceServiceRequest]] = []
    for pod, ended in by_pod.items():
        for at in range(0, len(ended), spans_per_request):
            batch = ended[at : at + spans_per_request]
            sent.append((int(batch[-1]["EndTimeUnixNano"]), _request(pod, batch, pod_of)))
    return [request for _, request in sorted(sent, key=lambda pair: pair[0])]


def _request(pod: str, batch: list[dict[str, str]], pod_of: dict[tuple[str, str], str]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    for key, value in (("service.name", pod.rsplit("-", 2)[0]), ("k8s.pod.name", pod)):
        resource_spans.resource.attributes.add(key=key).value.string_value = value
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "nezha"
    for row in batch:
        parent = "" if row["ParentID"] == "root" else row["ParentID"]
        scope_spans.spans.add(
            trace_id=bytes.fromhex(row["TraceID"]),
            span_id=bytes.fromhex(row["SpanID"]),
            parent_span_id=bytes.fromhex(parent),
            name=row["OperationName"],
            kind=Span.SPAN_KIND_INTERNAL if pod_of.get((row["TraceID"], parent)) == pod else Span.SPAN_KIND_SERVER,
            start_time_unix_nano=int(row["StartTimeUnixNano"]),
            end_time_unix_nano=int(row["EndTimeUnixNano"]),
        )
    return request


def spans(requests: Sequence[ExportTraceServiceRequest]) -> Iterator[Span]:
    for request in requests:
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                yield from scope_spans.spans


def add_errors(requests: Sequence[ExportTraceServiceRequest], every: int = 50) -> set[bytes]:
    """Give the first span to arrive of every `every`-th trace (by trace id) status ERROR, in place; return the ids."""
    chosen = set(sorted({span.trace_id for span in spans(requests)})[::every])
    todo = set(chosen)
    for span in spans(requests):
        if span.trace_id in todo:
            todo.remove(span.trace_id)
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = "injected"
    return chosen
